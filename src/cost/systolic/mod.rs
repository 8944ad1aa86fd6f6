//! Systolic arrays: cycles from folds, traffic from loop orders, stalls from a double buffer, energy from published tables.
//!
//! Reading order: [`fold`] is the dense array; [`sparse`] and [`expected`] say what sparse hardware skips, of a mask and in
//! expectation; [`dram`] what is moved and what that stalls; [`energy`] what it takes. [`convention`] answers in the words
//! of SCALE-Sim 3.0.0 instead. [`crate::simulate`] is not used here: it judges these forms.

pub mod combine;
pub mod convention;
pub mod dram;
pub mod energy;
pub mod expected;
pub mod fold;
mod mapping;
pub mod row_wise;
pub mod sparse;
pub mod stream;

pub use mapping::{Mapped, map_gemm, skipping};

use super::roofline::{Peaks, compulsory};
use super::{Bound, CostModel, Executed, LayerCost, MacCount, OperandBytes, Traffic, default_interval};
use crate::dtype::DType;
use crate::error::Result;
use crate::lower::{Attention, Gemm, Lowered, Source, SparseGemm, Stream};
use crate::pattern::SparsityPattern;
use crate::profile::systolic::{Convention, Systolic};
use crate::profile::{Energy, Profile};
use crate::sparsity::StorageFormat;
use crate::units::{Bytes, BytesPerSecond, Cycles, Hertz, Joules, Macs, Seconds};
use dram::{Buffers, Channel};
use energy::Technology;

/// The device model of systolic arrays.
#[derive(Clone, Debug)]
pub struct SystolicModel {
    array: Systolic,
    clock: Hertz,
    bandwidth: BytesPerSecond,
    latency: Seconds,
    table: Option<Energy>,
    peaks: Peaks,
    levels: Vec<String>,
}

impl SystolicModel {
    /// The model of a profile's array.
    pub fn new(profile: &Profile, array: &Systolic) -> Self {
        Self {
            array: array.clone(),
            clock: profile.clock,
            bandwidth: profile.memory.bandwidth,
            latency: profile.memory.latency.unwrap_or(Seconds::ZERO),
            table: profile.energy.clone(),
            peaks: Peaks::of(profile),
            levels: vec!["dram".into(), "sram".into()],
        }
    }

    /// Elements that the vector unit takes a cycle, over all arrays.
    fn lanes(&self) -> f64 {
        (self.array.vector_lanes.unwrap_or(self.array.cols) * self.array.arrays) as f64
    }

    /// Memory as one of `sharers` arrays sees it, in the array's cycles.
    fn channel(&self, sharers: u64) -> Channel {
        Channel {
            bandwidth: self.bandwidth.get() / self.clock.get() / sharers as f64,
            latency: (self.clock * self.latency).get().ceil(),
            overlap: self.array.double_buffered,
        }
    }

    fn buffers(&self) -> Buffers {
        let half = if self.array.double_buffered { 0.5 } else { 1.0 };
        let sram = &self.array.sram;
        Buffers {
            inputs: sram.inputs.get() * half,
            weights: sram.weights.get() * half,
            outputs: sram.outputs.get() * half,
        }
    }

    fn gemm(&self, op: &SparseGemm) -> Result<LayerCost> {
        let mapped = map_gemm(&self.array, op, self.buffers(), |sharers| self.channel(sharers))?;
        let Mapped { work, moved, stalls, executed, .. } = mapped;
        let epilogue = Cycles((op.epilogue.operations as f64 * outputs(op)) / self.lanes());
        // The vector unit works on results as they leave, so it shows only where it is the slower one.
        let array = Cycles(mapped.cycles);
        let total = Cycles(array.get() + stalls).max(epilogue);
        let mut traffic = Traffic::default();
        traffic.levels[0] = OperandBytes {
            weights: moved.weights,
            metadata: moved.metadata,
            inputs: moved.inputs + op.epilogue.bytes,
            outputs: moved.outputs,
        };
        let element = op.dtype.bytes();
        traffic.levels[1] = OperandBytes {
            weights: Bytes(work.weights * element),
            metadata: Bytes(work.weights * mapped.metadata_per_weight),
            inputs: Bytes(work.inputs * element),
            outputs: Bytes((work.outputs + work.partials) * self.array.partial_sum.get()),
        };
        let time = (total / self.clock).max(traffic.dram() / self.bandwidth);
        let effectual = op.effectual_macs();
        let macs = MacCount { dense: op.dense_macs(), effectual, issued: work.active };
        let switched = if mapped.gated { effectual } else { work.active };
        // A first fill and a last write are not what limits; waiting in the steady state is.
        let bound = if epilogue.get() > array.get() + stalls {
            Bound::Overhead
        } else if time.get() > (array / self.clock).get() * (1.0 + STALLED) {
            Bound::Memory(0)
        } else {
            Bound::Compute
        };
        Ok(LayerCost {
            time,
            interval: default_interval(time),
            compute: array,
            overhead: Seconds::ZERO,
            energy: self.energy(op.dtype, switched, &traffic, time),
            traffic,
            macs,
            bound,
            executed,
            utilization: self.utilization(effectual, op.dtype, time),
            convention: None,
        })
    }

    fn scale_sim(&self, op: &SparseGemm) -> Result<LayerCost> {
        let answer = convention::answer(&self.array, op)?;
        let time = Cycles(answer.cycles as f64) / self.clock;
        let (n, m) = convention::ratio(op.weights.pattern());
        let share = sparse::compressed(op.gemm.k, n, m) as f64 / op.gemm.k as f64;
        let mut traffic = Traffic::default();
        let d = &answer.detail;
        traffic.levels[0] = OperandBytes {
            weights: Bytes(d.dram_weights as f64),
            inputs: Bytes(d.dram_inputs as f64),
            outputs: op.output_bytes() / op.out_dtype.bytes(),
            metadata: Bytes::ZERO,
        };
        traffic.levels[1] = OperandBytes {
            weights: Bytes(d.sram_weights as f64),
            inputs: Bytes(d.sram_inputs),
            outputs: Bytes(d.sram_outputs as f64),
            metadata: Bytes::ZERO,
        };
        let effectual = op.effectual_macs();
        Ok(LayerCost {
            time,
            interval: (time, time),
            compute: Cycles(answer.cycles as f64),
            overhead: Seconds::ZERO,
            traffic,
            macs: MacCount { dense: op.dense_macs(), effectual, issued: op.dense_macs() * share },
            energy: None,
            bound: Bound::Compute,
            executed: mapping::scale_sim_executed(&self.array, op),
            utilization: self.utilization(effectual, op.dtype, time),
            convention: Some(Box::new(answer.detail)),
        })
    }

    fn utilization(&self, effectual: f64, dtype: DType, time: Seconds) -> f64 {
        if time > Seconds::ZERO { (effectual / (self.peaks.macs(dtype) * time.get())).min(1.0) } else { 0.0 }
    }

    /// Both products on the array, softmax on the vector unit; scores stay in SRAM where one head's fit.
    fn attention(&self, a: &Attention) -> Result<LayerCost> {
        let shared = (a.heads / a.kv_heads.max(1)).max(1);
        let keys = a.window.map_or(a.keys, |w| a.keys.min(w.saturating_add(a.queries)));
        let product = |n: u64, k: u64| {
            let gemm = Gemm { groups: a.batch * a.kv_heads, m: a.queries * shared, n, k };
            SparseGemm { source: Source::Activations, ..SparseGemm::dense(gemm, a.dtype) }
        };
        let (scores, values) = (product(keys, a.head_dim), product(a.head_dim, keys));
        let once = |op: &SparseGemm| match self.array.convention {
            Some(Convention::ScaleSim3) => self.scale_sim(op),
            None => self.gemm(op),
        };
        let (first, second) = (once(&scores)?, once(&values)?);
        let cells = a.batch as f64 * a.heads as f64 * a.queries as f64 * keys as f64;
        let softmax = Cycles(cells * SOFTMAX_OPERATIONS / self.lanes());
        let between = a.queries as f64 * keys as f64 * a.dtype.output().bytes();
        let mut traffic = Traffic::default();
        traffic.levels[1] = first.traffic.levels[1];
        traffic.levels[1].weights += second.traffic.levels[1].weights;
        traffic.levels[1].inputs += second.traffic.levels[1].inputs;
        traffic.levels[1].outputs += second.traffic.levels[1].outputs;
        let spill =
            if between <= self.buffers().outputs { Bytes::ZERO } else { Bytes(2.0 * cells * a.dtype.output().bytes()) };
        let mut dram = compulsory(&Lowered::Attention(*a));
        dram.inputs += spill;
        // Keys and values are fetched as the products' second operand, again where they do not fit.
        dram.weights =
            dram.weights.max(first.traffic.levels[0].weights + second.traffic.levels[0].weights - a.resident);
        traffic.levels[0] = dram;
        let compute = first.compute + second.compute + softmax;
        let time = (compute / self.clock).max(traffic.dram() / self.bandwidth);
        let effectual = a.effectual_macs();
        let issued = first.macs.issued + second.macs.issued;
        Ok(LayerCost {
            time,
            interval: default_interval(time),
            compute,
            overhead: Seconds::ZERO,
            energy: self.energy(a.dtype, issued, &traffic, time),
            traffic,
            macs: MacCount { dense: a.dense_macs(), effectual, issued },
            bound: if time > compute / self.clock { Bound::Memory(0) } else { Bound::Compute },
            executed: Executed { kernel: "array and vector unit", ..first.executed },
            utilization: self.utilization(effectual, a.dtype, time),
            convention: None,
        })
    }

    /// Everything else is the vector unit's.
    fn stream(&self, s: &Stream) -> LayerCost {
        let compute = Cycles(s.operations / self.lanes());
        let mut traffic = Traffic::default();
        traffic.levels[0] = compulsory(&Lowered::Stream(*s));
        traffic.levels[1] =
            OperandBytes { weights: s.parameters, metadata: Bytes::ZERO, inputs: s.input, outputs: s.output };
        let (busy, moving) = (compute / self.clock, traffic.dram() / self.bandwidth);
        let time = busy.max(moving);
        LayerCost {
            time,
            interval: default_interval(time),
            compute,
            overhead: Seconds::ZERO,
            energy: self.energy(s.dtype, 0.0, &traffic, time),
            traffic,
            macs: MacCount::default(),
            bound: if moving > busy { Bound::Memory(0) } else { Bound::Compute },
            executed: Executed {
                pattern: SparsityPattern::Dense,
                format: StorageFormat::Dense,
                kernel: "vector unit",
                fallback: None,
            },
            utilization: 0.0,
            convention: None,
        }
    }

    /// Energy of switched MACs and moved bytes: the profile's own table first, then the published ones at its process.
    fn energy(&self, dtype: DType, switched: f64, traffic: &Traffic, time: Seconds) -> Option<Joules> {
        let (dram, sram) = (traffic.dram(), &traffic.levels[1]);
        if let Some(table) = &self.table {
            let mac = table.mac.get(&dtype)?;
            let byte = |level: &str| table.byte.get(level).copied();
            let idle = table.idle.map_or(Joules::ZERO, |w| w * time);
            return Some(*mac * Macs(switched) + byte("dram")? * dram + byte("sram")? * sram.total() + idle);
        }
        let process = Technology { nm: self.array.technology_nm? };
        let buffers = &self.array.sram;
        let mac = process.mac(dtype) * Macs(switched);
        // An element's MAC reads and writes its operand registers and its partial sum.
        let registers =
            process.register() * Bytes(switched * 2.0 * (2.0 * dtype.bytes() + self.array.partial_sum.get()));
        let buffer = process.sram(buffers.inputs.get()) * sram.inputs
            + process.sram(buffers.weights.get()) * (sram.weights + sram.metadata)
            + process.sram(buffers.outputs.get()) * sram.outputs;
        Some(mac + registers + buffer + process.dram() * dram)
    }
}

/// Stalls over compute cycles from which on memory is what limits an operation.
const STALLED: f64 = 0.1;

/// Vector operations of one softmax element: maximum, difference, exponential (8), sum, quotient.
const SOFTMAX_OPERATIONS: f64 = 12.0;

fn outputs(op: &SparseGemm) -> f64 {
    let g = &op.gemm;
    g.groups as f64 * g.m as f64 * g.n as f64 * op.steps() as f64
}

impl CostModel for SystolicModel {
    fn cost(&self, op: &Lowered) -> Result<LayerCost> {
        match (op, self.array.convention) {
            (Lowered::Gemm(g), Some(Convention::ScaleSim3)) => self.scale_sim(g),
            (Lowered::Gemm(g), None) => self.gemm(g),
            (Lowered::Attention(a), _) => self.attention(a),
            (Lowered::Stream(s), _) => Ok(self.stream(s)),
        }
    }

    fn roofline(&self, op: &Lowered) -> Seconds {
        let floor = self.peaks.floor(op);
        match (op, self.array.convention) {
            // The convention counts no memory time, and an output-stationary fold short of its drain.
            (Lowered::Gemm(g), Some(Convention::ScaleSim3)) => self.scale_sim(g).map_or(floor, |c| floor.min(c.time)),
            _ => floor,
        }
    }

    fn levels(&self) -> &[String] {
        &self.levels
    }

    fn clock(&self) -> Hertz {
        self.clock
    }

    fn last_level(&self) -> Bytes {
        self.array.sram.inputs + self.array.sram.outputs
    }
}
