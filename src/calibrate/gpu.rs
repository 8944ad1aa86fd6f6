//! What is fitted on GPUs, in which order, and how far a constant may differ between engines, generations and
//! architectures.
//!
//! Stages follow the model: dense products first (with what the measuring frameworks add), then what is said relative
//! to them (2:4, other sparse kernels, convolutions), then attention and streams.

use super::hierarchy::{Problem, Row};
use super::predict::{prepare, setting_of};
use crate::bench::{Sample, Timing};
use crate::cost::gpu::attention::attention;
use crate::cost::gpu::constants::{Constants, framework};
use crate::cost::gpu::conv::conv;
use crate::cost::gpu::facts::{Engine, Facts};
use crate::cost::gpu::gemm::gemm;
use crate::cost::gpu::memory::Setting;
use crate::cost::gpu::sparse::{Library, half_constants, library};
use crate::cost::gpu::stream::{Class, stream};
use crate::cost::gpu::work::{Work, evaluate};
use crate::error::Result;
use crate::profile::calibration::{
    AttentionConstants, ConvConstants, FrameworkConstants, GemmConstants, GpuCalibration, LibraryConstants,
    SparseConstants, StreamConstants, Table,
};
use crate::profile::{GpuArch, Profile};
use std::collections::{BTreeMap, BTreeSet};

/// A sample ready for the model.
pub struct Prepared {
    facts: Facts,
    work: Work,
    arch: String,
    generation: String,
    setting: String,
    op: &'static str,
    quantised: Option<String>,
    cold: bool,
    group: String,
    target: f64,
    timing: Timing,
}

/// How far a constant may stray, as standard deviations of its unbounded form: its mean over everything, a
/// generation's, an architecture's, and one engine's of one architecture. Zero forbids.
struct Freedom {
    mean: f64,
    generation: f64,
    arch: f64,
    engine: f64,
}

const fn free(mean: f64, generation: f64, arch: f64, engine: f64) -> Freedom {
    Freedom { mean, generation, arch, engine }
}

/// On tensor cores, in the order of [`GemmConstants::NAMES`]. An architecture has its own issue share, feed, step, ramp
/// and power; what tiles and memories do alike everywhere is one number for an engine.
const TENSOR: [Freedom; 14] = [
    free(1.0, 0.4, 0.5, 0.5),  // issue
    free(0.6, 0.3, 0.25, 0.0), // feed
    free(0.8, 0.3, 0.25, 0.0), // step
    free(0.8, 0.3, 0.3, 0.0),  // ramp
    free(1.0, 0.0, 0.0, 0.0),  // drain
    free(1.0, 0.0, 0.0, 0.0),  // tail
    free(0.8, 0.0, 0.0, 0.0),  // dram
    free(0.5, 0.1, 0.1, 0.05), // power
    free(0.0, 0.0, 0.0, 0.0),  // alpha
    free(1.0, 0.0, 0.0, 0.0),  // combine
    free(0.5, 0.0, 0.0, 0.0),  // overlap
    free(1.0, 0.0, 0.0, 0.0),  // narrow
    free(1.0, 0.0, 0.0, 0.0),  // tlb
    free(0.0, 0.0, 0.0, 0.0),  // low
];
/// On ordinary lanes: libraries' kernels for them differ more between architectures and vendors.
const LANES: [Freedom; 14] = [
    free(1.0, 0.4, 0.5, 0.5),  // issue
    free(0.6, 0.3, 0.25, 0.2), // feed
    free(0.8, 0.0, 0.0, 0.0),  // step
    free(0.8, 0.3, 0.3, 0.15), // ramp
    free(1.0, 0.4, 0.3, 0.3),  // drain
    free(1.0, 0.5, 0.4, 0.3),  // tail
    free(0.8, 0.4, 0.4, 0.2),  // dram
    free(0.5, 0.1, 0.1, 0.1),  // power
    free(0.0, 0.0, 0.0, 0.0),  // alpha
    free(1.0, 0.4, 0.3, 0.2),  // combine
    free(0.5, 0.3, 0.3, 0.1),  // overlap
    free(1.0, 0.5, 0.4, 0.4),  // narrow
    free(1.0, 0.5, 0.5, 0.3),  // tlb
    free(1.0, 0.5, 0.4, 0.4),  // low
];
/// In the order of [`SparseConstants::NAMES`]. One set for all architectures, from which an engine departs a little (the
/// level that other stages give to architectures): what 2:4 changes is the same everywhere, and where architectures were
/// free to differ, devices left out were predicted worse (32 against 27 %, on sixty rows of each group).
const SPARSE: [Freedom; 7] = [
    free(0.8, 0.0, 0.15, 0.0), // issue
    free(0.8, 0.0, 0.15, 0.0), // feed
    free(0.8, 0.0, 0.15, 0.0), // ramp
    free(0.8, 0.0, 0.15, 0.0), // step
    free(0.8, 0.0, 0.15, 0.0), // energy
    free(0.8, 0.0, 0.15, 0.0), // narrow
    free(0.8, 0.0, 0.15, 0.0), // combine
];
/// In the order of [`LibraryConstants::NAMES`]. A kernel's start and end stay near a few microseconds: left freer, they took
/// up what rows of few nonzeros cost otherwise (24 µs for CLASP), and unseen shapes were predicted worse (25 against 22 %
/// there, 17 against 14 % for compressed rows).
const LIBRARY: [Freedom; 9] = [
    free(1.0, 0.0, 0.0, 0.0), // issue
    free(1.0, 0.0, 0.0, 0.0), // feed
    free(0.3, 0.0, 0.0, 0.0), // dram
    free(1.5, 0.0, 0.0, 0.0), // row
    free(0.4, 0.0, 0.0, 0.0), // ramp
    free(0.7, 0.0, 0.0, 0.0), // imbalance
    free(1.5, 0.0, 0.0, 0.0), // decode
    free(0.7, 0.0, 0.0, 0.0), // reuse
    free(4.0, 0.0, 0.0, 0.0), // quadratic
];
const CONV: [Freedom; 4] =
    [free(0.2, 0.0, 0.0, 0.0), free(0.3, 0.0, 0.0, 0.0), free(0.4, 0.0, 0.0, 0.0), free(0.6, 0.0, 0.0, 0.0)];
/// In the order of [`AttentionConstants::NAMES`].
const ATTENTION: [Freedom; 11] = [
    free(1.0, 0.4, 0.5, 0.0), // issue
    free(0.4, 0.0, 0.0, 0.0), // exponential
    free(0.3, 0.0, 0.0, 0.0), // power
    free(0.4, 0.1, 0.2, 0.0), // ramp
    free(0.8, 0.4, 0.4, 0.0), // dram
    free(0.4, 0.1, 0.2, 0.0), // decode_ramp
    free(1.0, 0.4, 0.4, 0.0), // decode_step
    free(1.0, 0.4, 0.4, 0.0), // decode_head
    free(1.0, 0.0, 0.0, 0.0), // tail
    free(1.0, 0.0, 0.0, 0.0), // tokens
    free(0.7, 0.0, 0.0, 0.0), // block
];
/// In the order of [`StreamConstants::NAMES`]. A kernel's own start and end stay near a few trips to memory: rows are
/// nearly all timed call by call, and the rest of a short call is the framework's.
const STREAM: [Freedom; 6] = [
    free(0.8, 0.4, 0.4, 0.4), // dram
    free(0.6, 0.3, 0.3, 0.2), // feed
    free(0.3, 0.1, 0.1, 0.1), // ramp
    free(0.8, 0.3, 0.3, 0.3), // row
    free(1.0, 0.0, 0.0, 0.0), // passes
    free(0.6, 0.0, 0.0, 0.0), // resident
];

/// Prior of a framework's overhead: seconds a call and the deviation of its logarithm.
fn overhead_prior(setting: &str, quantised: bool) -> (f64, f64) {
    let timing = setting.split('/').nth(1).unwrap_or("");
    match (timing, quantised) {
        // A CUDA graph replays kernels about 1.5 µs apart.
        ("cold", false) => (1.5e-6, 0.15),
        ("cold", true) => (6e-6, 0.5),
        ("host", _) => (12e-6, 0.7),
        _ => (4e-6, 0.15),
    }
}

/// Rows that the GPU model covers, with the reasons of those that it does not.
pub fn prepared(samples: &[(&Sample, &Profile)]) -> (Vec<(usize, Prepared)>, BTreeMap<String, u64>) {
    let mut rows = Vec::new();
    let mut left_out = BTreeMap::new();
    for (i, (sample, profile)) in samples.iter().enumerate() {
        match ready(sample, profile) {
            Ok(row) => rows.push((i, row)),
            Err(reason) => *left_out.entry(reason.to_owned()).or_default() += 1,
        }
    }
    (rows, left_out)
}

fn ready(sample: &Sample, profile: &Profile) -> Result<Prepared, &'static str> {
    let facts = Facts::of(profile).map_err(|_| "not a GPU")?;
    let work = prepare(&facts, sample)?;
    let arch = facts.arch.map_or("unknown", |a| a.kin().name()).to_owned();
    let generation = facts.generation().map_or("unknown".to_owned(), |g| format!("{g:?}"));
    let family = sample.pattern.split('@').next().unwrap_or("");
    Ok(Prepared {
        arch,
        generation,
        setting: sample.setting(),
        op: sample.op.name(),
        quantised: quantised(sample).map(str::to_owned),
        cold: sample.timing == Timing::Cold,
        group: format!(
            "{}|{}|{}|{}|{family}|{}",
            sample.op.name(),
            sample.source,
            sample.device,
            sample.dtype,
            sample.kernel
        ),
        target: sample.seconds().ln(),
        timing: sample.timing,
        facts,
        work,
    })
}

/// The dtype of a serving stack's product that quantises its activations inside the timed call.
pub(super) fn quantised(sample: &Sample) -> Option<&str> {
    let narrow = matches!(sample.dtype.as_str(), "fp8" | "int8" | "fp4");
    // Serving stacks take 16-bit activations; library benchmarks take quantised ones.
    (narrow && matches!(sample.kernel.as_str(), "trtllm" | "vllm")).then_some(sample.dtype.as_str())
}

/// The framework key of a row.
pub(super) fn framework_key(setting: &str, quantised: Option<&str>) -> String {
    quantised.map_or_else(|| setting.to_owned(), |dtype| format!("{setting}/{dtype}"))
}

/// Fits all stages.
pub fn calibrate(rows: &[&Prepared], iterations: usize) -> GpuCalibration {
    let mut calibration = GpuCalibration::default();
    let stage =
        |pick: &dyn Fn(&Work) -> bool| -> Vec<&Prepared> { rows.iter().copied().filter(|r| pick(&r.work)).collect() };
    dense_stage(&mut calibration, &stage(&|w| matches!(w, Work::Dense(_))), iterations);
    sparse_stage(&mut calibration, &stage(&|w| matches!(w, Work::Half(_))), iterations);
    library_stage(&mut calibration, &stage(&|w| matches!(w, Work::Library(_))), iterations);
    conv_stage(&mut calibration, &stage(&|w| matches!(w, Work::Conv(..))), iterations);
    attention_stage(&mut calibration, &stage(&|w| matches!(w, Work::Attention(_))), iterations);
    stream_stage(&mut calibration, &stage(&|w| matches!(w, Work::Stream(_))), iterations);
    timing_defaults(&mut calibration);
    calibration
}

/// Weight of each row: a group of the same source, device, operation, dtype, pattern and kernel counts by its rows up
/// to 60 of them, so that no source drowns the others.
fn weights(rows: &[&Prepared]) -> Vec<f64> {
    let mut counts: BTreeMap<&str, f64> = BTreeMap::new();
    for row in rows {
        *counts.entry(&row.group).or_default() += 1.0;
    }
    rows.iter().map(|r| (60.0 / counts[r.group.as_str()]).min(1.0)).collect()
}

/// One stage's problem over given constants, with levels `mean`, generation, architecture and engine.
struct Stage {
    problem: Problem,
    freedoms: fn(&str) -> &'static [Freedom],
    prior: fn(&str) -> Vec<f64>,
    names: &'static [&'static str],
}

impl Stage {
    fn new(
        freedoms: fn(&str) -> &'static [Freedom],
        prior: fn(&str) -> Vec<f64>,
        names: &'static [&'static str],
    ) -> Self {
        Self { problem: Problem::default(), freedoms, prior, names }
    }

    /// Columns of each slot for an engine (or kind) on an architecture.
    fn slots(&mut self, engine: &str, arch: &str, generation: &str) -> Vec<Vec<usize>> {
        let (freedoms, prior, names) = ((self.freedoms)(engine), (self.prior)(engine), self.names);
        let unit = unit(engine);
        let p = &mut self.problem;
        freedoms
            .iter()
            .zip(names)
            .enumerate()
            .map(|(j, (f, name))| {
                let mut columns = vec![p.column(&format!("mean.{engine}.{name}"), prior[j], f.mean)];
                if f.generation > 0.0 {
                    columns.push(p.column(&format!("generation.{generation}.{unit}.{name}"), 0.0, f.generation));
                }
                if f.arch > 0.0 {
                    columns.push(p.column(&format!("arch.{arch}.{unit}.{name}"), 0.0, f.arch));
                }
                if f.engine > 0.0 {
                    columns.push(p.column(&format!("engine.{arch}.{engine}.{name}"), 0.0, f.engine));
                }
                columns
            })
            .collect()
    }

    /// The fitted slots of an engine on an architecture; levels that no row touched add nothing.
    fn resolve(&self, engine: &str, arch: Option<GpuArch>, solution: &[f64]) -> Vec<f64> {
        let generation = arch.map(|a| format!("{:?}", a.generation()));
        let names = arch.map(|a| a.kin().name()).zip(generation.as_deref());
        self.resolve_at(engine, names, solution)
    }

    /// As [`Stage::resolve`], by the names of an architecture and its generation.
    fn resolve_at(&self, engine: &str, of: Option<(&str, &str)>, solution: &[f64]) -> Vec<f64> {
        let (prior, unit) = ((self.prior)(engine), unit(engine));
        let value = |key: String| self.problem.value(&key, solution);
        let mut slots = Vec::new();
        for (name, prior) in self.names.iter().zip(prior) {
            let mut slot = value(format!("mean.{engine}.{name}")).unwrap_or(prior);
            if let Some((arch, generation)) = of {
                slot += value(format!("generation.{generation}.{unit}.{name}")).unwrap_or(0.0)
                    + value(format!("arch.{arch}.{unit}.{name}")).unwrap_or(0.0)
                    + value(format!("engine.{arch}.{engine}.{name}")).unwrap_or(0.0);
            }
            slots.push(slot);
        }
        slots
    }

    /// The fitted constants of an engine: what all architectures share, and each of them.
    fn table<T>(&self, engine: &str, solution: &[f64], from_slots: fn(&[f64]) -> T) -> Table<T> {
        let of = |arch| from_slots(&self.resolve(engine, arch, solution));
        let arch = architectures().into_iter().map(|a| (a.name().to_owned(), of(Some(a)))).collect();
        Table { shared: of(None), arch }
    }
}

/// Prior means of dense products: an fp32 operation on the ordinary lanes costs several times the energy of one on
/// tensor cores, an 8-bit one there less than a 16-bit one. They begin below what most devices sustain, because a row
/// whose device would not be limited at all says nothing about its limit. The exponent is stated, not fitted (rows of
/// saturated devices pull it down): A100's boards of 250, 300 and 400 W give 0.57 in fp32 and 0.5 to 0.65 in 16 bit.
fn gemm_prior(engine: &str) -> Vec<f64> {
    let base = GemmConstants::default();
    let power = match engine {
        "lanes32" | "lanes16" => 0.19,
        "tensor16" => 0.55,
        "tensor8" => 0.8,
        _ => 1.0,
    };
    let alpha = 0.6;
    GemmConstants { power, alpha, ..base }.to_slots()
}

/// Engines whose kernels are of one family, so that an architecture departs from the mean alike on all of them.
fn unit(engine: &str) -> &str {
    match Engine::ALL.into_iter().find(|e| e.name() == engine) {
        Some(e) if e.is_tensor() => "tensor",
        Some(_) => "lanes",
        None => "any",
    }
}

/// Architectures to write constants for.
fn architectures() -> BTreeSet<GpuArch> {
    GpuArch::ALL.into_iter().map(GpuArch::kin).collect()
}

fn dense_stage(calibration: &mut GpuCalibration, rows: &[&Prepared], iterations: usize) {
    let mut stage =
        Stage::new(|engine| if unit(engine) == "tensor" { &TENSOR } else { &LANES }, gemm_prior, GemmConstants::NAMES);
    let mut keys: BTreeSet<(String, bool, bool)> = BTreeSet::new();
    for (row, weight) in rows.iter().zip(weights(rows)) {
        let Work::Dense(w) = &row.work else { continue };
        let engine = w.engine.name();
        let key = framework_key(&row.setting, row.quantised.as_deref());
        keys.insert((key.clone(), row.quantised.is_some(), row.cold));
        let name = format!("{engine}|{}|{key}", row.arch);
        let mut slots = stage.slots(engine, &row.arch, &row.generation);
        let p = &mut stage.problem;
        let (overhead, deviation) = overhead_prior(&row.setting, row.quantised.is_some());
        slots.push(vec![p.column(&format!("overhead.{key}"), overhead.ln(), deviation)]);
        slots.push(vec![p.column(&format!("copies.{}", row.setting), 6f64.ln(), if row.cold { 0.5 } else { 0.0 })]);
        let quantise = if row.quantised.is_some() { 0.5 } else { 0.0 };
        slots.push(vec![p.column(&format!("quantise.{key}"), 4f64.ln(), quantise)]);
        let layout = p.layout(&name, |_| slots);
        p.rows.push(Row { layout, target: row.target, weight });
    }
    let predict = |i: usize, s: &[f64]| {
        let row = rows[i];
        let Work::Dense(w) = &row.work else { return 1.0 };
        let mut setting = row.bare();
        let (constants, framework) = s.split_at(GemmConstants::NAMES.len());
        setting.overhead = framework[0].exp();
        setting.copies = if row.cold { framework[1].exp() } else { 0.0 };
        setting.quantise = if row.quantised.is_some() { framework[2].exp() } else { 0.0 };
        gemm(&row.facts, &GemmConstants::from_slots(constants), &setting, w).time + setting.overhead
    };
    let solution = stage.problem.fit(&predict, iterations);
    for engine in Engine::ALL {
        let table = stage.table(engine.name(), &solution, GemmConstants::from_slots);
        calibration.gemm.insert(engine.name().to_owned(), table);
    }
    for (key, quantised, cold) in keys {
        let value = |what: &str| stage.problem.value(&format!("{what}.{key}"), &solution).map_or(0.0, f64::exp);
        let base = key.split('/').take(if key.contains("/vllm") { 3 } else { 2 }).collect::<Vec<_>>().join("/");
        let copies = stage.problem.value(&format!("copies.{base}"), &solution).map_or(0.0, f64::exp);
        calibration.framework.insert(
            key.clone(),
            FrameworkConstants {
                overhead: value("overhead"),
                copies: if cold { copies } else { 0.0 },
                quantise: if quantised { value("quantise") } else { 0.0 },
                ..FrameworkConstants::default()
            },
        );
    }
}

/// Name under which 2:4's constants of all engines have their mean.
const HALF: &str = "2:4";

fn sparse_stage(calibration: &mut GpuCalibration, rows: &[&Prepared], iterations: usize) {
    let mut stage = Stage::new(|_| &SPARSE, |_| SparseConstants::prior(), SparseConstants::NAMES);
    let fixed: Vec<(Constants, Setting)> = rows.iter().map(|r| r.fixed(calibration)).collect();
    for (row, weight) in rows.iter().zip(weights(rows)) {
        let Work::Half(w) = &row.work else { continue };
        let engine = w.engine.name();
        let slots = stage.slots(HALF, engine, "");
        let layout = stage.problem.layout(engine, |_| slots);
        stage.problem.rows.push(Row { layout, target: row.target, weight });
    }
    let predict = |i: usize, s: &[f64]| {
        let (row, (constants, setting)) = (rows[i], &fixed[i]);
        let Work::Half(w) = &row.work else { return 1.0 };
        let c = half_constants(constants.gemm(w.engine), &SparseConstants::from_slots(s));
        gemm(&row.facts, &c, setting, w).time + setting.overhead
    };
    let solution = stage.problem.fit(&predict, iterations);
    for engine in Engine::ALL.into_iter().filter(|e| e.is_tensor()) {
        let slots = stage.resolve_at(HALF, Some((engine.name(), "")), &solution);
        calibration.sparse.insert(engine.name().to_owned(), SparseConstants::from_slots(&slots));
    }
}

fn library_stage(calibration: &mut GpuCalibration, rows: &[&Prepared], iterations: usize) {
    let mut stage = Stage::new(|_| &LIBRARY, |_| LibraryConstants::prior(), LibraryConstants::NAMES);
    let fixed: Vec<(Constants, Setting)> = rows.iter().map(|r| r.fixed(calibration)).collect();
    let mut seen = BTreeSet::new();
    for (row, weight) in rows.iter().zip(weights(rows)) {
        let Work::Library(w) = &row.work else { continue };
        seen.insert(w.library);
        let slots = stage.slots(w.library.name(), &row.arch, &row.generation);
        let layout = stage.problem.layout(w.library.name(), |_| slots);
        stage.problem.rows.push(Row { layout, target: row.target, weight });
    }
    let predict = |i: usize, s: &[f64]| {
        let (row, (constants, setting)) = (rows[i], &fixed[i]);
        let Work::Library(w) = &row.work else { return 1.0 };
        let c = LibraryConstants::from_slots(s);
        library(&row.facts, &c, constants.gemm(w.dense.engine), setting, w).time + setting.overhead
    };
    let solution = stage.problem.fit(&predict, iterations);
    for l in Library::ALL.into_iter().filter(|l| seen.contains(l)) {
        let slots = stage.resolve(l.name(), None, &solution);
        calibration.library.insert(l.name().to_owned(), LibraryConstants::from_slots(&slots));
    }
}

fn conv_stage(calibration: &mut GpuCalibration, rows: &[&Prepared], iterations: usize) {
    let mut stage = Stage::new(|_| &CONV, |_| ConvConstants::prior(), ConvConstants::NAMES);
    let fixed: Vec<(Constants, Setting)> = rows.iter().map(|r| r.fixed(calibration)).collect();
    let mut seen = BTreeSet::new();
    for (row, weight) in rows.iter().zip(weights(rows)) {
        let Work::Conv(w, _) = &row.work else { continue };
        seen.insert(w.engine);
        let slots = stage.slots(w.engine.name(), &row.arch, &row.generation);
        let layout = stage.problem.layout(w.engine.name(), |_| slots);
        stage.problem.rows.push(Row { layout, target: row.target, weight });
    }
    let predict = |i: usize, s: &[f64]| {
        let (row, (constants, setting)) = (rows[i], &fixed[i]);
        let Work::Conv(w, shape) = &row.work else { return 1.0 };
        let c = ConvConstants::from_slots(s);
        conv(&row.facts, &c, constants.gemm(w.engine), setting, w, shape).0.time + setting.overhead
    };
    let solution = stage.problem.fit(&predict, iterations);
    for engine in seen {
        let slots = stage.resolve(engine.name(), None, &solution);
        calibration.conv.insert(engine.name().to_owned(), ConvConstants::from_slots(&slots));
    }
}

/// Overhead slot of a row whose operation its framework may wrap in another way than products.
fn own_overhead(p: &mut Problem, calibration: &GpuCalibration, row: &Prepared) -> (String, Vec<usize>) {
    let known = calibration.framework.get(&row.setting).map(|f| f.overhead);
    let (mean, deviation) = match known {
        Some(overhead) => (overhead.max(1e-6), 0.5),
        None => overhead_prior(&row.setting, false),
    };
    let key = format!("{}:{}", row.setting, row.op);
    let column = p.column(&format!("overhead.{key}"), mean.ln(), deviation);
    (key, vec![column])
}

fn keep_overheads(calibration: &mut GpuCalibration, problem: &Problem, solution: &[f64], keys: BTreeSet<String>) {
    for key in keys {
        if let Some(overhead) = problem.value(&format!("overhead.{key}"), solution) {
            let value = |what: &str| problem.value(&format!("{what}.{key}"), solution).map_or(0.0, f64::exp);
            let (copies, pace) = (value("copies"), value("pace"));
            let own = FrameworkConstants { overhead: overhead.exp(), quantise: 0.0, copies, pace };
            calibration.framework.insert(key, own);
        }
    }
}

fn attention_stage(calibration: &mut GpuCalibration, rows: &[&Prepared], iterations: usize) {
    let mut stage = Stage::new(|_| &ATTENTION, |_| AttentionConstants::prior(), AttentionConstants::NAMES);
    let mut keys = BTreeSet::new();
    for (row, weight) in rows.iter().zip(weights(rows)) {
        let mut slots = stage.slots("attention", &row.arch, &row.generation);
        let (key, overhead) = own_overhead(&mut stage.problem, calibration, row);
        slots.push(overhead);
        // A serving stack's call also rotates and caches; its kernels need not be the fastest library's.
        let serving = f64::from(row.cold);
        slots.push(vec![stage.problem.column(&format!("copies.{key}"), 0.0, 0.5 * serving)]);
        slots.push(vec![stage.problem.column(
            &format!("pace.{key}"),
            if row.cold { 0.8f64.ln() } else { 0.0 },
            0.3 * serving,
        )]);
        let layout = stage.problem.layout(&format!("{}|{key}", row.arch), |_| slots);
        keys.insert(key);
        stage.problem.rows.push(Row { layout, target: row.target, weight });
    }
    let fixed: Vec<Setting> = rows.iter().map(|r| r.fixed(calibration).1).collect();
    let predict = |i: usize, s: &[f64]| {
        let row = rows[i];
        let Work::Attention(w) = &row.work else { return 1.0 };
        let (constants, framework) = s.split_at(AttentionConstants::NAMES.len());
        let [overhead, copies, pace] = [framework[0], framework[1], framework[2]].map(f64::exp);
        let setting = Setting { copies, pace, serving: row.cold, ..fixed[i] };
        attention(&row.facts, &AttentionConstants::from_slots(constants), &setting, w).time + overhead
    };
    let solution = stage.problem.fit(&predict, iterations);
    calibration.attention = stage.table("attention", &solution, AttentionConstants::from_slots);
    keep_overheads(calibration, &stage.problem, &solution, keys);
}

fn stream_stage(calibration: &mut GpuCalibration, rows: &[&Prepared], iterations: usize) {
    let mut stage = Stage::new(|_| &STREAM, |_| StreamConstants::prior(), StreamConstants::NAMES);
    let mut keys = BTreeSet::new();
    for (row, weight) in rows.iter().zip(weights(rows)) {
        let Work::Stream(s) = &row.work else { continue };
        let class = Class::of(s.kind).name();
        let mut slots = stage.slots(class, &row.arch, &row.generation);
        let (key, overhead) = own_overhead(&mut stage.problem, calibration, row);
        slots.push(overhead);
        let layout = stage.problem.layout(&format!("{class}|{}|{key}", row.arch), |_| slots);
        keys.insert(key);
        stage.problem.rows.push(Row { layout, target: row.target, weight });
    }
    let fixed: Vec<Setting> = rows.iter().map(|r| r.fixed(calibration).1).collect();
    let predict = |i: usize, s: &[f64]| {
        let row = rows[i];
        let Work::Stream(work) = &row.work else { return 1.0 };
        stream(&row.facts, &StreamConstants::from_slots(&s[..6]), &fixed[i], work).time + s[6].exp()
    };
    let solution = stage.problem.fit(&predict, iterations);
    for class in Class::ALL {
        let table = stage.table(class.name(), &solution, StreamConstants::from_slots);
        calibration.stream.insert(class.name().to_owned(), table);
    }
    keep_overheads(calibration, &stage.problem, &solution, keys);
}

/// A source that no sample covers takes the median of its timing's overheads.
fn timing_defaults(calibration: &mut GpuCalibration) {
    let mut by_timing: BTreeMap<String, Vec<FrameworkConstants>> = BTreeMap::new();
    for (key, constants) in &calibration.framework {
        let plain = constants.quantise == 0.0 && !key.contains(':');
        if let (true, Some(timing)) = (plain, key.split('/').nth(1)) {
            by_timing.entry(timing.to_owned()).or_default().push(*constants);
        }
    }
    for (timing, mut list) in by_timing {
        list.sort_by(|a, b| a.overhead.total_cmp(&b.overhead));
        calibration.framework.insert(timing, list[list.len() / 2]);
    }
}

impl Prepared {
    /// Source, device, operation, dtype, pattern family and kernel.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Logarithm of predicted over measured under a calibration.
    pub fn log_ratio(&self, calibration: &GpuCalibration) -> f64 {
        let (constants, setting) = self.fixed(calibration);
        evaluate(&self.facts, &constants, &setting, &self.work).time.ln() - self.target
    }

    /// The setting without what a framework adds.
    fn bare(&self) -> Setting {
        setting_of(self.timing, &FrameworkConstants::default())
    }

    /// Constants and setting that earlier stages fixed.
    fn fixed(&self, calibration: &GpuCalibration) -> (Constants, Setting) {
        let key = framework_key(&self.setting, self.quantised.as_deref());
        let f = framework(calibration, &key, self.op);
        (Constants::of(&self.facts, calibration), setting_of(self.timing, &f))
    }
}
