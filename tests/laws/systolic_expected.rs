//! Expected-value forms against the mean over random masks.

use hwsim::cost::systolic::expected::work;
use hwsim::cost::systolic::fold::Array;
use hwsim::cost::systolic::sparse::{Skipping, counted};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::systolic::{Dataflow, Folding};
use hwsim::sparsity::{Mask, WeightStats};

#[test]
fn expectations_are_the_means_of_masks() {
    let patterns = [
        SparsityPattern::Unstructured(0.5),
        SparsityPattern::Unstructured(0.9),
        SparsityPattern::Unstructured(0.99),
        SparsityPattern::Block { rows: 8, cols: 8, sparsity: 0.8 },
        SparsityPattern::Nm { n: 2, m: 4 },
        SparsityPattern::Nm { n: 1, m: 4 },
    ];
    let mut worst = Vec::new();
    for (rows, cols) in [(8, 8), (16, 4), (4, 16)] {
        for dataflow in Dataflow::ALL {
            for folding in [Folding::Serial, Folding::Overlapped] {
                let array = Array { rows, cols, dataflow, folding };
                for pattern in patterns {
                    for skipping in [
                        Skipping::ZeroTiles,
                        Skipping::NmRow { m: 4 },
                        Skipping::Queues { depth: 8 },
                        Skipping::Compaction,
                    ] {
                        let (m, n, k) = (50, 96, 130);
                        let masks = 60;
                        let mean = |f: &dyn Fn(&Mask) -> u64| {
                            (0..masks).map(|s| f(&Mask::draw(pattern, n, k, s)) as f64).sum::<f64>() / masks as f64
                        };
                        let expected = work(array, m, &WeightStats::expected(pattern, n, k), skipping).unwrap();
                        let cycles = mean(&|mask| counted(array, m, mask, skipping).unwrap().cycles);
                        let active = mean(&|mask| counted(array, m, mask, skipping).unwrap().active);
                        let error = |a: f64, b: f64| (a / b - 1.0).abs();
                        worst.push((
                            error(expected.cycles, cycles),
                            format!("cycles {pattern} {skipping:?} {array:?} {} {cycles}", expected.cycles),
                        ));
                        worst.push((
                            error(expected.active, active),
                            format!("active {pattern} {skipping:?} {array:?} {} {active}", expected.active),
                        ));
                    }
                }
            }
        }
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mean = worst.iter().map(|w| w.0).sum::<f64>() / worst.len() as f64;
    println!("mean error {:.2} %, worst {:.2} %: {}", mean * 100.0, worst[0].0 * 100.0, worst[0].1);
    assert!(mean < 0.01, "mean error {mean}");
    // The tail is tiny products on which whole folds come and go.
    assert!(worst[0].0 < 0.12, "{:?}", worst[0]);
}
