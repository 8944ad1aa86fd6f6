//! Decay: penalties whose pull fades (or saturates) towards zero, so that weights get small and stay.

/// λ/2·‖w‖² (Krogh and Hertz, NIPS 1991).
pub fn l2(weights: &[f32], lambda: f64) -> f64 {
    lambda / 2.0 * weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>()
}

/// Adds ∂/∂w of [`l2`], λ·w: proportional to the weight, so it halves it and halves it and never removes it.
pub fn l2_gradient(weights: &[f32], lambda: f64, gradient: &mut [f32]) {
    add(weights, gradient, |w| lambda * w);
}

/// Weight elimination, λ·Σ u/(1+u) with u = (w/w₀)² (Weigend, Rumelhart and Huberman, NIPS 1990): counts weights
/// that are large beside the scale w₀ and decays the others.
pub fn elimination(weights: &[f32], lambda: f64, scale: f64) -> f64 {
    lambda
        * weights
            .iter()
            .map(|&w| {
                let u = (f64::from(w) / scale).powi(2);
                u / (1.0 + u)
            })
            .sum::<f64>()
}

/// Adds ∂/∂w of [`elimination`], λ·2w/w₀²/(1+u)²: not proportional; it lets large weights be.
pub fn elimination_gradient(weights: &[f32], lambda: f64, scale: f64, gradient: &mut [f32]) {
    add(weights, gradient, |w| {
        let u = (w / scale).powi(2);
        lambda * 2.0 * w / (scale * scale) / (1.0 + u).powi(2)
    });
}

/// Selective weight decay (Tessier et al., J. Imaging 8(3), 2022): λ/2·(‖w‖² + a·‖w*‖²), where w* are the
/// `round(share·len)` weights of least magnitude, those that pruning would take; `a` grows during training.
pub fn selective(weights: &[f32], lambda: f64, strength: f64, share: f64) -> f64 {
    let least = threshold(weights, share);
    weights
        .iter()
        .map(|&w| lambda / 2.0 * if w.abs() <= least { 1.0 + strength } else { 1.0 } * f64::from(w).powi(2))
        .sum()
}

/// Adds ∂/∂w of [`selective`], the choice of w* held.
pub fn selective_gradient(weights: &[f32], lambda: f64, strength: f64, share: f64, gradient: &mut [f32]) {
    let least = f64::from(threshold(weights, share));
    add(weights, gradient, |w| lambda * if w.abs() <= least { 1.0 + strength } else { 1.0 } * w);
}

/// Adaptive, per-weight gated decay (AdaDecay; Nakamura and Hong, IEEE Access 2019): λ·θᵢ·wᵢ with the gate
/// θᵢ = 2/(1+exp(−α·(|gᵢ|−μ)/σ)), where μ and σ are mean and deviation of the layer's gradient magnitudes. `loss` is the
/// gradient of the loss alone, of the same layer.
pub fn adaptive_gradient(weights: &[f32], loss: &[f32], lambda: f64, alpha: f64, gradient: &mut [f32]) {
    let count = loss.len().max(1) as f64;
    let mean = loss.iter().map(|&g| f64::from(g).abs()).sum::<f64>() / count;
    let variance = loss.iter().map(|&g| (f64::from(g).abs() - mean).powi(2)).sum::<f64>() / count;
    let deviation = variance.sqrt().max(f64::MIN_POSITIVE);
    for ((&w, &g), out) in weights.iter().zip(loss).zip(gradient) {
        let gate = 2.0 / (1.0 + (-alpha * (f64::from(g).abs() - mean) / deviation).exp());
        *out += (lambda * gate * f64::from(w)) as f32;
    }
}

fn add(weights: &[f32], gradient: &mut [f32], of: impl Fn(f64) -> f64) {
    for (&w, g) in weights.iter().zip(gradient) {
        *g += of(f64::from(w)) as f32;
    }
}

/// Magnitude of the largest among the `round(share·len)` least weights; below every weight where there are none.
fn threshold(weights: &[f32], share: f64) -> f32 {
    let count = (share * weights.len() as f64).round() as usize;
    if count == 0 {
        return -1.0;
    }
    let mut sizes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
    *sizes.select_nth_unstable_by(count.min(weights.len()) - 1, f32::total_cmp).1
}
