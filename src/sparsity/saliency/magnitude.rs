//! Criteria that read the weights alone, and the batch norm's scale.

use super::Matrix;
use crate::error::{Error, Result};

/// |w| (Han et al., NeurIPS 2015). Summed over a block, row or channel it is the L1 norm (Li et al., ICLR 2017).
pub fn l1(weights: &[f32]) -> Vec<f32> {
    weights.iter().map(|w| w.abs()).collect()
}

/// w². Summed over a block, row or channel it is the squared L2 norm, whose order is the norm's.
pub fn l2(weights: &[f32]) -> Vec<f32> {
    weights.iter().map(|w| w * w).collect()
}

/// |γ_i|/k for every weight of output i, so that a row sums to |γ_i|: the scale of the batch norm behind the output
/// (Liu et al., ICCV 2017, §3). It ranks outputs; weights within one are alike.
///
/// # Errors
/// Another number of scales than outputs.
pub fn batch_norm(w: Matrix<'_>, gamma: &[f32]) -> Result<Vec<f32>> {
    if gamma.len() != w.n {
        let reason = format!("{} scales for {} outputs; give one an output", gamma.len(), w.n);
        return Err(Error::argument("batch-norm scales", reason));
    }
    Ok(gamma.iter().flat_map(|g| std::iter::repeat_n(g.abs() / w.k.max(1) as f32, w.k)).collect())
}
