//! Dense fp32: the crate `gemm`, and for one column dot products of our own.
//!
//! One column, outermost loop first: rows in strips of four, shared among threads (weights stream from where they lie);
//! K in steps of one vector (activations from L1, one load for four rows); two sums a row.

use super::aligned::Buffer;
use super::balance::{scatter, shares};
use super::lanes::{Lanes, Plain, unrolled};
use super::{Activations, Isa, Kernel, Packed, WeightMatrix};
use crate::error::Result;
use crate::pattern::SparsityPattern;
use std::ops::Range;

/// All weights, zeros too.
pub struct Dense {
    /// The instruction set for one column, which the machine has; the crate chooses for itself.
    pub isa: Isa,
}

impl Kernel for Dense {
    fn name(&self) -> &'static str {
        "dense"
    }

    fn refusal(&self, _: &SparsityPattern, _: usize, _: usize) -> Option<String> {
        None
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, _: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        Ok(Box::new(Full { isa: self.isa, n: weights.n, k: weights.k, values: weights.values.into() }))
    }
}

pub(super) struct Full {
    pub isa: Isa,
    pub n: usize,
    pub k: usize,
    pub values: Buffer,
}

impl Full {
    /// Rows that share a load of activations.
    const STRIP: usize = 4;

    fn column(&self, x: &[f32], y: &mut [f32]) {
        let strips = self.n.div_ceil(Self::STRIP);
        let parts = shares((0..strips).map(|_| 1), rayon::current_num_threads());
        let ends = parts.iter().map(|p| (p.end * Self::STRIP).min(self.n));
        scatter(&parts, ends, y, 1, |share, y| {
            let rows = share.start * Self::STRIP..(share.end * Self::STRIP).min(self.n);
            match self.isa {
                // SAFETY: an Isa beyond Portable is only used where it was detected; plain vectors need nothing.
                Isa::Portable => unsafe { self.rows_with::<Plain>(x, rows, y) },
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => unsafe { self.rows_avx2(x, rows, y) },
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => unsafe { self.rows_avx512(x, rows, y) },
                #[cfg(not(target_arch = "x86_64"))]
                Isa::Avx2 | Isa::Avx512 => unsafe { self.rows_with::<Plain>(x, rows, y) },
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows_avx2(&self, x: &[f32], rows: Range<usize>, y: &mut [f32]) {
        unsafe { self.rows_with::<super::lanes::Ymm>(x, rows, y) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn rows_avx512(&self, x: &[f32], rows: Range<usize>, y: &mut [f32]) {
        unsafe { self.rows_with::<super::lanes::Zmm>(x, rows, y) }
    }

    /// # Safety
    /// `V`'s instruction set is enabled.
    #[inline(always)]
    unsafe fn rows_with<V: Lanes>(&self, x: &[f32], rows: Range<usize>, y: &mut [f32]) {
        let mut row = rows.start;
        for y in y.chunks_mut(Self::STRIP) {
            let weights = &self.values[row * self.k..(row + y.len()) * self.k];
            // SAFETY: the caller's.
            match y {
                [a, b, c, d] => [*a, *b, *c, *d] = unsafe { dots::<V, 4>(weights, x) },
                few => {
                    for (y, weights) in few.iter_mut().zip(weights.chunks_exact(self.k)) {
                        [*y] = unsafe { dots::<V, 1>(weights, x) };
                    }
                }
            }
            row += Self::STRIP;
        }
    }
}

/// R rows, one after another in `weights`, times a column.
#[inline(always)]
unsafe fn dots<V: Lanes, const R: usize>(weights: &[f32], x: &[f32]) -> [f32; R] {
    let k = weights.len() / R;
    let x = &x[..k];
    let whole = k / (2 * V::COUNT) * 2 * V::COUNT;
    // SAFETY: every load ends at `whole` at the latest, within each row and the column.
    unsafe {
        let mut sums = [[V::zero(); 2]; R];
        for at in (0..whole).step_by(2 * V::COUNT) {
            unrolled!(2, half, {
                let at = at + half * V::COUNT;
                let vector = V::load(x.as_ptr().add(at));
                unrolled!(R, r, {
                    sums[r][half] = sums[r][half].add_product(V::load(weights.as_ptr().add(r * k + at)), vector);
                });
            });
        }
        let mut totals = [0.0; R];
        // Not by a closure: the compiler would make it without the vector's instructions.
        unrolled!(R, r, {
            let rest = weights[r * k + whole..(r + 1) * k].iter().zip(&x[whole..]).map(|(w, x)| w * x).sum::<f32>();
            totals[r] = sums[r][0].add(sums[r][1]).total() + rest;
        });
        totals
    }
}

impl Packed for Full {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        let (n, k, m) = (self.n, self.k, x.m);
        assert!(
            self.values.len() >= n * k && x.values.len() >= k * m && y.len() >= n * m,
            "buffers hold their matrices"
        );
        if m == 1 && k > 0 {
            return self.column(x.values, &mut y[..n]);
        }
        let threads = rayon::current_num_threads();
        let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
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
