//! What must hold for every pattern, matrix and tile.

use hwsim::dtype::DType;
use hwsim::pattern::SparsityPattern as P;
use hwsim::sparsity::{FormatName, Mask, StorageFormat, Tile, WeightStats};
use proptest::prelude::*;
use std::sync::Arc;

fn fraction() -> impl Strategy<Value = f64> {
    (0u32..1000).prop_map(|f| f64::from(f) / 1000.0)
}

fn pattern() -> impl Strategy<Value = P> {
    prop_oneof![
        Just(P::Dense),
        (1u64..5, 0u64..5).prop_map(|(n, d)| P::Nm { n, m: n + d }),
        (1u64..40, 1u64..4, 0u64..20).prop_map(|(v, n, d)| P::Vnm { v, n, m: n + d }),
        fraction().prop_map(P::Unstructured),
        (1u64..20, 1u64..20, fraction()).prop_map(|(rows, cols, sparsity)| P::Block { rows, cols, sparsity }),
        fraction().prop_map(P::Row),
        fraction().prop_map(P::Column),
        fraction().prop_map(P::Channel),
        fraction().prop_map(P::Head),
    ]
}

proptest! {
    #[test]
    fn spelling_round_trips(p in pattern()) {
        prop_assert_eq!(p.to_string().parse::<P>().unwrap(), p);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _ = text.parse::<P>();
        let _ = text.parse::<hwsim::lower::Rule>();
    }

    #[test]
    fn occupancy_lies_between_density_and_one(p in pattern(), rows in 1u64..200, cols in 1u64..200, tr in 1u64..40, tc in 1u64..40) {
        let stats = WeightStats::expected(p, rows, cols);
        let occupied = stats.occupied_tiles(Tile::new(tr, tc));
        let tiles = (rows.div_ceil(tr) * cols.div_ceil(tc)) as f64;
        prop_assert!((0.0..=tiles * (1.0 + 1e-9)).contains(&occupied));
        // A tile holds at most tr·tc of the nonzeros.
        prop_assert!(occupied * (tr * tc) as f64 >= stats.nonzeros() * (1.0 - 1e-9) - 1e-9, "{occupied} tiles for {}", stats.nonzeros());
    }

    #[test]
    fn more_zeros_never_store_more(a in fraction(), b in fraction(), rows in 1u64..100, cols in 1u64..100) {
        let (less, more) = (a.min(b), a.max(b));
        for make in [P::Unstructured as fn(f64) -> P, P::Row, P::Column] {
            let (x, y) = (WeightStats::expected(make(less), rows, cols), WeightStats::expected(make(more), rows, cols));
            prop_assert!(y.nonzeros() <= x.nonzeros());
            for format in [StorageFormat::Csr, StorageFormat::Coo, StorageFormat::Bitmask, StorageFormat::Dense] {
                prop_assert!(format.bytes(&y, DType::Fp16).values <= format.bytes(&x, DType::Fp16).values);
            }
        }
    }

    #[test]
    fn imbalance_is_at_least_one_and_bounded(p in pattern(), rows in 1u64..500, cols in 1u64..500, units in 1u64..300) {
        let stats = WeightStats::expected(p, rows, cols);
        prop_assert!(stats.imbalance(units) >= 1.0);
        prop_assert!(stats.tile_imbalance(256.0, units as f64) >= 1.0);
        prop_assert!(stats.imbalance(units).is_finite());
    }

    #[test]
    fn a_drawn_mask_has_exactly_the_promised_nonzeros(p in pattern(), rows in 1u64..60, cols in 1u64..60, seed: u64) {
        let mask = Mask::draw(p, rows, cols, seed);
        prop_assert_eq!(&mask, &Mask::draw(p, rows, cols, seed), "the same seed gives the same mask");
        let expected = WeightStats::expected(p, rows, cols).nonzeros();
        match p {
            // Edge blocks are smaller, so that only the mean is promised.
            P::Block { rows: r, cols: c, .. } if rows % r != 0 || cols % c != 0 => {}
            // The last group's kept columns may number fewer than N.
            P::Vnm { m, .. } if cols % m != 0 => {}
            _ => prop_assert_eq!(mask.count() as f64, expected),
        }
        if let P::Nm { n, m } = p {
            for r in 0..rows {
                for start in (0..cols).step_by(m as usize) {
                    let kept = (start..(start + m).min(cols)).filter(|&c| mask.get(r, c)).count() as u64;
                    prop_assert_eq!(kept, n.min(cols - start));
                }
            }
        }
    }
}

/// Expectations and drawn masks agree within the sampling error of the drawing: three standard errors of 60 masks.
#[test]
fn expectation_agrees_with_drawn_masks() {
    let (rows, cols, draws) = (96u64, 160u64, 60u64);
    let patterns = [
        "unstructured@0.9",
        "unstructured@0.99",
        "2:4",
        "1:8",
        "block:8x4@0.9",
        "row@0.7",
        "column@0.8",
        "16:2:16",
        "8:1:10",
    ];
    for text in patterns {
        let p: P = text.parse().unwrap();
        let expected = WeightStats::expected(p, rows, cols);
        let counted: Vec<WeightStats> =
            (0..draws).map(|s| WeightStats::counted(p, Arc::new(Mask::draw(p, rows, cols, s)))).collect();
        let agree = |what: &str, expectation: f64, samples: Vec<f64>, slack: f64| {
            let n = samples.len() as f64;
            let mean = samples.iter().sum::<f64>() / n;
            let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
            // An event that no draw showed may still happen three times in as many (the rule of three).
            let allowed = 3.0 * (variance / n).sqrt() + slack * expectation.abs() + 3.0 / n;
            assert!(
                (mean - expectation).abs() <= allowed,
                "{text} {what}: drawn {mean}, expected {expectation} ± {allowed}"
            );
        };
        for tile in [Tile::new(1, 2), Tile::new(1, 8), Tile::new(4, 4), Tile::new(16, 16), Tile::new(32, 32)] {
            let drawn = counted.iter().map(|s| s.occupied_tiles(tile)).collect();
            agree(&format!("{tile:?}"), expected.occupied_tiles(tile), drawn, 0.0);
        }
        for format in [FormatName::Csr, FormatName::Bitmask, FormatName::RunLength] {
            let format = format.of(p).unwrap();
            let drawn = counted.iter().map(|s| format.bytes(s, DType::Fp16).total().get()).collect();
            // Gaps of structured patterns are not geometric, so run-length is an approximation there.
            let slack = if format == StorageFormat::RunLength { 0.12 } else { 0.0 };
            agree(&format!("{format:?}"), format.bytes(&expected, DType::Fp16).total().get(), drawn, slack);
        }
        // Order statistics are asymptotic: 4 % of slack on the largest share.
        for units in [4, 24, 96] {
            let drawn = counted.iter().map(|s| s.imbalance(units)).collect();
            agree(&format!("{units} units"), expected.imbalance(units), drawn, 0.04);
        }
    }
}
