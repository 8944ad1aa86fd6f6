//! What must hold for every machine, operation and pattern, whatever the numbers.

use hwsim::cost::network::network;
use hwsim::cost::{CostModel, LayerCost, Options, Timing, model, roofline};
use hwsim::dtype::DType;
use hwsim::lower::{Assignment, Attention, Gemm, Lowered, SparseGemm, Step, Stream, StreamKind, steps};
use hwsim::pattern::SparsityPattern as P;
use hwsim::profile::{Device, Profile};
use hwsim::units::{Bytes, Seconds};
use hwsim::workload::{self, resolve};
use proptest::prelude::*;
use std::sync::LazyLock;

static PROFILES: LazyLock<Vec<Profile>> =
    LazyLock::new(|| Profile::built_in().unwrap().into_iter().map(|(_, p)| p).collect());

fn profile() -> impl Strategy<Value = &'static Profile> {
    (0..PROFILES.len()).prop_map(|i| &PROFILES[i])
}

/// Extents from 1 to a few thousand, with the powers of two and their neighbours that tiles care about.
fn extent() -> impl Strategy<Value = u64> {
    prop_oneof![1u64..5000, (0u32..13).prop_map(|e| 1 << e), (2u32..13).prop_map(|e| (1 << e) + 1)]
}

fn dtype() -> impl Strategy<Value = DType> {
    (0..DType::ALL.len()).prop_map(|i| DType::ALL[i])
}

fn gemm() -> impl Strategy<Value = Gemm> {
    (1u64..9, extent(), extent(), extent()).prop_map(|(groups, m, n, k)| Gemm { groups, m, n, k })
}

fn fraction() -> impl Strategy<Value = f64> {
    (0u32..100).prop_map(|f| f64::from(f) / 100.0)
}

fn pattern() -> impl Strategy<Value = P> {
    prop_oneof![
        Just(P::Dense),
        (1u64..5, 0u64..5).prop_map(|(n, d)| P::Nm { n, m: n + d }),
        Just(P::Nm { n: 2, m: 4 }),
        (prop_oneof![Just(32u64), Just(64), Just(128)], 0u64..30).prop_map(|(v, d)| P::Vnm { v, n: 2, m: 4 + d }),
        fraction().prop_map(P::Unstructured),
        (0u32..6, 0u32..6, fraction()).prop_map(|(r, c, sparsity)| P::Block { rows: 1 << r, cols: 1 << c, sparsity }),
        fraction().prop_map(P::Row),
        fraction().prop_map(P::Column),
    ]
}

fn operation() -> impl Strategy<Value = Lowered> {
    prop_oneof![
        4 => (gemm(), pattern(), dtype()).prop_map(|(g, p, d)| Lowered::Gemm(SparseGemm::with_pattern(g, d, p))),
        1 => (1u64..9, 0u32..4, 0u32..3, 1u64..600, 1u64..600, any::<bool>(), dtype()).prop_map(
            |(batch, kv, group, queries, more, causal, dtype)| Lowered::Attention(Attention {
                batch, heads: 1 << (kv + group), kv_heads: 1 << kv, queries, keys: queries + more, head_dim: 64, causal,
                window: None, dtype, resident: Bytes::ZERO,
            })
        ),
        1 => (0usize..7, extent(), extent(), dtype()).prop_map(|(kind, rows, cols, dtype)| {
            let kinds = [StreamKind::Pointwise, StreamKind::Norm, StreamKind::Softmax, StreamKind::Pool,
                StreamKind::Reduce, StreamKind::Move, StreamKind::Unknown];
            let bytes = Bytes((rows * cols) as f64 * dtype.bytes());
            Lowered::Stream(Stream { kind: kinds[kind], rows, cols, input: bytes, parameters: Bytes::ZERO,
                output: bytes, operations: 8.0 * (rows * cols) as f64, dtype, resident: Bytes::ZERO })
        }),
    ]
}

fn cost(profile: &Profile, op: &Lowered) -> Option<(Box<dyn CostModel>, LayerCost)> {
    let model = model(profile, Options::default()).unwrap();
    let cost = model.cost(op).ok()?;
    Some((model, cost))
}

/// Every rate times `x` and every fixed time over `x`.
fn faster(profile: &Profile, x: f64) -> Profile {
    let mut p = profile.clone();
    p.clock = p.clock * x;
    p.memory.bandwidth = p.memory.bandwidth * x;
    p.memory.latency = p.memory.latency.map(|l| l / x);
    if let Device::Gpu(gpu) = &mut p.device {
        gpu.launch = gpu.launch / x;
        // Power is energy per operation times the rate, and the energy grows with the square of the clock's voltage.
        gpu.tdp = gpu.tdp.map(|w| w * x.powi(3));
    }
    p
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_prediction_beats_the_roofline(p in profile(), op in operation()) {
        if let Some((model, cost)) = cost(p, &op) {
            let floor = model.roofline(&op);
            prop_assert!(cost.time >= floor * (1.0 - 1e-12), "{}: {:?} < {floor:?} for {op:?}", p.name, cost.time);
            prop_assert!(cost.time.get().is_finite() && cost.time > Seconds::ZERO);
            prop_assert!(cost.interval.0 <= cost.time && cost.time <= cost.interval.1);
            prop_assert!((0.0..=1.0 + 1e-9).contains(&cost.utilization), "{} {}", p.name, cost.utilization);
            prop_assert!(cost.overhead <= cost.time * (1.0 + 1e-12));
        }
    }

    #[test]
    fn no_sparsity_costs_what_dense_costs_to_the_last_bit(p in profile(), g in gemm(), d in dtype(), which in 0usize..7) {
        let nothing = [P::Unstructured(0.0), P::Row(0.0), P::Column(0.0), P::Nm { n: 4, m: 4 },
            P::Vnm { v: 64, n: 4, m: 4 }, P::Block { rows: 16, cols: 4, sparsity: 0.0 }, P::Channel(0.0)];
        let dense = cost(p, &Lowered::Gemm(SparseGemm::dense(g, d))).map(|c| c.1);
        let sparse = cost(p, &Lowered::Gemm(SparseGemm::with_pattern(g, d, nothing[which]))).map(|c| c.1);
        prop_assert_eq!(dense, sparse);
    }

    #[test]
    fn more_zeros_never_mean_more_work(g in gemm(), a in fraction(), b in fraction(), d in dtype()) {
        let (less, more) = (a.min(b), a.max(b));
        let makers: [fn(f64) -> P; 4] =
            [P::Unstructured, P::Row, P::Column, |sparsity| P::Block { rows: 8, cols: 4, sparsity }];
        for make in makers {
            let (x, y) = (SparseGemm::with_pattern(g, d, make(less)), SparseGemm::with_pattern(g, d, make(more)));
            prop_assert!(y.effectual_macs() <= x.effectual_macs() * (1.0 + 1e-12));
            prop_assert!(y.format.bytes(&y.weights, d).values <= x.format.bytes(&x.weights, d).values * (1.0 + 1e-12)
                || x.weights.pattern() == P::Dense);
        }
    }

    #[test]
    fn every_compulsory_byte_is_moved(p in profile(), op in operation()) {
        if let Some((_, cost)) = cost(p, &op) {
            // A fallback reads the dense weights, which are more.
            let least = roofline::compulsory(&op).total();
            prop_assert!(cost.traffic.dram() >= least * (1.0 - 1e-9), "{}: {:?} < {least:?} for {op:?}", p.name, cost.traffic.dram());
        }
    }

    #[test]
    fn faster_by_x_is_faster_by_x(p in profile(), op in operation(), e in 1u32..4) {
        let x = f64::from(1u32 << e);
        let (Some((_, slow)), Some((_, fast))) = (cost(p, &op), cost(&faster(p, x), &op)) else { return Ok(()) };
        let ratio = slow.time / fast.time;
        prop_assert!((ratio / x - 1.0).abs() < 1e-9, "{}: {ratio} instead of {x} for {op:?}", p.name);
    }

    #[test]
    fn a_total_is_the_sum_of_its_parts(p in profile(), which in 0usize..3) {
        let graph = resolve(["resnet18", "mobilenetv2", "bert-base"][which], &workload::Options::default()).unwrap();
        let steps = steps(&graph, &Assignment::dense(), DType::Fp16, true).unwrap();
        let model = model(p, Options::default()).unwrap();
        let serial = network(&steps, &*model, 1).unwrap();
        let sum: f64 = serial.steps.iter().flatten().map(|c| c.time.get()).sum();
        prop_assert!((serial.total.time.get() / sum - 1.0).abs() < 1e-12);
        let queued = network(&steps, &*model, 4).unwrap();
        prop_assert!(queued.total.time <= serial.total.time * (1.0 + 1e-12));
        prop_assert!(queued.total.time.get() >= critical_path(&steps, &serial.steps) * (1.0 - 1e-12));
    }
}

fn critical_path(steps: &[Step], costs: &[Option<LayerCost>]) -> f64 {
    let mut end: Vec<f64> = Vec::with_capacity(steps.len());
    for (step, cost) in steps.iter().zip(costs) {
        let start = step.reads.iter().map(|&(from, _)| end[from]).fold(0.0, f64::max);
        end.push(start + cost.as_ref().map_or(0.0, |c| c.time.get()));
    }
    end.into_iter().fold(0.0, f64::max)
}

#[test]
fn counts_never_wrap() {
    // 10^15 MACs in one product count exactly; past 2^64 − 1 there is an error instead of a small number.
    let large = Gemm { groups: 1, m: 100_000, n: 100_000, k: 100_000 };
    assert_eq!(large.macs(), Some(1_000_000_000_000_000));
    assert_eq!(Gemm { groups: 2, m: 1 << 31, n: 1 << 31, k: 2 }.macs(), None);
    for p in PROFILES.iter() {
        for (m, n, k) in [(100_000, 100_000, 100_000), (1, 1 << 40, 1 << 20), (1 << 40, 1, 1), (1, 1, 1 << 40)] {
            let op = Lowered::Gemm(SparseGemm::dense(Gemm { groups: 1, m, n, k }, DType::Fp16));
            if let Some((model, cost)) = cost(p, &op) {
                assert!(cost.time >= model.roofline(&op) && cost.time.get().is_finite(), "{} {m}×{n}×{k}", p.name);
            }
        }
    }
}

#[test]
fn the_same_question_has_the_same_answer_on_any_number_of_threads() {
    let graph = resolve("resnet50", &workload::Options::default()).unwrap();
    let steps = steps(&graph, &Assignment::parse(&["2:4"]).unwrap(), DType::Fp16, true).unwrap();
    for name in ["a100", "xeon-gold-6148", "systolic-128x128"] {
        let model = model(&Profile::find(name).unwrap(), Options { threads: None, timing: Timing::Cold }).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| format!("{:?}", network(&steps, &*model, 2).unwrap().steps))
        };
        assert_eq!(run(1), run(4), "{name}");
    }
}
