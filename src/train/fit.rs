//! The loop: stochastic (proximal) gradient steps.
//!
//! One step is w ← prox_{η·λ}(w − η·∇(loss + smooth penalty)), the stochastic proximal gradient method: λ has the weight
//! that it has in the objective, at every learning rate η. Without momentum, so that this stays true.

use super::audit::{Structure, accuracy};
use super::autodiff;
use super::data::{Split, shuffle};
use super::method::{Method, Regularizer};
use super::network::Network;
use crate::error::{Error, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// How a network is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The method.
    pub method: Method,
    /// λ, or the share of zeros.
    pub strength: f64,
    /// Passes over the examples.
    pub epochs: u64,
    /// Examples of a step.
    pub batch: usize,
    /// Learning rate at the beginning; it falls to a hundredth by a cosine (Loshchilov and Hutter, ICLR 2017, eq. 5).
    pub rate: f64,
    /// Seed of the order of examples and of what methods draw.
    pub seed: u64,
}

/// What an epoch brought.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Epochs done.
    pub epoch: u64,
    /// Mean loss of its steps, penalties left out.
    pub loss: f64,
    /// Share of test examples that are right; only of the last epoch and where it was asked for.
    pub accuracy: f64,
    /// Zeros.
    pub structure: Structure,
}

/// Trains; `watch` hears of every `each`-th epoch and of the last, and ends the training when it says no.
///
/// # Errors
/// Data that does not fit the network, settings that make no sense, weights that leave the finite numbers.
pub fn fit(
    network: &mut Network,
    data: &Split,
    settings: &Settings,
    each: u64,
    watch: &mut dyn FnMut(Progress) -> bool,
) -> Result<()> {
    let Settings { method, strength, epochs, batch, rate, seed } = *settings;
    if network.features() != data.train.features || network.classes() < data.train.classes.max(data.test.classes) {
        let reason = format!(
            "{} features and {} classes do not fit {}",
            data.train.features,
            data.train.classes,
            network.describe()
        );
        return Err(Error::argument("--network", reason));
    }
    if batch == 0 || epochs == 0 || !(rate > 0.0 && rate.is_finite()) {
        return Err(Error::argument("training", "epochs, batch and learning rate are above zero"));
    }
    let per_epoch = data.train.len().div_ceil(batch) as u64;
    let steps = epochs.saturating_mul(per_epoch);
    let mut regularizer = Regularizer::new(method, strength, network, steps, seed)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0de5);
    let mut order: Vec<usize> = (0..data.train.len()).collect();
    let mut gradient = vec![0f32; network.parameters.len()];
    let mut step = 0;
    for epoch in 1..=epochs {
        shuffle(&mut order, &mut rng);
        let mut sum = 0.0;
        for some in order.chunks(batch) {
            let (inputs, labels) = data.train.gather(some);
            let now = rate * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos()));
            let loss = match regularizer.disturb(&network.parameters, step) {
                Some(disturbed) => {
                    let clean = std::mem::replace(&mut network.parameters, disturbed);
                    let loss = autodiff::loss(network, &inputs, &labels, &mut gradient);
                    network.parameters = clean;
                    loss?
                }
                None => autodiff::loss(network, &inputs, &labels, &mut gradient)?,
            };
            if !loss.is_finite() {
                let reason = format!("the loss is {loss} in epoch {epoch}; lower --rate or --strength");
                return Err(Error::argument("--rate", reason));
            }
            sum += loss * some.len() as f64;
            regularizer.through(&network.parameters, &mut gradient, step);
            regularizer.bend(&network.parameters, &mut gradient, now, step);
            for (w, g) in network.parameters.iter_mut().zip(&gradient) {
                *w = (f64::from(*w) - now * f64::from(*g)) as f32;
            }
            regularizer.step(&mut network.parameters, &gradient, now, step);
            step += 1;
        }
        let last = epoch == epochs;
        if last {
            regularizer.finish(&mut network.parameters);
        }
        if last || each > 0 && epoch % each == 0 {
            let progress = Progress {
                epoch,
                loss: sum / (data.train.len() as f64).max(1.0),
                accuracy: accuracy(network, &data.test)?,
                structure: Structure::of(network),
            };
            if !watch(progress) {
                return Ok(());
            }
        }
    }
    Ok(())
}
