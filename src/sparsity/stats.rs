//! Statistics of a weight matrix under a pattern: closed-form expectations, or counts of a real mask.
//!
//! Without weights, positions are uniformly random within what the pattern admits. A tile of t elements out of N with
//! r nonzeros then holds a hypergeometric number of them (Sparseloop, Wu et al., MICRO'22, §5.3.2).

use super::mask::{Mask, kept, vnm_columns};
use crate::pattern::SparsityPattern;
use statrs::distribution::{ContinuousCDF, Normal};
use statrs::function::factorial::ln_binomial;
use std::ops::Range;
use std::sync::Arc;

/// Extents of a tile of the weight matrix: outputs by inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Outputs (rows, n).
    pub rows: u64,
    /// Inputs (columns, k).
    pub cols: u64,
}

impl Tile {
    /// A tile of `rows` outputs by `cols` inputs.
    pub const fn new(rows: u64, cols: u64) -> Self {
        Self { rows, cols }
    }
}

/// Tiles of one size that are equally likely to hold a nonzero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TileClass {
    /// Their extents; those at the edge are smaller.
    pub tile: Tile,
    /// How many.
    pub count: f64,
    /// Chance that one holds a nonzero.
    pub occupied: f64,
}

/// What is known about one `[rows, cols]` weight matrix: its pattern, and its mask where real weights were read.
/// Rows are outputs (n), columns the reduction (k). Answers are queries, because each device asks with its own tile.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightStats {
    rows: u64,
    cols: u64,
    pattern: SparsityPattern,
    mask: Option<Arc<Mask>>,
}

impl WeightStats {
    /// Expectations for a pattern on an `[rows, cols]` matrix.
    pub fn expected(pattern: SparsityPattern, rows: u64, cols: u64) -> Self {
        Self { rows, cols, pattern, mask: None }
    }

    /// Exact counts of a mask that was made to a pattern.
    pub fn counted(pattern: SparsityPattern, mask: Arc<Mask>) -> Self {
        Self { rows: mask.rows(), cols: mask.cols(), pattern, mask: Some(mask) }
    }

    /// The same, as dense where the pattern removes nothing from this matrix (`row@0.01` of three rows).
    #[must_use]
    pub fn settled(self) -> Self {
        if self.mask.is_none() && self.nonzeros() >= self.elements() {
            return Self { pattern: SparsityPattern::Dense, ..self };
        }
        self
    }

    /// Outputs.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> u64 {
        self.cols
    }

    /// The pattern.
    pub fn pattern(&self) -> SparsityPattern {
        self.pattern
    }

    /// The mask, where there is one.
    pub fn mask(&self) -> Option<&Mask> {
        self.mask.as_deref()
    }

    /// Elements of the dense matrix.
    pub fn elements(&self) -> f64 {
        self.rows as f64 * self.cols as f64
    }

    /// Nonzeros: counted, or expected.
    pub fn nonzeros(&self) -> f64 {
        if let Some(mask) = &self.mask {
            return mask.count() as f64;
        }
        let (n, k) = (self.rows as f64, self.cols as f64);
        match self.pattern {
            SparsityPattern::Dense | SparsityPattern::Channel(_) | SparsityPattern::Head(_) => n * k,
            SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. } => n * self.kept_per_row() as f64,
            SparsityPattern::Unstructured(s) => kept_f64(n * k, s),
            SparsityPattern::Row(s) => kept_f64(n, s) * k,
            SparsityPattern::Column(s) => n * kept_f64(k, s),
            SparsityPattern::Block { rows, cols, sparsity } => {
                let blocks = self.rows.div_ceil(rows) as f64 * self.cols.div_ceil(cols) as f64;
                n * k * kept_f64(blocks, sparsity) / blocks
            }
        }
    }

    /// Nonzeros over elements.
    pub fn density(&self) -> f64 {
        self.nonzeros() / self.elements()
    }

    /// For N:M and V:N:M, values stored per row: `⌊k/m⌋·n + min(n, k mod m)`; otherwise k.
    pub fn kept_per_row(&self) -> u64 {
        match self.pattern {
            SparsityPattern::Nm { n, m } | SparsityPattern::Vnm { n, m, .. } => {
                self.cols / m * n + n.min(self.cols % m)
            }
            _ => self.cols,
        }
    }

    /// Expected number of aligned tiles with at least one nonzero.
    pub fn occupied_tiles(&self, tile: Tile) -> f64 {
        if let Some(mask) = &self.mask {
            return mask.occupied_tiles(tile.rows, tile.cols) as f64;
        }
        self.tile_classes(tile).iter().map(|class| class.count * class.occupied).sum()
    }

    /// Aligned tiles by size and position within the pattern's units, each with the chance that it holds a nonzero. Of
    /// the pattern alone, whatever mask is known.
    pub fn tile_classes(&self, tile: Tile) -> Vec<TileClass> {
        let (unit_rows, unit_cols) = match self.pattern {
            SparsityPattern::Block { rows, cols, .. } => (rows, cols),
            SparsityPattern::Nm { m, .. } => (1, m),
            SparsityPattern::Vnm { v, m, .. } => (v, m),
            _ => (1, 1),
        };
        let mut classes = Vec::new();
        for (rows, count_r) in spans(self.rows, tile.rows, unit_rows) {
            for (cols, count_c) in spans(self.cols, tile.cols, unit_cols) {
                classes.push(TileClass {
                    tile: Tile::new(rows.end - rows.start, cols.end - cols.start),
                    count: count_r as f64 * count_c as f64,
                    occupied: 1.0 - self.empty_probability(&rows, &cols),
                });
            }
        }
        classes
    }

    /// Expected fraction of aligned tiles with at least one nonzero.
    pub fn occupied(&self, tile: Tile) -> f64 {
        let tiles = self.rows.div_ceil(tile.rows) as f64 * self.cols.div_ceil(tile.cols) as f64;
        self.occupied_tiles(tile) / tiles
    }

    /// Probability that a tile holds no nonzero at all.
    fn empty_probability(&self, rows: &Range<u64>, cols: &Range<u64>) -> f64 {
        let (tr, tc) = (rows.end - rows.start, cols.end - cols.start);
        match self.pattern {
            SparsityPattern::Dense | SparsityPattern::Channel(_) | SparsityPattern::Head(_) => 0.0,
            SparsityPattern::Unstructured(s) => {
                let total = self.elements();
                none_of(total, kept_f64(total, s), tr as f64 * tc as f64)
            }
            SparsityPattern::Row(s) => none_of(self.rows as f64, kept_f64(self.rows as f64, s), tr as f64),
            SparsityPattern::Column(s) => none_of(self.cols as f64, kept_f64(self.cols as f64, s), tc as f64),
            SparsityPattern::Block { rows: br, cols: bc, sparsity } => {
                let blocks = self.rows.div_ceil(br) as f64 * self.cols.div_ceil(bc) as f64;
                let touched = touched(rows, br) as f64 * touched(cols, bc) as f64;
                none_of(blocks, kept_f64(blocks, sparsity), touched)
            }
            // A span of 2m − 1 holds a whole group, and a whole group is never empty.
            SparsityPattern::Nm { m, .. } | SparsityPattern::Vnm { m, .. } if tc + 1 >= 2 * m => 0.0,
            SparsityPattern::Nm { n, m } => {
                let row: f64 =
                    pieces(cols, m, self.cols).map(|(inside, group)| empty_piece(inside, group, n)).product();
                row.powf(tr as f64)
            }
            // Rows of one strip share their columns: condition on how many of them fall into the tile.
            SparsityPattern::Vnm { v, n, m } => pieces(rows, v, self.rows)
                .map(|(strip_rows, _)| {
                    pieces(cols, m, self.cols)
                        .map(|(inside, group)| empty_strip(strip_rows, inside, group, n, m))
                        .product::<f64>()
                })
                .product(),
        }
    }

    /// Mean and variance of the nonzeros in one row.
    fn row_moments(&self) -> (f64, f64) {
        let (n, k) = (self.rows as f64, self.cols as f64);
        match self.pattern {
            SparsityPattern::Dense
            | SparsityPattern::Channel(_)
            | SparsityPattern::Head(_)
            | SparsityPattern::Nm { .. }
            | SparsityPattern::Vnm { .. }
            | SparsityPattern::Column(_) => (self.nonzeros() / n, 0.0),
            SparsityPattern::Unstructured(s) => {
                let total = n * k;
                hypergeometric_moments(total, kept_f64(total, s), k)
            }
            SparsityPattern::Row(s) => {
                let p = kept_f64(n, s) / n;
                (p * k, p * (1.0 - p) * k * k)
            }
            SparsityPattern::Block { rows, cols, sparsity } => {
                let across = self.cols.div_ceil(cols) as f64;
                let blocks = self.rows.div_ceil(rows) as f64 * across;
                let (mean, variance) = hypergeometric_moments(blocks, kept_f64(blocks, sparsity), across);
                let width = k / across;
                (mean * width, variance * width * width)
            }
        }
    }

    /// What `units` that wait for each other pay when each takes an equal share of the **rows**: expected largest share
    /// of nonzeros over the mean share, at least 1.
    ///
    /// `E[max]` of P shares by the normal order statistic (Blom 1958) with the Cornish–Fisher correction for skewness; a
    /// real mask is counted with contiguous shares.
    pub fn imbalance(&self, units: u64) -> f64 {
        let units = units.min(self.rows).max(1);
        if units == 1 {
            return 1.0;
        }
        if let Some(mask) = &self.mask {
            let mean = mask.count() as f64 / units as f64;
            let share = |u: u64| u * self.rows / units..(u + 1) * self.rows / units;
            let most = (0..units).map(|u| share(u).map(|r| mask.row_count(r)).sum::<u64>()).max().unwrap_or(0);
            return if mean > 0.0 { most as f64 / mean } else { 1.0 };
        }
        let (row_mean, row_variance) = self.row_moments();
        let rows_each = self.rows as f64 / units as f64;
        // Rows of one block stand and fall together, and so do units whose rows lie in one.
        let (together, independent) = match self.pattern {
            SparsityPattern::Block { rows, .. } => {
                ((rows as f64).min(rows_each), (units as f64).min(self.rows.div_ceil(rows) as f64))
            }
            _ => (1.0, units as f64),
        };
        expected_max_over_mean(
            row_mean * rows_each,
            (row_variance * rows_each * together).sqrt(),
            independent,
            self.density(),
        )
    }

    /// Imbalance of `units` whose shares are `elements` weights each, drawn from the whole matrix: what lanes or tiles
    /// of an unstructured-sparse array pay that wait for each other.
    pub fn tile_imbalance(&self, elements: f64, units: f64) -> f64 {
        let variance = match self.pattern {
            SparsityPattern::Unstructured(s) => {
                let total = self.elements();
                hypergeometric_moments(total, kept_f64(total, s), elements.min(total)).1
            }
            SparsityPattern::Block { rows, cols, sparsity } => {
                let size = (rows * cols) as f64;
                let blocks = (self.elements() / size).max(1.0);
                hypergeometric_moments(blocks, kept_f64(blocks, sparsity), (elements / size).min(blocks)).1
                    * size
                    * size
            }
            _ => return 1.0,
        };
        expected_max_over_mean(self.density() * elements, variance.sqrt(), units, self.density())
    }
}

/// `(μ + σ·z)/μ` with z the expected largest of `units` standardised binomial-like draws.
fn expected_max_over_mean(mean: f64, deviation: f64, units: f64, density: f64) -> f64 {
    if deviation <= 0.0 || mean <= 0.0 || units <= 1.0 {
        return 1.0;
    }
    let z = Normal::standard().inverse_cdf((units - 0.375) / (units + 0.25));
    let skewness = (1.0 - 2.0 * density) / deviation;
    let z = z + skewness.clamp(-1.0, 1.0) * (z * z - 1.0) / 6.0;
    (1.0 + deviation * z.max(0.0) / mean).min(1.0 / density.max(f64::MIN_POSITIVE)).max(1.0)
}

fn kept_f64(total: f64, s: f64) -> f64 {
    if total < 9e15 { kept(total as u64, s) as f64 } else { total * (1.0 - s) }
}

/// Probability that `drawn` of `total` units meet none of the `marked` ones: C(total − marked, drawn)/C(total, drawn).
fn none_of(total: f64, marked: f64, drawn: f64) -> f64 {
    if drawn + marked > total {
        return 0.0;
    }
    // C(T−m, d)/C(T, d) is symmetric in m and d: a short product is exact, the logarithms serve long ones.
    let short = marked.min(drawn);
    if short <= 64.0 {
        let long = marked.max(drawn);
        return (0..short as u64).map(|i| (total - long - i as f64) / (total - i as f64)).product();
    }
    if total < 1e12 {
        let (total, marked, drawn) = (total as u64, marked as u64, drawn as u64);
        return (ln_binomial(total - marked, drawn) - ln_binomial(total, drawn)).exp().min(1.0);
    }
    (1.0 - marked / total).powf(drawn)
}

/// Aligned tiles along an axis as (one representative, how many are like it): tiles that meet a pattern's units of
/// `unit` at the same offset are alike, but the last whole one and the remainder stand for themselves.
fn spans(extent: u64, tile: u64, unit: u64) -> impl Iterator<Item = (Range<u64>, u64)> {
    let (full, rest) = (extent / tile, extent % tile);
    let own = u64::from(unit > 1 && full > 0);
    let alike = full - own;
    let period = (unit / gcd(tile, unit)).min(alike.max(1));
    let classes = (0..period).map(move |p| (p * tile..(p + 1) * tile, alike / period + u64::from(p < alike % period)));
    let last = std::iter::once(((full.max(1) - 1) * tile..full * tile, own));
    let tail = std::iter::once((full * tile..extent, u64::from(rest > 0)));
    classes.chain(last).chain(tail).filter(|(_, count)| *count > 0)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Units of `unit` entries that a range meets.
fn touched(range: &Range<u64>, unit: u64) -> u64 {
    (range.end - 1) / unit - range.start / unit + 1
}

/// How a range falls on groups of `m` along an axis: (entries inside, entries of that group).
fn pieces(range: &Range<u64>, m: u64, extent: u64) -> impl Iterator<Item = (u64, u64)> {
    let (start, end) = (range.start, range.end);
    (start / m..end.div_ceil(m)).map(move |g| {
        let (from, to) = (g * m, ((g + 1) * m).min(extent));
        (to.min(end) - from.max(start), to - from)
    })
}

/// Probability that `inside` entries of a group with min(n, group) nonzeros are all zero.
fn empty_piece(inside: u64, group: u64, n: u64) -> f64 {
    let n = n.min(group);
    if n == 0 {
        1.0
    } else if inside + n > group {
        0.0
    } else {
        (ln_binomial(group - inside, n) - ln_binomial(group, n)).exp()
    }
}

/// The same for `rows` rows of a V:N:M strip, which share their kept columns.
fn empty_strip(rows: u64, inside: u64, group: u64, n: u64, m: u64) -> f64 {
    let columns = vnm_columns(n, m).min(group);
    (0..=columns.min(inside))
        .map(|hits| hypergeometric(group, columns, inside, hits) * empty_piece(hits, columns, n).powf(rows as f64))
        .sum()
}

/// Probability of `hits` marked ones among `drawn` out of `total` with `marked` marked.
fn hypergeometric(total: u64, marked: u64, drawn: u64, hits: u64) -> f64 {
    if hits > marked || hits > drawn || drawn - hits > total - marked {
        return 0.0;
    }
    (ln_binomial(marked, hits) + ln_binomial(total - marked, drawn - hits) - ln_binomial(total, drawn)).exp()
}

fn hypergeometric_moments(total: f64, marked: f64, drawn: f64) -> (f64, f64) {
    let p = marked / total;
    let finite = if total > 1.0 { ((total - drawn) / (total - 1.0)).max(0.0) } else { 0.0 };
    (drawn * p, drawn * p * (1.0 - p) * finite)
}
