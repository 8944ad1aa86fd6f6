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
            Format::Bf16 => self.pairs(words),
            Format::Int8 => self.bytes(words, scales),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    unsafe fn pairs_zmm(&self, words: &mut [f32]) {
        use std::arch::x86_64::*;
        // Word i of the result: elements i and i + 16 of the two vectors one after another.
        let places: [u16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as u16);
        // SAFETY: an array of 64 bytes.
        let places = unsafe { _mm512_loadu_si512(places.as_ptr().cast()) };
        self.tiles(words, |_, [even, odd]| {
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
    fn pairs(&self, words: &mut [f32]) {
        self.tiles(words, |_, [even, odd]| std::array::from_fn(|i| bf16(even[i]) | bf16(odd[i]) << 16));
    }

    /// Four rows a word, each scaled by its column's largest magnitude.
    #[inline(always)]
    fn bytes(&self, words: &mut [f32], scales: &mut [f32]) {
        if self.row == 0 {
            let mut most = [[0.0f32; ROWS]; 2];
            let raise = |most: &mut [f32], line: &[f32]| {
                most.iter_mut().zip(line).for_each(|(most, v)| *most = most.max(v.abs()));
            };
            for row in 0..self.x.k {
                let (lines, rest) = self.row(row).as_chunks::<ROWS>();
                most.iter_mut().zip(lines).for_each(|(most, line)| raise(most, line));
                most.iter_mut().skip(lines.len()).for_each(|most| raise(most, rest));
            }
            scales.iter_mut().zip(most.as_flattened()).for_each(|(scale, most)| *scale = most / 127.0);
        }
        let mut inverse = [[0.0f32; ROWS]; 2];
        let all = inverse.as_flattened_mut().iter_mut();
        all.zip(scales).for_each(|(inverse, &mut scale)| *inverse = (1.0 / scale).min(f32::MAX));
        self.tiles(words, |at, lines: [&Line; 4]| {
            let mut word = [0; ROWS];
            for (part, line) in lines.into_iter().enumerate() {
                for i in 0..ROWS {
                    // Adding 1.5 · 2^23 leaves the rounded number in the low bits.
                    let byte = (line[i] * inverse[at][i] + 12_582_912.0).to_bits() & 0xff;
                    word[i] |= byte << (8 * part);
                }
            }
            word
        });
    }

    /// Fills the tiles of a panel: `word` makes sixteen words of P rows, of the first or second sixteen columns.
    #[inline(always)]
    fn tiles<const P: usize>(&self, words: &mut [f32], word: impl Fn(usize, [&Line; P]) -> [u32; ROWS]) {
        let wide = self.columns.div_ceil(ROWS);
        for (step, tiles) in words.chunks_exact_mut(wide * TILE_WORDS).enumerate() {
            for i in 0..ROWS {
                let rows: [&[f32]; P] = std::array::from_fn(|part| self.row(self.row + (step * ROWS + i) * P + part));
                for at in 0..wide {
                    let here = at * ROWS..(at + 1) * ROWS;
                    let whole = rows.map(|row| row.get(here.clone()).and_then(|line| <&Line>::try_from(line).ok()));
                    let word = if whole.iter().all(Option::is_some) {
                        word(at, whole.map(|line| line.unwrap_or(&[0.0; ROWS])))
                    } else {
                        // Zeros past the last row and column.
                        let padded = rows.map(|row| {
                            let mut line = [0.0; ROWS];
                            line.iter_mut().zip(row.iter().skip(here.start)).for_each(|(to, from)| *to = *from);
                            line
                        });
                        word(at, padded.each_ref())
                    };
                    let to = &mut tiles[at * TILE_WORDS + i * ROWS..][..ROWS];
                    to.iter_mut().zip(word).for_each(|(to, word)| *to = f32::from_bits(word));
                }
            }
        }
    }

    /// The panel's columns of a row, none past the last row.
    #[inline(always)]
    fn row(&self, row: usize) -> &[f32] {
        if row < self.x.k { &self.x.values[row * self.x.m + self.first..][..self.columns] } else { &[] }
    }
}
