//! Block-sparse rows: whole blocks of `block:RxC` with one index each; column vectors are blocks of one column.

use super::blocks::Blocks;
use super::{Activations, Isa, Kernel, Packed, WeightMatrix};
use crate::error::Result;
use crate::lower::blocking::stored;
use crate::pattern::SparsityPattern;

/// `block:RxC`, its blocks aligned and dense inside.
pub struct Bsr {
    /// The instruction set to use, which the machine has.
    pub isa: Isa,
}

impl Kernel for Bsr {
    fn name(&self) -> &'static str {
        "bsr"
    }

    fn refusal(&self, pattern: &SparsityPattern, n: usize, k: usize) -> Option<String> {
        match pattern {
            SparsityPattern::Block { .. } => super::too_large(n, k),
            other => Some(format!("BSR stores blocks, and {} has none", other.family())),
        }
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, columns: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        let (rows, cols) = match *pattern {
            SparsityPattern::Block { rows, cols, .. } => stored((rows, cols), columns as u64),
            _ => (1, 1),
        };
        Ok(Box::new(BlockRows(Blocks::pack(self.isa, weights, (rows as usize, cols as usize), columns))))
    }
}

pub(super) struct BlockRows(pub(super) Blocks);

impl Packed for BlockRows {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        self.0.run(x, y);
    }

    fn bytes(&self) -> (u64, u64) {
        self.0.bytes()
    }
}
