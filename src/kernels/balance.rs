//! Rows divided among threads: the ranges of [`shares`], each with its own rows of the result.

pub(super) use crate::lower::blocking::shares;
use rayon::prelude::*;
use std::ops::Range;

/// Calls `each` with every range and its rows of `y`, `m` long each; `ends` says after which row a range's last one
/// comes. Several ranges run on as many threads.
pub(super) fn scatter(
    shares: &[Range<usize>],
    ends: impl Iterator<Item = usize>,
    y: &mut [f32],
    m: usize,
    each: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    let mut rest = y;
    let mut parts = Vec::with_capacity(shares.len());
    let mut row = 0;
    for (share, end) in shares.iter().zip(ends) {
        let (part, after) = rest.split_at_mut((end - row) * m);
        parts.push((share.clone(), part));
        (rest, row) = (after, end);
    }
    if parts.len() > 1 {
        parts.into_par_iter().with_max_len(1).for_each(|(share, part)| each(share, part));
    } else {
        parts.into_iter().for_each(|(share, part)| each(share, part));
    }
}
