//! How much a mask leaves, without training: proxies a layer and for the network. None of them is an accuracy.

use super::mask::Mask;
use super::saliency::{Criterion, Matrix, Statistics, by_group};
use super::select;
use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;

/// Proxies of one layer under one mask. Fractions lie in [0, 1]; 1 (0 for losses) is the dense layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Quality {
    /// Weights.
    pub weights: u64,
    /// Weights that stay.
    pub kept: u64,
    /// Σ|w| kept over Σ|w|.
    pub kept_l1: f64,
    /// Σw² kept over Σw².
    pub kept_energy: f64,
    /// Σ ½·h·w² over what goes (LeCun et al. 1989, eq. 4), where inputs or gradients are known; its unit is the loss's.
    pub obd_increase: Option<f64>,
    /// Σ|w|·‖x‖ kept over Σ|w|·‖x‖, where the inputs are known.
    pub kept_wanda: Option<f64>,
    /// ‖X·(W−Ŵ)ᵀ‖ over ‖X·Wᵀ‖ (Frobenius), where inputs or their products are known; updates of weights count.
    pub output_error: Option<f64>,
    #[serde(skip)]
    sums: Sums,
}

/// What the fractions are made of, so that layers add up to a network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sums {
    l1: f64,
    energy: f64,
}

impl Quality {
    /// Of a mask (and, where a criterion changed them, the weights left) on a layer.
    ///
    /// # Errors
    /// A mask, weights or statistics of another shape.
    pub fn of(w: Matrix<'_>, mask: &Mask, updated: Option<&[f32]>, statistics: &Statistics) -> Result<Self> {
        let Matrix { weights, n, k } = w;
        if (mask.rows(), mask.cols()) != (n as u64, k as u64) || weights.len() != n * k {
            let reason = format!("a {}×{} mask does not fit a {n}×{k} matrix", mask.rows(), mask.cols());
            return Err(Error::argument("mask", reason));
        }
        if updated.is_some_and(|u| u.len() != weights.len()) {
            return Err(Error::argument("weights", "changed weights of another shape than the layer's"));
        }
        let (mut l1, mut energy, mut kept_l1, mut kept_energy) = (0f64, 0f64, 0f64, 0f64);
        for (r, row) in weights.chunks_exact(k.max(1)).enumerate() {
            for &x in row {
                l1 += f64::from(x.abs());
                energy += f64::from(x) * f64::from(x);
            }
            for c in mask.columns(r as u64) {
                let x = f64::from(row[c as usize]);
                kept_l1 += x.abs();
                kept_energy += x * x;
            }
        }
        let gone = |scores: &[f32]| -> (f64, f64) {
            let mut sums = (0f64, 0f64);
            for (i, &s) in scores.iter().enumerate() {
                let stays = mask.get((i / k) as u64, (i % k) as u64);
                if stays { sums.0 += f64::from(s) } else { sums.1 += f64::from(s) }
            }
            sums
        };
        let known = statistics.knows_inputs();
        let by = |c: Criterion| c.scores(w, statistics, 0).map(|s| gone(&s));
        let obd = if known || statistics.knows_gradients() { Some(by(Criterion::Obd)?.1) } else { None };
        let wanda = if known { Some(by(Criterion::Wanda)?).map(|(k, g)| share(k, k + g)) } else { None };
        let left = |r: usize, c: usize| match updated {
            Some(u) => u[r * k + c],
            None if mask.get(r as u64, c as u64) => weights[r * k + c],
            None => 0.0,
        };
        Ok(Self {
            weights: (n * k) as u64,
            kept: mask.count(),
            kept_l1: share(kept_l1, l1),
            kept_energy: share(kept_energy, energy),
            obd_increase: obd,
            kept_wanda: wanda,
            output_error: output_error(w, &left, statistics)?,
            sums: Sums { l1, energy },
        })
    }

    /// The network's: sums over the layers; the output error is the root mean square of the layers' relative errors
    /// (each layer alone, on undisturbed inputs), which is no error of the network's output.
    pub fn network(layers: &[Self]) -> Self {
        let sum = |f: fn(&Self) -> f64| layers.iter().map(f).sum::<f64>();
        let all =
            |f: fn(&Self) -> Option<f64>| layers.iter().map(f).collect::<Option<Vec<f64>>>().filter(|v| !v.is_empty());
        let (l1, energy) = (sum(|q| q.sums.l1), sum(|q| q.sums.energy));
        Self {
            weights: layers.iter().map(|q| q.weights).sum(),
            kept: layers.iter().map(|q| q.kept).sum(),
            kept_l1: share(sum(|q| q.kept_l1 * q.sums.l1), l1),
            kept_energy: share(sum(|q| q.kept_energy * q.sums.energy), energy),
            obd_increase: all(|q| q.obd_increase).map(|v| v.iter().sum()),
            kept_wanda: all(|q| q.kept_wanda).map(|v| v.iter().sum::<f64>() / v.len() as f64),
            output_error: all(|q| q.output_error)
                .map(|v| (v.iter().map(|e| e * e).sum::<f64>() / v.len() as f64).sqrt()),
            sums: Sums { l1, energy },
        }
    }
}

/// The proxies of a pattern on a layer under a criterion: what a search over patterns asks.
///
/// # Errors
/// As [`Criterion::select`].
pub fn quality(
    w: Matrix<'_>,
    pattern: &SparsityPattern,
    criterion: Criterion,
    statistics: &Statistics,
    seed: u64,
) -> Result<Quality> {
    let chosen = criterion.select(w, statistics, pattern, seed)?;
    Quality::of(w, &chosen.mask, chosen.updated.as_deref(), statistics)
}

/// Kept magnitude under N:M before and after a search for a better column order.
///
/// # Errors
/// As [`select::permutation`].
pub fn permuted(scores: &[f32], n: usize, k: usize, keep: u64, m: u64, seed: u64) -> Result<(f64, f64)> {
    let order = select::permutation(scores, n, k, keep, m, seed)?;
    let plain: Vec<usize> = (0..k).collect();
    let kept = |order: &[usize]| select::kept_in_order(scores, k, order, keep, m);
    Ok((kept(&plain), kept(&order)))
}

/// √(tr(Δ·P·Δᵀ)/tr(W·P·Wᵀ)) with P = Σx·xᵀ: from products where they are known, from rows otherwise.
fn output_error(w: Matrix<'_>, left: &dyn Fn(usize, usize) -> f32, s: &Statistics) -> Result<Option<f64>> {
    let Some(parts) = by_group(w, s) else {
        return Ok(squares(w, left, s)?.map(|(wrong, right)| relative(wrong, right)));
    };
    let (mut wrong, mut right) = (0f64, 0f64);
    for (g, (part, s)) in parts?.into_iter().enumerate() {
        let Some(sums) = squares(part, &|r, c| left(g * part.n + r, c), s)? else { return Ok(None) };
        wrong += sums.0;
        right += sums.1;
    }
    Ok(Some(relative(wrong, right)))
}

/// ‖X·(W−Ŵ)ᵀ‖² and ‖X·Wᵀ‖².
fn squares(w: Matrix<'_>, left: &dyn Fn(usize, usize) -> f32, s: &Statistics) -> Result<Option<(f64, f64)>> {
    let Matrix { weights, n, k } = w;
    if s.products.is_none() && s.inputs.is_none() {
        return Ok(None);
    }
    let (mut wrong, mut right) = (0f64, 0f64);
    if s.products.is_none()
        && let Some(rows) = &s.inputs
    {
        let mut delta = vec![0f64; k];
        for r in 0..n {
            let row = &weights[r * k..][..k];
            delta.iter_mut().enumerate().for_each(|(c, d)| *d = f64::from(row[c]) - f64::from(left(r, c)));
            for x in rows.chunks_exact(k.max(1)) {
                let (mut a, mut b) = (0f64, 0f64);
                for (c, &x) in x.iter().enumerate() {
                    a += f64::from(x) * delta[c];
                    b += f64::from(x) * f64::from(row[c]);
                }
                wrong += a * a;
                right += b * b;
            }
        }
        return Ok(Some((wrong, right)));
    }
    let p = s.products(k, Criterion::SparseGpt)?;
    let form = |v: &[f64]| -> f64 {
        p.chunks_exact(k.max(1))
            .zip(v)
            .filter(|(_, x)| **x != 0.0)
            .map(|(line, x)| x * line.iter().zip(v).map(|(a, b)| a * b).sum::<f64>())
            .sum()
    };
    for r in 0..n {
        let row: Vec<f64> = weights[r * k..][..k].iter().map(|&x| f64::from(x)).collect();
        let delta: Vec<f64> = row.iter().enumerate().map(|(c, x)| x - f64::from(left(r, c))).collect();
        wrong += form(&delta).max(0.0);
        right += form(&row).max(0.0);
    }
    Ok(Some((wrong, right)))
}

/// A part of a whole; everything of nothing is kept.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 1.0 }
}

/// Root of a ratio of squares; an output that is nothing has no error.
fn relative(wrong: f64, right: f64) -> f64 {
    if right > 0.0 { (wrong / right).sqrt() } else { 0.0 }
}
