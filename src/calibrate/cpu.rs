//! The CPU model's parameters fitted to one machine's samples.
//!
//! Every parameter is positive, so its logarithm is fitted; residuals are logarithms of predicted over measured under a
//! smoothed absolute value ([`super::hierarchy`]). Intervals come from samples that a fold held out: a fold is a fifth of
//! the shapes, so that no row is judged by a fit that saw its product in another pattern.

use super::hierarchy::{Problem, Row};
use super::predict::cpu_row;
use super::split::shape_place;
use crate::bench::Sample;
use crate::cost::CostModel;
use crate::cost::Options;
use crate::cost::cpu::CpuModel;
use crate::lower::Lowered;
use crate::profile::cpu_parameters::{CpuCalibration, CpuParameters};
use crate::profile::{Device, Profile};
use rayon::prelude::*;
use std::collections::BTreeMap;

const FOLDS: usize = 5;

/// A fitted parameter: where it is, and how far its logarithm may stray (a standard deviation of the prior).
type Slot = (fn(&mut CpuParameters) -> &mut f64, &'static str, f64);

/// What samples of products tell. Shares of measured bandwidths stay close to one.
const SLOTS: &[Slot] = &[
    (|p| &mut p.microkernel, "microkernel", 0.3),
    (|p| &mut p.dot_kernel, "dot_kernel", 0.3),
    (|p| &mut p.tile_kernel, "tile_kernel", 0.3),
    (|p| &mut p.memory_operand, "memory_operand", 0.3),
    (|p| &mut p.private_bandwidth, "private_bandwidth", 0.4),
    (|p| &mut p.shared_bandwidth, "shared_bandwidth", 0.4),
    (|p| &mut p.shared_capacity, "shared_capacity", 0.5),
    (|p| &mut p.memory_bandwidth, "memory_bandwidth", 0.4),
    (|p| &mut p.exposed_weights, "exposed_weights", 0.5),
    (|p| &mut p.outstanding_lines, "outstanding_lines", 0.5),
    (|p| &mut p.cold_lines, "cold_lines", 1.0),
    (|p| &mut p.pack, "pack", 1.0),
    (|p| &mut p.interleave, "interleave", 1.0),
    (|p| &mut p.csr_decode, "csr_decode", 1.0),
    (|p| &mut p.nm_decode, "nm_decode", 1.0),
    (|p| &mut p.block_decode, "block_decode", 1.0),
    (|p| &mut p.row_start, "row_start", 1.0),
    (|p| &mut p.row_end, "row_end", 1.0),
    (|p| &mut p.strip_column, "strip_column", 1.0),
    (|p| &mut p.strip_block, "strip_block", 1.0),
    (|p| &mut p.gather, "gather", 1.0),
    (|p| &mut p.permute, "permute", 1.0),
    (|p| &mut p.call, "call", 1.0),
    (|p| &mut p.fork_join, "fork_join", 1.0),
];

/// A row of a CPU, ready for the model.
struct Prepared<'a> {
    profile: &'a Profile,
    op: Lowered,
    options: Options,
    format: String,
    target: f64,
    place: f64,
}

/// Fits the CPU rows among `rows`; `None` where there are none. Also says which rows were used.
pub fn fit(rows: &[(&Sample, &Profile)], iterations: usize) -> Option<(CpuCalibration, Vec<usize>)> {
    let mut used = Vec::new();
    let mut ready: Vec<Prepared> = Vec::new();
    for (i, (sample, profile)) in rows.iter().enumerate() {
        let Device::Cpu(_) = profile.device else { continue };
        let Ok((op, options)) = cpu_row(sample) else { continue };
        let Ok(cost) = CpuModel::new(profile, options).and_then(|m| m.cost(&op)) else { continue };
        used.push(i);
        ready.push(Prepared {
            profile,
            op,
            options,
            format: cost.executed.format.name().to_string(),
            target: sample.seconds().ln(),
            place: shape_place(sample),
        });
    }
    let profile = ready.first()?.profile;
    let Device::Cpu(cpu) = &profile.device else { return None };
    let prior = CpuParameters::prior(cpu);
    let all: Vec<&Prepared> = ready.iter().collect();
    let fold = |row: &Prepared| ((row.place * FOLDS as f64) as usize).min(FOLDS - 1);
    // The last of these is the fit to everything, the others leave a fold out.
    let fits: Vec<(CpuParameters, BTreeMap<String, f64>)> = (0..=FOLDS)
        .into_par_iter()
        .map(|held| {
            let kept: Vec<&Prepared> = all.iter().copied().filter(|r| held == FOLDS || fold(r) != held).collect();
            fitted(&kept, prior, iterations)
        })
        .collect();
    let mut ratios: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in &all {
        let (parameters, pace) = &fits[fold(row)];
        let time = seconds(row, *parameters) * pace.get(&row.format).copied().unwrap_or(1.0);
        ratios.entry(row.format.clone()).or_default().push(row.target - time.ln());
    }
    let (parameters, pace) = fits.into_iter().next_back()?;
    let mut calibration = CpuCalibration {
        device: profile.name.clone(),
        samples_hash: hash(rows, &used),
        parameters,
        pace,
        ..CpuCalibration::default()
    };
    for (format, mut r) in ratios {
        let error = 100.0 * r.iter().map(|r| ((-r).exp() - 1.0).abs()).sum::<f64>() / r.len() as f64;
        r.sort_by(f64::total_cmp);
        calibration.interval.insert(format.clone(), (quantile(&r, 0.05).exp(), quantile(&r, 0.95).exp()));
        calibration.held_out.insert(format, error);
    }
    Some((calibration, used))
}

fn seconds(row: &Prepared, parameters: CpuParameters) -> f64 {
    CpuModel::with_parameters(row.profile, row.options, parameters)
        .and_then(|m| m.cost(&row.op))
        .map_or(f64::NAN, |c| c.time.get())
}

/// Parameters and paces that describe the rows best.
fn fitted(rows: &[&Prepared], prior: CpuParameters, iterations: usize) -> (CpuParameters, BTreeMap<String, f64>) {
    let prior = nearest(rows, prior);
    let mut problem = Problem::default();
    let mut start = prior;
    let means: Vec<f64> = SLOTS.iter().map(|(slot, ..)| slot(&mut start).max(1e-6).ln()).collect();
    let layout = problem.layout("cpu", |p| {
        SLOTS.iter().zip(&means).map(|((_, name, deviation), mean)| vec![p.column(name, *mean, *deviation)]).collect()
    });
    problem.rows = rows.iter().map(|r| Row { layout, target: r.target, weight: 1.0 }).collect();
    let decode = |slots: &[f64]| {
        let mut parameters = prior;
        for ((slot, ..), value) in SLOTS.iter().zip(slots) {
            *slot(&mut parameters) = value.exp();
        }
        parameters
    };
    let solution = problem.fit(&|i, slots| seconds(rows[i], decode(slots)), iterations);
    let mut slots = Vec::new();
    problem.slots(layout, &solution, &mut slots);
    let parameters = decode(&slots);
    let mut left: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for row in rows {
        left.entry(row.format.clone()).or_default().push(row.target - seconds(row, parameters).ln());
    }
    let pace = left.into_iter().map(|(format, mut r)| {
        r.sort_by(f64::total_cmp);
        (format, quantile(&r, 0.5).exp())
    });
    (parameters, pace.collect())
}

/// The prior with the share of the last cache that describes the rows best: footprints far from its capacity hit or miss
/// it whatever it is exactly, so that a fit's small steps would not find it.
fn nearest(rows: &[&Prepared], prior: CpuParameters) -> CpuParameters {
    let shares = (0..8).map(|i| prior.shared_capacity * (-0.5 * f64::from(i)).exp2());
    let misfit = |p: CpuParameters| rows.iter().map(|row| (seconds(row, p).ln() - row.target).abs()).sum::<f64>();
    let candidates = shares.map(|shared_capacity| CpuParameters { shared_capacity, ..prior });
    candidates.map(|p| (misfit(p), p)).min_by(|a, b| a.0.total_cmp(&b.0)).map_or(prior, |(_, p)| p)
}

/// Of sorted values, between the two nearest ranks.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, share) = (at.floor() as usize, at.fract());
    sorted[low] + share * (sorted[(low + 1).min(sorted.len() - 1)] - sorted[low])
}

/// FNV-1a over what was measured.
fn hash(rows: &[(&Sample, &Profile)], used: &[usize]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for &i in used {
        let s = rows[i].0;
        let text =
            format!("{} {} {} {} {} {} {:?} {}", s.m, s.n, s.k, s.pattern, s.kernel, s.dtype, s.timing, s.latency_us);
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_by_hand() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[7.0], 0.95), 7.0);
    }
}
