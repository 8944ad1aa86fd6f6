//! A CPU profile from what Linux tells about its own machine: a pure function of file contents; reading the files is
//! the caller's.

use super::{CacheLevel, Cpu, Device, Memory, Profile};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::units::{Bytes, BytesPerCycle, BytesPerSecond, Hertz, MacsPerCycle};
use std::collections::{BTreeMap, BTreeSet};

/// Contents of the files that describe a Linux host.
#[derive(Clone, Debug, Default)]
pub struct HostFiles {
    /// `/proc/cpuinfo`.
    pub cpuinfo: String,
    /// `/sys/devices/system/cpu/cpu0/cache/index*`.
    pub caches: Vec<CacheFiles>,
    /// `/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq`, in kHz.
    pub max_khz: Option<String>,
    /// `/sys/fs/cgroup/cpu.max`, or quota and period of the first version of cgroups joined by a space.
    pub quota: Option<String>,
}

/// Contents of the files of one `cache/index*` folder.
#[derive(Clone, Debug, Default)]
pub struct CacheFiles {
    /// `level`: `1`.
    pub level: String,
    /// `type`: `Data`, `Instruction`, `Unified`.
    pub kind: String,
    /// `size`: `32K`.
    pub size: String,
    /// `coherency_line_size`: `64`.
    pub line: String,
    /// `ways_of_associativity`: `8`.
    pub ways: String,
    /// `shared_cpu_list`: `0-3,8`.
    pub shared: String,
}

/// Instruction sets that decide the arithmetic rates.
struct Isa<'a> {
    flags: BTreeSet<&'a str>,
    amd: bool,
    family: u64,
    part: &'a str,
}

impl Isa<'_> {
    fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// Vector register bytes, and 32-bit multiply–accumulates a cycle: lanes times the usual number of FMA ports.
    fn vector(&self) -> (f64, f64) {
        // Zen 4 (family 25) runs 512-bit operations in two passes; Zen 5 (family 26) and Xeons have two full ports.
        if self.has("avx512f") {
            return (64.0, if self.amd && self.family < 26 { 16.0 } else { 32.0 });
        }
        if self.has("avx2") && self.has("fma") {
            return (32.0, 16.0);
        }
        if self.has("avx") {
            return (32.0, 8.0);
        }
        // Neoverse V1, V2 and Apple's performance cores have four 128-bit pipes, other Arm cores of server class two.
        let wide = matches!(self.part, "0xd40" | "0xd4f") || self.has("sve") && self.has("svebf16");
        match (self.has("asimd"), wide) {
            (true, true) => (16.0, 16.0),
            (true, false) => (16.0, 8.0),
            (false, _) => (16.0, 4.0),
        }
    }

    fn macs(&self, fp32: f64) -> BTreeMap<DType, MacsPerCycle> {
        let mut macs = BTreeMap::from([(DType::Fp32, MacsPerCycle(fp32))]);
        if self.has("avx512_fp16") || self.has("asimdhp") {
            macs.insert(DType::Fp16, MacsPerCycle(2.0 * fp32));
        }
        if self.has("avx512_bf16") {
            // AMD issues the dot product on both pipes, Intel on one (uops.info).
            macs.insert(DType::Bf16, MacsPerCycle(if self.amd { 2.0 } else { 1.0 } * fp32));
        } else if self.has("bf16") {
            macs.insert(DType::Bf16, MacsPerCycle(4.0 * fp32));
        }
        let int8 = if self.has("i8mm") {
            Some(8.0)
        } else if self.has("avx512_vnni") || self.has("avx_vnni") || self.has("asimddp") {
            Some(4.0)
        } else if self.has("avx512f") {
            // vpmaddubsw, vpmaddwd, vpaddd on two ports: 64 products in one and a half cycles.
            Some(4.0 / 3.0)
        } else if self.has("avx2") {
            Some(2.0)
        } else {
            None
        };
        macs.extend(int8.map(|x| (DType::Int8, MacsPerCycle(x * fp32))));
        macs
    }

    /// AMX: a 16×16×32 bf16 or 16×16×64 int8 tile product in 16 cycles.
    fn matrix(&self) -> BTreeMap<DType, MacsPerCycle> {
        let known =
            [("amx_bf16", DType::Bf16, 512.0), ("amx_fp16", DType::Fp16, 512.0), ("amx_int8", DType::Int8, 1024.0)];
        known.into_iter().filter(|(f, ..)| self.has(f)).map(|(_, d, rate)| (d, MacsPerCycle(rate))).collect()
    }
}

/// The profile of the host that the files describe. Arithmetic rates follow from the instruction sets, bandwidths are
/// estimates until measured.
///
/// # Errors
/// [`Error::Argument`] where the files do not say how many processors or which clock there is.
pub fn linux(files: &HostFiles) -> Result<Profile> {
    let refuse =
        |reason: &str| Error::argument("host", format!("{reason}; write a CPU profile by hand and name its file"));
    let info = &files.cpuinfo;
    let threads = values(info, "processor").count() as u64;
    if threads == 0 {
        return Err(refuse("/proc/cpuinfo lists no processor"));
    }
    let first = |key: &'static str| values(info, key).next();
    let isa = Isa {
        flags: first("flags").or_else(|| first("Features")).unwrap_or_default().split_whitespace().collect(),
        amd: first("vendor_id") == Some("AuthenticAMD"),
        family: first("cpu family").and_then(|f| f.parse().ok()).unwrap_or(0),
        part: first("CPU part").unwrap_or_default(),
    };
    let physical = cores(info).unwrap_or(threads);
    let allowed = files.quota.as_deref().and_then(quota).unwrap_or(u64::MAX);
    let clock = clock(files).ok_or_else(|| refuse("neither cpufreq nor /proc/cpuinfo states a clock"))?;
    let (vector, fp32) = isa.vector();
    let cache = caches(files, vector, threads / physical.max(1));
    if cache.is_empty() {
        return Err(refuse("/sys/devices/system/cpu/cpu0/cache is empty"));
    }
    let cores = physical.min(allowed).max(1);
    let profile = Profile {
        name: first("model name").unwrap_or("this host").to_owned(),
        aliases: vec!["host".into()],
        sources: vec![
            "cores, caches, clock: /proc/cpuinfo, /sys/devices/system/cpu".into(),
            "rates: instruction sets and the usual number of FMA ports".into(),
            "bandwidths: estimates".into(),
        ],
        clock,
        // A core alone draws about 10 GB/s from any recent DRAM; the channels of a socket end near 300 GB/s.
        memory: Memory {
            capacity: None,
            bandwidth: BytesPerSecond((10e9 * cores as f64).clamp(15e9, 300e9)),
            latency: None,
        },
        energy: None,
        device: Device::Cpu(Cpu {
            cores,
            macs: isa.macs(fp32),
            matrix: isa.matrix(),
            vector: Some(Bytes(vector)),
            cache,
            measured: None,
            calibration: None,
        }),
    };
    profile.check()?;
    Ok(profile)
}

/// Values of `key : value` lines.
fn values<'a>(info: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    info.lines().filter_map(|l| l.split_once(':')).filter(move |(k, _)| k.trim() == key).map(|(_, v)| v.trim())
}

/// Distinct pairs of socket and core.
fn cores(info: &str) -> Option<u64> {
    let pairs: BTreeSet<_> = values(info, "physical id").zip(values(info, "core id")).collect();
    (!pairs.is_empty()).then_some(pairs.len() as u64)
}

/// Whole CPUs of a cgroup's `quota period`.
fn quota(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
    Some(quota.div_ceil(period.max(1)).max(1))
}

fn clock(files: &HostFiles) -> Option<Hertz> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0);
    let khz = files.max_khz.as_deref().and_then(number).map(|k| k * 1e3);
    let mhz = values(&files.cpuinfo, "cpu MHz").filter_map(number).reduce(f64::max).map(|m| (m * 1e6).round());
    // On x86 the kernel reckons two bogomips a cycle; on Arm the figure is the timer's and says nothing.
    let x86 = values(&files.cpuinfo, "vendor_id").next().is_some();
    let bogo = values(&files.cpuinfo, "bogomips").find_map(number).filter(|_| x86).map(|b| b * 0.5e6);
    khz.or(mhz).or(bogo).map(Hertz)
}

/// Data caches, innermost first.
fn caches(files: &HostFiles, vector: f64, threads_per_core: u64) -> Vec<CacheLevel> {
    let mut levels: Vec<CacheLevel> = files
        .caches
        .iter()
        .filter(|c| c.kind.trim() != "Instruction")
        .filter_map(|c| {
            let level: u64 = c.level.trim().parse().ok()?;
            let size = size(&c.size)?;
            let line: f64 = c.line.trim().parse().ok().filter(|&l| l > 0.0)?;
            // 0 ways means fully associative, or not known.
            let ways =
                c.ways.trim().parse().ok().filter(|&w: &u64| w > 0).unwrap_or(8).min((size / line) as u64).max(1);
            let bandwidth = match level {
                1 => 2.0 * vector,
                2 => vector.max(32.0),
                _ => 16.0,
            };
            Some(CacheLevel {
                level: format!("L{level}"),
                size: Bytes(size),
                line: Bytes(line),
                ways,
                bandwidth: BytesPerCycle(bandwidth),
                shared: listed(&c.shared) > threads_per_core.max(1),
            })
        })
        .collect();
    levels.sort_by(|a, b| a.level.cmp(&b.level));
    levels
}

/// `32K`, `1M` in bytes.
fn size(text: &str) -> Option<f64> {
    let text = text.trim();
    let (digits, scale) = match text.chars().last()? {
        'K' => (&text[..text.len() - 1], 1024.0),
        'M' => (&text[..text.len() - 1], 1048576.0),
        'G' => (&text[..text.len() - 1], 1073741824.0),
        _ => (text, 1.0),
    };
    digits.parse::<u64>().ok().filter(|&v| v > 0).map(|v| v as f64 * scale)
}

/// How many CPUs a list such as `0-3,8` names.
fn listed(text: &str) -> u64 {
    text.trim()
        .split(',')
        .filter_map(|range| {
            let (a, b) = range.split_once('-').unwrap_or((range, range));
            Some(b.parse::<u64>().ok()?.checked_sub(a.parse().ok()?)?.saturating_add(1))
        })
        .fold(0, u64::saturating_add)
}
