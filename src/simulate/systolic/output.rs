//! Output-stationary elements: inputs moving right, weights moving down, sums accumulating in place, then draining down.
//!
//! An element has a register for the input, one for the weight, its accumulator, and a drain register. When an element
//! has done its last step, its sum goes to the drain register; when the lowest element of a column has, the column shifts
//! its drain registers down for R cycles.

use super::plan::{Plan, Slot};
use super::{NONE, Operands, Run, Sink};
use crate::cost::systolic::fold::{Array, Counts};
use crate::error::{Error, Result};
use crate::profile::systolic::Folding;
use std::collections::VecDeque;

/// One fold: a block of rows of X against a block of outputs.
struct Fold {
    steps: usize,
    first: usize,
    rows: usize,
    outputs: Vec<usize>,
    /// Per step: words of its window, and whether they are delivered anew.
    window: Vec<(usize, bool)>,
    /// Per step and row: the window's first word in `inputs`.
    offset: Vec<usize>,
    /// Per row, the words of all windows.
    inputs: Vec<Vec<f64>>,
    /// Per column and step: the weight and its place in the window.
    weights: Vec<Vec<Option<(u32, f64)>>>,
}

struct Task<'a> {
    outputs: &'a [u32],
    slots: &'a [Slot],
    steps: usize,
    first: usize,
    rows: usize,
}

fn gather(operands: &Operands, task: &Task) -> Fold {
    let k_total = operands.mask.cols() as usize;
    let mut fold = Fold {
        steps: task.steps,
        first: task.first,
        rows: task.rows,
        outputs: task.outputs.iter().map(|&n| n as usize).collect(),
        window: Vec::with_capacity(task.steps),
        offset: Vec::with_capacity(task.steps),
        inputs: vec![Vec::new(); task.rows],
        weights: vec![Vec::with_capacity(task.steps); task.outputs.len()],
    };
    let mut tag = u32::MAX;
    let mut offset = 0;
    for slot in task.slots {
        let beat = slot.picks.iter().map(Vec::len).max().unwrap_or(0);
        for l in 0..beat {
            let fresh = slot.tag != tag;
            if fresh {
                tag = slot.tag;
                offset = fold.inputs[0].len();
                for (r, row) in fold.inputs.iter_mut().enumerate() {
                    row.extend(slot.window.iter().map(|&k| operands.inputs[(task.first + r) * k_total + k as usize]));
                }
            }
            fold.window.push((slot.window.len(), fresh));
            fold.offset.push(offset);
            for (c, column) in fold.weights.iter_mut().enumerate() {
                let n = fold.outputs[c];
                column.push(
                    slot.picks[c]
                        .get(l)
                        .map(|&p| (p, operands.weights[n * k_total + slot.window[p as usize] as usize])),
                );
            }
        }
    }
    fold
}

const fn word(fold: usize, step: usize) -> u64 {
    (fold as u64) << 32 | step as u64
}

pub(super) fn run(array: Array, operands: &Operands, plan: &Plan) -> Result<Run> {
    let (rows, cols) = (array.rows as usize, array.cols as usize);
    let (m, n_total) = (operands.m as usize, operands.mask.rows() as usize);
    let mut tasks = Vec::new();
    for block in &plan.blocks {
        let steps = block.slots.iter().map(|s| s.picks.iter().map(Vec::len).max().unwrap_or(0)).sum();
        if steps > 0 {
            tasks.extend((0..m).step_by(rows).map(|first| Task {
                outputs: &block.outputs,
                slots: &block.slots,
                steps,
                first,
                rows: rows.min(m - first),
            }));
        }
    }
    let mut product = vec![0.0; m * n_total];
    let mut sink = Sink::new(&mut product);
    let mut counts = Counts { folds: tasks.len() as u64, ..Counts::default() };
    let elements = rows * cols;
    let mut inputs = vec![NONE; elements];
    let mut weights = vec![NONE; elements];
    let mut accumulator = vec![0.0f64; elements];
    // A drain register holds the flat index of its output beside the sum; usize::MAX where the element idles.
    let mut drain: Vec<Option<(usize, f64)>> = vec![None; elements];
    let mut shifts = vec![0usize; cols];
    let mut left: VecDeque<u64> = VecDeque::from(vec![NONE; rows]);
    let mut top: VecDeque<u64> = VecDeque::from(vec![NONE; cols]);
    let mut folds: VecDeque<Fold> = VecDeque::new();
    let mut oldest = 0usize;
    let mut hazard = false;
    let (mut streaming, mut step_sent) = (0usize, 0usize);
    // Cycles until a fold that starts now would find the drain registers empty when it ends.
    let mut drain_busy = 0usize;
    let (mut finished, mut drained, mut cycle) = (0usize, 0usize, 0u64);
    while drained < tasks.len() {
        // Step 1: decide what enters. A fold may begin if its first sums find the drain registers empty.
        let may_begin = |steps: usize| match array.folding {
            Folding::Overlapped => drain_busy <= steps,
            Folding::Serial => drained == streaming,
        };
        let mut entering = NONE;
        if streaming < tasks.len() && (step_sent > 0 || may_begin(tasks[streaming].steps)) {
            if step_sent == 0 {
                folds.push_back(gather(operands, &tasks[streaming]));
            }
            entering = word(streaming, step_sent);
            step_sent += 1;
            if step_sent == tasks[streaming].steps {
                streaming += 1;
                step_sent = 0;
                drain_busy = rows + 1;
            }
        }
        drain_busy = drain_busy.saturating_sub(1);
        left.pop_back();
        left.push_front(entering);
        top.pop_back();
        top.push_front(entering);

        // Step 2: drain registers that shift.
        for c in 0..cols {
            if shifts[c] == 0 {
                continue;
            }
            if let Some((index, sum)) = drain[elements - cols + c]
                && index != usize::MAX
            {
                sink.write(index, sum);
            }
            // Rows above `empty` have passed all they held and may already hold sums of the next fold.
            let empty = rows - shifts[c];
            for r in (empty + 1..rows).rev() {
                drain[r * cols + c] = drain[(r - 1) * cols + c];
            }
            drain[empty * cols + c] = None;
            shifts[c] -= 1;
            // The last column's last shift ends a fold.
            if shifts[c] == 0 && c + 1 == cols {
                drained += 1;
            }
        }

        // Step 3: every element, from the lower right.
        for r in (0..rows).rev() {
            let row = r * cols;
            let enters = left[r];
            if enters != NONE {
                let fold = &folds[(enters >> 32) as usize - oldest];
                let (words, fresh) = fold.window[enters as u32 as usize];
                counts.inputs += if fresh && r < fold.rows { words as u64 } else { 0 };
            }
            inputs.copy_within(row..row + cols - 1, row + 1);
            inputs[row] = enters;
            if r > 0 {
                weights.copy_within(row - cols..row, row);
            } else {
                for (c, (register, &enters)) in weights.iter_mut().zip(&top).enumerate() {
                    *register = enters;
                    if enters != NONE {
                        let fold = &folds[(enters >> 32) as usize - oldest];
                        let stored = fold.weights.get(c).is_some_and(|w| w[enters as u32 as usize].is_some());
                        counts.weights += u64::from(stored);
                    }
                }
            }
            for (c, busy) in shifts.iter_mut().enumerate() {
                let here = row + c;
                let token = inputs[here];
                hazard |= token != weights[here];
                if token == NONE {
                    continue;
                }
                let (id, step) = ((token >> 32) as usize, token as u32 as usize);
                let fold = &folds[id - oldest];
                let mapped = r < fold.rows && c < fold.outputs.len();
                if mapped && let Some((place, w)) = fold.weights[c][step] {
                    counts.active += 1;
                    accumulator[here] += w * fold.inputs[r][fold.offset[step] + place as usize];
                }
                if step + 1 == fold.steps {
                    let index = if mapped { (fold.first + r) * n_total + fold.outputs[c] } else { usize::MAX };
                    hazard |= drain[here].is_some();
                    drain[here] = Some((index, accumulator[here]));
                    accumulator[here] = 0.0;
                    if r + 1 == rows {
                        hazard |= *busy != 0;
                        *busy = rows;
                    }
                }
            }
        }
        let leaving = inputs[elements - 1];
        if leaving != NONE && leaving as u32 as usize + 1 == folds[0].steps {
            folds.pop_front();
            oldest += 1;
            finished += 1;
        }
        cycle += 1;
    }
    debug_assert!(finished == tasks.len());
    if hazard {
        return Err(Error::argument(
            "schedule",
            "operands met out of step or a drain register was overwritten; this is a bug",
        ));
    }
    counts.outputs = sink.outputs;
    counts.partials = sink.partials;
    counts.cycles = cycle;
    let stepped = cycle * elements as u64;
    Ok(Run { product, counts, stepped })
}
