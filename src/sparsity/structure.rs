//! What zeros a real weight matrix has, and the structure that they form.

use super::mask::Mask;
use crate::pattern::SparsityPattern;
use std::collections::HashMap;

/// What was found in one matrix of outputs by inputs, or in several of one layer together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Structure {
    /// Elements.
    pub elements: u64,
    /// Of them zero, negative zeros included.
    pub zeros: u64,
    /// Too small for a normal number: arithmetic on them is slow, and they never become zero by themselves.
    pub subnormals: u64,
    /// Infinities and NaNs.
    pub non_finite: u64,
    /// Outputs whose weights are all zero.
    pub zero_rows: u64,
    /// Inputs whose weights are all zero.
    pub zero_columns: u64,
    /// Outputs that repeat an earlier one exactly and are not zero.
    pub duplicate_rows: u64,
    /// The strictest pattern that describes the zeros; dense where there are none to speak of.
    pub pattern: Option<SparsityPattern>,
}

/// The share of all zeros that must lie in whole blocks, rows or columns before these describe them.
const EXPLAINED: f64 = 0.999;

/// Fewer zeros than this are accidents of training.
const WORTH_NAMING: f64 = 0.05;

/// Block shapes that kernels have, largest first.
const BLOCKS: [(u64, u64); 14] = [
    (64, 64),
    (32, 32),
    (16, 16),
    (64, 1),
    (8, 8),
    (32, 1),
    (1, 32),
    (16, 1),
    (1, 16),
    (4, 4),
    (8, 1),
    (1, 8),
    (4, 1),
    (1, 4),
];

impl Structure {
    /// Looks at a matrix, row-major `[n, k]`.
    pub fn of(weights: &[f32], n: usize, k: usize) -> Self {
        let mask = Mask::from_fn(n as u64, k as u64, |r, c| weights[r as usize * k + c as usize] != 0.0);
        let count = |f: fn(&f32) -> bool| weights.iter().filter(|w| f(w)).count() as u64;
        let mut first: HashMap<Vec<u32>, ()> = HashMap::new();
        let mut duplicate_rows = 0;
        let rows = weights.chunks_exact(k.max(1)).filter(|r| r.iter().any(|&w| w != 0.0));
        // Hashes first, so that only rows that may be equal are held.
        let mut hashes: HashMap<u64, u64> = HashMap::new();
        for row in rows.clone() {
            *hashes.entry(hash(row)).or_default() += 1;
        }
        for row in rows.filter(|r| hashes[&hash(r)] > 1) {
            let bits = row.iter().map(|w| w.to_bits()).collect();
            duplicate_rows += u64::from(first.insert(bits, ()).is_some());
        }
        let mut column = vec![false; k];
        (0..n as u64).for_each(|r| mask.columns(r).for_each(|c| column[c as usize] = true));
        let elements = (n * k) as u64;
        let mut found = Self {
            elements,
            zeros: elements - mask.count(),
            subnormals: count(|w| w.is_subnormal()),
            non_finite: count(|w| !w.is_finite()),
            zero_rows: (0..n as u64).filter(|&r| mask.row_count(r) == 0).count() as u64,
            zero_columns: column.iter().filter(|&&hit| !hit).count() as u64,
            duplicate_rows,
            pattern: None,
        };
        found.pattern = found.describe(&mask);
        found
    }

    /// Zeros as a fraction of the elements.
    pub fn sparsity(&self) -> f64 {
        self.zeros as f64 / self.elements.max(1) as f64
    }

    fn describe(&self, mask: &Mask) -> Option<SparsityPattern> {
        if self.sparsity() < WORTH_NAMING {
            return None;
        }
        let (rows, cols) = (mask.rows(), mask.cols());
        let explained = |zeros: u64| zeros as f64 >= EXPLAINED * self.zeros as f64;
        if explained(self.zero_rows * cols) {
            return Some(SparsityPattern::Row(self.zero_rows as f64 / rows as f64));
        }
        if explained(self.zero_columns * rows) {
            return Some(SparsityPattern::Column(self.zero_columns as f64 / cols as f64));
        }
        for (r, c) in BLOCKS.into_iter().filter(|&(r, c)| r <= rows && c <= cols) {
            let (tiles, occupied) = (rows.div_ceil(r) * cols.div_ceil(c), mask.occupied_tiles(r, c));
            // Edge tiles are smaller, which makes this a lower bound.
            if tiles > occupied && explained(self.elements.saturating_sub(occupied * r * c)) {
                let sparsity = (tiles - occupied) as f64 / tiles as f64;
                return Some(SparsityPattern::Block { rows: r, cols: c, sparsity });
            }
        }
        let nm = strictest(mask);
        Some(nm.unwrap_or(SparsityPattern::Unstructured(self.sparsity())))
    }
}

/// The N:M of lowest density that every whole group obeys, N at most half of M.
fn strictest(mask: &Mask) -> Option<SparsityPattern> {
    let mut best: Option<(u64, u64)> = None;
    for m in [4, 2, 8, 16, 32] {
        let groups = mask.rows() * (mask.cols() / m);
        // With few groups or few columns a bound holds by chance.
        if mask.cols() < m || groups < 32 {
            continue;
        }
        let mut most = 0;
        for r in 0..mask.rows() {
            let mut counts = vec![0u64; mask.cols().div_ceil(m) as usize];
            mask.columns(r).for_each(|c| counts[(c / m) as usize] += 1);
            most = most.max(counts.into_iter().max().unwrap_or(0));
        }
        let n = most.max(1).next_power_of_two();
        if 2 * n <= m && best.is_none_or(|(bn, bm)| n * bm < bn * m) {
            best = Some((n, m));
        }
    }
    best.map(|(n, m)| SparsityPattern::Nm { n, m })
}

/// FNV-1a over the bits, zeros of both signs alike.
fn hash(row: &[f32]) -> u64 {
    row.iter().fold(0xcbf2_9ce4_8422_2325, |h, &w| {
        let bits = if w == 0.0 { 0 } else { w.to_bits() };
        (h ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3)
    })
}
