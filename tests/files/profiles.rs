//! Profiles: the built-in ones hold what data sheets quote, broken ones are refused at the place.

use assert_cmd::Command;
use hwsim::dtype::DType;
use hwsim::profile::detect::{CacheFiles, HostFiles, linux};
use hwsim::profile::{Device, Profile};

const GOOD: &str = r#"name  = "x"
clock = "1 GHz"
[memory]
bandwidth = "10 GB/s"
[device.cpu]
cores = 2
macs  = { fp32 = "8 MAC/cy" }
cache = [{ level = "L1", size = "32 KiB", line = "64 B", ways = 8, bandwidth = "32 B/cy" }]
"#;

fn refused(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    Profile::from_toml(&GOOD.replace(from, to), "x.toml").unwrap_err().to_string()
}

#[test]
fn a_missing_unit_is_shown_with_a_caret() {
    insta::assert_snapshot!(refused("\"10 GB/s\"", "10"), @r#"
    x.toml: TOML parse error at line 4, column 13
      |
    4 | bandwidth = 10
      |             ^^
    `10` has no unit; write a string such as "1555 GB/s"
    "#);
}

#[test]
fn an_unknown_unit_is_refused() {
    insta::assert_snapshot!(refused("10 GB/s", "10 GHz"), @r#"
    x.toml: TOML parse error at line 4, column 13
      |
    4 | bandwidth = "10 GHz"
      |             ^^^^^^^^
    `GHz` is not a unit of this quantity; write it like "1555 GB/s"
    "#);
}

#[test]
fn an_unknown_key_is_refused() {
    insta::assert_snapshot!(refused("cores = 2", "cores = 2\nthreads = 4"), @r#"
    x.toml: TOML parse error at line 7, column 1
      |
    7 | threads = 4
      | ^^^^^^^
    unknown field `threads`, expected one of `cores`, `macs`, `matrix`, `vector`, `cache`, `measured`
    "#);
}

#[test]
fn an_unknown_dtype_is_refused() {
    insta::assert_snapshot!(refused("fp32", "f33"), @r#"
    x.toml: TOML parse error at line 7, column 11
      |
    7 | macs  = { f33 = "8 MAC/cy" }
      |           ^^^
    unknown variant `f33`, expected one of `fp32`, `tf32`, `fp16`, `bf16`, `fp8`, `int8`, `fp4`
    "#);
}

#[test]
fn a_negative_rate_is_refused() {
    insta::assert_snapshot!(refused("8 MAC/cy", "-8 MAC/cy"), @r#"
    x.toml: TOML parse error at line 7, column 18
      |
    7 | macs  = { fp32 = "-8 MAC/cy" }
      |                  ^^^^^^^^^^^
    `-8 MAC/cy` must be finite and more than zero
    "#);
}

#[test]
fn a_rate_of_nan_is_refused() {
    insta::assert_snapshot!(refused("8 MAC/cy", "NaN MAC/cy"), @r#"
    x.toml: TOML parse error at line 7, column 18
      |
    7 | macs  = { fp32 = "NaN MAC/cy" }
      |                  ^^^^^^^^^^^^
    `NaN MAC/cy` is not a quantity; write a number and a unit, such as "1024 MAC/cy"
    "#);
}

#[test]
fn a_rate_of_zero_is_refused() {
    insta::assert_snapshot!(refused("8 MAC/cy", "0 MAC/cy"), @r#"
    x.toml: TOML parse error at line 7, column 18
      |
    7 | macs  = { fp32 = "0 MAC/cy" }
      |                  ^^^^^^^^^^
    `0 MAC/cy` must be finite and more than zero
    "#);
}

#[test]
fn an_unknown_family_is_refused() {
    insta::assert_snapshot!(refused("device.cpu", "device.fpga"), @r#"
    x.toml: TOML parse error at line 5, column 9
      |
    5 | [device.fpga]
      |         ^^^^
    unknown variant `fpga`, expected one of `cpu`, `gpu`, `systolic`
    "#);
}

#[test]
fn built_in_profiles_write_and_read_back_equal() {
    let all = Profile::built_in().unwrap();
    for family in [("cpu", 10), ("systolic", 12), ("gpu", 1)] {
        assert!(all.iter().filter(|(_, p)| p.device.family() == family.0).count() >= family.1, "{family:?}");
    }
    for (stem, profile) in all {
        assert!(!profile.sources.is_empty(), "{stem} has no source");
        let text = profile.to_toml();
        assert_eq!(Profile::from_toml(&text, stem).unwrap(), profile, "{text}");
    }
}

#[test]
fn built_in_names_are_unambiguous() {
    let all = Profile::built_in().unwrap();
    for (stem, profile) in &all {
        for name in profile.aliases.iter().chain([&profile.name]) {
            assert_eq!(Profile::find(name).unwrap().name, profile.name, "`{name}` of {stem}");
        }
    }
}

#[test]
fn an_unknown_profile_suggests_the_nearest() {
    let message = Profile::find("xeon-gold-6184").unwrap_err().to_string();
    assert_eq!(message, "unknown profile `xeon-gold-6184`; did you mean `xeon-gold-6148`?");
}

/// Peaks in 10^12 operations a second that vendors quote: cores or elements × rate × clock × 2.
#[test]
fn peaks_of_cpus_and_arrays_equal_quoted_ones() {
    // Jouppi et al. 2017, 2020, 2021, 2023; the newer chips are profiled by the MXU.
    for (name, quoted, mxus) in [
        ("tpu-v1", 92.0, 1.0),
        ("tpu-v2", 46.0, 2.0),
        ("tpu-v3", 123.0, 4.0),
        ("tpu-v4", 275.0, 8.0),
        ("tpu-v4i", 138.0, 4.0),
        ("tpu-v5e", 197.0, 4.0),
    ] {
        let profile = Profile::find(name).unwrap();
        let Device::Systolic(array) = &profile.device else { panic!("{name}") };
        let peak = (array.rows * array.cols) as f64 * profile.clock.get() * 2.0 * mxus / 1e12;
        assert!((peak / quoted - 1.0).abs() < 0.01, "{name}: {peak}, quoted {quoted}");
    }
    // Intel, 2021: 1024 bf16 and 2048 int8 AMX operations a cycle and core.
    let Device::Cpu(cpu) = Profile::find("xeon-platinum-8480").unwrap().device else { panic!() };
    assert_eq!([DType::Bf16, DType::Int8].map(|d| cpu.matrix[&d].get() * 2.0), [1024.0, 2048.0]);
}

fn cache(level: &str, kind: &str, size: &str, ways: &str, shared: &str) -> CacheFiles {
    CacheFiles {
        level: format!("{level}\n"),
        kind: format!("{kind}\n"),
        size: format!("{size}\n"),
        line: "64\n".into(),
        ways: format!("{ways}\n"),
        shared: format!("{shared}\n"),
    }
}

fn host(info: &str, threads: u64) -> HostFiles {
    let cpuinfo =
        (0..threads).map(|t| format!("processor\t: {t}\nphysical id\t: 0\ncore id\t\t: {}\n{info}\n", t / 2)).collect();
    let caches = vec![
        cache("1", "Data", "48K", "12", "0-1"),
        cache("1", "Instruction", "32K", "8", "0-1"),
        cache("2", "Unified", "1M", "16", "0-1"),
        cache("3", "Unified", "32768K", "16", "0-7"),
    ];
    HostFiles { cpuinfo, caches, max_khz: None, quota: None }
}

const ZEN5: &str = "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel name\t: AMD EPYC 9755\ncpu MHz\t\t: 2600.0\nbogomips\t: 5200.0\nflags\t\t: fma avx2 avx512f avx512_vnni avx512_bf16";

#[test]
fn a_host_becomes_a_profile() {
    let profile = linux(&host(ZEN5, 8)).unwrap();
    assert_eq!(profile.clock.get(), 2.6e9);
    let Device::Cpu(cpu) = &profile.device else { panic!() };
    assert_eq!(cpu.cores, 4, "two threads a core");
    assert_eq!([DType::Fp32, DType::Bf16, DType::Int8].map(|d| cpu.macs[&d].get()), [32.0, 64.0, 128.0]);
    let levels: Vec<_> = cpu.cache.iter().map(|c| (c.level.as_str(), c.size.get(), c.ways, c.shared)).collect();
    assert_eq!(levels, [("L1", 49152.0, 12, false), ("L2", 1048576.0, 16, false), ("L3", 33554432.0, 16, true)]);
    assert_eq!(Profile::from_toml(&profile.to_toml(), "host").unwrap(), profile);
}

#[test]
fn a_container_has_the_cores_of_its_quota() {
    for (quota, cores) in [("200000 100000", 2), ("150000 100000", 2), ("max 100000", 4), ("-1 100000", 4)] {
        let files = HostFiles { quota: Some(quota.into()), ..host(ZEN5, 8) };
        let Device::Cpu(cpu) = linux(&files).unwrap().device else { panic!() };
        assert_eq!(cpu.cores, cores, "{quota}");
    }
}

#[test]
fn an_arm_host_needs_cpufreq() {
    let arm = "BogoMIPS\t: 108.00\nFeatures\t: fp asimd asimdhp asimddp\nCPU part\t: 0xd0b";
    let files = host(arm, 4);
    let message = linux(&files).unwrap_err().to_string();
    assert_eq!(
        message,
        "host: neither cpufreq nor /proc/cpuinfo states a clock; write a CPU profile by hand and name its file"
    );
    let profile = linux(&HostFiles { max_khz: Some("2400000\n".into()), ..files }).unwrap();
    let Device::Cpu(cpu) = &profile.device else { panic!() };
    assert_eq!([DType::Fp32, DType::Fp16, DType::Int8].map(|d| cpu.macs[&d].get()), [8.0, 16.0, 32.0]);
}

#[test]
fn an_empty_cpuinfo_is_refused() {
    assert!(linux(&HostFiles::default()).unwrap_err().to_string().contains("lists no processor"));
}

fn hwsim(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hwsim")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_commands_list_show_and_check() {
    let (ok, list, _) = hwsim(&["profiles", "list"]);
    assert!(ok && list.lines().any(|l| l.starts_with("a100 ") && l.contains("108 SMs")), "{list}");
    let (ok, shown, _) = hwsim(&["profiles", "show", "a100"]);
    assert!(ok && shown.contains("clock = \"1410 MHz\"") && shown.contains("size = \"40 MiB\""), "{shown}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, &shown).unwrap();
    assert!(hwsim(&["profiles", "check", file.to_str().unwrap()]).0);
    std::fs::write(&file, shown.replace("\"400 W\"", "400")).unwrap();
    let (ok, out, err) = hwsim(&["profiles", "check", file.to_str().unwrap()]);
    assert!(
        !ok && out.is_empty() && err.contains("mine.toml") && err.contains('^') && err.contains("has no unit"),
        "{err}"
    );
}
