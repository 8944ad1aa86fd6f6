//! Bytes between the levels of the memory hierarchy: which bytes a kernel touches again, and what it touches in between.
//!
//! A kernel's traffic is a short list of touches read off its loop nest, each with its bytes and the share that misses each
//! cache: [`sets`](super::sets) says what is left after all that was touched meanwhile. What is written also returns.

use super::hierarchy::Operand;
use super::machine::Cache;
use super::sets::{MOST, Region, Sweeps, missed};
use crate::cost::MAX_LEVELS;

/// Shares that miss each cache, innermost first.
pub(super) type Missed = [f64; MAX_LEVELS - 1];

/// Some touches of one operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    /// Whose.
    pub operand: Operand,
    /// Bytes touched, in whole lines.
    pub bytes: f64,
    /// Nothing has touched them before.
    pub first: bool,
    /// Lines are written as well as fetched, so each that is fetched also returns.
    pub written: bool,
    /// Share that each cache does not hold.
    pub missed: Missed,
}

/// What is touched between two touches of a line: the rest of the region that it belongs to, and others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    own: Region,
    others: [Region; MOST],
    count: usize,
    /// Bytes that they take with what lies between their pieces, and bytes of those that lie together and are all touched.
    span: f64,
    solid: f64,
    /// How much streams and random shares differ from touch to touch, over their mean.
    spread: f64,
}

impl Window {
    /// At most [`MOST`] regions beside the line's own; those of no bytes do not count.
    pub fn new(own: Region, beside: &[Region]) -> Self {
        let mut window = Self { own, others: [Region::NONE; MOST], count: 0, span: 0.0, solid: 0.0, spread: 0.0 };
        window.size(&own);
        for region in beside.iter().filter(|r| r.bytes > 0.0) {
            window.others[window.count] = *region;
            window.count += 1;
            window.size(region);
        }
        window
    }

    fn size(&mut self, r: &Region) {
        let together = r.piece >= r.stride;
        self.span += if together { r.bytes } else { r.bytes / r.piece * r.stride };
        self.solid += if together && r.seen >= 1.0 { r.bytes } else { 0.0 };
    }

    /// Of sizes that differ.
    pub fn spread(self, spread: f64) -> Self {
        Self { spread, ..self }
    }

    /// Sizes one standard deviation below and above their mean stand for all.
    fn missed(&self, cache: &Cache) -> f64 {
        // Most windows are far from the capacity, and need no count of sets: each region has a line or two more in some.
        let (way, edges) = (cache.capacity / cache.ways, 2.0 * (self.count + 1) as f64);
        if self.span * (1.0 + self.spread) < (cache.ways - edges) * way {
            return 0.0;
        }
        if self.solid * (1.0 - self.spread) > (cache.ways + edges) * way {
            return 1.0;
        }
        let others = &self.others[..self.count];
        if self.spread < 1e-3 {
            return missed(cache, &self.own, others);
        }
        let at = |deviations: f64| {
            let scale = (1.0 + deviations * self.spread).max(0.0);
            let scaled = |r: &Region| Region { bytes: r.bytes * if r.start.is_nan() { scale } else { 1.0 }, ..*r };
            missed(cache, &scaled(&self.own), &self.others.each_ref().map(scaled)[..self.count])
        };
        let many = at(1.0);
        if many <= 0.0 { 0.0 } else { 0.5 * (at(-1.0) + many) }
    }
}

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
#[derive(Clone, Debug)]
pub(super) struct Touches {
    caches: [Cache; MAX_LEVELS - 1],
    depth: usize,
    all: Vec<Touch>,
}

impl Touches {
    /// None so far, before these caches, innermost first.
    pub fn new(caches: &[Cache]) -> Self {
        let mut own = [Cache::default(); MAX_LEVELS - 1];
        own.iter_mut().zip(caches).for_each(|(to, from)| *to = *from);
        Self { caches: own, depth: caches.len(), all: Vec::with_capacity(48) }
    }

    /// What is not in one cache is looked up in the next.
    fn levels(&self, missed: impl Fn(&Cache) -> f64) -> Missed {
        let mut levels = [0.0; MAX_LEVELS - 1];
        for (level, cache) in levels.iter_mut().zip(&self.caches[..self.depth]) {
            *level = missed(cache);
            if *level <= 0.0 {
                break;
            }
        }
        levels
    }

    fn push(&mut self, operand: Operand, bytes: f64, written: bool, missed: Missed) {
        if missed[0] > 0.0 && bytes > 0.0 {
            self.all.push(Touch { operand, bytes, first: false, written, missed });
        }
    }

    /// First touches, where there are any.
    pub fn first(&mut self, operand: Operand, bytes: f64, written: bool) {
        if bytes > 0.0 {
            self.all.push(Touch { operand, bytes, first: true, written, missed: [1.0; MAX_LEVELS - 1] });
        }
    }

    /// Touches after so many bytes that lie together, those touched themselves included.
    pub fn after(&mut self, operand: Operand, bytes: f64, distance: f64, written: bool) {
        self.between(operand, bytes, written, || Window::new(Region::stream(distance), &[]));
    }

    /// Touches again, after a window.
    pub fn between(&mut self, operand: Operand, bytes: f64, written: bool, window: impl Fn() -> Window) {
        if bytes > 0.0 {
            let window = window();
            self.push(operand, bytes, written, self.levels(|cache| window.missed(cache)));
        }
    }

    /// Values and indices alike.
    pub fn stored(&mut self, (values, index): (f64, f64), window: impl Fn() -> Window) {
        if values > 0.0 {
            let window = window();
            let missed = self.levels(|cache| window.missed(cache));
            self.push(Operand::Weights, values, false, missed);
            self.push(Operand::Metadata, index, false, missed);
        }
    }

    /// The same along a loop.
    pub fn stored_along(&mut self, (values, index): (f64, f64), window: impl Fn(f64) -> Window) {
        if values > 0.0 {
            let missed = self.levels_along(window);
            self.push(Operand::Weights, values, false, missed);
            self.push(Operand::Metadata, index, false, missed);
        }
    }

    /// Touches along a loop, after windows that change from its begin (0) to its end (1).
    pub fn along(&mut self, operand: Operand, bytes: f64, written: bool, window: impl Fn(f64) -> Window) {
        if bytes > 0.0 {
            let missed = self.levels_along(window);
            self.push(operand, bytes, written, missed);
        }
    }

    /// By Gauss's two points.
    fn levels_along(&self, window: impl Fn(f64) -> Window) -> Missed {
        let windows = [window(0.5 - 0.75f64.sqrt() / 3.0), window(0.5 + 0.75f64.sqrt() / 3.0)];
        self.levels(|cache| windows.iter().map(|w| 0.5 * w.missed(cache)).sum())
    }

    /// Touches by sweeps after a line's first.
    pub fn random(&mut self, operand: Operand, bytes: f64, sweeps: &Sweeps) {
        if bytes > 0.0 {
            self.push(operand, bytes, false, self.levels(|cache| sweeps.missed(cache)));
        }
    }

    /// An operand that is read (or written past the caches) where it lies, `times` times.
    pub fn direct(&mut self, operand: Operand, bytes: f64, times: f64, distance: f64) {
        self.first(operand, bytes, false);
        self.after(operand, bytes * (times - 1.0).max(0.0), distance, false);
    }

    /// A packed copy: written and read before `panel` more bytes are, then read `times` in all.
    pub fn packed(&mut self, operand: Operand, bytes: f64, panel: f64, (times, distance): (f64, f64)) {
        self.after(operand, 2.0 * bytes, panel, false);
        self.after(operand, bytes * (times - 1.0).max(0.0), distance, false);
    }

    /// What one core touches that has these shares of the outputs and of the columns of activations: its share of an
    /// operand for the first time, and its share of the product in every repetition.
    pub fn divided(mut self, part: Part) -> Self {
        for t in &mut self.all {
            t.bytes *= match (t.first, t.operand) {
                (true, Operand::Weights | Operand::Metadata) => part.weights,
                (true, Operand::Inputs) => part.columns,
                (_, Operand::Outputs) => part.outputs * part.columns,
                _ => part.weights * part.columns,
            };
        }
        self
    }

    /// First touches of an operand are its bytes at least: a convolution's image, rows of results that are cut out.
    pub fn at_least(mut self, operand: Operand, bytes: f64) -> Self {
        let first: f64 = self.all.iter().filter(|t| t.operand == operand && t.first).map(|t| t.bytes).sum();
        self.first(operand, bytes - first, false);
        self
    }

    /// Inputs are a matrix that is written from an `image` first, into a buffer of the layer before.
    pub fn lowered(mut self, image: f64, matrix: f64) -> Self {
        let missed = self.levels(|cache| missed(cache, &Region::stream(matrix), &[]));
        for t in self.all.iter_mut().filter(|t| t.operand == Operand::Inputs && t.first) {
            (t.first, t.missed) = (false, missed);
        }
        self.first(Operand::Inputs, image, false);
        self.push(Operand::Inputs, matrix, true, missed);
        self
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Touch> {
        self.all.iter()
    }
}
