//! Compressed rows and blocked ELL by cuSPARSE.

use super::super::device::{Buffer, Call, Context, check, host};
use super::super::loaded::{Address, Cusparse, Opaque};
use super::super::problem::{Library, Problem};
use super::{Formats, Operands, R_32F, formats, values};
use crate::dtype::DType;
use crate::pattern::SparsityPattern;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ptr::null_mut;
use std::rc::Rc;

/// `cusparseOrder_t`.
const COLUMNS_FIRST: i32 = 1;
/// `cusparseIndexType_t`.
const INDEX_32I: i32 = 2;
/// `cusparseSpMMAlg_t`.
const SPMM_DEFAULT: i32 = 0;
const SPMM_BLOCKED_ELL: i32 = 13;

/// Compressed rows or blocked ELL: Y rows first is columns-first Yᵀ = W·Xᵀ.
pub(super) struct Sparse {
    objects: SparseObjects,
    algorithm: i32,
    name: &'static str,
    workspace: Buffer,
    one: [f32; 2],
    _operands: Operands,
    _weights: Vec<Buffer>,
}

/// cuSPARSE's objects, destroyed together.
struct SparseObjects {
    library: Rc<Cusparse>,
    handle: Opaque,
    weights: Vec<Opaque>,
    inputs: Opaque,
    output: Opaque,
}

/// Sorted choices of `count` among `of`, drawn without replacement (Knuth's selection sampling, algorithm S).
fn chosen(rng: &mut ChaCha8Rng, count: usize, of: usize) -> Vec<u32> {
    let mut left = count.min(of);
    let mut columns = Vec::with_capacity(left);
    for column in 0..of {
        if rng.random_range(0..of - column) < left {
            columns.push(column as u32);
            left -= 1;
        }
    }
    columns
}

impl Sparse {
    pub(super) fn new(
        library: Rc<Cusparse>,
        context: &Rc<Context>,
        p: &Problem,
        copies: u64,
        kind: Library,
    ) -> Result<Self, String> {
        let f = formats(p.dtype)?;
        if f.integer || p.dtype == DType::Fp8 {
            return Err(format!("cuSPARSE's products of {} are not measured here", p.dtype));
        }
        let operands = Operands::new(context, p, &f)?;
        let (m, n, k) = (p.m as i64, p.n as i64, p.k as i64);
        let mut o = SparseObjects {
            library: Rc::clone(&library),
            handle: null_mut(),
            weights: Vec::new(),
            inputs: null_mut(),
            output: null_mut(),
        };
        // SAFETY: out-pointers live through the calls; the dense matrices have the operands' sizes.
        unsafe {
            check((library.create)(&mut o.handle), "cusparseCreate")?;
            check((library.set_stream)(o.handle, context.stream), "cusparseSetStream")?;
            let x = (library.dense)(&mut o.inputs, k, m, k, operands.inputs.address, f.operand, COLUMNS_FIRST);
            check(x, "cusparseCreateDnMat")?;
            let y = (library.dense)(&mut o.output, n, m, n, operands.output.address, f.output, COLUMNS_FIRST);
            check(y, "cusparseCreateDnMat")?;
        }
        let mut buffers = Vec::new();
        for copy in 0..copies {
            let mut matrix = null_mut();
            let held = match p.pattern {
                SparsityPattern::Block { rows, sparsity, .. } => {
                    blocked_ell(&library, context, p, &f, (rows, sparsity), copy, &mut matrix)?
                }
                _ => csr(&library, context, p, &f, copy, &mut matrix)?,
            };
            o.weights.push(matrix);
            buffers.extend(held);
        }
        let algorithm = if kind == Library::CusparseBlockedEll { SPMM_BLOCKED_ELL } else { SPMM_DEFAULT };
        let (one, mut work) = ([1.0f32, 0.0], 0);
        // SAFETY: all objects are alive; scales are read during the call.
        let status = unsafe {
            (library.workspace)(
                o.handle,
                0,
                0,
                host(&one[0]),
                o.weights[0],
                o.inputs,
                host(&one[1]),
                o.output,
                R_32F,
                algorithm,
                &mut work,
            )
        };
        check(status, "cusparseSpMM_bufferSize")?;
        let workspace = Buffer::new(context, work)?;
        Ok(Self { objects: o, algorithm, name: kind.name(), workspace, one, _operands: operands, _weights: buffers })
    }
}

/// Compressed rows, each with as many nonzeros as the density asks for on average.
fn csr(
    library: &Cusparse,
    context: &Rc<Context>,
    p: &Problem,
    f: &Formats,
    seed: u64,
    matrix: &mut Opaque,
) -> Result<[Buffer; 3], String> {
    let kept = ((p.pattern.density() * p.k as f64).round() as usize).max(1);
    let rows = usize::try_from(p.n).map_err(|_| "too many rows".to_owned())?;
    let nonzeros = i32::try_from(rows.saturating_mul(kept)).map_err(|_| "too many nonzeros for 32-bit indices")?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let offsets: Vec<u8> = (0..=rows).flat_map(|r| ((r * kept) as u32).to_le_bytes()).collect();
    let columns: Vec<u8> =
        (0..rows).flat_map(|_| chosen(&mut rng, kept, p.k as usize)).flat_map(u32::to_le_bytes).collect();
    let held = [
        Buffer::of(context, &offsets)?,
        Buffer::of(context, &columns)?,
        Buffer::of(context, &values(p.dtype, nonzeros as u64, seed))?,
    ];
    let [o, c, v]: [Address; 3] = [held[0].address, held[1].address, held[2].address];
    // SAFETY: the three buffers have the lengths that rows and nonzeros call for.
    let status = unsafe {
        (library.csr)(matrix, p.n as i64, p.k as i64, i64::from(nonzeros), o, c, v, INDEX_32I, INDEX_32I, 0, f.operand)
    };
    check(status, "cusparseCreateCsr").map(|()| held)
}

/// Blocked ELL of square blocks: as many in each row of blocks.
fn blocked_ell(
    library: &Cusparse,
    context: &Rc<Context>,
    p: &Problem,
    f: &Formats,
    (block, sparsity): (u64, f64),
    seed: u64,
    matrix: &mut Opaque,
) -> Result<[Buffer; 3], String> {
    if p.n % block != 0 || p.k % block != 0 {
        return Err(format!("blocked ELL needs multiples of {block}"));
    }
    let across = (p.k / block) as usize;
    let kept = (((1.0 - sparsity) * across as f64).round() as usize).clamp(1, across);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let columns: Vec<u8> =
        (0..p.n / block).flat_map(|_| chosen(&mut rng, kept, across)).flat_map(u32::to_le_bytes).collect();
    let width = kept as u64 * block;
    let held = [
        Buffer::of(context, &columns)?,
        Buffer::of(context, &values(p.dtype, p.n * width, seed))?,
        Buffer::new(context, 0)?,
    ];
    // SAFETY: the buffers have the lengths that blocks and width call for.
    let status = unsafe {
        (library.blocked_ell)(
            matrix,
            p.n as i64,
            p.k as i64,
            block as i64,
            width as i64,
            held[0].address,
            held[1].address,
            INDEX_32I,
            0,
            f.operand,
        )
    };
    check(status, "cusparseCreateBlockedEll").map(|()| held)
}

impl Call for Sparse {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn enqueue(&mut self, turn: usize) -> Result<(), String> {
        let o = &self.objects;
        // SAFETY: all objects and buffers are alive; scales are read during the call.
        let status = unsafe {
            (o.library.multiply)(
                o.handle,
                0,
                0,
                host(&self.one[0]),
                o.weights[turn % o.weights.len()],
                o.inputs,
                host(&self.one[1]),
                o.output,
                R_32F,
                self.algorithm,
                self.workspace.address,
            )
        };
        check(status, "cusparseSpMM")
    }
}

impl Drop for SparseObjects {
    fn drop(&mut self) {
        let l = &self.library;
        let dense = [self.inputs, self.output].map(|d| (l.dense_destroy, d));
        let sparse = self.weights.iter().map(|w| (l.sparse_destroy, *w));
        for (destroy, object) in sparse.chain(dense).chain([(l.destroy, self.handle)]) {
            if !object.is_null() {
                // SAFETY: each object is destroyed once, by its own library.
                unsafe { destroy(object) };
            }
        }
    }
}
