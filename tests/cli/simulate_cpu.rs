//! `hwsim simulate` with the profile of a CPU.

use assert_cmd::Command;

fn hwsim(arguments: &[&str]) -> assert_cmd::assert::Assert {
    Command::cargo_bin("hwsim").unwrap().arg("simulate").args(arguments).assert()
}

#[test]
fn every_level_is_listed_and_the_same_seed_gives_the_same_bytes() {
    let arguments = [
        "--profile",
        "xeon-gold-6148",
        "--gemm",
        "32x64x128",
        "-s",
        "unstructured@0.5",
        "--seed",
        "3",
        "--format",
        "json",
    ];
    let first = hwsim(&arguments).success().get_output().stdout.clone();
    assert_eq!(first, hwsim(&arguments).success().get_output().stdout);
    let answer: serde_json::Value = serde_json::from_slice(&first).unwrap();
    assert_eq!((answer["kernel"].as_str(), answer["nonzeros"].as_u64()), (Some("csr"), Some(4096)));
    let levels = answer["levels"].as_array().unwrap();
    assert_eq!(levels.len(), 3);
    for (inner, outer) in levels.iter().zip(&levels[1..]) {
        assert_eq!(inner["misses"], outer["lookups"]);
    }
    for level in levels {
        assert_eq!(
            level["hits"].as_u64().unwrap() + level["misses"].as_u64().unwrap(),
            level["lookups"].as_u64().unwrap()
        );
    }
}

#[test]
fn a_kernel_without_the_pattern_is_refused_by_name() {
    let error =
        hwsim(&["--profile", "xeon-gold-6148", "--gemm", "8x8x8", "-s", "2:4", "--kernel", "bsr"]).failure().code(1);
    let text = String::from_utf8_lossy(&error.get_output().stderr).into_owned();
    assert!(text.contains("bsr stores block:RxC@s, not 2:4"), "{text}");
}
