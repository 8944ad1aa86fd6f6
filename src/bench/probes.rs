//! Loops whose speed is one fact of the machine each, in the instruction set that kernels use.

use crate::kernels::Isa;
use crate::kernels::tiles::Format;
use crate::kernels::tiles::amx::{self, Amx};
use crate::kernels::tiles::unit::Tiles;
use std::hint::black_box;

/// Multiply–accumulates of one call of [`products`] or [`products_from_memory`] a lane: chains × steps.
const CHAINS: usize = 12;
const STEPS: usize = 256;

/// Dependent additions: one a cycle on every processor in use.
pub const ADDITIONS: u64 = 64 * 256;

/// [`ADDITIONS`] additions, each waiting for the one before.
pub fn additions() {
    let mut x = black_box(1u64);
    let y = black_box(3u64);
    for _ in 0..256 {
        chain(&mut x, y);
    }
    black_box(x);
}

#[inline(always)]
fn chain(x: &mut u64, y: u64) {
    macro_rules! eight {
        ($one:expr) => {
            ($one, $one, $one, $one, $one, $one, $one, $one)
        };
    }
    #[cfg(target_arch = "x86_64")]
    {
        let mut one = || {
            // SAFETY: adds two registers.
            unsafe { std::arch::asm!("add {0}, {1}", inout(reg) *x, in(reg) y, options(pure, nomem, nostack)) }
        };
        (0..8).for_each(|_| {
            eight!(one());
        });
    }
    #[cfg(target_arch = "aarch64")]
    {
        let mut one = || {
            // SAFETY: adds two registers.
            unsafe { std::arch::asm!("add {0}, {0}, {1}", inout(reg) *x, in(reg) y, options(pure, nomem, nostack)) }
        };
        (0..8).for_each(|_| {
            eight!(one());
        });
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let mut one = || *x = black_box(*x).wrapping_add(y);
        (0..8).for_each(|_| {
            eight!(one());
        });
    }
}

/// Multiply–accumulates of one call of [`products`] and [`products_from_memory`].
pub fn product_count(isa: Isa) -> u64 {
    (CHAINS * STEPS * isa.lanes()) as u64
}

/// Independent multiply–accumulates with operands in registers.
pub fn products(isa: Isa) {
    match isa {
        // SAFETY: an Isa beyond Portable is only used where it was detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::products512() },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::products256() },
        _ => plain_products(None),
    }
}

/// The same with one operand in L1: `data` holds at least 4 KiB.
pub fn products_from_memory(isa: Isa, data: &[f32]) {
    assert!(data.len() >= 1024, "a page of operands");
    match isa {
        // SAFETY: as above; the page is long enough for every load.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::from_memory512(data) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::from_memory256(data) },
        _ => plain_products(Some(data)),
    }
}

/// Multiply–accumulates of one call of [`tile_products`].
pub fn tile_product_count(format: Format) -> u64 {
    (4 * STEPS * format.multiplications()) as u64
}

/// Products of matrix tiles in registers, four sums in turn; nothing where the processor has no tiles.
pub fn tile_products(format: Format) {
    if amx::usable().is_err() {
        return;
    }
    // SAFETY: the tiles are usable, and stay on this thread.
    unsafe {
        let mut tiles = Amx::take();
        for _ in 0..STEPS {
            match format {
                Format::Bf16 => {
                    tiles.dot_bf16::<0, 4, 6>();
                    tiles.dot_bf16::<1, 4, 7>();
                    tiles.dot_bf16::<2, 5, 6>();
                    tiles.dot_bf16::<3, 5, 7>();
                }
                Format::Int8 => {
                    tiles.dot_int8::<0, 4, 6>();
                    tiles.dot_int8::<1, 4, 7>();
                    tiles.dot_int8::<2, 5, 6>();
                    tiles.dot_int8::<3, 5, 7>();
                }
            }
        }
    }
}

fn plain_products(data: Option<&[f32]>) {
    let mut sums = [[0.0f32; 8]; CHAINS];
    let a = black_box([1e-3f32; 8]);
    let b = black_box([1e-3f32; 8]);
    for _ in 0..STEPS {
        for (i, sum) in sums.iter_mut().enumerate() {
            let b: &[f32] = data.map_or(&b, |d| &d[i * 8..i * 8 + 8]);
            for ((s, a), b) in sum.iter_mut().zip(a).zip(b) {
                *s += a * b;
            }
        }
    }
    black_box(sums);
}

/// Reads all of `data` once.
pub fn read(isa: Isa, data: &[f32]) {
    match isa {
        // SAFETY: as above; loads stay inside the slice.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::read512(data) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::read256(data) },
        _ => {
            let mut sums = [0.0f32; 32];
            for chunk in data.chunks_exact(32) {
                for (s, v) in sums.iter_mut().zip(chunk) {
                    *s += v;
                }
            }
            black_box(sums);
        }
    }
}

/// Follows a chain of indices from `at` on, each load waiting for the one before; says where it stopped, so that the next
/// call goes on through lines that this one left alone.
pub fn chase(chain: &[u32], mut at: u32, steps: usize) -> u32 {
    for _ in 0..steps {
        at = chain[at as usize];
    }
    black_box(at)
}

/// Indices, one to a line of `line` bytes, that form one cycle through all lines in an order without pattern (Sattolo's
/// algorithm on a fixed generator).
pub fn cycle(bytes: usize, line: usize) -> Vec<u32> {
    let step = (line / 4).max(1);
    let lines = (bytes / line).max(2);
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for i in (1..lines).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, ((state >> 33) % i as u64) as usize);
    }
    let mut chain = vec![0u32; lines * step];
    for (i, &next) in order.iter().enumerate() {
        chain[i * step] = next * step as u32;
    }
    chain
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, STEPS, black_box};
    use std::arch::x86_64::*;

    /// A loop of known length, written out: sums that a loop indexes would live in memory instead of registers.
    macro_rules! unrolled {
        ($i:ident in $($at:literal)+ => $body:block) => { $({ const $i: usize = $at; $body })+ };
    }

    macro_rules! probes {
        ($features:literal, $lanes:literal, $products:ident, $memory:ident, $read:ident,
         $set:ident, $fma:ident, $load:ident, $add:ident) => {
            /// # Safety
            /// The instruction set is there.
            #[target_feature(enable = $features)]
            pub unsafe fn $products() {
                let mut sums = [$set(0.0); CHAINS];
                let (a, b) = ($set(black_box(1e-3)), $set(black_box(1e-3)));
                for _ in 0..STEPS {
                    for sum in &mut sums {
                        *sum = $fma(a, b, *sum);
                    }
                }
                black_box(sums);
            }

            /// # Safety
            /// The instruction set is there, and `data` has 1024 elements.
            #[target_feature(enable = $features)]
            pub unsafe fn $memory(data: &[f32]) {
                let mut sums = [$set(0.0); CHAINS];
                let a = $set(black_box(1e-3));
                for step in 0..STEPS {
                    // The offset moves, so that no load can leave the loop.
                    let from = unsafe { data.as_ptr().add(step % 4 * CHAINS * $lanes) };
                    unrolled!(I in 0 1 2 3 4 5 6 7 8 9 10 11 => {
                        sums[I] = $fma(a, unsafe { $load(from.add(I * $lanes)) }, sums[I]);
                    });
                }
                black_box(sums);
            }

            /// # Safety
            /// The instruction set is there.
            #[target_feature(enable = $features)]
            pub unsafe fn $read(data: &[f32]) {
                let mut sums = [$set(0.0); 8];
                for chunk in data.chunks_exact(8 * $lanes) {
                    let from = chunk.as_ptr();
                    unrolled!(I in 0 1 2 3 4 5 6 7 => {
                        sums[I] = $add(sums[I], unsafe { $load(from.add(I * $lanes)) });
                    });
                }
                black_box(sums);
            }
        };
    }
    probes!(
        "avx512f",
        16,
        products512,
        from_memory512,
        read512,
        _mm512_set1_ps,
        _mm512_fmadd_ps,
        _mm512_loadu_ps,
        _mm512_add_ps
    );
    probes!(
        "avx2,fma",
        8,
        products256,
        from_memory256,
        read256,
        _mm256_set1_ps,
        _mm256_fmadd_ps,
        _mm256_loadu_ps,
        _mm256_add_ps
    );
}
