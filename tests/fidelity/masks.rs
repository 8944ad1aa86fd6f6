//! Masks of real weights beside random ones: kernels were timed on both (`results/prune/real_masks.csv`, made by
//! `examples/real_masks.rs`), and the model must tell them apart as the kernels do.

use hwsim::cost::{self, Timing};
use hwsim::dtype::DType;
use hwsim::lower::{Gemm, Lowered, SparseGemm};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::{Calibration, Device, Profile};
use hwsim::sparsity::{Mask, StorageFormat, WeightStats};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A layer's masks in one storage.
struct Row {
    model: String,
    place: String,
    shape: Gemm,
    pattern: SparsityPattern,
    block: (u64, u64),
    threads: u64,
    nonzeros: u64,
    blocks: [u64; 2],
    measured: [f64; 2],
}

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

fn rows() -> Vec<Row> {
    let mut reader = csv::Reader::from_path(results().join("prune/real_masks.csv")).unwrap();
    let names = reader.headers().unwrap().clone();
    let read = |record: csv::StringRecord| {
        let text = |name: &str| record[names.iter().position(|n| n == name).unwrap()].to_owned();
        let count = |name: &str| text(name).parse::<u64>().unwrap();
        let time = |name: &str| text(name).parse::<f64>().unwrap();
        let block = match text("storage").strip_prefix("bsr:") {
            Some(block) => block.split_once('x').map(|(r, c)| (r.parse().unwrap(), c.parse().unwrap())).unwrap(),
            None => (1, 1),
        };
        Row {
            place: format!("{} {} {}", text("model"), text("layer"), text("storage")),
            model: text("model"),
            shape: Gemm { groups: 1, m: count("m"), n: count("n"), k: count("k") },
            pattern: text("pattern").parse().unwrap(),
            block,
            threads: count("threads"),
            nonzeros: count("nonzeros"),
            blocks: [count("blocks_real"), count("blocks_random")],
            measured: [time("real_us"), time("random_us")],
        }
    };
    reader.records().map(|r| read(r.unwrap())).collect()
}

/// A mask with as many nonzeros in as many blocks: all that one thread's time depends on.
fn mask(row: &Row, blocks: u64) -> Mask {
    let (n, k, (height, width)) = (row.shape.n, row.shape.k, row.block);
    let across = k.div_ceil(width);
    let all = n.div_ceil(height) * across;
    let mut mask = Mask::empty(n, k);
    let mut left = row.nonzeros;
    for inside in 0..height * width {
        for i in 0..blocks {
            let tile = (u128::from(i) * u128::from(all) / u128::from(blocks)) as u64;
            let (r, c) = (tile / across * height + inside / width, tile % across * width + inside % width);
            if left > 0 && r < n && c < k {
                mask.set(r, c);
                left -= 1;
            }
        }
    }
    assert_eq!((mask.count(), mask.occupied_tiles(height, width)), (row.nonzeros, blocks), "{}", row.place);
    mask
}

/// Predicted time of the real mask over that of the random one.
fn predicted(profile: &Profile, row: &Row) -> f64 {
    let time = |blocks| {
        let (rows, cols) = row.block;
        let op = SparseGemm {
            weights: WeightStats::counted(row.pattern, Arc::new(mask(row, blocks))),
            format: if rows * cols == 1 { StorageFormat::Csr } else { StorageFormat::Bsr { rows, cols } },
            format_free: false,
            ..SparseGemm::with_pattern(row.shape, DType::Fp32, row.pattern)
        };
        let options = cost::Options { threads: Some(row.threads), timing: Timing::Warm };
        cost::model(profile, options).unwrap().cost(&Lowered::Gemm(op)).unwrap().time
    };
    time(row.blocks[0]) / time(row.blocks[1])
}

fn profile() -> Profile {
    let mut profile = Profile::from_file(&results().join("cpu/zen5/fitted.profile.toml")).unwrap();
    let calibration = Calibration::from_file(&results().join("cpu/zen5/host.calib.toml")).unwrap();
    if let Device::Cpu(cpu) = &mut profile.device {
        cpu.calibration = calibration.cpu.map(Arc::new);
    }
    profile
}

/// Real magnitudes cluster, so that blocks hold more than one survivor and fewer blocks are stored. Below three percent a
/// difference is within the noise of the measurement.
#[test]
fn real_masks_differ_from_random_ones_as_kernels_do() {
    const NOISE: f64 = 0.03;
    let (profile, rows) = (profile(), rows());
    let models: BTreeSet<&str> = rows.iter().map(|r| r.model.as_str()).collect();
    assert!(models.len() >= 2, "{models:?}");
    let (mut told, mut errors) = (0, Vec::new());
    for row in &rows {
        let (predicted, measured) = (predicted(&profile, row), row.measured[0] / row.measured[1]);
        errors.push((predicted / measured).ln().abs());
        if (predicted - 1.0).abs() > NOISE {
            assert_eq!(predicted < 1.0, measured < 1.0, "{}: {predicted:.3}, measured {measured:.3}", row.place);
            told += 1;
        }
    }
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    eprintln!("{told} of {} rows differ by more than {NOISE}; mean |ln error| of the ratio {mean:.3}", rows.len());
    assert!(told >= rows.len() / 3, "{told} of {}", rows.len());
    assert!(mean < 0.03, "{mean}");
}

/// What CSR stores does not depend on where the weights are, and one thread feels little else.
#[test]
fn single_weights_cost_the_same_wherever_they_are() {
    let profile = profile();
    let rows = rows();
    let csr: Vec<&Row> = rows.iter().filter(|r| r.block == (1, 1)).collect();
    assert!(csr.len() >= 6);
    for row in &csr {
        assert!((predicted(&profile, row) - 1.0).abs() < 1e-9, "{}", row.place);
    }
    let mean = csr.iter().map(|r| (r.measured[0] / r.measured[1]).ln()).sum::<f64>() / csr.len() as f64;
    assert!(mean.abs() < 0.02, "{mean}");
}
