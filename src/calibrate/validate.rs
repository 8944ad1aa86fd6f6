//! Errors of predictions against measurements: overall, by group, and what following them costs.

use super::gpu::{calibrate, prepared};
use super::predict::Predictor;
use super::split::{Split, shape_place};
use crate::bench::Sample;
use crate::error::Result;
use crate::profile::calibration::{BeforeAfter, Provenance, Spread};
use crate::profile::{Calibration, Device, Profile};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Iterations of a fit: enough for the objective to settle.
pub const ITERATIONS: usize = 40;
/// Iterations of a fit that only holds rows out: close to settled, and there is one for each device.
const FOLD_ITERATIONS: usize = 18;

/// The answer of `hwsim validate`, percentages in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Rows predicted.
    pub rows: u64,
    /// Rows that no profile or operation covers.
    pub skipped: u64,
    /// Mean absolute percentage error.
    pub mape: Option<f64>,
    /// Median absolute percentage error.
    pub median_ape: Option<f64>,
    /// 90th percentile of it.
    pub p90_ape: Option<f64>,
    /// Mean signed percentage error; positive means predicted too slow.
    pub bias: Option<f64>,
    /// Kendall's rank correlation of predicted and measured.
    pub kendall_tau: Option<f64>,
    /// Share of rows inside the predicted interval, in percent.
    pub coverage: Option<f64>,
    /// Mean cost of following the prediction among alternatives, in percent.
    pub regret: Option<f64>,
    /// Sets of rows with a choice.
    pub regret_cases: u64,
    /// Share of 2:4 pairs (dense and 2:4 rows of the same product) whose gain or loss has the predicted sign, in
    /// percent; pairs measured within 5 % of equal are left out.
    pub gain_sign: Option<f64>,
    /// Pairs behind it.
    pub gain_pairs: u64,
    /// Why rows were skipped, with counts.
    pub skipped_because: BTreeMap<String, u64>,
    /// By device, operation, dtype, pattern family and kernel.
    pub groups: Vec<Group>,
}

/// Rows that share device, operation, dtype, pattern family and kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Device, as in the file.
    pub device: String,
    /// Operation.
    pub op: String,
    /// Operand format.
    pub dtype: String,
    /// Pattern family.
    pub pattern: String,
    /// Kernel, empty where unknown.
    pub kernel: String,
    /// Rows.
    pub rows: u64,
    /// Mean absolute percentage error.
    pub mape: f64,
    /// Median of it.
    pub median_ape: f64,
    /// 90th percentile of it.
    pub p90_ape: f64,
    /// Mean signed percentage error.
    pub bias: f64,
    /// Rank correlation; `None` for a single row.
    pub kendall_tau: Option<f64>,
}

/// A row's prediction, or why there is none.
pub type Outcome = Result<super::predict::Predicted, String>;

/// Which profile predicts each row: the given one for all, else the built-in one that answers to the row's device.
///
/// # Errors
/// None in a released build, where every built-in profile parses.
pub fn profiles_for<'a>(
    samples: &[Sample],
    given: Option<&'a Profile>,
    built_in: &'a [Profile],
) -> Vec<Option<&'a Profile>> {
    let mut known: BTreeMap<&str, Option<&Profile>> = BTreeMap::new();
    samples
        .iter()
        .map(|s| {
            given.or_else(|| {
                *known.entry(s.device.as_str()).or_insert_with(|| built_in.iter().find(|p| p.answers_to(&s.device)))
            })
        })
        .collect()
}

/// Predicts every row with one calibration.
///
/// # Errors
/// A profile that its model refuses.
pub fn predict(samples: &[Sample], profiles: &[Option<&Profile>], calibration: &Calibration) -> Result<Vec<Outcome>> {
    let mut predictors: BTreeMap<&str, Predictor> = BTreeMap::new();
    for profile in profiles.iter().flatten() {
        if !predictors.contains_key(profile.name.as_str()) {
            predictors.insert(&profile.name, Predictor::new(profile, calibration)?);
        }
    }
    Ok(samples
        .iter()
        .zip(profiles)
        .map(|(sample, profile)| {
            let profile = profile.ok_or_else(|| format!("no profile answers to `{}`", sample.device))?;
            predictors[profile.name.as_str()].predict(sample).map_err(str::to_owned)
        })
        .collect())
}

/// Predicts rows that a split holds out, each with constants fitted to the other rows. Rows that stay in the fit come
/// back as skipped.
///
/// # Errors
/// As [`predict`].
pub fn predict_held_out(samples: &[Sample], profiles: &[Option<&Profile>], split: Split) -> Result<Vec<Outcome>> {
    let folds: Vec<Vec<bool>> = match split {
        Split::Shape(share) => vec![samples.iter().map(|s| shape_place(s) < share).collect()],
        Split::LeaveOneDeviceOut => {
            let devices: std::collections::BTreeSet<&str> = samples.iter().map(|s| s.device.as_str()).collect();
            devices.into_iter().map(|d| samples.iter().map(|s| s.device == d).collect()).collect()
        }
    };
    let mut outcomes: Vec<Outcome> = vec![Err("in the fit".to_owned()); samples.len()];
    let rows = |pick: &dyn Fn(usize) -> bool| -> Vec<(&Sample, &Profile)> {
        (0..samples.len()).filter(|&i| pick(i)).filter_map(|i| Some((&samples[i], profiles[i]?))).collect()
    };
    // What measures something else is known before anything is held out; the held-out rows of such groups count.
    let foreign = foreign(&rows(&|_| true));
    let fitted: Vec<(Vec<bool>, Result<Vec<Outcome>>)> = folds
        .into_par_iter()
        .map(|held| {
            let calibration = fit_without(&rows(&|i| !held[i]), &foreign, FOLD_ITERATIONS);
            let only: Vec<Option<&Profile>> = (0..samples.len()).map(|i| profiles[i].filter(|_| held[i])).collect();
            let predicted = predict(samples, &only, &calibration);
            (held, predicted)
        })
        .collect();
    for (held, predicted) in fitted {
        for (i, outcome) in predicted?.into_iter().enumerate() {
            if held[i] {
                outcomes[i] = match profiles[i] {
                    Some(_) => outcome,
                    None => Err(format!("no profile answers to `{}`", samples[i].device)),
                };
            }
        }
    }
    Ok(outcomes)
}

/// A group of rows whose median is off by more than this factor after a first fit measures something else (a library
/// gap, a mislabelled dtype) and is left out of the second.
const FOREIGN: f64 = 1.8;
/// Fewest rows from which a group is judged.
const JUDGED: usize = 20;

/// Fits a calibration without intervals: once on all rows, once without foreign groups.
pub fn fit(rows: &[(&Sample, &Profile)]) -> Calibration {
    fit_without(rows, &foreign(rows), ITERATIONS)
}

/// Groups of rows that measure something else, with the median logarithm of predicted over measured.
fn foreign(rows: &[(&Sample, &Profile)]) -> BTreeMap<String, f64> {
    let (all, _) = prepared(rows);
    let first = calibrate(&all.iter().map(|(_, r)| r).collect::<Vec<_>>(), FOLD_ITERATIONS);
    let mut ratios: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (_, row) in &all {
        ratios.entry(row.group()).or_default().push(row.log_ratio(&first));
    }
    ratios
        .into_iter()
        .filter(|(_, r)| r.len() >= JUDGED)
        .map(|(g, mut r)| {
            r.sort_by(f64::total_cmp);
            (g.to_owned(), r[r.len() / 2])
        })
        .filter(|(_, median)| median.abs() > FOREIGN.ln())
        .collect()
}

/// Fits a calibration to all rows but those of foreign groups.
fn fit_without(rows: &[(&Sample, &Profile)], foreign: &BTreeMap<String, f64>, iterations: usize) -> Calibration {
    let (all, mut left_out) = prepared(rows);
    let kept: Vec<_> = all.iter().filter(|(_, r)| !foreign.contains_key(r.group())).collect();
    let gpu = calibrate(&kept.iter().map(|(_, r)| r).collect::<Vec<_>>(), iterations);
    let cpu = super::cpu::fit(rows, iterations);
    for (_, row) in &all {
        if let Some(median) = foreign.get(row.group()) {
            let key = format!("{}: measured {:.2} of what a first fit predicts", row.group(), (-median).exp());
            *left_out.entry(key).or_default() += 1;
        }
    }
    let mut provenance = Provenance { hwsim: env!("CARGO_PKG_VERSION").into(), left_out, ..Provenance::default() };
    for (i, _) in &kept {
        let sample = rows[*i].0;
        *provenance.sources.entry(sample.source.clone()).or_default() += 1;
        provenance.devices.push(sample.device.clone());
    }
    if let Some((_, used)) = &cpu {
        provenance.left_out.remove("not a GPU");
        for &i in used {
            *provenance.sources.entry(rows[i].0.source.clone()).or_default() += 1;
            provenance.devices.push(rows[i].0.device.clone());
        }
    }
    provenance.rows = (kept.len() + cpu.as_ref().map_or(0, |(_, used)| used.len())) as u64;
    provenance.devices.sort();
    provenance.devices.dedup();
    let gpu = (!kept.is_empty() || cpu.is_none()).then_some(gpu);
    Calibration { provenance, gpu, cpu: cpu.map(|(c, _)| c) }
}

/// Fits a calibration with its errors before and after and the intervals that held-out devices and the rows' own
/// residuals call for.
///
/// # Errors
/// As [`predict`].
pub fn fit_with_intervals(samples: &[Sample], profiles: &[Option<&Profile>], name: &str) -> Result<Calibration> {
    let rows: Vec<(&Sample, &Profile)> = samples.iter().zip(profiles).filter_map(|(s, p)| Some((s, (*p)?))).collect();
    let mut calibration = fit(&rows);
    calibration.provenance.samples = name.to_owned();
    let held_out = predict_held_out(samples, profiles, Split::LeaveOneDeviceOut)?;
    state_errors(&mut calibration, samples, profiles, &held_out)?;
    Ok(calibration)
}

/// Writes into a calibration its errors before and after and the intervals that its residuals and those of held-out
/// devices call for.
///
/// # Errors
/// As [`predict`].
pub fn state_errors(
    calibration: &mut Calibration,
    samples: &[Sample],
    profiles: &[Option<&Profile>],
    held_out: &[Outcome],
) -> Result<()> {
    let prior = predict(samples, profiles, &Calibration::default())?;
    let fitted = predict(samples, profiles, calibration)?;
    let kind = |s: &Sample| match (s.op.name(), s.pattern.as_str()) {
        ("gemm" | "bmm" | "conv2d", "dense") => "gemm",
        ("gemm" | "bmm" | "conv2d", _) => "sparse",
        ("attention", _) => "attention",
        _ => "stream",
    };
    let mut spreads = BTreeMap::new();
    for of in ["gemm", "sparse", "attention", "stream"] {
        let factor = |outcomes: &[Outcome], pick: &dyn Fn(&Sample, &Profile) -> bool| {
            let mut ratios: Vec<f64> = (0..samples.len())
                .filter(|&i| kind(&samples[i]) == of && profiles[i].is_some_and(|p| pick(&samples[i], p)))
                .filter_map(|i| Some((outcomes[i].as_ref().ok()?.time / samples[i].seconds()).ln().abs()))
                .collect();
            ratios.sort_by(f64::total_cmp);
            (!ratios.is_empty()).then(|| ratios[(ratios.len() * 9 / 10).min(ratios.len() - 1)].exp())
        };
        let alone = |s: &Sample, p: &Profile| {
            let arch = |p: &Profile| if let Device::Gpu(g) = &p.device { g.arch.map(|a| a.kin()) } else { None };
            !samples
                .iter()
                .zip(profiles)
                .any(|(other, q)| other.device != s.device && q.is_some_and(|q| arch(q) == arch(p)))
        };
        let mut lonely: BTreeMap<String, bool> = BTreeMap::new();
        for (s, p) in samples.iter().zip(profiles) {
            if let Some(p) = p {
                lonely.entry(s.device.clone()).or_insert_with(|| alone(s, p));
            }
        }
        let seen = factor(&fitted, &|_, _| true);
        let kin = factor(held_out, &|s, _| !lonely[&s.device]);
        let unknown = factor(held_out, &|s, _| lonely[&s.device]);
        if let Some(seen) = seen {
            let kin = kin.unwrap_or(seen * 1.2).max(seen);
            spreads.insert(of.to_owned(), Spread { seen, kin, unknown: unknown.unwrap_or(kin * 1.2).max(kin) });
        }
    }
    if let Some(gpu) = &mut calibration.gpu {
        gpu.spread = spreads;
    }
    let by_kernel = |outcomes: &[Outcome]| {
        let mut errors: BTreeMap<String, (f64, f64)> = BTreeMap::new();
        for ((s, p), o) in samples.iter().zip(profiles).zip(outcomes) {
            let (Some(Device::Cpu(_)), Ok(o)) = (p.map(|p| &p.device), o) else { continue };
            let sum = errors.entry(format!("kernel {}", s.kernel)).or_default();
            *sum = (sum.0 + 100.0 * (o.time / s.seconds() - 1.0).abs(), sum.1 + 1.0);
        }
        errors
    };
    let after = by_kernel(&fitted);
    for (kernel, (sum, rows)) in by_kernel(&prior) {
        let after = after.get(&kernel).map_or(f64::NAN, |a| a.0 / a.1);
        calibration.provenance.errors.insert(kernel, BeforeAfter { before: sum / rows, after });
    }
    let error = |outcomes: &[Outcome], op: &str| {
        let errors: Vec<f64> = (0..samples.len())
            .filter(|&i| samples[i].op.name() == op)
            .filter_map(|i| Some((outcomes[i].as_ref().ok()?.time / samples[i].seconds() - 1.0).abs()))
            .collect();
        (!errors.is_empty()).then(|| 100.0 * errors.iter().sum::<f64>() / errors.len() as f64)
    };
    for op in ["gemm", "bmm", "conv2d", "attention", "softmax", "layernorm", "elementwise"] {
        if let (Some(before), Some(after)) = (error(&prior, op), error(&fitted, op)) {
            calibration.provenance.errors.insert(op.to_owned(), BeforeAfter { before, after });
        }
    }
    Ok(())
}

/// Compares predictions with measurements.
pub fn validate(samples: &[Sample], outcomes: &[Outcome]) -> Validation {
    let rows: Vec<(&Sample, f64, bool)> = samples
        .iter()
        .zip(outcomes)
        .filter_map(|(s, o)| {
            let p = o.as_ref().ok()?;
            let measured = s.seconds();
            Some((s, p.time, p.interval.0 <= measured && measured <= p.interval.1))
        })
        .collect();
    let mut skipped_because = BTreeMap::new();
    for reason in outcomes.iter().filter_map(|o| o.as_ref().err()) {
        *skipped_because.entry(reason.clone()).or_default() += 1;
    }
    let mut grouped: BTreeMap<[String; 5], Vec<(f64, f64)>> = BTreeMap::new();
    for (s, time, _) in &rows {
        let family = s.pattern.parse().map_or("dense", |p: crate::pattern::SparsityPattern| match p {
            crate::pattern::SparsityPattern::Nm { n: 2, m: 4 } => "2:4",
            other => other.family(),
        });
        let key = [&*s.device, s.op.name(), &s.dtype, family, &s.kernel].map(str::to_owned);
        grouped.entry(key).or_default().push((*time, s.seconds()));
    }
    let groups = grouped
        .into_iter()
        .map(|([device, op, dtype, pattern, kernel], pairs)| {
            let e = Errors::of(&pairs);
            Group {
                device,
                op,
                dtype,
                pattern,
                kernel,
                rows: pairs.len() as u64,
                mape: e.mean,
                median_ape: e.median,
                p90_ape: e.p90,
                bias: e.bias,
                kendall_tau: kendall_tau(&pairs),
            }
        })
        .collect();
    let pairs: Vec<(f64, f64)> = rows.iter().map(|(s, t, _)| (*t, s.seconds())).collect();
    let errors = (!pairs.is_empty()).then(|| Errors::of(&pairs));
    let (regret, regret_cases) = regret(&rows);
    let (gain_sign, gain_pairs) = gain_sign(&rows);
    Validation {
        rows: rows.len() as u64,
        skipped: (samples.len() - rows.len()) as u64,
        mape: errors.as_ref().map(|e| e.mean),
        median_ape: errors.as_ref().map(|e| e.median),
        p90_ape: errors.as_ref().map(|e| e.p90),
        bias: errors.as_ref().map(|e| e.bias),
        kendall_tau: kendall_tau(&pairs),
        coverage: errors.map(|_| 100.0 * rows.iter().filter(|r| r.2).count() as f64 / rows.len() as f64),
        regret,
        regret_cases,
        gain_sign,
        gain_pairs,
        skipped_because,
        groups,
    }
}

/// Percentage errors of (predicted, measured) pairs.
struct Errors {
    mean: f64,
    median: f64,
    p90: f64,
    bias: f64,
}

impl Errors {
    fn of(pairs: &[(f64, f64)]) -> Self {
        let mut absolute: Vec<f64> = pairs.iter().map(|(p, m)| 100.0 * (p / m - 1.0).abs()).collect();
        absolute.sort_by(f64::total_cmp);
        let n = pairs.len();
        let median = if n % 2 == 1 { absolute[n / 2] } else { (absolute[n / 2 - 1] + absolute[n / 2]) / 2.0 };
        Self {
            mean: absolute.iter().sum::<f64>() / n as f64,
            median,
            p90: absolute[(n * 9 / 10).min(n - 1)],
            bias: 100.0 * pairs.iter().map(|(p, m)| p / m - 1.0).sum::<f64>() / n as f64,
        }
    }
}

/// Kendall's τ-b of pairs, in O(n log n): discordances are inversions (Knight, 1966).
fn kendall_tau(pairs: &[(f64, f64)]) -> Option<f64> {
    let n = pairs.len();
    if n < 2 {
        return None;
    }
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let ties = |equal: &dyn Fn(usize, usize) -> bool| -> f64 {
        let (mut total, mut run) = (0.0, 1.0);
        for i in 1..n {
            if equal(i - 1, i) {
                run += 1.0;
            } else {
                total += run * (run - 1.0) / 2.0;
                run = 1.0;
            }
        }
        total + run * (run - 1.0) / 2.0
    };
    let tied_x = ties(&|a, b| sorted[a].0 == sorted[b].0);
    let tied_both = ties(&|a, b| sorted[a] == sorted[b]);
    let mut measured: Vec<f64> = sorted.iter().map(|p| p.1).collect();
    let discordant = inversions(&mut measured);
    let tied_y = ties(&|a, b| measured[a] == measured[b]);
    let all = n as f64 * (n as f64 - 1.0) / 2.0;
    let concordant_less_discordant = all - tied_x - tied_y + tied_both - 2.0 * discordant;
    let scale = ((all - tied_x) * (all - tied_y)).sqrt();
    (scale > 0.0).then(|| concordant_less_discordant / scale)
}

/// Sorts and counts inversions.
fn inversions(values: &mut Vec<f64>) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mut right = values.split_off(values.len() / 2);
    let mut count = inversions(values) + inversions(&mut right);
    let left = std::mem::take(values);
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if j == right.len() || (i < left.len() && left[i] <= right[j]) {
            values.push(left[i]);
            i += 1;
        } else {
            count += (left.len() - i) as f64;
            values.push(right[j]);
            j += 1;
        }
    }
    count
}

/// Mean regret over sets of rows that differ only in pattern and kernel, in percent, and how many such sets. Rows of
/// one pattern and kernel (repetitions, other layouts) are one alternative, by their mean.
fn regret(rows: &[(&Sample, f64, bool)]) -> (Option<f64>, u64) {
    // By pattern and kernel: summed prediction, summed measurement, rows.
    type Alternatives<'a> = BTreeMap<(&'a str, &'a str), (f64, f64, f64)>;
    let mut sets: BTreeMap<String, Alternatives> = BTreeMap::new();
    for (s, time, _) in rows {
        let one = sets.entry(question(s)).or_default().entry((&s.pattern, &s.kernel)).or_default();
        *one = (one.0 + time, one.1 + s.seconds(), one.2 + 1.0);
    }
    let costs: Vec<f64> = sets
        .values()
        .filter(|set| set.len() > 1)
        .map(|set| {
            let means = || set.values().map(|(p, m, n)| (p / n, m / n));
            let followed = means().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(f64::NAN, |p| p.1);
            let best = means().map(|p| p.1).fold(f64::INFINITY, f64::min);
            followed / best - 1.0
        })
        .collect();
    let mean = (!costs.is_empty()).then(|| 100.0 * costs.iter().sum::<f64>() / costs.len() as f64);
    (mean, costs.len() as u64)
}

/// Share of dense and 2:4 pairs whose sign of gain is right, in percent, and how many pairs.
fn gain_sign(rows: &[(&Sample, f64, bool)]) -> (Option<f64>, u64) {
    let mut pairs: BTreeMap<String, [Option<(f64, f64)>; 2]> = BTreeMap::new();
    for (s, time, _) in rows {
        let side = match s.pattern.as_str() {
            "dense" => 0,
            "2:4" => 1,
            _ => continue,
        };
        pairs.entry(question(s)).or_default()[side] = Some((*time, s.seconds()));
    }
    let signs: Vec<bool> = pairs
        .values()
        .filter_map(|[dense, sparse]| Some(((*dense)?, (*sparse)?)))
        .map(|(d, s)| (d.0 / s.0, d.1 / s.1))
        .filter(|(_, measured)| !(0.95..=1.05).contains(measured))
        .map(|(predicted, measured)| (predicted > 1.0) == (measured > 1.0))
        .collect();
    let share = (!signs.is_empty()).then(|| 100.0 * signs.iter().filter(|s| **s).count() as f64 / signs.len() as f64);
    (share, signs.len() as u64)
}

/// What two rows that differ only in pattern and kernel share.
pub fn question(s: &Sample) -> String {
    let timing = s.timing.name();
    format!("{}|{}|{}|{}|{timing}|{}|{}|{}|{}", s.source, s.device, s.op.name(), s.dtype, s.batch, s.m, s.n, s.k)
}

#[cfg(test)]
mod tests {
    use super::kendall_tau;

    #[test]
    fn kendall_by_hand() {
        // Of three pairs one is discordant: (2 − 1)/3.
        let tau = kendall_tau(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)]).unwrap();
        assert!((tau - 1.0 / 3.0).abs() < 1e-12, "{tau}");
        // One tie in x among three: (2 − 0)/√(2·3).
        let tau = kendall_tau(&[(1.0, 1.0), (1.0, 2.0), (2.0, 3.0)]).unwrap();
        assert!((tau - 2.0 / 6f64.sqrt()).abs() < 1e-12, "{tau}");
    }
}
