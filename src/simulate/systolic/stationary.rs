//! Weight- and input-stationary elements: one operand held, the other moving right, partial sums moving down.
//!
//! An element has a register for the stream (moving right), one for the partial sum (moving down), one for a stationary
//! word on its way down, the shadow and the active stationary operand, and its accumulator. A stream word that belongs
//! to the next fold makes the element swap shadow and active as it passes.

use super::plan::{Block, Plan, Slot};
use super::{NONE, Operands, Run, Sink};
use crate::cost::systolic::fold::{Array, Counts};
use crate::error::{Error, Result};
use crate::profile::systolic::{Dataflow, Folding};
use std::collections::VecDeque;

/// What one fold holds and streams, as words.
struct Fold {
    /// Cycles of streaming.
    steps: u32,
    /// Per step: index of the streamed row (m or n), and whether this step completes it.
    stream: Vec<(u32, bool)>,
    /// Elements in use.
    rows: usize,
    cols: usize,
    /// Weight-stationary: per element, the weights it holds and their places in the row's window.
    held: Vec<Vec<(u32, f64)>>,
    /// Input-stationary: per row and step, the weight and its place. Weight-stationary: unused.
    moving: Vec<Vec<Option<(u32, f64)>>>,
    /// Weight-stationary: per row, the streamed windows. Input-stationary: per element, its window.
    windows: Vec<Vec<f64>>,
    /// Length of a row's window.
    lengths: Vec<usize>,
    /// Per row: words read when a stream item enters (ws) or when its windows are loaded (is, per column).
    reads: Vec<u64>,
    /// Flat index of the product, for (column, streamed row).
    base: Vec<usize>,
    stride: usize,
}

/// A fold before its words are gathered.
struct Task<'a> {
    block: &'a Block,
    slots: &'a [Slot],
    /// Input-stationary: first column's m.
    first: usize,
    width: usize,
    streams: Vec<u32>,
}

fn tasks<'a>(array: Array, operands: &Operands, plan: &'a Plan) -> Vec<Task<'a>> {
    let (rows, cols, m) = (array.rows as usize, array.cols as usize, operands.m as usize);
    let mut tasks = Vec::new();
    for block in &plan.blocks {
        for slots in block.slots.chunks(rows) {
            if slots.iter().all(|s| s.picks.iter().all(Vec::is_empty)) {
                continue;
            }
            match array.dataflow {
                Dataflow::InputStationary => {
                    let everyone = 0..block.outputs.len() as u32;
                    let streams: Vec<u32> = match plan.skip_streams {
                        None => everyone.collect(),
                        Some(tile) => {
                            let stored = |o: u32| {
                                let n = u64::from(block.outputs[o as usize]);
                                slots.iter().any(|s| s.window.iter().any(|&k| operands.mask.get(n, u64::from(k))))
                            };
                            let full = |o: &u32| {
                                let first = u64::from(*o) / tile * tile;
                                (first..(first + tile).min(block.outputs.len() as u64)).any(|o| stored(o as u32))
                            };
                            everyone.filter(full).collect()
                        }
                    };
                    if streams.is_empty() {
                        continue;
                    }
                    for first in (0..m).step_by(cols) {
                        tasks.push(Task { block, slots, first, width: cols.min(m - first), streams: streams.clone() });
                    }
                }
                _ => tasks.push(Task {
                    block,
                    slots,
                    first: 0,
                    width: block.outputs.len(),
                    streams: (0..m as u32).collect(),
                }),
            }
        }
    }
    tasks
}

fn gather(array: Array, operands: &Operands, task: &Task, least_beat: usize) -> Fold {
    let (n_total, k_total) = (operands.mask.rows() as usize, operands.mask.cols() as usize);
    let rows = task.slots.len();
    let lengths: Vec<usize> = task.slots.iter().map(|s| s.window.len()).collect();
    let reads: Vec<u64> = (0..rows)
        .map(|r| if r > 0 && task.slots[r - 1].tag == task.slots[r].tag { 0 } else { lengths[r] as u64 })
        .collect();
    let weight = |o: usize, slot: &Slot, place: u32| {
        (place, operands.weights[task.block.outputs[o] as usize * k_total + slot.window[place as usize] as usize])
    };
    let input = |m: usize, k: u32| operands.inputs[m * k_total + k as usize];
    if array.dataflow == Dataflow::WeightStationary {
        let beat = task.slots.iter().flat_map(|s| s.picks.iter().map(Vec::len)).max().unwrap_or(0) as u32;
        let mut held = Vec::with_capacity(rows * task.width);
        for slot in task.slots {
            held.extend((0..task.width).map(|c| slot.picks[c].iter().map(|&p| weight(c, slot, p)).collect::<Vec<_>>()));
        }
        let windows = task
            .slots
            .iter()
            .map(|slot| {
                task.streams
                    .iter()
                    .flat_map(|&m| slot.window.iter().map(move |&k| (m, k)))
                    .map(|(m, k)| input(m as usize, k))
                    .collect()
            })
            .collect();
        let stream = task.streams.iter().flat_map(|&m| (0..beat).map(move |l| (m, l + 1 == beat))).collect::<Vec<_>>();
        Fold {
            steps: stream.len() as u32,
            stream,
            rows,
            cols: task.width,
            held,
            moving: Vec::new(),
            windows,
            lengths,
            reads,
            base: task.block.outputs.iter().map(|&n| n as usize).collect(),
            stride: n_total,
        }
    } else {
        let mut stream = Vec::new();
        let mut moving = vec![Vec::new(); rows];
        for &o in &task.streams {
            let beat = task.slots.iter().map(|s| s.picks[o as usize].len()).max().unwrap_or(0).max(least_beat);
            for l in 0..beat {
                stream.push((task.block.outputs[o as usize], l + 1 == beat));
                for (row, slot) in moving.iter_mut().zip(task.slots) {
                    row.push(slot.picks[o as usize].get(l).map(|&p| weight(o as usize, slot, p)));
                }
            }
        }
        let windows = task
            .slots
            .iter()
            .flat_map(|slot| {
                (0..task.width).map(move |c| slot.window.iter().map(|&k| input(task.first + c, k)).collect())
            })
            .collect();
        Fold {
            steps: stream.len() as u32,
            stream,
            rows,
            cols: task.width,
            held: Vec::new(),
            moving,
            windows,
            lengths,
            reads,
            base: (0..task.width).map(|c| (task.first + c) * n_total).collect(),
            stride: 1,
        }
    }
}

const fn word(fold: u32, index: u32) -> u64 {
    (fold as u64) << 32 | index as u64
}

pub(super) fn run(array: Array, operands: &Operands, plan: &Plan) -> Result<Run> {
    let (rows, cols) = (array.rows as usize, array.cols as usize);
    let tasks = tasks(array, operands, plan);
    let weight_stationary = array.dataflow == Dataflow::WeightStationary;
    let mut product = vec![0.0; operands.m as usize * operands.mask.rows() as usize];
    let mut sink = Sink::new(&mut product);
    let mut counts = Counts { folds: tasks.len() as u64, ..Counts::default() };
    let elements = rows * cols;
    // Registers.
    let mut stream = vec![NONE; elements];
    let mut sums = vec![0.0f64; elements];
    let mut accumulator = vec![0.0f64; elements];
    let mut packets = vec![NONE; elements];
    let mut shadow = vec![u32::MAX; elements];
    let mut active = vec![u32::MAX; elements];
    // Skew registers at the two edges: word i has waited i cycles.
    let mut left: VecDeque<u64> = VecDeque::from(vec![NONE; rows]);
    let mut top: VecDeque<u64> = VecDeque::from(vec![NONE; cols]);
    let mut folds: VecDeque<Fold> = VecDeque::new();
    let mut oldest = 0u32;
    let mut hazard = false;
    // The sequencer: the fold whose stationary words are being sent, and the one whose stream is.
    let (mut loading, mut row_sent) = (0usize, 0usize);
    let (mut streaming, mut step_sent) = (0usize, 0u32);
    let (mut in_flight, mut finished, mut cycle) = (0u64, 0usize, 0u64);
    while finished < tasks.len() {
        // Step 1: decide what enters. A shadow may be refilled from the cycle on in which its fold begins to stream;
        // without a shadow, once that fold has left the array.
        let entering =
            if streaming < tasks.len() && loading > streaming { word(streaming as u32, step_sent) } else { NONE };
        let begun = streaming + usize::from(entering != NONE);
        let free = match array.folding {
            Folding::Overlapped => loading <= begun,
            Folding::Serial => loading == finished,
        };
        let mut packet = NONE;
        if free && loading < tasks.len() {
            if row_sent == 0 {
                folds.push_back(gather(array, operands, &tasks[loading], plan.least_beat));
            }
            packet = word(loading as u32, row_sent as u32);
            row_sent += 1;
            if row_sent == rows {
                loading += 1;
                row_sent = 0;
            }
        }
        if entering != NONE {
            step_sent += 1;
            if step_sent == folds[(streaming as u32 - oldest) as usize].steps {
                streaming += 1;
                step_sent = 0;
            }
        }
        left.pop_back();
        left.push_front(entering);
        top.pop_back();
        top.push_front(packet);
        in_flight += if packet == NONE { 0 } else { cols as u64 };

        // Step 2: every element, from the lower right, so that a neighbour's register still holds the cycle before.
        for r in (0..rows).rev() {
            let row = r * cols;
            let enters = left[r];
            if enters != NONE {
                let fold = &folds[((enters >> 32) as u32 - oldest) as usize];
                let step = enters as u32 as usize;
                if r < fold.rows {
                    if weight_stationary {
                        // A held window is read once, when its first step enters.
                        let fresh = step == 0 || fold.stream[step - 1].1;
                        counts.inputs += if fresh { fold.reads[r] } else { 0 };
                    } else {
                        counts.weights += u64::from(fold.moving[r][step].is_some());
                    }
                }
            }
            stream.copy_within(row..row + cols - 1, row + 1);
            stream[row] = enters;
            for c in (0..cols).rev() {
                let here = row + c;
                let token = stream[here];
                if token == NONE {
                    continue;
                }
                let (id, step) = ((token >> 32) as u32, token as u32 as usize);
                if active[here] != id {
                    hazard |= shadow[here] != id;
                    active[here] = id;
                    accumulator[here] = 0.0;
                }
                let fold = &folds[(id - oldest) as usize];
                if c >= fold.cols {
                    continue;
                }
                let (index, last) = fold.stream[step];
                if r < fold.rows {
                    let pair = if weight_stationary {
                        let held = &fold.held[r * fold.cols + c];
                        let beat = fold.steps as usize / (fold.windows[r].len() / fold.lengths[r]);
                        held.get(step % beat)
                            .map(|&(place, w)| (w, fold.windows[r][step / beat * fold.lengths[r] + place as usize]))
                    } else {
                        fold.moving[r][step].map(|(place, w)| (w, fold.windows[r * fold.cols + c][place as usize]))
                    };
                    if let Some((w, x)) = pair {
                        counts.active += 1;
                        accumulator[here] += w * x;
                    }
                }
                if last {
                    let above = if r > 0 { sums[here - cols] } else { 0.0 };
                    let sum = above + accumulator[here];
                    accumulator[here] = 0.0;
                    if r + 1 < rows {
                        sums[here] = sum;
                    } else {
                        sink.write(fold.base[c] + index as usize * fold.stride, sum);
                    }
                }
            }
        }
        // Step 3: stationary words move down, and into the shadow of the element they are for.
        if in_flight > 0 {
            for r in (0..rows).rev() {
                for (c, &enters) in top.iter().enumerate() {
                    let here = r * cols + c;
                    let mut word = if r > 0 { packets[here - cols] } else { enters };
                    if word != NONE {
                        let (id, target) = ((word >> 32) as u32, word as u32 as usize);
                        let fold = &folds[(id - oldest) as usize];
                        if r == 0 && target < fold.rows && c < fold.cols {
                            if weight_stationary {
                                counts.weights += fold.held[target * fold.cols + c].len() as u64;
                            } else {
                                counts.inputs += fold.reads[target];
                            }
                        }
                        if target == r {
                            shadow[here] = id;
                            word = NONE;
                            in_flight -= 1;
                        }
                    }
                    packets[here] = word;
                }
            }
        }
        // The last word to leave is the fold's last step at the lower right: columns that idle are crossed all the same.
        let leaving = stream[elements - 1];
        if leaving != NONE && leaving as u32 + 1 == folds[0].steps {
            folds.pop_front();
            oldest += 1;
            finished += 1;
        }
        cycle += 1;
    }
    if hazard {
        return Err(Error::argument(
            "schedule",
            "a fold streamed before its stationary operand had arrived; this is a bug",
        ));
    }
    counts.outputs = sink.outputs;
    counts.partials = sink.partials;
    counts.cycles = cycle;
    let stepped = cycle * elements as u64;
    Ok(Run { product, counts, stepped })
}
