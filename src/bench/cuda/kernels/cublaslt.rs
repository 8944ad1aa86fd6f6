//! Dense products by cuBLASLt.

use super::super::device::{Buffer, Call, Context, check, host};
use super::super::loaded::{CublasLt, Opaque, Proposal};
use super::super::problem::{Library, Problem};
use super::{One, Operands, R_32F, R_32I, TRANSPOSE, WORKSPACE, bytes, formats, values};
use std::ptr::null_mut;
use std::rc::Rc;

/// `cublasComputeType_t`: fp32 and int32 accumulators.
const CUBLAS_COMPUTE_32F: i32 = 68;
const CUBLAS_COMPUTE_32I: i32 = 72;
/// `cublasLtMatmulDescAttributes_t` and `cublasOperation_t`.
const OPERATION_TRANSPOSE_A: i32 = 3;
/// `cublasLtMatmulPreferenceAttributes_t`.
const MOST_WORKSPACE: i32 = 1;

/// A dense product. Rows-first Yᵀ = W·Xᵀ is columns-first with W transposed, the one layout that 8-bit formats have.
pub(super) struct Dense {
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
    pub(super) fn new(library: Rc<CublasLt>, context: &Rc<Context>, p: &Problem, copies: u64) -> Result<Self, String> {
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
