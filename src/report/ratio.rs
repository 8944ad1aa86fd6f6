//! How sure a speedup is: the errors of two predictions on one machine are largely the same error.

use super::estimate::Estimate;
use super::row::Row;
use serde::Serialize;
use std::collections::HashMap;

/// Correlation of the errors of two operations on one machine that run differently: half of an error is the model's,
/// which they share, half is the operation's own. It is what [`crate::cost::network`] assumes of two layers.
const SHARED: f64 = 0.5;

/// The quotient of two latencies with its 90 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The quotient.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Ratio {
    /// Whether the interval leaves open which of the two is faster.
    pub fn is_open(&self) -> bool {
        self.low <= 1.0 && self.high >= 1.0
    }
}

/// Latency of `base` over latency of `other`, both of one workload on one machine: above 1 where `other` is faster.
///
/// An interval's ends stand for a half-width in the logarithm, `h = ln(high/low)/2`. With `b_i = h_i·t_i/T` for the steps
/// of one network and `o_i` for those of the other, errors that are equal where a step runs unchanged, and correlated
/// with ρ = 0.5 everywhere else, the half-width of ln(T_base/T_other) is (first order)
/// `√(ρ·(Σb − Σo)² + (1−ρ)·(Σb² + Σo² − 2·Σ_unchanged b·o))`.
pub fn ratio(base: &Estimate, other: &Estimate) -> Ratio {
    let (b, o) = (weights(base), weights(other));
    let rows: HashMap<&str, (usize, &Row)> =
        base.layers.iter().enumerate().map(|(i, r)| (r.name.as_str(), (i, r))).collect();
    let same: f64 = other
        .layers
        .iter()
        .zip(&o)
        .filter_map(|(row, o)| {
            let (i, before) = rows.get(row.name.as_str())?;
            unchanged(before, row).then(|| b[*i] * o)
        })
        .sum();
    half_width(base.total.latency_s / other.total.latency_s, (&b, &o), same)
}

/// The same for one step before and after.
pub fn step_ratio(before: &Row, after: &Row) -> Ratio {
    let h = |r: &Row| half(r.latency_low_s, r.latency_high_s);
    let same = if unchanged(before, after) { h(before) * h(after) } else { 0.0 };
    half_width(before.latency_s / after.latency_s, (&[h(before)], &[h(after)]), same)
}

fn half_width(value: f64, (b, o): (&[f64], &[f64]), same: f64) -> Ratio {
    let sum = |v: &[f64]| v.iter().sum::<f64>();
    let squares = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
    let variance =
        SHARED * (sum(b) - sum(o)).powi(2) + (1.0 - SHARED) * (squares(b) + squares(o) - 2.0 * same).max(0.0);
    let factor = variance.sqrt().exp();
    Ratio { value, low: value / factor, high: value * factor }
}

/// Half-widths of the steps' intervals, each weighted by the step's share of the time.
fn weights(estimate: &Estimate) -> Vec<f64> {
    let total = estimate.total.latency_s;
    estimate.layers.iter().map(|r| half(r.latency_low_s, r.latency_high_s) * r.latency_s / total).collect()
}

fn half(low: f64, high: f64) -> f64 {
    if low > 0.0 && high > low { (high / low).ln() / 2.0 } else { 0.0 }
}

/// Whether a step runs the same kernel over the same operands in the same time.
fn unchanged(a: &Row, b: &Row) -> bool {
    a.kernel == b.kernel && (a.m, a.n, a.k) == (b.m, b.n, b.k) && a.latency_s == b.latency_s
}
