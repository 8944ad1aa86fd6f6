//! Weight noise: gradients are taken at disturbed weights and applied to the clean ones.
//!
//! With a group-lasso penalty: Wang et al., "Weight noise injection-based MLPs with group lasso penalty", IEEE Trans.
//! Cybernetics 50(10), 2020 (online 2019).

use rand::{Rng, RngExt};

/// Adds to every weight a draw of N(0, σ²).
pub fn additive(weights: &mut [f32], sigma: f64, rng: &mut impl Rng) {
    for w in weights {
        *w += (sigma * normal(rng)) as f32;
    }
}

/// Multiplies every weight by 1 + b, b of N(0, σ²): zeros stay zero.
pub fn multiplicative(weights: &mut [f32], sigma: f64, rng: &mut impl Rng) {
    for w in weights {
        *w *= (1.0 + sigma * normal(rng)) as f32;
    }
}

/// A standard normal number (Box and Muller 1958).
pub fn normal(rng: &mut impl Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
