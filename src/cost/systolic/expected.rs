//! What sparse hardware is expected to do for a pattern whose mask is not known; counted exactly where it is.
//!
//! Positions are uniformly random within what the pattern admits, as in [`WeightStats`]. Serial forms are exact means;
//! overlapped ones take each fold at its mean length, which is exact while no fold is shorter than the array is high.

use super::fold::{Array, Counts, Shape, dense, product};
use super::sparse::{Skipping, compressed, counted, covering, nm_column};
use crate::error::Result;
use crate::pattern::SparsityPattern;
use crate::profile::systolic::{Dataflow, Folding};
use crate::sparsity::{Mask, Tile, WeightStats};

/// [`Counts`] as expectations, and the extents that the folds really span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Cycles without memory stalls.
    pub cycles: f64,
    /// Folds that run.
    pub folds: f64,
    /// Issued MACs.
    pub active: f64,
    /// Input elements read from SRAM.
    pub inputs: f64,
    /// Weight values read from SRAM.
    pub weights: f64,
    /// Results and partial sums written to SRAM.
    pub outputs: f64,
    /// Partial sums read from SRAM.
    pub partials: f64,
    /// A dense product with as many folds: what DRAM schedules are made for.
    pub shape: Shape,
}

impl Work {
    fn exact(counts: Counts, shape: Shape) -> Self {
        Self {
            cycles: counts.cycles as f64,
            folds: counts.folds as f64,
            active: counts.active as f64,
            inputs: counts.inputs as f64,
            weights: counts.weights as f64,
            outputs: counts.outputs as f64,
            partials: counts.partials as f64,
            shape,
        }
    }

    /// The same work `times` over.
    #[must_use]
    pub fn repeated(self, times: f64) -> Self {
        Self {
            cycles: self.cycles * times,
            folds: self.folds * times,
            active: self.active * times,
            inputs: self.inputs * times,
            weights: self.weights * times,
            outputs: self.outputs * times,
            partials: self.partials * times,
            shape: self.shape,
        }
    }
}

/// A sum of folds in expectation.
#[derive(Clone, Copy, Debug, Default)]
struct Folds {
    count: f64,
    steps: f64,
    issue: f64,
    lone: f64,
}

impl Folds {
    /// `count` folds whose mean length is `steps`.
    fn of(array: Array, count: f64, steps: f64) -> Self {
        if count <= 0.0 || steps <= 0.0 {
            return Self::default();
        }
        Self { count, steps: count * steps, issue: count * steps.max(array.rows as f64), lone: steps }
    }

    fn cycles(&self, array: Array) -> f64 {
        let edge = (2 * array.rows + array.cols - 2) as f64;
        match array.folding {
            Folding::Serial => self.steps + self.count * edge,
            // Without a fold there is neither fill nor drain.
            Folding::Overlapped => {
                self.issue + self.count.min(1.0) * (self.lone - self.lone.max(array.rows as f64) + edge)
            }
        }
    }
}

/// Expected work of m rows of activations against weights of which `stats` is known.
///
/// # Errors
/// [`Error::Overflow`](crate::error::Error::Overflow), and what [`counted`] refuses about a real mask.
pub fn work(array: Array, m: u64, stats: &WeightStats, skipping: Skipping) -> Result<Work> {
    let whole = Shape { m, n: stats.rows(), k: stats.cols() };
    if let (Some(mask), false) = (stats.mask(), matches!(skipping, Skipping::None | Skipping::Gating)) {
        return masked(array, whole, mask, skipping);
    }
    let exact = |shape: Shape| Ok(Work::exact(dense(array, shape)?, shape));
    product(&[whole.macs()?, 2], "the work of a matrix product")?;
    match skipping {
        Skipping::None | Skipping::Gating => exact(whole),
        Skipping::Compaction => {
            let kept = |occupied: f64, all: u64| (occupied.round() as u64).clamp(1, all);
            let n = kept(stats.occupied_tiles(Tile::new(1, whole.k)), whole.n);
            let k = kept(stats.occupied_tiles(Tile::new(whole.n, 1)), whole.k);
            exact(Shape { m, n, k })
        }
        Skipping::NmLayer { n, m: group } => exact(Shape { k: compressed(whole.k, n, group), ..whole }),
        Skipping::NmColumn { n, m: group } => {
            let shape = Shape { k: compressed(whole.k, n, group), ..whole };
            dense(array, shape)?;
            Ok(Work::exact(nm_column(array, whole, n, group), shape))
        }
        Skipping::NmRow { m: group } => Ok(row_wise(array, whole, stats, group)),
        Skipping::ZeroTiles => Ok(zero_tiles(array, whole, stats)),
        Skipping::ColumnCombining { .. } => sampled(array, whole, stats, skipping),
        Skipping::Queues { depth } => Ok(queues(array, whole, stats, depth)),
    }
}

fn masked(array: Array, whole: Shape, mask: &Mask, skipping: Skipping) -> Result<Work> {
    let counts = counted(array, whole.m, mask, skipping)?;
    Ok(Work::exact(counts, alike(array, whole, counts.folds as f64)))
}

/// A dense shape with about as many folds, by a shorter reduction (os: fewer outputs).
fn alike(array: Array, whole: Shape, folds: f64) -> Shape {
    let (sr, sc, _) = whole.spans(array.dataflow);
    let all = sr.div_ceil(array.rows) as f64 * sc.div_ceil(array.cols) as f64;
    let share = (folds / all).clamp(0.0, 1.0);
    let scaled = |extent: u64| ((extent as f64 * share).round() as u64).clamp(1, extent);
    match array.dataflow {
        Dataflow::OutputStationary => Shape { n: scaled(whole.n), ..whole },
        Dataflow::WeightStationary | Dataflow::InputStationary => Shape { k: scaled(whole.k), ..whole },
    }
}

fn zero_tiles(array: Array, whole: Shape, stats: &WeightStats) -> Work {
    let (r, c) = (array.rows, array.cols);
    let m = whole.m as f64;
    let classes = stats.tile_classes(Tile::new(c, r));
    let sum = |f: &dyn Fn(Tile) -> f64| classes.iter().map(|t| t.count * t.occupied * f(t.tile)).sum::<f64>();
    // Over the tiles that are there: their number, heights along k, widths along n, and areas.
    let (tiles, heights, widths) = (sum(&|_| 1.0), sum(&|t| t.cols as f64), sum(&|t| t.rows as f64));
    let area = sum(&|t| t.rows as f64 * t.cols as f64);
    // Outputs (n strips) and reductions (k strips) with any tile at all.
    let strips = |tile: Tile, size: &dyn Fn(Tile) -> f64| {
        stats.tile_classes(tile).iter().map(|t| t.count * t.occupied * size(t.tile)).sum::<f64>()
    };
    let (n_strip, k_strip) = (Tile::new(c, whole.k), Tile::new(whole.n, r));
    let (busy_n, busy_outputs) = (strips(n_strip, &|_| 1.0), strips(n_strip, &|t| t.rows as f64));
    let (busy_k, busy_inputs) = (strips(k_strip, &|_| 1.0), strips(k_strip, &|t| t.cols as f64));
    let (m_rows, m_cols) = (whole.m.div_ceil(r) as f64, whole.m.div_ceil(c) as f64);
    let seen = m * busy_outputs;
    let (folds, inputs, weights, outputs) = match array.dataflow {
        Dataflow::OutputStationary => {
            (Folds::of(array, busy_n * m_rows, heights / busy_n.max(1e-12)), m * heights, m_rows * area, seen)
        }
        Dataflow::WeightStationary => (Folds::of(array, tiles, m), m * heights, area, m * widths),
        Dataflow::InputStationary => {
            (Folds::of(array, busy_k * m_cols, widths / busy_k.max(1e-12)), m * busy_inputs, m_cols * area, m * widths)
        }
    };
    Work {
        cycles: folds.cycles(array),
        folds: folds.count,
        active: m * area,
        inputs,
        weights,
        outputs,
        partials: (outputs - seen).max(0.0),
        shape: alike(array, whole, folds.count),
    }
}

/// Distribution of nonzeros among `size` neighbouring reduction indices of one output: P(count ≤ v) for v = 0 … size.
///
/// Unstructured: binomial (the hypergeometric's limit for small windows of large matrices). Blocks: whole runs along
/// the reduction come and go together. N:M: windows of whole groups hold a fixed number, parts of one a hypergeometric one.
fn cumulative(stats: &WeightStats, size: u64) -> Vec<f64> {
    let density = stats.density();
    let mut chance = vec![0.0; size as usize + 1];
    match stats.pattern() {
        SparsityPattern::Nm { n, m } | SparsityPattern::Vnm { n, m, .. } => {
            let (whole, rest) = (size / m * n, size % m);
            for hits in 0..=n.min(rest) {
                let p = binomial_ratio(m, n, rest, hits);
                chance[(whole + hits) as usize] += p;
            }
        }
        SparsityPattern::Block { cols, .. } => {
            let (runs, width) = (size.div_ceil(cols).max(1), cols.min(size));
            for (hits, p) in binomial(runs, density).into_iter().enumerate() {
                chance[((hits as u64 * width).min(size)) as usize] += p;
            }
        }
        _ => chance = binomial(size, density),
    }
    let mut sum = 0.0;
    chance.iter_mut().for_each(|p| {
        sum += *p;
        *p = sum.min(1.0);
    });
    chance
}

/// [`cumulative`] of the last `size` indices of an output: a group of N:M that the matrix cuts short keeps n of what is left.
fn remainder(stats: &WeightStats, size: u64) -> Vec<f64> {
    match stats.pattern() {
        SparsityPattern::Nm { n, m } | SparsityPattern::Vnm { n, m, .. } => {
            let held = compressed(size, n, m);
            (0..=size).map(|v| f64::from(u8::from(v >= held))).collect()
        }
        _ => cumulative(stats, size),
    }
}

/// C(n, h)·C(m−n, d−h)/C(m, d): `hits` of the n kept among the first `drawn` of a group of m.
fn binomial_ratio(m: u64, n: u64, drawn: u64, hits: u64) -> f64 {
    use statrs::function::factorial::ln_binomial;
    if hits > n || hits > drawn || drawn - hits > m - n {
        return 0.0;
    }
    (ln_binomial(n, hits) + ln_binomial(m - n, drawn - hits) - ln_binomial(m, drawn)).exp()
}

fn binomial(trials: u64, p: f64) -> Vec<f64> {
    let (p, trials_f) = (p.clamp(0.0, 1.0), trials as f64);
    use statrs::function::factorial::ln_binomial;
    (0..=trials)
        .map(|v| {
            let (hit, miss) = (v as f64, trials_f - v as f64);
            let log = |x: f64, times: f64| if times == 0.0 { 0.0 } else { times * x.ln() };
            (ln_binomial(trials, v) + log(p, hit) + log(1.0 - p, miss)).exp()
        })
        .collect()
}

/// E\[max\] of `units` independent draws.
fn expected_max(cumulative: &[f64], units: f64) -> f64 {
    cumulative.iter().map(|p| 1.0 - p.powf(units)).sum()
}

/// A strip of array rows: how many there are, whole windows in one, and whether the shorter last window is in it.
struct Strip {
    count: f64,
    whole: f64,
    short: bool,
}

/// Windows of one output dealt to array rows.
struct Windows {
    depth: u64,
    extent: u64,
    full: Vec<f64>,
    rest: Vec<f64>,
}

impl Windows {
    fn new(stats: &WeightStats, depth: u64) -> Self {
        let extent = stats.cols();
        Self { depth, extent, full: cumulative(stats, depth.min(extent)), rest: remainder(stats, extent % depth) }
    }

    fn strips(&self, rows: u64) -> impl Iterator<Item = Strip> {
        let (whole, short) = (self.extent / self.depth, !self.extent.is_multiple_of(self.depth));
        let left = whole % rows;
        let last = Strip { count: f64::from(u8::from(left > 0 || short)), whole: left as f64, short };
        let all = Strip { count: (whole / rows) as f64, whole: rows as f64, short: false };
        [all, last].into_iter().filter(|s| s.count > 0.0)
    }

    /// Reduction indices of a strip.
    fn span(&self, strip: &Strip) -> f64 {
        strip.whole * self.depth as f64 + if strip.short { (self.extent % self.depth) as f64 } else { 0.0 }
    }

    /// E\[max\] over a strip's windows for `units` independent outputs, and the chance that there is anything.
    fn fullest(&self, strip: &Strip, units: f64) -> (f64, f64) {
        let none_above = |v: usize| {
            let rest = self.rest[v.min(self.rest.len() - 1)];
            self.full[v].powf(strip.whole * units) * if strip.short { rest.powf(units) } else { 1.0 }
        };
        ((0..self.full.len()).map(|v| 1.0 - none_above(v)).sum(), 1.0 - none_above(0))
    }
}

/// Independent outputs among `outputs` neighbours: blocks tie them together.
fn independent(stats: &WeightStats, outputs: u64) -> f64 {
    match stats.pattern() {
        SparsityPattern::Block { rows, .. } => outputs.div_ceil(rows) as f64,
        _ => outputs as f64,
    }
}

fn queues(array: Array, whole: Shape, stats: &WeightStats, depth: u64) -> Work {
    let (r, c) = (array.rows, array.cols);
    let (m, n) = (whole.m as f64, whole.n as f64);
    let windows = Windows::new(stats, depth);
    let short = whole.k % depth;
    let nonzeros = stats.nonzeros();
    let (m_rows, m_cols) = (whole.m.div_ceil(r) as f64, whole.m.div_ceil(c) as f64);
    // Whole and partial cuts of an extent: (how many, size).
    let cuts = |extent: u64, piece: u64| {
        [(extent / piece, piece), (u64::from(!extent.is_multiple_of(piece)), extent % piece)]
            .into_iter()
            .filter(|x| x.0 > 0)
    };
    let mut folds = Folds::default();
    let mut add = |more: Folds| {
        folds.count += more.count;
        folds.steps += more.steps;
        folds.issue += more.issue;
        folds.lone = folds.lone.max(more.lone);
    };
    let (mut inputs, mut outputs, mut seen) = (0.0, 0.0, 0.0);
    let weights;
    match array.dataflow {
        Dataflow::OutputStationary => {
            weights = m_rows * nonzeros;
            for (blocks, width) in cuts(whole.n, c) {
                let units = independent(stats, width);
                let count = (whole.k / depth) as f64;
                let steps = count * expected_max(&windows.full, units) + expected_max(&windows.rest, units);
                let used = |p: &[f64]| 1.0 - p[0].powf(units);
                let words = count * depth as f64 * used(&windows.full) + short as f64 * used(&windows.rest);
                add(Folds::of(array, blocks as f64 * m_rows, steps));
                inputs += blocks as f64 * m * words;
                outputs += blocks as f64 * m * width as f64;
            }
            seen += outputs;
        }
        Dataflow::WeightStationary => {
            weights = nonzeros;
            for (blocks, width) in cuts(whole.n, c) {
                for strip in windows.strips(r) {
                    let (most, any) = windows.fullest(&strip, independent(stats, width));
                    let busy = blocks as f64 * strip.count * any;
                    add(Folds::of(array, busy, m * most / any.max(1e-12)));
                    inputs += busy * m * windows.span(&strip);
                    outputs += busy * m * width as f64;
                }
            }
            seen += m * n;
        }
        Dataflow::InputStationary => {
            weights = m_cols * nonzeros;
            for strip in windows.strips(r) {
                let (most, any) = windows.fullest(&strip, 1.0);
                add(Folds::of(array, strip.count * m_cols, n * most));
                inputs += strip.count * m * windows.span(&strip);
                outputs += strip.count * m * n * any;
            }
            seen += m * n;
        }
    }
    Work {
        cycles: folds.cycles(array),
        folds: folds.count,
        active: m * nonzeros,
        inputs,
        weights,
        outputs,
        partials: (outputs - seen).max(0.0),
        shape: alike(array, whole, folds.count),
    }
}

fn row_wise(array: Array, whole: Shape, stats: &WeightStats, group: u64) -> Work {
    let (m, n, k) = (whole.m as f64, whole.n, whole.k);
    // P(an output's fullest group holds at most v).
    let at_most: Vec<f64> = match stats.pattern() {
        SparsityPattern::Nm { n, m } | SparsityPattern::Vnm { n, m, .. } if group.is_multiple_of(m) => {
            let most = n * (group / m);
            (0..=group).map(|v| f64::from(u8::from(v >= most))).collect()
        }
        _ => {
            let (full, rest) = (cumulative(stats, group.min(k)), remainder(stats, k % group));
            let groups = (k / group) as f64;
            let at = |p: &[f64], v: u64| p[(v as usize).min(p.len() - 1)];
            (0..=group).map(|v| at(&full, v).powf(groups) * at(&rest, v)).collect()
        }
    };
    let levels: Vec<u64> =
        std::iter::successors(Some(1), |v| Some(v * 2)).take_while(|v| *v < group).chain([group]).collect();
    let width = if array.dataflow == Dataflow::InputStationary { n } else { array.cols };
    let mut work = Work {
        cycles: 0.0,
        folds: 0.0,
        active: 0.0,
        inputs: 0.0,
        weights: 0.0,
        outputs: 0.0,
        partials: 0.0,
        shape: whole,
    };
    let mut folds = Folds::default();
    let mut below = at_most[0];
    let mut finished = 0.0;
    let (m_rows, m_cols) = (whole.m.div_ceil(array.rows) as f64, whole.m.div_ceil(array.cols) as f64);
    for &level in &levels {
        let upto = at_most[level as usize];
        // Column blocks whose largest n is this level: blocks of outputs above the level below, less those above it.
        let (above_below, above) = ((1.0 - below).max(0.0), (1.0 - upto).max(0.0));
        let outputs = n as f64 * (above_below - above);
        let blocks = if width == n {
            1.0 - (1.0 - (above_below - above)).max(0.0).powf(n as f64)
        } else {
            expected_blocks(n, above_below, width) - expected_blocks(n, above, width)
        };
        below = upto;
        if outputs <= 1e-12 && blocks <= 1e-12 {
            continue;
        }
        let length = compressed(k, level.min(covering(level, group)), group);
        let down = length.div_ceil(array.rows) as f64;
        // Blocks are filled up with outputs of lower levels.
        let filled = |p: f64| (expected_blocks(n, p, width) * width as f64).min(n as f64 * (1.0 - at_most[0]));
        let held = if width == n { outputs } else { filled(above_below) - filled(above) };
        finished += outputs;
        let more = match array.dataflow {
            Dataflow::OutputStationary => Folds::of(array, blocks * m_rows, length as f64),
            Dataflow::WeightStationary => Folds::of(array, blocks * down, m),
            Dataflow::InputStationary => Folds::of(array, down * m_cols * blocks, outputs / blocks.max(1e-12)),
        };
        folds.count += more.count;
        folds.steps += more.steps;
        folds.issue += more.issue;
        folds.lone = folds.lone.max(more.lone);
        work.active += m * length as f64 * held;
        work.inputs += m * k as f64 * blocks;
        work.weights += length as f64
            * held
            * match array.dataflow {
                Dataflow::OutputStationary => m_rows,
                Dataflow::WeightStationary => 1.0,
                Dataflow::InputStationary => m_cols,
            };
        work.outputs += m * held * if array.dataflow == Dataflow::OutputStationary { 1.0 } else { down };
    }
    work.partials = (work.outputs - m * finished).max(0.0);
    work.cycles = folds.cycles(array);
    work.folds = folds.count;
    work.shape = alike(array, whole, folds.count);
    work
}

/// E⌈X/width⌉ for X binomial over `n` outputs.
fn expected_blocks(n: u64, p: f64, width: u64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return n.div_ceil(width) as f64;
    }
    if n > 4096 {
        // Far from the ends a ceiling adds half a block on average.
        let mean = n as f64 * p;
        return (mean / width as f64 + 0.5 * (1.0 - 1.0 / width as f64)).max(1.0 - (1.0 - p).powf(n as f64));
    }
    binomial(n, p).into_iter().enumerate().map(|(x, q)| (x as u64).div_ceil(width) as f64 * q).sum()
}

/// Blocks of outputs that a sampled expectation draws.
const SAMPLED_BLOCKS: u64 = 4;

/// Weights that it draws at least.
const SAMPLED_WEIGHTS: u64 = 1 << 16;

/// Column combining is a greedy packing without a closed form: pack a few drawn blocks of outputs and scale. The seed is
/// fixed, so that the answer is too.
fn sampled(array: Array, whole: Shape, stats: &WeightStats, skipping: Skipping) -> Result<Work> {
    // Of a small matrix all of it is drawn: a few outputs of it might by chance be empty.
    let few = (array.cols * SAMPLED_BLOCKS).max(SAMPLED_WEIGHTS / whole.k.max(1)).min(whole.n);
    let rows = if array.dataflow == Dataflow::InputStationary { whole.n } else { few };
    let mask = Mask::draw(stats.pattern(), rows, whole.k, 0x5eed);
    let part = masked(array, Shape { n: rows, ..whole }, &mask, skipping)?;
    let share = whole.n as f64 / rows as f64;
    let scaled = part.repeated(share);
    Ok(Work { shape: alike(array, whole, scaled.folds), ..scaled })
}
