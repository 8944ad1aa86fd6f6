//! V:N:M: which columns a strip of rows shares, and which of them each row keeps (Castro et al., SC'23, §4).

use crate::sparsity::mask::{Mask, vnm_columns};

/// Largest M whose column choices are all tried.
const EXACT: usize = 8;

pub fn mask(scores: &[f32], n: usize, k: usize, v: u64, keep: u64, m: u64) -> Mask {
    let mut mask = Mask::empty(n as u64, k as u64);
    let v = usize::try_from(v).unwrap_or(usize::MAX).clamp(1, n.max(1));
    let columns = vnm_columns(keep, m) as usize;
    let m = usize::try_from(m).unwrap_or(usize::MAX).clamp(1, k.max(1));
    let keep = keep as usize;
    for top in (0..n).step_by(v) {
        let rows = top..(top + v).min(n);
        for start in (0..k).step_by(m) {
            let len = m.min(k - start);
            let group = |r: usize| &scores[r * k + start..][..len];
            let strip: Vec<&[f32]> = rows.clone().map(group).collect();
            let chosen = shared(&strip, len, columns.min(len), keep);
            for (r, row) in rows.clone().zip(&strip) {
                best(row, &chosen, keep).iter().for_each(|&c| mask.set(r as u64, (start + c) as u64));
            }
        }
    }
    mask
}

/// The columns, ascending.
fn shared(strip: &[&[f32]], len: usize, columns: usize, keep: usize) -> Vec<usize> {
    if columns >= len {
        return (0..len).collect();
    }
    let value = |chosen: &[usize]| strip.iter().map(|row| kept(row, chosen, keep)).sum::<f64>();
    if len <= EXACT {
        let subsets = (0u32..1 << len).filter(|s| s.count_ones() as usize == columns);
        let members = |s: u32| (0..len).filter(|c| s >> c & 1 == 1).collect::<Vec<_>>();
        let mut most: Option<(f64, Vec<usize>)> = None;
        for chosen in subsets.map(members) {
            let v = value(&chosen);
            if most.as_ref().is_none_or(|(best, _)| v > *best) {
                most = Some((v, chosen));
            }
        }
        return most.map(|(_, c)| c).unwrap_or_default();
    }
    let sums: Vec<f64> = (0..len).map(|c| strip.iter().map(|row| f64::from(row[c])).sum()).collect();
    let stays = super::largest(&sums, columns as u64);
    let mut chosen: Vec<usize> = (0..len).filter(|&c| stays[c]).collect();
    let mut now = value(&chosen);
    loop {
        let mut better: Option<(f64, Vec<usize>)> = None;
        for place in 0..chosen.len() {
            for other in (0..len).filter(|c| !chosen.contains(c)) {
                let mut next = chosen.clone();
                next[place] = other;
                let v = value(&next);
                if v > better.as_ref().map_or(now, |b| b.0) {
                    better = Some((v, next));
                }
            }
        }
        match better {
            Some((v, next)) => (now, chosen) = (v, next),
            None => break,
        }
    }
    chosen.sort_unstable();
    chosen
}

/// The `keep` largest of the chosen columns of a row.
fn best(row: &[f32], chosen: &[usize], keep: usize) -> Vec<usize> {
    let mut order = chosen.to_vec();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    order.truncate(keep);
    order
}

fn kept(row: &[f32], chosen: &[usize], keep: usize) -> f64 {
    if keep == 2 {
        // The usual case by far, without a sort.
        let (mut a, mut b) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        for &c in chosen {
            let x = row[c];
            (a, b) = if x > a { (x, a) } else { (a, b.max(x)) };
        }
        return if chosen.len() > 1 { f64::from(a) + f64::from(b) } else { f64::from(a) };
    }
    best(row, chosen, keep).iter().map(|&c| f64::from(row[c])).sum()
}
