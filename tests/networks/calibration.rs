//! Calibration inputs run through a network: what its layers read, and how far a pruned network's answers go astray.

use crate::onnx::{Builder, int, list, node, symbolic, text};
use assert_cmd::Command;
use hwsim::prune::activations::Observed;
use hwsim::prune::npz::Array;
use hwsim::prune::runtime::Session;
use hwsim::prune::saliency::matrix;
use hwsim::sparsity::Criterion;
use hwsim::sparsity::saliency::Statistics;
use hwsim::workload::Options;
use hwsim::workload::onnx::proto::{AttributeProto, NodeProto, TensorProto};
use prost::Message;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

fn noise(i: u64) -> f32 {
    let z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32 - 0.5
}

fn random(name: &str, dims: &[i64]) -> TensorProto {
    let seed = name.bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let raw = (0..dims.iter().product::<i64>() as u64).flat_map(|i| noise(seed << 20 | i).to_le_bytes());
    let raw_data = raw.collect::<Vec<_>>().into();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: 1, raw_data, ..Default::default() }
}

/// A node whose name is its output's, as some exporters write it.
fn named(kind: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto { name: output.into(), ..node(kind, inputs, &[output], attributes) }
}

/// Convolutions of every kind of border and step, a product of each orientation, a batch that is open.
fn network() -> Builder {
    Builder::new(13)
        .value(symbolic("image", 1, &["batch", "3", "9", "8"]))
        .weight(random("a.w", &[4, 3, 3, 2]))
        .node(named(
            "Conv",
            &["image", "a.w"],
            "a",
            vec![list("kernel_shape", &[3, 2]), list("strides", &[2, 1]), list("pads", &[1, 0, 0, 2])],
        ))
        .weight(random("b.w", &[6, 4, 2, 2]))
        .node(named(
            "Conv",
            &["a", "b.w"],
            "b",
            vec![list("kernel_shape", &[2, 2]), text("auto_pad", "SAME_UPPER"), list("dilations", &[1, 2])],
        ))
        .node(named("Relu", &["b"], "rb", vec![]))
        .weight(random("e.w", &[6, 1, 3, 3]))
        .node(named(
            "Conv",
            &["rb", "e.w"],
            "e",
            vec![list("kernel_shape", &[3, 3]), int("group", 6), list("pads", &[1, 1, 1, 1])],
        ))
        .weight(random("f.w", &[6, 2, 1, 1]))
        .node(named("Conv", &["e", "f.w"], "f", vec![list("kernel_shape", &[1, 1]), int("group", 3)]))
        .node(named("Relu", &["f"], "r", vec![]))
        .node(named("GlobalAveragePool", &["r"], "pool", vec![]))
        .node(named("Flatten", &["pool"], "flat", vec![]))
        .weight(random("c.w", &[8, 6]))
        .node(named("Gemm", &["flat", "c.w"], "c", vec![int("transB", 1)]))
        .node(named("Tanh", &["c"], "t", vec![]))
        .weight(random("d.w", &[8, 5]))
        .node(named("MatMul", &["t", "d.w"], "out", vec![]))
        .output("out")
}

fn write(folder: &Path, name: &str, built: &Builder) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, built.model.encode_to_vec()).unwrap();
    path
}

fn images(n: u64) -> Array {
    Array::new(vec![n, 3, 9, 8], (0..n * 3 * 72).map(|i| noise(5 << 20 | i)).collect())
}

#[test]
fn rows_times_weights_are_what_the_runtime_computes() {
    let folder = TempDir::new().unwrap();
    let path = write(folder.path(), "net.onnx", &network());
    let model = hwsim::workload::onnx::import(&path, &Options::default()).unwrap();
    let feeds = BTreeMap::from([("image".to_owned(), images(1))]);
    let observed = Observed::of(&path, &model.graph, feeds.clone(), Path::new("in.npz")).unwrap();
    assert_eq!((observed.skipped.len(), observed.batches), (0, 1));
    let session = Session::open(&path).unwrap();
    for (layer, places) in [("a", 4 * 9), ("b", 4 * 9), ("e", 4 * 9), ("f", 4 * 9), ("c", 1), ("out", 1)] {
        let made = &session.run(&feeds, &[layer]).unwrap()[0];
        let own = model.graph.layers().find(|l| l.name == layer).unwrap();
        let (weights, n, k) = matrix(own, own.weight().unwrap(), &model.weights).unwrap();
        let known = &observed.statistics[layer];
        let groups = if known.groups.is_empty() { std::slice::from_ref(known) } else { &known.groups[..] };
        assert_eq!((made.values.len(), n % groups.len()), (places * n, 0), "{layer}");
        for output in 0..n {
            let rows = groups[output * groups.len() / n].inputs.as_ref().unwrap();
            assert_eq!(rows.len(), places * k, "{layer}");
            for (place, x) in rows.chunks(k).enumerate() {
                let y: f32 = x.iter().zip(&weights[output * k..]).map(|(a, b)| a * b).sum();
                assert!((y - made.values[output * places + place]).abs() < 1e-5, "{layer} {output} at {place}");
            }
        }
    }
}

#[test]
fn samples_and_batches_add_up() {
    let folder = TempDir::new().unwrap();
    let path = write(folder.path(), "net.onnx", &network());
    let graph = hwsim::workload::onnx::import(&path, &Options::default()).unwrap().graph;
    let observe = |feeds: Vec<(&str, Array)>| {
        let feeds = feeds.into_iter().map(|(n, a)| (n.to_owned(), a)).collect();
        Observed::of(&path, &graph, feeds, Path::new("in.npz"))
    };
    let together = observe(vec![("image", images(12))]).unwrap();
    let half = |i: u64| images(12).rows(6 * i, 6);
    let apart = observe(vec![("image/0", half(0)), ("image/1", half(1))]).unwrap();
    assert_eq!((together.batches, apart.batches), (12, 2));
    for (layer, known) in &together.statistics {
        let of = |s: &Statistics| s.products(s.norms.as_ref().unwrap().len(), Criterion::Wanda).unwrap();
        let other = &apart.statistics[layer];
        assert_eq!(known.groups.len(), other.groups.len());
        let whole = known.groups.is_empty().then_some((known, other));
        for (a, b) in known.groups.iter().zip(&other.groups).chain(whole).map(|(a, b)| (of(a), of(b))) {
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * (1.0 + a.abs())), "{layer}");
        }
    }
    let reason = |feeds| observe(feeds).unwrap_err().to_string();
    let e = reason(vec![("picture", images(1))]);
    assert!(e.contains("`picture` is no input") && e.contains("reads `image`"), "{e}");
    let e = reason(vec![("image", Array::new(vec![1, 3, 9], vec![0.0; 27]))]);
    assert!(e.contains("input `image` is batch×3×9×8 where its array is 1×3×9"), "{e}");
    let e = reason(vec![("image", Array::of_integers(vec![1, 3, 9, 8], vec![0; 216]))]);
    assert!(e.contains("takes floats, and its array holds integers"), "{e}");
    let e = reason(vec![("image/1", images(1))]);
    assert!(e.contains("number them from 0"), "{e}");
}

#[test]
fn what_the_runtime_lacks_is_named_with_the_way_out() {
    let folder = TempDir::new().unwrap();
    let odd = Builder::new(13)
        .input("x", &[1, 4])
        .weight(random("w", &[4, 4]))
        .node(named("MatMul", &["x", "w"], "h", vec![]))
        .node(named("Hardmax", &["h"], "y", vec![]))
        .output("y");
    let path = write(folder.path(), "odd.onnx", &odd);
    let e = Session::open(&path).err().unwrap().to_string();
    assert!(e.contains("Hardmax") && e.contains("scripts/calibration_statistics.py"), "{e}");
    assert!(!e.contains('\n'), "{e}");
}

fn npz(path: &Path, arrays: &[(&str, &Array)]) {
    let mut zip = zip::ZipWriter::new(std::fs::File::create(path).unwrap());
    for (name, array) in arrays {
        let shape: Vec<String> = array.shape.iter().map(|d| format!("{d},")).collect();
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", shape.join(" "));
        while (11 + header.len()) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(format!("{name}.npy"), stored).unwrap();
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(array.values.iter().flat_map(|x| x.to_le_bytes()));
        zip.write_all(&bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hwsim")).env("NO_COLOR", "1").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn json(arguments: &[&str]) -> Value {
    let (status, out, err) = run(arguments);
    assert_eq!(status, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn estimate_and_prune_say_how_far_the_answers_move() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (w, data, pruned) = (at("net.onnx"), at("in.npz"), at("pruned.onnx"));
    write(folder.path(), "net.onnx", &network());
    npz(Path::new(&data), &[("image", &images(16))]);
    let network_error = |report: &Value| report["quality"]["outputs"][0]["error"].as_f64().unwrap();
    let layers_error = |report: &Value| report["quality"]["network"]["output_error"].as_f64().unwrap();
    let estimate = |flag: &str, criterion: &str| {
        json(&[
            "estimate",
            "-p",
            "a100",
            "-w",
            &w,
            "-s",
            "2:4",
            "--saliency",
            criterion,
            flag,
            &data,
            "--format",
            "json",
        ])
    };
    let prune = |rules: &[&str], criterion: &str| {
        let fixed =
            ["prune", "-w", &w, "--saliency", criterion, "--calibration", &data, "-o", &pruned, "--format", "json"];
        json(&[&fixed[..], rules].concat())
    };
    for criterion in ["magnitude", "wanda", "sparsegpt", "obd"] {
        let (predicted, written) = (estimate("--calibration", criterion), prune(&["-s", "2:4"], criterion));
        assert_eq!(written["quality"]["outputs"][0]["name"], "out");
        assert!(network_error(&written) > 0.0 && layers_error(&written) > 0.0);
        for of in [network_error, layers_error] {
            assert!((of(&predicted) - of(&written)).abs() < 1e-6, "{criterion}");
        }
        assert_eq!(predicted["quality"], estimate("--calibration-data", criterion)["quality"]);
    }
    assert!(layers_error(&prune(&["-s", "2:4"], "sparsegpt")) < layers_error(&prune(&["-s", "2:4"], "magnitude")));
    // Channels and masks together: what is left of a layer's inputs is judged.
    let both = prune(&["-s", "2:4", "-s", "a=channel@0.5", "-s", "b=2:4"], "wanda");
    assert_eq!(both["groups"][0]["kept"], 2);
    assert!(network_error(&both) > 0.0 && layers_error(&both) < 1.0);
    // Nothing goes: nothing moves.
    assert_eq!(network_error(&prune(&["-s", "4:4"], "wanda")), 0.0);
    let (status, _, e) = run(&["estimate", "-p", "a100", "-w", &w, "-s", "2:4", "--calibration", &data]);
    assert!(status == 1 && e.contains("--saliency"), "{e}");
    let e = run(&["prune", "-w", &w, "-s", "2:4", "--calibration", &w, "-o", &pruned]).2;
    assert!(e.contains("no .npz archive"), "{e}");
}
