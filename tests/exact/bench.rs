//! What ends a measurement.

use hwsim::bench::run::Times;
use hwsim::pattern::SparsityPattern;

fn times(warm: &[f64], cold: &[f64]) -> Times {
    let (warm, cold) = (warm.to_vec(), cold.to_vec());
    Times { pattern: SparsityPattern::Dense, kernel: "dense", dtype: "fp32", calls: 1, warm, cold }
}

#[test]
fn a_pass_counts_by_how_much_it_lowers_the_fastest_rounds() {
    let before = times(&[4.0, 2.0], &[8.0]);
    let lowered = |again: &Times| before.lowered_by(again).collect::<Vec<_>>();
    assert_eq!(lowered(&times(&[3.0, 1.5], &[10.0])), [0.25, 0.0]);
    assert_eq!(lowered(&times(&[2.0], &[2.0, 9.0])), [0.0, 0.75]);
    assert_eq!(lowered(&times(&[1.0], &[])), [0.5], "a pass without cold rounds says nothing of them");
    assert!(lowered(&times(&[], &[])).is_empty());
}
