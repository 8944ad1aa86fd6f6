//! One call of each library: what is put on the device beforehand, and what is enqueued.

use super::device::{Buffer, Call, Context, check, host};
use super::loaded::{Address, CublasLt, Cusparse, CusparseLt, Opaque, Proposal, Structure};
use super::problem::{Library, Problem};
use crate::dtype::DType;
use crate::pattern::SparsityPattern;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::ptr::null_mut;
use std::rc::Rc;

/// `cudaDataType_t` (library_types.h).
const R_32F: i32 = 0;
const R_16F: i32 = 2;
const R_8I: i32 = 3;
const R_32I: i32 = 10;
const R_16BF: i32 = 14;
const R_8F_E4M3: i32 = 28;
/// `cublasComputeType_t`: fp32 and int32 accumulators.
const CUBLAS_COMPUTE_32F: i32 = 68;
const CUBLAS_COMPUTE_32I: i32 = 72;
/// `cublasLtMatmulDescAttributes_t` and `cublasOperation_t`.
const OPERATION_TRANSPOSE_A: i32 = 3;
const TRANSPOSE: i32 = 1;
/// `cublasLtMatmulPreferenceAttributes_t`.
const MOST_WORKSPACE: i32 = 1;
/// `cusparseComputeType` of cuSPARSELt 0.5 and newer.
const CUSPARSELT_COMPUTE_32I: i32 = 0;
const CUSPARSELT_COMPUTE_32F: i32 = 2;
/// The first cuSPARSELt whose compute types are numbered so.
const CUSPARSELT_LEAST: i32 = 500;
/// `cusparseOrder_t`.
const COLUMNS_FIRST: i32 = 1;
const ROWS_FIRST: i32 = 2;
/// `cusparseIndexType_t`.
const INDEX_32I: i32 = 2;
/// `cusparseSpMMAlg_t`.
const SPMM_DEFAULT: i32 = 0;
const SPMM_BLOCKED_ELL: i32 = 13;
/// Workspace that libraries may use: what NVIDIA recommends for Hopper, more than older devices need.
const WORKSPACE: usize = 32 << 20;
/// Alignment of operands that is promised to cuSPARSELt.
const ALIGNMENT: u32 = 16;

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

/// Zeroes two of each four along k.
fn prune_half(weights: &mut [u8], element: usize, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for group in weights.chunks_mut(4 * element) {
        let first = rng.random_range(0..4usize);
        let second = (first + rng.random_range(1..4usize)) % 4;
        for at in [first, second] {
            if let Some(value) = group.get_mut(at * element..(at + 1) * element) {
                value.fill(0);
            }
        }
    }
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
            Library::CublasLt => Box::new(Dense::new(loaded(&mut self.cublaslt, CublasLt::load)?, context, p, copies)?),
            Library::CusparseLt => {
                Box::new(Half::new(loaded(&mut self.cusparselt, CusparseLt::load)?, context, p, copies)?)
            }
            Library::CusparseCsr | Library::CusparseBlockedEll => {
                Box::new(Sparse::new(loaded(&mut self.cusparse, Cusparse::load)?, context, p, copies, library)?)
            }
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

/// A dense product. Rows-first Yᵀ = W·Xᵀ is columns-first with W transposed, the one layout that 8-bit formats have.
struct Dense {
    library: Rc<CublasLt>,
    context: Rc<Context>,
    handles: DenseHandles,
    proposal: Proposal,
    weights: Vec<Buffer>,
    operands: Operands,
    workspace: Buffer,
    one: One,
}

/// cuBLASLt's objects, destroyed together.
struct DenseHandles {
    library: Rc<CublasLt>,
    handle: Opaque,
    operation: Opaque,
    /// Of the weights, the activations and the output.
    layouts: [Opaque; 3],
    preference: Opaque,
}

impl Dense {
    fn new(library: Rc<CublasLt>, context: &Rc<Context>, p: &Problem, copies: u64) -> Result<Self, String> {
        let f = formats(p.dtype)?;
        let size = bytes(p.n, p.k, 4)? / 4;
        let mut h = DenseHandles {
            library: Rc::clone(&library),
            handle: null_mut(),
            operation: null_mut(),
            layouts: [null_mut(); 3],
            preference: null_mut(),
        };
        let (compute, scale) = if f.integer { (CUBLAS_COMPUTE_32I, R_32I) } else { (CUBLAS_COMPUTE_32F, R_32F) };
        let shapes = [(f.operand, p.k, p.n), (f.operand, p.k, p.m), (f.output, p.n, p.m)];
        let mut proposal = Proposal::default();
        let mut found = 0;
        // SAFETY: out-pointers live through the calls; attributes are passed with their own size.
        unsafe {
            check((library.create)(&mut h.handle), "cublasLtCreate")?;
            check((library.operation)(&mut h.operation, compute, scale), "cublasLtMatmulDescCreate")?;
            let set = (library.operation_set)(h.operation, OPERATION_TRANSPOSE_A, host(&TRANSPOSE), size_of::<i32>());
            check(set, "cublasLtMatmulDescSetAttribute")?;
            for (layout, (format, rows, cols)) in h.layouts.iter_mut().zip(shapes) {
                check((library.layout)(layout, format, rows, cols, rows as i64), "cublasLtMatrixLayoutCreate")?;
            }
            check((library.preference)(&mut h.preference), "cublasLtMatmulPreferenceCreate")?;
            let set = (library.preference_set)(h.preference, MOST_WORKSPACE, host(&WORKSPACE), size_of::<usize>());
            check(set, "cublasLtMatmulPreferenceSetAttribute")?;
            let [w, x, y] = h.layouts;
            let status =
                (library.propose)(h.handle, h.operation, w, x, y, y, h.preference, 1, &mut proposal, &mut found);
            check(status, "cublasLtMatmulAlgoGetHeuristic")?;
        }
        if found < 1 {
            return Err("cuBLASLt has no algorithm for the product".to_owned());
        }
        let contents = values(p.dtype, size as u64, 2);
        let first = Buffer::of(context, &contents)?;
        let mut weights = first.copies(contents.len(), copies.saturating_sub(1))?;
        weights.push(first);
        Ok(Self {
            operands: Operands::new(context, p, &f)?,
            workspace: Buffer::new(context, WORKSPACE)?,
            one: One::of(f.integer),
            context: Rc::clone(context),
            handles: h,
            library,
            proposal,
            weights,
        })
    }
}

impl Call for Dense {
    fn name(&self) -> String {
        Library::CublasLt.name().to_owned()
    }

    fn enqueue(&mut self, turn: usize) -> Result<(), String> {
        let (one, zero) = self.one.scales();
        let (h, [w, x, y]) = (&self.handles, self.handles.layouts);
        let out = self.operands.output.address;
        // SAFETY: buffers have the layouts' sizes and outlive the stream's work; scales are read during the call.
        let status = unsafe {
            (self.library.multiply)(
                h.handle,
                h.operation,
                one,
                self.weights[turn % self.weights.len()].address,
                w,
                self.operands.inputs.address,
                x,
                zero,
                out,
                y,
                out,
                y,
                &self.proposal.algorithm,
                self.workspace.address,
                WORKSPACE,
                self.context.stream,
            )
        };
        check(status, "cublasLtMatmul")
    }
}

impl Drop for DenseHandles {
    fn drop(&mut self) {
        let l = &self.library;
        let destroyers = [(l.preference_destroy, self.preference), (l.operation_destroy, self.operation)];
        let layouts = self.layouts.map(|layout| (l.layout_destroy, layout));
        for (destroy, object) in destroyers.into_iter().chain(layouts).chain([(l.destroy, self.handle)]) {
            if !object.is_null() {
                // SAFETY: each object is destroyed once, by its own library.
                unsafe { destroy(object) };
            }
        }
    }
}

/// A 2:4 product, W pruned and compressed beforehand; the library searches its kernels once.
struct Half {
    library: Rc<CusparseLt>,
    context: Rc<Context>,
    objects: HalfObjects,
    version: i32,
    weights: Vec<Buffer>,
    operands: Operands,
    workspace: Buffer,
    one: [f32; 2],
}

/// cuSPARSELt's opaque structures, destroyed together; each stays where it is, because plans point at descriptors.
struct HalfObjects {
    library: Rc<CusparseLt>,
    handle: Box<Structure>,
    matrices: [Box<Structure>; 3],
    operation: Box<Structure>,
    selection: Box<Structure>,
    plan: Box<Structure>,
    /// Handle, descriptors and plan that have been initialised.
    live: (bool, usize, bool),
}

fn structure() -> Box<Structure> {
    Box::new(Structure([0; 16384]))
}

impl Half {
    fn new(library: Rc<CusparseLt>, context: &Rc<Context>, p: &Problem, copies: u64) -> Result<Self, String> {
        let f = formats(p.dtype)?;
        let size = bytes(p.n, p.k, 4)? as u64 / 4;
        let (m, n, k) = (p.m as i64, p.n as i64, p.k as i64);
        let compute = if f.integer { CUSPARSELT_COMPUTE_32I } else { CUSPARSELT_COMPUTE_32F };
        let mut o = HalfObjects {
            library: Rc::clone(&library),
            handle: structure(),
            matrices: [structure(), structure(), structure()],
            operation: structure(),
            selection: structure(),
            plan: structure(),
            live: (false, 0, false),
        };
        let mut version = 0;
        let (mut compressed, mut scratch, mut work) = (0, 0, 0);
        // SAFETY: structures are larger than the library's and stay in their boxes; out-pointers live through the calls.
        unsafe {
            check((library.init)(&mut *o.handle), "cusparseLtInit")?;
            o.live.0 = true;
            check((library.version)(&*o.handle, &mut version), "cusparseLtGetVersion")?;
            if version < CUSPARSELT_LEAST {
                return Err(format!("cuSPARSELt {version} is too old; install 0.5 or newer"));
            }
            let [w, x, y] = &mut o.matrices;
            let made = (library.structured)(&*o.handle, &mut **w, n, k, k, ALIGNMENT, f.operand, ROWS_FIRST, 0);
            check(made, "cusparseLtStructuredDescriptorInit")?;
            o.live.1 = 1;
            for (matrix, rows, cols, format) in [(x, m, k, f.operand), (y, n, m, f.output)] {
                let made = (library.dense)(&*o.handle, &mut **matrix, rows, cols, cols, ALIGNMENT, format, ROWS_FIRST);
                check(made, "cusparseLtDenseDescriptorInit")?;
                o.live.1 += 1;
            }
            let [w, x, y] = &o.matrices;
            let made =
                (library.operation)(&*o.handle, &mut *o.operation, 0, TRANSPOSE, &**w, &**x, &**y, &**y, compute);
            check(made, "cusparseLtMatmulDescriptorInit")?;
            let made = (library.selection)(&*o.handle, &mut *o.selection, &*o.operation, 0);
            check(made, "cusparseLtMatmulAlgSelectionInit")?;
            check((library.plan)(&*o.handle, &mut *o.plan, &*o.operation, &*o.selection), "cusparseLtMatmulPlanInit")?;
            o.live.2 = true;
            let asked = (library.compressed_size)(&*o.handle, &*o.plan, &mut compressed, &mut scratch);
            check(asked, "cusparseLtSpMMACompressedSize")?;
        }
        let mut pruned = drawn(p.dtype, 2);
        let element = pruned.len() / DRAWN as usize;
        prune_half(&mut pruned, element, 3);
        let contents = filled(&pruned, size);
        let (plain, scratch) = (Buffer::of(context, &contents)?, Buffer::new(context, scratch)?);
        let first = Buffer::new(context, compressed)?;
        let operands = Operands::new(context, p, &f)?;
        let one = [1.0f32, 0.0];
        // SAFETY: as above; the compressed weights and the workspace have the sizes that the library asked for.
        let workspace = unsafe {
            let done =
                (library.compress)(&*o.handle, &*o.plan, plain.address, first.address, scratch.address, context.stream);
            check(done, "cusparseLtSpMMACompress")?;
            context.wait()?;
            check((library.workspace)(&*o.handle, &*o.plan, &mut work), "cusparseLtMatmulGetWorkspace")?;
            let searching = Buffer::new(context, work.max(WORKSPACE))?;
            let mut stream = context.stream;
            let out = operands.output.address;
            let found = (library.search)(
                &*o.handle,
                &mut *o.plan,
                host(&one[0]),
                first.address,
                operands.inputs.address,
                host(&one[1]),
                out,
                out,
                searching.address,
                &mut stream,
                1,
            );
            check(found, "cusparseLtMatmulSearch")?;
            context.wait()?;
            check((library.workspace)(&*o.handle, &*o.plan, &mut work), "cusparseLtMatmulGetWorkspace")?;
            if work <= WORKSPACE { searching } else { Buffer::new(context, work)? }
        };
        let mut weights = first.copies(compressed, copies.saturating_sub(1))?;
        weights.push(first);
        Ok(Self { library, context: Rc::clone(context), objects: o, version, weights, operands, workspace, one })
    }
}

impl Call for Half {
    fn name(&self) -> String {
        // 0.8.1 says 801, as its header composes it.
        format!("{}-{}.{}", Library::CusparseLt.name(), self.version / 1000, self.version % 1000 / 100)
    }

    fn enqueue(&mut self, turn: usize) -> Result<(), String> {
        let (o, out) = (&self.objects, self.operands.output.address);
        let mut stream = self.context.stream;
        // SAFETY: buffers have the plan's sizes and outlive the stream's work; scales are read during the call.
        let status = unsafe {
            (self.library.multiply)(
                &*o.handle,
                &*o.plan,
                host(&self.one[0]),
                self.weights[turn % self.weights.len()].address,
                self.operands.inputs.address,
                host(&self.one[1]),
                out,
                out,
                self.workspace.address,
                &mut stream,
                1,
            )
        };
        check(status, "cusparseLtMatmul")
    }
}

impl Drop for HalfObjects {
    fn drop(&mut self) {
        let (handle, matrices, plan) = self.live;
        // SAFETY: only what was initialised is destroyed, once.
        unsafe {
            if plan {
                (self.library.plan_destroy)(&*self.plan);
            }
            for matrix in &self.matrices[..matrices] {
                (self.library.descriptor_destroy)(&**matrix);
            }
            if handle {
                (self.library.destroy)(&*self.handle);
            }
        }
    }
}

/// Compressed rows or blocked ELL: Y rows first is columns-first Yᵀ = W·Xᵀ.
struct Sparse {
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
    fn new(
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
