//! What the engine of CSR and block-sparse rows (`kernels::blocks`) touches, loop by loop.

use super::hierarchy::Operand;
use super::machine::Cache;
use super::sets::{Region, Sweeps};
use super::traffic::{Touches, Window};
use crate::lower::blocking::{PANEL_VECTORS, TILE_ROWS, Vectors, window};

/// Stored weights as the engine meets them.
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
const PAGE: f64 = 4096.0;

fn lines(bytes: f64, line: f64) -> f64 {
    (bytes / line).ceil() * line
}

fn pages(bytes: f64) -> f64 {
    (bytes.max(1.0) / PAGE).ceil() * PAGE
}

/// Where arrays begin: on pages, one after another, as the kernel allocates them.
struct Places {
    x: f64,
    y: f64,
    values: f64,
    frame: f64,
    packed: f64,
    tile: f64,
}

/// What follows from the stored weights alone.
struct Engine<'a> {
    s: &'a Stored,
    line: f64,
    /// Bytes of the innermost cache.
    l1: f64,
    lanes: f64,
    /// Block rows, and blocks of K.
    down: f64,
    parts: f64,
    values: f64,
    /// Block rows that are ordered among one another, and bytes that share them out.
    ordered: f64,
    windows: f64,
    /// Bytes of the stack that a pass touches.
    stack: f64,
    /// Of all that says where blocks belong.
    metadata: f64,
    /// Of the blocks that there could be.
    share: f64,
    /// Strips of a block row, and their height.
    strips: f64,
    height: f64,
    places: Places,
    /// Lengths of the blocks of K, and how many are that long.
    lengths: [(f64, f64); 2],
}

/// Strips that so many rows are cut into.
fn strips(rows: f64, tallest: u64) -> f64 {
    (rows / tallest as f64).floor() + f64::from((rows as u64 % tallest).count_ones())
}

impl<'a> Engine<'a> {
    fn new(s: &'a Stored, vectors: &Vectors, l1: &Cache) -> Self {
        let lanes = vectors.lanes as f64;
        let (down, parts) = ((s.n / s.rows).ceil(), (s.k / s.block_k).ceil());
        // The last block row has the rows that are left.
        let rest = s.n - (down - 1.0) * s.rows;
        let values = s.blocks * s.cols * s.n / down * WORD;
        let index = s.blocks * s.index;
        let tallest = vectors.strip(s.m as u64);
        let count = ((down - 1.0) * strips(s.rows, tallest) + strips(rest, tallest)) / down;
        let begins = parts * down + 1.0;
        let stack = vectors.frame(s.rows as u64, s.m as u64) as f64;
        let ordered = window(down as u64, s.rows as u64, 1) as f64;
        let windows = (down / ordered).ceil() * 8.0;
        let x = PAGE;
        let y = x + pages(s.k * s.m * WORD);
        let at = y + pages(s.n * s.m * WORD);
        let frame = at + pages(values) + pages(index) + pages(begins * 4.0) + pages(begins * 8.0) + pages(begins * 4.0);
        let packed = frame + pages(stack) + pages(windows);
        let tile = packed + pages(s.k * PANEL_VECTORS as f64 * lanes * WORD);
        let full = (s.k / s.block_k).floor();
        Self {
            s,
            line: l1.line,
            l1: l1.capacity,
            lanes,
            down,
            parts,
            ordered,
            windows,
            stack,
            values,
            metadata: index + parts * down * s.start,
            share: (s.blocks / (down * (s.k / s.cols).ceil())).min(1.0),
            strips: count,
            height: s.n / down / count,
            places: Places { x, y, values: at, frame, packed, tile },
            lengths: [(s.block_k.min(s.k), full), (s.k - full * s.block_k, 1.0)],
        }
    }

    /// Blocks of K by their length: it, their share of all, and where the first of them begins.
    fn parts(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let [(long, full), (rest, _)] = self.lengths;
        let all = [(long, long * full / self.s.k, 0.0), (rest, rest / self.s.k, long * full)];
        all.into_iter().filter(|(length, share, _)| *length > 0.0 && *share > 0.0)
    }

    fn frame(&self) -> Region {
        Region::fixed(self.stack, self.places.frame)
    }

    /// Share of the lines of activations that a block row takes: items share lines.
    fn taken(&self, item: f64) -> f64 {
        let line = self.line;
        let together =
            if item < line { line / item } else { 1.0 + if item % line == 0.0 { 0.0 } else { 0.5 * line / item } };
        1.0 - (1.0 - self.share).powf(together)
    }
}

/// The loops of `kernels::blocks`.
pub(super) fn blocks(caches: &[Cache], s: &Stored, vectors: &Vectors) -> Touches {
    let mut t = Touches::new(caches);
    let e = Engine::new(s, vectors, &caches[0]);
    t.first(Operand::Metadata, e.stack + 2.0 * e.windows, false);
    if s.m == 1.0 {
        column(&mut t, &e);
        return t;
    }
    let wide = PANEL_VECTORS as f64 * e.lanes;
    if s.m <= wide && s.m % e.lanes == 0.0 {
        panel(
            &mut t,
            &e,
            vectors,
            &Panel { count: 1.0, columns: s.m, stride: s.m, before: s.m, direct: true, first: true },
        );
        return t;
    }
    let full = (s.m / wide).floor();
    let rest = s.m - full * wide;
    if full > 0.0 {
        panel(
            &mut t,
            &e,
            vectors,
            &Panel { count: full, columns: wide, stride: wide, before: wide, direct: false, first: true },
        );
    }
    if rest > 0.0 {
        let stride = (rest / e.lanes).ceil() * e.lanes;
        let first = full == 0.0;
        let before = if first { stride } else { wide };
        panel(&mut t, &e, vectors, &Panel { count: 1.0, columns: rest, stride, before, direct: false, first });
    }
    t
}

/// One column of activations: a gather takes a line for a few words.
fn column(t: &mut Touches, e: &Engine) {
    let (s, line, down, parts) = (e.s, e.line, e.down, e.parts);
    let (x, y) = (s.k * WORD, s.n * WORD);
    t.first(Operand::Weights, e.values, false);
    t.first(Operand::Metadata, e.metadata, false);
    t.first(Operand::Outputs, y, true);
    let stored = (e.values + e.metadata) / parts;
    t.between(Operand::Outputs, parts * y, true, || {
        Window::new(Region::fixed(y, e.places.y), &[Region::stream(stored)])
    });
    let taken = e.taken(s.cols * WORD);
    let seen = 1.0 - (1.0 - taken).powf(down);
    t.first(Operand::Inputs, x * seen, false);
    for (length, share, first) in e.parts() {
        let each = s.blocks / down * length / s.k;
        let own = Region::fixed(length * WORD, e.places.x + first * WORD).random(taken, (s.cols * WORD).max(line));
        let strip = each * s.cols * e.height * WORD;
        let index = each * s.index;
        let sweeps = Sweeps {
            own,
            count: down,
            still: e.frame(),
            streams: [
                (strip * e.strips, strip),
                (index + s.start, index + 3.0 * line),
                (s.rows * WORD, e.height * WORD),
            ],
        };
        t.random(Operand::Inputs, share * (down * x * taken - x * seen).max(0.0), &sweeps);
        let z = Pass {
            length,
            share,
            first,
            each,
            sweeps: 1.0,
            passes: 1.0,
            row: WORD,
            part: WORD,
            spread: 0.0,
            base: e.places.x,
        };
        repeated(t, e, &z);
    }
}

/// Panels of equal width.
struct Panel {
    count: f64,
    columns: f64,
    stride: f64,
    /// Columns of the panel before.
    before: f64,
    /// Activations are used and results are written where they lie.
    direct: bool,
    /// The first panel of the product is among them.
    first: bool,
}

fn panel(t: &mut Touches, e: &Engine, vectors: &Vectors, p: &Panel) {
    let (s, line, down, parts, places) = (e.s, e.line, e.down, e.parts, &e.places);
    let (values, metadata) = (e.values, e.metadata);
    let row = p.stride * WORD;
    let tall = vectors.tile((s.rows as u64).min(vectors.rows)) as f64;
    let passes = (p.stride / e.lanes / tall).ceil();
    let ordered = e.ordered;
    let tile = ((TILE_ROWS as f64 / s.rows / ordered).floor().max(1.0) * ordered * s.rows).min(s.n);
    let tile = if p.direct { s.n } else { tile };
    let tiles = (s.n / tile).ceil();
    let (x, y) = (s.k * row, s.n * row);
    let stored = values + metadata;
    // Where activations are read from, their copy, results on their way, and where they belong.
    let source = |share: f64| pieces(share * s.k, p.columns * WORD, s.m * WORD, line);
    let result = |rows: f64, columns: f64| pieces(rows, columns * WORD, s.m * WORD, line);
    let copy = Region::fixed(x, if p.direct { places.x } else { places.packed });
    let buffer = Region::fixed(tile * row, if p.direct { places.y } else { places.tile });
    // The same in the panel before.
    let (older, earlier) =
        (Region { bytes: s.k * p.before * WORD, ..copy }, Region { bytes: tile * p.before * WORD, ..buffer });
    let half = 0.5 * (p.before + p.columns);
    let (new, again) = if p.first { (1.0, p.count - 1.0) } else { (0.0, p.count) };
    t.first(Operand::Weights, new * values, false);
    t.first(Operand::Metadata, new * metadata, false);
    let weights = Region::fixed(values, places.values);
    let said = Region::stream(metadata);
    t.stored((again * values, again * metadata), || {
        Window::new(weights, &[said, older, source(1.0), earlier, result(s.n, half)])
    });
    let part = (p.stride / e.lanes / passes).ceil() * e.lanes * WORD;

    // Activations: the first touch in a block of K, then at random by block rows, then by strips of the same one.
    let taken = e.taken(s.cols * row);
    let rows_tile = (tile / s.rows).ceil();
    let seen = 1.0 - (1.0 - taken).powf(rows_tile);
    for (length, share, first) in e.parts() {
        let each = s.blocks / down * length / s.k;
        let spread = ((1.0 - e.share) / each.max(1.0)).sqrt();
        let base = copy.start;
        let z = Pass { length, share, first, each, sweeps: p.count, passes, row, part, spread, base };
        repeated(t, e, &z);
        let start =
            if first == 0.0 && share < 1.0 && length * row % PAGE != 0.0 { f64::NAN } else { base + first * row };
        let own = Region::fixed(length * row, start).random(taken, (s.cols * row).max(line));
        let strip = each * s.cols * e.height * WORD;
        let index = each * s.index;
        let reads = if parts > 1.0 { 2.0 } else { 1.0 };
        let sweeps = Sweeps {
            own,
            count: rows_tile,
            still: e.frame(),
            streams: [
                (strip * e.strips, strip * if passes > 1.0 { 2.0 - 1.0 / passes } else { 1.0 }),
                (index + s.start, index + 3.0 * line),
                (e.height * e.strips * row, reads * e.height * row),
            ],
        };
        let more = (down * taken - tiles * seen).max(0.0) * p.count * x * share;
        t.random(Operand::Inputs, more, &sweeps);
    }
    let firsts = p.count * x * seen;
    let ragged = if s.m * WORD % line != 0.0 { line } else { 0.0 };
    if p.direct {
        t.first(Operand::Inputs, x * (1.0 - (1.0 - taken).powf(down)), false);
    } else {
        t.first(Operand::Inputs, p.count * p.columns * s.k * WORD, false);
        // Rows that do not begin with a line share one with the panel before.
        let panels = [weights, said, older, earlier, result(s.n, half)];
        t.between(Operand::Inputs, again * s.k * ragged, false, || Window::new(source(1.0), &panels));
        t.first(Operand::Inputs, new * x, true);
        // The copy was last used in the panel before, each part of it in its block of K.
        let last = s.n - (tiles - 1.0) * tile;
        t.along(Operand::Inputs, again * x, true, |u| {
            let rest = Region::stream((1.0 - u) * stored * last / s.n);
            Window::new(older, &[rest, earlier, result(last, p.before), source(u)])
        });
        // Copied rows wait for the rest of the copying and for the blocks of K before theirs.
        t.along(Operand::Inputs, firsts, false, |u| {
            let (before, written) = if parts > 1.0 { (u * stored * tile / s.n, buffer) } else { (0.0, Region::NONE) };
            Window::new(copy, &[Region::stream(before), written, source(1.0 - u)])
        });
    }
    if tiles > 1.0 {
        let some = if parts > 1.0 { 1.0 } else { (2.0 / taken / rows_tile).min(1.0) };
        let others = [
            Region::stream(some * stored * tile / s.n),
            buffer,
            if p.direct { Region::NONE } else { result(tile, p.columns) },
        ];
        let own = copy.random(seen, s.cols * row);
        t.between(Operand::Inputs, (tiles - 1.0) * firsts, false, || Window::new(own, &others));
    }

    // Results: through a tile, once a block of K. Of its first block and of its last, the weights and the activations.
    let [(long, _), (rest, _)] = e.lengths;
    let part = |length: f64| (stored * tile / s.n * length / s.k, Region::stream(length * row * seen));
    let ((piece, block), (last_piece, last_block)) = (part(long), part(if rest > 0.0 { rest } else { long }));
    // Activations that stay in L1 are fetched from farther out as a block begins, before its first results.
    let before = if block.bytes > e.l1 { block } else { Region::NONE };
    let step = || Window::new(buffer, &[Region::stream(stored * tile / s.n / parts), block, before]);
    if p.direct {
        t.first(Operand::Outputs, y, true);
        t.between(Operand::Outputs, (parts - 1.0) * y, true, step);
        return;
    }
    t.first(Operand::Outputs, new * tile * row, true);
    // A tile is written again after it was copied out, or after the next panel was copied too; then it is copied out.
    t.along(Operand::Outputs, again * tile * row, true, |u| {
        Window::new(earlier, &[Region::stream(u * piece), older, source(1.0), result((1.0 - u) * tile, p.before)])
    });
    t.along(Operand::Outputs, p.count * (y - tile * row), true, |u| {
        Window::new(buffer, &[Region::stream(u * piece), block, result((1.0 - u) * tile, p.columns)])
    });
    t.between(Operand::Outputs, (parts - 1.0) * p.count * y, true, step);
    t.along(Operand::Outputs, p.count * y, false, |u| {
        Window::new(buffer, &[Region::stream(u * last_piece), last_block, result((1.0 - u) * tile, p.columns)])
    });
    t.first(Operand::Outputs, p.count * s.n * p.columns * WORD, true);
    let panels = [weights, said, older, earlier, source(1.0)];
    t.between(Operand::Outputs, again * s.n * ragged, true, || Window::new(result(s.n, half), &panels));
}

/// Rows of a piece each, a stride apart, in whole lines: one that begins anywhere reaches into a line more.
fn pieces(rows: f64, piece: f64, stride: f64, line: f64) -> Region {
    let touched = if stride % line == 0.0 { lines(piece, line) } else { (piece + line - WORD).min(stride) };
    Region::pieces(rows * touched, touched, stride)
}

/// What strips of a few rows and passes over a few vectors touch again in blocks of K of one length.
struct Pass {
    length: f64,
    /// Of all blocks of K.
    share: f64,
    /// First input.
    first: f64,
    /// Stored blocks of a block row.
    each: f64,
    /// Over all block rows.
    sweeps: f64,
    passes: f64,
    /// Bytes of a row of activations, and of the part that a pass takes.
    row: f64,
    part: f64,
    /// How much the number of blocks differs between block rows, over its mean.
    spread: f64,
    /// Where the activations begin.
    base: f64,
}

fn repeated(t: &mut Touches, e: &Engine, z: &Pass) {
    let s = e.s;
    // Full block rows are met by more of the touches.
    let each = z.each * (1.0 + z.spread * z.spread);
    let blocks = s.blocks * z.share * z.sweeps;
    let values = s.cols * e.height * WORD;
    let said = Region::stream(each * s.index);
    let strip = Region::stream(each * values);
    let piece = lines(z.part, e.line);
    let rows = Region::stream(e.height * z.row);
    let item = (s.cols * z.row).max(e.line);
    let all = Region::fixed(z.length * z.row, z.base + z.first * z.row);
    let taken = e.taken(item);
    let strips = |own, a, b| Window::new(own, &[a, b, rows, e.frame()]).spread(z.spread);
    if z.passes > 1.0 {
        let times = (z.passes - 1.0) * e.strips * blocks;
        // Passes narrower than a line meet the same lines again.
        let same = 1.0 - (z.part / e.line).min(1.0);
        let own = Region::pieces(z.length * piece, piece, z.row).random(taken, item);
        t.stored((same * times * values, same * times * s.index), || strips(strip, said, own));
        // The next pass takes other parts of the same rows.
        let both = (2.0 * piece).min(z.row);
        let met = |u: f64| Region::pieces(z.length * both, both, z.row).random(u * taken, item);
        let others = (1.0 - same) * times;
        t.stored_along((others * values, others * s.index), |u| strips(strip, said, met(u)));
        let extra = (z.passes * piece - lines(z.row, e.line)).max(0.0);
        t.between(Operand::Inputs, e.strips * blocks * s.cols * extra, false, || strips(own, strip, said));
    }
    if e.strips > 1.0 {
        // The next strip.
        let met = all.random(taken, item);
        t.between(Operand::Metadata, (e.strips - 1.0) * blocks * s.index, false, || strips(said, strip, met));
        t.between(Operand::Inputs, (e.strips - 1.0) * blocks * s.cols * z.row, false, || strips(met, strip, said));
    }
}
