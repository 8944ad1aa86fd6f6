//! Bytes between the levels of the memory hierarchy: which bytes a kernel touches again, and what it touches in between.
//!
//! A line that was touched stays in a cache until as many other lines as there are ways have been touched in its set
//! (least recently used; Mattson et al., IBM Systems Journal 1970: the stack distance). So a kernel's traffic is a short
//! list of touches, each with its bytes and its reuse distance, read off the loop nest. What is written also returns.

use super::hierarchy::Operand;
use super::machine::Cache;
use crate::lower::blocking::{COLUMN_ROWS, FRAME, Goto, PANEL_VECTORS, TILE_ROWS, Vectors};

/// What is touched between two touches of the same bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reuse {
    /// The first touch.
    First,
    /// So many bytes, those touched themselves included.
    After(f64),
    /// Sweeps over `all` bytes take a random `share` of them, and pass `stream` bytes of other data each.
    Random { all: f64, item: f64, share: f64, stream: f64 },
    /// Pieces a stride apart, `own` ones again after `other` ones and bytes that lie together.
    Strided { even: f64, own: Pieces, other: Pieces, spread: f64 },
}

/// Pieces of a few lines a stride apart: where the stride is a power of two they fall into few sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pieces {
    pub bytes: f64,
    pub piece: f64,
    pub stride: f64,
}

impl Pieces {
    /// Share of the sets that they fall into.
    fn part(&self, cache: &Cache) -> f64 {
        let sets = (cache.capacity / cache.line / cache.ways) as u64;
        let stride = self.stride / cache.line;
        if stride.fract() != 0.0 || self.piece >= self.stride {
            return 1.0;
        }
        (self.piece / cache.line / gcd(sets, stride as u64) as f64).min(1.0)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Some touches of one operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    /// Whose.
    pub operand: Operand,
    /// Bytes touched, in whole lines.
    pub bytes: f64,
    /// Since when.
    pub reuse: Reuse,
    /// Lines are written as well as fetched, so each that is fetched also returns.
    pub written: bool,
}

/// Fraction of touches that miss a cache.
pub(super) fn miss(cache: &Cache, reuse: Reuse) -> f64 {
    match reuse {
        Reuse::First => 1.0,
        Reuse::After(distance) => after(cache, distance, 0.0),
        Reuse::Random { all, item, share, stream } => random(cache, all, item, share, stream),
        Reuse::Strided { even, own, other, spread } => {
            let (a, b) = (own.part(cache), other.part(cache));
            let near = even + own.bytes / a;
            b * after(cache, near + other.bytes / b, spread) + (1.0 - b) * after(cache, near, spread)
        }
    }
}

/// Bytes that lie together fill the sets evenly: those sets miss that hold one line more than there are ways.
fn after(cache: &Cache, distance: f64, spread: f64) -> f64 {
    let lines = distance / cache.capacity * cache.ways;
    let (over, variance) = (
        lines - cache.ways - MIDPOINT,
        EVEN_SPREAD * EVEN_SPREAD + (UNEVEN_SPREAD * UNEVEN_SPREAD + spread * spread) * lines * lines,
    );
    // Most distances are far from the capacity, where no exponential is needed.
    if over * over > 16.0 * variance {
        return if over > 0.0 { 1.0 } else { 0.0 };
    }
    1.0 / (1.0 + (-1.702 * over / variance.sqrt()).exp())
}
/// Lines beyond the ways of a set at which half of the sets miss.
const MIDPOINT: f64 = 0.2;
/// How much sets differ in their lines: by arrays that begin and end anywhere, and over the mean by uneven strides.
const EVEN_SPREAD: f64 = 0.6;
/// See `EVEN_SPREAD`.
const UNEVEN_SPREAD: f64 = 0.1;

/// A line skipped by g − 1 sweeps and taken by the g-th has seen a share 1 − (1 − p)^g of the others: a set holds a
/// binomial number of them.
fn random(cache: &Cache, all: f64, item: f64, share: f64, stream: f64) -> f64 {
    let per_set = cache.capacity / cache.ways;
    let (lines, passing) = (all / per_set, stream / per_set);
    // A piece longer than a way has several lines in each set. Some sets have one more than others.
    let each = (item / per_set).max(1.0);
    let held = |sweeps: f64| {
        let seen = 1.0 - (1.0 - share).powf(sweeps);
        let passed = passing * sweeps + (EDGES * cache.line + FRAME as f64) / per_set;
        let (whole, part) = (passed.floor(), passed.fract());
        let with = |others: f64| {
            let (mean, spread) = (others * seen, (each * others * seen * (1.0 - seen)).sqrt());
            let fewer = |limit: f64| fewer(limit, others, mean, spread);
            part * fewer(cache.ways - whole - 1.0) + (1.0 - part) * fewer(cache.ways - whole)
        };
        let few = (lines.floor() - 1.0).max(0.0);
        lines.fract() * with(few + 1.0) + (1.0 - lines.fract()) * with(few)
    };
    // All of it and what passes in the longest wait fit.
    let longest = 1.0 + 6.2 / share.max(1e-9);
    if lines + 1.0 + passing * longest + (EDGES * cache.line + FRAME as f64) / per_set < cache.ways - 1.0 {
        return 0.0;
    }
    let (mut missed, mut left, mut g) = (0.0, 1.0, 1.0);
    while left > 2e-3 {
        let step = (g * 0.25f64).floor().max(1.0);
        let after = left * (1.0 - share).powf(step);
        let hit = held(g + 0.5 * (step - 1.0));
        if hit < 2e-3 {
            break;
        }
        missed += (left - after) * (1.0 - hit);
        left = after;
        g += step;
    }
    // What is left waits longest.
    missed + if left > 2e-3 { left } else { 0.0 }
}

/// Probability that a binomial number of `most` with this mean and spread stays below `limit`.
fn fewer(limit: f64, most: f64, mean: f64, spread: f64) -> f64 {
    if limit > most {
        return 1.0;
    }
    if limit < 1.0 {
        return 0.0;
    }
    // The normal distribution by the logistic one, closer than 0.01.
    let z = (limit - 0.5 - mean) / spread.max(1e-3);
    1.0 / (1.0 + (-1.702 * z).exp())
}

/// Lines that streams have begun and not finished: values, indices, starts, results.
const EDGES: f64 = 4.0;

/// What one core has of a product: shares of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Of the stored weights: the fullest core's.
    pub weights: f64,
    /// Of the outputs.
    pub outputs: f64,
    /// Of the columns of activations.
    pub columns: f64,
}

/// All touches of a kernel.
#[derive(Clone, Debug, Default)]
pub(super) struct Touches(Vec<Touch>);

impl Touches {
    /// Adds some, where there are any.
    pub fn add(&mut self, operand: Operand, bytes: f64, reuse: Reuse, written: bool) {
        if bytes > 0.0 {
            self.0.push(Touch { operand, bytes, reuse, written });
        }
    }

    /// An operand that is read (or written past the caches) where it lies, `times` times.
    pub fn direct(&mut self, operand: Operand, bytes: f64, times: f64, distance: f64) {
        self.add(operand, bytes, Reuse::First, false);
        self.add(operand, bytes * (times - 1.0).max(0.0), Reuse::After(distance), false);
    }

    /// A packed copy: written and read before `panel` more bytes are, then read `times` in all.
    pub fn packed(&mut self, operand: Operand, bytes: f64, panel: f64, (times, distance): (f64, f64)) {
        self.add(operand, 2.0 * bytes, Reuse::After(panel), false);
        self.add(operand, bytes * (times - 1.0).max(0.0), Reuse::After(distance), false);
    }

    /// What one core touches that has these shares of the outputs and of the columns of activations: its share of an
    /// operand for the first time, and its share of the product in every repetition.
    pub fn divided(mut self, part: Part) -> Self {
        for t in &mut self.0 {
            t.bytes *= match (t.reuse, t.operand) {
                (Reuse::First, Operand::Weights | Operand::Metadata) => part.weights,
                (Reuse::First, Operand::Inputs) => part.columns,
                (_, Operand::Outputs) => part.outputs * part.columns,
                _ => part.weights * part.columns,
            };
        }
        self
    }

    /// First touches of an operand are its bytes at least: a convolution's image, rows of results that are cut out.
    pub fn at_least(mut self, operand: Operand, bytes: f64) -> Self {
        let first: f64 =
            self.0.iter().filter(|t| t.operand == operand && t.reuse == Reuse::First).map(|t| t.bytes).sum();
        self.add(operand, bytes - first, Reuse::First, false);
        self
    }

    /// Inputs are a matrix that is written from an `image` first, into a buffer of the layer before.
    pub fn lowered(mut self, image: f64, matrix: f64) -> Self {
        for t in self.0.iter_mut().filter(|t| t.operand == Operand::Inputs && t.reuse == Reuse::First) {
            t.reuse = Reuse::After(matrix);
        }
        self.add(Operand::Inputs, image, Reuse::First, false);
        self.add(Operand::Inputs, matrix, Reuse::After(matrix), true);
        self
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Touch> {
        self.0.iter()
    }
}

/// Stored weights as the engine of CSR and block-sparse rows meets them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Columns of activations.
    pub m: f64,
    pub n: f64,
    pub k: f64,
    /// Outputs and inputs of a stored block, and how many are stored.
    pub rows: f64,
    pub cols: f64,
    pub blocks: f64,
    /// Length of a block of K.
    pub block_k: f64,
    /// Bytes of a stored block's index, and of the start of a block row in a block of K.
    pub index: f64,
    /// See `index`.
    pub start: f64,
}

const WORD: f64 = 4.0;
fn lines(bytes: f64, line: f64) -> f64 {
    (bytes / line).ceil() * line
}

/// The loops of `kernels::blocks`.
pub(super) fn blocks(s: &Stored, vectors: &Vectors, line: f64) -> Touches {
    let mut t = Touches::default();
    let values = s.blocks * s.rows * s.cols * WORD;
    let down = (s.n / s.rows).ceil();
    let parts = (s.k / s.block_k).ceil();
    t.add(Operand::Metadata, FRAME as f64 + down * 16.0, Reuse::First, false);
    let metadata = s.blocks * s.index + parts * down * s.start;
    let share = (s.blocks / (down * (s.k / s.cols).ceil())).min(1.0);
    // Blocks of a block row in a block of K.
    let kb = s.block_k.min(s.k);
    let each = s.blocks / (down * parts);
    let bands = (s.rows / 8.0).ceil();
    let height = s.rows.min(8.0);
    if s.m == 1.0 {
        let x = s.k * WORD;
        let y = s.n * WORD;
        t.add(Operand::Weights, values, Reuse::First, false);
        t.add(Operand::Metadata, metadata, Reuse::First, false);
        t.add(Operand::Outputs, y, Reuse::First, true);
        t.add(Operand::Outputs, parts * y, Reuse::After(y + (values + metadata) / parts), true);
        // A gather takes a line for a few words.
        let span = lines((s.cols * WORD).max(line), line);
        let taken = 1.0 - (1.0 - share).powf((span / WORD / s.cols).max(1.0));
        let seen = 1.0 - (1.0 - taken).powf(down);
        t.add(Operand::Inputs, x * seen, Reuse::First, false);
        let stream = (values + metadata) / (down * parts) + height * WORD;
        let sweeps = Reuse::Random { all: kb * WORD, item: span, share: taken, stream };
        t.add(Operand::Inputs, (down * x * taken - x * seen).max(0.0), sweeps, false);
        strips(
            &mut t,
            s,
            1.0,
            &Strips { each, strips: bands, passes: 1.0, height, row: WORD, part: WORD, spread: 0.0 },
            line,
        );
        return t;
    }
    let lanes = vectors.lanes as f64;
    let wide = PANEL_VECTORS as f64 * lanes;
    if s.m <= wide && s.m % lanes == 0.0 {
        panel(&mut t, s, vectors, line, &Panel { count: 1.0, columns: s.m, stride: s.m, direct: true, first: true });
        return t;
    }
    let full = (s.m / wide).floor();
    let rest = s.m - full * wide;
    let padded = (rest / lanes).ceil() * lanes;
    if full > 0.0 {
        panel(
            &mut t,
            s,
            vectors,
            line,
            &Panel { count: full, columns: wide, stride: wide, direct: false, first: true },
        );
    }
    if rest > 0.0 {
        let first = full == 0.0;
        panel(&mut t, s, vectors, line, &Panel { count: 1.0, columns: rest, stride: padded, direct: false, first });
    }
    t
}

/// Panels of equal width.
struct Panel {
    count: f64,
    columns: f64,
    stride: f64,
    /// Activations are used and results are written where they lie.
    direct: bool,
    /// The first panel of the product is among them.
    first: bool,
}

fn panel(t: &mut Touches, s: &Stored, vectors: &Vectors, line: f64, p: &Panel) {
    let lanes = vectors.lanes as f64;
    let values = s.blocks * s.rows * s.cols * WORD;
    let down = (s.n / s.rows).ceil();
    let parts = (s.k / s.block_k).ceil();
    let metadata = s.blocks * s.index + parts * down * s.start;
    let share = (s.blocks / (down * (s.k / s.cols).ceil())).min(1.0);
    let kb = s.block_k.min(s.k);
    let each = s.blocks / (down * parts);
    let bands = (s.rows / 8.0).ceil();
    let height = s.rows.min(8.0);
    let row = p.stride * WORD;
    let tall = vectors.tile(height as u64) as f64;
    let passes = (p.stride / lanes / tall).ceil();
    let tile = (TILE_ROWS as f64 / s.rows).floor().max(1.0) * s.rows;
    let tile = if p.direct { s.n } else { tile.min(s.n) };
    let tiles = (s.n / tile).ceil();
    let (x, y) = (s.k * row, s.n * row);
    let stored = values + metadata;
    // One panel: its source and copy, all weights, results and their tile.
    let whole = if p.direct { x + y + stored } else { 2.0 * x + stored + y + tile * row };
    let (new, again) = if p.first { (1.0, p.count - 1.0) } else { (0.0, p.count) };
    t.add(Operand::Weights, new * values, Reuse::First, false);
    t.add(Operand::Metadata, new * metadata, Reuse::First, false);
    t.add(Operand::Weights, again * values, Reuse::After(whole), false);
    t.add(Operand::Metadata, again * metadata, Reuse::After(whole), false);
    let spread = ((1.0 - share) / each.max(1.0)).sqrt();
    let part = (p.stride / lanes / passes).ceil() * lanes * WORD;
    strips(t, s, p.count, &Strips { each, strips: bands, passes, height, row, part, spread }, line);

    // Activations: the first touch in a block of K, then at random by block rows, then by strips of the same one.
    // Rows shorter than a line share it.
    let together = (line / (s.cols * row)).max(1.0);
    let share = 1.0 - (1.0 - share).powf(together);
    let all = kb * row;
    let rows_tile = (tile / s.rows).ceil();
    let seen = 1.0 - (1.0 - share).powf(rows_tile);
    let sweep = p.count * x * share;
    let firsts = p.count * x * seen;
    let per_tile = x * seen + stored / tiles + if p.direct { y } else { 2.0 * tile * row };
    let ragged = if s.m * WORD % line != 0.0 { line } else { 0.0 };
    if p.direct {
        t.add(Operand::Inputs, x * (1.0 - (1.0 - share).powf(down)), Reuse::First, false);
    } else {
        t.add(Operand::Inputs, p.count * p.columns * s.k * WORD, Reuse::First, false);
        // Rows that do not begin with a line share one with the panel before.
        t.add(Operand::Inputs, again * s.k * ragged, Reuse::After(whole), false);
        t.add(Operand::Inputs, new * x, Reuse::First, true);
        // The buffer was last used in the panel before, each part of it in its block of K.
        let since = x + 2.5 * tile * row + 0.5 * (1.0 - 1.0 / parts) * (x + stored / tiles);
        t.add(Operand::Inputs, again * x, Reuse::After(since), true);
        // Packed rows wait for the rest of the packing and for the blocks of K before theirs.
        t.add(Operand::Inputs, firsts / parts, Reuse::After(2.0 * x), false);
        let later = 1.5 * x + tile * row + 0.5 * stored / tiles;
        t.add(Operand::Inputs, firsts * (1.0 - 1.0 / parts), Reuse::After(later), false);
    }
    t.add(Operand::Inputs, (tiles - 1.0) * firsts, Reuse::After(per_tile), false);
    let stream = stored / (down * parts) + s.rows * row;
    let more = (down * sweep - tiles * firsts).max(0.0);
    t.add(Operand::Inputs, more, Reuse::Random { all, item: (s.cols * row).max(line), share, stream }, false);
    // Results: through a tile, once a block of K.
    let step = tile * row + stored / (tiles * parts) + all * seen;
    if p.direct {
        t.add(Operand::Outputs, y, Reuse::First, true);
        t.add(Operand::Outputs, (parts - 1.0) * y, Reuse::After(step), true);
    } else {
        let out = p.count * y;
        t.add(Operand::Outputs, new * tile * row, Reuse::First, true);
        let next = 1.5 * tile * row + 0.5 * stored / (tiles * parts) + all * seen;
        t.add(Operand::Outputs, again * tile * row, Reuse::After(next + 2.0 * x), true);
        t.add(Operand::Outputs, p.count * (y - tile * row), Reuse::After(next), true);
        t.add(Operand::Outputs, (parts - 1.0) * out, Reuse::After(step), true);
        // Copied out, row after row.
        t.add(Operand::Outputs, out, Reuse::After(next), false);
        t.add(Operand::Outputs, p.count * s.n * p.columns * WORD, Reuse::First, true);
        t.add(Operand::Outputs, again * s.n * ragged, Reuse::After(whole), true);
    }
}

/// What strips of eight rows and passes over a few vectors touch again.
struct Strips {
    /// Stored blocks of a block row in a block of K.
    each: f64,
    strips: f64,
    passes: f64,
    height: f64,
    /// Bytes of a row of activations, and of the part that a pass takes.
    row: f64,
    part: f64,
    /// How much the number of blocks differs between block rows, over its mean.
    spread: f64,
}

/// `sweeps` times over all block rows.
fn strips(t: &mut Touches, s: &Stored, sweeps: f64, z: &Strips, line: f64) {
    let values = s.cols * z.height * WORD;
    // Full block rows are met by more of the touches.
    let each = z.each * (1.0 + z.spread * z.spread);
    // A strip's values are one stream.
    let w = Pieces { bytes: each * values, piece: values, stride: values };
    let piece = lines(z.part, line);
    let x = Pieces { bytes: each * s.cols * piece, piece, stride: z.row };
    let rest = each * s.index + z.height * piece + FRAME as f64;
    let blocks = s.blocks * sweeps;
    let spread = z.spread;
    // The next pass.
    let again = Reuse::Strided { even: rest, own: w, other: x, spread };
    t.add(Operand::Weights, (z.passes - 1.0) * z.strips * blocks * values, again, false);
    t.add(Operand::Metadata, (z.passes - 1.0) * z.strips * blocks * s.index, again, false);
    let extra = (z.passes * piece - lines(z.row, line)).max(0.0);
    t.add(
        Operand::Inputs,
        z.strips * blocks * s.cols * extra,
        Reuse::Strided { even: rest, own: x, other: w, spread },
        false,
    );
    if z.strips > 1.0 {
        // The next strip.
        let rest = each * s.index + z.height * z.row + FRAME as f64;
        let all = Pieces { bytes: each * s.cols * z.row, piece: z.row, stride: z.row };
        let again = Reuse::Strided { even: rest, own: w, other: all, spread };
        t.add(Operand::Metadata, (z.strips - 1.0) * blocks * s.index, again, false);
        let again = Reuse::Strided { even: rest, own: all, other: w, spread };
        t.add(Operand::Inputs, (z.strips - 1.0) * blocks * s.cols * z.row, again, false);
    }
}

/// The loops of the packed dense product: m columns, n outputs, k inputs.
pub(super) fn dense(m: f64, n: f64, k: f64, g: &Goto, line: f64) -> Touches {
    let mut t = Touches::default();
    let (w, x, y) = (n * k * WORD, k * m * WORD, n * m * WORD);
    if m == 1.0 {
        t.add(Operand::Weights, w, Reuse::First, false);
        t.add(Operand::Inputs, x, Reuse::First, false);
        let rows = (COLUMN_ROWS as f64).min(n);
        t.add(Operand::Inputs, ((n / rows).ceil() - 1.0) * x, Reuse::After((rows + 1.0) * x), false);
        // Rows and activations are read vector by vector side by side: lines of one set push each other out.
        let side = Pieces { bytes: (rows + 1.0) * line, piece: line, stride: x };
        let again = Reuse::Strided { even: 0.0, own: side, other: Pieces { bytes: 0.0, ..side }, spread: 0.0 };
        let vectors = (g.vectors_of(line) - 1.0).max(0.0);
        t.add(Operand::Weights, w * vectors, again, false);
        t.add(Operand::Inputs, (n / rows).ceil() * x * vectors, again, false);
        t.add(Operand::Outputs, y, Reuse::First, true);
        return t;
    }
    let (mr, nr) = (g.mr as f64, (g.nr as f64).min(n));
    let (kc, nc) = ((g.kc as f64).min(k), (g.nc as f64).min(n));
    let mc = (g.mc as f64).min((m / mr).ceil() * mr);
    let (chunks, parts, bands) = ((m / mc).ceil(), (k / kc).ceil(), (n / nc).ceil());
    let slivers = (nc / nr).ceil();
    let packs = g.packs_inputs(g.columns(m as u64), nc as u64);
    let copied = packs || g.packs_all_inputs;
    // A row of the last panel takes whole lines of its slot, and is padded where it is no one or two vectors.
    let rest = m % mr;
    let whole = m - rest;
    let read = if copied { whole * WORD + lines(rest * WORD, line) } else { m * WORD };
    let padded = whole * WORD + if rest == 0.0 { 0.0 } else { (g.packed_width(rest as u64) as f64 * WORD).max(line) };
    let panels = (mc.min(m) / mr).ceil();
    let slot = mr * WORD;
    let piece = if m < mr { read } else { slot };
    let columns = read / chunks;
    let chunk = Pieces { bytes: kc * columns, piece, stride: if copied { slot } else { piece } };
    let sliver = kc * nr * WORD;
    // Weights of a band in a block of K: the rows' pieces are a whole row apart.
    let weights =
        Pieces { bytes: nc * kc * WORD, piece: kc * WORD, stride: if g.packs_weights { kc * WORD } else { k * WORD } };
    let y_chunk = nc * m * WORD / chunks;
    let source = if copied { x / parts } else { 0.0 };
    let none = Pieces { bytes: 0.0, piece: 1.0, stride: 1.0 };
    let part = Reuse::Strided { even: source + kc * read + m * nc * WORD, own: none, other: weights, spread: 0.0 };

    // Activations.
    t.add(Operand::Inputs, x, Reuse::First, false);
    t.add(Operand::Inputs, (bands - 1.0) * x, part, false);
    if copied {
        let all = k * padded;
        let buffer = kc * padded / if g.packs_all_inputs { 1.0 } else { chunks };
        let last = if g.packs_all_inputs && chunks > 1.0 {
            part
        } else {
            Reuse::Strided { even: sliver + nr * columns + buffer, own: chunk, other: none, spread: 0.0 }
        };
        t.add(Operand::Inputs, buffer, Reuse::First, true);
        t.add(Operand::Inputs, (bands * all - buffer).max(0.0), last, true);
        // A panel is used right after it was packed, or after all have been.
        let packing = if g.packs_all_inputs { kc * read + x / parts } else { 2.0 * kc * piece };
        t.add(Operand::Inputs, bands * k * read, Reuse::After(packing), false);
    }
    let again = Reuse::Strided { even: sliver + nr * columns, own: chunk, other: none, spread: 0.0 };
    t.add(Operand::Inputs, bands * (slivers - 1.0) * k * read, again, false);

    // Weights: a sliver meets every panel of a chunk, a band every chunk.
    t.add(Operand::Weights, w, Reuse::First, false);
    if g.packs_weights {
        t.add(Operand::Weights, weights.bytes, Reuse::First, true);
        t.add(Operand::Weights, (w - weights.bytes).max(0.0), part, true);
        t.add(Operand::Weights, w, Reuse::After(2.0 * weights.bytes), false);
    } else {
        // Rows of a sliver are read word by word side by side: lines of one set push each other out.
        let side = Pieces { bytes: nr * line, piece: line, stride: k * WORD };
        let words = line / WORD - 1.0;
        let again = Reuse::Strided { even: read.min(slot), own: side, other: none, spread: 0.0 };
        t.add(Operand::Weights, w * words * chunks * panels, again, false);
    }
    let band = Reuse::Strided { even: y_chunk + chunk.bytes, own: weights, other: none, spread: 0.0 };
    t.add(Operand::Weights, w * (chunks - 1.0), band, false);
    let tile = Reuse::Strided {
        even: sliver + nr * lines(slot, line),
        own: none,
        other: Pieces { bytes: kc * piece, piece, stride: chunk.stride },
        spread: 0.0,
    };
    t.add(Operand::Weights, w * chunks * (panels - 1.0), tile, false);

    // Results.
    t.add(Operand::Outputs, y, Reuse::First, true);
    t.add(Operand::Outputs, (parts - 1.0) * y, part, true);
    t
}
