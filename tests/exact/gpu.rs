//! The GPU model on problems small enough to work out by hand.

use hwsim::cost::gpu::facts::{Engine, Facts};
use hwsim::cost::gpu::gemm::{GemmWork, Raster, tiled};
use hwsim::cost::gpu::memory::{Footprint, Setting, kept};
use hwsim::cost::gpu::work;
use hwsim::cost::{Fallback, Options, Timing, model};
use hwsim::dtype::DType;
use hwsim::lower::{Gemm, Lowered, SparseGemm};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::calibration::{Calibration, ConstantSet, GemmConstants, Table};
use hwsim::profile::{GpuArch, Profile};

const TEN: &str = r#"
name  = "ten multiprocessors"
clock = "1 GHz"
[memory]
bandwidth = "1 TB/s"
[device.gpu]
sms    = 10
launch = "0 us"
tdp    = "100 W"
l2            = { size = "4 MiB",   bandwidth = "1024 B/cy" }
shared_memory = { size = "164 KiB", bandwidth = "128 B/cy" }
simt          = { fp32 = "64 MAC/cy" }
[device.gpu.tensor_core]
dense = { fp16 = "1024 MAC/cy" }
[[device.gpu.tensor_core.sparse]]
pattern = "2:4"
dtypes  = ["fp16"]
speedup = 2.0
"#;

/// Nothing but tiles and waves: full issue, endless feed, no start, no end, no power limit.
fn bare() -> GemmConstants {
    GemmConstants {
        issue: 1.0,
        feed: 1e12,
        step: 0.0,
        ramp: 0.0,
        drain: 1e30,
        tail: 1.0,
        dram: 1.0,
        power: 1e6,
        alpha: 1.0,
        combine: 1e-9,
        overlap: 100.0,
        narrow: 0.0,
        tlb: 0.0,
        low: 0.0,
    }
}

fn ten() -> Facts {
    Facts::of(&Profile::from_toml(TEN, "ten").unwrap()).unwrap()
}

fn product(facts: &Facts, m: f64, n: f64, k: f64) -> GemmWork {
    GemmWork {
        groups: 1.0,
        m,
        n,
        k,
        input: 2.0,
        weight: 2.0,
        output: 2.0,
        element: 2.0,
        rate: facts.peak(DType::Fp16).unwrap().rate,
        engine: Engine::Tensor16,
        raster: Raster::Swizzled,
        footprint: Footprint { weights: 0.0, metadata: 0.0, inputs: 0.0, outputs: 0.0 },
    }
}

fn cycles(facts: &Facts, c: &GemmConstants, w: &GemmWork) -> f64 {
    tiled(facts, c, &Setting::network(facts, Timing::Cold), w, &[(128.0, 128.0)]).time * 1e9
}

#[test]
fn eleven_tiles_on_ten_multiprocessors_take_two_waves() {
    // One tile: 128·128·1024 / 1024 MAC/cy = 16,384 cycles.
    let facts = ten();
    assert!((cycles(&facts, &bare(), &product(&facts, 1280.0, 128.0, 1024.0)) - 16384.0).abs() < 1e-6);
    assert!((cycles(&facts, &bare(), &product(&facts, 1281.0, 128.0, 1024.0)) - 32768.0).abs() < 1e-6);
    // With a tail that costs nothing, eleven tiles take 1.1 waves.
    let free = GemmConstants { tail: 0.0, ..bare() };
    assert!((cycles(&facts, &free, &product(&facts, 1408.0, 128.0, 1024.0)) - 1.1 * 16384.0).abs() < 1e-6);
}

#[test]
fn a_free_split_fills_the_machine() {
    // One tile on one of ten multiprocessors; eight parts of k = 1024 run beside each other and meet within 400 cycles.
    let facts = ten();
    let free = GemmConstants { combine: 1e30, ..bare() };
    assert!((cycles(&facts, &free, &product(&facts, 128.0, 128.0, 1024.0)) - 2448.0).abs() < 1e-6);
}

#[test]
fn the_power_limit_holds_what_is_sustained() {
    // 10,240 MAC/cy at 1 GHz are 20.48 TFLOP/s; 100 W are 4.883 W per TFLOP/s. At exponent 1 and 0.1 of the peak per
    // watt, 0.4883 of the peak remains: 16,384 cycles become 33,554.
    let facts = ten();
    // The energy of an operation at this node and clock is taken out, as the law divides by it.
    let limited = GemmConstants { power: 0.1 * facts.energy, ..bare() };
    let got = cycles(&facts, &limited, &product(&facts, 1280.0, 128.0, 1024.0));
    assert!((got - 16384.0 * 20.48 / 10.0).abs() < 1e-3, "{got}");
}

#[test]
fn a_raster_along_the_outputs_reads_weights_again_once_they_outgrow_the_cache() {
    // Ten multiprocessors on rows of 40 tiles: less than one row a wave, so all weights pass once for each of 8 rows.
    // 5120 × 16384 weights of 2 bytes are fifty times 0.8 of 4 MiB: none of them stays, and all are read seven times more.
    let facts = ten();
    let c = bare();
    let setting = Setting::network(&facts, Timing::Cold);
    let w = product(&facts, 1024.0, 5120.0, 16384.0);
    let square = tiled(&facts, &c, &setting, &w, &[(128.0, 128.0)]).dram.total().get();
    let along = GemmWork { raster: Raster::AlongOutputs, ..w };
    let along = tiled(&facts, &c, &setting, &along, &[(128.0, 128.0)]).dram.total().get();
    let weights = 5120.0 * 16384.0 * 2.0;
    let expected = 7.0 * weights;
    assert!((along / expected - 1.0).abs() < 1e-6, "{along} {expected} {square}");
    // A row of 8 tiles fits into a wave: 1.25 rows pass together.
    let w = GemmWork { raster: Raster::AlongOutputs, ..product(&facts, 1024.0, 1024.0, 81920.0) };
    let narrow = tiled(&facts, &c, &setting, &w, &[(128.0, 128.0)]).dram.total().get();
    assert!((narrow / ((8.0 / 1.25 - 1.0) / 7.0 * expected) - 1.0).abs() < 1e-6, "{narrow}");
}

#[test]
fn rows_a_multiple_of_all_channels_apart_queue_on_amd() {
    // 131,072 elements of 2 bytes are two rounds over 32 channels of 4 KiB: all rows of a tile begin at one channel. Half of
    // that alternates between two places, and one vector more spreads them.
    let profile = TEN.replace("[device.gpu]\n", "[device.gpu]\narch = \"cdna2\"\n");
    let facts = Facts::of(&Profile::from_toml(&profile, "ten").unwrap()).unwrap();
    let loss = |k: f64| {
        let lossy = GemmConstants { tlb: 1.0, ..bare() };
        let w = product(&facts, 1280.0, 128.0, k);
        cycles(&facts, &lossy, &w) / cycles(&facts, &bare(), &w)
    };
    assert!((loss(131_072.0) - 2.0).abs() < 1e-9, "{}", loss(131_072.0));
    assert!((loss(65_536.0) - 1.5).abs() < 1e-9, "{}", loss(65_536.0));
    assert!((loss(65_544.0) - 1.0).abs() < 1e-9, "{}", loss(65_544.0));
}

#[test]
fn feed_and_products_overlap() {
    // A tile takes 256 rows of 2 bytes a step of k: at 32 B/cy 16 cycles, as long as its products. The fourth-order norm
    // of two equal times is 2^(1/4) of one.
    let facts = ten();
    let fed = GemmConstants { feed: 32.0, ..bare() };
    let got = cycles(&facts, &fed, &product(&facts, 1280.0, 128.0, 1024.0));
    assert!((got - 16384.0 * 2f64.powf(0.25)).abs() < 1e-6, "{got}");
}

#[test]
fn half_the_weights_and_an_eighth_of_them_again_in_positions() {
    let facts = ten();
    let gemm = Gemm { groups: 1, m: 32, n: 64, k: 64 };
    let op = SparseGemm::with_pattern(gemm, DType::Fp16, SparsityPattern::Nm { n: 2, m: 4 });
    let Ok(work::Work::Half(half)) = work::half(&facts, &op) else { panic!("a product runs as 2:4") };
    assert_eq!(half.footprint.weights, 64.0 * 32.0 * 2.0);
    assert_eq!(half.footprint.metadata, 64.0 * 32.0 * 2.0 / 8.0);
    assert_eq!(half.rate, 2.0 * facts.peak(DType::Fp16).unwrap().rate);
}

#[test]
fn what_no_kernel_serves_falls_back_and_says_so() {
    let run = |profile: &str, gemm: Gemm, pattern: &str| {
        let model = model(&Profile::find(profile).unwrap(), Options::default()).unwrap();
        let op = SparseGemm::with_pattern(gemm, DType::Fp16, pattern.parse().unwrap());
        model.cost(&Lowered::Gemm(op)).unwrap().executed
    };
    let square = Gemm { groups: 1, m: 4096, n: 4096, k: 4096 };
    let taken = run("a100", square, "2:4");
    assert_eq!((taken.pattern, taken.fallback), (SparsityPattern::Nm { n: 2, m: 4 }, None));
    assert!(matches!(run("v100", square, "2:4").fallback, Some(Fallback::DType { .. })));
    let odd = run("a100", Gemm { k: 4100, ..square }, "2:4").fallback;
    assert_eq!(odd.map(|f| f.to_string().contains("multiple of 16")), Some(true));
    assert!(run("a100", square, "unstructured@0.5").fallback.is_some(), "dense tensor cores win at half zeros");
}

#[test]
fn rates_betray_the_architecture() {
    for (name, arch) in [
        ("a100", GpuArch::AmpereGa100),
        ("h100", GpuArch::HopperGh100),
        ("rtx4090", GpuArch::Ada),
        ("v100", GpuArch::VoltaGv100),
        ("t4", GpuArch::TuringTu10x),
        ("rtx5080", GpuArch::BlackwellGb20x),
        ("p100", GpuArch::PascalGp100),
    ] {
        let mut profile = Profile::find(name).unwrap();
        let hwsim::profile::Device::Gpu(gpu) = &mut profile.device else { panic!("{name} is a GPU") };
        assert_eq!(gpu.arch, Some(arch), "{name}");
        gpu.arch = None;
        assert_eq!(Facts::of(&profile).unwrap().arch, Some(arch), "{name}");
    }
}

#[test]
fn devices_without_samples_get_wider_intervals() {
    let width = |name: &str| {
        let profile = Profile::find(name).unwrap();
        let model = model(&profile, Options::default()).unwrap();
        let op = Lowered::Gemm(SparseGemm::dense(Gemm { groups: 1, m: 512, n: 4096, k: 4096 }, DType::Fp16));
        let cost = model.cost(&op).unwrap();
        let seen = Calibration::shipped().provenance.devices.iter().any(|d| profile.answers_to(d));
        (seen, cost.interval.1 / cost.interval.0)
    };
    let (a100, rtx4090) = (width("a100"), width("rtx4090"));
    assert!(a100.0 && !rtx4090.0);
    assert!(rtx4090.1 > a100.1, "{} {}", rtx4090.1, a100.1);
}

#[test]
fn an_architecture_and_class_has_at_most_twelve_numbers() {
    // What an architecture departs in from what all share; 2:4, other sparse kernels and convolutions have no numbers
    // of an architecture at all.
    fn own<T: ConstantSet>(table: &Table<T>, arch: &str) -> usize {
        let (shared, arch) = (table.shared.values(), &table.arch[arch]);
        shared.iter().zip(arch.values()).filter(|(a, b)| **a != *b).count()
    }
    let gpu = Calibration::shipped().gpu.as_ref().unwrap();
    for arch in gpu.attention.arch.keys() {
        for (engine, table) in &gpu.gemm {
            let attention = if engine == "tensor16" { own(&gpu.attention, arch) } else { 0 };
            assert!(own(table, arch) + attention <= 12, "{engine} on {arch}");
        }
        let streams: usize = gpu.stream.values().map(|table| own(table, arch)).sum();
        assert!(streams <= 12, "streams on {arch}: {streams}");
    }
}

#[test]
fn a_constant_that_is_not_known_is_refused_with_those_that_are() {
    let refused = toml::from_str::<Table<GemmConstants>>("[ada]\nisue = 0.9").unwrap_err().to_string();
    assert!(refused.contains("unknown constant `isue`; known are issue"), "{refused}");
}

#[test]
fn the_shipped_calibration_parses_and_names_its_sources() {
    let calibration = Calibration::shipped();
    assert!(calibration.provenance.rows > 20_000);
    assert!(calibration.provenance.sources.len() >= 8);
    let gpu = calibration.gpu.as_ref().unwrap();
    assert!(GemmConstants::NAMES.len() <= 14 && gpu.gemm.contains_key("tensor16"));
}

#[test]
fn random_replacement_keeps_a_share_of_what_does_not_fit() {
    // p = 1 − exp(−x·p) has 0.7968 beside 0 at x = 2, and 0 alone below 1.
    let cache = 1e6;
    assert!((kept(2.0 * 0.8 * cache, cache) - (1.0 - 0.796_812)).abs() < 1e-4);
    assert!(kept(0.5 * 0.8 * cache, cache) > 0.999);
    assert!(kept(100.0 * cache, cache) < 1e-9);
}
