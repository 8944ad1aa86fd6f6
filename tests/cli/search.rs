//! `hwsim search` and `hwsim merge` as a user runs them: threads, shards, kills and resumption leave no trace.

use assert_cmd::Command;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const PROFILE: &str = "name = \"small\"\nclock = \"1 GHz\"\n[memory]\nbandwidth = \"10 GB/s\"\n[device.systolic]\nrows = 16\ncols = 16\n\
    dataflow = \"weight-stationary\"\nsparsity = \"nm\"\ntechnology_nm = 16\n\
    sram = { inputs = \"64 KiB\", weights = \"64 KiB\", outputs = \"64 KiB\" }\n";

const SPACE: [&str; 14] = [
    "--workload",
    "squeezenet1.1",
    "--patterns",
    "dense,2:4,row@0.5,channel@0.25",
    "--vary",
    "device.systolic.rows=8..64*2",
    "--vary",
    "device.systolic.cols=8..64+8",
    "--vary",
    "memory.bandwidth=5..40 GB/s:4",
    "--where",
    "area_mm2 < 3 && device.systolic.rows * device.systolic.cols <= 2048",
    "--objectives",
    "latency,energy,area,quality,traffic",
];

fn search(folder: &Path, name: &str, extra: &[&str]) -> Command {
    let profile = folder.join("small.toml");
    fs::write(&profile, PROFILE).unwrap();
    let mut command = Command::cargo_bin("hwsim").unwrap();
    // Objectives of the question replace those of the space.
    let space = if extra.contains(&"--objectives") { &SPACE[..SPACE.len() - 2] } else { &SPACE };
    command.arg("search").args(space).args(extra).arg("--profile").arg(profile).arg("-o").arg(folder.join(name));
    command
}

/// Every file of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |e: fs::DirEntry| (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap());
    fs::read_dir(folder).unwrap().map(|e| read(e.unwrap())).collect()
}

fn rows(text: &[u8]) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_reader(text).deserialize().map(Result::unwrap).collect()
}

#[test]
fn threads_and_shards_leave_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    search(at, "whole", &["--threads", "1"]).assert().success();
    let whole = files(&at.join("whole"));
    assert_eq!(whole.keys().collect::<Vec<_>>(), ["front.csv", "points.csv", "search.json", "state.txt"]);
    search(at, "threads", &["--threads", "3"]).assert().success();
    assert_eq!(files(&at.join("threads")), whole);
    for count in [2, 5] {
        let mut merge = Command::cargo_bin("hwsim").unwrap();
        merge.arg("merge").arg("-o").arg(at.join(format!("merged{count}")));
        for i in (0..count).rev() {
            let (name, shard) = (format!("{count}-{i}"), format!("{i}/{count}"));
            search(at, &name, &["--shard", &shard]).assert().success();
            merge.arg(at.join(name));
        }
        merge.assert().success();
        assert_eq!(files(&at.join(format!("merged{count}"))), whole, "{count} shards");
    }
    let mut half = Command::cargo_bin("hwsim").unwrap();
    let refused = half.arg("merge").arg(at.join("2-0")).arg("-o").arg(at.join("half")).assert().code(1);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("shard 1/2 is missing"));
}

#[test]
fn the_front_is_brute_force_over_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    search(folder.path(), "a", &[]).assert().success();
    let written = files(&folder.path().join("a"));
    let (points, front) = (rows(&written["points.csv"]), rows(&written["front.csv"]));
    let key = |row: &BTreeMap<String, String>| {
        ["latency_s", "energy_j", "area_mm2", "loss", "dram_bytes"].map(|c| row[c].parse::<f64>().unwrap())
    };
    let keys: Vec<[f64; 5]> = points.iter().map(key).collect();
    let beats = |a: usize, b: usize| keys[a].iter().zip(&keys[b]).all(|(x, y)| x <= y) && (keys[a] != keys[b] || a < b);
    let expected: Vec<&BTreeMap<_, _>> =
        (0..points.len()).filter(|&b| !(0..points.len()).any(|a| beats(a, b))).map(|i| &points[i]).collect();
    assert_eq!(front.iter().collect::<Vec<_>>(), expected);
    assert!(front.len() > 10 && front.len() < points.len());
    for row in &points {
        let number = |c: &str| row[c].parse::<f64>().unwrap();
        assert!(number("area_mm2") < 3.0 && number("device.systolic.rows") * number("device.systolic.cols") <= 2048.0);
        assert!((number("power_w") * number("latency_s") / number("energy_j") - 1.0).abs() < 1e-12);
    }
    // Each row is what `estimate` says of the same machine.
    let row = &points[points.len() / 2];
    let text = PROFILE
        .replace("rows = 16", &format!("rows = {}", row["device.systolic.rows"]))
        .replace("cols = 16", &format!("cols = {}", row["device.systolic.cols"]))
        .replace("10 GB/s", &row["memory.bandwidth"]);
    let profile = folder.path().join("one.toml");
    fs::write(&profile, text).unwrap();
    let mut estimate = Command::cargo_bin("hwsim").unwrap();
    let arguments = ["estimate", "--workload", "squeezenet1.1", "--format", "json", "-s", &row["pattern"], "--profile"];
    let answer = estimate.args(arguments).arg(profile).assert().success();
    let answer: serde_json::Value = serde_json::from_slice(&answer.get_output().stdout).unwrap();
    assert_eq!(answer["total"]["latency_s"].as_f64().unwrap(), row["latency_s"].parse::<f64>().unwrap());
    assert_eq!(answer["total"]["energy_j"].as_f64().unwrap(), row["energy_j"].parse::<f64>().unwrap());
}

/// A space that takes a while on one thread, so that kills fall into it.
const LONG: [&str; 8] =
    ["--vary", "memory.latency=1..60 ns:20", "--vary", "clock=500..1000 MHz:6", "--threads", "1", "--checkpoint", "0"];

/// Chunks done and chunks in all, as the last checkpoint says; `None` before there is one.
fn progress(folder: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(folder.join("state.txt")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("done "))?;
    let (done, all) = line.split_once(' ')?;
    Some((done.parse().ok()?, all.parse().ok()?))
}

#[test]
fn ten_kills_and_resumption_give_the_bytes_of_an_undisturbed_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let began = Instant::now();
    search(at, "whole", &LONG).assert().success();
    let length = began.elapsed();
    let whole = files(&at.join("whole"));
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let resumed: Vec<&str> = LONG.into_iter().chain(["--resume"]).collect();
    let (mut partial, mut reached) = (0, Vec::new());
    for round in 0..10 {
        let name = format!("killed{round}");
        // A moment anywhere in the run's length; the process is killed with SIGKILL and sees nothing of it.
        let pause = length.mul_f64(rng.random_range(0.05..0.85));
        let _ = search(at, &name, &LONG).timeout(pause).ok();
        if let Some((done, all)) = progress(&at.join(&name)) {
            partial += u32::from(done > 0 && done < all);
            reached.push(done);
            // Going on takes up what was done: killed again, it is never behind where it was.
            let _ = search(at, &name, &resumed).timeout(pause.div_f64(8.0)).ok();
            let (again, _) = progress(&at.join(&name)).expect("a state is replaced whole or not at all");
            assert!(again >= done, "round {round}: {done} chunks were done, {again} after going on");
        }
        search(at, &name, &resumed).assert().success();
        let mut left = files(&at.join(&name));
        // What a kill leaves of a file that was being written has a name of its own.
        left.retain(|name, _| !name.starts_with(".tmp"));
        assert_eq!(left, whole, "round {round}");
        fs::remove_dir_all(at.join(&name)).unwrap();
    }
    assert!(partial >= 6, "only {partial} of ten kills fell between two checkpoints of the run: {reached:?}");
    reached.dedup();
    assert!(reached.len() >= 3, "the kills fell at the same place: {reached:?}");
}

#[test]
fn an_evolution_finds_most_of_the_front_and_is_the_same_however_it_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let vary = ["--vary", "memory.latency=1..60 ns:20", "--objectives", "latency,area,quality"];
    search(at, "all", &vary).assert().success();
    let extra = ["--exhaustive", "100", "--evaluations", "4000", "--islands", "3", "--seed", "5", "--checkpoint", "0"];
    let extra: Vec<&str> = vary.into_iter().chain(extra).collect();
    search(at, "whole", &extra).assert().success();
    let whole = files(&at.join("whole"));
    assert!(!whole.contains_key("points.csv"));
    let again: Vec<&str> = extra.iter().copied().chain(["--threads", "1"]).collect();
    search(at, "again", &again).assert().success();
    assert_eq!(files(&at.join("again")), whole);
    let mut merge = Command::cargo_bin("hwsim").unwrap();
    merge.arg("merge").arg("-o").arg(at.join("merged"));
    for shard in ["0/2", "1/2"] {
        let name = shard.replace('/', "-");
        let extra: Vec<&str> = extra.iter().copied().chain(["--shard", shard, "--resume"]).collect();
        // Killed on the way; what it left is gone on with.
        let _ = search(at, &name, &extra).timeout(Duration::from_millis(60)).ok();
        search(at, &name, &extra).assert().success();
        merge.arg(at.join(name));
    }
    merge.assert().success();
    assert_eq!(files(&at.join("merged")), whole);
    let front = |name: &str| rows(&files(&at.join(name))["front.csv"]);
    let (found, exact) = (front("whole"), front("all"));
    let key = |r: &BTreeMap<String, String>| ["latency_s", "area_mm2", "loss"].map(|c| r[c].parse::<f64>().unwrap());
    // A quarter of the space was visited: nothing found may beat the true front, and most of it must be there.
    let beaten = |p: [f64; 3]| exact.iter().any(|q| key(q).iter().zip(&p).all(|(a, b)| a <= b));
    assert!(found.iter().all(|p| beaten(key(p))));
    let hit = exact.iter().filter(|q| found.iter().any(|p| key(p) == key(q))).count();
    assert!(hit * 2 > exact.len(), "{hit} of {}", exact.len());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    search(at, "a", &[]).assert().success();
    let says = |mut command: Command, text: &str| {
        let run = command.assert().code(1);
        let error = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        assert!(error.contains(text), "{error}");
    };
    says(search(at, "a", &[]), "--resume");
    says(search(at, "a", &["--resume", "--batch", "2"]), "another search");
    says(search(at, "b", &["--vary", "device.systolic.rosw=1,2"]), "rosw");
    says(search(at, "c", &["--vary", "device.systolic.rows=0"]), "rows");
    let usage = search(at, "d", &["--where", "area < 3"]).assert().failure();
    assert!(!usage.get_output().stderr.is_empty());
}

#[test]
fn a_budget_is_answered_with_its_proof_and_its_rules() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut command = Command::cargo_bin("hwsim").unwrap();
    let arguments =
        ["search", "--workload", "resnet18", "--profile", "systolic-128x128", "--patterns", "2:4,row@0.5,row@0.25"];
    let run = command.args(arguments).args(["--budget", "loss=0.1,latency=0.8x", "-o"]).arg(at).assert().success();
    let told = String::from_utf8(run.get_output().stdout.clone()).unwrap();
    assert!(told.contains("proved optimal") && told.contains("HALP"), "{told}");
    let methods = rows(&fs::read(at.join("methods.csv")).unwrap());
    assert_eq!(methods.len(), 10);
    let layers = rows(&fs::read(at.join("layers.csv")).unwrap());
    let loss: f64 =
        layers.iter().filter(|r| r["budget"] == "loss=0.1").map(|r| r["loss"].parse::<f64>().unwrap()).sum();
    assert!(loss <= 0.1 * (1.0 + 1e-9) && (loss - methods[0]["loss"].parse::<f64>().unwrap()).abs() < 1e-12);
    let rules = fs::read_to_string(at.join("rules-systolic-128x128-1-int8-loss=0.1.txt")).unwrap();
    let mut estimate = Command::cargo_bin("hwsim").unwrap();
    estimate.args(["estimate", "--workload", "resnet18", "--profile", "systolic-128x128", "--format", "json"]);
    rules.lines().for_each(|r| {
        estimate.args(["-s", r]);
    });
    let answer = estimate.assert().success();
    let answer: serde_json::Value = serde_json::from_slice(&answer.get_output().stdout).unwrap();
    assert_eq!(answer["total"]["latency_s"].as_f64().unwrap(), methods[0]["latency_s"].parse::<f64>().unwrap());
}

#[test]
fn a_budget_is_answered_on_every_varied_machine() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut command = Command::cargo_bin("hwsim").unwrap();
    command.args(["search", "--workload", "resnet18", "--profile", "systolic-128x128", "--patterns", "2:4,row@0.5"]);
    command.args(["--vary", "device.systolic.rows=64,128", "--budget", "loss=0.1", "-o"]).arg(at).assert().success();
    let methods = rows(&fs::read(at.join("methods.csv")).unwrap());
    let found = |name: &str| methods.iter().find(|r| r["profile"] == name && r["method"] == "optimal").unwrap();
    let small = found("systolic-128x128 device.systolic.rows=64");
    let whole = found("systolic-128x128 device.systolic.rows=128");
    let seconds = |r: &BTreeMap<String, String>| r["dense_latency_s"].parse::<f64>().unwrap();
    assert!(seconds(small) > seconds(whole), "half the rows take longer");
    let mut alone = Command::cargo_bin("hwsim").unwrap();
    alone.args(["search", "--workload", "resnet18", "--profile", "systolic-128x128", "--patterns", "2:4,row@0.5"]);
    alone.args(["--budget", "loss=0.1", "-o"]).arg(at.join("alone")).assert().success();
    let alone = rows(&fs::read(at.join("alone/methods.csv")).unwrap());
    assert_eq!(alone[0]["latency_s"], whole["latency_s"], "the machine as it is");
}
