//! Penalties, their gradients and proximal operators, against minimisers and differences that know nothing of them.

use hwsim::sparsity::regularize::structure::{self, Layer};
use hwsim::sparsity::regularize::{Group, decay, dynamic, lasso, noise, proxsparse, spartan};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn draw(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| noise::normal(rng) as f32).collect()
}

/// Minimises ½‖w−z‖² + a·Σ|wᵢ| + b·‖w‖ by majorising the norms with quadratics, again and again.
fn reweighted(z: &[f32], a: f64, b: f64) -> Vec<f64> {
    let mut w: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
    for _ in 0..200_000 {
        let size = w.iter().map(|w| w * w).sum::<f64>().sqrt() + 1e-12;
        let mut moved = 0.0f64;
        for (w, &z) in w.iter_mut().zip(z) {
            let next = f64::from(z) / (1.0 + a / (w.abs() + 1e-12) + b / size);
            moved = moved.max((next - *w).abs());
            *w = next;
        }
        if moved < 1e-13 {
            break;
        }
    }
    w
}

fn assert_close(ours: &[f32], theirs: &[f64], what: &str) {
    for (o, t) in ours.iter().zip(theirs) {
        assert!((f64::from(*o) - t).abs() < 1e-6, "{what}: {ours:?} against {theirs:?}");
    }
}

#[test]
fn convex_proxes_are_minimisers() {
    let mut rng = rng(1);
    for case in 0..1000 {
        let z = draw(&mut rng, 2 + case % 7);
        let (t, alpha) = (2.0 * rng.random::<f64>(), rng.random::<f64>());
        let (all, root): (Vec<Group>, f64) = (vec![(0..z.len()).collect()], (z.len() as f64).sqrt());
        let mut w = z.clone();
        lasso::l1_prox(&mut w, t);
        assert_close(&w, &reweighted(&z, t, 0.0), "l1");
        let mut w = z.clone();
        lasso::group_prox(&mut w, &all, t);
        assert_close(&w, &reweighted(&z, 0.0, t * root), "group");
        let mut w = z.clone();
        lasso::sparse_group_prox(&mut w, &all, t, alpha);
        assert_close(&w, &reweighted(&z, t * alpha, t * (1.0 - alpha) * root), "sparse group");
    }
}

#[test]
fn a_prox_leaves_exact_zeros_that_are_plain() {
    let mut w = [0.1f32, -0.1, 0.05];
    lasso::group_prox(&mut w, &[vec![0, 1, 2]], 1.0);
    assert!(w.iter().all(|w| w.to_bits() == 0));
    // The gradient of the same penalty never gets there.
    let mut w = [0.1f32, -0.1, 0.05];
    for _ in 0..1000 {
        let mut g = [0.0f32; 3];
        lasso::group_gradient(&w, &[vec![0, 1, 2]], 0.01, &mut g);
        w.iter_mut().zip(g).for_each(|(w, g)| *w -= 0.01 * g);
    }
    assert!(w.iter().all(|&w| w != 0.0));
}

fn triples(w: &[f64]) -> f64 {
    w[0] * w[1] * w[2] + w[0] * w[1] * w[3] + w[0] * w[2] * w[3] + w[1] * w[2] * w[3]
}

/// Projected gradient with a step that halves, from many starts.
fn descended(z: &[f64; 4], t: f64, rng: &mut impl Rng) -> ([f64; 4], f64) {
    let of = |w: &[f64; 4]| 0.5 * w.iter().zip(z).map(|(w, z)| (w - z).powi(2)).sum::<f64>() + t * triples(w);
    let mut best = ([0.0; 4], f64::INFINITY);
    for start in 0..24 {
        let mut w: [f64; 4] = if start == 0 { *z } else { z.map(|z| 1.2 * z * rng.random::<f64>()) };
        if start % 4 == 3 {
            w[start / 4 % 4] = 0.0;
        }
        let mut step = 0.5;
        for _ in 0..20_000 {
            let mut next = w;
            for i in 0..4 {
                let others: Vec<f64> = (0..4).filter(|&j| j != i).map(|j| w[j]).collect();
                let slope = w[i] - z[i] + t * (others[0] * others[1] + others[0] * others[2] + others[1] * others[2]);
                next[i] = (w[i] - step * slope).max(0.0);
            }
            if of(&next) <= of(&w) {
                let moved = (0..4).map(|i| (next[i] - w[i]).abs()).fold(0.0, f64::max);
                w = next;
                if moved < 1e-12 {
                    break;
                }
            } else {
                step /= 2.0;
            }
        }
        if of(&w) < best.1 {
            best = (w, of(&w));
        }
    }
    best
}

#[test]
fn proxsparse_gives_the_published_vectors() {
    let of = |t: f64| {
        let mut w = [1.0f32, 0.8, 0.5, 0.3];
        proxsparse::prox(&mut w, t);
        w
    };
    for (t, expected) in [
        (0.1, [0.95179, 0.73984, 0.40226, 0.16154]),
        (0.5, [0.94267, 0.72551, 0.15804, 0.0]),
        (1.0, [1.0, 0.8, 0.0, 0.0]),
        (7.0, [1.0, 0.8, 0.0, 0.0]),
    ] {
        for (w, e) in of(t).iter().zip(expected) {
            assert!((w - e).abs() < 1e-5, "{t}: {:?}", of(t));
        }
    }
}

#[test]
fn proxsparse_is_the_global_minimiser() {
    let mut rng = rng(2);
    for _ in 0..1000 {
        let z: Vec<f32> = draw(&mut rng, 4);
        let t = 10f64.powf(rng.random_range(-2.0..0.7));
        let mut w = z.clone();
        proxsparse::prox(&mut w, t);
        let sizes: [f64; 4] = std::array::from_fn(|i| f64::from(z[i]).abs());
        let (theirs, least) = descended(&sizes, t, &mut rng);
        let ours: [f64; 4] = std::array::from_fn(|i| f64::from(w[i]).abs());
        let value = 0.5 * ours.iter().zip(sizes).map(|(w, z)| (w - z).powi(2)).sum::<f64>() + t * triples(&ours);
        assert!(value <= least + 1e-6, "{z:?}, {t}: {ours:?} ({value}) against {theirs:?} ({least})");
        assert!(w.iter().zip(&z).all(|(w, z)| w * z >= 0.0), "signs stay");
        // Where the best two minima are apart, the arguments agree too.
        if (value - least).abs() < 1e-9 {
            assert!((0..4).all(|i| (ours[i] - theirs[i]).abs() < 1e-4), "{z:?}, {t}: {ours:?} against {theirs:?}");
        }
    }
}

#[test]
fn gradients_are_differences() {
    let mut rng = rng(3);
    let groups: Vec<Group> = vec![vec![0, 2, 4], vec![1, 3], vec![5, 6, 7]];
    for _ in 0..100 {
        let w = draw(&mut rng, 8);
        type Value<'a> = Box<dyn Fn(&[f32]) -> f64 + 'a>;
        type Gradient<'a> = Box<dyn Fn(&[f32], &mut [f32]) + 'a>;
        let pairs: Vec<(&str, Value, Gradient)> = vec![
            ("l2", Box::new(|w| decay::l2(w, 0.3)), Box::new(|w, g| decay::l2_gradient(w, 0.3, g))),
            (
                "elimination",
                Box::new(|w| decay::elimination(w, 0.3, 0.5)),
                Box::new(|w, g| decay::elimination_gradient(w, 0.3, 0.5, g)),
            ),
            (
                "selective",
                Box::new(|w| decay::selective(w, 0.3, 5.0, 0.5)),
                Box::new(|w, g| decay::selective_gradient(w, 0.3, 5.0, 0.5, g)),
            ),
            ("l1", Box::new(|w| lasso::l1(w, 0.3)), Box::new(|w, g| lasso::l1_gradient(w, 0.3, g))),
            (
                "group",
                Box::new(|w| lasso::group(w, &groups, 0.3)),
                Box::new(|w, g| lasso::group_gradient(w, &groups, 0.3, g)),
            ),
            (
                "smooth",
                Box::new(|w| lasso::smooth_group(w, &groups, 0.3, 1.5)),
                Box::new(|w, g| lasso::smooth_group_gradient(w, &groups, 0.3, 1.5, g)),
            ),
        ];
        for (name, value, gradient) in &pairs {
            let mut g = vec![0.0f32; 8];
            gradient(&w, &mut g);
            for i in 0..8 {
                // Kinks of |w| and ties of the selection are not differentiable; stay away from them.
                let near = w.iter().enumerate().any(|(j, v)| j != i && (v.abs() - w[i].abs()).abs() < 2e-2);
                if w[i].abs() < 2e-2 || near {
                    continue;
                }
                let h = 1e-2f32;
                let at = |d: f32| {
                    let mut w = w.clone();
                    w[i] += d;
                    (value(&w), f64::from(w[i]))
                };
                let ((a, wa), (b, wb)) = (at(h), at(-h));
                let ((c, wc), (d, wd)) = (at(h / 2.0), at(-h / 2.0));
                // Richardson: the error of fourth order.
                let slope = (4.0 * (c - d) / (wc - wd) - (a - b) / (wa - wb)) / 3.0;
                assert!((slope - f64::from(g[i])).abs() < 2e-4, "{name}[{i}] of {w:?}: {} against {slope}", g[i]);
            }
        }
    }
}

#[test]
fn smoothing_joins_with_value_slope_and_curvature() {
    let of = |s: f64| lasso::smooth_group(&[s as f32], &[vec![0]], 1.0, 0.5);
    assert!((of(0.5) - 0.5).abs() < 1e-9);
    assert!((of(0.499) - 0.499).abs() < 1e-6);
    assert!((of(0.0) - 0.1875).abs() < 1e-12);
}

#[test]
fn adaptive_decay_gates_by_the_gradient() {
    let (w, loss) = ([1.0f32; 4], [0.0f32, 0.1, 0.2, 4.0]);
    let mut g = [0.0f32; 4];
    decay::adaptive_gradient(&w, &loss, 0.1, 4.0, &mut g);
    assert!(g[3] > 0.19 && g[3] <= 0.2, "a steep weight decays at most twice as fast: {g:?}");
    assert!(g[0] < g[1] && g[1] < g[2] && g[2] < 0.1, "{g:?}");
}

#[test]
fn spartan_meets_its_budget_and_hardens() {
    let mut rng = rng(4);
    for case in 0..200 {
        let values: Vec<f64> = draw(&mut rng, 40).iter().map(|&v| f64::from(v).abs()).collect();
        let costs: Vec<f64> = (0..40).map(|_| if case % 2 == 0 { 1.0 } else { rng.random_range(0.5..4.0) }).collect();
        let budget = costs.iter().sum::<f64>() * rng.random_range(0.05..0.95);
        for sharpness in [1.0, 10.0, 100.0, 1e5] {
            let mask = spartan::soft_top_k(&values, &costs, budget, sharpness);
            let spent: f64 = mask.iter().zip(&costs).map(|(m, c)| m * c).sum();
            assert!((spent - budget).abs() < 1e-3, "{spent} of {budget} at {sharpness}");
            assert!(mask.iter().all(|m| (0.0..=1.0).contains(m)));
        }
    }
    let values = [0.3, 0.9, 0.1, 0.5, 0.7];
    let hard = spartan::soft_top_k(&values, &[1.0; 5], 2.0, 1e6);
    assert_eq!(hard.iter().map(|m| m.round() as u8).collect::<Vec<_>>(), [0, 1, 0, 0, 1]);
    assert!(hard.iter().all(|m| m.min(1.0 - m) < 1e-3), "{hard:?}");
    assert_eq!(spartan::soft_top_k(&values, &[1.0; 5], 9.0, 1.0), vec![1.0; 5]);
    assert_eq!(spartan::soft_top_k(&values, &[1.0; 5], -1.0, 1.0), vec![0.0; 5]);
}

#[test]
fn spartan_differentiates_through_the_budget() {
    let mut rng = rng(5);
    let values: Vec<f64> = draw(&mut rng, 12).iter().map(|&v| f64::from(v).abs()).collect();
    let costs: Vec<f64> = (0..12).map(|_| rng.random_range(0.5..2.0)).collect();
    let upstream: Vec<f64> = draw(&mut rng, 12).iter().map(|&v| f64::from(v)).collect();
    let loss =
        |v: &[f64]| -> f64 { spartan::soft_top_k(v, &costs, 5.0, 3.0).iter().zip(&upstream).map(|(m, u)| m * u).sum() };
    let mask = spartan::soft_top_k(&values, &costs, 5.0, 3.0);
    let gradient = spartan::soft_top_k_gradient(&mask, &costs, 3.0, &upstream);
    for i in 0..12 {
        let at = |d: f64| {
            let mut v = values.clone();
            v[i] += d;
            loss(&v)
        };
        let slope = (at(1e-4) - at(-1e-4)) / 2e-4;
        assert!((slope - gradient[i]).abs() < 1e-3, "{i}: {} against {slope}", gradient[i]);
    }
}

#[test]
fn rigl_moves_what_is_small_to_where_the_gradient_is() {
    let mut w = [0.5f32, 0.1, 0.0, 0.0, -0.8, 0.2];
    let mut mask = [true, true, false, false, true, true];
    dynamic::rigl(&mut w, &mut mask, &[0.0, 0.0, 0.3, -0.9, 0.0, 0.0], 0.25);
    assert_eq!(mask, [true, false, false, true, true, true]);
    assert_eq!(w, [0.5, 0.0, 0.0, 0.0, -0.8, 0.2]);
    assert!((dynamic::drop_share(0, 100, 0.3) - 0.3).abs() < 1e-12);
    assert!((dynamic::drop_share(50, 100, 0.3) - 0.15).abs() < 1e-12);
    assert_eq!(dynamic::drop_share(100, 100, 0.3), 0.0);
}

#[test]
fn srigl_has_a_constant_fan_in_and_ablates() {
    let mut rng = rng(6);
    let (rows, columns) = (8, 32);
    let mut mask = vec![false; rows * columns];
    for r in 0..rows {
        (0..8).for_each(|c| mask[r * columns + (c * 3 + r) % columns] = true);
    }
    let mut w = draw(&mut rng, rows * columns);
    // One row is tiny in weights and gradients, so nothing of it is salient.
    let mut gradient = draw(&mut rng, rows * columns);
    for i in 3 * columns..4 * columns {
        w[i] *= 1e-6;
        gradient[i] = 0.0;
    }
    w.iter_mut().zip(&mask).for_each(|(w, m)| *w = if *m { *w } else { 0.0 });
    let live = dynamic::srigl(&mut w, &mut mask, &gradient, columns, 0.3, 0.3);
    assert!(!live.contains(&3), "{live:?}");
    let fan_in = |r: &usize| mask[r * columns..(r + 1) * columns].iter().filter(|&&m| m).count();
    assert!(live.iter().all(|r| fan_in(r) == fan_in(&live[0])));
    assert_eq!(fan_in(&3), 0);
    assert!(w.iter().zip(&mask).all(|(w, m)| *m || *w == 0.0));
}

#[test]
fn gradual_pruning_runs_from_one_end_to_the_other() {
    assert_eq!(dynamic::gradual(0, 10, 110, 0.1, 0.9), 0.1);
    assert_eq!(dynamic::gradual(200, 10, 110, 0.1, 0.9), 0.9);
    assert!((dynamic::gradual(60, 10, 110, 0.1, 0.9) - 0.8).abs() < 1e-12);
}

#[test]
fn straight_through_masks_are_the_best_of_each_group() {
    let w = [0.1f32, -0.9, 0.5, 0.2, 3.0, 0.0, 0.0, -1.0, 0.4];
    assert_eq!(dynamic::best_of(&w, 9, 2, 4), [false, true, true, false, true, false, false, true, true]);
    let mut g = [0.0f32; 2];
    dynamic::refined_gradient(&[2.0, 3.0], &[true, false], 0.1, &mut g);
    assert!(g[0] == 0.0 && (g[1] - 0.3).abs() < 1e-6);
}

#[test]
fn noise_is_seeded_and_has_its_deviation() {
    let disturbed = |seed| {
        let mut w = vec![1.0f32; 20_000];
        noise::additive(&mut w, 0.1, &mut rng(seed));
        w
    };
    assert_eq!(disturbed(1), disturbed(1));
    let w = disturbed(1);
    let mean = w.iter().map(|&w| f64::from(w)).sum::<f64>() / 20_000.0;
    let deviation = (w.iter().map(|&w| (f64::from(w) - mean).powi(2)).sum::<f64>() / 20_000.0).sqrt();
    assert!((mean - 1.0).abs() < 0.005 && (deviation - 0.1).abs() < 0.003, "{mean} {deviation}");
    let mut zeros = vec![0.0f32; 10];
    noise::multiplicative(&mut zeros, 0.1, &mut rng(1));
    assert!(zeros.iter().all(|&w| w == 0.0));
}

/// 3 → 2 → (flattened 4 pixels a channel) 2: convolution of 2 filters × 3 channels × 4 taps, then linear 8 → 2.
fn network() -> [Layer; 2] {
    [
        Layer { weight: 0, bias: Some(24), outputs: 2, inputs: 3, kernel: 4, spread: 1 },
        Layer { weight: 26, bias: Some(42), outputs: 2, inputs: 8, kernel: 1, spread: 4 },
    ]
}

#[test]
fn groups_are_the_units_of_the_network() {
    let layers = network();
    let all = structure::outgoing(&layers);
    assert_eq!(all.len(), 3 + 2 + 2 + 2, "3 inputs, 2 filters, 2 + 2 biases");
    assert_eq!(all[0], [0, 1, 2, 3, 12, 13, 14, 15]);
    assert_eq!(all[4], [30, 31, 32, 33, 38, 39, 40, 41]);
    let mut places: Vec<usize> = all.concat();
    places.sort_unstable();
    assert_eq!(places, (0..44).collect::<Vec<_>>(), "every parameter is in exactly one group");
    assert_eq!(structure::incoming(&layers), vec![(0..12).collect::<Vec<_>>(), (12..24).collect()]);
    assert_eq!(structure::joint(&layers)[1].len(), 12 + 1 + 8);
    assert_eq!(structure::shapes(&layers).len(), 12);
    assert_eq!(structure::shapes(&layers)[5], [5, 17]);
    assert_eq!(structure::channels(&layers)[0], [26, 27, 28, 29, 34, 35, 36, 37]);
    assert_eq!(structure::depth(&layers)[1], (26..42).collect::<Vec<_>>());
    assert_eq!(structure::filters(&layers), structure::incoming(&layers));
}
