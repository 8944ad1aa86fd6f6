//! The register-level simulator against the closed forms: equal products, cycles, busy elements and SRAM accesses.

use hwsim::cost::systolic::fold::Array;
use hwsim::cost::systolic::sparse::{Skipping, counted};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::systolic::{Dataflow, Folding};
use hwsim::simulate::systolic::{Operands, run};
use hwsim::sparsity::Mask;
use rand::{RngExt, SeedableRng};

const FOLDINGS: [Folding; 2] = [Folding::Serial, Folding::Overlapped];

fn check(array: Array, m: u64, mask: &Mask, skipping: Skipping, seed: u64) {
    let expected = counted(array, m, mask, skipping).unwrap();
    let mut operands = Operands::draw(m, mask.clone(), seed);
    let run = run(array, &mut operands, skipping).unwrap();
    let case = || format!("{array:?} m={m} n={} k={} {skipping:?}", mask.rows(), mask.cols());
    assert!(run.product == operands.product(), "wrong product: {}", case());
    assert_eq!(run.counts, expected, "{}", case());
}

/// Every array up to 6×6, every product up to 9×9×9, every dataflow, serial and overlapped.
#[test]
fn dense_is_exact_everywhere_on_small_arrays() {
    // Two halves on two threads: 157,464 runs.
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                for rows in (1 + half..=6).step_by(2) {
                    dense_with_rows(rows);
                }
            });
        }
    });
}

fn dense_with_rows(rows: u64) {
    for cols in 1..=6 {
        for (n, k) in (1..=9).flat_map(|n| (1..=9).map(move |k| (n, k))) {
            let mask = Mask::from_fn(n, k, |_, _| true);
            for m in 1..=9 {
                for dataflow in Dataflow::ALL {
                    for folding in FOLDINGS {
                        let array = Array { rows, cols, dataflow, folding };
                        check(array, m, &mask, Skipping::None, m * 100 + n * 10 + k);
                    }
                }
            }
        }
    }
}

/// 2,000 random arrays and products, each sparse mode on random masks.
#[test]
fn sparse_is_exact_on_random_masks() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    for case in 0..2000u64 {
        let (rows, cols) = (rng.random_range(1..=12), rng.random_range(1..=12));
        let (m, n, k) = (rng.random_range(1..=30), rng.random_range(1..=30), rng.random_range(1..=40));
        let dataflow = Dataflow::ALL[rng.random_range(0..3)];
        let array = Array { rows, cols, dataflow, folding: FOLDINGS[rng.random_range(0..2)] };
        let s = rng.random_range(0.0..0.98);
        let draw = |pattern| Mask::draw(pattern, n, k, case);
        let unstructured = draw(SparsityPattern::Unstructured(s));
        for skipping in [
            Skipping::None,
            Skipping::Gating,
            Skipping::Compaction,
            Skipping::ZeroTiles,
            Skipping::NmRow { m: [2, 4, 8][case as usize % 3] },
            Skipping::ColumnCombining { limit: 8, conflicts: 0.0 },
            Skipping::ColumnCombining { limit: 4, conflicts: 0.5 },
            Skipping::Queues { depth: 1 + case % 12 },
        ] {
            check(array, m, &unstructured, skipping, case);
        }
        check(
            array,
            m,
            &draw(SparsityPattern::Block { rows: cols, cols: rows, sparsity: s }),
            Skipping::ZeroTiles,
            case,
        );
        check(array, m, &draw(SparsityPattern::Column(s)), Skipping::Compaction, case);
        check(array, m, &draw(SparsityPattern::Row(s)), Skipping::Compaction, case);
        let (kept, group) = [(2, 4), (1, 4), (4, 8), (1, 2), (3, 5)][case as usize % 5];
        let nm = draw(SparsityPattern::Nm { n: kept, m: group });
        check(array, m, &nm, Skipping::NmColumn { n: kept, m: group }, case);
        let same_for_all = Mask::from_fn(n, k, |_, c| nm.get(0, c));
        check(array, m, &same_for_all, Skipping::NmLayer { n: kept, m: group }, case);
    }
}

#[test]
fn a_mask_that_the_hardware_cannot_take_is_refused() {
    let array = Array { rows: 2, cols: 2, dataflow: Dataflow::WeightStationary, folding: Folding::Serial };
    let mask = Mask::from_fn(3, 8, |_, _| true);
    for skipping in [Skipping::NmColumn { n: 2, m: 4 }, Skipping::NmLayer { n: 2, m: 4 }] {
        assert!(counted(array, 3, &mask, skipping).is_err());
        assert!(run(array, &mut Operands::draw(3, mask.clone(), 1), skipping).is_err());
    }
}
