//! CSR, blocked along K: every nonzero with its column; the engine is [`super::blocks`] with blocks of one weight.

use super::blocks::Blocks;
use super::{Activations, Isa, Kernel, Packed, WeightMatrix};
use crate::error::Result;
use crate::pattern::SparsityPattern;

/// Any pattern at all, nonzero by nonzero.
pub struct Csr {
    /// The instruction set to use, which the machine has.
    pub isa: Isa,
}

impl Kernel for Csr {
    fn name(&self) -> &'static str {
        "csr"
    }

    fn refusal(&self, _: &SparsityPattern, n: usize, k: usize) -> Option<String> {
        super::too_large(n, k)
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, columns: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        Ok(Box::new(Rows(Blocks::pack(self.isa, weights, (1, 1), columns))))
    }
}

pub(super) struct Rows(pub(super) Blocks);

impl Packed for Rows {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        self.0.run(x, y);
    }

    fn bytes(&self) -> (u64, u64) {
        self.0.bytes()
    }
}
