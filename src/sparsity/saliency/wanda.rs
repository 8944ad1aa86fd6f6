//! Wanda: |w_ij|·‖x_j‖₂ (Sun, Liu, Bair & Kolter, ICLR 2024, eq. 1), compared within each output.

use super::Matrix;
use crate::error::{Error, Result};

/// |w_ij| times the norm of input j over all calibration rows. Scores rank within a row (see
/// [`crate::sparsity::select::mask_per_output`]).
///
/// # Errors
/// Another number of norms than inputs.
pub fn scores(w: Matrix<'_>, norms: &[f64]) -> Result<Vec<f32>> {
    if norms.len() != w.k {
        return Err(Error::argument("calibration statistics", format!("{} norms for {} inputs", norms.len(), w.k)));
    }
    let row =
        |row: &[f32]| -> Vec<f32> { row.iter().zip(norms).map(|(&w, x)| (f64::from(w.abs()) * x) as f32).collect() };
    Ok(w.weights.chunks_exact(w.k.max(1)).flat_map(row).collect())
}
