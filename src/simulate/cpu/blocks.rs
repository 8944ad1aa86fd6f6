//! What the engine of CSR and block-sparse kernels (`crate::kernels::blocks`) does to memory, loop by loop.

use super::cache::Operand;
use super::memory::{Array, Core};
use crate::lower::blocking::{PANEL_VECTORS, TILE_ROWS, Vectors, block_k, strips, window};
use crate::sparsity::Mask;

const WORD: u64 = 4;

/// Weights in the engine's order: R×C blocks, stored only where one is not all zero.
pub struct Blocks {
    n: u64,
    k: u64,
    rows: u64,
    cols: u64,
    block_k: u64,
    /// The block row at each place of a block of K, then of the next one.
    order: Vec<u64>,
    /// Into `index`, `[blocks of K, places]` and one more.
    starts: Vec<u64>,
    /// First column of each stored block, within its block of K.
    index: Vec<u32>,
}

impl Blocks {
    /// Stores a mask for a product with `m` columns.
    pub fn store(mask: &Mask, (rows, cols): (u64, u64), m: u64, vectors: Vectors) -> Self {
        let (n, k) = (mask.rows(), mask.cols());
        let (rows, cols) = (rows.clamp(1, n.max(1)), cols.clamp(1, k.max(1)));
        let (across, down) = (k.div_ceil(cols), n.div_ceil(rows));
        let mut stored: Vec<Vec<u64>> = Vec::with_capacity(down as usize);
        let mut hit = vec![false; across as usize];
        for top in (0..n).step_by(rows as usize) {
            for row in top..(top + rows).min(n) {
                mask.columns(row).for_each(|c| hit[(c / cols) as usize] = true);
            }
            stored.push((0..across).filter(|&c| hit[c as usize]).collect());
            hit.fill(false);
        }
        let total: u64 = stored.iter().map(|s| s.len() as u64).sum();
        let density = total as f64 / (across * down).max(1) as f64;
        let block_k = block_k(k, rows, cols, density, m, vectors);
        let mut packed = Self { n, k, rows, cols, block_k, order: Vec::new(), starts: vec![0], index: Vec::new() };
        let mut cursors = vec![0usize; stored.len()];
        for first in (0..k).step_by(block_k as usize) {
            let end = (first + block_k).min(k).div_ceil(cols);
            let base = packed.base(first);
            let due = |row: u64| {
                let (blocks, cursor) = (&stored[row as usize], cursors[row as usize]);
                blocks[cursor..].partition_point(|&at| at < end)
            };
            let mut places: Vec<u64> = (0..down).collect();
            places.chunks_mut(window(down, rows, 1) as usize).for_each(|w| w.sort_by_cached_key(|&row| due(row)));
            for &row in &places {
                let (blocks, cursor) = (&stored[row as usize], &mut cursors[row as usize]);
                while let Some(&at) = blocks.get(*cursor).filter(|&&at| at < end) {
                    packed.index.push(((at * cols).min(k - cols) - base) as u32);
                    *cursor += 1;
                }
                packed.starts.push(packed.index.len() as u64);
            }
            packed.order.extend(places);
        }
        packed
    }

    fn base(&self, first: u64) -> u64 {
        first.min(self.k - self.cols)
    }

    fn down(&self) -> u64 {
        self.n.div_ceil(self.rows)
    }

    /// Real rows of a block row.
    fn height(&self, block_row: u64) -> u64 {
        self.rows.min(self.n - block_row * self.rows)
    }

    /// `y = W · x` with `m` columns.
    pub fn run(&self, core: &mut Core, m: u64, vectors: Vectors) {
        let mut offsets = Vec::with_capacity(self.starts.len());
        let mut offset = 0;
        for at in 0..self.starts.len() - 1 {
            offsets.push(offset);
            offset += (self.starts[at + 1] - self.starts[at]) * self.height(self.order[at]) * self.cols;
        }
        offsets.push(offset);
        let x = core.array(Operand::Inputs, self.k * m * WORD);
        let y = core.array(Operand::Outputs, self.n * m * WORD);
        let mut weights = Weights {
            blocks: self,
            vectors,
            values: core.array(Operand::Weights, offset * WORD),
            index: core.array(Operand::Metadata, self.index.len() as u64 * 2),
            starts: core.array(Operand::Metadata, self.starts.len() as u64 * 4),
            offsets: core.array(Operand::Metadata, offsets.len() as u64 * 8),
            order: core.array(Operand::Metadata, self.order.len() as u64 * 4),
            frame: core.array(Operand::Scratch, vectors.frame(self.rows, m)),
            stack: vectors.frame(self.rows, m),
            begins: offsets,
        };
        // Windows of rows are divided among threads by their blocks, however few threads there are.
        let window = window(self.down(), self.rows, 1);
        let windows = self.down().div_ceil(window) * 8;
        let work = core.array(Operand::Scratch, windows);
        core.write(work, 0, windows);
        core.read(work, 0, windows);
        if m == 1 {
            return weights.column(core, x, y);
        }
        let lanes = vectors.lanes;
        if m <= PANEL_VECTORS * lanes && m % lanes == 0 {
            let panel = Panel { array: x, stride: m, vectors: m / lanes };
            return weights.rows(core, panel, 0..self.down(), y, m);
        }
        let width = PANEL_VECTORS * lanes;
        let packed = core.array(Operand::Scratch, self.k * width * WORD);
        let step = (TILE_ROWS / self.rows / window).max(1) * window;
        let tile = core.array(Operand::Scratch, step * self.rows * width * WORD);
        for first in (0..m).step_by(width as usize) {
            let columns = width.min(m - first);
            let panel =
                Panel { array: packed, stride: columns.div_ceil(lanes) * lanes, vectors: columns.div_ceil(lanes) };
            for row in 0..self.k {
                core.read(x, (row * m + first) * WORD, columns * WORD);
                core.write(packed, row * panel.stride * WORD, panel.stride * WORD);
            }
            for top in (0..self.down()).step_by(step as usize) {
                let part = top..(top + step).min(self.down());
                let rows = (part.end * self.rows).min(self.n) - top * self.rows;
                weights.rows(core, panel, part, tile, panel.stride);
                for row in 0..rows {
                    core.read(tile, row * panel.stride * WORD, columns * WORD);
                    core.write(y, ((top * self.rows + row) * m + first) * WORD, columns * WORD);
                }
            }
        }
    }
}

/// A panel of activations `[k, stride]`.
#[derive(Clone, Copy)]
struct Panel {
    array: Array,
    stride: u64,
    vectors: u64,
}

/// The weights where they lie.
struct Weights<'a> {
    blocks: &'a Blocks,
    vectors: Vectors,
    values: Array,
    index: Array,
    starts: Array,
    offsets: Array,
    order: Array,
    frame: Array,
    /// Bytes of the frame that a pass touches.
    stack: u64,
    /// Where the values of a block row in a block of K begin.
    begins: Vec<u64>,
}

impl Weights<'_> {
    /// Reads which block row is at a place of a block of K, and where it begins and ends.
    fn range(&self, core: &mut Core, at: u64) -> std::ops::Range<u64> {
        core.read(self.order, at * 4, 4);
        core.read(self.starts, at * 4, 8);
        core.read(self.offsets, at * 8, 16);
        self.blocks.starts[at as usize]..self.blocks.starts[at as usize + 1]
    }

    /// Block rows `part` against a panel; `y` holds their rows alone, `stride` apart.
    fn rows(&mut self, core: &mut Core, panel: Panel, part: std::ops::Range<u64>, y: Array, stride: u64) {
        let b = self.blocks;
        let lane = self.vectors.lanes * WORD;
        for (block, first) in (0..b.k).step_by(b.block_k as usize).enumerate() {
            let base = b.base(first);
            for place in part.clone() {
                let at = block as u64 * b.down() + place;
                let block_row = b.order[at as usize];
                let row = (block_row - part.start) * b.rows;
                let stored = self.range(core, at);
                let count = stored.end - stored.start;
                let rows = b.height(block_row);
                let mut inside = 0;
                for height in strips(rows, self.vectors.rows) {
                    let passes = panel.vectors.div_ceil(self.vectors.tile(height));
                    let mut vector = 0;
                    for pass in 0..passes {
                        let width = (panel.vectors - vector).div_ceil(passes - pass);
                        core.read(self.frame, 0, self.stack);
                        let results = (0..height).map(|h| ((row + inside + h) * stride) * WORD + vector * lane);
                        if block > 0 {
                            results.clone().for_each(|at| core.read(y, at, width * lane));
                        }
                        let mut value = (self.begins[at as usize] + inside * b.cols * count) * WORD;
                        for i in stored.clone() {
                            core.read(self.index, i * 2, 2);
                            let start = base + u64::from(b.index[i as usize]);
                            for c in 0..b.cols {
                                core.read(panel.array, (start + c) * panel.stride * WORD + vector * lane, width * lane);
                                core.read(self.values, value + c * height * WORD, height * WORD);
                            }
                            value += height * b.cols * WORD;
                        }
                        results.for_each(|at| core.write(y, at, width * lane));
                        vector += width;
                    }
                    inside += height;
                }
            }
        }
    }

    /// One column of activations: each strip is a vector of rows.
    fn column(&mut self, core: &mut Core, x: Array, y: Array) {
        let b = self.blocks;
        core.write(y, 0, b.n * WORD);
        for (block, first) in (0..b.k).step_by(b.block_k as usize).enumerate() {
            let base = b.base(first);
            for place in 0..b.down() {
                let at = block as u64 * b.down() + place;
                let block_row = b.order[at as usize];
                let stored = self.range(core, at);
                let count = stored.end - stored.start;
                let rows = b.height(block_row);
                let mut inside = 0;
                for height in strips(rows, self.vectors.strip(1)) {
                    core.read(self.frame, 0, self.stack);
                    let mut value = (self.begins[at as usize] + inside * b.cols * count) * WORD;
                    for i in stored.clone() {
                        core.read(self.index, i * 2, 2);
                        core.read(self.values, value, height * b.cols * WORD);
                        core.read(x, (base + u64::from(b.index[i as usize])) * WORD, b.cols * WORD);
                        value += height * b.cols * WORD;
                    }
                    let results = (block_row * b.rows + inside) * WORD;
                    core.read(y, results, height * WORD);
                    core.write(y, results, height * WORD);
                    inside += height;
                }
            }
        }
    }
}
