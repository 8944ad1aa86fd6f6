//! One call of each library: what is put on the device beforehand, and what is enqueued.

mod cublaslt;
mod cusparse;
mod cusparselt;

use super::device::{Buffer, Call, Context, host};
use super::loaded::{CublasLt, Cusparse, CusparseLt};
use super::problem::{Library, Problem};
use crate::dtype::DType;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::rc::Rc;

/// `cudaDataType_t` (library_types.h).
const R_32F: i32 = 0;
const R_16F: i32 = 2;
const R_8I: i32 = 3;
const R_32I: i32 = 10;
const R_16BF: i32 = 14;
const R_8F_E4M3: i32 = 28;
/// `cublasLtMatmulDescAttributes_t` and `cublasOperation_t`.
const TRANSPOSE: i32 = 1;
/// Workspace that libraries may use: what NVIDIA recommends for Hopper, more than older devices need.
const WORKSPACE: usize = 32 << 20;

/// Formats of operands and output, and of what is accumulated.
struct Formats {
    operand: i32,
    output: i32,
    output_bytes: usize,
    integer: bool,
}

fn formats(dtype: DType) -> Result<Formats, String> {
    let (operand, output, output_bytes, integer) = match dtype {
        DType::Fp32 => (R_32F, R_32F, 4, false),
        DType::Fp16 => (R_16F, R_16F, 2, false),
        DType::Bf16 => (R_16BF, R_16BF, 2, false),
        DType::Fp8 => (R_8F_E4M3, R_16BF, 2, false),
        DType::Int8 => (R_8I, R_32I, 4, true),
        DType::Tf32 | DType::Fp4 => return Err(format!("{dtype} is not measured here")),
    };
    Ok(Formats { operand, output, output_bytes, integer })
}

/// Values that are drawn before they repeat: a multiple of four, so that groups of 2:4 stay aligned.
const DRAWN: u64 = 1 << 20;

/// Values between a half and one of either sign (any, in int8): zeros would spare power.
fn drawn(dtype: DType, seed: u64) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut bytes = Vec::new();
    for _ in 0..DRAWN {
        let bits: u32 = rng.random();
        match dtype {
            DType::Fp32 | DType::Tf32 => bytes.extend((0x3f00_0000 | (bits & 0x807f_ffff)).to_le_bytes()),
            DType::Fp16 => bytes.extend((0x3800 | (bits as u16 & 0x83ff)).to_le_bytes()),
            DType::Bf16 => bytes.extend((0x3f00 | (bits as u16 & 0x807f)).to_le_bytes()),
            DType::Fp8 => bytes.push(0x30 | (bits as u8 & 0x87)),
            DType::Int8 | DType::Fp4 => bytes.push(bits as u8),
        }
    }
    bytes
}

/// So many elements, the drawn ones over and over.
fn filled(drawn: &[u8], count: u64) -> Vec<u8> {
    let length = drawn.len() as u64 / DRAWN * count;
    drawn.iter().copied().cycle().take(length as usize).collect()
}

fn values(dtype: DType, count: u64, seed: u64) -> Vec<u8> {
    filled(&drawn(dtype, seed), count)
}

/// Bytes of an operand, where they fit into the machine's words.
fn bytes(rows: u64, cols: u64, element: usize) -> Result<usize, String> {
    let count = rows.checked_mul(cols).and_then(|c| usize::try_from(c).ok());
    count.and_then(|c| c.checked_mul(element)).ok_or_else(|| "the operand does not fit into memory".to_owned())
}

/// What has been loaded so far.
#[derive(Default)]
pub struct Libraries {
    cublaslt: Option<Rc<CublasLt>>,
    cusparselt: Option<Rc<CusparseLt>>,
    cusparse: Option<Rc<Cusparse>>,
}

/// The library, loaded at its first use.
fn loaded<T>(slot: &mut Option<Rc<T>>, load: fn() -> crate::error::Result<T>) -> Result<Rc<T>, String> {
    if let Some(library) = slot {
        return Ok(Rc::clone(library));
    }
    let library = Rc::new(load().map_err(|e| e.to_string())?);
    *slot = Some(Rc::clone(&library));
    Ok(library)
}

impl Libraries {
    /// A product on the device.
    pub fn prepare(&mut self, context: &Rc<Context>, p: &Problem, copies: u64) -> Result<Box<dyn Call>, String> {
        let library = p.library().ok_or_else(|| format!("no library here measures {}", p.pattern))?;
        Ok(match library {
            Library::CublasLt => {
                Box::new(cublaslt::Dense::new(loaded(&mut self.cublaslt, CublasLt::load)?, context, p, copies)?)
            }
            Library::CusparseLt => {
                Box::new(cusparselt::Half::new(loaded(&mut self.cusparselt, CusparseLt::load)?, context, p, copies)?)
            }
            Library::CusparseCsr | Library::CusparseBlockedEll => Box::new(cusparse::Sparse::new(
                loaded(&mut self.cusparse, Cusparse::load)?,
                context,
                p,
                copies,
                library,
            )?),
        })
    }
}

/// Activations and output, which all turns share.
struct Operands {
    inputs: Buffer,
    output: Buffer,
}

impl Operands {
    fn new(context: &Rc<Context>, p: &Problem, f: &Formats) -> Result<Self, String> {
        bytes(p.m, p.k, 4)?;
        Ok(Self {
            inputs: Buffer::of(context, &values(p.dtype, p.m * p.k, 1))?,
            output: Buffer::new(context, bytes(p.m, p.n, f.output_bytes)?)?,
        })
    }
}

/// The number one, as the accumulator's format has it.
#[derive(Clone, Copy)]
enum One {
    Float([f32; 2]),
    Integer([i32; 2]),
}

impl One {
    fn of(integer: bool) -> Self {
        if integer { Self::Integer([1, 0]) } else { Self::Float([1.0, 0.0]) }
    }

    /// Pointers to one and zero.
    fn scales(&self) -> (*const std::ffi::c_void, *const std::ffi::c_void) {
        match self {
            Self::Float([one, zero]) => (host(one), host(zero)),
            Self::Integer([one, zero]) => (host(one), host(zero)),
        }
    }
}
