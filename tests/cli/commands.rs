//! The binary as a user meets it: answers on stdout, one clear sentence for what is wrong, nothing half-written.

use assert_cmd::Command;
use std::fs;
use std::path::PathBuf;

fn hwsim() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hwsim"));
    command.env("NO_COLOR", "1");
    command
}

/// (exit status, stdout, stderr).
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = hwsim().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// The complaint about arguments that must fail: status 1, nothing on stdout, one line that is no panic.
fn complaint(arguments: &[&str]) -> String {
    let (status, out, err) = run(arguments);
    assert_eq!((status, out.as_str()), (1, ""), "{arguments:?}: {err}");
    assert!(!err.contains("panicked"), "{err}");
    let start = err.find("error: ").expect("a line that begins with error");
    err[start..].to_owned()
}

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

const GPU: &str = r#"
name  = "small"
clock = "1 GHz"
[memory]
bandwidth = "100 GB/s"
[device.gpu]
sms    = 4
launch = "4 us"
l2            = { size = "1 MiB", bandwidth = "512 B/cy" }
shared_memory = { size = "64 KiB", bandwidth = "128 B/cy" }
simt          = { fp32 = "64 MAC/cy" }
"#;

#[test]
fn the_default_is_resnet50_and_says_so() {
    let (status, out, err) = run(&["estimate", "--profile", "a100.toml"]);
    assert_eq!(status, 0, "{err}");
    assert!(err.contains("no --workload given: resnet50"), "{err}");
    assert!(out.contains("resnet50 on NVIDIA A100-SXM4-80GB, fp16, batch 1"), "{out}");
    assert!(out.contains("4.089 GMACs dense"), "{out}");
    assert!(out.contains("total"), "{out}");
}

#[test]
fn json_has_the_contract_s_fields() {
    let (_, out, _) =
        run(&["estimate", "--profile", "a100", "--workload", "resnet50", "-s", "2:4", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    for field in ["profile", "workload", "dtype", "batch", "total", "layers"] {
        assert!(answer.get(field).is_some(), "{field}");
    }
    let total = [
        "latency_s",
        "latency_low_s",
        "latency_high_s",
        "cycles",
        "macs_dense",
        "macs_effectual",
        "macs_issued",
        "dram_bytes",
        "weight_bytes",
        "energy_j",
        "dense_latency_s",
        "speedup",
    ];
    for field in total {
        assert!(answer["total"].get(field).is_some(), "total.{field}");
    }
    let layer = [
        "name",
        "op",
        "groups",
        "m",
        "n",
        "k",
        "pattern",
        "format",
        "executed",
        "kernel",
        "latency_s",
        "cycles",
        "bound",
        "traffic",
        "utilization",
        "speedup",
        "note",
    ];
    for field in layer {
        assert!(answer["layers"][0].get(field).is_some(), "layers[].{field}");
    }
    assert_eq!(answer["total"]["macs_dense"], 4_089_184_256u64);
    let sum: f64 = answer["layers"].as_array().unwrap().iter().map(|l| l["latency_s"].as_f64().unwrap()).sum();
    assert!((sum / answer["total"]["latency_s"].as_f64().unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn two_of_four_runs_where_the_kernel_s_alignment_admits_it() {
    let (_, out, _) = run(&["estimate", "--profile", "a100", "-w", "resnet50", "-s", "2:4", "--format", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    let layer = |name: &str| answer["layers"].as_array().unwrap().iter().find(|l| l["name"] == name).unwrap().clone();
    assert_eq!(layer("layer3.0.conv2")["executed"], "2:4");
    let first = layer("conv1");
    assert_eq!(first["executed"], "dense");
    assert!(first["note"].as_str().unwrap().contains("k to be a multiple of 16, and it is 147"), "{first}");
}

#[test]
fn csv_has_one_row_a_layer_with_the_same_names() {
    let json = run(&["estimate", "--profile", "a100", "-w", "resnet18", "--format", "json"]).1;
    let layers = serde_json::from_str::<serde_json::Value>(&json).unwrap()["layers"].as_array().unwrap().len();
    let out = run(&["estimate", "--profile", "a100", "-w", "resnet18", "--format", "csv"]).1;
    let mut reader = csv::Reader::from_reader(out.as_bytes());
    let header = reader.headers().unwrap().clone();
    for column in ["name", "op", "m", "n", "k", "latency_s", "dram_bytes", "l2_bytes", "speedup"] {
        assert!(header.iter().any(|h| h == column), "{column} in {header:?}");
    }
    assert_eq!(reader.records().map(Result::unwrap).count(), layers);
}

#[test]
fn one_product_needs_no_network() {
    let (status, out, _) = run(&["estimate", "--profile", "a100", "--gemm", "128x256x512", "--format", "json"]);
    assert_eq!(status, 0);
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    let layer = &answer["layers"][0];
    assert_eq!((layer["m"].as_u64(), layer["n"].as_u64(), layer["k"].as_u64()), (Some(128), Some(256), Some(512)));
    assert!(complaint(&["estimate", "--profile", "a100", "--gemm", "128x256"]).contains("write MxNxK"));
    assert!(complaint(&["estimate", "--profile", "a100", "--gemm", "0x1x1"]).contains("write MxNxK"));
}

#[test]
fn the_same_bytes_every_time() {
    let arguments = ["estimate", "--profile", "a100", "-w", "resnet50", "-s", "unstructured@0.9", "--format", "json"];
    let first = hwsim().env("RAYON_NUM_THREADS", "1").args(arguments).output().unwrap().stdout;
    let second = hwsim().env("RAYON_NUM_THREADS", "5").args(arguments).output().unwrap().stdout;
    assert!(!first.is_empty() && first == second);
}

#[test]
fn unknown_names_suggest_the_nearest() {
    let error = complaint(&["estimate", "--profile", "a10O"]);
    assert!(error.contains("unknown profile `a10O`; did you mean `a10"), "{error}");
    let error = complaint(&["estimate", "--profile", "a100", "-w", "resnet5O"]);
    assert!(error.contains("unknown workload `resnet5O`; did you mean `resnet50`?"), "{error}");
    assert_eq!(run(&["estimate", "--profile", "a100", "--dtype", "fp17"]).0, 2);
    assert_eq!(run(&["estimate"]).0, 2);
}

#[test]
fn sizes_of_nothing_are_refused() {
    for (option, value, name) in
        [("--batch", "0", "batch"), ("--decode", "0", "context"), ("--input", "input=0x3x224x224", "input input")]
    {
        let error = complaint(&["estimate", "--profile", "a100", "-w", "resnet18", option, value]);
        assert!(error.contains(&format!("{name}: a size of 0 leaves nothing to run")), "{error}");
    }
    let error = complaint(&["estimate", "--profile", "xeon-gold-6148", "-w", "resnet18", "--threads", "0"]);
    assert!(error.contains("threads: at least one thread is needed"), "{error}");
}

#[test]
fn patterns_that_make_no_sense() {
    let error = complaint(&["estimate", "--profile", "a100", "-s", "3:2"]);
    assert_eq!(error, "error: pattern `3:2`: N:M keeps N of every M, and 3 is more than 2; did you mean 2:3?\n");
    let error = complaint(&["estimate", "--profile", "a100", "-s", "layer9.*=2:4"]);
    assert!(error.contains("no layer with weights matches `layer9.*`"), "{error}");
}

#[test]
fn a_block_that_does_not_divide_is_padded_and_said() {
    let arguments =
        ["estimate", "--profile", "a100", "--gemm", "64x100x100", "-s", "block:16x16@0.5", "--format", "json"];
    let (status, out, _) = run(&arguments);
    assert_eq!(status, 0);
    assert!(out.contains("100×100 is padded to 112×112"), "{out}");
}

#[test]
fn profiles_point_at_the_place() {
    let scratch = Scratch::new();
    let fails = |name: &str, from: &str, to: &str| {
        assert!(GPU.contains(from));
        let path = scratch.file(name, GPU.replace(from, to));
        complaint(&["estimate", "--profile", &path])
    };
    let good = scratch.file("good.toml", GPU);
    assert_eq!(run(&["estimate", "--profile", &good]).0, 0);
    let error = fails("unit.toml", "\"1 GHz\"", "1");
    assert!(error.contains("line 3") && error.contains('^') && error.contains("has no unit"), "{error}");
    let error = fails("key.toml", "sms    = 4", "sms = 4\nsmss = 4");
    assert!(error.contains("unknown field `smss`") && error.contains('^'), "{error}");
    let error = fails("nan.toml", "\"100 GB/s\"", "\"NaN GB/s\"");
    assert!(error.contains("line 5") && error.contains('^'), "{error}");
    let error = fails("negative.toml", "\"100 GB/s\"", "\"-1 GB/s\"");
    assert!(error.contains("more than zero") && error.contains('^'), "{error}");
    let error = fails("infinite.toml", "\"64 MAC/cy\"", "\"1e999 MAC/cy\"");
    assert!(error.contains("finite"), "{error}");
    let error = fails("unit2.toml", "\"100 GB/s\"", "\"100 GHz\"");
    assert!(error.contains("`GHz` is not a unit of this quantity"), "{error}");
}

#[test]
fn networks_that_are_none() {
    let scratch = Scratch::new();
    let fails = |name: &str, layers: &str| {
        let path = scratch.file(name, format!("name = \"n\"\ninput = [1, 3, 8, 8]\n{layers}"));
        complaint(&["estimate", "--profile", "a100", "--workload", &path])
    };
    let error = fails("twice.toml", "[[layer]]\nname = \"a\"\nop.relu = {}\n[[layer]]\nname = \"a\"\nop.relu = {}\n");
    assert!(error.contains("layer `a`") && error.contains("must be unique"), "{error}");
    let error = fails(
        "cycle.toml",
        "[[layer]]\nname = \"a\"\ninputs = [\"b\"]\nop.relu = {}\n[[layer]]\nname = \"b\"\ninputs = [\"a\"]\nop.relu = {}\n",
    );
    assert!(error.contains("form a cycle"), "{error}");
    let error = fails("dangling.toml", "[[layer]]\nname = \"a\"\ninputs = [\"inpu\"]\nop.relu = {}\n");
    assert!(error.contains("is produced by no layer; did you mean `input`?"), "{error}");
    let error = fails("wide.toml", "[[layer]]\nname = \"a\"\nop.conv2d = { out = 4, kernel = 9, bias = false }\n");
    assert!(error.contains("layer `a`") && error.contains("kernel reaches 9 over an extent of 8"), "{error}");
}

#[test]
fn onnx_files_that_are_none() {
    let scratch = Scratch::new();
    let path = scratch.file("text.onnx", "this is not a model");
    let error = complaint(&["estimate", "--profile", "a100", "--workload", &path]);
    assert!(error.contains("text.onnx"), "{error}");
    let path = scratch.file("empty.onnx", "");
    assert!(complaint(&["estimate", "--profile", "a100", "--workload", &path]).contains("empty.onnx"));
    let error = complaint(&["estimate", "--profile", "a100", "--workload", "no/such/model.onnx"]);
    assert!(error.contains("no/such/model.onnx"), "{error}");
}

#[test]
fn an_output_file_is_written_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let path = scratch.path("answer.csv");
    let shown = path.display().to_string();
    let (status, out, err) = run(&["estimate", "--profile", "a100", "--format", "csv", "-o", &shown]);
    assert_eq!((status, out.as_str()), (0, ""), "{err}");
    assert!(fs::read_to_string(&path).unwrap().lines().count() > 10);
    let error = complaint(&["estimate", "--profile", "a100", "-o", "/no/such/folder/answer.csv"]);
    assert!(error.contains("/no/such/folder/answer.csv"), "{error}");
    // A failing question leaves an earlier answer as it was.
    let before = fs::read(&path).unwrap();
    complaint(&["estimate", "--profile", "a100", "-s", "3:2", "-o", &shown]);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(scratch.0.path()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    for format in ["table", "csv", "json"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hwsim"))
            .args(["estimate", "--profile", "a100", "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{format}: {err}");
        assert!(!err.contains("panicked"), "{format}: {err}");
    }
}

#[test]
fn a_network_runs_layer_by_layer() {
    let arguments = ["run", "--workload", "squeezenet1.1", "--passes", "1", "--format", "csv", "-s", "2:4"];
    let (status, out, err) = run(&arguments);
    assert_eq!(status, 0, "{err}");
    let mut rows = csv::Reader::from_reader(out.as_bytes());
    let header = rows.headers().unwrap().clone();
    let place = |name: &str| header.iter().position(|h| h == name).unwrap();
    let rows: Vec<csv::StringRecord> = rows.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 26, "one row a convolution");
    for row in &rows {
        for column in ["predicted_us", "measured_us"] {
            assert!(row[place(column)].parse::<f64>().unwrap() > 0.0, "{row:?}");
        }
    }
    assert!(rows.iter().any(|r| &r[place("kernel")] == "nm im2col"), "{out}");
    assert!(rows.iter().any(|r| &r[place("kernel")] == "nm"), "pointwise ones read the image as it lies: {out}");
    assert!(complaint(&["run", "-s", "channel@0.5"]).contains("hwsim prune"));
    assert!(complaint(&["run", "--profile", "a100"]).contains("not a CPU"));
}
