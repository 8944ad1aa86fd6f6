//! 2:4 products by cuSPARSELt.

use super::super::device::{Buffer, Call, Context, check, host};
use super::super::loaded::{CusparseLt, Structure};
use super::super::problem::{Library, Problem};
use super::{DRAWN, Operands, TRANSPOSE, WORKSPACE, bytes, drawn, filled, formats};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::rc::Rc;

/// `cusparseComputeType` of cuSPARSELt 0.5 and newer.
const CUSPARSELT_COMPUTE_32I: i32 = 0;
const CUSPARSELT_COMPUTE_32F: i32 = 2;
/// The first cuSPARSELt whose compute types are numbered so.
const CUSPARSELT_LEAST: i32 = 500;
/// `cusparseOrder_t`.
const ROWS_FIRST: i32 = 2;
/// Alignment of operands that is promised to cuSPARSELt.
const ALIGNMENT: u32 = 16;

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

/// A 2:4 product, W pruned and compressed beforehand; the library searches its kernels once.
pub(super) struct Half {
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
    pub(super) fn new(
        library: Rc<CusparseLt>,
        context: &Rc<Context>,
        p: &Problem,
        copies: u64,
    ) -> Result<Self, String> {
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
