//! What must hold for every array, operation and sparse mode.

use hwsim::cost::{Options, model};
use hwsim::dtype::DType;
use hwsim::lower::{Gemm, Lowered, SparseGemm};
use hwsim::pattern::SparsityPattern as P;
use hwsim::profile::Profile;
use proptest::prelude::*;

const MODES: [&str; 8] =
    ["none", "gate", "skip-zero-tiles", "nm", "nm-rows", "nm-layer", "column-combining", "skip-unstructured"];
const DATAFLOWS: [&str; 3] = ["output-stationary", "weight-stationary", "input-stationary"];

fn array(rows: u64, cols: u64, dataflow: usize, mode: usize, overlapped: bool, more: &str) -> Profile {
    let folds = if overlapped { "overlapped" } else { "serial" };
    let text = format!(
        "name = \"t\"\nclock = \"1 GHz\"\n[memory]\nbandwidth = \"20 GB/s\"\n[device.systolic]\nrows = {rows}\ncols = {cols}\n\
         dataflow = \"{}\"\nsparsity = \"{}\"\nfolds = \"{folds}\"\ntechnology_nm = 16\n\
         sram = {{ inputs = \"32 KiB\", weights = \"32 KiB\", outputs = \"32 KiB\" }}\n{more}",
        DATAFLOWS[dataflow], MODES[mode]
    );
    Profile::from_toml(&text, "t").unwrap()
}

fn pattern() -> impl Strategy<Value = P> {
    prop_oneof![
        Just(P::Dense),
        Just(P::Nm { n: 2, m: 4 }),
        Just(P::Nm { n: 1, m: 8 }),
        Just(P::Vnm { v: 32, n: 2, m: 8 }),
        (0u32..100).prop_map(|s| P::Unstructured(f64::from(s) / 100.0)),
        (0u32..6, 0u32..6, 0u32..100).prop_map(|(r, c, s)| P::Block {
            rows: 1 << r,
            cols: 1 << c,
            sparsity: f64::from(s) / 100.0
        }),
        (0u32..100).prop_map(|s| P::Row(f64::from(s) / 100.0)),
        (0u32..100).prop_map(|s| P::Column(f64::from(s) / 100.0)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_beats_the_roofline_and_sparse_never_costs_cycles(
        (rows, cols) in (1u64..40, 1u64..40), dataflow in 0usize..3, mode in 0usize..8, overlapped: bool,
        (groups, m, n, k) in (1u64..4, 1u64..300, 1u64..200, 1u64..300), pattern in pattern(), arrays in 1u64..5,
    ) {
        let profile = array(rows, cols, dataflow, mode, overlapped, &format!("arrays = {arrays}\n"));
        let model = model(&profile, Options::default()).unwrap();
        let gemm = Gemm { groups, m, n, k };
        let op = Lowered::Gemm(SparseGemm::with_pattern(gemm, DType::Int8, pattern));
        let cost = model.cost(&op).unwrap();
        let floor = model.roofline(&op);
        prop_assert!(cost.time.get() >= floor.get() * (1.0 - 1e-9), "{} under {}", cost.time.get(), floor.get());
        prop_assert!((0.0..=1.0).contains(&cost.utilization));
        prop_assert!(cost.energy.unwrap().get().is_finite());
        prop_assert!(cost.compute.get() > 0.0 || cost.macs.effectual < 1.0);
        let dense = model.cost(&Lowered::Gemm(SparseGemm::dense(gemm, DType::Int8))).unwrap();
        prop_assert!(cost.compute.get() <= dense.compute.get() * (1.0 + 1e-9) + 1.0, "{} over {}", cost.compute.get(), dense.compute.get());
    }

    #[test]
    fn more_work_takes_longer(
        (rows, cols) in (1u64..40, 1u64..40), dataflow in 0usize..3, overlapped: bool, (m, n, k) in (1u64..300, 1u64..200, 1u64..300),
    ) {
        let profile = array(rows, cols, dataflow, 0, overlapped, "");
        let model = model(&profile, Options::default()).unwrap();
        let cycles = |m, n, k| model.cost(&Lowered::Gemm(SparseGemm::dense(Gemm { groups: 1, m, n, k }, DType::Int8))).unwrap().compute;
        let own = cycles(m, n, k);
        prop_assert!(cycles(m + 7, n, k) >= own && cycles(m, n + 7, k) >= own && cycles(m, n, k + 7) >= own);
    }
}
