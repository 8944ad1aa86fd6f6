//! What the packed dense product of the crate `gemm` does to memory, loop by loop.

use super::cache::Operand;
use super::memory::{Array, Core};
use crate::lower::blocking::{COLUMN_ROWS, Goto, Vectors};

const WORD: u64 = 4;

/// `y[n, m] = W[n, k] · x[k, m]`, all row-major.
pub struct Dense {
    pub m: u64,
    pub n: u64,
    pub k: u64,
}

struct Arrays {
    w: Array,
    x: Array,
    y: Array,
    /// Packed weights: slivers of `nr` outputs.
    slivers: Array,
    /// Packed activations: panels of `mr` columns.
    panels: Array,
}

impl Dense {
    /// Replays it.
    pub fn run(&self, core: &mut Core, vectors: Vectors, g: &Goto) {
        let Self { m, n, k } = *self;
        let packed = if g.packs_all_inputs { m.next_multiple_of(g.mr) } else { g.mc };
        let arrays = Arrays {
            w: core.array(Operand::Weights, n * k * WORD),
            x: core.array(Operand::Inputs, k * m * WORD),
            y: core.array(Operand::Outputs, n * m * WORD),
            slivers: core.array(Operand::Scratch, if g.packs_weights { g.nc * g.kc * WORD } else { 0 }),
            panels: core.array(Operand::Scratch, packed * g.kc * WORD),
        };
        if m == 1 {
            return self.one_column(core, &arrays, vectors);
        }
        for col in (0..n).step_by(g.nc as usize) {
            let cols = g.nc.min(n - col);
            for depth in (0..k).step_by(g.kc as usize) {
                let deep = g.kc.min(k - depth);
                if g.packs_weights {
                    self.pack_weights(core, &arrays, g, (col, cols), (depth, deep));
                }
                if g.packs_all_inputs {
                    (0..m).step_by(g.mr as usize).for_each(|row| {
                        self.pack(core, &arrays, g, row, g.mr.min(m - row), row, (depth, deep));
                    });
                }
                self.block(core, &arrays, g, (col, cols), (depth, deep));
            }
        }
    }

    /// Packs `rows` columns of activations from `row` on as the panel at `at`.
    #[allow(clippy::too_many_arguments)]
    fn pack(&self, core: &mut Core, a: &Arrays, g: &Goto, row: u64, rows: u64, at: u64, (depth, deep): (u64, u64)) {
        for kk in 0..deep {
            core.read(a.x, ((depth + kk) * self.m + row) * WORD, rows * WORD);
            core.write(a.panels, (at * g.kc + kk * g.mr) * WORD, g.packed_width(rows) * WORD);
        }
    }

    fn pack_weights(&self, core: &mut Core, a: &Arrays, g: &Goto, (col, cols): (u64, u64), (depth, deep): (u64, u64)) {
        for j in (0..cols).step_by(g.nr as usize) {
            for kk in 0..deep {
                for jj in j..(j + g.nr).min(cols) {
                    core.read(a.w, ((col + jj) * self.k + depth + kk) * WORD, WORD);
                }
                core.write(a.slivers, (j * g.kc + kk * g.nr) * WORD, g.nr * WORD);
            }
        }
    }

    fn block(&self, core: &mut Core, a: &Arrays, g: &Goto, (col, cols): (u64, u64), (depth, deep): (u64, u64)) {
        let Self { m, k, .. } = *self;
        let mut outer = 0;
        while outer < m {
            let chunk = g.columns(m - outer);
            let packs = g.packs_inputs(chunk, cols);
            for j in (0..cols).step_by(g.nr as usize) {
                let outputs = g.nr.min(cols - j);
                for i in (0..chunk).step_by(g.mr as usize) {
                    let (row, rows) = (outer + i, g.mr.min(chunk - i));
                    if packs && j == 0 {
                        self.pack(core, a, g, row, rows, i, (depth, deep));
                    }
                    let panel = if g.packs_all_inputs { row } else { i };
                    for kk in 0..deep {
                        if packs || g.packs_all_inputs {
                            core.read(a.panels, (panel * g.kc + kk * g.mr) * WORD, rows * WORD);
                        } else {
                            core.read(a.x, ((depth + kk) * m + row) * WORD, rows * WORD);
                        }
                        if g.packs_weights {
                            core.read(a.slivers, (j * g.kc + kk * g.nr) * WORD, outputs * WORD);
                        } else {
                            for jj in 0..outputs {
                                core.read(a.w, ((col + j + jj) * k + depth + kk) * WORD, WORD);
                            }
                        }
                    }
                    for jj in 0..outputs {
                        let at = ((col + j + jj) * m + row) * WORD;
                        if depth > 0 {
                            core.read(a.y, at, rows * WORD);
                        }
                        core.write(a.y, at, rows * WORD);
                    }
                }
            }
            outer += chunk;
        }
    }

    /// Dot products of four rows at a time.
    fn one_column(&self, core: &mut Core, a: &Arrays, vectors: Vectors) {
        let step = vectors.lanes * WORD;
        for row in (0..self.n).step_by(COLUMN_ROWS as usize) {
            let rows = row..(row + COLUMN_ROWS).min(self.n);
            for at in (0..self.k * WORD).step_by(step as usize) {
                let bytes = step.min(self.k * WORD - at);
                core.read(a.x, at, bytes);
                rows.clone().for_each(|row| core.read(a.w, row * self.k * WORD + at, bytes));
            }
            core.write(a.y, row * WORD, (rows.end - row) * WORD);
        }
    }
}
