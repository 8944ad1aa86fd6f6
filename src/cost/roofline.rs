//! The roofline (Williams et al., CACM 2009): the lower bound that every model must respect, and a model of its own to
//! compare with.

use super::{Bound, CostModel, Executed, LayerCost, MacCount, OperandBytes, Traffic, default_interval};
use crate::dtype::DType;
use crate::error::Result;
use crate::lower::{Lowered, SparseGemm};
use crate::pattern::SparsityPattern;
use crate::profile::{Device, Profile};
use crate::sparsity::StorageFormat;
use crate::units::{Bytes, BytesPerSecond, Hertz, Macs, Seconds};

/// Peak rates of a machine.
#[derive(Clone, Debug)]
pub struct Peaks {
    macs: [f64; DType::ALL.len()],
    bandwidth: BytesPerSecond,
}

impl Peaks {
    /// Dense peaks over the whole machine; a dtype that a machine lacks runs at its widest faster relative's rate.
    pub fn of(profile: &Profile) -> Self {
        let clock = profile.clock.get();
        let macs = DType::ALL.map(|dtype| {
            let rate = match &profile.device {
                Device::Cpu(cpu) => {
                    let own = |d| rate(&cpu.macs, d).max(rate(&cpu.matrix, d));
                    cpu.cores as f64 * best(dtype, own)
                }
                Device::Gpu(gpu) => {
                    let tensor = |d| gpu.tensor_core.as_ref().map_or(0.0, |t| rate(&t.dense, d));
                    gpu.sms as f64 * best(dtype, |d| rate(&gpu.simt, d).max(tensor(d)))
                }
                Device::Systolic(array) => (array.rows * array.cols * array.arrays) as f64,
            };
            rate * clock
        });
        Self { macs, bandwidth: profile.memory.bandwidth }
    }

    /// MAC/s in a dtype.
    pub fn macs(&self, dtype: DType) -> f64 {
        self.macs[dtype as usize]
    }

    /// Least time of an operation.
    pub fn floor(&self, op: &Lowered) -> Seconds {
        let (macs, bytes, dtype) = demand(op);
        let memory = bytes / self.bandwidth;
        let compute = Seconds(macs.get() / self.macs(dtype));
        memory.max(compute)
    }
}

fn rate(rates: &std::collections::BTreeMap<DType, crate::units::MacsPerCycle>, dtype: DType) -> f64 {
    rates.get(&dtype).map_or(0.0, |r| r.get())
}

/// A dtype and then, nearest first, those in which a machine without it would compute.
pub(crate) fn substitutes(dtype: DType) -> &'static [DType] {
    match dtype {
        DType::Fp32 => &[DType::Fp32],
        DType::Tf32 => &[DType::Tf32, DType::Fp32],
        DType::Fp16 => &[DType::Fp16, DType::Bf16, DType::Fp32],
        DType::Bf16 => &[DType::Bf16, DType::Fp16, DType::Fp32],
        DType::Fp8 => &[DType::Fp8, DType::Bf16, DType::Fp16, DType::Fp32],
        DType::Int8 => &[DType::Int8, DType::Fp16, DType::Bf16, DType::Fp32],
        DType::Fp4 => &[DType::Fp4, DType::Fp8, DType::Bf16, DType::Fp16, DType::Fp32],
    }
}

/// The dtype's own rate, or that of the nearest dtype in which the machine can compute it.
fn best(dtype: DType, own: impl Fn(DType) -> f64) -> f64 {
    substitutes(dtype)
        .iter()
        .map(|&d| own(d))
        .find(|&r| r > 0.0)
        .unwrap_or_else(|| DType::ALL.map(own).into_iter().fold(0.0, f64::max))
}

/// Useful work of an operation: effectual MACs, compulsory bytes less what is resident, and the dtype.
fn demand(op: &Lowered) -> (Macs, Bytes, DType) {
    let (macs, t, dtype) = (effectual(op), compulsory(op), dtype(op));
    (Macs(macs), t.total(), dtype)
}

/// Compulsory main-memory bytes of an operation: each distinct byte once, less the resident activations.
pub fn compulsory(op: &Lowered) -> OperandBytes {
    match op {
        Lowered::Gemm(g) => {
            let stored = stored(g);
            OperandBytes {
                weights: stored.0,
                metadata: stored.1,
                inputs: (g.input_bytes() - g.resident).max(Bytes::ZERO) + g.epilogue.bytes,
                outputs: g.output_bytes(),
            }
        }
        Lowered::Attention(a) => OperandBytes {
            weights: (a.kv_bytes() - (a.resident - a.query_bytes()).max(Bytes::ZERO)).max(Bytes::ZERO),
            metadata: Bytes::ZERO,
            inputs: (a.query_bytes() - a.resident).max(Bytes::ZERO),
            outputs: a.output_bytes(),
        },
        Lowered::Stream(s) => OperandBytes {
            weights: s.parameters,
            metadata: Bytes::ZERO,
            inputs: (s.input - s.resident).max(Bytes::ZERO),
            outputs: s.output,
        },
    }
}

fn stored(g: &SparseGemm) -> (Bytes, Bytes) {
    // An activation operand is stored whole whatever was asked of it; a pattern never stores more than dense does.
    let dense = StorageFormat::Dense.bytes(&g.weights, g.dtype);
    let sparse = g.format.bytes(&g.weights, g.dtype);
    let least = if sparse.total() <= dense.total() { sparse } else { dense };
    let groups = g.gemm.groups as f64;
    (least.values * groups, least.metadata * groups)
}

pub(super) fn effectual(op: &Lowered) -> f64 {
    match op {
        Lowered::Gemm(g) => g.effectual_macs(),
        Lowered::Attention(a) => a.effectual_macs(),
        Lowered::Stream(_) => 0.0,
    }
}

pub(super) fn dense(op: &Lowered) -> f64 {
    match op {
        Lowered::Gemm(g) => g.dense_macs(),
        Lowered::Attention(a) => a.dense_macs(),
        Lowered::Stream(_) => 0.0,
    }
}

pub(super) fn dtype(op: &Lowered) -> DType {
    match op {
        Lowered::Gemm(g) => g.dtype,
        Lowered::Attention(a) => a.dtype,
        Lowered::Stream(s) => s.dtype,
    }
}

/// The bare roofline as a device model: what peaks alone would promise.
pub struct Roofline {
    peaks: Peaks,
    clock: Hertz,
    levels: Vec<String>,
}

impl Roofline {
    /// The roofline of a machine.
    pub fn new(profile: &Profile) -> Self {
        Self { peaks: Peaks::of(profile), clock: profile.clock, levels: vec!["dram".into()] }
    }
}

impl CostModel for Roofline {
    fn cost(&self, op: &Lowered) -> Result<LayerCost> {
        let time = self.roofline(op);
        let compute = Seconds(effectual(op) / self.peaks.macs(dtype(op)));
        let mut traffic = Traffic::default();
        traffic.levels[0] = compulsory(op);
        let (pattern, format) = match op {
            Lowered::Gemm(g) => (g.weights.pattern(), g.format),
            _ => (SparsityPattern::Dense, StorageFormat::Dense),
        };
        Ok(LayerCost {
            time,
            interval: default_interval(time),
            compute: self.clock * compute,
            overhead: Seconds::ZERO,
            traffic,
            macs: MacCount { dense: dense(op), effectual: effectual(op), issued: effectual(op) },
            energy: None,
            bound: if compute >= time { Bound::Compute } else { Bound::Memory(0) },
            executed: Executed { pattern, format, kernel: "roofline", fallback: None },
            utilization: if time > Seconds::ZERO { compute / time } else { 0.0 },
            convention: None,
        })
    }

    fn roofline(&self, op: &Lowered) -> Seconds {
        self.peaks.floor(op)
    }

    fn levels(&self) -> &[String] {
        &self.levels
    }

    fn clock(&self) -> Hertz {
        self.clock
    }

    fn last_level(&self) -> Bytes {
        Bytes::ZERO
    }
}
