//! The two factorizations that SparseGPT needs. A linear-algebra crate would be most of this program's compile time for
//! sixty lines.

use crate::error::{Error, Result};
use rayon::prelude::*;

/// Lower Cholesky factor L of a symmetric positive definite `[k, k]` matrix A = L·Lᵀ, row-major, zeros above the diagonal
/// (Golub & Van Loan, Matrix Computations, alg. 4.2.1).
///
/// # Errors
/// A matrix that is not positive definite.
pub fn cholesky(a: &[f64], k: usize) -> Result<Vec<f64>> {
    let mut l = a.to_vec();
    for j in 0..k {
        let (above, below) = l.split_at_mut((j + 1) * k);
        let row = &mut above[j * k..];
        let square = row[j] - row[..j].iter().map(|x| x * x).sum::<f64>();
        if square.is_nan() || square <= 0.0 {
            let reason = format!("it is not positive definite at input {j}; raise the dampening or give more samples");
            return Err(Error::argument("Hessian", reason));
        }
        let pivot = square.sqrt();
        row[j] = pivot;
        row[j + 1..].fill(0.0);
        let row = &above[j * k..][..j];
        below.par_chunks_mut(k.max(1)).with_min_len(64).for_each(|lower| {
            let dot: f64 = lower[..j].iter().zip(row).map(|(x, y)| x * y).sum();
            lower[j] = (lower[j] - dot) / pivot;
        });
    }
    Ok(l)
}

/// Inverse of L·Lᵀ from its lower factor, symmetric, row-major.
pub fn inverse(l: &[f64], k: usize) -> Vec<f64> {
    // Row j of M = L⁻ᵀ, which is upper triangular: column j of L⁻¹ by forward substitution. A⁻¹ = M·Mᵀ.
    let mut m = vec![0f64; k * k];
    m.par_chunks_mut(k.max(1)).enumerate().for_each(|(j, x)| {
        for i in j..k {
            let unit = if i == j { 1.0 } else { 0.0 };
            let dot: f64 = l[i * k + j..i * k + i].iter().zip(&x[j..i]).map(|(a, b)| a * b).sum();
            x[i] = (unit - dot) / l[i * k + i];
        }
    });
    let mut inverse = vec![0f64; k * k];
    inverse.par_chunks_mut(k.max(1)).enumerate().for_each(|(i, row)| {
        for (j, x) in row.iter_mut().enumerate() {
            let from = i.max(j);
            *x = m[i * k + from..(i + 1) * k].iter().zip(&m[j * k + from..(j + 1) * k]).map(|(a, b)| a * b).sum();
        }
    });
    inverse
}
