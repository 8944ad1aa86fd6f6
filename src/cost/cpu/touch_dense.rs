//! What the packed dense product touches, loop by loop.

use super::hierarchy::Operand;
use super::machine::Cache;
use super::sets::Region;
use super::traffic::{Touches, Window};
use crate::lower::blocking::{COLUMN_ROWS, Goto};

const WORD: f64 = 4.0;
const PAGE: f64 = 4096.0;

fn pages(bytes: f64) -> f64 {
    (bytes.max(1.0) / PAGE).ceil() * PAGE
}

fn lines(bytes: f64, line: f64) -> f64 {
    (bytes / line).ceil() * line
}

/// The loops of the packed dense product: m columns, n outputs, k inputs.
pub(super) fn dense(caches: &[Cache], (m, n, k): (f64, f64, f64), g: &Goto) -> Touches {
    let (mut t, line) = (Touches::new(caches), caches[0].line);
    let (w, x, y) = (n * k * WORD, k * m * WORD, n * m * WORD);
    if m == 1.0 {
        t.first(Operand::Weights, w, false);
        t.first(Operand::Inputs, x, false);
        let rows = (COLUMN_ROWS as f64).min(n);
        t.after(Operand::Inputs, ((n / rows).ceil() - 1.0) * x, (rows + 1.0) * x, false);
        // Rows and activations are read vector by vector side by side: lines of one set push each other out.
        let side = Region::pieces((rows + 1.0) * line, line, x);
        let again = || Window::new(side, &[]);
        let vectors = (g.vectors_of(line) - 1.0).max(0.0);
        t.between(Operand::Weights, w * vectors, false, again);
        t.between(Operand::Inputs, (n / rows).ceil() * x * vectors, false, again);
        t.first(Operand::Outputs, y, true);
        return t;
    }
    let p = Product::new(m, n, k, g, line);
    p.arrays(&mut t);
    p.chunks().into_iter().filter(|c| c.count > 0.0).for_each(|c| p.chunk(&mut t, &c));
    t
}

/// A packed product: blocks of K within bands of outputs, chunks of columns within those.
struct Product<'a> {
    g: &'a Goto,
    line: f64,
    m: f64,
    n: f64,
    k: f64,
    mr: f64,
    nr: f64,
    kc: f64,
    nc: f64,
    /// Blocks of K, bands of outputs, register tiles down a band.
    parts: f64,
    bands: f64,
    slivers: f64,
    /// Columns of the widest chunk, and how many chunks there are.
    widest: f64,
    steps: f64,
    /// Share of the rows of activations and results in which a panel does not begin with a line.
    uneven: f64,
    /// Where arrays begin, on pages.
    x: f64,
    y: f64,
    panels: f64,
}

/// Columns of activations that meet all outputs of a band in turn.
struct Chunk {
    columns: f64,
    count: f64,
    /// How many of them follow another, and its columns.
    again: f64,
    before: f64,
}

impl<'a> Product<'a> {
    fn new(m: f64, n: f64, k: f64, g: &'a Goto, line: f64) -> Self {
        let (mr, nr, kc, nc) = (g.mr as f64, (g.nr as f64).min(n), (g.kc as f64).min(k), (g.nc as f64).min(n));
        let x = PAGE + pages(n * k * WORD);
        let y = x + pages(k * m * WORD);
        let slivers = y + pages(n * m * WORD);
        let panels = slivers + pages(if g.packs_weights { (g.nc * g.kc) as f64 * WORD } else { 0.0 });
        let widest = if g.packs_all_inputs { m } else { (g.mc as f64).min(m) };
        let together = (1..).map(|e| f64::from(1u32 << e)).take_while(|e| e * WORD <= line && m % e == 0.0).last();
        let uneven = 1.0 - together.unwrap_or(1.0) * WORD / line;
        let (parts, bands) = ((k / kc).ceil(), (n / nc).ceil());
        let mut product = Self {
            g,
            line,
            m,
            n,
            k,
            mr,
            nr,
            kc,
            nc: n / bands,
            parts,
            bands,
            slivers: (n / bands / nr).ceil(),
            widest,
            steps: 1.0,
            uneven,
            x,
            y,
            panels,
        };
        product.steps = product.chunks().iter().map(|c| c.count).sum();
        product
    }

    /// Whole chunks, and what is left: whole vectors of it first.
    fn chunks(&self) -> [Chunk; 3] {
        let mc = (self.g.mc as f64).min((self.m / self.mr).ceil() * self.mr);
        let full = (self.m / mc).floor();
        let left = self.m - full * mc;
        let vectors = self.g.columns(left as u64) as f64;
        let one = |columns: f64, before: f64| {
            let count = if columns > 0.0 { 1.0 } else { 0.0 };
            Chunk { columns, count, again: if before > 0.0 { count } else { 0.0 }, before }
        };
        let vectors = vectors.min(left);
        [
            Chunk { columns: mc, count: full, again: (full - 1.0).max(0.0), before: mc },
            one(vectors, if full > 0.0 { mc } else { 0.0 }),
            one(left - vectors, vectors),
        ]
    }

    /// Activations and results of some columns where they lie: `rows` of them.
    fn lie(&self, rows: f64, columns: f64) -> Region {
        let (piece, stride) = (columns * WORD, self.m * WORD);
        let touched = (lines(piece, self.line) + self.uneven * self.line).min(stride.max(piece));
        Region::pieces(rows * touched, touched, stride)
    }

    /// Rows of weights in a block of K.
    fn weights(&self, rows: f64) -> Region {
        if self.g.packs_weights {
            return Region::stream(rows * self.kc * WORD);
        }
        Region::pieces(rows * self.kc * WORD, self.kc * WORD, self.k * WORD)
    }

    /// The copy of the widest chunk in a block of K.
    fn buffer(&self) -> Region {
        let rest = self.widest % self.mr;
        let padded = self.widest - rest + if rest > 0.0 { self.g.packed_width(rest as u64) as f64 } else { 0.0 };
        Region::fixed(self.kc * padded * WORD, self.panels)
    }

    /// What whole operands are touched for.
    fn arrays(&self, t: &mut Touches) {
        let (w, x, y) = (self.n * self.k * WORD, self.k * self.m * WORD, self.n * self.m * WORD);
        let more = 2.0 - 1.0 / self.steps;
        let weights = self.weights(self.nc);
        let some = Region { bytes: weights.bytes * more, ..weights };
        let band = Region::fixed(self.nc * self.m * WORD, self.y);
        let source = Region::stream(self.kc * self.m * WORD);
        let part = || Window::new(band, &[some, source, self.buffer()]);
        // Activations come again with the next band, weights and results with the next block of K.
        let again =
            || Window::new(Region::fixed(x, self.x), &[Region::stream(self.nc * self.k * WORD), band, self.buffer()]);
        t.first(Operand::Inputs, x, false);
        t.between(Operand::Inputs, (self.bands - 1.0) * x, false, again);
        t.first(Operand::Weights, w, false);
        if self.g.packs_weights {
            let block = self.nc * self.kc * WORD;
            t.first(Operand::Weights, block, true);
            t.between(Operand::Weights, (w - block).max(0.0), true, part);
            t.after(Operand::Weights, w, 2.0 * block, false);
        }
        t.first(Operand::Outputs, y, true);
        t.between(Operand::Outputs, (self.parts - 1.0) * y, true, part);
        if self.g.packs_all_inputs {
            // All is copied before any of it is used.
            let buffer = self.buffer();
            let (all, block) = (self.bands * buffer.bytes * self.k / self.kc, buffer.bytes);
            t.first(Operand::Inputs, block, true);
            t.along(Operand::Inputs, all - block, true, |u| {
                let rest = if self.steps > 1.0 { weights } else { self.weights(self.nr) };
                let results = self.lie(if self.steps > 1.0 { self.nc } else { self.nr }, self.m / self.steps);
                Window::new(buffer, &[rest, results, self.lie(u * self.kc, self.m)])
            });
            t.along(Operand::Inputs, all, false, |u| Window::new(buffer, &[self.lie(u * self.kc, self.m)]));
        }
    }

    fn chunk(&self, t: &mut Touches, c: &Chunk) {
        let (g, line, mr, nr) = (self.g, self.line, self.mr, self.nr);
        let slot = mr * WORD;
        let panels = (c.columns / mr).ceil();
        let last = c.columns - (panels - 1.0) * mr;
        let width = if panels > 1.0 { mr } else { last };
        let packs = g.packs_inputs(c.columns as u64, self.nc as u64);
        let copied = packs || g.packs_all_inputs;
        // Bytes of a row of activations, and of a panel of them.
        let read = if copied { (panels - 1.0) * slot + lines(last * WORD, line) } else { c.columns * WORD };
        let panel = if !copied {
            self.lie(self.kc, width)
        } else if width < mr {
            Region::pieces(self.kc * lines(width * WORD, line), lines(width * WORD, line), slot)
        } else {
            Region::stream(self.kc * slot)
        };
        let own = if !copied {
            self.lie(self.kc, c.columns)
        } else if panels > 1.0 {
            Region::fixed(self.kc * read, self.panels)
        } else {
            panel
        };
        let sliver = self.weights(nr);
        let slivers = self.weights(nr * (2.0 - 1.0 / panels));
        let results = self.lie(nr, c.columns);
        let times = c.count * self.bands;

        // Activations: copied panel by panel, then met by every sliver of weights.
        if packs {
            let padded = (panels - 1.0) * slot + (g.packed_width(last as u64) as f64 * WORD).max(line);
            let block = if c.columns >= self.widest { self.kc * padded } else { 0.0 };
            t.first(Operand::Inputs, block, true);
            t.between(Operand::Inputs, (times * self.k * padded - block).max(0.0), true, || {
                Window::new(self.buffer(), &[slivers, results, self.lie(0.5 * self.kc, c.columns)])
            });
            t.between(Operand::Inputs, times * self.k * read, false, || {
                Window::new(panel, &[self.lie(self.kc, width)])
            });
        }
        if copied {
            // Panels that do not begin with a line share one with the panel before.
            let beside = if packs { [sliver, self.lie(nr, width), panel] } else { [panel, Region::NONE, Region::NONE] };
            let shared = || Window::new(self.lie(self.kc, width), &beside);
            t.between(Operand::Inputs, times * (panels - 1.0) * self.k * self.uneven * line, false, shared);
        }
        let again = times * (self.slivers - 1.0) * self.k;
        let end = lines(last * WORD, line);
        if copied && panels > 1.0 && end < slot {
            // The last panel leaves a part of every row's slot.
            let (whole, rest) = ((panels - 1.0) * slot, Region::pieces(self.kc * end, end, slot));
            let others = Region::fixed(self.kc * whole, self.panels);
            t.between(Operand::Inputs, again * whole, false, || Window::new(others, &[rest, slivers, results]));
            t.between(Operand::Inputs, again * end, false, || Window::new(rest, &[others, slivers, results]));
        } else {
            t.between(Operand::Inputs, again * read, false, || Window::new(own, &[slivers, results]));
        }

        // Weights: a sliver meets every panel of a chunk, a band every chunk.
        let w = self.n * self.k * WORD;
        if !g.packs_weights {
            // Rows of a sliver are read word by word side by side: lines of one set push each other out.
            t.between(Operand::Weights, w * (line / WORD - 1.0) * c.count * panels, false, || {
                Window::new(Region::pieces(nr * line, line, self.k * WORD), &[Region::stream(width * WORD)])
            });
        }
        // What follows the chunk before: its rest and the first part of this one.
        let both = self.lie(self.nc, 0.5 * (c.before + c.columns));
        t.between(Operand::Weights, w * c.again, false, || {
            Window::new(self.weights(self.nc), &[own, both, self.lie(self.kc, c.columns)])
        });
        let border = c.again * self.uneven * line;
        let block = [self.weights(self.nc), own, self.lie(self.kc, c.columns)];
        t.between(Operand::Outputs, border * self.n * self.parts, true, || Window::new(both, &block));
        t.between(Operand::Inputs, border * self.k * self.bands, false, || {
            Window::new(self.lie(self.kc, c.columns), &[self.weights(self.nc), own, both])
        });
        let next = || Window::new(sliver, &[panel, self.lie(nr, width)]);
        t.between(Operand::Weights, w * c.count * (panels - 1.0), false, next);

        // Results of neighbouring panels share lines.
        let shared = c.count * (panels - 1.0) * self.n * self.parts * self.uneven * line;
        t.between(Operand::Outputs, shared, true, || Window::new(self.lie(nr, width), &[sliver, panel]));
    }
}
