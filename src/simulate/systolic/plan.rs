//! From a masked product to folds: which reduction indices sit in which array row, and which of them an output picks.

use super::Operands;
use crate::cost::systolic::combine;
use crate::cost::systolic::fold::Array;
use crate::cost::systolic::sparse::{Skipping, covering, fullest_group};
use crate::error::{Error, Result};
use crate::profile::systolic::Dataflow;
use crate::sparsity::Mask;

/// One position along the reduction: a window of indices that are delivered together, and for each output of the block
/// the places in the window that it multiplies, one after another.
pub(super) struct Slot {
    /// Reduction indices on the wire.
    pub window: Vec<u32>,
    /// Slots of one tag share one delivery.
    pub tag: u32,
    /// Places in the window, per output of the block.
    pub picks: Vec<Vec<u32>>,
}

/// Outputs that run side by side (os, ws) or one after another (is), with their slots.
pub(super) struct Block {
    /// Output features.
    pub outputs: Vec<u32>,
    /// Along the reduction.
    pub slots: Vec<Slot>,
}

/// Everything the array has to run, in order.
pub(super) struct Plan {
    pub blocks: Vec<Block>,
    /// For an input-stationary array that skips tiles: columns of a tile.
    pub skip_streams: Option<u64>,
    /// Steps that an output takes even where nothing is stored for it.
    pub least_beat: usize,
}

pub(super) fn compile(array: Array, operands: &mut Operands, skipping: Skipping) -> Result<Plan> {
    if let Skipping::ColumnCombining { limit, conflicts } = skipping {
        resolve(array, operands, limit, conflicts);
    }
    let mask = &operands.mask;
    let all: Vec<u32> = (0..mask.rows() as u32).collect();
    let input_stationary = array.dataflow == Dataflow::InputStationary;
    let width = if input_stationary { all.len() } else { array.cols as usize };
    let k = mask.cols();
    let single = |indices: &[u32], block: &[u32]| -> Vec<Slot> {
        indices
            .iter()
            .enumerate()
            .map(|(i, &k)| Slot { window: vec![k], tag: i as u32, picks: vec![vec![0]; block.len()] })
            .collect()
    };
    let every: Vec<u32> = (0..k as u32).collect();
    let blocks_of = |outputs: &[u32], slots: &dyn Fn(&[u32]) -> Vec<Slot>| -> Vec<Block> {
        outputs
            .chunks(width.max(1))
            .map(|block| Block { outputs: block.to_vec(), slots: slots(block) })
            .filter(|b| !b.slots.is_empty())
            .collect()
    };
    let mut skip_streams = None;
    let blocks = match skipping {
        Skipping::None | Skipping::Gating => blocks_of(&all, &|block| single(&every, block)),
        Skipping::Compaction => {
            let outputs: Vec<u32> = all.iter().copied().filter(|&n| mask.row_count(u64::from(n)) > 0).collect();
            let indices: Vec<u32> = every.iter().copied().filter(|&k| used(mask, &outputs, k)).collect();
            blocks_of(&outputs, &|block| single(&indices, block))
        }
        Skipping::ZeroTiles => {
            if input_stationary {
                skip_streams = Some(array.cols);
            }
            blocks_of(&all, &|block| {
                let tiles = every.chunks(array.rows as usize);
                let full = tiles.filter(|tile| input_stationary || tile.iter().any(|&k| used(mask, block, k)));
                single(&full.flatten().copied().collect::<Vec<_>>(), block)
            })
        }
        Skipping::NmLayer { n, m } => {
            let mut indices = Vec::new();
            for group in every.chunks(m as usize) {
                let mut kept: Vec<u32> = group.iter().copied().filter(|&k| used(mask, &all, k)).collect();
                if kept.len() as u64 > n {
                    return Err(Error::argument(
                        "mask",
                        format!("is not layer-wise {n}:{m}: a group keeps {} positions", kept.len()),
                    ));
                }
                let spare = group.iter().copied().filter(|&k| !used(mask, &all, k));
                let missing = (n as usize).min(group.len()) - kept.len();
                kept.extend(spare.take(missing));
                indices.extend(kept);
            }
            blocks_of(&all, &|block| single(&indices, block))
        }
        Skipping::NmColumn { n, m } => {
            if let Some(r) = all.iter().find(|&&r| fullest_group(mask, u64::from(r), m) > n) {
                return Err(Error::argument("mask", format!("is not {n}:{m}: output {r} keeps more in a group")));
            }
            blocks_of(&all, &|block| grouped(mask, block, n, m))
        }
        Skipping::NmRow { m } => {
            let kept = |r: &u32| covering(fullest_group(mask, u64::from(*r), m), m);
            let mut outputs: Vec<u32> = all.iter().copied().filter(|r| kept(r) > 0).collect();
            outputs.sort_by_key(|r| std::cmp::Reverse(kept(r)));
            let blocks: Vec<&[u32]> = if input_stationary {
                outputs.chunk_by(|a, b| kept(a) == kept(b)).collect()
            } else {
                outputs.chunks(width).collect()
            };
            blocks
                .into_iter()
                .map(|block| Block { outputs: block.to_vec(), slots: grouped(mask, block, kept(&block[0]), m) })
                .collect()
        }
        Skipping::ColumnCombining { limit, conflicts } => blocks_of(&all, &|block| {
            combine::groups(mask, block, limit, conflicts)
                .into_iter()
                .enumerate()
                .map(|(tag, window)| {
                    let pick =
                        |n: &u32| window.iter().position(|&k| mask.get(u64::from(*n), u64::from(k))).map(|p| p as u32);
                    let picks = block.iter().map(|n| pick(n).into_iter().collect()).collect();
                    Slot { window, tag: tag as u32, picks }
                })
                .collect()
        }),
        Skipping::Queues { depth } => blocks_of(&all, &|block| {
            every
                .chunks(depth as usize)
                .enumerate()
                .map(|(tag, window)| {
                    let pick = |n: &u32| {
                        (0..window.len() as u32)
                            .filter(|&p| mask.get(u64::from(*n), u64::from(window[p as usize])))
                            .collect()
                    };
                    let picks = block.iter().map(pick).collect();
                    Slot { window: window.to_vec(), tag: tag as u32, picks }
                })
                .collect()
        }),
    };
    let least_beat = usize::from(!matches!(skipping, Skipping::Queues { .. }));
    Ok(Plan { blocks, skip_streams, least_beat })
}

fn used(mask: &Mask, outputs: &[u32], k: u32) -> bool {
    outputs.iter().any(|&n| mask.get(u64::from(n), u64::from(k)))
}

/// n slots for every group of m; an output with fewer nonzeros fills up with zeros of the same group.
fn grouped(mask: &Mask, block: &[u32], n: u64, m: u64) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (tag, g) in (0..mask.cols()).step_by(m as usize).enumerate() {
        let window: Vec<u32> = (g..(g + m).min(mask.cols())).map(|k| k as u32).collect();
        let places: Vec<Vec<u32>> = block
            .iter()
            .map(|&o| {
                let stored = |p: &u32| mask.get(u64::from(o), u64::from(window[*p as usize]));
                let all = 0..window.len() as u32;
                all.clone().filter(stored).chain(all.filter(|p| !stored(p))).collect()
            })
            .collect();
        for s in 0..(n as usize).min(window.len()) {
            let picks = places.iter().map(|p| vec![p[s]]).collect();
            slots.push(Slot { window: window.clone(), tag: tag as u32, picks });
        }
    }
    slots
}

/// Prunes the weights that lose their collision: of an output's weights in one group, the first member's stays.
///
/// The mask stays as it was, because the groups are a function of it; a lost weight is one that its group hides.
fn resolve(array: Array, operands: &mut Operands, limit: u64, conflicts: f64) {
    let (rows, cols) = (operands.mask.rows(), operands.mask.cols());
    let all: Vec<u32> = (0..rows as u32).collect();
    let width = if array.dataflow == Dataflow::InputStationary { all.len() } else { array.cols as usize };
    for block in all.chunks(width.max(1)) {
        for group in combine::groups(&operands.mask, block, limit, conflicts) {
            for &n in block {
                let holders = group.iter().filter(|&&k| operands.mask.get(u64::from(n), u64::from(k)));
                holders.skip(1).for_each(|&k| operands.weights[(u64::from(n) * cols + u64::from(k)) as usize] = 0.0);
            }
        }
    }
}
