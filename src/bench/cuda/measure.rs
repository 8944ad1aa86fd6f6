//! How a product is timed, on any device that can prepare and replay it.
//!
//! A replay is a recorded graph of calls between two events of the device's own clock, so that neither the host's
//! launches nor its clock are in the figure. `warm` replays one set of weights; `cold` cycles through as many as
//! overflow the last cache twice.

use super::problem::Problem;
use crate::bench::{Sample, SampleOp, Timing};
use crate::error::Result;
use serde_json::json;

/// What a device is.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Its name, as the driver says it.
    pub name: String,
    /// Version of its driver.
    pub driver: String,
    /// Bytes of its last cache.
    pub last_cache: u64,
    /// Bytes of its memory that are free.
    pub free: u64,
}

/// A device that can run products.
pub trait Gpu {
    /// What it is.
    fn identity(&self) -> Identity;

    /// Its present clock in MHz, where it tells.
    fn clock(&self) -> Option<u32>;

    /// Puts a product with `copies` sets of weights onto the device.
    ///
    /// # Errors
    /// Why the device or its library does not take the product.
    fn prepare(&mut self, problem: &Problem, copies: u64) -> Result<Box<dyn Prepared + '_>, String>;
}

/// A product on a device.
pub trait Prepared {
    /// The kernel's name for the sample file.
    fn kernel(&self) -> String;

    /// Seconds of so many calls in a row, by the device's clock; the sets of weights take turns.
    ///
    /// # Errors
    /// What the device said.
    fn replay(&mut self, calls: u32) -> Result<f64, String>;
}

/// What a measurement tells while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Problems done.
    pub done: usize,
    /// Problems in all.
    pub all: usize,
    /// The problem.
    pub problem: Problem,
    /// Microseconds of a call, or why there is none.
    pub outcome: Result<f64, String>,
}

/// Seconds that a replay should take at least: thousands of times the events' resolution of half a microsecond.
const REPLAY: f64 = 2e-3;
/// Replays behind a figure.
const ROUNDS: usize = 11;
/// Most calls in a replay.
const MOST_CALLS: f64 = 2000.0;

/// Measures all problems, each warm and cold. Those that the device refuses are reported and left out.
///
/// # Errors
/// None so far: what a device says about one problem goes to `progress`.
pub fn all(gpu: &mut dyn Gpu, problems: &[Problem], progress: &mut dyn FnMut(&Progress)) -> Result<Vec<Sample>> {
    let identity = gpu.identity();
    let mut samples = Vec::new();
    for (i, problem) in problems.iter().enumerate() {
        for timing in [Timing::Warm, Timing::Cold] {
            let outcome = one(gpu, &identity, problem, timing);
            progress(&Progress {
                done: i + usize::from(timing == Timing::Cold),
                all: problems.len(),
                problem: *problem,
                outcome: outcome.as_ref().map(|s| s.latency_us).map_err(Clone::clone),
            });
            samples.extend(outcome);
        }
    }
    Ok(samples)
}

/// Sets of weights that a cold loop cycles through: twice the last cache, within half of the free memory.
fn copies(identity: &Identity, problem: &Problem, timing: Timing) -> Result<u64, String> {
    let bytes = problem.weight_bytes();
    let room = (identity.free as f64 / 2.0 / bytes).floor();
    if room < 1.0 {
        return Err(format!("the weights take {:.1} GiB, more than half of what is free", bytes / 1e9 * 0.931));
    }
    if timing != Timing::Cold {
        return Ok(1);
    }
    let wanted = (2.0 * identity.last_cache as f64 / bytes).ceil() + 1.0;
    if wanted > room {
        return Err("too little memory is free to cycle the weights past the cache".to_owned());
    }
    Ok(wanted as u64)
}

fn one(gpu: &mut dyn Gpu, identity: &Identity, problem: &Problem, timing: Timing) -> Result<Sample, String> {
    let copies = copies(identity, problem, timing)?;
    let (kernel, calls, mut rounds) = {
        let mut prepared = gpu.prepare(problem, copies)?;
        // The first calls load code and raise the clock; how long a call takes decides how many make a replay.
        let few = u32::try_from(copies).unwrap_or(u32::MAX).clamp(3, 64);
        prepared.replay(few)?;
        let call = (prepared.replay(few)? / f64::from(few)).max(1e-9);
        let turns = (REPLAY / call).clamp(1.0, MOST_CALLS) / copies as f64;
        let calls = u32::try_from(turns.ceil() as u64 * copies).unwrap_or(u32::MAX);
        let rounds = (0..ROUNDS).map(|_| prepared.replay(calls)).collect::<Result<Vec<f64>, _>>()?;
        (prepared.kernel(), calls, rounds)
    };
    rounds.sort_by(f64::total_cmp);
    let us = |seconds: f64| 1e6 * seconds / f64::from(calls);
    let median = us(rounds[ROUNDS / 2]);
    if !(median.is_finite() && median > 0.0) {
        return Err("the device's clock gave no time".to_owned());
    }
    Ok(Sample {
        source: "hwsim".to_owned(),
        device: identity.name.clone(),
        op: SampleOp::Gemm,
        dtype: problem.dtype.to_string(),
        batch: 1,
        m: problem.m,
        n: problem.n,
        k: problem.k,
        pattern: problem.pattern.to_string(),
        kernel,
        timing,
        latency_us: median,
        attrs: json!({
            "min_us": us(rounds[0]),
            "max_us": us(rounds[ROUNDS - 1]),
            "rounds": ROUNDS,
            "calls": calls,
            "copies": copies,
            "clock_mhz": gpu.clock(),
            "driver": identity.driver,
        }),
    })
}
