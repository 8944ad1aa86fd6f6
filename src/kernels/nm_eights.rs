//! N:M times one column on AVX2, where M divides eight: a vector holds the kept weights of eight columns for as many rows
//! as fill it, and their activations come to its lanes by a permutation of the one register that holds the columns.
//!
//! Storage: strips of four vectors of rows, `[strips, eights of columns, 4, 8]`, one stream; four bits a weight say which
//! of the eight columns. Rows keep a power of two of every eight columns, filled up with zeros: 2:4 keeps four, so a vector
//! has two rows and a strip eight.

use super::aligned::Buffer;
use super::balance::{scatter, shares};
use super::nm_column::padded;
use super::{Activations, Packed, WeightMatrix};
use std::arch::x86_64::*;
use std::ops::Range;

/// Columns that a register holds.
const COLUMNS: usize = 8;
/// Vectors of rows in a strip: so many sums keep the multipliers busy.
const VECTORS: usize = 4;

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

    /// # Safety
    /// AVX2 and FMA are there; `x` has whole eights of columns.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn strips(&self, strips: Range<usize>, x: &[f32], y: &mut [f32]) {
        let eights = self.k.div_ceil(COLUMNS);
        assert!(x.len() >= eights * COLUMNS, "columns are padded to whole registers");
        let shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
        for (strip, y) in strips.zip(y.chunks_mut(self.rows())) {
            let vectors = strip * eights * VECTORS..(strip + 1) * eights * VECTORS;
            let values = &self.values[vectors.start * COLUMNS..vectors.end * COLUMNS];
            let mut sums = [_mm256_setzero_ps(); VECTORS];
            let strip = values.chunks_exact(VECTORS * COLUMNS).zip(self.codes[vectors].chunks_exact(VECTORS));
            for ((values, codes), x) in strip.zip(x.chunks_exact(COLUMNS)) {
                // SAFETY: the pieces have eight activations and four times eight values.
                unsafe {
                    let columns = _mm256_loadu_ps(x.as_ptr());
                    for (v, sum) in sums.iter_mut().enumerate() {
                        // The permutation looks at the lowest three bits of a lane alone.
                        let places = _mm256_srlv_epi32(_mm256_set1_epi32(codes[v] as i32), shifts);
                        let activations = _mm256_permutevar8x32_ps(columns, places);
                        *sum = _mm256_fmadd_ps(_mm256_loadu_ps(values.as_ptr().add(v * COLUMNS)), activations, *sum);
                    }
                }
            }
            let mut lanes = [0.0f32; VECTORS * COLUMNS];
            for (lanes, sum) in lanes.chunks_exact_mut(COLUMNS).zip(sums) {
                // SAFETY: eight lanes.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
            }
            for (y, lanes) in y.iter_mut().zip(lanes.chunks_exact(self.kept)) {
                *y = lanes.iter().sum();
            }
        }
    }
}

impl Packed for Eights {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        // Few columns beyond the first are worth a pass over the weights each; packing for them takes other kernels.
        let (n, m) = (self.n, x.m);
        let strips = n.div_ceil(self.rows());
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
                scatter(&parts, ends, to, 1, |strips, y| unsafe { self.strips(strips, x, y) });
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
