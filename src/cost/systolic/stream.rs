//! DRAM reads under SCALE-Sim's buffer: a set of words that is flushed when it is full.
//!
//! A word is read from DRAM when the array asks for it and the set lacks it. So reads of a stream are the distinct words of
//! each stretch between two flushes. An operand that is swept in one order again and again has a closed form; the
//! overlapping windows of a convolution are walked.

use crate::lower::ConvShape;
use crate::profile::systolic::Dataflow;

/// One group's input matrix: m rows by k, or the image that it is lowered from.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Rows of the lowered matrix.
    pub m: u64,
    /// Columns of it, before compression.
    pub k: u64,
    /// The convolution behind it; channels of one group.
    pub conv: Option<ConvShape>,
    /// Of each `group` columns the first `kept` are read.
    pub kept: u64,
    /// Group length.
    pub group: u64,
}

/// In which order the array asks for inputs.
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// Decides the order.
    pub dataflow: Dataflow,
    /// R.
    pub rows: u64,
    /// C.
    pub cols: u64,
    /// How often the whole operand is swept (⌈N/C⌉; input-stationary arrays sweep once).
    pub sweeps: u64,
}

/// Reads of an operand of `words` that is swept `sweeps` times in the same order: all of it each time, unless it fits.
pub fn repeated_sweep(words: u64, sweeps: u64, capacity: u64) -> u64 {
    if words < capacity || capacity == 0 { words } else { words.saturating_mul(sweeps) }
}

/// Reads of an operand of `total` words in `tiles` tiles of `tile` words (the last one may be smaller), each swept
/// `sweeps` times before the next.
///
/// A flush in the middle of a tile's first sweep loses what came before it, which the second sweep reads again.
pub fn repeated_tile(total: u64, tile: u64, sweeps: u64, capacity: u64, tiles: u64) -> u64 {
    if sweeps == 1 || capacity == 0 || total < capacity {
        return total;
    }
    if tile >= capacity {
        let last = total - tile * (tiles - 1);
        let whole = tile.saturating_mul(sweeps).saturating_mul(tiles - 1);
        // The set still holds the tail of the tile before, which is never asked for again.
        return whole.saturating_add(if last >= capacity {
            last.saturating_mul(sweeps)
        } else {
            one_tile(last, sweeps, capacity, tail(tile, tiles, capacity, sweeps)).0
        });
    }
    let (mut reads, mut fill, mut left) = (0u64, 0u64, total);
    while left > 0 {
        let words = tile.min(left);
        let (more, after) = one_tile(words, sweeps, capacity, fill);
        reads += more;
        fill = after;
        left -= words;
    }
    reads
}

/// Fill of the set after whole tiles that exceed it.
fn tail(tile: u64, tiles: u64, capacity: u64, sweeps: u64) -> u64 {
    (u128::from(tile) * u128::from(tiles - 1) * u128::from(sweeps) % u128::from(capacity)) as u64
}

/// One tile that fits, swept `sweeps` times from a set that holds `fill` other words: reads, and the fill after it.
fn one_tile(words: u64, sweeps: u64, capacity: u64, fill: u64) -> (u64, u64) {
    if fill + words < capacity {
        return (words, fill + words);
    }
    let lost = capacity - fill;
    if sweeps > 1 { (words + lost, words) } else { (words, words - lost) }
}

impl Image {
    /// Words that are asked for at all; `None` where it takes a walk to know.
    fn distinct(&self) -> Option<u64> {
        let Some(c) = self.conv else {
            return Some(self.m.saturating_mul(super::sparse::compressed(self.k, self.kept, self.group)));
        };
        let touched =
            |axis: usize| touched(c.output[axis], c.stride[axis], c.kernel[axis], c.dilation[axis], c.input[axis]);
        if self.group > 1 && c.channels % self.group != 0 {
            return None;
        }
        Some(c.batch * touched(0) * touched(1) * c.channels / self.group * self.kept)
    }

    /// Whether no word is asked for twice in one sweep.
    fn is_plain(&self) -> bool {
        self.conv.is_none_or(|c| {
            (0..2).all(|a| c.kernel[a] == 1 || c.output[a] == 1 || c.stride[a] > (c.kernel[a] - 1) * c.dilation[a])
        })
    }
}

/// Positions along one axis that some window covers.
fn touched(outputs: u64, stride: u64, kernel: u64, dilation: u64, extent: u64) -> u64 {
    let mut covered = 0;
    let mut next = 0;
    for o in 0..outputs {
        for r in 0..kernel {
            let at = o * stride + r * dilation;
            // Dense windows ascend; a dilated one may fall back behind what earlier windows covered.
            if at < extent && (at >= next || dilation > 1 && !reached(at, o, stride, kernel, dilation)) {
                covered += 1;
                next = next.max(at + 1);
            }
        }
    }
    covered
}

/// Whether a window before `output` covers `at`.
fn reached(at: u64, output: u64, stride: u64, kernel: u64, dilation: u64) -> bool {
    (0..output).rev().any(|o| {
        let offset = at - o * stride;
        offset.is_multiple_of(dilation) && offset / dilation < kernel
    })
}

/// The set itself: a word is in it if it was asked for since the last flush.
struct Set {
    capacity: u64,
    fill: u64,
    epoch: u32,
    seen: Vec<u32>,
    reads: u64,
}

impl Set {
    #[inline]
    fn ask(&mut self, word: usize) {
        if self.seen[word] != self.epoch {
            self.seen[word] = self.epoch;
            self.reads += 1;
            self.fill += 1;
            if self.fill == self.capacity {
                self.fill = 0;
                self.epoch += 1;
            }
        }
    }
}

/// Sweeps of a convolution that are walked before the rest is taken to repeat the last one.
const WALKED_SWEEPS: u64 = 3;
/// Words of an image beyond which it is not walked but read anew in each sweep.
const LARGEST_WALK: u64 = 1 << 28;

/// Reads of the inputs.
pub fn flush_when_full(image: &Image, reads: &Reads, capacity: u64) -> u64 {
    let sweeps = if reads.dataflow == Dataflow::InputStationary { 1 } else { reads.sweeps };
    if let Some(words) = image.distinct() {
        if words < capacity || capacity == 0 {
            return words;
        }
        if image.is_plain() {
            return repeated_sweep(words, sweeps, capacity);
        }
    }
    let Some(c) = image.conv else { return 0 };
    let words = c.batch * c.input[0] * c.input[1] * c.channels;
    if words.max(image.m.saturating_mul(image.k)) > LARGEST_WALK {
        return image.distinct().unwrap_or(words).saturating_mul(sweeps);
    }
    let capacity = if capacity == 0 { u64::MAX } else { capacity };
    let mut set = Set { capacity, fill: 0, epoch: 1, seen: vec![0; words as usize], reads: 0 };
    let walk = Walk::new(image, &c);
    let mut last = 0;
    for sweep in 0..sweeps {
        if sweep >= WALKED_SWEEPS {
            return set.reads + last * (sweeps - sweep);
        }
        let before = set.reads;
        walk.sweep(reads, &mut set);
        last = set.reads - before;
        if last == 0 {
            break;
        }
    }
    set.reads
}

/// Addresses of an image in the order in which an array asks for them: base of a row plus offset of a column, where
/// both lie inside.
struct Walk {
    /// Per row of the lowered matrix: address, y, x of its window.
    rows: Vec<(usize, u32, u32)>,
    /// Per kept column: address offset, and y, x within the window.
    columns: Vec<(usize, u32, u32)>,
    height: u32,
    width: u32,
}

impl Walk {
    fn new(image: &Image, c: &ConvShape) -> Self {
        let [height, width] = c.input;
        let mut rows = Vec::with_capacity(image.m as usize);
        for b in 0..c.batch {
            for y in 0..c.output[0] {
                for x in 0..c.output[1] {
                    let (y, x) = (y * c.stride[0], x * c.stride[1]);
                    rows.push(((((b * height + y) * width + x) * c.channels) as usize, y as u32, x as u32));
                }
            }
        }
        let mut columns = Vec::new();
        for k in (0..image.k).filter(|k| k % image.group < image.kept) {
            let (r, rest) = (k / (c.kernel[1] * c.channels), k % (c.kernel[1] * c.channels));
            let (s, channel) = (rest / c.channels, rest % c.channels);
            let (y, x) = (r * c.dilation[0], s * c.dilation[1]);
            columns.push((((y * width + x) * c.channels + channel) as usize, y as u32, x as u32));
        }
        Self { rows, columns, height: height as u32, width: width as u32 }
    }

    #[inline]
    fn ask(&self, row: usize, column: usize, set: &mut Set) {
        let (base, y, x) = self.rows[row];
        let (offset, dy, dx) = self.columns[column];
        if y + dy < self.height && x + dx < self.width {
            set.ask(base + offset);
        }
    }

    /// One sweep over the operand: fold by fold, cycle by cycle, array row by array row.
    fn sweep(&self, reads: &Reads, set: &mut Set) {
        let (m, k) = (self.rows.len(), self.columns.len());
        let (rows, cols) = (reads.rows as usize, reads.cols as usize);
        match reads.dataflow {
            Dataflow::OutputStationary => {
                for first in (0..m).step_by(rows) {
                    let height = rows.min(m - first);
                    for cycle in 0..k + height - 1 {
                        for r in (cycle + 1).saturating_sub(k)..height.min(cycle + 1) {
                            self.ask(first + r, cycle - r, set);
                        }
                    }
                }
            }
            Dataflow::WeightStationary => {
                for first in (0..k).step_by(rows) {
                    let height = rows.min(k - first);
                    for cycle in 0..m + height - 1 {
                        for r in (cycle + 1).saturating_sub(m)..height.min(cycle + 1) {
                            self.ask(cycle - r, first + r, set);
                        }
                    }
                }
            }
            Dataflow::InputStationary => {
                for left in (0..m).step_by(cols) {
                    for first in (0..k).step_by(rows) {
                        for column in (first..k.min(first + rows)).rev() {
                            for row in left..m.min(left + cols) {
                                self.ask(row, column, set);
                            }
                        }
                    }
                }
            }
        }
    }
}
