//! What must hold for the CPU model whatever the shape, pattern and machine.

use hwsim::cost::roofline::compulsory;
use hwsim::cost::{CostModel, Options, Timing, model};
use hwsim::dtype::DType;
use hwsim::lower::{Attention, Gemm, Lowered, Source, SparseGemm, Stream, StreamKind};
use hwsim::pattern::SparsityPattern as P;
use hwsim::profile::{Device, Profile};
use hwsim::units::{Bytes, Seconds};
use proptest::prelude::*;

const XEON: &str = r#"
name = "Intel Xeon Gold 6148, one socket"
clock = "2.4 GHz"
[memory]
bandwidth = "118 GB/s"
[device.cpu]
cores = 20
macs = { fp32 = "32 MAC/cy" }
cache = [
  { level = "L1", size = "32 KiB", line = "64 B", ways = 8, bandwidth = "128 B/cy" },
  { level = "L2", size = "1 MiB", line = "64 B", ways = 16, bandwidth = "64 B/cy" },
  { level = "L3", size = "27.5 MiB", line = "64 B", ways = 11, bandwidth = "16 B/cy", shared = true },
]
"#;
const ONE_CACHE: &str = r#"
name = "small core, AVX2"
clock = "1 GHz"
[memory]
bandwidth = "4 GB/s"
latency = "90 ns"
[device.cpu]
cores = 3
macs = { fp32 = "16 MAC/cy" }
cache = [{ level = "L1", size = "16 KiB", line = "32 B", ways = 1, bandwidth = "32 B/cy" }]
[energy]
mac = { fp32 = "4.6 pJ/MAC" }
byte = { dram = "160 pJ/B", l1 = "1 pJ/B" }
static = "1 W"
"#;
const MATRIX: &str = r#"
name = "server with matrix units"
clock = "3 GHz"
[memory]
bandwidth = "300 GB/s"
[device.cpu]
cores = 56
macs = { fp32 = "32 MAC/cy", bf16 = "64 MAC/cy", int8 = "128 MAC/cy" }
matrix = { bf16 = "512 MAC/cy", int8 = "1024 MAC/cy" }
cache = [
  { level = "L1", size = "48 KiB", line = "64 B", ways = 12, bandwidth = "128 B/cy" },
  { level = "L2", size = "2 MiB", line = "64 B", ways = 16, bandwidth = "64 B/cy" },
  { level = "L3", size = "105 MiB", line = "64 B", ways = 15, bandwidth = "16 B/cy", shared = true },
]
"#;

fn profile() -> impl Strategy<Value = Profile> {
    (0usize..3).prop_map(|i| Profile::from_toml([XEON, ONE_CACHE, MATRIX][i], "test").unwrap())
}

fn extent() -> impl Strategy<Value = u64> {
    prop_oneof![1u64..40, 1u64..3000, (0u32..13).prop_map(|e| 1 << e)]
}

fn gemm() -> impl Strategy<Value = Gemm> {
    (1u64..5, extent(), extent(), extent()).prop_map(|(groups, m, n, k)| Gemm { groups, m, n, k })
}

fn pattern() -> impl Strategy<Value = P> {
    let s = || (0u32..100).prop_map(|f| f64::from(f) / 100.0);
    prop_oneof![
        Just(P::Dense),
        (1u64..4, 0u64..5).prop_map(|(n, d)| P::Nm { n, m: n + d }),
        (0u64..20).prop_map(|d| P::Vnm { v: 64, n: 2, m: 4 + d }),
        s().prop_map(P::Unstructured),
        (0u32..6, 0u32..7, s()).prop_map(|(r, c, sparsity)| P::Block { rows: 1 << r, cols: 1 << c, sparsity }),
        s().prop_map(P::Row),
        s().prop_map(P::Column),
    ]
}

fn operation() -> impl Strategy<Value = Lowered> {
    let dtype = || (0..DType::ALL.len()).prop_map(|i| DType::ALL[i]);
    prop_oneof![
        5 => (gemm(), pattern(), dtype(), prop_oneof![Just(1u64), 1u64..50]).prop_map(|(g, p, d, steps)| {
            let mut op = SparseGemm::with_pattern(g, d, p);
            if steps > 1 {
                op.source = Source::Recurrent { steps };
            }
            Lowered::Gemm(op)
        }),
        1 => (1u64..4, 0u32..4, 0u32..3, 1u64..600, 0u64..600, any::<bool>(), dtype()).prop_map(
            |(batch, kv, share, queries, more, causal, dtype)| Lowered::Attention(Attention {
                batch, heads: 1 << (kv + share), kv_heads: 1 << kv, queries, keys: queries + more, head_dim: 64, causal,
                window: None, dtype, resident: Bytes::ZERO,
            })
        ),
        1 => (extent(), extent(), dtype(), any::<bool>()).prop_map(|(rows, cols, dtype, softmax)| {
            let bytes = Bytes((rows * cols) as f64 * dtype.bytes());
            let kind = if softmax { StreamKind::Softmax } else { StreamKind::Pointwise };
            Lowered::Stream(Stream { kind, rows, cols, input: bytes, parameters: Bytes::ZERO, output: bytes,
                operations: (rows * cols) as f64, dtype, resident: Bytes::ZERO })
        }),
    ]
}

fn build(profile: &Profile, threads: Option<u64>, timing: Timing) -> Box<dyn CostModel> {
    model(profile, Options { threads, timing }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn no_time_beats_the_roofline_and_each_level_moves_what_it_must(
        p in profile(), op in operation(), warm in any::<bool>(),
    ) {
        let model = build(&p, None, if warm { Timing::Warm } else { Timing::Cold });
        let cost = model.cost(&op).unwrap();
        prop_assert!(cost.time >= model.roofline(&op) && cost.time > Seconds::ZERO && cost.time.get().is_finite());
        prop_assert!(cost.overhead <= cost.time * (1.0 + 1e-12));
        prop_assert!((0.0..=1.0).contains(&cost.utilization));
        prop_assert!(cost.macs.issued >= cost.macs.effectual * (1.0 - 1e-9), "{:?}", cost.macs);
        prop_assert_eq!(cost.energy.is_some(), p.energy.is_some());
        if !warm {
            let least = compulsory(&op).total() * (1.0 - 1e-9);
            for (i, name) in model.levels().iter().enumerate() {
                let moved = cost.traffic.levels[i].total();
                prop_assert!(moved >= least, "{name}: {moved:?} < {least:?}");
            }
        }
    }

    #[test]
    fn removing_nothing_is_dense_to_the_last_bit(p in profile(), g in gemm(), which in 0usize..4) {
        let model = build(&p, None, Timing::Cold);
        let nothing = [P::Unstructured(0.0), P::Row(0.0), P::Nm { n: 4, m: 4 }, P::Column(0.0)][which];
        let dense = model.cost(&Lowered::Gemm(SparseGemm::dense(g, DType::Fp32))).unwrap();
        let sparse = model.cost(&Lowered::Gemm(SparseGemm::with_pattern(g, DType::Fp32, nothing))).unwrap();
        prop_assert_eq!(dense, sparse);
    }

    #[test]
    fn more_threads_are_never_slower_but_for_how_shares_fit_the_tile(p in profile(), op in operation(), a in 1u64..57, b in 1u64..57) {
        let time = |threads| build(&p, Some(threads), Timing::Cold).cost(&op).unwrap().time;
        let (few, many) = (time(a.min(b)), time(a.max(b)));
        // Another division may leave shares that fit register tiles a little worse, or a fuller fullest one.
        prop_assert!(many <= few * 1.06, "{many:?} > {few:?} with {} and {} threads", a.max(b), a.min(b));
    }

    #[test]
    fn all_rates_times_two_is_half_the_time(p in profile(), op in operation()) {
        let mut fast = p.clone();
        fast.clock = fast.clock * 2.0;
        fast.memory.bandwidth = fast.memory.bandwidth * 2.0;
        fast.memory.latency = fast.memory.latency.map(|l| l / 2.0);
        for timing in [Timing::Cold, Timing::Warm, Timing::Host] {
            let time = |p: &Profile| build(p, None, timing).cost(&op).unwrap().time;
            prop_assert!((time(&p) / time(&fast) / 2.0 - 1.0).abs() < 1e-9);
        }
    }
}

#[test]
fn huge_products_stay_finite() {
    for text in [XEON, ONE_CACHE, MATRIX] {
        let p = Profile::from_toml(text, "test").unwrap();
        assert!(matches!(p.device, Device::Cpu(_)));
        let model = build(&p, None, Timing::Cold);
        for (m, n, k) in
            [(1, 1 << 40, 1 << 20), (1 << 40, 1, 1), (1, 1, 1 << 40), (1 << 40, 1 << 40, 1 << 40), (1, 1, 1)]
        {
            for pattern in ["dense", "2:4", "unstructured@0.9", "block:16x16@0.9"] {
                let gemm = Gemm { groups: 1, m, n, k };
                let op = Lowered::Gemm(SparseGemm::with_pattern(gemm, DType::Fp32, pattern.parse().unwrap()));
                let cost = model.cost(&op).unwrap();
                assert!(cost.time.get().is_finite() && cost.time >= model.roofline(&op), "{m}×{n}×{k} {pattern}");
            }
        }
    }
}
