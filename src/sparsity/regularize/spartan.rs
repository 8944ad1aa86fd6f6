//! Spartan's soft top-k under a budget (Tai et al., NeurIPS 2022).
//!
//! The mask of items with values vᵢ and costs cᵢ is the entropy-regularised solution of the fractional knapsack
//! `max Σ vᵢmᵢ, Σ cᵢmᵢ = k, 0 ≤ m ≤ 1` (an optimal-transport problem with two destinations). Its solution is
//! mᵢ = σ(β·vᵢ/cᵢ − μ) with the one μ that meets the budget: Sinkhorn's iterations find it by rescaling, bisection finds
//! it directly because the budget falls monotonically in μ.

/// The soft mask: Σ cᵢ·mᵢ = `budget` to one part in 10⁹ of all costs. Sharpness β → ∞ gives the hard top-k by value for
/// its cost. A budget below zero counts as zero, one above all costs keeps everything. Costs are positive.
pub fn soft_top_k(values: &[f64], costs: &[f64], budget: f64, sharpness: f64) -> Vec<f64> {
    let total: f64 = costs.iter().sum();
    if budget >= total {
        return vec![1.0; values.len()];
    }
    if budget <= 0.0 {
        return vec![0.0; values.len()];
    }
    let scores: Vec<f64> = values.iter().zip(costs).map(|(v, c)| sharpness * v / c).collect();
    let spent = |mu: f64| scores.iter().zip(costs).map(|(s, c)| c * sigmoid(s - mu)).sum::<f64>();
    let (low, high) = scores.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &s| (l.min(s), h.max(s)));
    // σ(±40) is 0 or 1 to 4·10⁻¹⁸.
    let (mut low, mut high) = (low - 40.0, high + 40.0);
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        let excess = spent(middle) - budget;
        if excess.abs() <= 1e-9 * total || middle <= low || middle >= high {
            break;
        }
        if excess > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mu = 0.5 * (low + high);
    scores.iter().map(|s| sigmoid(s - mu)).collect()
}

/// Gradient through the mask by the implicit function theorem: given ∂L/∂m, returns ∂L/∂v.
///
/// With dᵢ = mᵢ(1−mᵢ): ∂mᵢ/∂vⱼ = β·(dᵢ/cᵢ·[i=j] − dᵢ·dⱼ/Σ cₗdₗ), which keeps Σ c·m at the budget.
pub fn soft_top_k_gradient(mask: &[f64], costs: &[f64], sharpness: f64, upstream: &[f64]) -> Vec<f64> {
    let slopes: Vec<f64> = mask.iter().map(|m| m * (1.0 - m)).collect();
    let weight: f64 = slopes.iter().zip(costs).map(|(d, c)| d * c).sum();
    if weight <= 0.0 {
        return vec![0.0; mask.len()];
    }
    let shared: f64 = slopes.iter().zip(upstream).map(|(d, u)| d * u).sum::<f64>() / weight;
    slopes.iter().zip(costs).zip(upstream).map(|((d, c), u)| sharpness * d * (u / c - shared)).collect()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
