//! The product by definition: what every kernel is checked against.

use super::{Activations, WeightMatrix};

/// `y[n, m] = W[n, k] · x[k, m]`, accumulated in f64.
pub fn product(weights: WeightMatrix<'_>, x: Activations<'_>) -> Vec<f32> {
    let mut y = Vec::with_capacity(weights.n * x.m);
    let mut row = vec![0.0f64; x.m];
    for values in weights.values.chunks_exact(weights.k.max(1)).take(weights.n) {
        row.fill(0.0);
        for (w, columns) in values.iter().zip(x.values.chunks_exact(x.m.max(1))) {
            for (sum, x) in row.iter_mut().zip(columns) {
                *sum += f64::from(*w) * f64::from(*x);
            }
        }
        y.extend(row.iter().map(|&v| v as f32));
    }
    y
}
