//! Times the kernels of one shape against one another.
//!
//! Every configuration of a shape is measured in turn, several times over, so that what the machine does meanwhile meets
//! all of them alike; the fastest round counts (the noise of a processor only ever adds). Rounds are many and short: what
//! others do on a shared machine comes and goes within a second, and a short round finds a gap in it. A list of shapes is
//! gone through several times, so that a busy minute does not stay in the shapes that it met, until that finds nothing
//! faster any more: on an idle machine soon, on a busy one late.

use super::clock::{Clock, keep, repetitions};
use super::probes;
use super::samples::{Measured, Sample, SampleOp, Timing};
use super::suite::{Case, Shape, meets};
use crate::error::{Error, Result};
use crate::kernels::{self, Activations, Buffer, Isa, Packed, WeightMatrix};
use crate::pattern::SparsityPattern;
use crate::sparsity::Mask;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

/// How measurements are made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Threads.
    pub threads: usize,
    /// Rounds of a measurement in one pass over the cases.
    pub rounds: usize,
    /// Seconds of one.
    pub round: f64,
    /// Whether operands that come from main memory are measured as well.
    pub cold: bool,
    /// Bytes of the last cache.
    pub last_level: usize,
    /// Seed of masks and values.
    pub seed: u64,
    /// Who measures, in the sample file.
    pub source: String,
    /// The machine, in the sample file.
    pub device: String,
}

/// Seconds that all rounds of one configuration may take in one pass; two rounds are made at least.
const PATIENCE: f64 = 0.1;

/// Values of a pattern: a drawn mask, nonzeros uniform in ±[0.5, 1.5], so that none vanishes.
pub fn weights(shape: Shape, pattern: SparsityPattern, seed: u64) -> Vec<f32> {
    let mut values = noise(shape.n * shape.k, seed);
    if !pattern.is_dense() {
        let mask = Mask::draw(pattern, shape.n, shape.k, seed);
        for (row, values) in values.chunks_mut(shape.k.max(1) as usize).enumerate() {
            let mut next = 0;
            for column in mask.columns(row as u64) {
                values[next..column as usize].fill(0.0);
                next = column as usize + 1;
            }
            values[next..].fill(0.0);
        }
    }
    values
}

/// Seeded values in ±[0.5, 1.5].
pub fn noise(count: u64, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let bits = rng.next_u32();
            let size = 0.5 + (bits >> 9) as f32 / (1u32 << 23) as f32;
            if bits & 1 == 0 { size } else { -size }
        })
        .collect()
}

/// What was measured of one kernel on one pattern.
#[derive(Clone, Debug)]
pub struct Times {
    /// The pattern of its weights.
    pub pattern: SparsityPattern,
    /// Its name.
    pub kernel: &'static str,
    /// Format of its operands.
    pub dtype: &'static str,
    /// Calls of one warm round; a cold one is a single call.
    pub calls: u64,
    /// Seconds a call, of every warm round.
    pub warm: Vec<f64>,
    /// Seconds of every call whose operands came from main memory.
    pub cold: Vec<f64>,
}

impl Times {
    /// Adds the rounds of another pass.
    pub fn extend(&mut self, other: Self) {
        self.warm.extend(other.warm);
        self.cold.extend(other.cold);
    }

    /// By which share of itself another pass lowers the fastest round so far: of those that are warm, of those that are
    /// cold; nothing where either has none.
    pub fn lowered_by(&self, other: &Self) -> impl Iterator<Item = f64> {
        let least = |rounds: &[f64]| rounds.iter().copied().min_by(f64::total_cmp);
        [(&self.warm, &other.warm), (&self.cold, &other.cold)]
            .map(|(before, again)| Some(1.0 - (least(again)? / least(before)?).min(1.0)))
            .into_iter()
            .flatten()
    }
}

/// A configuration: its times so far and its packed weights.
struct Configuration {
    times: Times,
    packed: Box<dyn Packed>,
    rounds: usize,
}

/// Measures one case, always in the same order; `go_on` is asked between rounds and ends the measurement when it says no.
///
/// # Errors
/// What a kernel refuses.
pub fn case(settings: &Settings, case: &Case, go_on: &dyn Fn() -> bool) -> Result<Vec<Times>> {
    let Shape { m, n, k } = case.shape;
    let size = |a: u64, b: u64| {
        a.checked_mul(b)
            .filter(|&e| e < 1 << 34)
            .ok_or_else(|| Error::argument("bench", format!("{m}x{n}x{k} does not fit into memory")))
    };
    let (inputs, outputs) = (size(k, m)?, size(n, m)?);
    size(n, k)?;
    let kernels = kernels::all(settings.isa);
    let mut all: Vec<Configuration> = Vec::new();
    for &pattern in &case.patterns {
        let mut values: Option<Vec<f32>> = None;
        for kernel in kernels.iter().filter(|kernel| meets(&***kernel, pattern, case.shape)) {
            if !go_on() {
                return Ok(Vec::new());
            }
            let values = values.get_or_insert_with(|| weights(case.shape, pattern, settings.seed));
            let matrix = WeightMatrix { n: n as usize, k: k as usize, values };
            let (kernel_name, dtype) = (kernel.name(), kernel.dtype().name());
            all.push(Configuration {
                times: Times { pattern, kernel: kernel_name, dtype, calls: 1, warm: Vec::new(), cold: Vec::new() },
                packed: kernel.pack(matrix, &pattern, m as usize)?,
                rounds: settings.rounds,
            });
        }
    }
    // At cache lines, as inference runtimes allocate tensors.
    let x = Buffer::from(noise(inputs, settings.seed ^ 1).as_slice());
    let x = Activations { k: k as usize, m: m as usize, values: &x };
    let mut y = Buffer::zeros(outputs as usize);
    let clock = Clock::for_threads(settings.threads);
    for c in &mut all {
        c.times.calls = repetitions(clock, settings.round, &mut || c.packed.run(x, &mut y));
        let each = clock.time(|| c.packed.run(x, &mut y));
        let round = each * (c.times.calls + 1) as f64;
        c.rounds = ((PATIENCE / round.max(1e-9)) as usize).clamp(2, settings.rounds.max(2));
    }
    for round in 0..settings.rounds.max(2) {
        for c in all.iter_mut().filter(|c| round < c.rounds) {
            if !go_on() {
                return Ok(Vec::new());
            }
            // The others have just used the caches.
            c.packed.run(x, &mut y);
            let took = clock.time(|| (0..c.times.calls).for_each(|_| c.packed.run(x, &mut y)));
            c.times.warm.push(took / c.times.calls as f64);
        }
    }
    if settings.cold {
        // As long as the caches and once more: what a least-recently-used policy could keep is gone.
        let mut flush = Buffer::zeros(settings.last_level / 2 / 128 * 128);
        flush.fill(1.0);
        // Emptying the caches takes longer than most products.
        for round in 0..settings.rounds.div_ceil(2).max(2) {
            for c in all.iter_mut().filter(|c| round < c.rounds) {
                if !go_on() {
                    return Ok(Vec::new());
                }
                probes::read(settings.isa, keep(&flush));
                c.times.cold.push(clock.time(|| c.packed.run(x, &mut y)));
            }
        }
    }
    Ok(all.into_iter().map(|c| c.times).collect())
}

/// The rows of a sample file for what was measured of one shape.
pub fn rows(settings: &Settings, shape: Shape, all: &[Times]) -> Vec<Measured> {
    let of = |t: &Times| {
        [(Timing::Warm, &t.warm, t.calls), (Timing::Cold, &t.cold, 1)]
            .map(|(timing, times, calls)| (!times.is_empty()).then(|| row(settings, shape, t, timing, times, calls)))
    };
    all.iter().flat_map(of).flatten().collect()
}

fn row(settings: &Settings, shape: Shape, c: &Times, timing: Timing, times: &[f64], calls: u64) -> Measured {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    // A tenth of a nanosecond is finer than any clock.
    let us = |seconds: f64| (seconds * 1e10).round() / 1e4;
    let least = us(sorted[0]);
    let sample = Sample {
        source: settings.source.clone(),
        device: settings.device.clone(),
        op: SampleOp::Gemm,
        dtype: c.dtype.to_owned(),
        batch: 1,
        m: shape.m,
        n: shape.n,
        k: shape.k,
        pattern: c.pattern.to_string(),
        kernel: c.kernel.to_owned(),
        timing,
        latency_us: least,
        attrs: json!({ "threads": settings.threads, "out": "fp32" }),
    };
    Measured {
        sample,
        threads: settings.threads as u64,
        rounds: sorted.len() as u64,
        calls,
        median_us: us(sorted[sorted.len() / 2]),
        max_us: us(sorted[sorted.len() - 1]),
        clock: Clock::for_threads(settings.threads).name().to_owned(),
        isa: settings.isa.name().to_owned(),
    }
}
