//! N:M: at most N weights of every aligned group of M, each with its place in the group in a few bits.
//!
//! Storage: chunks of sixteen values, ⌊16/N⌋ whole groups each, with sixteen codes of 2, 4, 8 or 16 bits (M up to 4, 16,
//! 256, 65,536), little end first: 2:4 takes 4.25 bytes a kept weight. Loop nest, outermost first:
//!
//! ```text
//! panel of activations (packed, or where it lies)      up to 8 vectors of columns
//!   rows, shared among threads                         512 at a time where results are packed
//!     block of K                                       [`block_k`]: its activations stay in L1
//!       row                                            up to 8 vectors of sums in registers
//!         kept weight                                  values and codes stream by; activations from L1
//! ```
//!
//! One column ([`super::nm_column`]; on AVX2 [`super::nm_eights`]): four rows at a time, stored chunk by chunk together; K in
//! chunks, whose activations are brought to the lanes by a permutation of registers. Groups of more than 16 kept weights or 65,536 columns, and for one
//! column those whose chunks span more than the registers hold, are stored as CSR.

use super::aligned::Buffer;
use super::balance::{scatter, shares};
use super::blocks::Blocks;
use super::csr::Rows;
use super::lanes::{Lanes, Plain, unrolled};
use super::nm_column;
#[cfg(target_arch = "x86_64")]
use super::nm_eights::Eights;
use super::panel::{Panel, TILE_ROWS, panels, through_tiles};
use super::{Activations, Isa, Kernel, Packed, WeightMatrix};
use crate::error::{Error, Result};
use crate::lower::blocking::{NM_CHUNK, block_k, permutes};
use crate::pattern::SparsityPattern;
use std::ops::Range;

/// Values of a chunk.
pub(super) const CHUNK: usize = NM_CHUNK as usize;

/// `N:M`, and `V:N:M` row by row.
pub struct Nm {
    /// The instruction set to use, which the machine has.
    pub isa: Isa,
}

impl Kernel for Nm {
    fn name(&self) -> &'static str {
        "nm"
    }

    fn refusal(&self, pattern: &SparsityPattern, n: usize, k: usize) -> Option<String> {
        match pattern {
            SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. } => super::too_large(n, k),
            other => Some(format!("it stores a few weights of every group, and {} has no groups", other.family())),
        }
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, columns: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        let (kept, group) = match *pattern {
            SparsityPattern::Nm { n, m } | SparsityPattern::Vnm { n, m, .. } => (n, m),
            _ => (1, 1),
        };
        let group = group.min(weights.k.max(1) as u64) as usize;
        let kept = kept.min(group as u64) as usize;
        check_groups(weights, pattern, kept, group)?;
        let permutes = permutes(kept as u64, group as u64, self.isa.vectors());
        #[cfg(target_arch = "x86_64")]
        if columns == 1 && permutes && self.isa == Isa::Avx2 {
            return Ok(Box::new(Eights::pack(weights, kept, group)));
        }
        if kept > CHUNK || group > 1 << 16 || (columns == 1 && !permutes) {
            return Ok(Box::new(Rows(Blocks::pack(self.isa, weights, (1, 1), columns))));
        }
        Ok(Box::new(Groups::pack(self.isa, weights, kept, group, columns)))
    }
}

/// Refuses weights of which more than `kept` in an aligned group of `group` are not zero.
pub(super) fn check_groups(w: WeightMatrix<'_>, pattern: &SparsityPattern, kept: usize, group: usize) -> Result<()> {
    for (row, values) in w.values.chunks_exact(w.k.max(1)).enumerate() {
        for (g, values) in values.chunks(group).enumerate() {
            let found = values.iter().filter(|v| **v != 0.0).count();
            if found > kept {
                let reason = format!(
                    "row {row} has {found} nonzero weights in columns {} to {}; prune them to the pattern first",
                    g * group,
                    g * group + values.len() - 1
                );
                return Err(Error::Pattern { text: pattern.to_string(), reason });
            }
        }
    }
    Ok(())
}

/// Packed weights.
pub(super) struct Groups {
    isa: Isa,
    n: usize,
    pub k: usize,
    kept: usize,
    group: usize,
    /// Bits of a code.
    pub bits: usize,
    /// Columns of a chunk.
    pub span: usize,
    /// Chunks of a row in a block of K; in the last block fewer.
    block: usize,
    /// Rows that are stored chunk by chunk together, so that a strip's weights are one stream.
    strip: usize,
    /// `[blocks of K, strips, chunks, rows of a strip, 16]`.
    values: Buffer,
    /// As `values`, `bits` each.
    codes: Vec<u8>,
}

/// Where a row's first chunk of the block of K of `count` chunks that begins at chunk `first` is, of `n` rows in strips of
/// `strip`, and how many chunks after it the next.
fn place(n: usize, strip: usize, (first, count): (usize, usize), row: usize) -> (usize, usize) {
    let top = row / strip * strip;
    (first * n + top * count + (row - top), strip.min(n - top))
}

/// A row's chunks in one block of K: from the first to the last, with those of other rows between them.
#[derive(Clone, Copy)]
pub(super) struct Chunks<'a> {
    pub values: &'a [f32],
    pub codes: &'a [u8],
    /// How many.
    pub count: usize,
    /// Chunks from one of the row's to its next.
    pub step: usize,
}

impl Groups {
    fn pack(isa: Isa, weights: WeightMatrix<'_>, kept: usize, group: usize, columns: usize) -> Self {
        let WeightMatrix { n, k, values: all } = weights;
        let bits = match group {
            0..=4 => 2,
            5..=16 => 4,
            17..=256 => 8,
            _ => 16,
        };
        let per = CHUNK / kept;
        let span = per * group;
        let chunks = k.div_ceil(span);
        let density = kept as f64 / group as f64;
        let block = match columns {
            1 => chunks,
            _ => (block_k(k as u64, 1, 1, density, columns as u64, isa.vectors()) as usize).div_ceil(span),
        }
        .clamp(1, chunks.max(1));
        let strip = if columns == 1 { nm_column::STRIP } else { 1 };
        let mut values = Buffer::zeros(n * chunks * CHUNK);
        let mut codes = vec![0u8; n * chunks * CHUNK * bits / 8];
        for first in (0..chunks).step_by(block) {
            let count = block.min(chunks - first);
            for (r, row) in (0..n).map(|r| (r, &all[r * k..][..k])) {
                let (from, step) = place(n, strip, (first, count), r);
                for chunk in first..first + count {
                    let at = from + (chunk - first) * step;
                    let columns = row[chunk * span..].chunks(group).take(per);
                    for (g, columns) in columns.enumerate() {
                        let nonzero = columns.iter().enumerate().filter(|(_, v)| **v != 0.0);
                        for (i, (code, value)) in nonzero.enumerate() {
                            let lane = at * CHUNK + g * kept + i;
                            values[lane] = *value;
                            let bit = lane * bits;
                            codes[bit / 8] |= (code << (bit % 8)) as u8;
                            if bits == 16 {
                                codes[bit / 8 + 1] |= (code >> 8) as u8;
                            }
                        }
                    }
                }
            }
        }
        Self { isa, n, k, kept, group, bits, span, block, strip, values, codes }
    }

    /// First column of a lane's group, counted from its chunk's; lanes that hold nothing point at the first.
    pub fn starts(&self) -> [usize; CHUNK] {
        std::array::from_fn(|lane| if lane < CHUNK / self.kept * self.kept { lane / self.kept * self.group } else { 0 })
    }

    /// Blocks of K: first chunk and how many.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (chunks, block) = (self.k.div_ceil(self.span), self.block);
        (0..chunks).step_by(block).map(move |first| (first, block.min(chunks - first)))
    }

    /// Chunks of a row in the block of K of `count` that begins at chunk `first`.
    #[inline(always)]
    pub fn chunks(&self, (first, count): (usize, usize), row: usize) -> Chunks<'_> {
        let (from, step) = place(self.n, self.strip, (first, count), row);
        let chunks = from..if count == 0 { from } else { from + (count - 1) * step + 1 };
        let bytes = CHUNK * self.bits / 8;
        Chunks {
            values: &self.values[chunks.start * CHUNK..chunks.end * CHUNK],
            codes: &self.codes[chunks.start * bytes..chunks.end * bytes],
            count,
            step,
        }
    }

    /// One column: `x` is followed by a chunk's columns of zeros, 64 at least.
    fn column(&self, x: &[f32], rows: Range<usize>, y: &mut [f32]) {
        y.fill(0.0);
        for block in self.blocks() {
            let x = &x[block.0 * self.span..];
            nm_column::rows(self.isa, self, block, rows.clone(), x, y);
        }
    }

    fn share(&self, panel: Panel<'_>, rows: Range<usize>, y: &mut [f32], stride: usize) {
        match self.isa {
            // SAFETY: an Isa beyond Portable is only used where it was detected; plain vectors need nothing.
            Isa::Portable => unsafe { self.rows_with::<Plain>(panel, rows, y, stride) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { self.rows_avx2(panel, rows, y, stride) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { self.rows_avx512(panel, rows, y, stride) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => unsafe { self.rows_with::<Plain>(panel, rows, y, stride) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows_avx2(&self, panel: Panel<'_>, rows: Range<usize>, y: &mut [f32], stride: usize) {
        unsafe { self.rows_with::<super::lanes::Ymm>(panel, rows, y, stride) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn rows_avx512(&self, panel: Panel<'_>, rows: Range<usize>, y: &mut [f32], stride: usize) {
        unsafe { self.rows_with::<super::lanes::Zmm>(panel, rows, y, stride) }
    }

    /// # Safety
    /// `V`'s instruction set is enabled.
    #[inline(always)]
    unsafe fn rows_with<V: Lanes>(&self, panel: Panel<'_>, rows: Range<usize>, y: &mut [f32], stride: usize) {
        // SAFETY: the caller's.
        unsafe {
            match self.bits {
                2 => self.rows_of::<V, 2>(panel, rows, y, stride),
                4 => self.rows_of::<V, 4>(panel, rows, y, stride),
                8 => self.rows_of::<V, 8>(panel, rows, y, stride),
                _ => self.rows_of::<V, 16>(panel, rows, y, stride),
            }
        }
    }

    #[inline(always)]
    unsafe fn rows_of<V: Lanes, const BITS: usize>(
        &self,
        panel: Panel<'_>,
        rows: Range<usize>,
        y: &mut [f32],
        stride: usize,
    ) {
        let offsets = self.starts().map(|c| c * panel.stride);
        // In a last chunk that reaches over the edge of K, lanes beyond it hold zeros: they point at the chunk's start.
        let left = self.k - (self.k.div_ceil(self.span) - 1) * self.span;
        let last = self.starts().map(|c| if c < left { c * panel.stride } else { 0 });
        let quads = (CHUNK / self.kept * self.kept).div_ceil(4);
        for block in self.blocks() {
            let (first, count) = (block.0 * self.span, block.1);
            let ends = first + count * self.span >= self.k;
            for (i, y) in rows.clone().zip(y.chunks_mut(stride)) {
                let chunks = self.chunks(block, i);
                let row = Row {
                    chunks,
                    full: count - usize::from(ends),
                    quads,
                    offsets: &offsets,
                    last: ends.then_some(&last),
                    x: &panel.values[first * panel.stride..],
                    x_stride: panel.stride,
                    step: self.span * panel.stride,
                    add: first > 0,
                };
                // SAFETY: the caller's; codes and offsets stay within the activations of the block.
                unsafe {
                    match panel.vectors {
                        1 => row.run::<V, BITS, 1, 4>(y),
                        2 => row.run::<V, BITS, 2, 4>(y),
                        3 => row.run::<V, BITS, 3, 2>(y),
                        4 => row.run::<V, BITS, 4, 2>(y),
                        5 => row.run::<V, BITS, 5, 1>(y),
                        6 => row.run::<V, BITS, 6, 1>(y),
                        7 => row.run::<V, BITS, 7, 1>(y),
                        _ => row.run::<V, BITS, 8, 1>(y),
                    }
                }
            }
        }
    }
}

impl Packed for Groups {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        if x.m == 0 || self.n == 0 {
            return;
        }
        if self.k == 0 {
            return y.fill(0.0);
        }
        let parts = shares((0..self.n).map(|_| 1), rayon::current_num_threads());
        let ends = || parts.iter().map(|p| p.end);
        if x.m == 1 {
            return nm_column::padded(x.values, self.span, |x| {
                scatter(&parts, ends(), y, 1, |rows, y| self.column(x, rows, y));
            });
        }
        panels(self.isa, x, |panel| {
            scatter(&parts, ends(), y, x.m, |rows, y| {
                through_tiles(panel, rows, (1, TILE_ROWS), self.n, y, x.m, |rows, y, stride| {
                    self.share(panel, rows, y, stride)
                });
            });
        });
    }

    fn bytes(&self) -> (u64, u64) {
        (4 * self.values.len() as u64, self.codes.len() as u64)
    }
}

/// One row in one block of K.
struct Row<'a> {
    chunks: Chunks<'a>,
    /// Chunks whose lanes are all inside K.
    full: usize,
    /// Lanes in use, in fours.
    quads: usize,
    offsets: &'a [usize; CHUNK],
    /// Offsets of the chunk at the end of K, where it is in this block.
    last: Option<&'a [usize; CHUNK]>,
    x: &'a [f32],
    x_stride: usize,
    /// Activations from a chunk to the next.
    step: usize,
    /// Whether results of earlier blocks of K are there.
    add: bool,
}

impl Row<'_> {
    /// W vectors of columns; U values take turns where few vectors would leave the adders waiting for one another.
    #[inline(always)]
    unsafe fn run<V: Lanes, const BITS: usize, const W: usize, const U: usize>(&self, y: &mut [f32]) {
        debug_assert!(y.len() >= W * V::COUNT);
        unsafe {
            let y = y.as_mut_ptr();
            let mut sums = [[V::zero(); W]; U];
            if self.add {
                unrolled!(W, w, sums[0][w] = V::load(y.add(w * V::COUNT)));
            }
            let Chunks { values, codes, step, .. } = self.chunks;
            let (mut values, mut codes, mut x) = (values.as_ptr(), codes.as_ptr(), self.x.as_ptr());
            for _ in 0..self.full {
                sums = self.chunk::<V, BITS, W, U>(values, codes, x, self.offsets, sums);
                values = values.add(step * CHUNK);
                codes = codes.add(step * CHUNK * BITS / 8);
                x = x.add(self.step);
            }
            if let Some(offsets) = self.last {
                sums = self.chunk::<V, BITS, W, U>(values, codes, x, offsets, sums);
            }
            unrolled!(W, w, {
                let mut sum = sums[0][w];
                unrolled!(U, u, {
                    if u > 0 {
                        sum = sum.add(sums[u][w]);
                    }
                });
                sum.store(y.add(w * V::COUNT));
            });
        }
    }

    #[inline(always)]
    unsafe fn chunk<V: Lanes, const BITS: usize, const W: usize, const U: usize>(
        &self,
        values: *const f32,
        codes: *const u8,
        x: *const f32,
        offsets: &[usize; CHUNK],
        mut sums: [[V; W]; U],
    ) -> [[V; W]; U] {
        unsafe {
            for quad in 0..self.quads {
                let codes = codes.add(quad * BITS / 2);
                let word = match BITS {
                    2 => u64::from(*codes),
                    4 => u64::from(codes.cast::<u16>().read_unaligned()),
                    8 => u64::from(codes.cast::<u32>().read_unaligned()),
                    _ => codes.cast::<u64>().read_unaligned(),
                };
                unrolled!(4, lane, {
                    let code = (word >> (lane * BITS)) as usize & ((1 << BITS) - 1);
                    let x = x.add(offsets[quad * 4 + lane] + code * self.x_stride);
                    let value = V::splat(*values.add(quad * 4 + lane));
                    unrolled!(W, w, {
                        sums[lane % U][w] = sums[lane % U][w].add_product(value, V::load(x.add(w * V::COUNT)));
                    });
                });
            }
        }
        sums
    }
}
