//! N:M times one column: sixteen kept weights are a vector, and their activations come to its lanes by a permutation of
//! the registers that hold the chunk's columns (up to 64), by a gather where a chunk has more.

use super::Isa;
use super::nm::{CHUNK, Chunks, Groups};
use super::panel::Scratch;
use std::ops::Range;

/// Rows that share the loads of activations, and are stored together.
pub(super) const STRIP: usize = 4;

/// Calls `each` with the column, followed by `span` zeros and 64 at least: chunks at its end are read whole.
pub(super) fn padded(x: &[f32], span: usize, each: impl FnOnce(&[f32])) {
    let mut scratch = Scratch::take(x.len() + span.max(64));
    let padded = scratch.slice();
    padded[..x.len()].copy_from_slice(x);
    padded[x.len()..].fill(0.0);
    each(padded);
}

/// Adds to `y` the products of rows, in one block of K, with the columns from `x` on.
pub(super) fn rows(isa: Isa, groups: &Groups, block: (usize, usize), rows: Range<usize>, x: &[f32], y: &mut [f32]) {
    match isa {
        Isa::Portable | Isa::Avx2 => plain(groups, block, rows, x, y),
        // SAFETY: an Isa beyond Portable is only used where it was detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512::rows(groups, block, rows, x, y) },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx512 => plain(groups, block, rows, x, y),
    }
}

fn plain(groups: &Groups, block: (usize, usize), rows: Range<usize>, x: &[f32], y: &mut [f32]) {
    let starts = groups.starts();
    for (i, y) in rows.zip(y) {
        let row = groups.chunks(block, i);
        *y += match groups.bits {
            2 => plain_row::<2>(groups, &starts, row, x),
            4 => plain_row::<4>(groups, &starts, row, x),
            8 => plain_row::<8>(groups, &starts, row, x),
            _ => plain_row::<16>(groups, &starts, row, x),
        };
    }
}

#[inline(always)]
fn plain_row<const BITS: usize>(groups: &Groups, starts: &[usize; CHUNK], row: Chunks<'_>, x: &[f32]) -> f32 {
    let mut sums = [0.0f32; CHUNK];
    let chunks = row.values.as_chunks::<CHUNK>().0.iter().zip(row.codes.chunks_exact(CHUNK * BITS / 8));
    for ((values, codes), x) in chunks.step_by(row.step).zip((0..).map(|i| &x[i * groups.span..])) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let bit = lane * BITS;
            let code = match BITS {
                16 => usize::from(codes[bit / 8]) | usize::from(codes[bit / 8 + 1]) << 8,
                _ => usize::from(codes[bit / 8] >> (bit % 8)) & ((1 << BITS) - 1),
            };
            *sum += values[lane] * x[starts[lane] + code];
        }
    }
    sums.iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{CHUNK, Chunks, Groups, STRIP};
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Columns of a chunk that two registers hold, that four hold, or any number.
    const TWO: usize = 2;
    const FOUR: usize = 4;
    const GATHER: usize = 0;

    /// Chunks from one that is computed to one that is asked for: their rows are too short for the hardware to see far.
    const AHEAD: usize = 64;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub unsafe fn rows(groups: &Groups, block: (usize, usize), rows: Range<usize>, x: &[f32], y: &mut [f32]) {
        unsafe {
            match (groups.bits, groups.span) {
                (2, ..=32) => strips::<2, TWO>(groups, block, rows, x, y),
                (2, 33..=64) => strips::<2, FOUR>(groups, block, rows, x, y),
                (4, ..=32) => strips::<4, TWO>(groups, block, rows, x, y),
                (4, 33..=64) => strips::<4, FOUR>(groups, block, rows, x, y),
                (4, _) => strips::<4, GATHER>(groups, block, rows, x, y),
                (8, ..=32) => strips::<8, TWO>(groups, block, rows, x, y),
                (8, 33..=64) => strips::<8, FOUR>(groups, block, rows, x, y),
                (8, _) => strips::<8, GATHER>(groups, block, rows, x, y),
                _ => strips::<16, GATHER>(groups, block, rows, x, y),
            }
        }
    }

    /// Four rows together where they are stored together, the others one by one.
    #[inline(always)]
    unsafe fn strips<const BITS: usize, const REGISTERS: usize>(
        groups: &Groups,
        block: (usize, usize),
        rows: Range<usize>,
        x: &[f32],
        y: &mut [f32],
    ) {
        let span = groups.span;
        let starts = groups.starts().map(|s| s as i32);
        // SAFETY: sixteen starts are sixteen lanes.
        let starts = unsafe { _mm512_loadu_si512(starts.as_ptr().cast()) };
        let mut done = 0;
        while done < rows.len() {
            let row = rows.start + done;
            let chunks = groups.chunks(block, row);
            let together = row.is_multiple_of(STRIP) && done + STRIP <= rows.len() && chunks.step == STRIP;
            // SAFETY: the caller's; where a strip's chunks are stored together, those of its rows follow one another.
            unsafe {
                if together {
                    for (y, sum) in
                        y[done..].iter_mut().zip(strip_of::<BITS, REGISTERS, STRIP>(span, starts, chunks, x))
                    {
                        *y += sum;
                    }
                } else {
                    y[done] += strip_of::<BITS, REGISTERS, 1>(span, starts, chunks, x)[0];
                }
            }
            done += if together { STRIP } else { 1 };
        }
    }

    /// The products of R rows whose chunks follow one another, from the first row's on.
    #[inline(always)]
    unsafe fn strip_of<const BITS: usize, const REGISTERS: usize, const R: usize>(
        span: usize,
        starts: __m512i,
        first: Chunks<'_>,
        x: &[f32],
    ) -> [f32; R] {
        let Chunks { count, step, .. } = first;
        let bytes = CHUNK * BITS / 8;
        debug_assert!(x.len() >= count * span && (REGISTERS == GATHER || x.len() + span >= count * span + 64));
        // SAFETY: `padded` made every chunk's columns readable, 64 from the last chunk's first at least.
        unsafe {
            let mut sums = [_mm512_setzero_ps(); R];
            let (mut values, mut codes, mut x) = (first.values.as_ptr(), first.codes.as_ptr(), x.as_ptr());
            for _ in 0..count {
                let columns: [__m512; 4] = match REGISTERS {
                    TWO => {
                        let (a, b) = (_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16)));
                        [a, b, a, b]
                    }
                    FOUR => [
                        _mm512_loadu_ps(x),
                        _mm512_loadu_ps(x.add(16)),
                        _mm512_loadu_ps(x.add(32)),
                        _mm512_loadu_ps(x.add(48)),
                    ],
                    _ => [_mm512_setzero_ps(); 4],
                };
                _mm_prefetch::<_MM_HINT_T0>(codes.wrapping_add(AHEAD * bytes).cast());
                for (row, sum) in sums.iter_mut().enumerate() {
                    let values = values.add(row * CHUNK);
                    _mm_prefetch::<_MM_HINT_T0>(values.wrapping_add(AHEAD * CHUNK).cast());
                    let places = _mm512_add_epi32(self::codes::<BITS>(codes.add(row * bytes)), starts);
                    let activations = match REGISTERS {
                        TWO => _mm512_permutex2var_ps(columns[0], places, columns[1]),
                        FOUR => _mm512_mask_blend_ps(
                            _mm512_test_epi32_mask(places, _mm512_set1_epi32(32)),
                            _mm512_permutex2var_ps(columns[0], places, columns[1]),
                            _mm512_permutex2var_ps(columns[2], places, columns[3]),
                        ),
                        _ => _mm512_i32gather_ps::<4>(places, x),
                    };
                    *sum = _mm512_fmadd_ps(_mm512_loadu_ps(values), activations, *sum);
                }
                values = values.wrapping_add(step * CHUNK);
                codes = codes.wrapping_add(step * bytes);
                x = x.add(span);
            }
            sums.map(|sum| _mm512_reduce_add_ps(sum))
        }
    }

    /// Sixteen codes to sixteen lanes.
    #[inline(always)]
    unsafe fn codes<const BITS: usize>(from: *const u8) -> __m512i {
        // SAFETY: the caller's: sixteen codes are at `from`.
        unsafe {
            match BITS {
                2 => {
                    let shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                    let word = _mm512_set1_epi32(from.cast::<i32>().read_unaligned());
                    _mm512_and_si512(_mm512_srlv_epi32(word, shifts), _mm512_set1_epi32(3))
                }
                4 => {
                    let halves = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
                    let shifts = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
                    let word = _mm512_permutexvar_epi32(halves, _mm512_set1_epi64(from.cast::<i64>().read_unaligned()));
                    _mm512_and_si512(_mm512_srlv_epi32(word, shifts), _mm512_set1_epi32(15))
                }
                8 => _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())),
                _ => _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())),
            }
        }
    }
}
