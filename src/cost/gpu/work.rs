//! From a lowered operation to the kernel that runs it, and that kernel's time.

use super::attention::{AttentionWork, attention};
use super::constants::Constants;
use super::conv::conv;
use super::facts::Facts;
use super::gemm::{GemmWork, Raster, gemm};
use super::memory::{Footprint, Setting};
use super::sparse::{Library, LibraryWork, half_constants, half_weights, library, library_work};
use super::stream::{Class, stream};
use crate::cost::{Fallback, OperandBytes};
use crate::dtype::DType;
use crate::lower::{ConvShape, Lowered, Source, SparseGemm, Stream};
use crate::pattern::SparsityPattern;
use crate::sparsity::StorageFormat;

/// One kernel's work in base units.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A dense product.
    Dense(GemmWork),
    /// A 2:4 product on sparse tensor cores, in its halved form.
    Half(GemmWork),
    /// A 2:4 convolution on sparse tensor cores (TensorRT has such kernels since version 8), in its halved form.
    HalfConv(GemmWork, ConvShape),
    /// Another sparse kernel.
    Library(LibraryWork),
    /// A dense convolution.
    Conv(GemmWork, ConvShape),
    /// Attention.
    Attention(AttentionWork),
    /// A stream.
    Stream(Stream),
}

/// What a kernel costs.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated {
    /// Seconds, the setting's overhead included.
    pub time: f64,
    /// Seconds of arithmetic (of the chip, for streams).
    pub compute: f64,
    /// Seconds of main memory.
    pub memory: f64,
    /// Seconds of start, end and overhead.
    pub overhead: f64,
    /// Main-memory bytes.
    pub dram: OperandBytes,
    /// Bytes from L2.
    pub l2: f64,
    /// Multiply–accumulates issued.
    pub issued: f64,
    /// The kernel.
    pub kernel: &'static str,
}

/// Time and traffic of a kernel under a setting.
pub fn evaluate(facts: &Facts, constants: &Constants, setting: &Setting, work: &Work) -> Evaluated {
    match work {
        Work::Dense(w) => {
            let cost = gemm(facts, constants.gemm(w.engine), setting, w);
            let kernel = if w.engine.is_tensor() { "tensor-core gemm" } else { "simt gemm" };
            product(cost, setting, kernel, 1.0)
        }
        Work::Half(w) => {
            let c = half_constants(constants.gemm(w.engine), constants.sparse(w.engine));
            product(gemm(facts, &c, setting, w), setting, "sparse tensor-core 2:4 gemm", 0.5)
        }
        Work::HalfConv(w, shape) => {
            let c = half_constants(constants.gemm(w.engine), constants.sparse(w.engine));
            let (cost, _) = conv(facts, constants.conv(w.engine), &c, setting, w, shape);
            product(cost, setting, "sparse tensor-core 2:4 implicit-gemm", 0.5)
        }
        Work::Library(w) => {
            let c = library(facts, constants.library(w.library), constants.gemm(w.dense.engine), setting, w);
            product(c, setting, w.library.name(), 1.0)
        }
        Work::Conv(w, shape) => {
            let (cost, kernel) = conv(facts, constants.conv(w.engine), constants.gemm(w.engine), setting, w, shape);
            product(cost, setting, kernel, 1.0)
        }
        Work::Attention(w) => {
            let c = attention(facts, &constants.attention, setting, w);
            Evaluated {
                time: c.time + setting.overhead,
                compute: c.compute,
                memory: c.memory,
                overhead: c.ramp + setting.overhead,
                dram: c.dram,
                l2: c.l2,
                issued: 2.0 * w.heads * w.pairs * w.width,
                kernel: if c.decode { "flash-decoding" } else { "flash-attention" },
            }
        }
        Work::Stream(s) => {
            let c = stream(facts, constants.stream(Class::of(s.kind)), setting, s);
            Evaluated {
                time: c.time + setting.overhead,
                compute: c.chip,
                memory: c.memory,
                overhead: c.ramp + setting.overhead,
                dram: c.dram,
                l2: c.l2,
                issued: 0.0,
                kernel: Class::of(s.kind).name(),
            }
        }
    }
}

fn product(c: super::gemm::GemmCost, setting: &Setting, kernel: &'static str, share: f64) -> Evaluated {
    Evaluated {
        time: c.time + setting.overhead,
        compute: c.compute,
        memory: c.memory,
        overhead: c.ramp + setting.overhead,
        dram: c.dram,
        l2: c.l2,
        issued: c.issued * share,
        kernel,
    }
}

/// The dense work of a product. Whole rows and columns that are cut leave a smaller dense product.
pub fn dense(facts: &Facts, op: &SparseGemm) -> Option<GemmWork> {
    let peak = facts.peak(op.dtype)?;
    let g = &op.gemm;
    let nonzeros = op.weights.nonzeros();
    let (n, k) = match op.weights.pattern() {
        SparsityPattern::Row(_) => ((nonzeros / g.k as f64).max(1.0), g.k as f64),
        SparsityPattern::Column(_) => (g.n as f64, (nonzeros / g.n as f64).max(1.0)),
        _ => (g.n as f64, g.k as f64),
    };
    // Microscaled 4-bit formats carry an 8-bit scale for each 16 values.
    let element = op.dtype.bytes() + if op.dtype == DType::Fp4 { 0.0625 } else { 0.0 };
    let (groups, m) = (g.groups as f64, g.m as f64);
    // Cut columns are skipped in the product, but the activations around them share their cache lines; cut rows leave
    // zeros that consumers read. So both activations move whole.
    let inputs = op.input_bytes().get() * element / op.dtype.bytes();
    let cut = matches!(op.weights.pattern(), SparsityPattern::Row(_) | SparsityPattern::Column(_));
    let metadata = if cut { StorageFormat::Dense.bytes(&op.weights, op.dtype).metadata.get() } else { 0.0 };
    Some(GemmWork {
        groups,
        m,
        n,
        k,
        input: element,
        weight: element,
        output: op.out_dtype.bytes(),
        element,
        rate: peak.rate,
        engine: peak.engine,
        raster: Raster::Swizzled,
        footprint: Footprint {
            weights: groups * n * k * element,
            metadata: groups * metadata,
            inputs: (inputs - op.resident.get()).max(0.0) + op.epilogue.bytes.get(),
            outputs: op.output_bytes().get(),
        },
    })
}

/// The dense kernel's work for a product or convolution.
pub fn dense_kernel(facts: &Facts, op: &SparseGemm) -> Option<Work> {
    let work = dense(facts, op)?;
    Some(match op.source {
        Source::Conv(shape) => Work::Conv(work, shape),
        Source::Linear | Source::Activations | Source::Recurrent { .. } => Work::Dense(work),
    })
}

/// Bytes that n and k must be a multiple of for 2:4: one vector of loads, and one instruction's depth (cuSPARSELt's
/// documentation: 8 and 16 elements in 16 bit, 16 and 32 in 8 bit).
const HALF_ALIGNMENT: [(&str, u64); 2] = [("n", 16), ("k", 32)];

/// The 2:4 kernel's work, of a product or a convolution.
///
/// # Errors
/// Why the hardware or its library does not take the product.
pub fn half(facts: &Facts, op: &SparseGemm) -> Result<Work, Fallback> {
    let pattern = op.weights.pattern();
    if op.source == Source::Activations {
        return Err(Fallback::NoWeights);
    }
    let work = dense(facts, op).ok_or(Fallback::DType { pattern, dtype: op.dtype })?;
    let speedup = facts.sparse_speedup(op.dtype).ok_or(Fallback::DType { pattern, dtype: op.dtype })?;
    for (axis, bytes) in HALF_ALIGNMENT {
        let multiple = bytes * 8 / op.dtype.bits();
        let extent = if axis == "n" { op.gemm.n } else { op.gemm.k };
        if extent % multiple != 0 {
            return Err(Fallback::Alignment { pattern, axis, extent, multiple });
        }
    }
    let work = half_weights(facts, &work, op, speedup);
    Ok(match op.source {
        Source::Conv(shape) => Work::HalfConv(work, shape),
        Source::Linear | Source::Activations | Source::Recurrent { .. } => Work::Half(work),
    })
}

/// The work of the kernel that a sample names, or of the one that serves the pattern; `None` where none does.
pub fn of_sample(facts: &Facts, op: &Lowered, kernel: &str) -> Option<Work> {
    match op {
        Lowered::Gemm(g) => match g.weights.pattern() {
            SparsityPattern::Dense | SparsityPattern::Row(_) | SparsityPattern::Column(_) => dense_kernel(facts, g),
            SparsityPattern::Nm { n: 2, m: 4 } => half(facts, g).ok(),
            _ => {
                let work = dense(facts, g)?;
                let named = Library::of_kernel(kernel);
                let all = Library::ALL.into_iter().filter(|l| named.is_none_or(|n| n == *l));
                all.filter_map(|l| library_work(facts, l, g, &work)).map(Work::Library).next()
            }
        },
        Lowered::Attention(a) => AttentionWork::of(facts, a).map(Work::Attention),
        Lowered::Stream(s) => Some(Work::Stream(*s)),
    }
}
