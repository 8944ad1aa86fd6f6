//! Column combining: packing sparse weight columns that rarely collide into one array row.
//!
//! Kung, McDanel and Zhang, "Packing Sparse Convolutional Neural Networks for Efficient Systolic Array Implementations"
//! (ASPLOS'19), §3: up to α reduction indices share one row of the array; each element keeps the weight of one of them
//! and picks its input with an α-way multiplexer. Where two weights of an output collide, only one can be kept, so γ
//! bounds the collisions per output and group; γ = 0 changes no weight.

use crate::sparsity::Mask;

/// Groups of reduction indices that share an array row for the outputs `outputs`; indices without a nonzero vanish.
///
/// Dense-column-first (their algorithm 2): indices by falling number of nonzeros, each put into the first group that has
/// room and takes it without exceeding `conflicts` · outputs collisions. Deterministic.
pub fn groups(mask: &Mask, outputs: &[u32], limit: u64, conflicts: f64) -> Vec<Vec<u32>> {
    let words = outputs.len().div_ceil(64);
    let mut columns: Vec<(u64, u32, Vec<u64>)> = (0..mask.cols())
        .filter_map(|k| {
            let mut bits = vec![0u64; words];
            for (i, &n) in outputs.iter().enumerate() {
                bits[i / 64] |= u64::from(mask.get(u64::from(n), k)) << (i % 64);
            }
            let count = bits.iter().map(|w| u64::from(w.count_ones())).sum();
            (count > 0).then_some((count, k as u32, bits))
        })
        .collect();
    columns.sort_by_key(|(count, k, _)| (std::cmp::Reverse(*count), *k));
    let allowed = (conflicts * outputs.len() as f64).floor() as u64;
    let mut groups: Vec<(Vec<u32>, Vec<u64>, u64)> = Vec::new();
    for (_, k, bits) in columns {
        let collisions =
            |taken: &[u64]| taken.iter().zip(&bits).map(|(a, b)| u64::from((a & b).count_ones())).sum::<u64>();
        let place = groups.iter_mut().find_map(|group| {
            let room = (group.0.len() as u64) < limit;
            let more = if room { collisions(&group.1) } else { 0 };
            (room && group.2 + more <= allowed).then_some((group, more))
        });
        match place {
            Some((group, more)) => {
                group.0.push(k);
                group.1.iter_mut().zip(&bits).for_each(|(a, b)| *a |= b);
                group.2 += more;
            }
            None => groups.push((vec![k], bits, 0)),
        }
    }
    groups.into_iter().map(|(members, ..)| members).collect()
}
