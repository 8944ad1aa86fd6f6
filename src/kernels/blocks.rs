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

use super::lanes::{Lanes, Plain, unrolled};
use super::panel::{Panel, TILE_ROWS, panels, through_tiles};
use super::{Activations, Isa, WeightMatrix};
use crate::lower::blocking::{block_k, strips, window};
use std::ops::Range;

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

    /// One column of activations: each strip is a vector of rows, and every index brings one activation.
    fn column(&self, x: &[f32], y: &mut [f32]) {
        let shares = self.shares(rayon::current_num_threads());
        self.each_share(&shares, y, 1, |share, part| match self.isa {
            // SAFETY: an Isa beyond Portable is only used where it was detected; plain vectors need nothing.
            Isa::Portable => unsafe { self.column_with::<Plain>(x, share, part) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => unsafe { self.column_avx2(x, share, part) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => unsafe { self.column_with::<Plain>(x, share, part) },
        });
    }

    /// A strip has eight rows, so vectors of eight serve AVX-512 too.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn column_avx2(&self, x: &[f32], share: Range<usize>, y: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { self.column_with::<super::lanes::Ymm>(x, share, y) }
    }

    /// # Safety
    /// `V`'s instruction set is enabled, and `V` has eight elements.
    #[inline(always)]
    unsafe fn column_with<V: Lanes>(&self, x: &[f32], share: Range<usize>, y: &mut [f32]) {
        y.fill(0.0);
        for (block, first) in (0..self.k).step_by(self.block_k).enumerate() {
            let x = &x[self.base(first)..];
            let places = block * self.block_rows();
            if self.rows * self.cols == 1 {
                for at in places + share.start..places + share.end {
                    let stored = self.range(at);
                    let row = self.order[at] as usize - share.start;
                    // SAFETY: the caller's, and every index is within the activations of the block.
                    y[row] += unsafe { V::sparse(&self.index[stored.clone()], &self.values[stored], x) };
                }
                continue;
            }
            for at in places + share.start..places + share.end {
                let block_row = self.order[at] as usize;
                let row = (block_row - share.start) * self.rows;
                let index = &self.index[self.range(at)];
                let values = &self.values[self.offsets[at]..self.offsets[at + 1]];
                let rows = self.rows.min(self.n - block_row * self.rows);
                let mut inside = 0;
                for height in self.strips(rows) {
                    let values = &values[inside * self.cols * index.len()..];
                    let y = &mut y[row + inside..row + inside + height];
                    match height {
                        // SAFETY: the caller's.
                        8 => unsafe { eight::<V>(index, values, self.cols, x, y) },
                        4 => single::<4>(index, values, self.cols, x, y),
                        2 => single::<2>(index, values, self.cols, x, y),
                        _ => single::<1>(index, values, self.cols, x, y),
                    }
                    inside += height;
                }
            }
        }
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

/// Eight rows against one column, a vector of them; four sums take turns, so that additions need not wait for one another.
///
/// # Safety
/// `V`'s instruction set is enabled, and `V` has eight elements.
#[inline(always)]
unsafe fn eight<V: Lanes>(index: &[u16], values: &[f32], cols: usize, x: &[f32], y: &mut [f32]) {
    const U: usize = 4;
    debug_assert!(y.len() >= 8 && values.len() >= index.len() * 8 * cols);
    // SAFETY: the caller's; every block has 8 · cols values, and x is sliced by every index.
    unsafe {
        let mut sums = [V::zero(); U];
        let mut value = values.as_ptr();
        if cols == 1 {
            let (turns, rest) = index.as_chunks::<U>();
            for turn in turns {
                unrolled!(U, u, {
                    sums[u] = sums[u].add_product(V::splat(x[turn[u] as usize]), V::load(value.add(u * 8)));
                });
                value = value.add(U * 8);
            }
            for &start in rest {
                sums[0] = sums[0].add_product(V::splat(x[start as usize]), V::load(value));
                value = value.add(8);
            }
        } else {
            for &start in index {
                let (turns, rest) = x[start as usize..][..cols].as_chunks::<U>();
                for x in turns {
                    unrolled!(U, u, sums[u] = sums[u].add_product(V::splat(x[u]), V::load(value.add(u * 8))));
                    value = value.add(U * 8);
                }
                for &x in rest {
                    sums[0] = sums[0].add_product(V::splat(x), V::load(value));
                    value = value.add(8);
                }
            }
        }
        let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
        V::load(y.as_ptr()).add(sum).store(y.as_mut_ptr());
    }
}

/// H rows against one column; four sums a row take turns, so that additions need not wait for one another.
#[inline(always)]
fn single<const H: usize>(index: &[u16], values: &[f32], cols: usize, x: &[f32], y: &mut [f32]) {
    const U: usize = 4;
    let mut sums = [[0.0f32; H]; U];
    let add = |sums: &mut [f32; H], values: &[f32], x: f32| {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value * x;
        }
    };
    if cols == 1 {
        let (turns, rest) = index.as_chunks::<U>();
        for (turn, starts) in turns.iter().enumerate() {
            for (u, sums) in sums.iter_mut().enumerate() {
                let at = (turn * U + u) * H;
                add(sums, &values[at..at + H], x[starts[u] as usize]);
            }
        }
        for (i, &start) in rest.iter().enumerate() {
            let at = (turns.len() * U + i) * H;
            add(&mut sums[0], &values[at..at + H], x[start as usize]);
        }
    } else {
        for (i, &start) in index.iter().enumerate() {
            let block = &values[i * H * cols..][..H * cols];
            let x = &x[start as usize..][..cols];
            let (turns, rest) = x.as_chunks::<U>();
            for (turn, x) in turns.iter().enumerate() {
                for (u, sums) in sums.iter_mut().enumerate() {
                    add(sums, &block[(turn * U + u) * H..][..H], x[u]);
                }
            }
            for (c, &x) in rest.iter().enumerate() {
                add(&mut sums[0], &block[(turns.len() * U + c) * H..][..H], x);
            }
        }
    }
    for (h, y) in y.iter_mut().enumerate() {
        *y += (sums[0][h] + sums[1][h]) + (sums[2][h] + sums[3][h]);
    }
}

/// A few rows of a block row in one block of K.
struct Strip<'a> {
    index: &'a [u16],
    /// Of every block, column-major.
    values: &'a [f32],
    cols: usize,
    x: &'a [f32],
    x_stride: usize,
    /// Whether results of earlier blocks of K are there.
    add: bool,
}

impl Strip<'_> {
    /// All vectors of a strip, as many at a time as the registers hold.
    #[inline(always)]
    unsafe fn run<V: Lanes>(&self, height: usize, vectors: usize, y: &mut [f32], stride: usize) {
        let most = V::TILE[match height {
            8 => 0,
            4 => 1,
            2 => 2,
            _ => 3,
        }];
        let passes = vectors.div_ceil(most);
        let mut first = 0;
        for pass in 0..passes {
            let width = (vectors - first).div_ceil(passes - pass);
            // SAFETY: the caller's.
            unsafe {
                match (height, width) {
                    (8, 1) => self.tile::<V, 8, 1>(y, stride, first),
                    (8, 2) => self.tile::<V, 8, 2>(y, stride, first),
                    (8, _) => self.tile::<V, 8, 3>(y, stride, first),
                    (4, 1) => self.tile::<V, 4, 1>(y, stride, first),
                    (4, 2) => self.tile::<V, 4, 2>(y, stride, first),
                    (4, 3) => self.tile::<V, 4, 3>(y, stride, first),
                    (4, 4) => self.tile::<V, 4, 4>(y, stride, first),
                    (4, 5) => self.tile::<V, 4, 5>(y, stride, first),
                    (4, _) => self.tile::<V, 4, 6>(y, stride, first),
                    (2, 1) => self.tile::<V, 2, 1>(y, stride, first),
                    (2, 2) => self.tile::<V, 2, 2>(y, stride, first),
                    (2, 3) => self.tile::<V, 2, 3>(y, stride, first),
                    (2, 4) => self.tile::<V, 2, 4>(y, stride, first),
                    (2, 5) => self.tile::<V, 2, 5>(y, stride, first),
                    (2, 6) => self.tile::<V, 2, 6>(y, stride, first),
                    (2, 7) => self.tile::<V, 2, 7>(y, stride, first),
                    (2, _) => self.tile::<V, 2, 8>(y, stride, first),
                    (_, 1) => self.row::<V, 1, 8>(y, first),
                    (_, 2) => self.row::<V, 2, 4>(y, first),
                    (_, 3) => self.row::<V, 3, 2>(y, first),
                    (_, 4) => self.row::<V, 4, 2>(y, first),
                    (_, 5) => self.row::<V, 5, 1>(y, first),
                    (_, 6) => self.row::<V, 6, 1>(y, first),
                    (_, 7) => self.row::<V, 7, 1>(y, first),
                    (_, _) => self.row::<V, 8, 1>(y, first),
                }
            }
            first += width;
        }
    }

    /// H rows × W vectors: a vector of activations is loaded once and meets H broadcast values.
    #[inline(always)]
    unsafe fn tile<V: Lanes, const H: usize, const W: usize>(&self, y: &mut [f32], stride: usize, first: usize) {
        debug_assert!(y.len() >= (H - 1) * stride + (first + W) * V::COUNT);
        unsafe {
            let y = y.as_mut_ptr().add(first * V::COUNT);
            let mut sums = [[V::zero(); W]; H];
            if self.add {
                unrolled!(H, h, unrolled!(W, w, sums[h][w] = V::load(y.add(h * stride + w * V::COUNT))));
            }
            let (mut value, x) = (self.values.as_ptr(), self.x.as_ptr().add(first * V::COUNT));
            if self.cols == 1 {
                for &start in self.index {
                    V::add_products(&mut sums, value, x.add(start as usize * self.x_stride));
                    value = value.add(H);
                }
            } else {
                for &start in self.index {
                    let mut x = x.add(start as usize * self.x_stride);
                    for _ in 0..self.cols {
                        V::add_products(&mut sums, value, x);
                        value = value.add(H);
                        x = x.wrapping_add(self.x_stride);
                    }
                }
            }
            unrolled!(H, h, unrolled!(W, w, sums[h][w].store(y.add(h * stride + w * V::COUNT))));
        }
    }

    /// One row × W vectors: activations are memory operands; U values at a time where few vectors would leave the adders
    /// waiting for one another.
    #[inline(always)]
    unsafe fn row<V: Lanes, const W: usize, const U: usize>(&self, y: &mut [f32], first: usize) {
        debug_assert!(y.len() >= (first + W) * V::COUNT);
        unsafe {
            let y = y.as_mut_ptr().add(first * V::COUNT);
            let mut sums = [[V::zero(); W]; U];
            if self.add {
                unrolled!(W, w, sums[0][w] = V::load(y.add(w * V::COUNT)));
            }
            let x = self.x.as_ptr().add(first * V::COUNT);
            if self.cols == 1 {
                let (values, index) = (self.values.as_ptr(), self.index.as_ptr());
                let count = self.index.len();
                let mut i = 0;
                while i + U <= count {
                    unrolled!(U, u, {
                        let value = V::splat(*values.add(i + u));
                        let x = x.add(*index.add(i + u) as usize * self.x_stride);
                        unrolled!(W, w, sums[u][w] = sums[u][w].add_product(value, V::load(x.add(w * V::COUNT))));
                    });
                    i += U;
                }
                while i < count {
                    let value = V::splat(*values.add(i));
                    let x = x.add(*index.add(i) as usize * self.x_stride);
                    unrolled!(W, w, sums[0][w] = sums[0][w].add_product(value, V::load(x.add(w * V::COUNT))));
                    i += 1;
                }
            } else {
                let mut values = self.values.as_ptr();
                for &start in self.index {
                    let x = x.add(start as usize * self.x_stride);
                    let mut c = 0;
                    while c + U <= self.cols {
                        unrolled!(U, u, {
                            let value = V::splat(*values.add(c + u));
                            let x = x.add((c + u) * self.x_stride);
                            unrolled!(W, w, sums[u][w] = sums[u][w].add_product(value, V::load(x.add(w * V::COUNT))));
                        });
                        c += U;
                    }
                    while c < self.cols {
                        let value = V::splat(*values.add(c));
                        let x = x.add(c * self.x_stride);
                        unrolled!(W, w, sums[0][w] = sums[0][w].add_product(value, V::load(x.add(w * V::COUNT))));
                        c += 1;
                    }
                    values = values.add(self.cols);
                }
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
}
