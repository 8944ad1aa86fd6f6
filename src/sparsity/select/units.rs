//! Channels and heads: what a unit of a dependency group counts, and how many stay.

use crate::error::{Error, Result};
use crate::sparsity::groups::{ClassId, Groups, Member, Side};
use crate::sparsity::mask::kept;

/// Which units stay: the `keep` with the largest scores, at least one; of equal ones the first.
pub fn units(scores: &[f64], keep: u64) -> Vec<bool> {
    super::largest(scores, keep.max(1))
}

/// Units that stay of `total` at the fraction of zeros `s` when the extent `units · width` is to be a multiple of
/// `multiple` (1: as it comes): the nearest admissible count, of two the larger; never none and never more than there are.
pub fn round_units(total: u64, width: u64, s: f64, multiple: u64) -> u64 {
    let exact = kept(total, s).max(1);
    let (width, multiple) = (width.max(1), multiple.max(1));
    // The smallest number of units whose extent is a multiple: multiple / gcd(multiple, width).
    let step = multiple / gcd(multiple, width);
    if step >= total {
        // No smaller count is admissible, so that rounding would undo the pruning: keep what was asked for.
        return if step == total { total } else { exact };
    }
    let (below, above) = (exact / step * step, exact.div_ceil(step) * step);
    let above = if above > total { total } else { above };
    if below == 0 || above.abs_diff(exact) <= exact.abs_diff(below) { above } else { below }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What each unit of a dependency group counts: the scores of every weight that makes its channels, summed. `score_of`
/// gives one score an element of a member's parameter, row-major in the parameter's shape; `None` leaves it out.
///
/// # Errors
/// A member whose scores do not fill its parameter's axes, and scores that are no numbers.
pub fn channels(
    groups: &Groups,
    class: ClassId,
    mut score_of: impl FnMut(&Member) -> Option<Vec<f32>>,
) -> Result<Vec<f64>> {
    let Some(group) = groups.group(class) else { return Ok(Vec::new()) };
    let mut sums = vec![0f64; group.size as usize];
    for member in group.members.iter().filter(|m| m.side == Side::Produces) {
        let Some(scores) = score_of(member) else { continue };
        let axes = &groups.params(member.node)[member.param];
        let unit_of = axes[member.axis].units(class);
        let inner: usize = axes[member.axis + 1..].iter().map(|a| a.units(class).len()).product();
        let line = unit_of.len() * inner;
        if line == 0 || scores.len() % line != 0 {
            let reason = format!("{} scores do not fill the parameter of `{}`", scores.len(), member.layer);
            return Err(Error::argument("saliency scores", reason));
        }
        super::check(&scores, 1, scores.len())?;
        for (i, part) in scores.chunks_exact(inner).enumerate() {
            if let Some(unit) = unit_of[i % unit_of.len()] {
                sums[unit as usize] += part.iter().map(|&s| f64::from(s)).sum::<f64>();
            }
        }
    }
    Ok(sums)
}
