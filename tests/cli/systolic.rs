//! `hwsim simulate` and `hwsim import` as a user runs them.

use assert_cmd::Command;
use std::fs;

const PROFILE: &str = "name = \"small\"\nclock = \"1 GHz\"\n[memory]\nbandwidth = \"10 GB/s\"\n[device.systolic]\nrows = 4\ncols = 6\n\
    dataflow = \"weight-stationary\"\nsparsity = \"nm\"\nsram = { inputs = \"64 KiB\", weights = \"64 KiB\", outputs = \"64 KiB\" }\n";

fn hwsim() -> Command {
    Command::cargo_bin("hwsim").unwrap()
}

fn json(output: &[u8]) -> serde_json::Value {
    serde_json::from_slice(output).unwrap()
}

#[test]
fn simulate_answers_with_a_right_product_and_the_closed_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.toml");
    fs::write(&path, PROFILE).unwrap();
    for (pattern, cycles) in [("dense", 6 * 21 * 2), ("2:4", 3 * 21 * 2)] {
        let run = || {
            let arguments =
                ["simulate", "--gemm", "9x12x24", "-s", pattern, "--seed", "3", "--format", "json", "--profile"];
            let assert = hwsim().args(arguments).arg(&path).assert().success();
            assert.get_output().stdout.clone()
        };
        let answer = json(&run());
        assert_eq!(answer["cycles"], cycles);
        assert_eq!(answer["product_is_right"], true);
        assert_eq!(answer["closed_form_agrees"], true);
        assert_eq!(run(), run(), "the same seed gives the same bytes");
    }
    let refused = hwsim().args(["simulate", "--gemm", "9x12x24", "--profile", "a100"]).assert().failure().code(1);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("systolic"));
    hwsim().args(["simulate", "--gemm", "99999x99999x99999", "--profile"]).arg(&path).assert().code(1);
}

#[test]
fn an_imported_run_answers_like_scale_sim() {
    let folder = tempfile::tempdir().unwrap();
    let (cfg, topology) = (folder.path().join("a.cfg"), folder.path().join("t.csv"));
    fs::write(
        &cfg,
        "[general]\nrun_name = demo\n[architecture_presets]\nArrayHeight: 64\nArrayWidth: 16\nIfmapSramSzkB: 64\nFilterSramSzkB: 64\n\
         OfmapSramSzkB: 64\nDataflow : os\n[run_presets]\nInterfaceBandwidth: CALC\n[sparsity]\nSparsitySupport: false\n",
    )
    .unwrap();
    // The first layer of a quarter-size ResNet-50; figures as SCALE-Sim 3.0.0 printed them.
    fs::write(&topology, "Layer,H,W,R,S,C,K,stride,\nConv1,56,56,7,7,3,64,2,\n").unwrap();
    let import =
        hwsim().args(["import", "scale-sim"]).args([&cfg, &topology]).arg("-o").arg(folder.path()).assert().success();
    let told = String::from_utf8(import.get_output().stdout.clone()).unwrap();
    let files: Vec<&str> = told.lines().take(2).collect();
    let estimate = hwsim()
        .args(["estimate", "--format", "json", "--profile", files[0], "--workload", files[1]])
        .assert()
        .success();
    let layer = &json(&estimate.get_output().stdout)["layers"][0];
    assert_eq!(layer["cycles"], 9899.0);
    assert_eq!(layer["sram_reads"]["inputs"], 397_488);
    assert_eq!(layer["sram_reads"]["weights"], 103_488);
    assert_eq!(layer["sram_writes"]["outputs"], 46_784);
    assert_eq!(layer["dram_reads"]["inputs"], 9408);
    assert_eq!(layer["dram_reads"]["weights"], 9408);
    assert!((layer["mapping_efficiency"].as_f64().unwrap() - 96.02272727272727).abs() < 1e-9);
    assert!((layer["compute_utilization"].as_f64().unwrap() - 62.73484848484843).abs() < 1e-9);
    assert!((layer["overall_utilization"].as_f64().unwrap() - 62.74118837256288).abs() < 1e-3);

    fs::write(&topology, "Layer,H,W,R,S,C,K,stride,\nConv1,5,5,7,7,3,64,2,\n").unwrap();
    let broken =
        hwsim().args(["import", "scale-sim"]).args([&cfg, &topology]).arg("-o").arg(folder.path()).assert().code(1);
    assert!(String::from_utf8_lossy(&broken.get_output().stderr).contains("line 2"));
}
