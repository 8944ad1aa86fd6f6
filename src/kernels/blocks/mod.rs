//! The engine of CSR and block-sparse kernels: weights in R×C blocks, stored only where one is not all zero.
//!
//! Loop nest, outermost first:
//!
//! ```text
//! panel of activations (packed, or where it lies)      up to 8 vectors of columns
//!   rows, shared among threads by stored blocks        512 at a time where results are packed
//!     block of K                                       [`block_k`]: its activations stay in L1
//!       block row                                      results: read and written once a block of K; those of a
//!                                                      [`Blocks::window`] by their number of blocks, so that the
//!                                                      end of the loop over blocks is predicted
//!         strip of 8 (AVX2: 4), 4, 2 or 1 rows × vectors that fit the registers
//!           block                                      values and one u16 stream by
//!             column of the block                      activations from L1, values broadcast
//! ```

mod column;
mod strip;

use super::lanes::{Lanes, Plain};
use super::panel::{Panel, TILE_ROWS, panels, through_tiles};
use super::{Activations, Isa, WeightMatrix};
use crate::lower::blocking::{block_k, strips, window};
use std::ops::Range;
use strip::Strip;

/// Block-sparse weights.
pub(super) struct Blocks {
    isa: Isa,
    n: usize,
    k: usize,
    rows: usize,
    cols: usize,
    block_k: usize,
    /// Rows of a strip at most.
    strip: usize,
    /// Block rows that are ordered among one another in each block of K; threads share whole windows.
    window: usize,
    /// The block row at each place, `[blocks of K, block rows]`.
    order: Vec<u32>,
    /// Into `index`, `[blocks of K, places]` and one more.
    starts: Vec<u32>,
    /// Where the values of those blocks begin.
    offsets: Vec<usize>,
    /// First column of a block within its block of K.
    index: Vec<u16>,
    /// Of a block row in a block of K, strip by strip, so that each strip reads one stream: every stored block's values,
    /// column-major.
    values: Vec<f32>,
}

impl Blocks {
    /// Stores the blocks of `rows` × `cols` that are not all zero. A last block that reaches over the edge of K is moved
    /// back, zeros where it overlaps its neighbour.
    pub fn pack(isa: Isa, weights: WeightMatrix<'_>, (rows, cols): (usize, usize), columns: usize) -> Self {
        let WeightMatrix { n, k, values } = weights;
        let (rows, cols) = (rows.clamp(1, n.max(1)), cols.clamp(1, k.max(1)));
        let (across, down) = (k.div_ceil(cols), n.div_ceil(rows));
        let occupied = |br: usize, bc: usize| {
            let columns = bc * cols..((bc + 1) * cols).min(k);
            (br * rows..((br + 1) * rows).min(n)).any(|r| values[r * k..][columns.clone()].iter().any(|&v| v != 0.0))
        };
        let map: Vec<bool> = (0..down * across).map(|b| occupied(b / across, b % across)).collect();
        let density = map.iter().filter(|&&o| o).count() as f64 / map.len().max(1) as f64;
        let block_k = block_k(k as u64, rows as u64, cols as u64, density, columns as u64, isa.vectors()) as usize;
        let mut packed = Self {
            isa,
            n,
            k,
            rows,
            cols,
            block_k,
            strip: isa.vectors().strip(columns as u64) as usize,
            window: window(down as u64, rows as u64, rayon::current_num_threads() as u64) as usize,
            order: vec![],
            starts: vec![0],
            offsets: vec![0],
            index: vec![],
            values: vec![],
        };
        let all: Vec<u32> = (0..down as u32).collect();
        for first in (0..k).step_by(block_k) {
            let base = packed.base(first);
            let within = first / cols..((first + block_k).min(k)).div_ceil(cols);
            let placed = packed.order.len();
            packed.order.extend(&all);
            for window in packed.order[placed..].chunks_mut(packed.window) {
                window.sort_by_cached_key(|&br| {
                    map[br as usize * across..][within.clone()].iter().filter(|o| **o).count()
                });
            }
            for place in placed..packed.order.len() {
                let br = packed.order[place] as usize;
                // Never past the end of K, where there are no activations.
                let stored = within.clone().filter(|bc| map[br * across + bc]);
                let starts = stored.map(|bc| (bc * cols, (bc * cols).min(k - cols)));
                packed.index.extend(starts.clone().map(|(_, start)| (start - base) as u16));
                packed.store(weights, br, starts);
                packed.starts.push(packed.index.len() as u32);
                packed.offsets.push(packed.values.len());
            }
        }
        packed
    }

    /// Appends the values of a block row's blocks, each by its first column and the one that it was moved back to; columns
    /// before the first belong to the neighbour and are stored as zeros.
    fn store(
        &mut self,
        weights: WeightMatrix<'_>,
        block_row: usize,
        starts: impl Iterator<Item = (usize, usize)> + Clone,
    ) {
        let mut row = block_row * self.rows;
        for height in self.strips(self.rows.min(self.n - row)) {
            for (from, start) in starts.clone() {
                for column in start..start + self.cols {
                    let values = (row..row + height).map(|r| weights.values[r * self.k + column]);
                    self.values.extend(values.map(|v| if column < from { 0.0 } else { v }));
                }
            }
            row += height;
        }
    }

    /// Column that the indices of the block of K at `first` count from: a last block that was moved back may begin before.
    fn base(&self, first: usize) -> usize {
        first.min(self.k - self.cols)
    }

    /// Bytes of values and of indices.
    pub fn bytes(&self) -> (u64, u64) {
        (4 * self.values.len() as u64, 2 * self.index.len() as u64 + 16 * self.starts.len() as u64)
    }

    /// Heights of the strips of a block row of `rows`.
    fn strips(&self, rows: usize) -> impl Iterator<Item = usize> + use<> {
        strips(rows as u64, self.strip as u64).map(|height| height as usize)
    }

    fn block_rows(&self) -> usize {
        self.n.div_ceil(self.rows)
    }

    /// Stored blocks at a place.
    fn range(&self, at: usize) -> Range<usize> {
        self.starts[at] as usize..self.starts[at + 1] as usize
    }

    /// Block rows divided into one range of windows a thread, with about as many stored blocks each.
    fn shares(&self, threads: usize) -> Vec<Range<usize>> {
        let down = self.block_rows();
        let blocks = self.order.len() / down.max(1);
        let ends = |w: usize| (w * self.window, ((w + 1) * self.window).min(down));
        let work = |w: usize| {
            let (first, end) = ends(w);
            let stored = |b: usize| (self.starts[b * down + end] - self.starts[b * down + first]) as usize;
            end - first + (0..blocks).map(stored).sum::<usize>()
        };
        let shares = super::balance::shares((0..down.div_ceil(self.window)).map(work), threads);
        shares.into_iter().map(|s| ends(s.start).0..ends(s.end).0.min(down)).collect()
    }

    /// `y = W · x`.
    pub fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        if x.m == 0 || self.n == 0 {
            return;
        }
        if self.k == 0 {
            return y.fill(0.0);
        }
        if x.m == 1 {
            return self.column(x.values, y);
        }
        let shares = self.shares(rayon::current_num_threads());
        panels(self.isa, x, |panel| {
            self.each_share(&shares, y, x.m, |share, part| {
                through_tiles(panel, share, (self.rows, self.step()), self.n, part, x.m, |share, part, stride| {
                    self.share(panel, share, part, stride);
                });
            });
        });
    }

    /// Block rows whose packed results stay in L2: whole windows.
    fn step(&self) -> usize {
        (TILE_ROWS / self.rows / self.window).max(1) * self.window
    }

    /// Calls `each` with every share and its rows of `y`, on a thread of its own where there are several.
    fn each_share(
        &self,
        shares: &[Range<usize>],
        y: &mut [f32],
        m: usize,
        each: impl Fn(Range<usize>, &mut [f32]) + Sync,
    ) {
        let ends = shares.iter().map(|s| (s.end * self.rows).min(self.n));
        super::balance::scatter(shares, ends, y, m, each);
    }

    /// Block rows of one thread; `y` holds their rows alone, `stride` apart.
    fn share(&self, panel: Panel<'_>, share: Range<usize>, y: &mut [f32], stride: usize) {
        match self.isa {
            // SAFETY: an Isa beyond Portable is only used where it was detected; plain vectors need nothing.
            Isa::Portable => unsafe { self.rows_with::<Plain>(panel, share, y, stride) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { self.rows_avx2(panel, share, y, stride) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { self.rows_avx512(panel, share, y, stride) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => unsafe { self.rows_with::<Plain>(panel, share, y, stride) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn rows_avx2(&self, panel: Panel<'_>, share: Range<usize>, y: &mut [f32], stride: usize) {
        unsafe { self.rows_with::<super::lanes::Ymm>(panel, share, y, stride) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn rows_avx512(&self, panel: Panel<'_>, share: Range<usize>, y: &mut [f32], stride: usize) {
        unsafe { self.rows_with::<super::lanes::Zmm>(panel, share, y, stride) }
    }

    /// # Safety
    /// `V`'s instruction set is enabled.
    #[inline(always)]
    unsafe fn rows_with<V: Lanes>(&self, panel: Panel<'_>, share: Range<usize>, y: &mut [f32], stride: usize) {
        for (block, first) in (0..self.k).step_by(self.block_k).enumerate() {
            let x = &panel.values[self.base(first) * panel.stride..];
            if self.rows * self.cols == 1 && panel.vectors <= V::TILE[3] {
                // SAFETY: the caller's.
                unsafe { self.single_rows::<V>(panel, x, block, share.clone(), y, stride) };
                continue;
            }
            let places = block * self.block_rows();
            for at in places + share.start..places + share.end {
                let block_row = self.order[at] as usize;
                let row = (block_row - share.start) * self.rows;
                let stored = self.range(at);
                let rows = self.rows.min(self.n - block_row * self.rows);
                let values = &self.values[self.offsets[at]..self.offsets[at + 1]];
                let index = &self.index[stored];
                let mut inside = 0;
                for height in self.strips(rows) {
                    let strip = Strip {
                        index,
                        values: &values[inside * self.cols * index.len()..],
                        cols: self.cols,
                        x,
                        x_stride: panel.stride,
                        add: block > 0,
                    };
                    // SAFETY: the caller's; rows × vectors of `y` and the activations of every index are in bounds.
                    unsafe { strip.run::<V>(height, panel.vectors, &mut y[(row + inside) * stride..], stride) };
                    inside += height;
                }
            }
        }
    }
}

impl Blocks {
    /// Rows of a block of K whose blocks are single weights and whose columns fit the registers: what differs from row to
    /// row is where it begins and ends, all else is settled before the loop.
    ///
    /// # Safety
    /// `V`'s instruction set is enabled.
    #[inline(always)]
    unsafe fn single_rows<V: Lanes>(
        &self,
        panel: Panel<'_>,
        x: &[f32],
        block: usize,
        share: Range<usize>,
        y: &mut [f32],
        stride: usize,
    ) {
        macro_rules! rows {
            ($width:literal, $unroll:literal) => {{
                let places = block * self.n;
                for at in places + share.start..places + share.end {
                    let stored = self.range(at);
                    let strip = Strip {
                        index: &self.index[stored.clone()],
                        values: &self.values[stored],
                        cols: 1,
                        x,
                        x_stride: panel.stride,
                        add: block > 0,
                    };
                    let row = self.order[at] as usize - share.start;
                    // SAFETY: the caller's; the row's vectors of `y` and the activations of every index are in bounds.
                    unsafe { strip.row::<V, $width, $unroll>(&mut y[row * stride..], 0) };
                }
            }};
        }
        match panel.vectors {
            1 => rows!(1, 8),
            2 => rows!(2, 4),
            3 => rows!(3, 2),
            4 => rows!(4, 2),
            5 => rows!(5, 1),
            6 => rows!(6, 1),
            7 => rows!(7, 1),
            _ => rows!(8, 1),
        }
    }
}
