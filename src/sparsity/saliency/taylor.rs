//! First-order Taylor: |w·g| (Molchanov et al., CVPR 2019, eq. 8), the loss change when a weight becomes zero.

use super::Matrix;
use crate::error::{Error, Result};

/// |w·g| with the mean gradient g of each weight.
///
/// # Errors
/// Another number of gradients than weights.
pub fn scores(w: Matrix<'_>, gradient: &[f32]) -> Result<Vec<f32>> {
    if gradient.len() != w.weights.len() {
        let reason = format!("{} gradients for {} weights", gradient.len(), w.weights.len());
        return Err(Error::argument("gradients", reason));
    }
    Ok(w.weights.iter().zip(gradient).map(|(w, g)| (w * g).abs()).collect())
}
