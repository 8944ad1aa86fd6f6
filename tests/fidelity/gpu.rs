//! The GPU model against measurements, where the sample file is at hand (`shared/` beside the checkout).

use hwsim::bench::Sample;
use hwsim::calibrate::validate::{predict, profiles_for, validate};
use hwsim::profile::{Calibration, Profile};
use std::path::PathBuf;

fn samples() -> Option<Vec<Sample>> {
    let shared = std::env::var_os("HWSIM_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let file = shared.join("reference/gpu_samples.csv");
    if !file.is_file() {
        eprintln!("skipped: {} is not there", file.display());
        return None;
    }
    Some(Sample::read(&file).unwrap())
}

#[test]
fn the_shipped_constants_describe_their_samples() {
    let Some(samples) = samples() else { return };
    let built_in: Vec<Profile> = Profile::built_in().unwrap().into_iter().map(|(_, p)| p).collect();
    let mean = |pick: &dyn Fn(&Sample) -> bool| {
        let rows: Vec<Sample> = samples.iter().filter(|s| pick(s)).cloned().collect();
        let profiles = profiles_for(&rows, None, &built_in);
        let answer = validate(&rows, &predict(&rows, &profiles, Calibration::shipped()).unwrap());
        (answer.mape.unwrap(), answer.gain_sign)
    };
    let narrow = |s: &Sample| s.dtype != "fp32";
    type Case<'a> = (&'a str, f64, &'a dyn Fn(&Sample) -> bool);
    let cases: [Case; 8] = [
        ("tensor-core gemm", 13.0, &|s| s.op.name() == "gemm" && s.pattern == "dense" && narrow(s)),
        ("fp32 gemm", 13.0, &|s| s.op.name() == "gemm" && s.pattern == "dense" && !narrow(s)),
        ("2:4", 14.0, &|s| s.pattern == "2:4"),
        ("compressed rows", 25.0, &|s| s.pattern.starts_with("unstructured")),
        ("column vectors", 25.0, &|s| s.pattern.starts_with("block:")),
        ("attention", 21.0, &|s| s.op.name() == "attention"),
        ("whole networks", 12.0, &|s| s.op.name() == "network" && s.dtype == "fp32"),
        ("softmax, norm, elementwise", 15.0, &|s| matches!(s.op.name(), "softmax" | "layernorm" | "elementwise")),
    ];
    for (name, most, pick) in cases {
        let (error, _) = mean(pick);
        assert!(error <= most, "{name}: {error:.1} % instead of at most {most} %");
    }
    let (_, sign) = mean(&|s| s.op.name() == "gemm" && matches!(s.pattern.as_str(), "dense" | "2:4"));
    assert!(sign.unwrap() >= 92.0, "sign of 2:4's gain right in {sign:?} %");
}
