//! Dense fp32: the crate `gemm`, and for one column our own dot products.

use super::{Activations, Kernel, Packed, WeightMatrix};
use crate::error::Result;
use crate::pattern::SparsityPattern;

/// All weights, zeros too.
pub struct Dense;

impl Kernel for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn refusal(&self, _: &SparsityPattern, _: usize, _: usize) -> Option<String> {
        None
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, _: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        Ok(Box::new(Full { n: weights.n, k: weights.k, values: weights.values.to_vec() }))
    }
}

pub(super) struct Full {
    pub n: usize,
    pub k: usize,
    pub values: Vec<f32>,
}

impl Packed for Full {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        let (n, k, m) = (self.n, self.k, x.m);
        assert!(self.values.len() >= n * k && x.values.len() >= k * m && y.len() >= n * m, "buffers hold their matrices");
        let threads = rayon::current_num_threads();
        let parallelism =
            if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
        // SAFETY: row-major matrices of n × k, k × m and n × m lie in the three buffers, as was just checked; y overlaps
        // neither by Rust's rules.
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
                x.values.as_ptr(),
                1,
                m as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    }

    fn bytes(&self) -> (u64, u64) {
        (4 * self.values.len() as u64, 0)
    }
}
