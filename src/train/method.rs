//! The methods by name: what each does to the gradient, after the step, and at the end.

use super::network::Network;
use crate::error::{Error, Result};
use crate::sparsity::regularize::structure::{self, Layer};
use crate::sparsity::regularize::{Group, decay, dynamic, lasso, noise, proxsparse, spartan};
use crate::sparsity::saliency::{Matrix, obd};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::str::FromStr;

/// A way to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the table below says it in words
pub enum Method {
    None,
    L2,
    Elimination,
    Selective,
    Adaptive,
    L1Subgradient,
    L1,
    GroupSubgradient,
    SmoothGroup,
    Group,
    GroupIncoming,
    GroupJoint,
    SparseGroup,
    NoisyGroup,
    Ssl,
    ProxSparse,
    StraightThrough,
    Spartan,
    SpartanUnits,
    Obd,
    Gradual,
    RigL,
    SRigL,
}

/// Every method: its name, whether its strength is a share of zeros (else λ), what it is.
pub const METHODS: [(Method, &str, bool, &str); 23] = [
    (Method::None, "none", false, "no regularizer"),
    (Method::L2, "l2", false, "L2 decay"),
    (Method::Elimination, "elimination", false, "weight elimination, w0 = 0.05"),
    (Method::Selective, "selective", false, "selective decay of the lesser half of a layer, growing"),
    (Method::Adaptive, "adaptive", false, "decay gated by each weight's gradient (AdaDecay)"),
    (Method::L1Subgradient, "l1-subgradient", false, "L1 by its subgradient"),
    (Method::L1, "l1", false, "L1 by its prox"),
    (Method::GroupSubgradient, "group-subgradient", false, "group lasso on outgoing weights by its subgradient"),
    (Method::SmoothGroup, "smooth-group", false, "smoothing group lasso on outgoing weights, a = 0.01"),
    (Method::Group, "group", false, "group lasso on outgoing weights and biases by its prox"),
    (Method::GroupIncoming, "group-incoming", false, "group lasso on incoming weights by its prox"),
    (
        Method::GroupJoint,
        "group-joint",
        false,
        "group lasso on incoming weights, bias and outgoing weights together by its prox",
    ),
    (Method::SparseGroup, "sparse-group", false, "sparse group lasso on outgoing weights by its prox, alpha = 0.5"),
    (
        Method::NoisyGroup,
        "noisy-group",
        false,
        "group lasso on outgoing weights by its prox, gradients at weights with noise of 0.02",
    ),
    (Method::Ssl, "ssl", false, "SSL's filters, channels and filter shapes by their prox"),
    (
        Method::ProxSparse,
        "proxsparse",
        false,
        "ProxSparse's 2:4 regularizer by its prox, the two largest of four kept at the end",
    ),
    (Method::StraightThrough, "sr-ste", false, "2:4 masks with straight-through gradients (SR-STE)"),
    (Method::Spartan, "spartan", true, "Spartan's soft top-k over elements"),
    (Method::SpartanUnits, "spartan-units", true, "Spartan's soft top-k over the rows of hidden units"),
    (Method::Obd, "obd", true, "optimal brain damage, iterated"),
    (Method::Gradual, "gradual", true, "gradual magnitude pruning"),
    (Method::RigL, "rigl", true, "RigL, every layer but the last"),
    (Method::SRigL, "srigl", true, "SRigL with constant fan-in and ablation, every layer but the last"),
];

impl Method {
    /// Its row of [`METHODS`].
    fn row(self) -> &'static (Self, &'static str, bool, &'static str) {
        // The table's order is the enum's, which a test holds.
        &METHODS[self as usize]
    }

    /// Whether its strength is a share of zeros; else it is λ.
    pub fn takes_share(self) -> bool {
        self.row().2
    }

    /// What it is, in words.
    pub fn words(self) -> &'static str {
        self.row().3
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().1)
    }
}

impl FromStr for Method {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let found = METHODS.iter().find(|row| row.1 == text).map(|row| row.0);
        found.ok_or_else(|| Error::unknown("method", text, METHODS.iter().map(|row| row.1)))
    }
}

/// Steps between two uses of what is too dear for every step (soft masks, ProxSparse's prox) or need not be.
const STRIDE: u64 = 10;
/// Masks change over this part of the training; then they stay while weights settle.
const RAMP: (f64, f64) = (0.2, 0.75);

/// A method at work on one network.
pub struct Regularizer {
    method: Method,
    strength: f64,
    steps: u64,
    layers: Vec<Layer>,
    groups: Vec<Group>,
    /// Items that masks take or leave: elements, or rows of hidden units.
    items: Vec<Group>,
    mask: Vec<bool>,
    soft: Vec<f64>,
    fisher: Vec<f64>,
    rng: ChaCha8Rng,
}

impl Regularizer {
    /// Prepares groups and masks; masks that start random draw them and zero the weights.
    ///
    /// # Errors
    /// A strength that is none.
    pub fn new(method: Method, strength: f64, network: &mut Network, steps: u64, seed: u64) -> Result<Self> {
        let fits = if method.takes_share() { (0.0..1.0).contains(&strength) } else { (0.0..1e3).contains(&strength) };
        if !fits {
            let range = if method.takes_share() { "a share of zeros below 1" } else { "λ from 0 to 1000" };
            return Err(Error::argument("--strength", format!("{strength} is not {range}, which {method} takes")));
        }
        let layers = network.layers.clone();
        let groups = match method {
            Method::Group
            | Method::GroupSubgradient
            | Method::SmoothGroup
            | Method::SparseGroup
            | Method::NoisyGroup => structure::outgoing(&layers),
            Method::GroupIncoming => structure::incoming(&layers),
            Method::GroupJoint => structure::joint(&layers),
            Method::Ssl => {
                [structure::filters(&layers), structure::channels(&layers), structure::shapes(&layers)].concat()
            }
            _ => Vec::new(),
        };
        let elements = || layers.iter().flat_map(Layer::weights).map(|i| vec![i]).collect();
        let items = match method {
            Method::Spartan => elements(),
            Method::SpartanUnits => structure::incoming(&layers),
            _ => Vec::new(),
        };
        let soft = vec![1.0; items.len()];
        let parameters = network.parameters.len();
        let mut own = Self {
            method,
            strength,
            steps,
            layers,
            groups,
            items,
            mask: vec![true; parameters],
            soft,
            fisher: vec![0.0; if method == Method::Obd { parameters } else { 0 }],
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x3e9),
        };
        if matches!(method, Method::RigL | Method::SRigL) {
            own.draw();
            own.apply(&mut network.parameters);
        }
        Ok(own)
    }

    /// The same number of inputs for every row, of all layers but the last.
    fn draw(&mut self) {
        let hidden = self.layers.len().saturating_sub(1);
        for l in &self.layers[..hidden] {
            for u in 0..l.outputs {
                let mut places: Vec<usize> = l.row(u).collect();
                super::data::shuffle(&mut places, &mut self.rng);
                let gone = (self.strength * places.len() as f64).round() as usize;
                places[..gone.min(places.len().saturating_sub(1))].iter().for_each(|&i| self.mask[i] = false);
            }
        }
    }

    fn apply(&self, weights: &mut [f32]) {
        weights.iter_mut().zip(&self.mask).filter(|(_, kept)| !**kept).for_each(|(w, _)| *w = 0.0);
    }

    /// The weights at which the gradient is taken, where they are not the network's own.
    pub fn disturb(&mut self, weights: &[f32], step: u64) -> Option<Vec<f32>> {
        match self.method {
            Method::NoisyGroup => {
                let mut noisy = weights.to_vec();
                for l in &self.layers {
                    noise::additive(&mut noisy[l.weights()], 0.02, &mut self.rng);
                }
                Some(noisy)
            }
            Method::StraightThrough => {
                for l in &self.layers {
                    let kept = dynamic::best_of(&weights[l.weights()], l.inputs * l.kernel, 2, 4);
                    self.mask[l.weights()].copy_from_slice(&kept);
                }
                let mut masked = weights.to_vec();
                self.apply(&mut masked);
                Some(masked)
            }
            Method::Spartan | Method::SpartanUnits => {
                if step % STRIDE == 0 {
                    self.soft = self.top_k(weights, step);
                }
                let mut masked = weights.to_vec();
                for (item, m) in self.items.iter().zip(&self.soft) {
                    item.iter().for_each(|&i| masked[i] = (f64::from(masked[i]) * m) as f32);
                }
                Some(masked)
            }
            _ => None,
        }
    }

    /// Spartan's schedule (its appendix): the budget falls to the target over the first fifth, sharpness grows.
    fn top_k(&self, weights: &[f32], step: u64) -> Vec<f64> {
        let (values, costs) = self.values(weights);
        let total: f64 = costs.iter().sum();
        let done = step as f64 / self.steps.max(1) as f64;
        let kept = 1.0 - self.strength * (done / RAMP.0).min(1.0);
        let mean = values.iter().zip(&costs).map(|(v, c)| v / c).sum::<f64>() / values.len().max(1) as f64;
        // Scores are measured by their mean, so that the sharpness means the same for every network.
        spartan::soft_top_k(&values, &costs, kept * total, (1.0 + 19.0 * done) / mean.max(f64::MIN_POSITIVE))
    }

    /// Σ|w| of every item, and its number of weights.
    fn values(&self, weights: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let value = |g: &Group| g.iter().map(|&i| f64::from(weights[i]).abs()).sum::<f64>();
        (self.items.iter().map(value).collect(), self.items.iter().map(|g| g.len() as f64).collect())
    }

    /// Adds the penalty's gradient, layer by layer (biases are free where groups do not hold them).
    pub fn bend(&mut self, weights: &[f32], gradient: &mut [f32], rate: f64, step: u64) {
        let (lambda, done) = (self.strength, step as f64 / self.steps.max(1) as f64);
        match self.method {
            Method::GroupSubgradient => return lasso::group_gradient(weights, &self.groups, lambda, gradient),
            Method::SmoothGroup => {
                return lasso::smooth_group_gradient(weights, &self.groups, lambda, 0.01, gradient);
            }
            Method::Obd => {
                self.fisher.iter_mut().zip(&*gradient).for_each(|(f, g)| *f = 0.99 * *f + 0.01 * f64::from(*g).powi(2));
            }
            _ => {}
        }
        for l in &self.layers {
            let (w, g) = (&weights[l.weights()], &mut gradient[l.weights()]);
            match self.method {
                Method::L2 => decay::l2_gradient(w, lambda, g),
                Method::Elimination => decay::elimination_gradient(w, lambda, 0.05, g),
                Method::Selective => {
                    // Beyond 1/(rate·λ) a step would overshoot zero.
                    let most = 0.5 / (rate * lambda).max(f64::MIN_POSITIVE);
                    decay::selective_gradient(w, lambda, most.powf(done), 0.5, g);
                }
                Method::Adaptive => {
                    let loss = g.to_vec();
                    decay::adaptive_gradient(w, &loss, lambda, 4.0, g);
                }
                Method::L1Subgradient => lasso::l1_gradient(w, lambda, g),
                Method::StraightThrough => dynamic::refined_gradient(w, &self.mask[l.weights()], lambda, g),
                _ => {}
            }
        }
        if matches!(self.method, Method::Gradual | Method::Obd) {
            gradient.iter_mut().zip(&self.mask).filter(|(_, kept)| !**kept).for_each(|(g, _)| *g = 0.0);
        }
    }

    /// What follows the step along the gradient: proximal operators, masks.
    pub fn step(&mut self, weights: &mut [f32], gradient: &[f32], rate: f64, step: u64) {
        let t = rate * self.strength;
        match self.method {
            Method::L1 => self.layers.iter().for_each(|l| lasso::l1_prox(&mut weights[l.weights()], t)),
            Method::Group | Method::GroupIncoming | Method::GroupJoint | Method::NoisyGroup | Method::Ssl => {
                lasso::group_prox(weights, &self.groups, t);
            }
            Method::SparseGroup => lasso::sparse_group_prox(weights, &self.groups, t, 0.5),
            Method::ProxSparse if step % STRIDE == 0 => {
                for l in &self.layers {
                    let columns = l.inputs * l.kernel;
                    weights[l.weights()].chunks_mut(columns).for_each(|row| proxsparse::prox(row, STRIDE as f64 * t));
                }
            }
            Method::Gradual | Method::Obd => {
                if step % STRIDE == 0 {
                    self.prune(weights, step);
                }
                self.apply(weights);
            }
            Method::RigL | Method::SRigL => {
                let (every, end) = ((self.steps / 40).max(1), (RAMP.1 * self.steps as f64) as u64);
                if step > 0 && step % every == 0 && step < end {
                    self.move_masks(weights, gradient, dynamic::drop_share(step, end, 0.3));
                }
                self.apply(weights);
            }
            _ => {}
        }
    }

    fn move_masks(&mut self, weights: &mut [f32], gradient: &[f32], share: f64) {
        let hidden = self.layers.len().saturating_sub(1);
        for l in &self.layers[..hidden] {
            let (w, g, mask) = (&mut weights[l.weights()], &gradient[l.weights()], &mut self.mask[l.weights()]);
            if self.method == Method::RigL {
                dynamic::rigl(w, mask, g, share);
            } else {
                dynamic::srigl(w, mask, g, l.inputs * l.kernel, share, 0.3);
            }
        }
    }

    /// Takes the least weights over all layers until the schedule's share is zero.
    fn prune(&mut self, weights: &[f32], step: u64) {
        let at = |part: f64| (part * self.steps as f64) as u64;
        let share = dynamic::gradual(step, at(RAMP.0), at(RAMP.1), 0.0, self.strength);
        let places: Vec<usize> = self.layers.iter().flat_map(Layer::weights).collect();
        let gone = (share * places.len() as f64).round() as usize;
        let own: Vec<f32> = places.iter().map(|&i| weights[i]).collect();
        let scores = if self.method == Method::Obd {
            let diagonal: Vec<f64> = places.iter().map(|&i| self.fisher[i]).collect();
            // One second derivative for each weight, by construction.
            obd::scores(Matrix { weights: &own, n: 1, k: own.len() }, &diagonal).unwrap_or_default()
        } else {
            own.iter().map(|w| w.abs()).collect()
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // What is gone stays gone.
        order.sort_by(|&a, &b| {
            let key = |i: usize| self.mask[places[i]];
            key(a).cmp(&key(b)).then(scores[a].total_cmp(&scores[b])).then(a.cmp(&b))
        });
        order.iter().take(gone).for_each(|&i| self.mask[places[i]] = false);
    }

    /// Leaves the network as its file will have it: soft masks become hard ones.
    pub fn finish(&mut self, weights: &mut [f32]) {
        match self.method {
            Method::StraightThrough | Method::ProxSparse => {
                for l in &self.layers {
                    let kept = dynamic::best_of(&weights[l.weights()], l.inputs * l.kernel, 2, 4);
                    self.mask[l.weights()].copy_from_slice(&kept);
                }
                self.apply(weights);
            }
            Method::Spartan | Method::SpartanUnits => {
                // The sharpest mask of the schedule scales what stays; the budget decides what does.
                let soft = self.top_k(weights, self.steps);
                let (values, costs) = self.values(weights);
                let mut order: Vec<usize> = (0..values.len()).collect();
                order.sort_by(|&a, &b| (values[b] / costs[b]).total_cmp(&(values[a] / costs[a])).then(a.cmp(&b)));
                let budget = (1.0 - self.strength) * costs.iter().sum::<f64>();
                let mut spent = 0.0;
                for item in order {
                    spent += costs[item];
                    let m = if spent <= budget + 0.5 { soft[item] } else { 0.0 };
                    let scaled = |w: f32| if m == 0.0 { 0.0 } else { (f64::from(w) * m) as f32 };
                    self.items[item].iter().for_each(|&i| weights[i] = scaled(weights[i]));
                }
            }
            _ => {}
        }
    }

    /// Brings the gradient taken at masked weights back to the weights themselves.
    pub fn through(&self, weights: &[f32], gradient: &mut [f32], step: u64) {
        if !matches!(self.method, Method::Spartan | Method::SpartanUnits) {
            return;
        }
        let (values, costs) = self.values(weights);
        let mean = values.iter().zip(&costs).map(|(v, c)| v / c).sum::<f64>() / values.len().max(1) as f64;
        let sharpness = (1.0 + 19.0 * step as f64 / self.steps.max(1) as f64) / mean.max(f64::MIN_POSITIVE);
        let upstream: Vec<f64> = self
            .items
            .iter()
            .map(|g| g.iter().map(|&i| f64::from(gradient[i]) * f64::from(weights[i])).sum())
            .collect();
        let back = spartan::soft_top_k_gradient(&self.soft, &costs, sharpness, &upstream);
        for ((item, m), b) in self.items.iter().zip(&self.soft).zip(back) {
            for &i in item {
                let own = f64::from(gradient[i]) * m;
                gradient[i] = (own + b * f64::from(weights[i].signum())) as f32;
            }
        }
    }
}
