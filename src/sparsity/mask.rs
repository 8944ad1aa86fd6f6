//! A concrete mask of one weight matrix: drawn from a pattern with a seed, or read from real weights.

use crate::pattern::SparsityPattern;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Which weights of an `[rows, cols]` matrix are nonzero, one bit each, rows padded to whole words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    rows: u64,
    cols: u64,
    words: usize,
    bits: Vec<u64>,
}

impl Mask {
    /// All zeros.
    pub fn empty(rows: u64, cols: u64) -> Self {
        let words = cols.div_ceil(64) as usize;
        Self { rows, cols, words, bits: vec![0; words * rows as usize] }
    }

    /// Nonzero wherever `keep(row, col)` says so.
    pub fn from_fn(rows: u64, cols: u64, mut keep: impl FnMut(u64, u64) -> bool) -> Self {
        let mut mask = Self::empty(rows, cols);
        for r in 0..rows {
            for c in 0..cols {
                if keep(r, c) {
                    mask.set(r, c);
                }
            }
        }
        mask
    }

    /// Draws a mask of a pattern, every admissible mask equally likely: exactly `elements − round(s · elements)`
    /// nonzeros for `unstructured@s`, likewise in blocks, rows and columns; exactly N of each whole M for N:M.
    /// [`SparsityPattern::Channel`] and [`SparsityPattern::Head`] act on the graph, so here they keep everything.
    pub fn draw(pattern: SparsityPattern, rows: u64, cols: u64, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut mask = Self::empty(rows, cols);
        match pattern {
            SparsityPattern::Dense | SparsityPattern::Channel(_) | SparsityPattern::Head(_) => {
                return Self::from_fn(rows, cols, |_, _| true);
            }
            SparsityPattern::Unstructured(s) => {
                let total = rows * cols;
                choose(&mut rng, total, kept(total, s), |i| mask.set(i / cols, i % cols));
            }
            SparsityPattern::Row(s) => choose(&mut rng, rows, kept(rows, s), |r| {
                (0..cols).for_each(|c| mask.set(r, c));
            }),
            SparsityPattern::Column(s) => choose(&mut rng, cols, kept(cols, s), |c| {
                (0..rows).for_each(|r| mask.set(r, c));
            }),
            SparsityPattern::Block { rows: br, cols: bc, sparsity } => {
                let across = cols.div_ceil(bc);
                let total = rows.div_ceil(br) * across;
                choose(&mut rng, total, kept(total, sparsity), |b| {
                    let (r0, c0) = (b / across * br, b % across * bc);
                    for r in r0..(r0 + br).min(rows) {
                        (c0..(c0 + bc).min(cols)).for_each(|c| mask.set(r, c));
                    }
                });
            }
            SparsityPattern::Nm { n, m } => {
                for r in 0..rows {
                    for start in (0..cols).step_by(m as usize) {
                        let len = m.min(cols - start);
                        choose(&mut rng, len, n.min(len), |c| mask.set(r, start + c));
                    }
                }
            }
            SparsityPattern::Vnm { v, n, m } => {
                for top in (0..rows).step_by(v as usize) {
                    for start in (0..cols).step_by(m as usize) {
                        let len = m.min(cols - start);
                        let mut columns = Vec::new();
                        choose(&mut rng, len, vnm_columns(n, m).min(len), |c| columns.push(start + c));
                        for r in top..(top + v).min(rows) {
                            choose(&mut rng, columns.len() as u64, n.min(len), |c| mask.set(r, columns[c as usize]));
                        }
                    }
                }
            }
        }
        mask
    }

    /// Rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Columns.
    pub fn cols(&self) -> u64 {
        self.cols
    }

    /// Marks a weight as nonzero.
    pub fn set(&mut self, row: u64, col: u64) {
        self.bits[row as usize * self.words + (col / 64) as usize] |= 1 << (col % 64);
    }

    /// Whether a weight is nonzero.
    pub fn get(&self, row: u64, col: u64) -> bool {
        self.bits[row as usize * self.words + (col / 64) as usize] >> (col % 64) & 1 == 1
    }

    /// Nonzeros of one row.
    pub fn row_count(&self, row: u64) -> u64 {
        self.row(row).iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// All nonzeros.
    pub fn count(&self) -> u64 {
        self.bits.iter().map(|w| u64::from(w.count_ones())).sum()
    }

    /// Columns of the nonzeros of one row, ascending.
    pub fn columns(&self, row: u64) -> impl Iterator<Item = u64> + '_ {
        self.row(row).iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    i as u64 * 64 + u64::from(bit)
                })
            })
        })
    }

    /// Aligned tiles of `tile_rows × tile_cols` with at least one nonzero.
    pub fn occupied_tiles(&self, tile_rows: u64, tile_cols: u64) -> u64 {
        self.occupied_by_row(tile_rows, tile_cols).sum()
    }

    /// The same for each row of tiles.
    pub fn occupied_by_row(&self, tile_rows: u64, tile_cols: u64) -> impl Iterator<Item = u64> + '_ {
        let mut hit = vec![false; self.cols.div_ceil(tile_cols) as usize];
        (0..self.rows).step_by(tile_rows as usize).map(move |top| {
            hit.fill(false);
            for r in top..(top + tile_rows).min(self.rows) {
                self.columns(r).for_each(|c| hit[(c / tile_cols) as usize] = true);
            }
            hit.iter().filter(|&&h| h).count() as u64
        })
    }

    fn row(&self, row: u64) -> &[u64] {
        &self.bits[row as usize * self.words..][..self.words]
    }
}

/// Of `total` units, those that sparsity `s` keeps: `total − round(s · total)`.
pub fn kept(total: u64, s: f64) -> u64 {
    total - ((total as f64 * s).round() as u64).min(total)
}

/// Columns that VENOM keeps in a block of `m`: four, so that 2:4 tensor cores apply, or `n` where that is more.
pub fn vnm_columns(n: u64, m: u64) -> u64 {
    n.max(4).min(m)
}

/// Visits `amount` of `0..total`, every subset equally likely, ascending (selection sampling, Knuth 3.4.2 S).
fn choose(rng: &mut impl Rng, total: u64, amount: u64, mut visit: impl FnMut(u64)) {
    let mut needed = amount;
    for i in 0..total {
        if needed == 0 {
            break;
        }
        if rng.random_range(0..total - i) < needed {
            visit(i);
            needed -= 1;
        }
    }
}
