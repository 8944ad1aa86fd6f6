//! hwsim's kernels and the peers that Rust users have, behind one C interface, so that a script can call all of them and
//! the libraries of other languages in turn within one process.
//!
//! A kernel is made once (`peer_new`) and run many times (`peer_run`); the time of packing is never in a run.

use faer::sparse::{SparseRowMat, Triplet};
use hwsim::kernels::{Activations, Isa, Packed, WeightMatrix, all, random};
use hwsim::pattern::SparsityPattern;
use sprs::CsMatI;
use std::ffi::{CStr, c_char};

/// `y[n, m] = W[n, k] · x[k, m]`, all row-major.
trait Run {
    fn run(&self, x: &[f32], m: usize, y: &mut [f32]);
}

struct Hwsim {
    k: usize,
    packed: Box<dyn Packed>,
}

impl Run for Hwsim {
    fn run(&self, x: &[f32], m: usize, y: &mut [f32]) {
        self.packed.run(Activations { k: self.k, m, values: x }, y);
    }
}

struct Gemm {
    n: usize,
    k: usize,
    values: Vec<f32>,
}

impl Run for Gemm {
    fn run(&self, x: &[f32], m: usize, y: &mut [f32]) {
        let (n, k) = (self.n, self.k);
        // SAFETY: row-major n × k, k × m and n × m, checked by the caller.
        unsafe {
            gemm::gemm(
                n,
                m,
                k,
                y.as_mut_ptr(),
                1,
                m as isize,
                false,
                self.values.as_ptr(),
                1,
                k as isize,
                x.as_ptr(),
                1,
                m as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}

struct Sprs(CsMatI<f32, u32>);

impl Run for Sprs {
    fn run(&self, x: &[f32], m: usize, y: &mut [f32]) {
        y.fill(0.0);
        if m == 1 {
            return sprs::prod::mul_acc_mat_vec_csr(self.0.view(), x, y);
        }
        let x = ndarray::ArrayView2::from_shape((self.0.cols(), m), x).expect("k x m");
        let y = ndarray::ArrayViewMut2::from_shape((self.0.rows(), m), y).expect("n x m");
        sprs::prod::csr_mulacc_dense_rowmaj(self.0.view(), x, y);
    }
}

struct Faer(SparseRowMat<u32, f32>);

impl Run for Faer {
    fn run(&self, x: &[f32], m: usize, y: &mut [f32]) {
        let x = faer::MatRef::from_row_major_slice(x, self.0.ncols(), m);
        let y = faer::MatMut::from_row_major_slice_mut(y, self.0.nrows(), m);
        faer::sparse::linalg::matmul::sparse_dense_matmul(
            y,
            faer::Accum::Replace,
            self.0.as_ref(),
            x,
            1.0,
            faer::Par::Seq,
        );
    }
}

/// A kernel with its weights.
pub struct Peer {
    n: usize,
    k: usize,
    run: Box<dyn Run>,
}

fn make(name: &str, pattern: SparsityPattern, weights: WeightMatrix<'_>, columns: usize) -> Option<Box<dyn Run>> {
    let WeightMatrix { n, k, values } = weights;
    if let Some(kernel) = name.strip_prefix("hwsim:") {
        let kernel = all(Isa::detect()).into_iter().find(|a| a.name() == kernel)?;
        return Some(Box::new(Hwsim { k, packed: kernel.pack(weights, &pattern, columns).ok()? }));
    }
    let nonzeros = || values.iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, v)| (i / k, i % k, *v));
    Some(match name {
        "gemm" => Box::new(Gemm { n, k, values: values.to_vec() }),
        "sprs" => {
            let mut starts = vec![0u32; n + 1];
            nonzeros().for_each(|(r, _, _)| starts[r + 1] += 1);
            (0..n).for_each(|r| starts[r + 1] += starts[r]);
            let index = nonzeros().map(|(_, c, _)| c as u32).collect();
            Box::new(Sprs(CsMatI::new((n, k), starts, index, nonzeros().map(|(_, _, v)| v).collect())))
        }
        "faer" => {
            let triplets: Vec<_> = nonzeros().map(|(r, c, v)| Triplet::new(r as u32, c as u32, v)).collect();
            Box::new(Faer(SparseRowMat::try_new_from_triplets(n, k, &triplets).ok()?))
        }
        _ => return None,
    })
}

/// Fills `values` with `n × k` seeded weights of a pattern. 0 on success.
///
/// # Safety
/// `pattern` is a C string; `values` has room for n·k numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_weights(pattern: *const c_char, n: usize, k: usize, seed: u64, values: *mut f32) -> i32 {
    let Some(pattern) = (unsafe { CStr::from_ptr(pattern) }).to_str().ok().and_then(|t| t.parse().ok()) else {
        return 1;
    };
    unsafe { std::slice::from_raw_parts_mut(values, n * k) }.copy_from_slice(&random::weights(pattern, n, k, seed));
    0
}

/// A kernel by name (`hwsim:csr`, …, `gemm`, `sprs`, `faer`) with its weights packed; null where it refuses them.
///
/// # Safety
/// `name` and `pattern` are C strings; `values` are n·k numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_new(
    name: *const c_char,
    pattern: *const c_char,
    n: usize,
    k: usize,
    values: *const f32,
    columns: usize,
) -> *mut Peer {
    let text = |t| (unsafe { CStr::from_ptr(t) }).to_str().unwrap_or_default();
    let values = unsafe { std::slice::from_raw_parts(values, n * k) };
    let made = text(pattern).parse().ok().and_then(|p| make(text(name), p, WeightMatrix { n, k, values }, columns));
    made.map_or(std::ptr::null_mut(), |run| Box::into_raw(Box::new(Peer { n, k, run })))
}

/// Runs a kernel `times` times on one thread.
///
/// # Safety
/// `peer` comes from `peer_new`; `x` are k·m numbers, `y` n·m.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_run(peer: *const Peer, x: *const f32, m: usize, y: *mut f32, times: usize) {
    let peer = unsafe { &*peer };
    let x = unsafe { std::slice::from_raw_parts(x, peer.k * m) };
    let y = unsafe { std::slice::from_raw_parts_mut(y, peer.n * m) };
    (0..times).for_each(|_| peer.run.run(x, m, y));
}

/// Frees a kernel.
///
/// # Safety
/// `peer` comes from `peer_new` and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peer_free(peer: *mut Peer) {
    drop(unsafe { Box::from_raw(peer) });
}
