//! Vectors of fp32, so that a loop is written once and compiled for every instruction set.

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
}

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
