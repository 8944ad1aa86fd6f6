//! DRAM traffic under the best loop order, and the stalls that finite bandwidth and latency cause.
//!
//! Folds run in two nested loops, over the R-wide cuts of the array's rows (`down`) and the C-wide cuts of its columns
//! (`across`). Each operand has a buffer of which one half is filled while the other is read. What an operand's tile
//! depends on decides how often it is fetched: once if the whole operand fits, once per outer step if the tile that the
//! inner loop reuses fits, in every fold otherwise. The order that moves fewer bytes is taken.

use super::fold::{Array, Shape};
use crate::profile::systolic::{Dataflow, Folding};

/// Which loop is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopOrder {
    /// Array rows outside: the next fold has the next columns.
    RowsOuter,
    /// Array columns outside: the next fold has the next rows.
    ColsOuter,
}

/// Bytes of an operation as memory sees it. Whole operands; tiles are cut from them evenly per row and column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operands {
    /// Distinct inputs (a convolution's image, not its im2col matrix).
    pub inputs: f64,
    /// Stored weight values and metadata.
    pub weights: f64,
    /// Results.
    pub outputs: f64,
    /// The same results as partial sums.
    pub partials: f64,
}

/// Usable bytes of each buffer: half of it where it is double-buffered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Buffers {
    /// For inputs.
    pub inputs: f64,
    /// For weights.
    pub weights: f64,
    /// For outputs and partial sums.
    pub outputs: f64,
}

/// The memory behind the buffers, in the array's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    /// Bytes a cycle.
    pub bandwidth: f64,
    /// Cycles from request to first byte.
    pub latency: f64,
    /// Whether transfers run under the computation of another fold.
    pub overlap: bool,
}

/// Bytes moved to and from DRAM.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moved {
    /// Inputs read.
    pub inputs: f64,
    /// Weights and metadata read.
    pub weights: f64,
    /// Results written.
    pub outputs: f64,
    /// Partial sums written and read back, because they did not fit.
    pub partials: f64,
}

impl Moved {
    /// All together.
    pub fn total(&self) -> f64 {
        self.inputs + self.weights + self.outputs + self.partials
    }
}

/// How often an operand is fetched, as a function of the fold.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fetch {
    /// Depends on the outer loop alone and is kept during the inner one.
    OuterOnce,
    /// Depends on the inner loop alone, but all of it fits: fetched in the first outer step.
    InnerKept,
    /// Depends on the inner loop alone and does not fit: fetched in every fold.
    InnerAgain,
    /// Depends on the outer loop alone, and does not even fit once: fetched in every fold.
    OuterAgain,
}

/// A schedule of folds with its transfers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Which loop is outside.
    pub order: LoopOrder,
    /// Cuts of the array's rows.
    pub down: u64,
    /// Cuts of the array's columns.
    pub across: u64,
    /// Bytes in all.
    pub moved: Moved,
    row_cut: Cut,
    col_cut: Cut,
    row_operand: (Fetch, f64),
    col_operand: (Fetch, f64),
    stationary: f64,
    sums: Sums,
    whole_outputs: f64,
    whole_partials: f64,
}

/// How results leave.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sums {
    /// In every fold, finished.
    Finished,
    /// When the inner loop (over the reduction) ends.
    EndOfInner,
    /// During the last outer step.
    LastOuter,
    /// As partial sums, in every fold; read back in all but the first.
    Spilled,
}

/// An extent cut into equal pieces but for the last, as shares of the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    last: u64,
    whole_share: f64,
    last_share: f64,
}

impl Cut {
    fn new(extent: u64, piece: u64) -> Self {
        let last = extent.div_ceil(piece).saturating_sub(1);
        let share = |length: u64| length as f64 / extent as f64;
        Self { last, whole_share: share(piece.min(extent)), last_share: share(extent - last * piece) }
    }

    /// Share of the extent that cut `i` is.
    fn share(&self, i: u64) -> f64 {
        if i == self.last { self.last_share } else { self.whole_share }
    }
}

impl Schedule {
    /// The order that moves the fewer bytes; rows outside on a tie.
    pub fn best(array: Array, shape: Shape, operands: Operands, buffers: Buffers) -> Self {
        let rows_outer = Self::with_order(array, shape, operands, buffers, LoopOrder::RowsOuter);
        let cols_outer = Self::with_order(array, shape, operands, buffers, LoopOrder::ColsOuter);
        if cols_outer.moved.total() < rows_outer.moved.total() { cols_outer } else { rows_outer }
    }

    /// The schedule of one loop order.
    pub fn with_order(array: Array, shape: Shape, operands: Operands, buffers: Buffers, order: LoopOrder) -> Self {
        let (sr, sc, _) = shape.spans(array.dataflow);
        let (row_cut, col_cut) = (Cut::new(sr, array.rows), Cut::new(sc, array.cols));
        let (down, across) = (sr.div_ceil(array.rows), sc.div_ceil(array.cols));
        let rows_outer = order == LoopOrder::RowsOuter;
        let fetch = |bytes: f64, cut: &Cut, by_rows: bool, capacity: f64| {
            if by_rows == rows_outer {
                // Kept while the inner loop runs, if its tile fits (or the loop is a single step).
                let again = if by_rows { across } else { down } > 1;
                if bytes * cut.share(0) <= capacity || !again { Fetch::OuterOnce } else { Fetch::OuterAgain }
            } else if bytes <= capacity || if rows_outer { down } else { across } == 1 {
                Fetch::InnerKept
            } else {
                Fetch::InnerAgain
            }
        };
        // (operand that depends on array rows alone, on columns alone, on both)
        let (by_row, by_col, both) = match array.dataflow {
            Dataflow::OutputStationary => ((operands.inputs, buffers.inputs), (operands.weights, buffers.weights), 0.0),
            Dataflow::WeightStationary => ((operands.inputs, buffers.inputs), (0.0, 0.0), operands.weights),
            Dataflow::InputStationary => ((operands.weights, buffers.weights), (0.0, 0.0), operands.inputs),
        };
        let row_operand = (fetch(by_row.0, &row_cut, true, by_row.1), by_row.0);
        let col_operand = (fetch(by_col.0, &col_cut, false, by_col.1), by_col.0);
        let sums = match array.dataflow {
            Dataflow::OutputStationary => Sums::Finished,
            Dataflow::WeightStationary | Dataflow::InputStationary => {
                if down == 1 {
                    Sums::Finished
                } else if rows_outer {
                    if operands.partials <= buffers.outputs { Sums::LastOuter } else { Sums::Spilled }
                } else if operands.partials * col_cut.share(0) <= buffers.outputs {
                    Sums::EndOfInner
                } else {
                    Sums::Spilled
                }
            }
        };
        let times = |(fetch, bytes): (Fetch, f64), other: u64| match fetch {
            Fetch::OuterOnce | Fetch::InnerKept => bytes,
            Fetch::InnerAgain | Fetch::OuterAgain => bytes * other as f64,
        };
        let (row_bytes, col_bytes) = (times(row_operand, across), times(col_operand, down));
        let partials = if sums == Sums::Spilled { 2.0 * (down - 1) as f64 * operands.partials } else { 0.0 };
        let mut moved = Moved { outputs: operands.outputs, partials, ..Moved::default() };
        match array.dataflow {
            Dataflow::OutputStationary => (moved.inputs, moved.weights) = (row_bytes, col_bytes),
            Dataflow::WeightStationary => (moved.inputs, moved.weights) = (row_bytes, both),
            Dataflow::InputStationary => (moved.inputs, moved.weights) = (both, row_bytes),
        }
        Self {
            order,
            down,
            across,
            moved,
            row_cut,
            col_cut,
            row_operand,
            col_operand,
            stationary: both,
            sums,
            whole_outputs: operands.outputs,
            whole_partials: operands.partials,
        }
    }

    /// Extents of the outer and the inner loop.
    pub const fn loops(&self) -> (u64, u64) {
        match self.order {
            LoopOrder::RowsOuter => (self.down, self.across),
            LoopOrder::ColsOuter => (self.across, self.down),
        }
    }

    const fn place(&self, outer: u64, inner: u64) -> (u64, u64) {
        match self.order {
            LoopOrder::RowsOuter => (outer, inner),
            LoopOrder::ColsOuter => (inner, outer),
        }
    }

    /// Bytes that fold (outer, inner) needs before it starts.
    pub fn reads(&self, outer: u64, inner: u64) -> f64 {
        let (row, col) = self.place(outer, inner);
        let due = |fetch: Fetch| match fetch {
            Fetch::InnerAgain | Fetch::OuterAgain => true,
            Fetch::OuterOnce => inner == 0,
            Fetch::InnerKept => outer == 0,
        };
        let mut bytes = self.stationary * self.row_cut.share(row) * self.col_cut.share(col);
        if due(self.row_operand.0) {
            bytes += self.row_operand.1 * self.row_cut.share(row);
        }
        if due(self.col_operand.0) {
            bytes += self.col_operand.1 * self.col_cut.share(col);
        }
        if self.sums == Sums::Spilled && row > 0 {
            bytes += self.whole_partials * self.col_cut.share(col);
        }
        bytes
    }

    /// No fold reads more.
    fn most_reads(&self) -> f64 {
        let (row, col) = (self.row_cut.whole_share, self.col_cut.whole_share);
        let spilled = if self.sums == Sums::Spilled { self.whole_partials * col } else { 0.0 };
        self.stationary * row * col + self.row_operand.1 * row + self.col_operand.1 * col + spilled
    }

    /// No fold writes more.
    fn most_writes(&self) -> f64 {
        self.whole_outputs.max(if self.sums == Sums::Spilled { self.whole_partials } else { 0.0 })
            * self.col_cut.whole_share
    }

    /// Bytes that fold (outer, inner) leaves to be written.
    pub fn writes(&self, outer: u64, inner: u64) -> f64 {
        let (row, col) = self.place(outer, inner);
        let share = self.col_cut.share(col);
        let last = row + 1 == self.down;
        match self.sums {
            Sums::Finished if self.down > 1 => self.whole_outputs * share * self.row_cut.share(row),
            Sums::Finished => self.whole_outputs * share,
            Sums::EndOfInner | Sums::LastOuter => {
                if last {
                    self.whole_outputs * share
                } else {
                    0.0
                }
            }
            Sums::Spilled => {
                if last {
                    self.whole_outputs * share
                } else {
                    self.whole_partials * share
                }
            }
        }
    }

    /// Cycles in which the array waits, given what each fold computes.
    ///
    /// While a fold computes, the next one's operands arrive and the last one's results leave over one channel; the next
    /// fold starts when both are done: a step lasts max(compute, transfer). Requests wait for the latency once a fold, and
    /// writes use that time. Before the first fold nothing overlaps, and after the last one its results leave.
    ///
    /// Folds differ only at the ends of the two loops, so at most 25 of them stand for all.
    pub fn stalls(&self, compute: f64, last: f64, channel: Channel) -> f64 {
        let (outers, inners) = self.loops();
        let first = transfer(self.reads(0, 0), 0.0, channel);
        let end = transfer(0.0, self.writes(outers - 1, inners - 1), channel);
        let mut stalls = first + end;
        // Where even the fullest fold's transfers hide behind the shortest turn, nothing else stalls.
        if channel.overlap && transfer(self.most_reads(), self.most_writes(), channel) <= compute.min(last) {
            return stalls;
        }
        for (outer, outer_count) in representatives(outers, 2, 2) {
            for (inner, inner_count) in representatives(inners, 2, 2) {
                let next = if inner + 1 < inners {
                    Some((outer, inner + 1))
                } else if outer + 1 < outers {
                    Some((outer + 1, 0))
                } else {
                    None
                };
                let before = if inner > 0 {
                    Some((outer, inner - 1))
                } else if outer > 0 {
                    Some((outer - 1, inners - 1))
                } else {
                    None
                };
                let reads = next.map_or(0.0, |(o, i)| self.reads(o, i));
                let writes = before.map_or(0.0, |(o, i)| self.writes(o, i));
                let busy = transfer(reads, writes, channel);
                let own = if next.is_none() { last } else { compute };
                let wait = if channel.overlap { (busy - own).max(0.0) } else { busy };
                stalls += wait * (outer_count * inner_count) as f64;
            }
        }
        stalls
    }
}

/// Whole cycles that the channel is busy with `reads` and, before and behind them, `writes`.
pub fn transfer(reads: f64, writes: f64, channel: Channel) -> f64 {
    let (reads_for, writes_for) = (reads / channel.bandwidth, writes / channel.bandwidth);
    let busy = if reads > 0.0 { reads_for + writes_for.max(channel.latency) } else { writes_for };
    busy.ceil()
}

/// Indices below `extent` that stand for all, with how many each stands for: `head` first ones, one of the middle, `tail`
/// last ones.
fn representatives(extent: u64, head: u64, tail: u64) -> impl Iterator<Item = (u64, u64)> {
    let few = extent <= head + tail + 1;
    let count = if few { extent } else { head + tail + 1 };
    (0..count).map(move |i| {
        if few || i < head {
            (i, 1)
        } else if i == head {
            (head, extent - head - tail)
        } else {
            (extent - (count - i), 1)
        }
    })
}

/// Cycles of one fold's turn under a folding: with overlap, the last fold alone pays fill and drain.
pub fn fold_turn(array: Array, steps: u64) -> (f64, f64) {
    let alone = (steps + 2 * array.rows + array.cols - 2) as f64;
    match array.folding {
        Folding::Serial => (alone, alone),
        Folding::Overlapped => (steps.max(array.rows) as f64, alone),
    }
}
