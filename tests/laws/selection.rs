//! Selection keeps as much as anything that the pattern admits: against brute force on small matrices, and as laws.

use hwsim::pattern::SparsityPattern;
use hwsim::sparsity::mask::kept;
use hwsim::sparsity::select::{self, global::Scored};
use hwsim::sparsity::{Mask, select::transposable};
use proptest::prelude::*;

fn value(mask: &Mask, scores: &[f32], k: usize) -> f64 {
    (0..mask.rows())
        .flat_map(|r| mask.columns(r).map(move |c| (r, c)))
        .map(|(r, c)| f64::from(scores[r as usize * k + c as usize]))
        .sum()
}

/// The best value over all 2^(n·k) masks that a rule admits.
fn best(scores: &[f32], admits: impl Fn(u32) -> bool) -> f64 {
    let sum =
        |m: u32| scores.iter().enumerate().filter(|(i, _)| m >> i & 1 == 1).map(|(_, &s)| f64::from(s)).sum::<f64>();
    (0u32..1 << scores.len()).filter(|&m| admits(m)).map(sum).fold(f64::NEG_INFINITY, f64::max)
}

fn scores(len: usize) -> impl Strategy<Value = Vec<f32>> {
    // Few distinct values, so that ties happen.
    prop::collection::vec((0u8..20).prop_map(|x| f32::from(x) / 4.0), len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn n_of_m_is_optimal(s in scores(12), n in 1u64..4) {
        let (rows, k, m) = (2usize, 6usize, 4u64);
        let mask = select::mask(&s, rows, k, &SparsityPattern::Nm { n, m }).unwrap();
        let admits = |bits: u32| (0..rows).all(|r| {
            (0..k).step_by(4).all(|g| (g..(g + 4).min(k)).filter(|c| bits >> (r * k + c) & 1 == 1).count() as u64 <= n)
        });
        prop_assert!((value(&mask, &s, k) - best(&s, admits)).abs() < 1e-9);
    }

    #[test]
    fn blocks_rows_columns_and_weights_are_optimal(s in scores(12), fraction in 0.0f64..0.99) {
        let (n, k) = (3usize, 4usize);
        for (pattern, br, bc) in [
            (SparsityPattern::Block { rows: 2, cols: 3, sparsity: fraction }, 2, 3),
            (SparsityPattern::Row(fraction), 1, 4),
            (SparsityPattern::Column(fraction), 3, 1),
            (SparsityPattern::Unstructured(fraction), 1, 1),
        ] {
            let mask = select::mask(&s, n, k, &pattern).unwrap();
            let across = k.div_ceil(bc);
            let units = n.div_ceil(br) * across;
            // A set of whole units, as many as the pattern keeps.
            let unit = |i: usize| (i / k) / br * across + (i % k) / bc;
            let keep = kept(units as u64, fraction);
            let admits = |bits: u32| {
                let full = |u: usize| (0..n * k).filter(|&i| unit(i) == u).all(|i| bits >> i & 1 == 1);
                let empty = |u: usize| (0..n * k).filter(|&i| unit(i) == u).all(|i| bits >> i & 1 == 0);
                (0..units).all(|u| full(u) || empty(u)) && (0..units).filter(|&u| full(u)).count() as u64 == keep
            };
            prop_assert!((value(&mask, &s, k) - best(&s, admits)).abs() < 1e-9, "{pattern}");
            prop_assert!(admits((0..n * k).filter(|&i| mask.get((i / k) as u64, (i % k) as u64)).map(|i| 1u32 << i).sum::<u32>()));
        }
    }

    #[test]
    fn strips_of_v_n_m_are_optimal(s in scores(12)) {
        // Two rows share 4 of 6 columns, each keeps 2 of them.
        let mask = select::mask(&s, 2, 6, &SparsityPattern::Vnm { v: 2, n: 2, m: 6 }).unwrap();
        let admits = |bits: u32| {
            let (a, b) = (bits & 63, bits >> 6 & 63);
            a.count_ones() <= 2 && b.count_ones() <= 2 && (a | b).count_ones() <= 4
        };
        prop_assert!((value(&mask, &s, 6) - best(&s, admits)).abs() < 1e-9);
    }

    #[test]
    fn transposable_blocks_are_optimal(s in scores(16), keep in 1u64..4) {
        // 4×4 with N = 2 goes through enumeration, the others through flow; 3×3 below through flow alone.
        let admits = |bits: u32| (0..4).all(|i| {
            u64::from((bits >> (4 * i) & 15).count_ones()) <= keep
                && u64::from((bits & (0x1111u32 << i)).count_ones()) <= keep
        });
        let mask = transposable(&s, 4, 4, keep, 4).unwrap();
        prop_assert!((value(&mask, &s, 4) - best(&s, admits)).abs() < 1e-9, "{keep}:4");
        let small = &s[..9];
        let admits = |bits: u32| (0..3).all(|i| {
            u64::from((bits >> (3 * i) & 7).count_ones()) <= keep.min(2) && u64::from((bits & (0x49u32 << i)).count_ones()) <= keep.min(2)
        });
        let mask = transposable(small, 3, 3, keep.min(2), 3).unwrap();
        prop_assert!((value(&mask, small, 3) - best(small, admits)).abs() < 1e-9);
    }

    #[test]
    fn transposable_holds_along_both_axes_with_edges(s in scores(15 * 13), keep in 1u64..5) {
        let mask = transposable(&s, 15, 13, keep, 8).unwrap();
        for r in 0..15 {
            for g in [0..8, 8..13] { prop_assert!(g.filter(|&c| mask.get(r, c)).count() as u64 <= keep); }
        }
        for c in 0..13 {
            for g in [0..8, 8..15] { prop_assert!(g.filter(|&r| mask.get(r, c)).count() as u64 <= keep); }
        }
    }

    #[test]
    fn one_budget_keeps_more_than_many(a in scores(24), b in scores(24), fraction in 0.1f64..0.9) {
        let pattern = SparsityPattern::Unstructured(fraction);
        let layers = [Scored { scores: &a, n: 4, k: 6 }, Scored { scores: &b, n: 6, k: 4 }];
        let masks = select::global(&layers, &pattern).unwrap();
        prop_assert_eq!(masks.iter().map(Mask::count).sum::<u64>(), kept(48, fraction));
        let global = value(&masks[0], &a, 6) + value(&masks[1], &b, 4);
        // No choice of as many weights is worth more: the sum of the largest of both.
        let mut all: Vec<f32> = a.iter().chain(&b).copied().collect();
        all.sort_by(|x, y| y.total_cmp(x));
        let bound: f64 = all[..kept(48, fraction) as usize].iter().map(|&x| f64::from(x)).sum();
        prop_assert!((global - bound).abs() < 1e-6);
    }

    #[test]
    fn a_better_column_order_never_keeps_less(s in scores(8 * 16), seed in 0u64..4) {
        let order = select::permutation(&s, 8, 16, 2, 4, seed).unwrap();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..16).collect::<Vec<_>>());
        let (before, after) = hwsim::sparsity::quality::permuted(&s, 8, 16, 2, 4, seed).unwrap();
        prop_assert!(after >= before - 1e-12);
        prop_assert_eq!(order, select::permutation(&s, 8, 16, 2, 4, seed).unwrap());
    }

    #[test]
    fn rounded_counts_are_near_and_admissible(total in 1u64..400, width in 1u64..5, s in 0.0f64..0.999, multiple in 1u64..65) {
        let units = select::round_units(total, width, s, multiple);
        prop_assert!(units >= 1 && units <= total);
        let exact = kept(total, s).max(1);
        prop_assert!(units == exact || units == total || units * width % multiple == 0);
        prop_assert!(units.abs_diff(exact) <= multiple);
        prop_assert_eq!(select::round_units(total, width, s, 1), exact);
    }
}

#[test]
fn large_m_in_v_n_m_stays_within_its_pattern() {
    let s: Vec<f32> = (0..8 * 64).map(|i| ((i * 7919) % 1013) as f32).collect();
    let mask = select::mask(&s, 8, 64, &SparsityPattern::Vnm { v: 4, n: 2, m: 16 }).unwrap();
    for strip in [0..4u64, 4..8] {
        for g in 0..4u64 {
            let used = |c: &u64| strip.clone().any(|r| mask.get(r, *c));
            assert!((g * 16..g * 16 + 16).filter(used).count() <= 4);
            assert!(strip.clone().all(|r| (g * 16..g * 16 + 16).filter(|&c| mask.get(r, c)).count() == 2));
        }
    }
}

#[test]
fn a_search_for_an_order_finds_what_is_there() {
    // Every row has its two large weights in one group: 2:4 keeps all of it in no order worse than this, and half of it
    // when a group holds all four.
    let s: Vec<f32> = (0..4).flat_map(|_| [9.0, 9.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0]).collect();
    let (before, after) = hwsim::sparsity::quality::permuted(&s, 4, 8, 2, 4, 0).unwrap();
    assert_eq!((before, after), (0.5, 1.0));
}

#[test]
fn scores_that_fit_nothing_are_refused() {
    let pattern = SparsityPattern::Nm { n: 2, m: 4 };
    assert!(select::mask(&[1.0; 7], 2, 4, &pattern).unwrap_err().to_string().contains("2×4"));
    assert!(select::mask(&[f32::NAN; 8], 2, 4, &pattern).unwrap_err().to_string().contains("row 0, column 0"));
    assert!(transposable(&[-1.0; 16], 4, 4, 2, 4).is_err());
    assert_eq!(select::mask(&[], 0, 4, &pattern).unwrap().count(), 0);
}
