//! Activations from fp32 rows to tiles: words of two or four rows of the reduction, one a column.

use super::unit::{ROWS, TILE_WORDS};
use super::{Format, PANEL, STEPS};
use crate::kernels::Activations;
use crate::kernels::float::bf16;
use rayon::prelude::*;

/// Sixteen columns of a row.
type Line = [f32; ROWS];

/// Converts a block of K of some columns, panel by panel, and says how many steps it has. Scales of columns (int8) are
/// taken from all of K with the first block.
pub fn activations(
    format: Format,
    x: Activations<'_>,
    (first, columns): (usize, usize),
    block: usize,
    words: &mut [f32],
    scales: &mut [f32],
) -> usize {
    let depth = format.depth();
    let steps = x.k.div_ceil(depth).saturating_sub(block * STEPS).min(STEPS);
    let whole = steps * PANEL * ROWS;
    let each = |(at, scales): (usize, &mut [f32]), words: &mut [f32]| {
        let job =
            Job { x, first: first + at * PANEL, columns: PANEL.min(columns - at * PANEL), row: block * STEPS * depth };
        job.convert(format, &mut words[..steps * job.columns.div_ceil(ROWS) * TILE_WORDS], scales);
    };
    let panels = columns.div_ceil(PANEL);
    if whole > 0 && panels > 1 && rayon::current_num_threads() > 1 {
        let scales = scales.par_chunks_mut(PANEL).take(panels).enumerate();
        scales.zip(words.par_chunks_mut(whole)).for_each(|(scales, words)| each(scales, words));
    } else {
        let mut words = words;
        for scales in scales.chunks_mut(PANEL).take(panels).enumerate() {
            let (panel, rest) = words.split_at_mut(whole.min(words.len()));
            words = rest;
            each(scales, panel);
        }
    }
    steps
}

/// A panel: columns from `first` on, rows from `row` on.
struct Job<'a> {
    x: Activations<'a>,
    first: usize,
    columns: usize,
    row: usize,
}

impl Job<'_> {
    fn convert(&self, format: Format, words: &mut [f32], scales: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            let has = is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl");
            match format {
                // SAFETY: the machine has the instructions.
                Format::Bf16 if has && is_x86_feature_detected!("avx512bf16") => {
                    return unsafe { self.pairs_zmm(words) };
                }
                Format::Int8 if has => return unsafe { self.bytes_zmm(words, scales) },
                Format::Int8 if is_x86_feature_detected!("avx2") => return unsafe { self.bytes_ymm(words, scales) },
                Format::Bf16 | Format::Int8 => {}
            }
        }
        match format {
            Format::Bf16 => self.pairs(words, |even, odd| std::array::from_fn(|i| bf16(even[i]) | bf16(odd[i]) << 16)),
            Format::Int8 => self.bytes(words, scales),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn pairs_zmm(&self, words: &mut [f32]) {
        use std::arch::x86_64::*;
        // Word i of the result: elements i and i + 16 of the two vectors one after another.
        let places: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
        // SAFETY: arrays of 64 bytes.
        let places = unsafe { _mm512_loadu_si512(places.as_ptr().cast()) };
        self.pairs(words, |even, odd| {
            // SAFETY: the instructions are enabled; a line is 64 bytes, and every pattern of bits is a value of each type.
            unsafe {
                let (even, odd) = (_mm512_loadu_ps(even.as_ptr()), _mm512_loadu_ps(odd.as_ptr()));
                let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
                std::mem::transmute::<__m512i, [u32; ROWS]>(_mm512_permutexvar_epi16(places, both))
            }
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn bytes_zmm(&self, words: &mut [f32], scales: &mut [f32]) {
        self.bytes(words, scales);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn bytes_ymm(&self, words: &mut [f32], scales: &mut [f32]) {
        self.bytes(words, scales);
    }

    /// Two rows a word.
    #[inline(always)]
    fn pairs(&self, words: &mut [f32], word: impl Fn(&Line, &Line) -> [u32; ROWS]) {
        self.tiles(words, 2, |row, at| word(&self.line(row, at), &self.line(row + 1, at)));
    }

    /// Four rows a word, each scaled by its column's largest magnitude.
    #[inline(always)]
    fn bytes(&self, words: &mut [f32], scales: &mut [f32]) {
        if self.row == 0 {
            let mut most = [[0.0f32; ROWS]; 2];
            for row in 0..self.x.k {
                for (at, most) in most.iter_mut().enumerate().take(self.columns.div_ceil(ROWS)) {
                    most.iter_mut().zip(self.line(row, at)).for_each(|(most, v)| *most = most.max(v.abs()));
                }
            }
            scales.iter_mut().zip(most.as_flattened()).for_each(|(scale, most)| *scale = most / 127.0);
        }
        let mut inverse = [0.0f32; PANEL];
        inverse.iter_mut().zip(scales).for_each(|(inverse, &mut s)| *inverse = (1.0 / s).min(f32::MAX));
        self.tiles(words, 4, |row, at| {
            let mut word = [0; ROWS];
            for part in 0..4 {
                let line = self.line(row + part, at);
                for i in 0..ROWS {
                    // Adding 1.5 · 2^23 leaves the rounded number in the low bits.
                    let byte = (line[i] * inverse[at * ROWS + i] + 12_582_912.0).to_bits() & 0xff;
                    word[i] |= byte << (8 * part);
                }
            }
            word
        });
    }

    /// Fills the tiles of a panel: `word` gives sixteen words from a row on, of the first or second sixteen columns.
    #[inline(always)]
    fn tiles(&self, words: &mut [f32], per_word: usize, word: impl Fn(usize, usize) -> [u32; ROWS]) {
        let wide = self.columns.div_ceil(ROWS);
        for (step, tiles) in words.chunks_exact_mut(wide * TILE_WORDS).enumerate() {
            for i in 0..ROWS {
                for at in 0..wide {
                    let word = word(self.row + (step * ROWS + i) * per_word, at);
                    let to = &mut tiles[at * TILE_WORDS + i * ROWS..][..ROWS];
                    to.iter_mut().zip(word).for_each(|(to, word)| *to = f32::from_bits(word));
                }
            }
        }
    }

    /// Sixteen columns of a row, zeros past the last row and column.
    #[inline(always)]
    fn line(&self, row: usize, at: usize) -> Line {
        let mut line = [0.0; ROWS];
        if row < self.x.k {
            let count = ROWS.min(self.columns - at * ROWS);
            let from = &self.x.values[row * self.x.m + self.first + at * ROWS..][..count];
            if let Ok(whole) = from.try_into() {
                return whole;
            }
            line[..count].copy_from_slice(from);
        }
        line
    }
}
