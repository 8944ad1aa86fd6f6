//! Vectors of fp32, so that a loop is written once and compiled for every instruction set.

/// Repeats a statement for every index below a constant of at most eight. A loop over an array of vectors leaves it to
/// the optimiser whether they stay in registers; written out, they do.
macro_rules! unrolled {
    ($count:expr, $i:ident, $body:expr) => {
        unrolled!(@ $count, $i, $body, 0 1 2 3 4 5 6 7)
    };
    (@ $count:expr, $i:ident, $body:expr, $($at:literal)*) => {
        {
            $(if $count > $at {
                let $i: usize = $at;
                $body
            })*
        }
    };
}
pub(super) use unrolled;

/// A vector register of fp32.
///
/// # Safety
/// Methods of an instruction set's vector may only be called (and are only inlined) inside a function that enables it,
/// on a machine that has it. Pointers are valid for [`Lanes::COUNT`] elements; they need no alignment.
pub(super) trait Lanes: Copy {
    /// Elements.
    const COUNT: usize;
    /// Accumulator vectors for each of 8, 4, 2 and 1 rows that the registers hold beside operands.
    const TILE: [usize; 4];

    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self + a · b`.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;

    /// Adds to H rows of W sums the products of H values with W vectors from `x` on.
    #[inline(always)]
    unsafe fn add_products<const H: usize, const W: usize>(
        sums: &mut [[Self; W]; H],
        values: *const f32,
        x: *const f32,
    ) {
        // SAFETY: the caller's.
        unsafe { add_products(sums, values, x) }
    }

    /// Sum of its elements.
    #[inline(always)]
    unsafe fn total(self) -> f32 {
        let mut values = [0.0f32; 16];
        // SAFETY: no vector is longer than sixteen.
        unsafe { self.store(values.as_mut_ptr()) };
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                values[i] += values[i + width];
            }
        }
        values[0]
    }

    /// Products of as many values with the activations at their indices, summed.
    ///
    /// # Safety
    /// As of the trait, and every index is within `x`.
    #[inline(always)]
    unsafe fn sparse(index: &[u16], values: &[f32], x: &[f32]) -> f32 {
        const U: usize = 8;
        let mut sums = [0.0f32; U];
        let (indices, last) = index.as_chunks::<U>();
        let (chunks, rest) = values.as_chunks::<U>();
        for (index, values) in indices.iter().zip(chunks) {
            for u in 0..U {
                sums[u] += values[u] * x[index[u] as usize];
            }
        }
        for (&i, v) in last.iter().zip(rest) {
            sums[0] += v * x[i as usize];
        }
        sums.iter().sum()
    }
}

/// [`Lanes::add_products`] as compilers make it: each vector is loaded once, each value broadcast once.
#[inline(always)]
unsafe fn add_products<V: Lanes, const H: usize, const W: usize>(
    sums: &mut [[V; W]; H],
    values: *const f32,
    x: *const f32,
) {
    // SAFETY: the caller's: H values and W vectors are there.
    unsafe {
        let mut vectors = [V::zero(); W];
        unrolled!(W, w, vectors[w] = V::load(x.add(w * V::COUNT)));
        unrolled!(H, h, {
            let value = V::splat(*values.add(h));
            unrolled!(W, w, sums[h][w] = sums[h][w].add_product(value, vectors[w]));
        });
    }
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Plain([f32; 8]);

impl Lanes for Plain {
    const COUNT: usize = 8;
    const TILE: [usize; 4] = [1, 1, 2, 4];

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 8])
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid for eight elements by the trait's contract.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // Not mul_add: without the instruction that is a call of the C library.
        Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Ymm, Zmm};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    /// A vector anywhere in memory. Reading through it keeps the vector in a register even where the library's own
    /// unaligned loads are compiled with checks.
    #[repr(C, packed)]
    struct Anywhere<V>(V);

    /// AVX2 with FMA.
    #[derive(Clone, Copy)]
    pub struct Ymm(__m256);

    impl Lanes for Ymm {
        const COUNT: usize = 8;
        const TILE: [usize; 4] = [1, 3, 6, 8];

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm256_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self((*from.cast::<Anywhere<__m256>>()).0) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { (*to.cast::<Anywhere<__m256>>()).0 = self.0 }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0)) }
        }

        #[inline(always)]
        unsafe fn add_products<const H: usize, const W: usize>(
            sums: &mut [[Self; W]; H],
            values: *const f32,
            x: *const f32,
        ) {
            // SAFETY: the caller's; the sums have the extents that the cast says.
            unsafe {
                if H == 4 && W == 3 {
                    return four_by_three(&mut *(&raw mut *sums).cast::<[[Self; 3]; 4]>(), values, x);
                }
                super::add_products(sums, values, x);
            }
        }

        /// Activations are brought one by one: four loads and three shuffles make a vector sooner than a gather does.
        #[inline(always)]
        unsafe fn sparse(index: &[u16], values: &[f32], x: &[f32]) -> f32 {
            debug_assert!(index.len() == values.len() && index.iter().all(|&i| usize::from(i) < x.len()));
            let (fours, few) = index.as_chunks::<4>();
            let (rounds, last) = fours.as_chunks::<4>();
            let (mut v, x) = (values.as_ptr(), x.as_ptr());
            // SAFETY: the caller's: indices are within `x`, and there is a value for each.
            unsafe {
                let mut sums = [_mm_setzero_ps(); 4];
                for round in rounds {
                    _mm_prefetch::<_MM_HINT_T0>(round.as_ptr().wrapping_add(AHEAD / 4).cast());
                    _mm_prefetch::<_MM_HINT_T0>(v.wrapping_add(AHEAD).cast());
                    super::unrolled!(4, u, {
                        sums[u] = _mm_fmadd_ps(_mm_loadu_ps(v.add(4 * u)), four(&round[u], x), sums[u]);
                    });
                    v = v.add(16);
                }
                for index in last {
                    sums[0] = _mm_fmadd_ps(_mm_loadu_ps(v), four(index, x), sums[0]);
                    v = v.add(4);
                }
                let mut rest = 0.0;
                for &i in few {
                    rest += *v * *x.add(usize::from(i));
                    v = v.add(1);
                }
                let sum = _mm_add_ps(_mm_add_ps(sums[0], sums[1]), _mm_add_ps(sums[2], sums[3]));
                let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
                rest + _mm_cvtss_f32(sum) + _mm_cvtss_f32(_mm_shuffle_ps::<1>(sum, sum))
            }
        }
    }

    /// Four rows by three vectors take all sixteen registers, which the compiler's allocator does not manage without moving
    /// some to memory and back.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn four_by_three(sums: &mut [[Ymm; 3]; 4], values: *const f32, x: *const f32) {
        let [[a0, a1, a2], [b0, b1, b2], [c0, c1, c2], [d0, d1, d2]] = sums;
        // SAFETY: the caller's: it reads four values and three vectors, and writes registers alone.
        unsafe {
            std::arch::asm!(
                "vmovups {x0}, ymmword ptr [{x}]",
                "vmovups {x1}, ymmword ptr [{x} + 32]",
                "vmovups {x2}, ymmword ptr [{x} + 64]",
                "vbroadcastss {v}, dword ptr [{values}]",
                "vfmadd231ps {a0}, {v}, {x0}",
                "vfmadd231ps {a1}, {v}, {x1}",
                "vfmadd231ps {a2}, {v}, {x2}",
                "vbroadcastss {v}, dword ptr [{values} + 4]",
                "vfmadd231ps {b0}, {v}, {x0}",
                "vfmadd231ps {b1}, {v}, {x1}",
                "vfmadd231ps {b2}, {v}, {x2}",
                "vbroadcastss {v}, dword ptr [{values} + 8]",
                "vfmadd231ps {c0}, {v}, {x0}",
                "vfmadd231ps {c1}, {v}, {x1}",
                "vfmadd231ps {c2}, {v}, {x2}",
                "vbroadcastss {v}, dword ptr [{values} + 12]",
                "vfmadd231ps {d0}, {v}, {x0}",
                "vfmadd231ps {d1}, {v}, {x1}",
                "vfmadd231ps {d2}, {v}, {x2}",
                x = in(reg) x,
                values = in(reg) values,
                x0 = out(ymm_reg) _,
                x1 = out(ymm_reg) _,
                x2 = out(ymm_reg) _,
                v = out(ymm_reg) _,
                a0 = inout(ymm_reg) a0.0,
                a1 = inout(ymm_reg) a1.0,
                a2 = inout(ymm_reg) a2.0,
                b0 = inout(ymm_reg) b0.0,
                b1 = inout(ymm_reg) b1.0,
                b2 = inout(ymm_reg) b2.0,
                c0 = inout(ymm_reg) c0.0,
                c1 = inout(ymm_reg) c1.0,
                c2 = inout(ymm_reg) c2.0,
                d0 = inout(ymm_reg) d0.0,
                d1 = inout(ymm_reg) d1.0,
                d2 = inout(ymm_reg) d2.0,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
    }

    /// Weights from those that are multiplied to those that are asked for: rows are too short for the hardware to see far.
    const AHEAD: usize = 512;

    /// The activations at four indices.
    #[inline(always)]
    unsafe fn four(index: &[u16; 4], x: *const f32) -> __m128 {
        let [a, b, c, d] = *index;
        // SAFETY: the caller's: the indices are within the activations.
        unsafe {
            let at = |i: u16| _mm_load_ss(x.add(usize::from(i)));
            _mm_movelh_ps(_mm_unpacklo_ps(at(a), at(b)), _mm_unpacklo_ps(at(c), at(d)))
        }
    }

    /// AVX-512 F.
    #[derive(Clone, Copy)]
    pub struct Zmm(__m512);

    impl Lanes for Zmm {
        const COUNT: usize = 16;
        const TILE: [usize; 4] = [3, 6, 8, 8];

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { Self(_mm512_set1_ps(value)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self((*from.cast::<Anywhere<__m512>>()).0) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { (*to.cast::<Anywhere<__m512>>()).0 = self.0 }
        }
        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            unsafe { Self(_mm512_fmadd_ps(a.0, b.0, self.0)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }
        #[inline(always)]
        unsafe fn total(self) -> f32 {
            unsafe { _mm512_reduce_add_ps(self.0) }
        }
    }
}
