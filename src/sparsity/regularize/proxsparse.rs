//! ProxSparse's regularizer for 2:4 (Liu et al., ICML 2025): Ω(w) = Σ over the four triples of |wᵢwⱼwₖ|, which is zero
//! exactly where at most two of four weights are not.

/// λ·Σ Ω over aligned groups of four; weights after the last whole group are free.
pub fn value(weights: &[f32], lambda: f64) -> f64 {
    lambda * weights.as_chunks::<4>().0.iter().map(|w| omega(&w.map(|x| f64::from(x).abs()))).sum::<f64>()
}

/// argmin ½‖w−z‖² + t·Ω(w) in every aligned group of four.
///
/// The problem is symmetric in signs and order, so it is solved for sorted magnitudes. A minimum has two, three or four
/// nonzeros; each case has one candidate (within a case the problem is convex where its minimum lies),
/// reached by exact minimisation along one coordinate after another; the best candidate wins.
pub fn prox(weights: &mut [f32], t: f64) {
    for group in weights.as_chunks_mut::<4>().0 {
        let mut order = [0, 1, 2, 3];
        order.sort_by(|&a: &usize, &b| group[b].abs().total_cmp(&group[a].abs()).then(a.cmp(&b)));
        let z = order.map(|i| f64::from(group[i]).abs());
        let solved = sorted(z, t);
        for (&i, w) in order.iter().zip(solved) {
            group[i] = if w == 0.0 { 0.0 } else { w.copysign(f64::from(group[i])) as f32 };
        }
    }
}

/// The minimiser for magnitudes in falling order.
fn sorted(z: [f64; 4], t: f64) -> [f64; 4] {
    let mut best = [z[0], z[1], 0.0, 0.0];
    let mut least = objective(&best, &z, t);
    for nonzeros in [3, 4] {
        let candidate = stationary(&z, t, nonzeros);
        let value = objective(&candidate, &z, t);
        if value < least {
            (best, least) = (candidate, value);
        }
    }
    best
}

/// Coordinate descent from z with the entries past `nonzeros` held at zero.
fn stationary(z: &[f64; 4], t: f64, nonzeros: usize) -> [f64; 4] {
    let mut w = *z;
    w[nonzeros..].fill(0.0);
    for _ in 0..10_000 {
        let mut moved = 0.0f64;
        for i in 0..nonzeros {
            let next = (z[i] - t * pairs(&w, i)).max(0.0);
            moved = moved.max((next - w[i]).abs());
            w[i] = next;
        }
        if moved <= 1e-13 * z[0] {
            break;
        }
    }
    w
}

/// ∂Ω/∂wᵢ for magnitudes: the sum of products of two others.
fn pairs(w: &[f64; 4], i: usize) -> f64 {
    let sum: f64 = (0..4).filter(|&j| j != i).map(|j| w[j]).sum();
    let squares: f64 = (0..4).filter(|&j| j != i).map(|j| w[j] * w[j]).sum();
    (sum * sum - squares) / 2.0
}

fn omega(w: &[f64; 4]) -> f64 {
    w[0] * w[1] * (w[2] + w[3]) + w[2] * w[3] * (w[0] + w[1])
}

fn objective(w: &[f64; 4], z: &[f64; 4], t: f64) -> f64 {
    0.5 * w.iter().zip(z).map(|(w, z)| (w - z).powi(2)).sum::<f64>() + t * omega(w)
}
