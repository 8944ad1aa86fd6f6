//! Channel and head removal on real ONNX models, where `$HWSIM_MODELS` names a folder of them; skips otherwise.

use hwsim::lower::shrink::shrink;
use hwsim::pattern::SparsityPattern::{Channel, Head};
use hwsim::workload::{Options, resolve};
use std::path::PathBuf;

fn models(folder: PathBuf, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            models(path, found);
        } else if path.extension().is_some_and(|e| e == "onnx") {
            found.push(path);
        }
    }
    found.sort();
}

#[test]
fn real_models_shrink_or_say_why() {
    let folder = std::env::var_os("HWSIM_MODELS").map_or_else(|| "models".into(), PathBuf::from);
    let mut found = Vec::new();
    models(folder, &mut found);
    if found.is_empty() {
        eprintln!("skipped: no ONNX models in $HWSIM_MODELS or models/");
    }
    for path in found {
        let Ok(graph) = resolve(&path.to_string_lossy(), &Options::default()) else { continue };
        for pattern in [Channel(0.5), Head(0.5)] {
            let small = shrink(&graph, |_| Some(pattern)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let (before, after) = (graph.total_macs().unwrap(), small.graph.total_macs().unwrap());
            assert!(after <= before, "{}", path.display());
            println!("{}: {pattern}: {before} -> {after} MACs, {} groups", path.display(), small.cuts.len());
        }
    }
}
