//! Masks that change while a network trains.

/// Sparsity at `step` of gradual magnitude pruning (Zhu and Gupta 2017, eq. 1): from `from` to `to` by a cubic between
/// the steps `start` and `end`.
pub fn gradual(step: u64, start: u64, end: u64, from: f64, to: f64) -> f64 {
    if step <= start {
        return from;
    }
    if step >= end {
        return to;
    }
    let left = 1.0 - (step - start) as f64 / (end - start) as f64;
    to + (from - to) * left.powi(3)
}

/// Share of connections that RigL moves at `step` (Evci et al., ICML 2020, eq. 1): α/2·(1 + cos(πt/T_end)).
pub fn drop_share(step: u64, end: u64, alpha: f64) -> f64 {
    if step >= end {
        return 0.0;
    }
    alpha / 2.0 * (1.0 + (std::f64::consts::PI * step as f64 / end as f64).cos())
}

/// One update of RigL on a layer: drops the `share` of active weights with least magnitude, grows as many inactive ones
/// where the dense gradient is largest; grown weights start at zero. The number of active weights stays.
pub fn rigl(weights: &mut [f32], mask: &mut [bool], gradient: &[f32], share: f64) {
    let all: Vec<usize> = (0..weights.len()).collect();
    let moved = move_within(weights, mask, gradient, &all, share);
    for i in moved {
        weights[i] = 0.0;
    }
}

/// One update of SRigL (Lasby et al., ICLR 2024) on `[n, k]` weights: every live row keeps the same number of inputs
/// (constant fan-in), and a row that would keep fewer than `ablate` of that number among the globally salient weights is
/// switched off, its connections going to the others. Returns the live rows.
///
/// Saliency as there: of the active weights those that survive a global drop of the `share` with least
/// magnitude, and of the inactive ones as many as were dropped, those with the largest gradients.
pub fn srigl(
    weights: &mut [f32],
    mask: &mut [bool],
    gradient: &[f32],
    columns: usize,
    share: f64,
    ablate: f64,
) -> Vec<usize> {
    let rows = weights.len() / columns;
    let active = mask.iter().filter(|&&m| m).count();
    let live: Vec<usize> = (0..rows).filter(|r| mask[r * columns..(r + 1) * columns].iter().any(|&m| m)).collect();
    if live.is_empty() {
        return live;
    }
    let before = mask.to_vec();
    let mut salient = mask.to_vec();
    let candidates: Vec<usize> = live.iter().flat_map(|r| r * columns..(r + 1) * columns).collect();
    move_within(weights, &mut salient, gradient, &candidates, share);
    let fan_in = active / live.len();
    let enough = |r: &usize| {
        let kept = salient[r * columns..(r + 1) * columns].iter().filter(|&&m| m).count();
        kept as f64 >= (ablate * fan_in as f64).max(1.0)
    };
    let mut stays: Vec<usize> = live.iter().copied().filter(enough).collect();
    if stays.is_empty() {
        stays = live;
    }
    let fan_in = (active / stays.len()).min(columns).max(1);
    mask.fill(false);
    for &r in &stays {
        let mut order: Vec<usize> = (r * columns..(r + 1) * columns).collect();
        // Salient active weights by magnitude, then salient new ones by gradient, then what is left by gradient.
        let key = |i: usize| match (salient[i], before[i]) {
            (true, true) => (0, weights[i].abs()),
            (true, false) => (1, gradient[i].abs()),
            (false, _) => (2, gradient[i].abs()),
        };
        order.sort_by(|&a, &b| {
            let ((ta, ka), (tb, kb)) = (key(a), key(b));
            ta.cmp(&tb).then(kb.total_cmp(&ka)).then(a.cmp(&b))
        });
        order[..fan_in].iter().for_each(|&i| mask[i] = true);
    }
    for (i, w) in weights.iter_mut().enumerate() {
        if !(mask[i] && before[i]) {
            *w = 0.0;
        }
    }
    stays
}

/// Moves a share of the active places among `candidates`; returns the places that changed.
fn move_within(weights: &[f32], mask: &mut [bool], gradient: &[f32], candidates: &[usize], share: f64) -> Vec<usize> {
    let (mut active, mut inactive): (Vec<usize>, Vec<usize>) = candidates.iter().partition(|&&i| mask[i]);
    let count = ((share * active.len() as f64).round() as usize).min(inactive.len()).min(active.len());
    active.sort_by(|&a, &b| weights[a].abs().total_cmp(&weights[b].abs()).then(a.cmp(&b)));
    inactive.sort_by(|&a, &b| gradient[b].abs().total_cmp(&gradient[a].abs()).then(a.cmp(&b)));
    let changed: Vec<usize> = active[..count].iter().chain(&inactive[..count]).copied().collect();
    changed.iter().for_each(|&i| mask[i] = !mask[i]);
    changed
}

/// Marks the `n` weights of largest magnitude in every aligned `m` of a row of `columns`; a shorter last group keeps up
/// to `n` too.
pub fn best_of(weights: &[f32], columns: usize, n: usize, m: usize) -> Vec<bool> {
    let mut mask = vec![false; weights.len()];
    for (row, marks) in weights.chunks(columns).zip(mask.chunks_mut(columns)) {
        for (group, marks) in row.chunks(m).zip(marks.chunks_mut(m)) {
            let mut order: Vec<usize> = (0..group.len()).collect();
            order.sort_by(|&a, &b| group[b].abs().total_cmp(&group[a].abs()).then(a.cmp(&b)));
            order.iter().take(n).for_each(|&i| marks[i] = true);
        }
    }
    mask
}

/// SR-STE (Zhou et al., ICLR 2021): with the straight-through estimator the gradient of the masked weights goes
/// to all of them; λ·(1−mask)⊙w is added, so that masks settle.
pub fn refined_gradient(weights: &[f32], mask: &[bool], lambda: f64, gradient: &mut [f32]) {
    for ((&w, &kept), g) in weights.iter().zip(mask).zip(gradient) {
        if !kept {
            *g += (lambda * f64::from(w)) as f32;
        }
    }
}
