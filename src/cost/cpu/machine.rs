//! A profile and the parameters, as rates per cycle of one core.

use crate::cost::roofline::substitutes;
use crate::cost::{MAX_LEVELS, Options};
use crate::dtype::DType;
use crate::lower::blocking::Vectors;
use crate::profile::cpu_parameters::CpuParameters;
use crate::profile::{CacheLevel, Cpu, Profile};

/// One cache, innermost first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cache {
    /// Capacity in bytes that one core may fill.
    pub capacity: f64,
    /// Line in bytes.
    pub line: f64,
    /// Associativity.
    pub ways: f64,
    /// Sustained bytes a cycle of a stream towards one core, and the share of it that is left to lines in any other order.
    pub bandwidth: f64,
    /// See `bandwidth`.
    pub scattered: f64,
    /// Whether all cores use it.
    pub shared: bool,
}

impl Cache {
    fn new(level: &CacheLevel, share: f64, p: &CpuParameters) -> Self {
        Self {
            capacity: level.size.get() * if level.shared { p.shared_capacity.min(1.0) } else { 1.0 },
            line: level.line.get(),
            ways: level.ways as f64,
            bandwidth: level.bandwidth.get() * if level.shared { share } else { 1.0 },
            scattered: if level.shared { 1.0 } else { share },
            shared: level.shared,
        }
    }

    /// Fraction of re-reads that miss when `distance` bytes are touched in between: least recently used drops from all
    /// hits to none around the capacity; other data in the sets widens the step.
    pub fn miss(&self, distance: f64) -> f64 {
        ((distance / self.capacity - 0.75) * 2.0).clamp(0.0, 1.0)
    }

    /// Lines of a power-of-two or other `stride` (bytes) that the sets can hold at once: a stride of whole set cycles
    /// maps every row to one set.
    pub fn lines_at_stride(&self, stride: f64) -> f64 {
        let sets = (self.capacity / self.line / self.ways).floor().max(1.0);
        let step = stride / self.line;
        if step.fract() != 0.0 {
            return sets * self.ways;
        }
        let (mut a, mut b) = (sets as u64, step as u64);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        sets / a as f64 * self.ways
    }
}

/// The arithmetic unit that a dtype runs on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// Peak multiply–accumulates a cycle and core.
    pub rate: f64,
    /// The format in which products are made.
    pub compute: DType,
    /// Whether it is the matrix unit.
    pub matrix: bool,
}

/// A machine in cycles.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Caches, innermost first.
    pub caches: [Cache; MAX_LEVELS - 1],
    /// How many there are.
    pub depth: usize,
    /// Vector register in bytes.
    pub vector: f64,
    /// Accumulator registers of a tile: vectors by scalars.
    pub tile: (f64, f64),
    /// Threads that the run may use.
    pub threads: u64,
    /// Physical cores.
    pub cores: f64,
    /// Main-memory bytes a cycle of one core, and of all together.
    pub memory: (f64, f64),
    /// Cycles that the first line of several dependent ones takes from main memory.
    pub latency: f64,
    /// Fitted or default numbers.
    pub p: CpuParameters,
    units: [Unit; DType::ALL.len()],
    vectors: [f64; DType::ALL.len()],
}

impl Machine {
    pub fn new(profile: &Profile, cpu: &Cpu, options: Options, p: CpuParameters) -> Self {
        let clock = profile.clock.get();
        let fp32 = cpu.macs.get(&DType::Fp32).map_or(0.0, |r| r.get());
        let vector = cpu.vector.map_or((fp32 / 2.0 * 4.0).clamp(4.0, 64.0), |v| v.get());
        let depth = cpu.cache.len().min(MAX_LEVELS - 1);
        let mut caches = [Cache::default(); MAX_LEVELS - 1];
        for (i, level) in cpu.cache.iter().take(depth).enumerate() {
            let share = match (i, level.shared) {
                (0, _) => 1.0,
                (_, true) => p.shared_bandwidth,
                (_, false) => p.private_bandwidth,
            };
            caches[i] = Cache::new(level, share, &p);
        }
        // A measured stream needs no estimate from latency.
        let stream = cpu.measured.as_ref().map(|m| m.stream.get() * p.memory_bandwidth);
        let latency = profile.memory.latency.map_or(p.memory_latency, |l| l.get() * clock);
        let line = caches[depth - 1].line;
        let all = profile.memory.bandwidth.get() * p.memory_bandwidth / clock;
        Self {
            caches,
            depth,
            vector,
            // 32 architectural registers (AVX-512, NEON) hold 24 accumulators, 16 (AVX2) hold 12.
            tile: if vector == 32.0 { (2.0, 6.0) } else { (3.0, 8.0) },
            threads: options.threads.unwrap_or(cpu.cores).clamp(1, cpu.cores),
            cores: cpu.cores as f64,
            latency,
            memory: (stream.unwrap_or(p.outstanding_lines * line / latency).min(all), all),
            p,
            units: DType::ALL.map(|d| unit(cpu, d)),
            vectors: DType::ALL.map(|d| vector_rate(cpu, d)),
        }
    }

    /// The fastest unit for a dtype.
    pub fn unit(&self, dtype: DType) -> Unit {
        self.units[dtype as usize]
    }

    /// The vector unit's rate in a dtype, or in the nearest that it has.
    pub fn vector_rate(&self, dtype: DType) -> f64 {
        self.vectors[dtype as usize]
    }

    /// Four-byte lanes of a vector.
    pub fn lanes(&self) -> f64 {
        (self.vector / 4.0).max(1.0)
    }

    /// The register blocks of the fp32 kernels.
    pub fn vectors(&self) -> Vectors {
        Vectors::of_width(self.vector)
    }

    /// Columns of activations in a register tile of the dense kernel.
    pub fn panel_columns(&self) -> f64 {
        self.vectors().columns() as f64
    }

    pub fn caches(&self) -> &[Cache] {
        &self.caches[..self.depth]
    }

    pub fn last(&self) -> &Cache {
        &self.caches[self.depth - 1]
    }

    /// Cycles of `bytes` over the load ports.
    pub fn l1(&self) -> f64 {
        self.caches[0].bandwidth
    }
}

fn unit(cpu: &Cpu, dtype: DType) -> Unit {
    let of = |d: DType| {
        let get = |rates: &std::collections::BTreeMap<DType, crate::units::MacsPerCycle>| {
            rates.get(&d).map_or(0.0, |r| r.get())
        };
        let (vector, matrix) = (get(&cpu.macs), get(&cpu.matrix));
        Unit { rate: vector.max(matrix), compute: d, matrix: matrix > vector }
    };
    let fastest = || DType::ALL.map(of).into_iter().reduce(|a, b| if b.rate > a.rate { b } else { a });
    let own = substitutes(dtype).iter().map(|&d| of(d)).find(|u| u.rate > 0.0);
    own.or_else(fastest).unwrap_or(Unit { rate: 1.0, compute: dtype, matrix: false })
}

fn vector_rate(cpu: &Cpu, dtype: DType) -> f64 {
    let of = |d: &DType| cpu.macs.get(d).map(|r| r.get());
    substitutes(dtype)
        .iter()
        .find_map(of)
        .or_else(|| cpu.macs.values().map(|r| r.get()).reduce(f64::max))
        .unwrap_or(1.0)
}
