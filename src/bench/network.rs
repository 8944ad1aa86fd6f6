//! Runs a network's products one after another with the real kernels, and times each.
//!
//! One pass is one inference as the kernels see it: the caches are emptied, then every product runs once in the network's
//! order, its input in the buffer into which the product before it wrote. What stands between them (norms, activations,
//! pooling) is not run; a pass over the results takes its place, untimed, so that values stay small normal numbers.

use super::clock::{Clock, keep};
use super::probes;
use super::run::noise;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::kernels::conv::{Convolution, Direct};
use crate::kernels::{self, Activations, Buffer, Isa, Packed, WeightMatrix};
use crate::lower::{ConvShape, Gemm};
use crate::pattern::SparsityPattern;
use crate::sparsity::StorageFormat;

/// A product of a network with its weights.
#[derive(Clone, Debug)]
pub struct Product {
    /// Its shape.
    pub gemm: Gemm,
    /// The convolution that it is, if it is one.
    pub conv: Option<ConvShape>,
    /// Times that it runs one after another.
    pub steps: u64,
    /// What its weights follow.
    pub pattern: SparsityPattern,
    /// How they are stored.
    pub format: StorageFormat,
    /// In what they are multiplied.
    pub dtype: DType,
    /// `[groups, n, k]`, zeros where they were pruned.
    pub weights: Vec<f32>,
}

enum Code {
    Product(Box<dyn Packed>),
    Convolution(Convolution),
    Direct(Direct),
}

/// A product that is ready to run.
pub struct Ready {
    /// The kernel.
    pub kernel: &'static str,
    code: Code,
    gemm: Gemm,
    steps: u64,
    input: usize,
    output: usize,
}

/// The kernel's name for weights of a pattern in a format.
fn kernel_name(pattern: SparsityPattern, format: StorageFormat, dtype: DType) -> Option<&'static str> {
    Some(match (dtype, format, pattern) {
        (DType::Fp32, StorageFormat::Dense, SparsityPattern::Row(_) | SparsityPattern::Column(_)) => "pruned",
        (DType::Fp32, StorageFormat::Dense, _) => "dense",
        (DType::Fp32, StorageFormat::Csr, _) => "csr",
        (DType::Fp32, StorageFormat::Bsr { .. }, _) => "bsr",
        (DType::Fp32, StorageFormat::Nm { .. }, _) => "nm",
        (DType::Fp32, StorageFormat::Vnm { .. }, _) => "vnm",
        // Of the narrow formats, none has rows or columns cut out.
        (_, _, SparsityPattern::Row(_) | SparsityPattern::Column(_)) => return None,
        (DType::Bf16, StorageFormat::Dense, _) => "bf16",
        (DType::Bf16, StorageFormat::Bsr { .. }, _) => "bsr-bf16",
        (DType::Int8, StorageFormat::Dense, _) => "int8",
        (DType::Int8, StorageFormat::Bsr { .. }, _) => "bsr-int8",
        (DType::Fp32 | DType::Tf32 | DType::Fp16 | DType::Bf16 | DType::Fp8 | DType::Int8 | DType::Fp4, _, _) => {
            return None;
        }
    })
}

/// Packs a product's weights.
///
/// # Errors
/// A format that no kernel reads, weights that do not have the pattern, sizes that do not fit into memory.
pub fn prepare(isa: Isa, product: &Product) -> Result<Ready> {
    let Product { gemm, conv, steps, pattern, format, dtype, ref weights } = *product;
    let Gemm { groups, m, n, k } = gemm;
    let input = match &conv {
        Some(c) => c.batch.checked_mul(c.channels).and_then(|e| e.checked_mul(c.input[0] * c.input[1])),
        None => groups.checked_mul(m).and_then(|e| e.checked_mul(k)),
    };
    let output = groups.checked_mul(m).and_then(|e| e.checked_mul(n));
    let fits = |elements: Option<u64>| {
        let large = || Error::argument("run", format!("activations of {m} x {n} x {k} do not fit into memory"));
        elements.filter(|&e| e < 1 << 32).map(|e| e as usize).ok_or_else(large)
    };
    let (input, output) = (fits(input)?, fits(output)?);
    let ready = |kernel, code| Ok(Ready { kernel, code, gemm, steps, input, output });
    if let (Some(shape), true) = (conv, groups > 1 && n < 8) {
        return ready("direct", Code::Direct(Direct::new(isa, shape, groups as usize, weights.clone())));
    }
    let unread = || {
        Error::argument(
            "run",
            format!("no kernel multiplies {pattern} weights stored as {} in {}", format.name(), dtype.name()),
        )
    };
    let name = kernel_name(pattern, format, dtype).ok_or_else(unread)?;
    let kernel = kernels::all(isa).into_iter().find(|kernel| kernel.name() == name).ok_or_else(unread)?;
    let size = ((n * k) as usize).max(1);
    let pack = |values| {
        // A dense kernel takes zeros as they are.
        let asked = if format == StorageFormat::Dense && name != "pruned" { SparsityPattern::Dense } else { pattern };
        kernel.pack(WeightMatrix { n: n as usize, k: k as usize, values }, &asked, m as usize)
    };
    let mut packed = weights.chunks_exact(size).map(pack).collect::<Result<Vec<_>>>()?;
    match conv {
        Some(shape) => ready(name, Code::Convolution(Convolution::new(shape, packed))),
        None => match packed.pop() {
            Some(one) if packed.is_empty() => ready(name, Code::Product(one)),
            _ => Err(Error::argument("run", format!("{groups} products in one layer that is no convolution"))),
        },
    }
}

impl Ready {
    /// How activations reach the kernel.
    pub fn way(&self) -> &'static str {
        match &self.code {
            Code::Product(_) => "",
            Code::Convolution(c) if c.shape().is_pointwise() => "",
            Code::Convolution(_) => "im2col",
            Code::Direct(_) => "in place",
        }
    }

    fn run(&self, x: &[f32], y: &mut [f32]) {
        let (x, y) = (&x[..self.input], &mut y[..self.output]);
        for _ in 0..self.steps.max(1) {
            match &self.code {
                Code::Product(packed) => {
                    let (k, m) = (self.gemm.k as usize, self.gemm.m as usize);
                    packed.run(Activations { k, m, values: x }, y);
                }
                Code::Convolution(conv) => conv.run(x, y),
                Code::Direct(conv) => conv.run(x, y),
            }
        }
    }
}

/// Seconds of every product, the fastest of the passes; `go_on` is asked between passes and ends them when it says no.
pub fn measure(
    all: &[Ready],
    isa: Isa,
    (threads, passes): (usize, usize),
    last_level: usize,
    go_on: &dyn Fn(usize) -> bool,
) -> Vec<f64> {
    let most = all.iter().map(|r| r.input.max(r.output)).max().unwrap_or(0);
    let mut buffers = [Buffer::from(noise(most as u64, 1).as_slice()), Buffer::zeros(most)];
    let mut flush = Buffer::zeros(last_level / 2 / 128 * 128);
    flush.fill(1.0);
    let clock = Clock::for_threads(threads);
    let mut least = vec![f64::INFINITY; all.len()];
    for pass in 0..passes.max(1) {
        if pass > 0 && !go_on(pass) {
            break;
        }
        probes::read(isa, keep(&flush));
        for (ready, least) in all.iter().zip(&mut least) {
            let [x, y] = &mut buffers;
            *least = least.min(clock.time(|| ready.run(x, y)));
            y[..ready.output].iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0) + v.signum() * 1e-3);
            buffers.swap(0, 1);
        }
    }
    least
}
