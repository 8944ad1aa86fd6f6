//! `estimate --saliency` as a user meets it: masks of the network's own weights, with what they leave.

use crate::onnx::{Builder, int, node};
use assert_cmd::Command;
use hwsim::workload::onnx::proto::{NodeProto, TensorProto};
use prost::Message;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hwsim")).env("NO_COLOR", "1").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str]) -> Value {
    let (status, out, err) = run(&[&["estimate", "-p", "a100", "--format", "json"][..], arguments].concat());
    assert_eq!(status, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

fn complaint(arguments: &[&str]) -> String {
    let (status, out, err) = run(&[&["estimate", "-p", "a100"][..], arguments].concat());
    assert_eq!((status, out.as_str()), (1, ""), "{err}");
    assert!(err.contains("error: ") && !err.contains("panicked"), "{err}");
    err
}

fn noise(i: u64) -> f32 {
    let z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32 - 0.5
}

fn random(name: &str, dims: [i64; 2], seed: u64) -> TensorProto {
    let count = (dims[0] * dims[1]) as u64;
    let raw = (0..count).flat_map(|i| noise(seed << 20 | i).to_le_bytes()).collect::<Vec<_>>();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: 1, raw_data: raw.into(), ..Default::default() }
}

/// x[32,64] → fc1 (48 outputs) → relu → fc2 (16 outputs).
fn model(folder: &Path) -> String {
    let named = |name: &str, n: NodeProto| NodeProto { name: name.into(), ..n };
    let gemm = |from: &str, w: &str, to: &str| node("Gemm", &[from, w], &[to], vec![int("transB", 1)]);
    let built = Builder::new(17)
        .input("x", &[32, 64])
        .weight(random("w1", [48, 64], 1))
        .weight(random("w2", [16, 48], 2))
        .node(named("fc1", gemm("x", "w1", "h")))
        .node(named("act", node("Relu", &["h"], &["r"], vec![])))
        .node(named("fc2", gemm("r", "w2", "y")))
        .output("y");
    let path = folder.join("mlp.onnx");
    std::fs::write(&path, built.model.encode_to_vec()).unwrap();
    path.display().to_string()
}

/// Calibration rows of both layers, correlated so that products say more than norms.
fn statistics(folder: &Path) -> String {
    let path = folder.join("statistics.npz");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, k, seed) in [("fc1", 64u64, 5u64), ("fc2", 48, 6)] {
        let rows = 96u64;
        let common = |r: u64| noise(seed << 40 | r);
        let values = (0..rows * k).flat_map(|i| (noise(seed << 20 | i) + 2.0 * common(i / k)).to_le_bytes());
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {k}), }}");
        while (11 + header.len()) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        zip.start_file(
            format!("{name}:x.npy"),
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored),
        )
        .unwrap();
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap();
    path.display().to_string()
}

#[test]
fn masks_are_counted_and_judged() {
    let folder = TempDir::new().unwrap();
    let w = model(folder.path());
    let answer = json(&["-w", &w, "-s", "2:4", "--saliency", "magnitude"]);
    let q = &answer["quality"];
    assert_eq!(q["saliency"], "magnitude");
    assert_eq!(q["scope"], "layer");
    assert_eq!(q["network"]["kept"].as_u64(), Some((48 * 64 + 16 * 48) / 2));
    let kept = q["network"]["kept_l1"].as_f64().unwrap();
    // The two larger of four uniform magnitudes hold 3/5 + 4/5 of 1/5 + 2/5 + 3/5 + 4/5 = 0.7 of the sum.
    assert!((kept - 0.7).abs() < 0.02, "{kept}");
    assert!(q["network"]["output_error"].is_null());
    assert_eq!(answer["total"]["macs_effectual"].as_f64(), Some(32.0 * (48.0 * 64.0 + 16.0 * 48.0) / 2.0));
    assert!(json(&["-w", &w, "-s", "2:4"]).get("quality").is_none());
}

#[test]
fn calibration_data_feed_the_criteria() {
    let folder = TempDir::new().unwrap();
    let (w, s) = (model(folder.path()), statistics(folder.path()));
    let error = |criterion: &str| {
        let answer = json(&["-w", &w, "-s", "2:4", "--saliency", criterion, "--calibration-data", &s]);
        answer["quality"]["network"]["output_error"].as_f64().unwrap()
    };
    let (plain, gpt) = (error("magnitude"), error("sparsegpt"));
    assert!(gpt < plain, "{gpt} {plain}");
    assert!(error("wanda") > 0.0 && error("obd") > 0.0);
    let e = complaint(&["-w", &w, "-s", "2:4", "--saliency", "wanda"]);
    assert!(e.contains("fc1") && e.contains("needs inputs"), "{e}");
    let e = complaint(&["-w", &w, "-s", "2:4", "--saliency", "wanda", "--calibration-data", &w]);
    assert!(e.contains("no .npz archive"), "{e}");
}

#[test]
fn one_budget_for_the_network() {
    let folder = TempDir::new().unwrap();
    let w = model(folder.path());
    let answer = json(&["-w", &w, "-s", "unstructured@0.8", "--saliency", "magnitude", "--scope", "global"]);
    assert_eq!(answer["quality"]["network"]["kept"].as_u64(), Some(3840 - 3072));
    let e = complaint(&["-w", &w, "-s", "2:4", "--saliency", "sparsegpt", "--scope", "global"]);
    assert!(e.contains("--scope"), "{e}");
}

#[test]
fn groups_of_the_users_own() {
    let folder = TempDir::new().unwrap();
    let w = model(folder.path());
    let file = folder.path().join("groups.toml");
    let groups = |text: &str| std::fs::write(&file, text).unwrap();
    let path = file.display().to_string();
    groups(
        "sparsity = 0.5\n[[group]]\nname = 'a'\n[[group.slice]]\nlayer = 'fc1'\nrows = [0, 24]\n[[group.slice]]\nlayer = 'fc2'\ncols = [0, 24]\n\
         [[group]]\nname = 'b'\n[[group.slice]]\nlayer = 'fc1'\nrows = [24, 48]\n[[group.slice]]\nlayer = 'fc2'\ncols = [24, 48]\n",
    );
    let answer = json(&["-w", &w, "--saliency", "l1", "--prune-groups", &path]);
    assert_eq!(answer["quality"]["network"]["kept"].as_u64(), Some(3840 / 2));
    assert_eq!(answer["layers"][0]["pattern"], "unstructured@0.5");
    groups("sparsity = 0.5\n[[group]]\nname = 'a'\n[[group.slice]]\nlayer = 'fc1'\nrows = [0, 99]\n");
    let e = complaint(&["-w", &w, "--saliency", "l1", "--prune-groups", &path]);
    assert!(e.contains("0..48"), "{e}");
    groups("sparsity = 0.5\n[[group]]\nname = 'a'\n[[group.slice]]\nlayer = 'fc3'\n");
    assert!(complaint(&["-w", &w, "--saliency", "l1", "--prune-groups", &path]).contains("did you mean `fc"));
}

#[test]
fn channels_are_rounded_to_what_the_machine_likes() {
    let folder = TempDir::new().unwrap();
    let w = model(folder.path());
    let outputs =
        |more: &[&str]| json(&[&["-w", &w, "-s", "fc1=channel@0.5"][..], more].concat())["layers"][0]["n"].as_u64();
    assert_eq!(outputs(&[]), Some(24));
    assert_eq!(outputs(&["--round-to", "16"]), Some(32));
    // 64 halves of an A100's tensor cores are more than there are: nothing is gained by keeping all.
    assert_eq!(outputs(&["--round-to", "auto"]), Some(24));
    assert_eq!(run(&["estimate", "-p", "a100", "--round-to", "0"]).0, 2);
}

#[test]
fn a_network_of_shapes_alone_is_refused() {
    assert!(complaint(&["-s", "2:4", "--saliency", "magnitude"]).contains("--workload"));
    assert!(complaint(&["-w", "resnet18", "-s", "2:4", "--saliency", "magnitude"]).contains("weights"));
}

#[test]
fn a_search_weighs_what_the_files_own_weights_lose() {
    let folder = TempDir::new().unwrap();
    let model = model(folder.path());
    let search = |name: &str, extra: &[&str]| {
        let out = folder.path().join(name).display().to_string();
        let common = ["search", "-p", "a100", "-w", &model, "--patterns", "2:4,unstructured@0.5,channel@0.5"];
        let (status, _, err) = run(&[&common[..], &["-o", &out], extra].concat());
        assert_eq!(status, 0, "{err}");
        std::fs::read_to_string(format!("{out}/points.csv")).unwrap()
    };
    assert_ne!(search("own", &["--saliency", "magnitude"]), search("assumed", &[]));
    let source = hwsim::prune::onnx::Source::open(Path::new(&model), &Default::default()).unwrap();
    let selector = hwsim::prune::saliency::Selector::default();
    let patterns = ["2:4", "channel@0.5"].map(|p| p.parse().unwrap());
    let found = hwsim::prune::losses::losses(&source.model.graph, &source.model.weights, &patterns, &selector).unwrap();
    let loss = |layer: &str, pattern: &str| found.table[&(layer.to_owned(), pattern.to_owned())];
    // By hand: two of four squares, and the half of the rows with the smaller sums of magnitudes.
    let w: Vec<f64> = (0..48 * 64).map(|i| f64::from(noise(1 << 20 | i))).collect();
    let all: f64 = w.iter().map(|x| x * x).sum();
    let mut kept = 0.0;
    for group in w.chunks(4) {
        let mut squares: Vec<f64> = group.iter().map(|x| x * x).collect();
        squares.sort_by(f64::total_cmp);
        kept += squares[2] + squares[3];
    }
    assert!((loss("fc1", "2:4") - (1.0 - kept / all)).abs() < 1e-9);
    let mut rows: Vec<(f64, f64)> =
        w.chunks(64).map(|r| (r.iter().map(|x| x.abs()).sum(), r.iter().map(|x| x * x).sum())).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let gone: f64 = rows[..24].iter().map(|r| r.1).sum();
    assert!((loss("fc1", "channel@0.5") - gone / all).abs() < 1e-6);
    assert!(!found.table.contains_key(&("fc2".to_owned(), "channel@0.5".to_owned())), "the answer keeps its width");
}

#[test]
fn channels_are_ranked_by_the_criterion_rounded_and_dealt_over_the_network() {
    let folder = TempDir::new().unwrap();
    let (model, data) = (model(folder.path()), statistics(folder.path()));
    let report = |name: &str, extra: &[&str]| -> (Value, Vec<u8>) {
        let out = folder.path().join(format!("{name}.onnx")).display().to_string();
        let common = ["prune", "-w", &model, "-s", "channel@0.3", "--format", "json", "-o", &out];
        let (status, text, err) = run(&[&common[..], extra].concat());
        assert_eq!(status, 0, "{err}");
        (serde_json::from_str(&text).unwrap(), std::fs::read(out).unwrap())
    };
    let kept = |r: &Value| r["groups"][0]["kept"].as_u64().unwrap();
    let (plain, by_size) = report("l1", &[]);
    assert_eq!(kept(&plain), 34, "48 less three tenths");
    assert_eq!(kept(&report("round", &["--round-to", "8"]).0), 32);
    let (auto, _) = report("auto", &["--round-to", "auto", "-p", "a100"]);
    assert_eq!(kept(&auto), 34, "no multiple of 64 is smaller than 48");
    assert_eq!(kept(&report("global", &["--scope", "global"]).0), 34, "one group competes with itself");
    let (_, by_inputs) = report("wanda", &["--saliency", "wanda", "--calibration-data", &data]);
    let (_, by_noise) = report("random", &["--saliency", "random"]);
    assert!(by_size != by_noise && by_inputs != by_noise);
    let (status, _, err) = run(&["prune", "-w", &model, "-s", "channel@0.3", "--round-to", "auto", "-o", "x.onnx"]);
    assert!(status == 1 && err.contains("--profile"), "{err}");
}

#[test]
fn published_results_stand_beside_and_say_so() {
    let folder = TempDir::new().unwrap();
    let model = model(folder.path());
    let answer = json(&["--workload", &model, "--saliency", "magnitude", "-s", "2:4"]);
    let published = answer["quality"]["published"].as_array().unwrap();
    assert!(published.len() >= 4 && published.iter().all(|p| p["pattern"] == "2:4" && p["source"].is_string()));
    let (_, text, _) = run(&["estimate", "-p", "a100", "--workload", &model, "--saliency", "magnitude", "-s", "2:4"]);
    assert!(text.contains("no prediction for this one") && text.contains("LLaMA-2-7B 2:4, SparseGPT"), "{text}");
    let none = json(&["--workload", &model, "--saliency", "magnitude", "-s", "row@0.25"]);
    assert_eq!(none["quality"]["published"].as_array().map(Vec::len), Some(0));
}

#[test]
fn permuted_channels_keep_more_and_the_others_are_named() {
    let folder = TempDir::new().unwrap();
    let model = model(folder.path());
    let to = folder.path().join("pruned.onnx").display().to_string();
    let arguments = ["prune", "--workload", &model, "-s", "2:4", "--permute", "-o", &to, "--format", "json"];
    let (status, out, err) = run(&arguments);
    assert_eq!(status, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let permuted = answer["permuted"].as_array().unwrap();
    assert_eq!((permuted.len(), &permuted[0]["consumers"][0]), (1, &Value::from("fc2")), "{out}");
    assert!(permuted[0]["kept"].as_f64() > permuted[0]["kept_before"].as_f64(), "{out}");
    assert_eq!(answer["untouched"][0]["layer"], "fc1", "{out}");
    let (_, _, refusal) = run(&[&arguments[..], &["--saliency", "taylor"]].concat());
    assert!(refusal.contains("--permute") && refusal.contains("one by one"), "{refusal}");
}
