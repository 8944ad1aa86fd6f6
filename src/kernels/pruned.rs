//! Whole rows or columns removed: a dense product on the smaller shape.
//!
//! Loop nest: copy the activations of the columns that are left (one pass, only where columns were removed), the dense
//! kernel on `[n', k']`, copy its rows to where they belong and fill the others with zeros (one pass, only where rows
//! were removed).

use super::dense::Full;
use super::panel::Scratch;
use super::aligned::Buffer;
use super::{Activations, Isa, Kernel, Packed, WeightMatrix};
use crate::error::Result;
use crate::pattern::SparsityPattern;

/// `row@s`, `column@s`, and what `channel@s` and `head@s` leave of one layer when the graph cannot shrink around it.
pub struct Pruned {
    /// The instruction set for one column, which the machine has.
    pub isa: Isa,
}

impl Kernel for Pruned {
    fn name(&self) -> &'static str {
        "pruned"
    }

    fn refusal(&self, pattern: &SparsityPattern, _: usize, _: usize) -> Option<String> {
        match pattern {
            SparsityPattern::Row(_)
            | SparsityPattern::Column(_)
            | SparsityPattern::Channel(_)
            | SparsityPattern::Head(_) => None,
            SparsityPattern::Dense
            | SparsityPattern::Nm { .. }
            | SparsityPattern::Vnm { .. }
            | SparsityPattern::Unstructured(_)
            | SparsityPattern::Block { .. } => {
                Some(format!("only whole rows and columns can be taken out, and {} leaves none empty", pattern.family()))
            }
        }
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, _: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        let WeightMatrix { n, k, values } = weights;
        let rows: Vec<usize> = (0..n).filter(|r| values[r * k..][..k].iter().any(|v| *v != 0.0)).collect();
        let mut used = vec![false; k];
        for row in &rows {
            used.iter_mut().zip(&values[row * k..][..k]).for_each(|(used, v)| *used |= *v != 0.0);
        }
        let columns: Vec<usize> = (0..k).filter(|c| used[*c]).collect();
        let kept: Vec<f32> = rows.iter().flat_map(|r| columns.iter().map(move |c| values[r * k + c])).collect();
        let full = Full { isa: self.isa, n: rows.len(), k: columns.len(), values: Buffer::from(kept.as_slice()) };
        Ok(Box::new(Shrunk { n, k, full, rows, columns }))
    }
}

struct Shrunk {
    n: usize,
    k: usize,
    full: Full,
    rows: Vec<usize>,
    columns: Vec<usize>,
}

impl Packed for Shrunk {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        let m = x.m;
        if m == 0 {
            return;
        }
        let mut taken = Scratch::take(if self.columns.len() < self.k { self.columns.len() * m } else { 0 });
        let mut values = x.values;
        if self.columns.len() < self.k {
            for (to, column) in taken.slice().chunks_exact_mut(m).zip(&self.columns) {
                to.copy_from_slice(&x.values[column * m..][..m]);
            }
            values = taken.slice();
        }
        let x = Activations { k: self.columns.len(), m, values };
        if self.rows.len() == self.n {
            return self.full.run(x, y);
        }
        let mut compact = Scratch::take(self.rows.len() * m);
        self.full.run(x, compact.slice());
        let mut from = self.rows.iter().zip(compact.slice().chunks_exact(m)).peekable();
        for (row, to) in y.chunks_exact_mut(m).enumerate() {
            match from.next_if(|(kept, _)| **kept == row) {
                Some((_, values)) => to.copy_from_slice(values),
                None => to.fill(0.0),
            }
        }
    }

    fn bytes(&self) -> (u64, u64) {
        let removed = |kept: usize, all: usize| if kept < all { 4 * kept as u64 } else { 0 };
        (self.full.bytes().0, removed(self.rows.len(), self.n) + removed(self.columns.len(), self.k))
    }
}
