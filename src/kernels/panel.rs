//! Panels of activations: columns that a kernel keeps in registers, packed so that a block of them stays in L1.
//!
//! A panel is up to eight vectors wide. One that is the whole matrix, a multiple of the vector, and begins at a cache line
//! is used where it lies; any other is copied to `[k, width]`, padded with zeros: rows of a wide matrix are a power of two
//! apart and would fall into few sets, and a load that straddles two lines costs two.

use super::aligned::Buffer;
use super::{Activations, Isa};
use rayon::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// Vectors in a panel.
pub const PANEL_VECTORS: usize = 8;

/// Columns of a panel.
pub fn panel_columns(isa: Isa) -> usize {
    PANEL_VECTORS * isa.lanes()
}

/// Whether activations of `m` columns are used where they lie, if they begin at a cache line.
pub fn is_direct(isa: Isa, m: usize) -> bool {
    m <= panel_columns(isa) && m % isa.lanes() == 0
}

/// Columns of a panel as a kernel sees it: `[k, stride]` from `values` on.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    /// First column in the matrix, and how many are real.
    pub first: usize,
    pub columns: usize,
    /// Vectors that cover them.
    pub vectors: usize,
}

/// Calls `each` with every panel in turn.
pub(super) fn panels(isa: Isa, x: Activations<'_>, mut each: impl FnMut(Panel<'_>)) {
    let lanes = isa.lanes();
    if is_direct(isa, x.m) && Buffer::is_aligned(x.values) {
        return each(Panel { values: x.values, stride: x.m, first: 0, columns: x.m, vectors: x.m / lanes });
    }
    let width = panel_columns(isa);
    let mut scratch = Scratch::take(x.k * width);
    for first in (0..x.m).step_by(width) {
        let columns = width.min(x.m - first);
        let vectors = columns.div_ceil(lanes);
        let stride = vectors * lanes;
        let packed = &mut scratch.slice()[..x.k * stride];
        let copy = |(to, from): (&mut [f32], &[f32])| {
            to[..columns].copy_from_slice(&from[first..first + columns]);
            to[columns..].fill(0.0);
        };
        if rayon::current_num_threads() > 1 {
            packed.par_chunks_mut(stride).with_min_len(64).zip(x.values.par_chunks(x.m)).for_each(copy);
        } else {
            packed.chunks_mut(stride).zip(x.values.chunks(x.m)).for_each(copy);
        }
        each(Panel { values: packed, stride, first, columns, vectors });
    }
}

/// Rows whose packed results stay in L2 beside the activations.
pub const TILE_ROWS: usize = 512;

/// Calls `each` with `step` row groups of `share` at a time, `height` rows each (`n` rows in all), where to put their
/// results and how far apart: straight into `y`, the share's rows of `m` columns, where the panel is all of them, otherwise by way of a tile
/// that stays in L2.
pub(super) fn through_tiles(
    panel: Panel<'_>,
    share: Range<usize>,
    (height, step): (usize, usize),
    n: usize,
    y: &mut [f32],
    m: usize,
    mut each: impl FnMut(Range<usize>, &mut [f32], usize),
) {
    if panel.columns == m && panel.stride == m {
        return each(share, y, m);
    }
    let mut scratch = Scratch::take(step * height * panel.stride);
    let mut y = y.chunks_mut(m);
    for first in share.clone().step_by(step) {
        let part = first..(first + step).min(share.end);
        let rows = (part.end * height).min(n) - first * height;
        let tile = &mut scratch.slice()[..rows * panel.stride];
        each(part, tile, panel.stride);
        for (from, to) in tile.chunks(panel.stride).zip(&mut y) {
            to[panel.first..panel.first + panel.columns].copy_from_slice(&from[..panel.columns]);
        }
    }
}

thread_local! {
    static KEPT: Cell<Vec<Buffer>> = const { Cell::new(Vec::new()) };
}

/// A buffer that a thread keeps between calls: fresh pages would cost more than the work.
pub(super) struct Scratch {
    buffer: Buffer,
    length: usize,
}

impl Scratch {
    pub fn take(length: usize) -> Self {
        let mut kept = KEPT.take();
        let mut buffer = kept.pop().unwrap_or_default();
        KEPT.set(kept);
        if buffer.len() < length {
            buffer = Buffer::zeros(length);
        }
        Self { buffer, length }
    }

    /// What earlier calls left is in it.
    pub fn slice(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.length]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut kept = KEPT.take();
        kept.push(std::mem::take(&mut self.buffer));
        KEPT.set(kept);
    }
}
