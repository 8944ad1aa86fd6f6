//! CPUs: an execution–cache–memory model over tile footprints.
//!
//! [`machine`] turns the profile into rates per cycle, [`kernels`] chooses what runs, [`dense`], [`sparse`],
//! [`tiles`], [`attention`] and [`stream`] say what one core does for it, [`touch_dense`] and [`touch_blocks`] what the
//! kernels' loops touch, [`traffic`] which bytes that moves and [`sets`] which of them a cache still has, [`hierarchy`] what
//! it costs.

mod attention;
mod dense;
mod hierarchy;
mod kernels;
mod machine;
mod sets;
mod sparse;
mod stream;
mod tiles;
mod touch_blocks;
mod touch_dense;
mod traffic;

use super::roofline::{Peaks, compulsory, dense as dense_macs, dtype, effectual};
use super::{Bound, CostModel, Executed, Fallback, LayerCost, MacCount, Options, Timing, Traffic, default_interval};
use crate::error::{Error, Result};
use crate::lower::blocking;
use crate::lower::{Attention, Lowered, Source, SparseGemm, Stream};
use crate::pattern::SparsityPattern;
use crate::profile::cpu_parameters::{CpuCalibration, CpuParameters};
use crate::profile::{Device, Energy, Profile};
use crate::sparsity::stats::Tile;
use crate::sparsity::{StorageFormat, WeightStats};
use crate::units::{Bytes, Cycles, Hertz, Seconds};
use dense::Shape;
use hierarchy::{Demand, Operand, Priced, Residency, Split, price};
use kernels::{Kernel, select};
use machine::{Machine, Unit};
use sparse::{Index, Nonzeros};
use std::cell::OnceCell;
use traffic::{Part, Touches};

/// The cost model of a CPU.
pub struct CpuModel {
    machine: Machine,
    peaks: Peaks,
    levels: Vec<String>,
    clock: Hertz,
    timing: Timing,
    energy: Option<Energy>,
    calibration: Option<std::sync::Arc<CpuCalibration>>,
}

impl CpuModel {
    /// The model of a CPU profile, calibrated where the profile brings a calibration, else with its prior parameters.
    ///
    /// # Errors
    /// [`Error::Profile`] where the profile is not a CPU's.
    pub fn new(profile: &Profile, options: Options) -> Result<Self> {
        let Device::Cpu(cpu) = &profile.device else {
            return Self::with_parameters(profile, options, CpuParameters::default());
        };
        let parameters = cpu.calibration.as_ref().map_or_else(|| CpuParameters::prior(cpu), |c| c.parameters);
        let model = Self::with_parameters(profile, options, parameters)?;
        Ok(Self { calibration: cpu.calibration.clone(), ..model })
    }

    /// The same with fitted parameters.
    ///
    /// # Errors
    /// As [`CpuModel::new`].
    pub fn with_parameters(profile: &Profile, options: Options, parameters: CpuParameters) -> Result<Self> {
        let Device::Cpu(cpu) = &profile.device else {
            return Err(Error::Profile {
                profile: profile.name.clone(),
                field: "device".into(),
                reason: "the CPU model needs [device.cpu]".into(),
            });
        };
        let machine = Machine::new(profile, cpu, options, parameters);
        let caches = cpu.cache[..machine.depth].iter().rev().map(|c| c.level.to_lowercase());
        Ok(Self {
            levels: std::iter::once("dram".to_owned()).chain(caches).collect(),
            machine,
            peaks: Peaks::of(profile),
            clock: profile.clock,
            timing: options.timing,
            energy: profile.energy.clone(),
            calibration: None,
        })
    }

    fn gemm(&self, g: &SparseGemm) -> (Priced, Executed) {
        let unit = self.machine.unit(g.dtype);
        let (kernel, executed) = select(g, unit, self.machine.vectors());
        let format = executed.format;
        let mut stored = format.bytes(&g.weights, g.dtype);
        if executed.pattern == SparsityPattern::Dense && executed.fallback.is_some() {
            // A fallback keeps the removed rows and columns too.
            stored.values = Bytes(g.weights.elements() * g.dtype.bytes());
            stored.metadata = Bytes::ZERO;
        }
        let weights = (stored.values.get(), stored.metadata.get());
        let job = Job { g, unit, kernel, executed: &executed, weights, touches: OnceCell::new() };
        let inputs = g.input_bytes().get();
        let held = if inputs > 0.0 { (g.resident.get() / inputs).clamp(0.0, 1.0) } else { 0.0 };
        let all = job.weights.0 + job.weights.1 + inputs + g.output_bytes().get() + g.epilogue.bytes.get();
        let all =
            if g.gemm.groups > 1 { all + (job.weights.0 + job.weights.1) * (g.gemm.groups - 1) as f64 } else { all };
        let residency = Residency { warm: self.warm(all), inputs: held, near: 2.0 * inputs + g.output_bytes().get() };
        let first = self.fastest(|threads| self.product(&job, threads, residency));
        let steps = g.steps();
        let priced = if steps > 1 {
            // Later steps find the weights where the first one left them.
            let again = Residency { warm: all, inputs: 1.0, near: all };
            let next = self.fastest(|threads| self.product(&job, threads, again));
            repeated(first, next, (steps - 1) as f64)
        } else {
            first
        };
        (priced.0, Executed { kernel: priced.1.unwrap_or(executed.kernel), ..executed })
    }

    /// One product on so many threads: the fastest variant of its kernel.
    fn product(&self, job: &Job<'_>, threads: u64, residency: Residency) -> (Priced, Option<&'static str>) {
        let (machine, g) = (&self.machine, job.g);
        let Sizes { groups, m, n, k } = job.sizes();
        let direct = job.kernel == Kernel::Direct;
        // A thread takes whole register tiles, or whole block rows.
        let grain = match job.kernel {
            Kernel::Bsr { rows, .. } | Kernel::Tiles { rows, .. } => rows.max(8) as f64,
            Kernel::Dense if job.unit.matrix => blocking::TILE_PANEL as f64,
            Kernel::Dense | Kernel::Direct | Kernel::Csr | Kernel::Nm { .. } | Kernel::Vnm { .. } => 8.0,
        };
        // Columns of activations are shared by whole register tiles, because packing fills them up; kernels on matrix tiles
        // and sparse ones share rows alone.
        let columns = match job.kernel {
            Kernel::Dense if job.unit.matrix => m,
            Kernel::Dense => machine.panel_columns(),
            Kernel::Direct => 8.0,
            Kernel::Tiles { .. } | Kernel::Csr | Kernel::Nm { .. } | Kernel::Vnm { .. } | Kernel::Bsr { .. } => m,
        };
        let split = divide(threads, groups, n / grain, m / columns);
        let share_n = (n / split.n).ceil().min(n);
        let share_m = (m / split.m).ceil().min(m);
        let per_core = (groups / split.groups).ceil();
        let part_n = share_n / n;
        let sparse = !matches!(job.kernel, Kernel::Dense | Kernel::Direct);
        let skew = if sparse { skew(&g.weights, job.kernel, split.n as u64) } else { 1.0 };
        let share = part_n * skew;
        // The fullest core sets the pace; bytes of all cores together count each share as full as it is.
        let split = Split { groups: groups / per_core, n: n / share_n, m: m / share_m };
        let shape = Shape {
            m: share_m,
            n: share_n,
            k,
            weights: (job.weights.0 * share, job.weights.1 * share),
            inputs: g.input_bytes().get() / groups * share_m / m,
            output: g.out_dtype.bytes(),
            outputs: g.output_bytes().get() / groups * (share_m / m) * part_n,
            element: job.unit.compute.bytes(),
            whole: (m, n),
            part: Part { weights: share, outputs: part_n, columns: share_m / m },
        };
        let extra = g.epilogue.bytes.get() / (groups * split.n * split.m);
        let arithmetic = g.epilogue.operations as f64 * share_m * share_n / (2.0 * machine.lanes());
        // A convolution's matrix is formed first; each of its rows is copied line by line of the image.
        let image = match g.source {
            Source::Conv(c) if !direct && !c.is_pointwise() && !c.transposed => {
                Some((shape.inputs, g.gemm.k as f64 * share_m * 4.0, share_m / c.output[1].max(1) as f64))
            }
            _ => None,
        };
        let finish = |mut demand: Demand, scale: f64| {
            if let Some((image, matrix, lines)) = image {
                demand.touches = demand.touches.lowered(image, matrix);
                demand.serial += machine.p.pack * matrix + machine.p.row_start * lines * g.gemm.k as f64;
            }
            demand.touches.direct(Operand::Epilogue, extra * scale, 1.0, 0.0);
            demand.overlap += arithmetic * scale;
            demand.l1 += extra * scale;
            demand
        };
        let vector_rate = machine.vector_rate(g.dtype);
        let mut best: Option<(Priced, Option<&'static str>)> = None;
        let mut offer = |demand: Demand, count: f64, name: Option<&'static str>| {
            let priced = price(machine, &demand, count, split, residency);
            if best.as_ref().is_none_or(|(b, _)| priced.cycles < b.cycles) {
                best = Some((priced, name));
            }
        };
        let mut rows = |units: f64, (rows, cols): (u64, u64), index: Index, one: &'static str| {
            let z = Nonzeros { units, rows: rows as f64, cols: cols as f64, index };
            let demand = sparse::product(machine, &shape, &z, job.unit.rate, &job.touches);
            offer(finish(demand, 1.0), per_core, (m <= 1.0).then_some(one));
        };
        let kept = g.weights.kept_per_row() as f64 * g.weights.rows() as f64 * share;
        match job.kernel {
            _ if direct => offer(finish(dense::direct(machine, &shape, per_core, vector_rate), per_core), 1.0, None),
            Kernel::Dense | Kernel::Direct => {
                for (demand, name) in dense::product(machine, &shape, job.unit, vector_rate, &job.touches) {
                    offer(finish(demand, 1.0), per_core, name);
                }
            }
            Kernel::Csr => rows(g.weights.nonzeros() * share, (1, 1), Index::Csr, "CSR, one column"),
            Kernel::Nm { n, m } => {
                rows(kept, (1, 1), Index::Nm(blocking::permutations(n, m, machine.vectors())), "N:M, one column");
            }
            Kernel::Vnm { v, n, m } => {
                // Every kept column for all rows of a group: more products than kept weights, but out of registers.
                let columns = crate::sparsity::mask::vnm_columns(n, m) as f64 * (k / m as f64).ceil();
                let height = (v as f64).min(share_n);
                let units = (share_n / height).ceil() * columns.min(k);
                rows(units, (height as u64, 1), Index::Block, "V:N:M, one column");
            }
            Kernel::Bsr { rows: r, cols } => {
                let block = blocking::stored((r, cols), m as u64);
                let values = g.weights.occupied_tiles(Tile::new(r, cols)) * share * (r * cols) as f64;
                let index = if block == (1, 1) { Index::Csr } else { Index::Block };
                rows(values / (block.0 * block.1) as f64, block, index, "BSR, one column");
            }
            Kernel::Tiles { rows, cols } => {
                let units = g.weights.occupied_tiles(Tile::new(rows, cols)) * share;
                let z = tiles::Blocks { units, rows: rows as f64, cols: cols as f64 };
                offer(finish(tiles::product(machine, &shape, &z, job.unit.rate), 1.0), per_core, None);
            }
        }
        best.unwrap_or_else(|| {
            let demand = dense::direct(machine, &shape, per_core, vector_rate);
            (price(machine, &demand, 1.0, split, residency), None)
        })
    }

    fn attention(&self, a: &Attention) -> Priced {
        let unit = self.machine.unit(a.dtype);
        let groups = a.batch as f64 * a.kv_heads as f64;
        let heads = a.heads as f64 / a.kv_heads as f64;
        let queries = a.queries as f64;
        let most = a.query_bytes().get() + a.kv_bytes().get();
        let inputs = if most > 0.0 { (a.resident.get() / most).clamp(0.0, 1.0) } else { 0.0 };
        let all = self.working_set(&Lowered::Attention(*a));
        let residency = Residency { warm: self.warm(all), inputs, near: all };
        let run = |threads| {
            let split = divide(threads, groups, 1.0, queries / 16.0);
            let own = (queries / split.m).ceil();
            let demand = attention::head(&self.machine, a, unit, heads, own);
            let per_core = (groups / split.groups).ceil();
            let split = Split { groups: groups / per_core, n: 1.0, m: queries / own };
            (price(&self.machine, &demand, per_core, split, residency), None)
        };
        self.fastest(run).0
    }

    fn stream(&self, s: &Stream) -> Priced {
        let inputs = if s.input > Bytes::ZERO { (s.resident / s.input).clamp(0.0, 1.0) } else { 0.0 };
        let all = self.working_set(&Lowered::Stream(*s));
        let residency = Residency { warm: self.warm(all), inputs, near: all };
        // A core's share is worth waking it for a few pages.
        let pieces = (all / 16384.0).max(1.0);
        let run = |threads| {
            let split = divide(threads, pieces, 1.0, 1.0);
            (price(&self.machine, &stream::demand(&self.machine, s, split.groups), 1.0, split, residency), None)
        };
        self.fastest(run).0
    }

    /// The better of one thread and all of them: a runtime does not wake threads for nothing.
    fn fastest(&self, run: impl Fn(u64) -> (Priced, Option<&'static str>)) -> (Priced, Option<&'static str>) {
        let alone = run(1);
        if self.machine.threads == 1 {
            return alone;
        }
        let mut together = run(self.machine.threads);
        together.0.cycles += self.machine.p.fork_join;
        together.0.overhead += self.machine.p.fork_join;
        if together.0.cycles < alone.0.cycles { together } else { alone }
    }

    fn warm(&self, bytes: f64) -> f64 {
        match self.timing {
            Timing::Warm => bytes,
            Timing::Cold | Timing::Host => f64::INFINITY,
        }
    }

    /// Distinct bytes of an operation with nothing resident.
    fn working_set(&self, op: &Lowered) -> f64 {
        let t = compulsory(op);
        (t.total() + resident(op)).get()
    }

    fn layer(&self, op: &Lowered, priced: Priced, executed: Executed) -> LayerCost {
        let begin = match self.timing {
            Timing::Warm => 0.0,
            // What left the inputs in the caches left the code there too.
            Timing::Cold if resident(op) > Bytes::ZERO => 0.0,
            Timing::Cold => self.machine.p.cold_lines * self.machine.latency,
            Timing::Host => self.machine.p.framework,
        };
        let overhead = Cycles(priced.overhead + begin) / self.clock;
        let floor = self.roofline(op);
        let format = executed.format.name().to_string();
        let fitted = self.calibration.as_deref().filter(|_| matches!(op, Lowered::Gemm(_)));
        let pace = fitted.and_then(|c| c.pace.get(&format)).copied().unwrap_or(1.0);
        let time = (Cycles(priced.cycles * pace + begin) / self.clock).max(floor);
        let interval = fitted
            .and_then(|c| c.interval.get(&format))
            .map_or_else(|| default_interval(time), |&(low, high)| (time * low.min(1.0), time * high.max(1.0)));
        let depth = self.machine.depth;
        let mut traffic = Traffic::default();
        for (i, bytes) in priced.flow[..=depth].iter().enumerate() {
            traffic.levels[depth - i] = *bytes;
        }
        let bound = if overhead.get() > 0.5 * time.get() {
            Bound::Overhead
        } else if priced.memory_bound {
            Bound::Memory((depth - priced.slowest) as u8)
        } else {
            Bound::Compute
        };
        let useful = effectual(op);
        let dtype = dtype(op);
        LayerCost {
            time,
            interval,
            compute: Cycles(priced.arithmetic),
            overhead,
            traffic,
            macs: MacCount { dense: dense_macs(op), effectual: useful, issued: priced.issued },
            energy: self
                .energy
                .as_ref()
                .map(|table| super::energy::energy(table, dtype, priced.issued, &traffic, &self.levels, time)),
            bound,
            executed,
            utilization: (useful / self.peaks.macs(dtype) / time.get()).min(1.0),
            convention: None,
        }
    }
}

/// A product and what was decided about it.
struct Job<'a> {
    g: &'a SparseGemm,
    unit: Unit,
    kernel: Kernel,
    executed: &'a Executed,
    weights: (f64, f64),
    /// Of the whole product, however many threads share it.
    touches: OnceCell<Touches>,
}

struct Sizes {
    groups: f64,
    m: f64,
    n: f64,
    k: f64,
}

impl Job<'_> {
    /// The product as it runs: removed rows and columns are gone.
    fn sizes(&self) -> Sizes {
        let g = &self.g.gemm;
        let (mut n, mut k) = (g.n as f64, g.k as f64);
        match self.executed.pattern {
            SparsityPattern::Row(_) => n = (self.g.weights.nonzeros() / k).max(1.0),
            SparsityPattern::Column(_) => k = (self.g.weights.nonzeros() / n).max(1.0),
            SparsityPattern::Dense
            | SparsityPattern::Nm { .. }
            | SparsityPattern::Vnm { .. }
            | SparsityPattern::Unstructured(_)
            | SparsityPattern::Block { .. }
            | SparsityPattern::Channel(_)
            | SparsityPattern::Head(_) => {}
        }
        Sizes { groups: g.groups as f64, m: g.m as f64, n, k }
    }
}

/// Bytes of an operation's inputs that the last cache level holds.
fn resident(op: &Lowered) -> Bytes {
    match op {
        Lowered::Gemm(g) => g.resident,
        Lowered::Attention(a) => a.resident,
        Lowered::Stream(s) => s.resident,
    }
}

/// Stored blocks of the fullest core over the mean. Kernels give every thread about as many, in whole windows of block
/// rows, so what is left of a mask's uneven rows is what one window holds; a pattern without a mask is even.
fn skew(weights: &WeightStats, kernel: Kernel, threads: u64) -> f64 {
    let (rows, cols) = match kernel {
        Kernel::Csr => (1, 1),
        Kernel::Bsr { rows, cols } | Kernel::Tiles { rows, cols } => (rows, cols),
        Kernel::Dense | Kernel::Direct | Kernel::Nm { .. } | Kernel::Vnm { .. } => return 1.0,
    };
    let Some(mask) = weights.mask().filter(|_| threads > 1) else { return 1.0 };
    let stored: Vec<usize> = mask.occupied_by_row(rows, cols).map(|blocks| blocks as usize).collect();
    let window = blocking::window(stored.len() as u64, rows, threads) as usize;
    let windows: Vec<&[usize]> = stored.chunks(window).collect();
    let blocks = |w: &[usize]| w.iter().sum::<usize>();
    let shares = blocking::shares(windows.iter().map(|w| w.len() + blocks(w)), threads as usize);
    let most = shares.into_iter().map(|s| windows[s].iter().map(|w| blocks(w)).sum::<usize>()).max().unwrap_or(0);
    let mean = blocks(&stored) as f64 / threads as f64;
    if mean > 0.0 { most as f64 / mean } else { 1.0 }
}

/// Threads over groups first, then over outputs, then over rows of activations, in units worth a thread.
fn divide(threads: u64, groups: f64, n_units: f64, m_units: f64) -> Split {
    let t = threads as f64;
    let by_groups = t.min(groups).max(1.0);
    let left = (t / by_groups).floor().max(1.0);
    let n = left.min(n_units.ceil()).max(1.0);
    let m = (left / n).floor().min(m_units.ceil()).max(1.0);
    Split { groups: by_groups, n, m }
}

/// One step and `more` like the next.
fn repeated(
    first: (Priced, Option<&'static str>),
    next: (Priced, Option<&'static str>),
    more: f64,
) -> (Priced, Option<&'static str>) {
    let (mut sum, name) = first;
    let next = next.0;
    sum.cycles += next.cycles * more;
    sum.arithmetic += next.arithmetic * more;
    sum.overhead += next.overhead * more;
    sum.issued += next.issued * more;
    for (mine, theirs) in sum.flow.iter_mut().zip(&next.flow) {
        mine.weights += theirs.weights * more;
        mine.metadata += theirs.metadata * more;
        mine.inputs += theirs.inputs * more;
        mine.outputs += theirs.outputs * more;
    }
    if more > 1.0 {
        (sum.slowest, sum.memory_bound) = (next.slowest, next.memory_bound);
    }
    (sum, name)
}

impl CostModel for CpuModel {
    fn cost(&self, op: &Lowered) -> Result<LayerCost> {
        let plain = |kernel| Executed {
            pattern: SparsityPattern::Dense,
            format: StorageFormat::Dense,
            kernel,
            fallback: None::<Fallback>,
        };
        let (priced, executed) = match op {
            Lowered::Gemm(g) => self.gemm(g),
            Lowered::Attention(a) => (self.attention(a), plain("blocked attention")),
            Lowered::Stream(s) => (self.stream(s), plain("vector loop")),
        };
        Ok(self.layer(op, priced, executed))
    }

    /// In a warm loop, bytes that the last level keeps are not compulsory.
    fn roofline(&self, op: &Lowered) -> Seconds {
        let floor = self.peaks.floor(op);
        if self.timing != Timing::Warm {
            return floor;
        }
        let kept = self.machine.last().miss(self.working_set(op));
        let compute = Seconds(effectual(op) / self.peaks.macs(dtype(op)));
        compute.max(floor * kept)
    }

    fn levels(&self) -> &[String] {
        &self.levels
    }

    fn clock(&self) -> Hertz {
        self.clock
    }

    fn last_level(&self) -> Bytes {
        Bytes(self.machine.last().capacity)
    }
}
