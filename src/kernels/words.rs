//! Dot-product instructions: a 32-bit word holds four int8 or two bf16 of the reduction, and one instruction multiplies a
//! vector of words of activations by a word of weights and adds to a vector of sums.

/// An instruction set's dot product of words.
///
/// # Safety
/// As for [`super::lanes::Lanes`]: only inside a function that enables the instruction set, on a machine that has it;
/// pointers are valid for [`Words::COUNT`] words and need no alignment.
pub(super) trait Words: Copy {
    /// Words of a vector.
    const COUNT: usize;
    /// Vectors of columns, beside eight rows of sums, that the registers hold.
    const VECTORS: usize;
    /// What `unsigned` is too large by in [`Words::add_dot`].
    const SHIFT: i32 = 128;

    unsafe fn zero() -> Self;
    unsafe fn splat(word: u32) -> Self;
    unsafe fn load(from: *const u32) -> Self;
    unsafe fn store(self, to: *mut u32);
    /// For int8 `self` + the words' products, `unsigned` less 128 − [`Words::SHIFT`]; the plain product for bf16.
    unsafe fn add_dot(self, unsigned: Self, signed: Self) -> Self;
    /// Sums of sums.
    unsafe fn add(self, other: Self) -> Self;
}

/// int8 in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct PlainInt8([u32; 8]);

impl Words for PlainInt8 {
    const COUNT: usize = 8;
    const VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0; 8])
    }
    #[inline(always)]
    unsafe fn splat(word: u32) -> Self {
        Self([word; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const u32) -> Self {
        // SAFETY: valid for eight words by the trait's contract.
        Self(unsafe { from.cast::<[u32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u32) {
        // SAFETY: as above.
        unsafe { to.cast::<[u32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add_dot(self, unsigned: Self, signed: Self) -> Self {
        Self(std::array::from_fn(|i| {
            let part = |at: u32| {
                let a = (unsigned.0[i] >> at & 0xff) as i32;
                let b = i32::from((signed.0[i] >> at) as u8 as i8);
                a * b
            };
            (self.0[i] as i32 + part(0) + part(8) + part(16) + part(24)) as u32
        }))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].wrapping_add(other.0[i])))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{YmmInt8, ZmmBf16, ZmmInt8};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Words;
    use std::arch::x86_64::*;

    /// A vector anywhere in memory, see `lanes`.
    #[repr(C, packed)]
    struct Anywhere<V>(V);

    /// int8 with AVX2. Its instruction for bytes saturates at 2^15, which two products of magnitudes up to 127 stay below: the
    /// signs of activations go to the weights.
    #[derive(Clone, Copy)]
    pub struct YmmInt8(__m256i);

    impl Words for YmmInt8 {
        const COUNT: usize = 8;
        const VECTORS: usize = 1;
        const SHIFT: i32 = 0;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm256_setzero_si256()) }
        }
        #[inline(always)]
        unsafe fn splat(word: u32) -> Self {
            unsafe { Self(_mm256_set1_epi32(word as i32)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const u32) -> Self {
            unsafe { Self((*from.cast::<Anywhere<__m256i>>()).0) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut u32) {
            unsafe { (*to.cast::<Anywhere<__m256i>>()).0 = self.0 }
        }
        #[inline(always)]
        unsafe fn add_dot(self, unsigned: Self, signed: Self) -> Self {
            unsafe {
                let activations = _mm256_xor_si256(unsigned.0, _mm256_set1_epi8(-128));
                let signed = _mm256_sign_epi8(signed.0, activations);
                let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(activations), signed);
                Self(_mm256_add_epi32(self.0, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))))
            }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_epi32(self.0, other.0)) }
        }
    }

    /// int8 with AVX-512 VNNI.
    #[derive(Clone, Copy)]
    pub struct ZmmInt8(__m512i);

    impl Words for ZmmInt8 {
        const COUNT: usize = 16;
        const VECTORS: usize = 3;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_si512()) }
        }
        #[inline(always)]
        unsafe fn splat(word: u32) -> Self {
            unsafe { Self(_mm512_set1_epi32(word as i32)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const u32) -> Self {
            unsafe { Self((*from.cast::<Anywhere<__m512i>>()).0) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut u32) {
            unsafe { (*to.cast::<Anywhere<__m512i>>()).0 = self.0 }
        }
        #[inline(always)]
        unsafe fn add_dot(self, unsigned: Self, signed: Self) -> Self {
            unsafe { Self(_mm512_dpbusd_epi32(self.0, unsigned.0, signed.0)) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm512_add_epi32(self.0, other.0)) }
        }
    }

    /// bf16 with AVX-512 BF16: sums are fp32.
    #[derive(Clone, Copy)]
    pub struct ZmmBf16(__m512);

    impl ZmmBf16 {
        #[inline(always)]
        unsafe fn pairs(self) -> __m512bh {
            // SAFETY: both are 64 bytes in which every pattern of bits is a value.
            unsafe { std::mem::transmute(self.0) }
        }
    }

    impl Words for ZmmBf16 {
        const COUNT: usize = 16;
        const VECTORS: usize = 3;

        #[inline(always)]
        unsafe fn zero() -> Self {
            unsafe { Self(_mm512_setzero_ps()) }
        }
        #[inline(always)]
        unsafe fn splat(word: u32) -> Self {
            unsafe { Self(_mm512_castsi512_ps(_mm512_set1_epi32(word as i32))) }
        }
        #[inline(always)]
        unsafe fn load(from: *const u32) -> Self {
            unsafe { Self((*from.cast::<Anywhere<__m512>>()).0) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut u32) {
            unsafe { (*to.cast::<Anywhere<__m512>>()).0 = self.0 }
        }
        #[inline(always)]
        unsafe fn add_dot(self, unsigned: Self, signed: Self) -> Self {
            unsafe { Self(_mm512_dpbf16_ps(self.0, unsigned.pairs(), signed.pairs())) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm512_add_ps(self.0, other.0)) }
        }
    }
}
