//! Weights in strips of one or two tiles of rows, each a list of steps of the reduction that are stored.

use super::unit::{ROWS, TILE_WORDS};
use super::{Format, STEPS};
use crate::kernels::float::bf16;
use crate::kernels::{Buffer, WeightMatrix};
use crate::lower::blocking::shares;
use std::ops::Range;

/// Packed weights.
pub struct Strips {
    pub format: Format,
    pub n: usize,
    pub k: usize,
    /// Steps of the whole reduction.
    pub steps: usize,
    /// Of a row; int8 only.
    pub scales: Vec<f32>,
    /// First row of each strip, and the end of the last.
    rows: Vec<usize>,
    /// Into `index`, `[blocks of K, strips]` and one more.
    starts: Vec<usize>,
    /// Into `values`, likewise, in tiles.
    offsets: Vec<usize>,
    /// A step within its block of K.
    index: Vec<u16>,
    /// For every step of a strip, one tile or two of words.
    values: Buffer,
}

impl Strips {
    /// Every step.
    pub fn dense(format: Format, weights: WeightMatrix<'_>) -> Self {
        let tall = weights.n.next_multiple_of(ROWS).max(ROWS);
        Self::new(format, weights, tall, |_, _| true)
    }

    /// The steps of blocks of `rows` × `cols` weights that are not all zero; whole tiles fill a block.
    pub fn of_blocks(format: Format, weights: WeightMatrix<'_>, (rows, cols): (usize, usize)) -> Self {
        let WeightMatrix { n, k, values } = weights;
        let across = k.div_ceil(cols);
        let occupied = |br: usize, bc: usize| {
            let columns = bc * cols..((bc + 1) * cols).min(k);
            (br * rows..((br + 1) * rows).min(n)).any(|r| values[r * k..][columns.clone()].iter().any(|&v| v != 0.0))
        };
        let map: Vec<bool> = (0..n.div_ceil(rows) * across).map(|b| occupied(b / across, b % across)).collect();
        Self::new(format, weights, rows, |row, column| map[row / rows * across + column / cols])
    }

    /// Strips that end where `tall` rows do, with the steps that `stored` says of their first row and column.
    fn new(format: Format, weights: WeightMatrix<'_>, tall: usize, stored: impl Fn(usize, usize) -> bool) -> Self {
        let WeightMatrix { n, k, .. } = weights;
        let steps = k.div_ceil(format.depth());
        let mut rows = vec![];
        for top in (0..n).step_by(tall) {
            rows.extend((top..(top + tall).min(n)).step_by(2 * ROWS));
        }
        rows.push(n);
        let (mut starts, mut offsets, mut index) = (vec![0], vec![0], Vec::new());
        // Of every tile, its rows and its step.
        let mut places = Vec::new();
        for block in (0..steps.max(1)).step_by(STEPS) {
            for strip in rows.windows(2) {
                for step in block..(block + STEPS).min(steps) {
                    if stored(strip[0], step * format.depth()) {
                        index.push((step - block) as u16);
                        places.extend((strip[0]..strip[1]).step_by(ROWS).map(|r| (r..(r + ROWS).min(strip[1]), step)));
                    }
                }
                starts.push(index.len());
                offsets.push(places.len());
            }
        }
        let scales = if format == Format::Int8 { scales(weights) } else { vec![] };
        let mut values = Buffer::zeros(places.len() * TILE_WORDS);
        for (tile, (rows, step)) in values.chunks_exact_mut(TILE_WORDS).zip(places) {
            for (row, to) in rows.zip(tile.chunks_exact_mut(ROWS)) {
                let from = &weights.values[row * k..][..k][step * format.depth()..];
                let scale = scales.get(row).copied().unwrap_or_default();
                for (word, from) in to.iter_mut().zip(from.chunks(format.per_word())) {
                    *word = f32::from_bits(match format {
                        Format::Bf16 => joined(from, 16, bf16),
                        Format::Int8 => joined(from, 8, |v| quantised(v, scale)),
                    });
                }
            }
        }
        Self { format, n, k, steps, scales, rows, starts, offsets, index, values }
    }

    fn strips(&self) -> usize {
        self.rows.len() - 1
    }

    /// Blocks of K; one where there is nothing to sum.
    pub fn blocks(&self) -> usize {
        self.steps.div_ceil(STEPS).max(1)
    }

    /// First row of a strip, which the strip before ends at.
    pub fn row(&self, strip: usize) -> usize {
        self.rows[strip]
    }

    /// Tiles of rows of a strip.
    pub fn height(&self, strip: usize) -> usize {
        (self.rows[strip + 1] - self.rows[strip]).div_ceil(ROWS)
    }

    /// Steps of a strip in a block of K, and their tiles.
    pub fn stored(&self, block: usize, strip: usize) -> (&[u16], &[f32]) {
        let at = block * self.strips() + strip;
        let tiles = self.offsets[at] * TILE_WORDS..self.offsets[at + 1] * TILE_WORDS;
        (&self.index[self.starts[at]..self.starts[at + 1]], &self.values[tiles])
    }

    /// Strips divided into one range a thread, with about as many stored tiles each.
    pub fn shares(&self, threads: usize) -> Vec<Range<usize>> {
        let strips = self.strips();
        let stored = |at: usize| self.offsets[at + 1] - self.offsets[at];
        let work = |strip: usize| 1 + (0..self.blocks()).map(|b| stored(b * strips + strip)).sum::<usize>();
        shares((0..strips).map(work), threads)
    }

    /// Bytes of values, and of what says where they belong.
    pub fn bytes(&self) -> (u64, u64) {
        let places = 2 * self.index.len() + 16 * self.starts.len() + 8 * self.rows.len();
        (4 * self.values.len() as u64, (places + 4 * self.scales.len()) as u64)
    }
}

/// Largest magnitude of every row over 127.
fn scales(weights: WeightMatrix<'_>) -> Vec<f32> {
    let row = |r: usize| &weights.values[r * weights.k..][..weights.k];
    (0..weights.n).map(|r| row(r).iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0).collect()
}

/// A byte of ±127, rounded to nearest, ties to even.
fn quantised(value: f32, scale: f32) -> u32 {
    if scale > 0.0 { u32::from((value / scale).round_ties_even() as i8 as u8) } else { 0 }
}

/// Elements of a word, the first lowest.
fn joined(values: &[f32], bits: u32, element: impl Fn(f32) -> u32) -> u32 {
    values.iter().rev().fold(0, |word, &v| word << bits | element(v))
}
