//! V:N:M: rows in groups of V keep the same columns, so a column's activations are loaded once for eight rows.
//!
//! The engine is [`super::blocks`] with V×1 vectors: of every M columns those that any row of the group uses (four, or N
//! where that is more) are stored for all V rows, zeros where a row does not use one.

use super::blocks::Blocks;
use super::bsr::BlockRows;
use super::{Isa, Kernel, Packed, WeightMatrix};
use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;
use crate::sparsity::mask::vnm_columns;

/// `V:N:M`.
pub struct Vnm {
    /// The instruction set to use, which the machine has.
    pub isa: Isa,
}

impl Kernel for Vnm {
    fn name(&self) -> &'static str {
        "vnm"
    }

    fn refusal(&self, pattern: &SparsityPattern, n: usize, k: usize) -> Option<String> {
        match pattern {
            SparsityPattern::Vnm { .. } => super::too_large(n, k),
            other => Some(format!("its rows share columns in groups, and {}'s do not", other.family())),
        }
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, columns: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        let &SparsityPattern::Vnm { v, n: kept, m: group } = pattern else {
            return Err(Error::Pattern { text: pattern.to_string(), reason: "not V:N:M".to_owned() });
        };
        let (height, length) = (v.min(weights.n.max(1) as u64) as usize, group.min(weights.k.max(1) as u64) as usize);
        super::nm::check_groups(weights, pattern, kept as usize, length)?;
        for (top, rows) in weights.values.chunks(height * weights.k.max(1)).enumerate() {
            for first in (0..weights.k).step_by(length) {
                let used = (first..(first + length).min(weights.k))
                    .filter(|c| rows.iter().skip(*c).step_by(weights.k).any(|w| *w != 0.0))
                    .count();
                if used as u64 > vnm_columns(kept, group) {
                    let reason = format!(
                        "rows {} to {} use {used} of the columns from {first} on, and V:N:M allows {}",
                        top * height,
                        top * height + rows.len() / weights.k - 1,
                        vnm_columns(kept, group)
                    );
                    return Err(Error::Pattern { text: pattern.to_string(), reason });
                }
            }
        }
        Ok(Box::new(BlockRows(Blocks::pack(self.isa, weights, (height, 1), columns))))
    }
}
