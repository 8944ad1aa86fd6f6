//! Transposable N:M: N of every M along rows **and** along columns, so that the backward product is N:M too
//! (Hubara et al., NeurIPS 2021, §4).
//!
//! Every M×M block is a b-matching between its rows and columns, whose linear program is integral, so that minimum-cost
//! flow finds the exact optimum (their formulation). 4×4 blocks with N = 2 have 186 masks that nothing can be added to, 90 with
//! two in every line and 96 with a line of one each way that meet in it; all are tried.

use crate::error::{Error, Result};
use crate::sparsity::mask::Mask;

/// The best mask with at most `keep` of every `m` along both axes: exact, to 2⁻⁴⁰ of a block's largest score.
///
/// # Errors
/// As [`super::mask`]; negative scores; M above 64, where flow is out of proportion.
pub fn transposable(scores: &[f32], n: usize, k: usize, keep: u64, m: u64) -> Result<Mask> {
    super::check(scores, n, k)?;
    if m > 64 || m == 0 || keep > m {
        let reason = format!("transposable {keep}:{m} needs N ≤ M ≤ 64");
        return Err(Error::Pattern { text: format!("{keep}:{m}"), reason });
    }
    if scores.iter().any(|s| *s < 0.0 || s.is_infinite()) {
        return Err(Error::argument(
            "saliency scores",
            "transposable selection needs finite scores that are not negative",
        ));
    }
    let (m, keep) = (m as usize, keep as usize);
    let mut mask = Mask::empty(n as u64, k as u64);
    let quads = if (keep, m) == (2, 4) { quads() } else { Vec::new() };
    for top in (0..n).step_by(m) {
        for left in (0..k).step_by(m) {
            let (rows, cols) = (m.min(n - top), m.min(k - left));
            let at = |r: usize, c: usize| scores[(top + r) * k + left + c];
            let mut keep_one = |r: usize, c: usize| mask.set((top + r) as u64, (left + c) as u64);
            if !quads.is_empty() && rows == 4 && cols == 4 {
                let value =
                    |q: u16| (0..16).filter(|i| q >> i & 1 == 1).map(|i| f64::from(at(i / 4, i % 4))).sum::<f64>();
                let first = (f64::NEG_INFINITY, 0u16);
                let best = quads.iter().map(|&q| (value(q), q)).fold(first, |b, x| if x.0 > b.0 { x } else { b });
                (0..16).filter(|i| best.1 >> i & 1 == 1).for_each(|i| keep_one(i / 4, i % 4));
                continue;
            }
            let block: Vec<f32> = (0..rows * cols).map(|i| at(i / cols, i % cols)).collect();
            for (i, _) in matching(&block, rows, cols, keep).iter().enumerate().filter(|(_, stays)| **stays) {
                keep_one(i / cols, i % cols);
            }
        }
    }
    Ok(mask)
}

/// The masks of a 4×4 block with at most two in every row and column that nothing can be added to.
fn quads() -> Vec<u16> {
    let admits =
        |q: u16| (0..4).all(|i| (q >> (4 * i) & 15).count_ones() <= 2 && (q & (0x1111 << i)).count_ones() <= 2);
    let maximal = |q: u16| (0..16).all(|i| q >> i & 1 == 1 || !admits(q | 1 << i));
    (0..=u16::MAX).filter(|&q| q.count_ones() >= 7 && admits(q) && maximal(q)).collect()
}

/// The heaviest choice with at most `keep` in every row and column: successive longest augmenting paths from rows with
/// room to columns with room, over integers, so that no rounding makes a cycle look profitable.
fn matching(block: &[f32], rows: usize, cols: usize, keep: usize) -> Vec<bool> {
    let scale = f64::from(block.iter().copied().fold(f32::MIN_POSITIVE, f32::max));
    let gain: Vec<i64> = block.iter().map(|&s| (f64::from(s) / scale * (1u64 << 40) as f64).round() as i64).collect();
    let mut chosen = vec![false; block.len()];
    let (mut row_room, mut col_room) = (vec![keep.min(cols); rows], vec![keep.min(rows); cols]);
    loop {
        // Longest paths by Bellman–Ford: row → column over what is free, column → row over what is chosen.
        let mut to_row: Vec<Option<i64>> = row_room.iter().map(|&room| (room > 0).then_some(0)).collect();
        let mut to_col: Vec<Option<i64>> = vec![None; cols];
        let (mut from_row, mut from_col) = (vec![usize::MAX; cols], vec![usize::MAX; rows]);
        loop {
            let mut changed = false;
            for r in 0..rows {
                for c in 0..cols {
                    let g = gain[r * cols + c];
                    let (source, target, g) = if chosen[r * cols + c] {
                        (to_col[c], &mut to_row[r], -g)
                    } else {
                        (to_row[r], &mut to_col[c], g)
                    };
                    let Some(through) = source.map(|s| s + g) else { continue };
                    if target.is_none_or(|t| through > t) {
                        *target = Some(through);
                        changed = true;
                        if chosen[r * cols + c] { from_col[r] = c } else { from_row[c] = r }
                    }
                }
            }
            if !changed {
                break;
            }
        }
        let ends = (0..cols).filter(|&c| col_room[c] > 0).filter_map(|c| Some((to_col[c]?, c)));
        let Some((value, mut c)) = ends.max_by_key(|&(v, c)| (v, std::cmp::Reverse(c))) else { break };
        if value < 0 {
            break;
        }
        col_room[c] -= 1;
        loop {
            let r = from_row[c];
            chosen[r * cols + c] = true;
            if from_col[r] == usize::MAX {
                row_room[r] -= 1;
                break;
            }
            c = from_col[r];
            chosen[r * cols + c] = false;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    #[test]
    fn masks_are_as_many_as_stated() {
        let all = super::quads();
        assert_eq!((all.len(), all.iter().filter(|q| q.count_ones() == 8).count()), (186, 90));
    }
}
