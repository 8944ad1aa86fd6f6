//! What the CPU model takes from measurements: few numbers, each with a meaning and a unit. Fixed costs are in cycles
//! and rates are fractions of the profile's, so that they carry over between clocks.

use super::Cpu;
use crate::dtype::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Parameters of the CPU cost model. The defaults describe one core of an AVX-512 server measured with one thread
/// (minimum of interleaved rounds); `calibrate` may replace them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CpuParameters {
    /// Share of the register-operand multiply–accumulate peak that an unrolled register tile sustains (1).
    pub microkernel: f64,
    /// The same for dot products of bf16 and int8 on vectors, of their own peak (1).
    pub dot_kernel: f64,
    /// The same for matrix units, whose tiles are loaded between the products (1).
    pub tile_kernel: f64,
    /// Multiply–accumulate rate with one operand in L1, over the rate with registers alone (1): 150 of 239 GFLOP/s.
    pub memory_operand: f64,
    /// Share of the bandwidth of the private caches outside L1 that is left where lines are not met one after another (1).
    pub private_bandwidth: f64,
    /// Sustained share of the nominal bandwidth of a shared cache (1).
    pub shared_bandwidth: f64,
    /// Share of a shared cache's capacity that the machine's other work leaves (1).
    pub shared_capacity: f64,
    /// Share of the cores whose combined demand saturates a shared cache (1).
    pub shared_saturation: f64,
    /// Sustained share of main memory's peak bandwidth (1).
    pub memory_bandwidth: f64,
    /// Time that a row of weights on its own waits for them from main memory where it meets several columns, over a
    /// stream's (1): there is too much to do between two lines to run far ahead.
    pub exposed_weights: f64,
    /// Lines that one core keeps in flight to main memory: its bandwidth is lines over latency, by Little's law.
    pub outstanding_lines: f64,
    /// Lines fetched one after another from main memory before a cold kernel runs: code, stack, page tables.
    pub cold_lines: f64,
    /// Main-memory latency where the profile gives none (cycles).
    pub memory_latency: f64,
    /// Packing operands and copying packed results, beyond moving their bytes (cycles per byte).
    pub pack: f64,
    /// Converting inputs and results of formats narrower than four bytes (cycles per element); their weights are packed
    /// once, ahead of time.
    pub interleave: f64,
    /// Reading, addressing and broadcasting one CSR nonzero (cycles per nonzero and panel of columns).
    pub csr_decode: f64,
    /// The same for one value of N:M, whose positions are a few bits (cycles).
    pub nm_decode: f64,
    /// Index, address and loop of one block in one pass of the register tile (cycles).
    pub block_decode: f64,
    /// Starting a row or a block row: pointers, and a loop exit that was mispredicted, which costs 15 to 20 cycles on
    /// out-of-order cores (cycles).
    pub row_start: f64,
    /// Ending a row of a single column: its lanes are summed, the next row's stream begins (cycles).
    pub row_end: f64,
    /// One column of a strip of up to eight rows, where a kernel has a single column of activations (cycles).
    pub strip_column: f64,
    /// Beginning one block of several columns of such a strip: index and loop (cycles).
    pub strip_block: f64,
    /// Bringing one activation to a weight of CSR where a kernel has a single column (cycles per element, in L1).
    pub gather: f64,
    /// Permuting one vector's worth of N:M values to their activations for a single column (cycles per vector).
    pub permute: f64,
    /// One vector of exponentials (cycles).
    pub exponential: f64,
    /// Entering a kernel (cycles).
    pub call: f64,
    /// Waking and joining threads, once an operation (cycles).
    pub fork_join: f64,
    /// What a framework adds to a call, where timing includes it (cycles).
    pub framework: f64,
}

impl CpuParameters {
    /// The parameters before any fit: the defaults, and for a machine whose rates were measured, those rates.
    pub fn prior(cpu: &Cpu) -> Self {
        let Some(measured) = &cpu.measured else { return Self::default() };
        let peak = cpu.macs.get(&DType::Fp32).map_or(1.0, |r| r.get());
        let last = cpu.cache.last().filter(|c| c.shared);
        let kept = measured.kept.zip(last).map_or(1.0, |(kept, c)| (kept / c.size).min(1.0));
        Self {
            memory_operand: (measured.memory_operand.get() / peak).min(1.0),
            private_bandwidth: 1.0,
            shared_bandwidth: 1.0,
            shared_capacity: kept,
            shared_saturation: measured.scaling / cpu.cores as f64,
            memory_bandwidth: 1.0,
            ..Self::default()
        }
    }
}

/// What `hwsim calibrate` fitted to one machine's samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuCalibration {
    /// The machine, as in its profile.
    pub device: String,
    /// FNV-1a of the samples that were fitted, 16 hexadecimal digits.
    pub samples_hash: String,
    /// The model's parameters.
    pub parameters: CpuParameters,
    /// By storage format: measured over modelled time that is left after the fit (its code's schedule).
    pub pace: BTreeMap<String, f64>,
    /// By storage format: factors on the prediction between which 90 % of the samples lay that a fold held out.
    pub interval: BTreeMap<String, (f64, f64)>,
    /// By storage format: mean absolute percentage error of samples that a fold held out.
    pub held_out: BTreeMap<String, f64>,
}

impl Default for CpuParameters {
    fn default() -> Self {
        Self {
            microkernel: 0.75,
            dot_kernel: 0.6,
            tile_kernel: 0.42,
            memory_operand: 0.63,
            private_bandwidth: 1.0,
            shared_bandwidth: 0.58,
            shared_capacity: 1.0,
            shared_saturation: 0.7,
            memory_bandwidth: 0.8,
            exposed_weights: 0.6,
            outstanding_lines: 30.0,
            cold_lines: 30.0,
            memory_latency: 400.0,
            pack: 0.10,
            interleave: 0.5,
            csr_decode: 2.0,
            nm_decode: 0.9,
            block_decode: 0.5,
            row_start: 16.0,
            row_end: 20.0,
            strip_column: 1.2,
            strip_block: 3.0,
            gather: 0.75,
            permute: 2.5,
            exponential: 10.0,
            call: 300.0,
            fork_join: 5000.0,
            framework: 20_000.0,
        }
    }
}
