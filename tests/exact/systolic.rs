//! Systolic closed forms by hand on tiny shapes, and the files that describe arrays.

use hwsim::cost::systolic::dram::{Buffers, LoopOrder, Operands, Schedule};
use hwsim::cost::systolic::energy::Technology;
use hwsim::cost::systolic::fold::{Array, Shape, dense};
use hwsim::cost::{Options, model};
use hwsim::dtype::DType;
use hwsim::lower::{Gemm, Lowered, SparseGemm};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::Profile;
use hwsim::profile::scale_sim::Configuration;
use hwsim::profile::systolic::{Dataflow, Folding};
use hwsim::workload::scale_sim::{Kind, Topology};

fn profile(dataflow: &str, more: &str) -> Profile {
    let text = format!(
        "name = \"test\"\nclock = \"1 GHz\"\n[memory]\nbandwidth = \"100 GB/s\"\n[device.systolic]\nrows = 4\ncols = 8\n\
         dataflow = \"{dataflow}\"\nsram = {{ inputs = \"64 KiB\", weights = \"64 KiB\", outputs = \"64 KiB\" }}\n{more}"
    );
    Profile::from_toml(&text, "test").unwrap()
}

fn cost(profile: &Profile, gemm: Gemm, pattern: SparsityPattern) -> hwsim::cost::LayerCost {
    let op = Lowered::Gemm(SparseGemm::with_pattern(gemm, DType::Int8, pattern));
    model(profile, Options::default()).unwrap().cost(&op).unwrap()
}

const GEMM: Gemm = Gemm { groups: 1, m: 10, n: 20, k: 30 };

#[test]
fn folds_by_hand() {
    let shape = Shape { m: 10, n: 20, k: 30 };
    let count = |dataflow, folding| dense(Array { rows: 4, cols: 8, dataflow, folding }, shape).unwrap();
    // Output-stationary: ⌈10/4⌉·⌈20/8⌉ = 9 folds of 30 steps, 2·4 + 8 − 2 = 14 more each.
    let os = count(Dataflow::OutputStationary, Folding::Serial);
    assert_eq!((os.folds, os.cycles), (9, 9 * 44));
    assert_eq!((os.inputs, os.weights, os.outputs, os.partials), (10 * 30 * 3, 30 * 20 * 3, 200, 0));
    assert_eq!(count(Dataflow::OutputStationary, Folding::Overlapped).cycles, 8 * 30 + 44);
    // Weight-stationary: ⌈30/4⌉·⌈20/8⌉ = 24 folds of 10 steps.
    let ws = count(Dataflow::WeightStationary, Folding::Serial);
    assert_eq!((ws.folds, ws.cycles), (24, 24 * 24));
    assert_eq!((ws.inputs, ws.weights, ws.outputs, ws.partials), (10 * 30 * 3, 600, 200 * 8, 200 * 7));
    // Input-stationary: ⌈30/4⌉·⌈10/8⌉ = 16 folds of 20 steps.
    let is = count(Dataflow::InputStationary, Folding::Serial);
    assert_eq!((is.folds, is.cycles), (16, 16 * 34));
    assert_eq!((is.inputs, is.weights, is.outputs), (300, 600 * 2, 200 * 8));
    assert_eq!(os.active, 6000);
}

#[test]
fn the_loop_order_follows_what_fits() {
    let array = Array { rows: 4, cols: 4, dataflow: Dataflow::WeightStationary, folding: Folding::Serial };
    let shape = Shape { m: 100, n: 16, k: 16 };
    let operands = Operands { inputs: 1600.0, weights: 256.0, outputs: 1600.0, partials: 6400.0 };
    let best = |inputs, outputs| Schedule::best(array, shape, operands, Buffers { inputs, weights: 64.0, outputs });
    // A strip of inputs is 400 bytes and one of partial sums 1600.
    let narrow_sums = best(1600.0, 1600.0);
    assert_eq!((narrow_sums.order, narrow_sums.moved.total()), (LoopOrder::ColsOuter, 1600.0 + 256.0 + 1600.0));
    let narrow_inputs = best(400.0, 6400.0);
    assert_eq!((narrow_inputs.order, narrow_inputs.moved.total()), (LoopOrder::RowsOuter, 1600.0 + 256.0 + 1600.0));
    // Inputs four times over are dearer than nothing, partial sums through memory dearer still.
    let both = best(400.0, 1600.0);
    assert_eq!((both.order, both.moved.inputs, both.moved.partials), (LoopOrder::ColsOuter, 6400.0, 0.0));
}

#[test]
fn the_model_reports_the_folds() {
    for (dataflow, cycles) in [("output-stationary", 396.0), ("weight-stationary", 576.0), ("input-stationary", 544.0)]
    {
        let cost = cost(&profile(dataflow, ""), GEMM, SparsityPattern::Dense);
        assert_eq!(cost.compute.get(), cycles);
        assert!(cost.time.get() >= cycles * 1e-9);
        assert_eq!(cost.macs.issued, 6000.0);
        assert_eq!(cost.traffic.levels[0].inputs.get(), 300.0);
        assert!(cost.energy.is_none());
    }
}

#[test]
fn arrays_share_the_work_and_groups_repeat_it() {
    let one = profile("weight-stationary", "");
    let four = profile("weight-stationary", "arrays = 4");
    let gemm = Gemm { groups: 1, m: 64, n: 64, k: 64 };
    let (alone, shared) = (cost(&one, gemm, SparsityPattern::Dense), cost(&four, gemm, SparsityPattern::Dense));
    assert_eq!(alone.compute.get(), 128.0 * 78.0);
    // Two by two, one by four and four by one: the least is N in four, which keeps the long stream.
    assert_eq!(shared.compute.get(), 32.0 * 78.0);
    assert_eq!(shared.macs.issued, alone.macs.issued);
    let grouped = cost(&one, Gemm { groups: 8, m: 64, n: 1, k: 9 }, SparsityPattern::Dense);
    assert_eq!(grouped.compute.get(), 8.0 * 3.0 * 78.0);
    let packed = cost(
        &profile("weight-stationary", "grouping = \"packed\""),
        Gemm { groups: 8, m: 64, n: 1, k: 2 },
        SparsityPattern::Dense,
    );
    assert_eq!(packed.compute.get(), 4.0 * 78.0);
}

#[test]
fn sparse_hardware_runs_what_it_knows_and_says_so() {
    let two_four = SparsityPattern::Nm { n: 2, m: 4 };
    let gemm = Gemm { groups: 1, m: 64, n: 64, k: 64 };
    let dense = cost(&profile("weight-stationary", ""), gemm, two_four);
    assert_eq!(dense.compute.get(), 128.0 * 78.0);
    assert!(dense.executed.pattern.is_dense() && dense.executed.fallback.is_some());
    let nm = cost(&profile("weight-stationary", "sparsity = \"nm\""), gemm, two_four);
    assert_eq!(nm.compute.get(), 64.0 * 78.0);
    assert_eq!(nm.executed.pattern, two_four);
    assert_eq!(nm.traffic.levels[0].metadata.get(), 64.0 * 32.0 * 2.0 / 8.0);
    let energy = |mode: &str, pattern| {
        cost(&profile("weight-stationary", &format!("sparsity = \"{mode}\"\ntechnology_nm = 45")), gemm, pattern)
            .energy
            .unwrap()
            .get()
    };
    let half = SparsityPattern::Unstructured(0.5);
    assert!(energy("gate", half) < energy("none", half), "gating saves energy");
    let gated = cost(&profile("weight-stationary", "sparsity = \"gate\""), gemm, half);
    assert_eq!(gated.compute.get(), 128.0 * 78.0, "and no cycles");
    let tiles = cost(
        &profile("weight-stationary", "sparsity = \"skip-zero-tiles\""),
        gemm,
        SparsityPattern::Block { rows: 8, cols: 4, sparsity: 0.75 },
    );
    assert!((tiles.compute.get() / (32.0 * 78.0) - 1.0).abs() < 1e-9, "{}", tiles.compute.get());
}

#[test]
fn energy_meets_the_published_points() {
    let (old, new) = (Technology { nm: 45.0 }, Technology { nm: 7.0 });
    let pico = |j: f64| (j * 1e12 * 1e4).round() / 1e4;
    assert_eq!(pico(old.mac(DType::Int8).get()), 0.3);
    assert_eq!(pico(new.mac(DType::Int8).get()), 0.1);
    assert_eq!(pico(old.mac(DType::Fp32).get()), 4.6);
    assert_eq!(pico(old.sram(32768.0).get() * 8.0), 20.0);
    assert_eq!(pico(new.sram(1048576.0).get() * 8.0), 14.0);
    assert!(old.sram(65536.0).get() > old.sram(32768.0).get());
}

#[test]
fn scale_sim_files_become_profiles_and_networks() {
    let text = "[general]\nrun_name = demo\n[architecture_presets]\nArrayHeight: 32\nArrayWidth = 16\nIfmapSramSzkB: 64\nFilterSramSzkB: 32\n\
                OfmapSramSzkB: 8\nDataflow : ws\n[run_presets]\nInterfaceBandwidth: CALC\n";
    let config = Configuration::parse(text, "demo.cfg").unwrap();
    let profile = Profile::from_toml(&config.to_toml("demo.cfg"), "demo").unwrap();
    let hwsim::profile::Device::Systolic(array) = &profile.device else { panic!() };
    assert_eq!((array.rows, array.cols, array.dataflow), (32, 16, Dataflow::WeightStationary));
    assert_eq!(array.sram.weights.get(), 32768.0);

    let topology =
        Topology::parse("Layer,H,W,R,S,C,K,stride,\na, 56, 56, 7, 7, 3, 64, 2, 2:4,\nb_DP,9,9,3,3,4,1,1,\n", "t.csv")
            .unwrap();
    assert_eq!(topology.layers[0].sparsity, Some((2, 4)));
    assert!(matches!(topology.layers[1].kind, Kind::Conv { depthwise: true, .. }));
    let graph =
        hwsim::workload::toml::parse(&topology.to_toml("t", "t.csv"), "t", &hwsim::workload::Options::default())
            .unwrap();
    let shapes: Vec<_> = graph.layers().filter(|l| !l.params.is_empty()).map(|l| l.shape().to_vec()).collect();
    // ⌈(56 − 7 + 2)/2⌉ = 26, one more than whole windows fit.
    assert_eq!(shapes, [vec![1, 64, 26, 26], vec![1, 4, 7, 7]]);

    let gemm = Topology::parse("Layer, M, N, K,\nfc, 3, 4, 5,\n", "g.csv").unwrap();
    assert_eq!(gemm.layers[0].kind, Kind::Gemm { m: 3, n: 4, k: 5 });
}

#[test]
fn broken_scale_sim_files_are_told_where() {
    for (text, line, word) in [
        ("h\na,3,3,5,3,1,1,1,\n", "line 2", "larger than the image"),
        ("h\nok,9,9,3,3,1,1,1,\na,3,3,x,3,1,1,1,\n", "line 3", "filter height"),
        ("h\na,9,9,3,3,1,\n", "line 2", "numbers"),
        ("h\na,9,9,3,3,1,1,1,5:4,\n", "line 2", "N:M"),
        ("h\na,9,9,3,3,1,1,0,\n", "line 2", "stride"),
        ("", "line 1", "empty"),
        ("a,9,9,3,3,1,1,1,\n", "line 1", "header"),
    ] {
        let message = Topology::parse(text, "t.csv").unwrap_err().to_string();
        assert!(message.contains(line) && message.contains(word), "{text:?}: {message}");
    }
    let message = Configuration::parse("[architecture_presets]\nArrayHeight: many\n", "a.cfg").unwrap_err().to_string();
    assert!(message.contains("Dataflow"), "{message}");
}
