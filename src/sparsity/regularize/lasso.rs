//! L1 and group penalties: value, (sub)gradient, proximal operator.
//!
//! A group g is weighted with √|g|, so that groups of unequal size are punished alike (Yuan and Lin, JRSS B 2006).

use super::{Group, norm};

/// λ·‖w‖₁ (Tibshirani, JRSS B 1996).
pub fn l1(weights: &[f32], lambda: f64) -> f64 {
    lambda * weights.iter().map(|&w| f64::from(w).abs()).sum::<f64>()
}

/// Adds a subgradient of [`l1`]: λ·sign(w), 0 at 0.
pub fn l1_gradient(weights: &[f32], lambda: f64, gradient: &mut [f32]) {
    for (&w, g) in weights.iter().zip(gradient) {
        if w != 0.0 {
            *g += (lambda * f64::from(w.signum())) as f32;
        }
    }
}

/// argmin ½‖w−z‖² + t·‖w‖₁: soft threshold, sign(z)·max(|z|−t, 0).
pub fn l1_prox(weights: &mut [f32], t: f64) {
    for w in weights {
        *w = soft(*w, t);
    }
}

/// λ·Σ_g √|g|·‖w_g‖₂ (Yuan and Lin 2006; on units of networks: Scardapane et al., Neurocomputing 241, 2017).
pub fn group(weights: &[f32], groups: &[Group], lambda: f64) -> f64 {
    lambda * groups.iter().map(|g| root(g) * norm(weights, g)).sum::<f64>()
}

/// Adds a subgradient of [`group`]: λ·√|g|·w/‖w_g‖, 0 where the group is.
pub fn group_gradient(weights: &[f32], groups: &[Group], lambda: f64, gradient: &mut [f32]) {
    for g in groups {
        let size = norm(weights, g);
        if size > 0.0 {
            scaled(weights, g, lambda * root(g) / size, gradient);
        }
    }
}

/// argmin ½‖w−z‖² + t·Σ √|g|·‖w_g‖ for groups that do not overlap: each is scaled by max(0, 1 − t·√|g|/‖z_g‖). Of groups
/// that overlap it is one after the other, which is how trainers use it.
pub fn group_prox(weights: &mut [f32], groups: &[Group], t: f64) {
    for g in groups {
        let size = norm(weights, g);
        let keep = if size > 0.0 { (1.0 - t * root(g) / size).max(0.0) } else { 0.0 };
        for &i in g {
            // The product of a small number and 0 would keep its sign bit; zeros are plain.
            weights[i] = if keep == 0.0 { 0.0 } else { (f64::from(weights[i]) * keep) as f32 };
        }
    }
}

/// Sparse group lasso, λ·(α·‖w‖₁ + (1−α)·Σ √|g|·‖w_g‖₂) (Simon et al., JCGS 2013), over the weights in groups.
pub fn sparse_group(weights: &[f32], groups: &[Group], lambda: f64, alpha: f64) -> f64 {
    let elements: f64 = groups.iter().flatten().map(|&i| f64::from(weights[i]).abs()).sum();
    lambda * alpha * elements + group(weights, groups, lambda * (1.0 - alpha))
}

/// Its proximal operator: the group's after the elements' (the order that is exact; Friedman et al. 2010).
pub fn sparse_group_prox(weights: &mut [f32], groups: &[Group], t: f64, alpha: f64) {
    for &i in groups.iter().flatten() {
        weights[i] = soft(weights[i], t * alpha);
    }
    group_prox(weights, groups, t * (1.0 - alpha));
}

/// Smoothing group lasso (Wang et al., IEEE TNNLS 29(5), 2018): λ·Σ √|g|·h(‖w_g‖), where h is the norm beyond `a`
/// and a polynomial with the same value, slope and curvature below, so that the gradient exists at 0.
pub fn smooth_group(weights: &[f32], groups: &[Group], lambda: f64, a: f64) -> f64 {
    lambda * groups.iter().map(|g| root(g) * smooth(norm(weights, g), a).0).sum::<f64>()
}

/// Adds the gradient of [`smooth_group`].
pub fn smooth_group_gradient(weights: &[f32], groups: &[Group], lambda: f64, a: f64, gradient: &mut [f32]) {
    for g in groups {
        scaled(weights, g, lambda * root(g) * smooth(norm(weights, g), a).1, gradient);
    }
}

/// (h(s), h′(s)/s): h = s for s ≥ a, else −s⁴/(8a³) + 3s²/(4a) + 3a/8.
fn smooth(s: f64, a: f64) -> (f64, f64) {
    if s >= a {
        (s, 1.0 / s)
    } else {
        (-s.powi(4) / (8.0 * a.powi(3)) + 3.0 * s * s / (4.0 * a) + 3.0 * a / 8.0, -s * s / (2.0 * a.powi(3)) + 1.5 / a)
    }
}

fn scaled(weights: &[f32], group: &[usize], factor: f64, gradient: &mut [f32]) {
    for &i in group {
        gradient[i] += (factor * f64::from(weights[i])) as f32;
    }
}

fn soft(w: f32, t: f64) -> f32 {
    let size = f64::from(w.abs()) - t;
    if size > 0.0 { (size * f64::from(w.signum())) as f32 } else { 0.0 }
}

fn root(group: &[usize]) -> f64 {
    (group.len() as f64).sqrt()
}
