//! N:M times one column on AVX2, where M divides eight: a vector holds the kept weights of eight columns for as many rows
//! as fill it, and their activations come to its lanes by a permutation of the one register that holds the columns.
//!
//! Storage: strips of four vectors of rows, `[strips, eights of columns, 4, 8]`, one stream; four bits a weight say which
//! of the eight columns. Rows keep a power of two of every eight columns, filled up with zeros: 2:4 keeps four, so a vector
//! has two rows and a strip eight.

use super::aligned::Buffer;
use super::balance::{scatter, shares};
use super::lanes::unrolled;
use super::nm_column::padded;
use super::{Activations, Packed, WeightMatrix};
use std::arch::x86_64::*;
use std::ops::Range;

/// Columns that a register holds.
const COLUMNS: usize = 8;
/// Vectors of rows in a strip: so many sums keep the multipliers busy.
const VECTORS: usize = 4;

/// Weights that no cache keeps: their strips are multiplied by twos, because they lie pages apart and a stream for each has
/// more lines on their way than one. From a cache one is faster.
const FROM_MEMORY: usize = (8 << 20) / 4;
/// Weights from those that are multiplied to those that are asked for: one stream keeps too few lines under way.
const AHEAD: usize = 2048;

/// Packed weights.
pub(super) struct Eights {
    n: usize,
    k: usize,
    /// Lanes of a vector that belong to one row.
    kept: usize,
    values: Buffer,
    /// A word a vector: the column of each lane, four bits each.
    codes: Vec<u32>,
}

impl Eights {
    /// Packs weights of which at most `kept` in every `group` columns are not zero; `group` divides eight.
    pub fn pack(weights: WeightMatrix<'_>, kept: usize, group: usize) -> Self {
        let WeightMatrix { n, k, values: all } = weights;
        let kept = (kept * (COLUMNS / group)).next_power_of_two().clamp(1, COLUMNS);
        let (eights, rows) = (k.div_ceil(COLUMNS), VECTORS * COLUMNS / kept);
        let vectors = n.div_ceil(rows) * eights * VECTORS;
        let mut values = Buffer::zeros(vectors * COLUMNS);
        let mut codes = vec![0u32; vectors];
        for (row, weights) in all.chunks_exact(k.max(1)).take(n).enumerate() {
            let (strip, inside) = (row / rows, row % rows);
            let (vector, lanes) = (inside * kept / COLUMNS, inside * kept % COLUMNS);
            for (eight, columns) in weights.chunks(COLUMNS).enumerate() {
                let at = (strip * eights + eight) * VECTORS + vector;
                for (i, (column, value)) in columns.iter().enumerate().filter(|(_, v)| **v != 0.0).enumerate() {
                    values[at * COLUMNS + lanes + i] = *value;
                    codes[at] |= (column as u32) << (4 * (lanes + i));
                }
            }
        }
        Self { n, k, kept, values, codes }
    }

    /// Rows of a strip.
    fn rows(&self) -> usize {
        VECTORS * COLUMNS / self.kept
    }

    /// Strips one or two `together`.
    ///
    /// # Safety
    /// AVX2 and FMA are there; `x` has whole eights of columns.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn strips(&self, strips: Range<usize>, together: usize, x: &[f32], y: &mut [f32]) {
        let eights = self.k.div_ceil(COLUMNS);
        assert!(x.len() >= eights * COLUMNS, "columns are padded to whole registers");
        for (first, y) in strips.clone().step_by(together).zip(y.chunks_mut(together * self.rows())) {
            let mut write = |sums: &[[f32; VECTORS * COLUMNS]]| {
                for (y, lanes) in y.iter_mut().zip(sums.as_flattened().chunks_exact(self.kept)) {
                    *y = lanes.iter().sum();
                }
            };
            // SAFETY: the caller's.
            unsafe {
                match (strips.end - first).min(together) {
                    2 => write(&self.sums::<2>(first, eights, x)),
                    _ => write(&self.sums::<1>(first, eights, x)),
                }
            }
        }
    }

    /// The lanes of S strips from `first` on, before those of a row are added.
    ///
    /// # Safety
    /// AVX2 and FMA are there; `x` has `eights` of columns.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn sums<const S: usize>(&self, first: usize, eights: usize, x: &[f32]) -> [[f32; VECTORS * COLUMNS]; S] {
        let shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        let vectors = &self.codes[first * eights * VECTORS..][..S * eights * VECTORS];
        let values = &self.values[first * eights * VECTORS * COLUMNS..][..vectors.len() * COLUMNS];
        let mut streams: [(*const u32, *const f32); S] = std::array::from_fn(|s| {
            let at = s * eights * VECTORS;
            (vectors[at..].as_ptr(), values[at * COLUMNS..].as_ptr())
        });
        let mut sums = [[_mm256_setzero_ps(); VECTORS]; S];
        for x in x.chunks_exact(COLUMNS).take(eights) {
            // SAFETY: the pieces have eight activations; each strip has VECTORS words and as many vectors an eight.
            unsafe {
                let columns = _mm256_loadu_ps(x.as_ptr());
                unrolled!(S, s, {
                    let (codes, values) = streams[s];
                    _mm_prefetch::<_MM_HINT_T0>(values.wrapping_add(AHEAD).cast());
                    _mm_prefetch::<_MM_HINT_T0>(values.wrapping_add(AHEAD + 16).cast());
                    unrolled!(VECTORS, v, {
                        // The permutation looks at the lowest three bits of a lane alone.
                        let places = _mm256_srlv_epi32(_mm256_set1_epi32(*codes.add(v) as i32), shifts);
                        let activations = _mm256_permutevar8x32_ps(columns, places);
                        let values = _mm256_loadu_ps(values.add(v * COLUMNS));
                        sums[s][v] = _mm256_fmadd_ps(values, activations, sums[s][v]);
                    });
                    streams[s] = (codes.add(VECTORS), values.add(VECTORS * COLUMNS));
                });
            }
        }
        sums.map(|sums| {
            let mut lanes = [0.0f32; VECTORS * COLUMNS];
            for (lanes, sum) in lanes.chunks_exact_mut(COLUMNS).zip(sums) {
                // SAFETY: eight lanes.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
            }
            lanes
        })
    }
}

impl Packed for Eights {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        // Few columns beyond the first are worth a pass over the weights each; packing for them takes other kernels.
        let (n, m) = (self.n, x.m);
        let strips = n.div_ceil(self.rows());
        let together = if self.values.len() > FROM_MEMORY { 2 } else { 1 };
        let parts = shares((0..strips).map(|_| 1), rayon::current_num_threads());
        let mut column = vec![0.0; if m == 1 { 0 } else { self.k }];
        let mut result = vec![0.0; if m == 1 { 0 } else { n }];
        for c in 0..m {
            for (to, from) in column.iter_mut().zip(x.values[c..].iter().step_by(m)) {
                *to = *from;
            }
            let (from, to) = if m == 1 { (x.values, &mut y[..n]) } else { (&column[..], &mut result[..]) };
            padded(&from[..self.k], COLUMNS, |x| {
                let ends = parts.iter().map(|p| (p.end * self.rows()).min(n));
                // SAFETY: weights are packed so where AVX2 was detected; the columns are padded.
                scatter(&parts, ends, to, 1, |strips, y| unsafe { self.strips(strips, together, x, y) });
            });
            for (to, from) in y[c..].iter_mut().step_by(m).zip(&result) {
                *to = *from;
            }
        }
    }

    fn bytes(&self) -> (u64, u64) {
        (4 * self.values.len() as u64, 4 * self.codes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Isa, random};

    #[test]
    fn strips_by_twos_are_strips_one_by_one() {
        if Isa::detect() < Isa::Avx2 {
            return;
        }
        for (pattern, kept, group) in [("2:4", 2, 4), ("1:4", 1, 4), ("4:8", 4, 8)] {
            let (n, k) = (83, 40);
            let values = random::weights(pattern.parse().expect("a pattern"), n, k, 1);
            let packed = Eights::pack(WeightMatrix { n, k, values: &values }, kept, group);
            let x = random::activations(k, 1, 2);
            let products = |together| {
                let mut y = vec![f32::NAN; n];
                // SAFETY: AVX2 was detected, and the columns are five eights.
                unsafe { packed.strips(0..n.div_ceil(packed.rows()), together, &x, &mut y) };
                y
            };
            assert_eq!(products(1), products(2), "{pattern}");
        }
    }
}
