//! The micro-profile: the facts of a machine that its cost model needs, measured one by one.

use super::clock::{Clock, fastest, keep};
use super::probes;
use crate::dtype::DType;
use crate::kernels::tiles::{self, Format};
use crate::kernels::{Buffer, Isa};
use crate::profile::{Cpu, Device, Measured, Profile};
use crate::units::{Bytes, BytesPerCycle, BytesPerSecond, Hertz, MacsPerCycle, Seconds};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What was measured, beyond what a profile holds.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Cycles a second.
    pub clock: f64,
    /// fp32 multiply–accumulates a cycle from registers and with a memory operand.
    pub macs: (f64, f64),
    /// The same of matrix tiles by format, where there are any.
    pub tiles: BTreeMap<DType, f64>,
    /// By level, innermost first, main memory last: its name, bytes read a cycle by one core, cycles of latency, bytes
    /// read a cycle by all cores together.
    pub levels: Vec<(String, f64, f64, f64)>,
    /// Bytes that the last cache keeps; 0 where it is one core's own.
    pub kept: f64,
}

/// Rounds and seconds of each probe.
const ROUNDS: usize = 31;
const ROUND: f64 = 1.2e-3;

impl Facts {
    /// The better of two measurements of one machine, number by number: what else it does only ever slows a probe.
    #[must_use]
    pub fn best(self, other: Self) -> Self {
        let levels = self.levels.into_iter().zip(other.levels);
        let tiles = self.tiles.into_iter().map(|(d, rate)| (d, other.tiles.get(&d).map_or(rate, |r| r.max(rate))));
        Self {
            clock: self.clock.max(other.clock),
            macs: (self.macs.0.max(other.macs.0), self.macs.1.max(other.macs.1)),
            tiles: tiles.collect(),
            levels: levels.map(|(a, b)| (a.0, a.1.max(b.1), a.2.min(b.2), a.3.max(b.3))).collect(),
            kept: self.kept.max(other.kept),
        }
    }
}

/// Measures the machine of these caches on `threads` cores.
pub fn measure(cpu: &Cpu, isa: Isa, threads: usize) -> Facts {
    let clock = Clock::for_threads(1);
    let probe = |work: &mut dyn FnMut()| fastest(clock, ROUNDS, ROUND, work);
    // The first milliseconds raise the clock.
    probe(&mut probes::additions);
    let hertz = probes::ADDITIONS as f64 / probe(&mut probes::additions);
    let cycles = |seconds: f64| seconds * hertz;
    // At a cache line: a vector that straddles two would take two loads.
    let page = Buffer::from(&[1e-3f32; 1024][..]);
    let count = probes::product_count(isa) as f64;
    let registers = count / cycles(probe(&mut || probes::products(isa)));
    let operand = count / cycles(probe(&mut || probes::products_from_memory(isa, &page)));
    let formats = [Format::Bf16, Format::Int8].into_iter().filter(|_| tiles::usable().is_ok());
    let rates = formats.map(|format| {
        let count = probes::tile_product_count(format) as f64;
        (format.dtype(), count / cycles(probe(&mut || probes::tile_products(format))))
    });
    let rates = rates.collect();
    let last = cpu.cache.last().map_or(32e6, |c| c.size.get());
    let far = (4.0 * last).min(1e9);
    let kept = cpu.cache.last().filter(|c| c.shared).map_or(0.0, |c| {
        let read = |bytes: f64| {
            let mut data = Buffer::zeros((bytes / 4.0) as usize / 128 * 128);
            data.fill(1.0);
            4.0 * data.len() as f64 / cycles(probe(&mut || probes::read(isa, &data)))
        };
        let inner = cpu.cache.iter().rev().nth(1).map_or(0.0, |c| c.size.get());
        kept(c.size.get(), inner, read(far), read)
    });
    let mut sizes: Vec<(String, f64)> = cpu
        .cache
        .iter()
        // Half of a private cache or of what is kept in a shared one: the rest is other data's.
        .map(|c| {
            (c.level.clone(), 0.5 * if c.shared && kept > 0.0 { kept.min(0.5 * c.size.get()) } else { c.size.get() })
        })
        .collect();
    sizes.push(("memory".into(), far));
    let mut facts = Facts { clock: hertz, macs: (registers, operand), tiles: rates, levels: Vec::new(), kept };
    for (name, bytes) in sizes {
        let mut data = Buffer::zeros((bytes / 4.0) as usize / 128 * 128);
        data.fill(1.0);
        let alone = 4.0 * data.len() as f64 / cycles(probe(&mut || probes::read(isa, &data)));
        let together = together(isa, &data, threads) / hertz;
        drop(data);
        let line = cpu.cache.first().map_or(64, |c| c.line.get() as usize);
        let chain = probes::cycle(bytes as usize, line);
        let steps = 20_000;
        let mut at = 0;
        let latency = cycles(probe(&mut || at = probes::chase(&chain, at, steps))) / steps as f64;
        facts.levels.push((name, alone, latency, together));
    }
    facts
}

/// Bytes that a shared cache of `size` keeps, beyond a nearer one of `inner`: reading so many around and around takes a
/// time half-way between the cache's and memory's (the step of the cost model). `read` gives bytes a cycle for a
/// footprint, `far` is what memory gives.
fn kept(size: f64, inner: f64, far: f64, read: impl Fn(f64) -> f64) -> f64 {
    let footprints = (0..=10).rev().map(|i| size / (0.5 * f64::from(i)).exp2()).filter(|bytes| *bytes >= 2.0 * inner);
    let times: Vec<(f64, f64)> = footprints.map(|bytes| (bytes, 1.0 / read(bytes))).collect();
    let near = times.iter().fold(f64::INFINITY, |least, (_, time)| least.min(*time));
    let half = 0.5 * (near + 1.0 / far);
    let nearer = |pair: &&[(f64, f64)]| pair[0].1 <= half && pair[1].1 > half;
    match times.windows(2).rfind(nearer) {
        Some(&[(a, fast), (b, slow)]) => (a * (b / a).powf((half - fast) / (slow - fast))).min(size),
        _ => size,
    }
}

/// Bytes a second that all threads read from their own copies (or parts, past a megabyte) of the data.
fn together(isa: Isa, data: &[f32], threads: usize) -> f64 {
    let large = data.len() > 1 << 18;
    let copies: Vec<Buffer> = if large {
        data.chunks(data.len().div_ceil(threads).max(1)).map(Buffer::from).collect()
    } else {
        (0..threads).map(|_| Buffer::from(data)).collect()
    };
    let passes = ((4 << 20) / data.len().max(1)).max(1);
    let total: usize = copies.iter().map(|c| c.len()).sum::<usize>() * passes;
    let seconds = fastest(Clock::Wall, ROUNDS / 2, ROUND, || {
        copies.par_iter().with_max_len(1).for_each(|own| (0..passes).for_each(|_| probes::read(isa, keep(own))));
    });
    4.0 * total as f64 / seconds
}

/// The profile that was detected, with measured numbers in place of estimated ones. A level's bandwidth is that of its own transfers: what a stream from it takes beyond
/// the levels nearer to the core, because transfers add up (execution–cache–memory model).
pub fn profile(detected: &Profile, cpu: &Cpu, isa: Isa, facts: &Facts, threads: usize) -> Profile {
    let mut cpu = cpu.clone();
    let mut nearer = 0.0;
    let own = |alone: f64, nearer: &mut f64| {
        let each = (1.0 / alone - *nearer).max(0.05 / alone);
        *nearer = 1.0 / alone;
        1.0 / each
    };
    for (level, (_, alone, ..)) in cpu.cache.iter_mut().zip(&facts.levels) {
        level.bandwidth = BytesPerCycle(rounded(own(*alone, &mut nearer)));
    }
    let (_, alone, latency, all) = facts.levels.last().cloned().unwrap_or_default();
    let shared = cpu.cache.iter().zip(&facts.levels).rfind(|(c, _)| c.shared).map(|(_, l)| l.3 / l.1);
    cpu.measured = Some(Measured {
        memory_operand: MacsPerCycle(rounded(facts.macs.1)),
        stream: BytesPerCycle(rounded(own(alone, &mut nearer))),
        scaling: rounded(shared.unwrap_or(threads as f64).clamp(1.0, threads as f64)),
        kept: (facts.kept > 0.0).then(|| Bytes(rounded(facts.kept))),
    });
    let scale = facts.macs.0 / cpu.macs.get(&DType::Fp32).map_or(facts.macs.0, |r| r.get());
    for rate in cpu.macs.values_mut() {
        // Narrower formats run on the same ports.
        *rate = MacsPerCycle(rounded(rate.get() * scale));
    }
    // Tiles that kernels cannot use are as good as none.
    cpu.matrix = facts.tiles.iter().map(|(&d, &rate)| (d, MacsPerCycle(rounded(rate)))).collect();
    cpu.vector = Some(Bytes(4.0 * isa.lanes() as f64));
    let mut profile = detected.clone();
    profile.clock = Hertz(rounded(facts.clock));
    profile.memory.bandwidth = BytesPerSecond(rounded(all.max(alone) * facts.clock));
    profile.memory.latency = Some(Seconds(rounded(latency / facts.clock)));
    profile.sources = vec![format!("measured by hwsim bench {} with {}", env!("CARGO_PKG_VERSION"), isa.name())];
    profile.device = Device::Cpu(cpu);
    profile
}

/// To four digits, which is more than a measurement repeats.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

/// The facts as comment lines of a TOML file.
pub fn comment(facts: &Facts) -> String {
    let mut text = format!(
        "# Measured by `hwsim bench`: {:.3} GHz; fp32 multiply-adds a cycle {:.1} from registers, {:.1} with an operand in L1.\n",
        facts.clock / 1e9,
        facts.macs.0,
        facts.macs.1
    );
    for (dtype, rate) in &facts.tiles {
        let _ = writeln!(text, "# Matrix tiles: {rate:.0} {} multiply-adds a cycle.", dtype.name());
    }
    for (name, alone, latency, together) in &facts.levels {
        let _ = writeln!(
            text,
            "# {name}: one core reads {alone:.1} B/cy, all together {together:.1} B/cy; latency {latency:.0} cycles."
        );
    }
    if facts.kept > 0.0 {
        let _ = writeln!(text, "# Of the last cache {:.1} MiB are kept.", facts.kept / 1048576.0);
    }
    text.push_str("# A cache's bandwidth below is that of its own transfers, the nearer levels' time taken off.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::kept;

    #[test]
    fn a_cache_keeps_what_is_read_fast_again_and_again() {
        // Eight of 32 MiB, 20 bytes a cycle from there and 4 from memory, by the model's own step.
        let mib = 1048576.0;
        let time = |bytes: f64| 0.05 + 0.2 * ((bytes / (8.0 * mib) - 0.75) * 2.0).clamp(0.0, 1.0);
        let found = kept(32.0 * mib, mib, 4.0, |bytes| 1.0 / time(bytes)) / mib;
        assert!((found / 8.0 - 1.0).abs() < 0.1, "{found}");
        // All of it.
        assert_eq!(kept(32.0 * mib, mib, 4.0, |_| 20.0), 32.0 * mib);
    }
}
