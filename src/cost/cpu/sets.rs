//! How the sets of a cache fill between two touches of a line.
//!
//! A line that was touched stays in a cache until as many other lines as there are ways have been touched in its set
//! (least recently used; Mattson et al., IBM Systems Journal 1970: the stack distance; set by set, Hill and Smith, IEEE
//! TC 1989). Bytes that lie together give each set the same number of lines or one more; pieces a power of two apart
//! give many lines to few sets; of a random subset a set has a binomial number.

use super::machine::Cache;

/// Most ways that are counted one by one; a cache of more is taken for one of more sets.
const WAYS: usize = 24;

/// Regions beside a line's own that are touched meanwhile, at most.
pub(super) const MOST: usize = 5;

/// Bytes that are touched between two touches of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Region {
    /// Of all of it, whether touched or not.
    pub bytes: f64,
    /// It consists of pieces this long, `stride` apart; not shorter than the stride where it lies together.
    pub piece: f64,
    /// See `piece`.
    pub stride: f64,
    /// Where it begins; not a number where that is anywhere.
    pub start: f64,
    /// Share of its items that are touched, at random.
    pub seen: f64,
    /// Bytes that are touched together or not at all.
    pub item: f64,
}

impl Region {
    /// Nothing.
    pub const NONE: Self = Self { bytes: 0.0, piece: 1.0, stride: 1.0, start: f64::NAN, seen: 1.0, item: 1.0 };

    /// Bytes that lie together, anywhere.
    pub fn stream(bytes: f64) -> Self {
        Self { bytes, ..Self::NONE }
    }

    /// Bytes that lie together from `start` on.
    pub fn fixed(bytes: f64, start: f64) -> Self {
        Self { bytes, start, ..Self::NONE }
    }

    /// Pieces a stride apart.
    pub fn pieces(bytes: f64, piece: f64, stride: f64) -> Self {
        Self { bytes, piece, stride, ..Self::NONE }
    }

    /// A random share of it, items of so many bytes.
    pub fn random(self, seen: f64, item: f64) -> Self {
        Self { seen, item, ..self }
    }

    fn together(&self) -> bool {
        self.piece >= self.stride
    }

    /// More lines than any set has of it, and as many as every set has at least.
    fn bounds(&self, sets: &Sets) -> (usize, usize) {
        if self.together() {
            let least = if self.seen < 1.0 { 0 } else { (self.bytes * sets.per_way) as usize };
            return (((self.bytes + sets.line) * sets.per_way) as usize + 1, least);
        }
        let rows = self.bytes / self.piece;
        // All in one set, or spread as evenly as the stride allows.
        let most = if self.stride < sets.way { rows * self.stride * sets.per_way } else { rows };
        (most as usize + 1, 0)
    }
}

/// A cache as lines meet it.
struct Sets {
    line: f64,
    /// Bytes of one way, and one over it.
    way: f64,
    per_way: f64,
    ways: usize,
}

impl Sets {
    fn of(cache: &Cache) -> Self {
        let ways = (cache.ways as usize).clamp(1, WAYS);
        let way = cache.capacity / ways as f64;
        Self { line: cache.line, way, per_way: 1.0 / way, ways }
    }
}

/// A region as one set meets it.
#[derive(Clone, Copy)]
struct Layers {
    /// Share of the sets that it falls into.
    part: f64,
    /// Lines in each of them, and the share that has one more.
    whole: usize,
    more: f64,
    seen: f64,
    /// Lines of one item.
    each: usize,
}

impl Layers {
    const NONE: Self = Self { part: 1.0, whole: 0, more: 0.0, seen: 1.0, each: 1 };

    fn of(r: &Region, sets: &Sets) -> Self {
        let step = r.stride / sets.line;
        let part = if r.together() || step != (step as u64) as f64 {
            1.0
        } else {
            let apart = gcd((sets.way / sets.line) as u64, step as u64) as f64;
            (((r.piece + sets.line - 1.0) / sets.line) as u64 as f64 / apart).min(1.0)
        };
        // The first and the last line of a stream are cut anywhere.
        let edge = if r.start.is_nan() && r.bytes > 0.0 && r.together() { sets.line } else { 0.0 };
        let lines = ((r.bytes + edge) * sets.per_way / part).min(1e6);
        let whole = lines as usize;
        let each = if r.item > sets.way { (r.item * sets.per_way + 0.5) as usize } else { 1 };
        Self { part, whole, more: lines - whole as f64, seen: r.seen.min(1.0), each }
    }

    fn most(&self) -> usize {
        self.whole + usize::from(self.more > 0.0)
    }

    /// Lines that every set sees.
    fn least(&self) -> usize {
        if self.part < 1.0 || self.seen < 1.0 { 0 } else { self.whole }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    match (a, b) {
        (a, 0) => a.max(1),
        // Sets are a power of two but in rare caches.
        (a, b) if a.is_power_of_two() => 1 << a.trailing_zeros().min(b.trailing_zeros()),
        (a, b) => gcd(b, a % b),
    }
}

/// Chances of 0, 1, … lines in a set; those of `ways` and more are left out.
struct Held {
    chance: [f64; WAYS],
    /// How many of them are not 0.
    filled: usize,
    ways: usize,
}

impl Held {
    fn new(ways: usize) -> Self {
        let mut chance = [0.0; WAYS];
        chance[0] = 1.0;
        Self { chance, filled: 1, ways }
    }

    /// Adds a region that lies anywhere.
    fn add(&mut self, l: &Layers) {
        if l.seen < 1.0 {
            self.add_some(l);
        } else if l.part < 1.0 {
            let (none, few, many) = (1.0 - l.part, l.part * (1.0 - l.more), l.part * l.more);
            let end = (self.filled + l.whole + 1).min(self.ways);
            for i in (0..end).rev() {
                let at = |back: usize| if back <= i { self.chance[i - back] } else { 0.0 };
                self.chance[i] = none * at(0) + few * at(l.whole) + many * at(l.whole + 1);
            }
            self.filled = end;
        } else {
            self.shift(l.whole);
            self.one_more(l.more);
        }
    }

    /// So many lines for sure.
    fn shift(&mut self, lines: usize) {
        let lines = lines.min(self.ways);
        if lines > 0 {
            let end = (self.filled + lines).min(self.ways);
            self.chance.copy_within(0..end.saturating_sub(lines), lines);
            self.chance[..lines.min(end)].fill(0.0);
            self.filled = end;
        }
    }

    /// One line by chance.
    fn one_more(&mut self, chance: f64) {
        let end = (self.filled + 1).min(self.ways);
        for i in (1..end).rev() {
            self.chance[i] += chance * (self.chance[i - 1] - self.chance[i]);
        }
        self.chance[0] *= 1.0 - chance;
        self.filled = end;
    }

    fn add_some(&mut self, l: &Layers) {
        let some = Chances::new(l.whole / l.each, l.seen, self.ways.div_ceil(l.each));
        let end = (self.filled + (some.count - 1) * l.each).min(self.ways);
        let mut sum = [0.0; WAYS];
        for (hit, chance) in some.iter().enumerate().take(end.div_ceil(l.each)) {
            let lines = hit * l.each;
            sum[lines..end].iter_mut().zip(&self.chance[..self.filled]).for_each(|(sum, c)| *sum += chance * c);
        }
        let left = (l.part < 1.0).then_some(self.chance);
        (self.chance, self.filled) = (sum, end);
        self.one_more(l.more * l.seen);
        if let Some(left) = left {
            self.chance.iter_mut().zip(left).for_each(|(now, left)| *now = l.part * *now + (1.0 - l.part) * left);
        }
    }

    /// Makes each entry the chance of so many lines or fewer.
    fn summed(mut self) -> Self {
        for i in 1..self.ways {
            self.chance[i] += self.chance[i - 1];
        }
        self
    }

    /// Chance that the set keeps a line beside `others` that are touched for sure, once summed.
    fn keeps(&self, others: usize) -> f64 {
        if others < self.ways { self.chance[self.ways - 1 - others] } else { 0.0 }
    }
}

/// The binomial distribution up to a limit.
struct Chances {
    chance: [f64; WAYS],
    count: usize,
}

impl Chances {
    /// Of `n` that are each hit with a chance `p` below one.
    fn new(n: usize, p: f64, limit: usize) -> Self {
        let mut chances = Self { chance: [0.0; WAYS], count: n.min(limit).min(WAYS - 1) + 1 };
        let odds = p / (1.0 - p);
        let mut chance = (1.0 - p).powi(n.min(1 << 20) as i32);
        for (hit, to) in chances.chance[..chances.count].iter_mut().enumerate() {
            *to = chance;
            chance *= odds * (n - hit) as f64 * RECIPROCAL[hit];
        }
        chances
    }

    fn iter(&self) -> impl Iterator<Item = f64> {
        self.chance[..self.count].iter().copied()
    }
}

/// One over 1, 2, …
const RECIPROCAL: [f64; WAYS] = {
    let mut all = [1.0; WAYS];
    let mut i = 0;
    while i < WAYS {
        all[i] = 1.0 / (i + 1) as f64;
        i += 1;
    }
    all
};

/// Lines of a region by what their sets hold.
struct Classes {
    all: [Class; 16],
    count: usize,
}

/// A share of the lines, each with as many of its region in its set, and of others that lie where they lie.
#[derive(Clone, Copy, Default)]
struct Class {
    share: f64,
    lines: u32,
    beside: u32,
}

impl Classes {
    /// Arcs of the sets, from where to how far they have one line more than so many.
    fn new(own: &Layers, place: Option<f64>, arcs: &[(usize, f64, f64)]) -> Self {
        let mut classes = Self { all: [Class::default(); 16], count: 0 };
        let (few, many) = (own.whole, own.whole + 1);
        if arcs.is_empty() {
            classes.add(1.0 - own.more, few, 0);
            classes.add(own.more, many, 0);
        } else {
            let own_arc = (own.whole, place.unwrap_or(0.0), own.more);
            let mut cuts = [0.0f64; 2 * MOST + 4];
            let mut n = 1;
            for &(_, start, length) in arcs.iter().chain(place.is_some().then_some(&own_arc)) {
                cuts[n] = start;
                cuts[n + 1] = turn(start + length);
                n += 2;
            }
            cuts[n] = 1.0;
            let cuts = &mut cuts[..=n];
            cuts.sort_unstable_by(f64::total_cmp);
            let within = |&(whole, start, length): &(usize, f64, f64), at: f64| {
                whole + usize::from(turn(at - start + 1.0) < length)
            };
            for pair in cuts.windows(2).filter(|pair| pair[1] - pair[0] > 1e-9) {
                let (length, at) = (pair[1] - pair[0], 0.5 * (pair[0] + pair[1]));
                let beside: usize = arcs.iter().map(|arc| within(arc, at)).sum();
                if place.is_some() {
                    classes.add(length, within(&own_arc, at), beside);
                } else {
                    classes.add(length * (1.0 - own.more), few, beside);
                    classes.add(length * own.more, many, beside);
                }
            }
        }
        let total: f64 = classes.all[..classes.count].iter().map(|class| class.share).sum();
        classes.all[..classes.count].iter_mut().for_each(|class| class.share /= total.max(1e-300));
        classes
    }

    fn add(&mut self, sets: f64, lines: usize, beside: usize) {
        if lines == 0 || sets <= 0.0 {
            return;
        }
        let share = sets * lines as f64;
        let (lines, beside) = (lines.min(1 << 20) as u32, beside.min(1 << 20) as u32);
        let mut seen = self.all[..self.count].iter_mut();
        if let Some(class) = seen.find(|class| (class.lines, class.beside) == (lines, beside)) {
            class.share += share;
        } else if self.count < self.all.len() {
            self.all[self.count] = Class { share, lines, beside };
            self.count += 1;
        }
    }

    /// Share of the lines that are lost where the rest of their region was `seen` so far and others `held`, summed.
    fn missed(&self, held: &Held, own: &Layers, seen: f64) -> f64 {
        let all = self.all[..self.count].iter();
        let kept: f64 = if seen >= 1.0 {
            all.map(|class| class.share * held.keeps((class.beside + class.lines) as usize - 1)).sum()
        } else {
            // A line's own item is seen with it.
            let items = |lines: usize| lines.saturating_sub(own.each) / own.each;
            let some = Chances::new(items(own.whole), seen, held.ways.div_ceil(own.each));
            all.map(|class| {
                let surely = class.beside as usize + own.each.min(class.lines as usize) - 1;
                let more = items(class.lines as usize) > items(own.whole);
                let keeps = |hit: usize| held.keeps(surely + hit * own.each);
                let kept =
                    |hit: usize| if more { (1.0 - seen) * keeps(hit) + seen * keeps(hit + 1) } else { keeps(hit) };
                class.share * some.iter().enumerate().map(|(hit, chance)| chance * kept(hit)).sum::<f64>()
            })
            .sum()
        };
        (1.0 - kept).clamp(0.0, 1.0)
    }
}

/// What is left of whole turns, for numbers that are not negative.
fn turn(x: f64) -> f64 {
    x - (x as u64) as f64
}

/// Fraction of the lines of `own` that a cache no longer holds once the rest of it and `others` were touched.
pub(super) fn missed(cache: &Cache, own: &Region, others: &[Region]) -> f64 {
    let sets = Sets::of(cache);
    let (mut most, mut least) = own.bounds(&sets);
    least = least.max(1);
    for region in others {
        let (more, surely) = region.bounds(&sets);
        (most, least) = (most + more, least + surely);
    }
    if most <= sets.ways {
        return 0.0;
    }
    if least > sets.ways {
        return 1.0;
    }
    let mine = Layers::of(own, &sets);
    let mut layers = [Layers::NONE; MOST];
    (most, least) = (mine.most().max(1), mine.least().max(1));
    for (layer, region) in layers.iter_mut().zip(others) {
        *layer = Layers::of(region, &sets);
        (most, least) = (most + layer.most(), least + layer.least());
    }
    if most <= sets.ways {
        return 0.0;
    }
    if least > sets.ways {
        return 1.0;
    }
    let mut held = Held::new(sets.ways);
    let mut arcs = [(0usize, 0.0f64, 0.0f64); MOST];
    let mut count = 0;
    for (layer, region) in layers.iter().zip(others) {
        if region.start.is_nan() || layer.part < 1.0 || layer.seen < 1.0 {
            held.add(layer);
        } else {
            arcs[count] = (layer.whole, turn(region.start * sets.per_way), layer.more);
            count += 1;
        }
    }
    Classes::new(&mine, place(own, &mine, &sets), &arcs[..count]).missed(&held.summed(), &mine, mine.seen)
}

/// Where a region begins among the sets, if it lies somewhere for sure.
fn place(own: &Region, layers: &Layers, sets: &Sets) -> Option<f64> {
    (!own.start.is_nan() && layers.part >= 1.0).then(|| turn(own.start * sets.per_way))
}

/// Sweeps over a region that take its lines at random, each a share of `own.seen`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sweeps {
    /// All of the lines, and the share that a sweep takes.
    pub own: Region,
    /// How many sweeps follow one another.
    pub count: f64,
    /// What every sweep touches too, where it lies.
    pub still: Region,
    /// Bytes of each stream that pass in a sweep, and in what is left of the one that a line was taken by.
    pub streams: [(f64, f64); 3],
}

impl Sweeps {
    /// Fraction of the touches after a line's first that miss. A line skipped by g − 1 sweeps and taken by the g-th has
    /// seen a share 1 − (1 − p)^g of the others; of T sweeps, T − g are followed so far.
    pub fn missed(&self, cache: &Cache) -> f64 {
        let sets = Sets::of(cache);
        let p = self.own.seen.clamp(1e-9, 1.0);
        let (mine, still) = (Layers::of(&self.own, &sets), Layers::of(&self.still, &sets));
        let stream = |&(each, rest): &(f64, f64), g: f64| {
            Layers::of(&Region::stream(if each > 0.0 { each * (g - 1.0) + rest } else { 0.0 }), &sets)
        };
        // No wait is longer.
        let longest = (self.count - 1.0).max(1.0).min(1.0 + 7.0 / p);
        let most: usize = self.streams.iter().map(|s| stream(s, longest).most()).sum();
        if most + mine.most() + still.most() <= sets.ways {
            return 0.0;
        }
        let arc = (still.whole, turn(self.still.start * sets.per_way), still.more);
        let classes = Classes::new(&mine, place(&self.own, &mine, &sets), &[arc]);
        let missed = |g: f64, skipped: f64| {
            let mut held = Held::new(sets.ways);
            self.streams.iter().for_each(|s| held.add(&stream(s, g)));
            classes.missed(&held.summed(), &mine, 1.0 - skipped)
        };
        let (mut sum, mut weight, mut g, mut left) = (0.0, 0.0, 1.0, 1.0);
        let mut all = false;
        while g <= longest {
            let step = ((g * 0.5) as usize).max(1) as f64;
            let middle = g + 0.5 * (step - 1.0);
            let after = left * (1.0 - p).powi(step as i32);
            let chance = (left - after) * (self.count - middle).max(0.0);
            // Longer waits miss more.
            let now = if all { 1.0 } else { missed(middle, (left * after).sqrt() * (1.0 - p).sqrt()) };
            all = now > 0.999;
            weight += chance;
            sum += chance * now;
            left = after;
            g += step;
        }
        if weight > 0.0 { sum / weight } else { missed(1.0, 1.0 - p) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Region, missed};
    use crate::cost::cpu::machine::Cache;

    fn cache(capacity: f64, ways: f64) -> Cache {
        Cache { capacity, line: 64.0, ways, bandwidth: 1.0, scattered: 1.0, shared: false }
    }

    #[test]
    fn what_fits_is_kept_and_the_rest_misses_set_by_set() {
        let l1 = cache(16384.0, 4.0);
        let own = |bytes| Region::fixed(bytes, 0.0);
        assert_eq!(missed(&l1, &own(16384.0), &[]), 0.0);
        // A quarter more: one set in four has five lines instead of four.
        let over = missed(&l1, &own(16384.0 + 1024.0), &[]);
        assert!((over - 5.0 * 16.0 / 272.0).abs() < 1e-9, "{over}");
        // Arrays on page borders meet in the same sets; half a page on, they do not.
        let beside = |start| missed(&l1, &own(14336.0), &[Region::fixed(2048.0, start)]);
        assert!((beside(8192.0) - 128.0 / 224.0).abs() < 1e-9);
        assert_eq!(beside(10240.0), 0.0);
        let over = missed(&l1, &own(15360.0), &[Region::fixed(1024.0, 4096.0)]);
        assert!((over - 64.0 / 240.0).abs() < 1e-9, "{over}");
        assert_eq!(missed(&l1, &own(15360.0), &[Region::fixed(1024.0, 3072.0)]), 0.0);
    }

    #[test]
    fn a_stride_of_whole_turns_leaves_one_set_and_a_random_share_leaves_a_tail() {
        let l1 = cache(32768.0, 8.0);
        // Rows a page apart fall into one set.
        assert_eq!(missed(&l1, &Region::pieces(8.0 * 64.0, 64.0, 4096.0), &[]), 0.0);
        assert_eq!(missed(&l1, &Region::pieces(9.0 * 64.0, 64.0, 4096.0), &[]), 1.0);
        // Twice the cache, half of it touched: eight of the fifteen other lines of a set on the average, of seven kept.
        let half = missed(&l1, &Region::fixed(65536.0, 0.0).random(0.5, 64.0), &[]);
        assert!((half - 0.5).abs() < 1e-9, "{half}");
    }
}
