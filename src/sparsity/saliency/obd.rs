//! Optimal brain damage: ½·h_ii·w_i² (LeCun, Denker & Solla, NeurIPS 1989, eq. 4), the loss increase of a second-order
//! expansion at a minimum with the Hessian taken as diagonal.

use super::Matrix;
use crate::error::{Error, Result};

/// ½·h·w² with one h a weight.
///
/// # Errors
/// Another number of h than weights.
pub fn scores(w: Matrix<'_>, diagonal: &[f64]) -> Result<Vec<f32>> {
    if diagonal.len() != w.weights.len() {
        let reason = format!("{} second derivatives for {} weights", diagonal.len(), w.weights.len());
        return Err(Error::argument("diagonal Hessian", reason));
    }
    Ok(w.weights.iter().zip(diagonal).map(|(&w, h)| (0.5 * h * f64::from(w) * f64::from(w)) as f32).collect())
}

/// The same for a linear layer under squared output error: H = 2·XXᵀ, so that h_ij = 2·Σ x_j² for every output
/// (Frantar & Alistarh, ICML 2023, §2). `squares[j]` is Σ x_j² over the calibration rows.
///
/// # Errors
/// Another number of squares than inputs.
pub fn scores_by_input(w: Matrix<'_>, squares: &[f64]) -> Result<Vec<f32>> {
    if squares.len() != w.k {
        let reason = format!("{} input statistics for {} inputs", squares.len(), w.k);
        return Err(Error::argument("calibration statistics", reason));
    }
    let row = |row: &[f32]| -> Vec<f32> {
        row.iter().zip(squares).map(|(&w, s)| (s * f64::from(w) * f64::from(w)) as f32).collect()
    };
    Ok(w.weights.chunks_exact(w.k.max(1)).flat_map(row).collect())
}

/// Diagonal of the empirical Fisher information, the mean over samples of g²: it stands in for the Hessian of a
/// log-likelihood (Theis et al., 2018, eq. 6). `gradients` holds `samples` rows of one gradient a weight.
///
/// # Errors
/// Gradients that do not fill samples × weights.
pub fn fisher(gradients: &[f32], samples: usize, weights: usize) -> Result<Vec<f64>> {
    if samples == 0 || samples.checked_mul(weights) != Some(gradients.len()) {
        let reason = format!("{} values are not {samples} samples of {weights} weights", gradients.len());
        return Err(Error::argument("gradients", reason));
    }
    let mut mean = vec![0f64; weights];
    for row in gradients.chunks_exact(weights.max(1)) {
        mean.iter_mut().zip(row).for_each(|(m, &g)| *m += f64::from(g) * f64::from(g) / samples as f64);
    }
    Ok(mean)
}
