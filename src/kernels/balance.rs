//! Rows divided among threads.

use rayon::prelude::*;
use std::ops::Range;

/// Consecutive ranges, one for each of `threads` at most, with about the same work in each.
pub(super) fn shares(work: impl Iterator<Item = usize>, threads: usize) -> Vec<Range<usize>> {
    let work: Vec<usize> = work.collect();
    let total: usize = work.iter().sum();
    let threads = threads.clamp(1, work.len().max(1));
    let mut shares = Vec::with_capacity(threads);
    let (mut start, mut done, mut sum) = (0, 0, 0);
    for (i, w) in work.iter().enumerate() {
        sum += w;
        // The range ends where its part of the work is reached, or where each thread left needs a row.
        let due = sum * threads >= total * (done + 1);
        let left = work.len() - i - 1;
        if done + 1 < threads && left + 1 >= threads - done && (due || left == threads - done - 1) {
            shares.push(start..i + 1);
            (start, done) = (i + 1, done + 1);
        }
    }
    shares.push(start..work.len());
    shares
}

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

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn ranges_cover_all_rows_in_order_and_balance() {
        assert_eq!(shares([1usize, 1, 1, 1].into_iter(), 2), [0..2, 2..4]);
        assert_eq!(shares([9usize, 1, 1, 1].into_iter(), 2), [0..1, 1..4]);
        assert_eq!(shares([1usize, 1, 1, 9].into_iter(), 2), [0..3, 3..4]);
        assert_eq!(shares([1usize, 1].into_iter(), 8), [0..1, 1..2]);
        assert_eq!(shares(std::iter::empty(), 3), std::iter::once(0..0).collect::<Vec<_>>());
        for threads in 1..9 {
            let ranges = shares((0..50).map(|i| i * i % 7), threads);
            assert!(ranges.len() <= threads);
            assert_eq!(ranges.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
        }
    }
}
