//! Sparse hardware on a systolic array: what each option skips, and what it costs, in closed form.

use super::combine;
use super::fold::{Array, Counts, FoldSum, Shape, dense, product};
use crate::error::{Error, Result};
use crate::profile::systolic::Dataflow;
use crate::sparsity::Mask;

/// What the array does about zero weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Skipping {
    /// Nothing: zeros are multiplied.
    None,
    /// Zeros are multiplied with the operand clocks gated: energy only (Chen et al., Eyeriss, JSSC'17, §V-B).
    Gating,
    /// Reduction indices and outputs without any nonzero are left out by the software (SSL, Wen et al., NeurIPS'16).
    Compaction,
    /// Stationary (os: streamed) tiles of R reduction indices by C outputs without any nonzero are skipped.
    ZeroTiles,
    /// Every output keeps the same n of every m reduction indices, so that k shrinks (SCALE-Sim v3, §IV).
    NmLayer {
        /// Kept.
        n: u64,
        /// Group.
        m: u64,
    },
    /// Every output keeps its own n of every m; elements pick their activation from a block of m (S2TA, Liu et al.,
    /// HPCA'22; VEGETA, Jeong et al., HPCA'23).
    NmColumn {
        /// Kept.
        n: u64,
        /// Group.
        m: u64,
    },
    /// Every output has its own n of 1, 2, 4, … m (VEGETA's row-wise N:M): outputs are sorted by it.
    NmRow {
        /// Group.
        m: u64,
    },
    /// Up to `limit` reduction indices share an array row (Kung et al., ASPLOS'19).
    ColumnCombining {
        /// α: width of the multiplexer.
        limit: u64,
        /// γ: collisions per output and group that pruning resolves.
        conflicts: f64,
    },
    /// Unstructured skipping: elements hold a window of `depth` reduction indices and step through its nonzeros;
    /// elements that share a window wait for the fullest one (the imbalance of SCNN, Parashar et al., ISCA'17, §VI).
    Queues {
        /// Reduction indices in a window.
        depth: u64,
    },
}

/// Smallest of 1, 2, 4, … m that is at least `most`; 0 stays 0.
pub fn covering(most: u64, m: u64) -> u64 {
    if most == 0 { 0 } else { most.next_power_of_two().min(m) }
}

/// Largest number of nonzeros in any aligned group of `m` of output `row`.
pub fn fullest_group(mask: &Mask, row: u64, m: u64) -> u64 {
    let mut most = 0;
    let (mut group, mut count) = (u64::MAX, 0);
    for k in mask.columns(row) {
        if k / m != group {
            group = k / m;
            count = 0;
        }
        count += 1;
        most = most.max(count);
    }
    most
}

/// Compressed length of a reduction of `k` that keeps `n` of every `m`: ⌊k/m⌋·n + min(n, k mod m).
pub const fn compressed(k: u64, n: u64, m: u64) -> u64 {
    let rest = k % m;
    k / m * n + if n < rest { n } else { rest }
}

/// Inputs that `count` of the compressed slots from `first` on read, a block once per fold.
fn block_reads(k: u64, n: u64, m: u64, first: u64, count: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let blocks = k.div_ceil(m);
    // The last, shorter block may hold fewer slots, but never starts before its turn.
    let (from, to) = ((first / n).min(blocks - 1), ((first + count - 1) / n).min(blocks - 1));
    (to + 1) * m - from * m - if to == blocks - 1 { blocks * m - k } else { 0 }
}

/// Counts of a real mask under sparse hardware; the mask is \[n, k\].
///
/// # Errors
/// [`Error::Overflow`]; [`Error::Argument`] where the mask is not the N:M that the hardware takes.
pub fn counted(array: Array, m: u64, mask: &Mask, skipping: Skipping) -> Result<Counts> {
    let shape = Shape { m, n: mask.rows(), k: mask.cols() };
    product(&[shape.macs()?, array.rows, array.cols, 4], "the work of a masked matrix product")?;
    match skipping {
        Skipping::None | Skipping::Gating => dense(array, shape),
        Skipping::Compaction => {
            let n = (0..shape.n).filter(|&r| mask.row_count(r) > 0).count() as u64;
            let mut used = vec![false; shape.k as usize];
            (0..shape.n).for_each(|r| mask.columns(r).for_each(|k| used[k as usize] = true));
            let k = used.iter().filter(|u| **u).count() as u64;
            if n == 0 { Ok(Counts::default()) } else { dense(array, Shape { m, n, k }) }
        }
        Skipping::NmLayer { n, m: group } => {
            for b in 0..shape.k.div_ceil(group) {
                let union = (b * group..((b + 1) * group).min(shape.k))
                    .filter(|&k| (0..shape.n).any(|r| mask.get(r, k)))
                    .count() as u64;
                if union > n {
                    return Err(Error::argument(
                        "mask",
                        format!("is not layer-wise {n}:{group}: group {b} keeps {union} positions"),
                    ));
                }
            }
            dense(array, Shape { k: compressed(shape.k, n, group), ..shape })
        }
        Skipping::NmColumn { n, m: group } => {
            for r in 0..shape.n {
                if fullest_group(mask, r, group) > n {
                    return Err(Error::argument(
                        "mask",
                        format!("is not {n}:{group}: output {r} keeps more in a group"),
                    ));
                }
            }
            Ok(nm_column(array, shape, n, group))
        }
        Skipping::NmRow { m: group } => Ok(nm_row(
            array,
            shape,
            group,
            (0..shape.n).map(|r| covering(fullest_group(mask, r, group), group)).collect(),
        )),
        Skipping::ZeroTiles => Ok(zero_tiles(array, shape, mask)),
        Skipping::ColumnCombining { limit, conflicts } => Ok(combined(array, shape, mask, limit, conflicts)),
        Skipping::Queues { depth } => Ok(queues(array, shape, mask, depth)),
    }
}

/// One N:M for all outputs, chosen per output: k shrinks, but every block of m activations is still read.
pub fn nm_column(array: Array, shape: Shape, n: u64, group: u64) -> Counts {
    let kept = compressed(shape.k, n, group);
    let mut counts = Counts::default();
    let mut sum = FoldSum::default();
    let (r, c) = (array.rows, array.cols);
    let mn = shape.m * shape.n;
    counts.active = mn * kept;
    match array.dataflow {
        Dataflow::OutputStationary => {
            sum.push(r, shape.m.div_ceil(r) * shape.n.div_ceil(c), kept);
            counts.inputs = shape.m * shape.k * shape.n.div_ceil(c);
            counts.weights = kept * shape.n * shape.m.div_ceil(r);
            counts.outputs = mn;
        }
        Dataflow::WeightStationary | Dataflow::InputStationary => {
            let ws = array.dataflow == Dataflow::WeightStationary;
            let across = if ws { shape.n.div_ceil(c) } else { shape.m.div_ceil(c) };
            let down = kept.div_ceil(r);
            let reads: u64 = (0..down).map(|f| block_reads(shape.k, n, group, f * r, r.min(kept - f * r))).sum();
            sum.push(r, down * across, if ws { shape.m } else { shape.n });
            counts.inputs = shape.m * reads * if ws { across } else { 1 };
            counts.weights = kept * shape.n * if ws { 1 } else { across };
            counts.outputs = mn * down;
            counts.partials = mn * (down - 1);
        }
    }
    counts.folds = sum.folds;
    counts.cycles = sum.cycles(array);
    counts
}

/// Row-wise N:M: `kept` is each output's n.
fn nm_row(array: Array, shape: Shape, group: u64, mut kept: Vec<u64>) -> Counts {
    kept.sort_by_key(|n| std::cmp::Reverse(*n));
    kept.retain(|n| *n > 0);
    let (r, c, m) = (array.rows, array.cols, shape.m);
    let mut counts = Counts::default();
    let mut sum = FoldSum::default();
    let blocks: Vec<(u64, u64)> = match array.dataflow {
        // Columns of one block run in step, so the block takes its largest n.
        Dataflow::OutputStationary | Dataflow::WeightStationary => {
            kept.chunks(c as usize).map(|block| (block[0], block.len() as u64)).collect()
        }
        // Outputs stream one after another, so every n has its own pass.
        Dataflow::InputStationary => kept.chunk_by(|a, b| a == b).map(|block| (block[0], block.len() as u64)).collect(),
    };
    let mut outputs_seen = 0;
    for (n, width) in blocks {
        let length = compressed(shape.k, n, group);
        let down = length.div_ceil(r);
        outputs_seen += width;
        counts.active += m * length * width;
        match array.dataflow {
            Dataflow::OutputStationary => {
                sum.push(r, m.div_ceil(r), length);
                counts.inputs += m * shape.k;
                counts.weights += m.div_ceil(r) * length * width;
                counts.outputs += m * width;
            }
            Dataflow::WeightStationary | Dataflow::InputStationary => {
                let ws = array.dataflow == Dataflow::WeightStationary;
                let across = if ws { 1 } else { m.div_ceil(c) };
                let reads: u64 = (0..down).map(|f| block_reads(shape.k, n, group, f * r, r.min(length - f * r))).sum();
                sum.push(r, down * across, if ws { m } else { width });
                counts.inputs += m * reads;
                counts.weights += length * width * across;
                counts.outputs += m * width * down;
            }
        }
    }
    counts.partials = counts.outputs - m * outputs_seen;
    counts.folds = sum.folds;
    counts.cycles = sum.cycles(array);
    counts
}

fn zero_tiles(array: Array, shape: Shape, mask: &Mask) -> Counts {
    let (r, c, m) = (array.rows, array.cols, shape.m);
    let (down, across) = (shape.k.div_ceil(r), shape.n.div_ceil(c));
    let (height, width) = (|i: u64| r.min(shape.k - i * r), |j: u64| c.min(shape.n - j * c));
    let mut full = vec![false; (down * across) as usize];
    for n in 0..shape.n {
        mask.columns(n).for_each(|k| full[(k / r * across + n / c) as usize] = true);
    }
    let full = |i: u64, j: u64| full[(i * across + j) as usize];
    let mut counts = Counts::default();
    let mut sum = FoldSum::default();
    match array.dataflow {
        Dataflow::OutputStationary => {
            for j in 0..across {
                let steps: u64 = (0..down).filter(|&i| full(i, j)).map(height).sum();
                if steps == 0 {
                    continue;
                }
                sum.push(r, m.div_ceil(r), steps);
                counts.active += m * width(j) * steps;
                counts.inputs += m * steps;
                counts.weights += m.div_ceil(r) * steps * width(j);
                counts.outputs += m * width(j);
            }
        }
        Dataflow::WeightStationary => {
            for j in 0..across {
                for i in (0..down).filter(|&i| full(i, j)) {
                    sum.push(r, 1, m);
                    counts.active += m * width(j) * height(i);
                    counts.inputs += m * height(i);
                    counts.weights += height(i) * width(j);
                    counts.outputs += m * width(j);
                }
                if (0..down).any(|i| full(i, j)) {
                    counts.partials += m * width(j);
                }
            }
            counts.partials = counts.outputs - counts.partials;
        }
        Dataflow::InputStationary => {
            for i in 0..down {
                let steps: u64 = (0..across).filter(|&j| full(i, j)).map(width).sum();
                if steps == 0 {
                    continue;
                }
                // The last fold of the sequence must come last, so the folds of one k tile go in as a block.
                sum.push(r, m.div_ceil(c), steps);
                counts.active += m * height(i) * steps;
                counts.inputs += m * height(i);
                counts.weights += m.div_ceil(c) * height(i) * steps;
                counts.outputs += m * steps;
            }
            let seen: u64 = (0..across).filter(|&j| (0..down).any(|i| full(i, j))).map(width).sum();
            counts.partials = counts.outputs - m * seen;
        }
    }
    counts.folds = sum.folds;
    counts.cycles = sum.cycles(array);
    counts
}

fn combined(array: Array, shape: Shape, mask: &Mask, limit: u64, conflicts: f64) -> Counts {
    let (r, c, m) = (array.rows, array.cols, shape.m);
    let outputs: Vec<u32> = (0..shape.n as u32).collect();
    let block = match array.dataflow {
        Dataflow::OutputStationary | Dataflow::WeightStationary => c as usize,
        Dataflow::InputStationary => outputs.len(),
    };
    let mut counts = Counts::default();
    let mut sum = FoldSum::default();
    let mut seen = 0;
    for block in outputs.chunks(block) {
        let groups = combine::groups(mask, block, limit, conflicts);
        if groups.is_empty() {
            continue;
        }
        let (length, width) = (groups.len() as u64, block.len() as u64);
        let members: u64 = groups.iter().map(|g| g.len() as u64).sum();
        // An element is busy where one of its group's weights is nonzero.
        let stored: u64 = groups
            .iter()
            .map(|g| block.iter().filter(|&&n| g.iter().any(|&k| mask.get(u64::from(n), u64::from(k)))).count() as u64)
            .sum();
        let down = length.div_ceil(r);
        counts.active += m * stored;
        counts.inputs += m * members;
        seen += m * width;
        match array.dataflow {
            Dataflow::OutputStationary => {
                sum.push(r, m.div_ceil(r), length);
                counts.weights += m.div_ceil(r) * stored;
                counts.outputs += m * width;
            }
            Dataflow::WeightStationary => {
                sum.push(r, down, m);
                counts.weights += stored;
                counts.outputs += m * width * down;
            }
            Dataflow::InputStationary => {
                sum.push(r, down * m.div_ceil(c), width);
                counts.weights += m.div_ceil(c) * stored;
                counts.outputs += m * width * down;
            }
        }
    }
    counts.partials = counts.outputs - seen;
    counts.folds = sum.folds;
    counts.cycles = sum.cycles(array);
    counts
}

fn queues(array: Array, shape: Shape, mask: &Mask, depth: u64) -> Counts {
    let (r, c, m) = (array.rows, array.cols, shape.m);
    let windows = shape.k.div_ceil(depth);
    let span = |w: u64| depth.min(shape.k - w * depth);
    let mut load = vec![0u64; (windows * shape.n) as usize];
    for n in 0..shape.n {
        mask.columns(n).for_each(|k| load[(n * windows + k / depth) as usize] += 1);
    }
    let load = |n: u64, w: u64| load[(n * windows + w) as usize];
    let nonzeros = mask.count();
    let (down, across) = (windows.div_ceil(r), shape.n.div_ceil(c));
    let mut counts = Counts { active: m * nonzeros, ..Counts::default() };
    let mut sum = FoldSum::default();
    let mut seen = 0;
    let columns = |j: u64| j * c..((j + 1) * c).min(shape.n);
    let rows = |i: u64| i * r..((i + 1) * r).min(windows);
    match array.dataflow {
        Dataflow::OutputStationary => {
            counts.weights = m.div_ceil(r) * nonzeros;
            for j in 0..across {
                let mut steps = 0;
                for w in 0..windows {
                    let most = columns(j).map(|n| load(n, w)).max().unwrap_or(0);
                    steps += most;
                    counts.inputs += if most > 0 { m * span(w) } else { 0 };
                }
                sum.push(r, m.div_ceil(r), steps);
                if steps > 0 {
                    counts.outputs += m * (columns(j).end - columns(j).start);
                }
            }
            seen = counts.outputs;
        }
        Dataflow::WeightStationary => {
            counts.weights = nonzeros;
            for j in 0..across {
                let mut any = false;
                for i in 0..down {
                    let most = columns(j)
                        .flat_map(|n| rows(i).map(move |w| (n, w)))
                        .map(|(n, w)| load(n, w))
                        .max()
                        .unwrap_or(0);
                    if most == 0 {
                        continue;
                    }
                    any = true;
                    sum.push(r, 1, m * most);
                    counts.inputs += m * rows(i).map(span).sum::<u64>();
                    counts.outputs += m * (columns(j).end - columns(j).start);
                }
                seen += if any { m * (columns(j).end - columns(j).start) } else { 0 };
            }
        }
        Dataflow::InputStationary => {
            counts.weights = m.div_ceil(c) * nonzeros;
            let mut streamed = vec![false; shape.n as usize];
            for i in 0..down {
                let mut steps = 0;
                for n in 0..shape.n {
                    let most = rows(i).map(|w| load(n, w)).max().unwrap_or(0);
                    steps += most;
                    if most > 0 {
                        counts.outputs += m;
                        streamed[n as usize] = true;
                    }
                }
                if steps > 0 {
                    sum.push(r, m.div_ceil(c), steps);
                    counts.inputs += m * rows(i).map(span).sum::<u64>();
                }
            }
            seen = m * streamed.iter().filter(|s| **s).count() as u64;
        }
    }
    counts.partials = counts.outputs - seen;
    counts.folds = sum.folds;
    counts.cycles = sum.cycles(array);
    counts
}
