//! What happens to one stored tensor, and its new elements as a stream.

use super::behind::{RUN, Stream};
use super::choose::{Choice, Choose, Origin, Tile};
use super::largest;
use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;
use crate::workload::onnx::value::Elem;
use crate::workload::weights::{Stored, decode, encode, width};
use bytes::Bytes;
use rayon::prelude::*;

/// How the weight matrices of a layer lie in its stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Matrices, one after another.
    pub groups: usize,
    /// Outputs of each.
    pub n: usize,
    /// Reduction of each.
    pub k: usize,
    /// Stored `[k, n]` instead of `[n, k]`.
    pub transposed: bool,
}

/// A mask that a layer's pattern puts on a tensor.
#[derive(Clone, Debug)]
pub struct Masked {
    /// The layer.
    pub layer: String,
    /// Its pattern, a mask.
    pub pattern: SparsityPattern,
    /// The matrices, once slices are gone.
    pub view: View,
    /// What an unsigned or shifted integer stores for zero: one byte, or one for each output.
    pub zero: Vec<u8>,
    /// Which rows and columns these were, where the tensor is cut or reordered and one matrix.
    pub from: Option<Origin>,
}

/// Everything that happens to a stored tensor: indices go or change places, then a mask falls on what is left.
#[derive(Clone, Debug)]
pub struct Edit {
    /// As it is stored.
    pub source: Stored,
    /// For each axis, which indices stay; `None` for all.
    pub keep: Vec<Option<Vec<bool>>>,
    /// For each axis, the index that comes to each place; `None` where they stay in order.
    pub order: Vec<Option<Vec<usize>>>,
    /// Indices that do not stay become zeros in place.
    pub zero_in_place: bool,
    /// The mask.
    pub mask: Option<Masked>,
}

/// What was written for a tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Elements written.
    pub elements: u64,
    /// Of them zeros, negative zeros included.
    pub zeros: u64,
}

/// Elements of a tile at most: two of them with their scores stay in a second-level cache.
const TILE: usize = 1 << 16;

impl Edit {
    /// A tensor that nothing happens to yet.
    pub fn new(source: Stored) -> Self {
        let keep = vec![None; source.shape.len()];
        let order = vec![None; source.shape.len()];
        Self { source, keep, order, zero_in_place: false, mask: None }
    }

    /// Its shape afterwards.
    pub fn shape(&self) -> Vec<u64> {
        let left = |(&d, keep): (&u64, &Option<Vec<bool>>)| match keep {
            Some(k) if !self.zero_in_place => k.iter().filter(|&&b| b).count() as u64,
            _ => d,
        };
        self.source.shape.iter().zip(&self.keep).map(left).collect()
    }

    /// Bytes that it will write.
    pub fn bytes(&self) -> u64 {
        let n = self.shape().iter().fold(1u64, |a, &d| a.saturating_mul(d));
        n.saturating_mul(self.source.elem.bits()).div_ceil(8)
    }

    /// Whether indices go.
    pub fn is_cut(&self) -> bool {
        self.keep.iter().any(Option::is_some)
    }

    /// Writes the new elements. Memory: one window for patterns whose choice is local; the matrix as fp32 and its mask
    /// for those that rank a whole layer; the remaining elements where indices go.
    ///
    /// # Errors
    /// What the writer says, and what choosing refuses.
    pub fn write(&self, choose: &dyn Choose, out: &Stream) -> std::io::Result<Tally> {
        let fault = |reason: String| std::io::Error::other(format!("tensor `{}` {reason}", self.source.name));
        let raw = self.source.raw().map_err(fault)?;
        let bits = self.source.elem.bits();
        let data = if self.is_cut() || self.order.iter().any(Option::is_some) {
            let bytes = usize::try_from(bits / 8).ok().filter(|b| *b > 0 && bits % 8 == 0);
            let bytes = bytes.ok_or_else(|| fault("packs several elements into a byte and cannot be cut".into()))?;
            self.cut(&raw, bytes)
        } else {
            raw
        };
        let Some(mask) = &self.mask else {
            let elements = data.len() as u64 * 8 / bits.max(1);
            let zeros = zeros(&data, self.source.elem);
            out.shared(data)?;
            return Ok(Tally { elements, zeros });
        };
        mask.write(self, &data, choose, out).map_err(std::io::Error::other)?
    }

    /// The remaining elements, or all with zeros where others were, each index at its place.
    fn cut(&self, raw: &Bytes, width: usize) -> Bytes {
        let shape: Vec<usize> = self.source.shape.iter().map(|&d| d as usize).collect();
        // Axes behind the last that changes move as one run.
        let changed = |(keep, order): (&Option<Vec<bool>>, &Option<Vec<usize>>)| keep.is_some() || order.is_some();
        let last = self.keep.iter().zip(&self.order).rposition(changed).unwrap_or(0);
        let run = shape[last + 1..].iter().product::<usize>() * width;
        let stays = |axis: usize, i: usize| self.keep[axis].as_ref().is_none_or(|k| k[i]);
        // For each place of an axis, the index that comes there, and whether it stays.
        let places: Vec<Vec<(usize, bool)>> = (0..=last)
            .map(|axis| {
                let order = self.order[axis].clone().unwrap_or_else(|| (0..shape[axis]).collect());
                let all = order.into_iter().map(|i| (i, stays(axis, i)));
                all.filter(|(_, stays)| *stays || self.zero_in_place).collect()
            })
            .collect();
        let mut made = Vec::with_capacity(self.bytes() as usize);
        let mut at = vec![0usize; last + 1];
        let rows: usize = places.iter().map(Vec::len).product();
        for _ in 0..rows {
            let (mut from, mut whole) = (0, true);
            for ((at, places), extent) in at.iter().zip(&places).zip(&shape) {
                let (index, stays) = places[*at];
                from = from * extent + index;
                whole &= stays;
            }
            if whole {
                made.extend_from_slice(&raw[from * run..][..run]);
            } else {
                made.resize(made.len() + run, 0);
            }
            for (at, places) in at.iter_mut().zip(&places).rev() {
                *at += 1;
                if *at < places.len() {
                    break;
                }
                *at = 0;
            }
        }
        made.into()
    }
}

/// Elements that are zero in any format of whole bytes.
fn zeros(data: &[u8], elem: Elem) -> u64 {
    let Some(w) = width(elem) else { return 0 };
    let negative = if elem.is_float() { 0x80 } else { 0 };
    let zero = |e: &[u8]| e[..w - 1].iter().all(|&b| b == 0) && (e[w - 1] == 0 || e[w - 1] == negative);
    data.par_chunks(1 << 20).map(|part| part.chunks_exact(w).filter(|e| zero(e)).count() as u64).sum()
}

impl Masked {
    fn write(&self, edit: &Edit, data: &[u8], choose: &dyn Choose, out: &Stream) -> Result<std::io::Result<Tally>> {
        let elem = edit.source.elem;
        let Some(w) = width(elem) else {
            return Err(Error::Model {
                path: edit.source.name.clone().into(),
                reason: "has no maskable format".into(),
            });
        };
        let View { groups, n, k, transposed } = self.view;
        let (outer, inner) = if transposed { (k, n) } else { (n, k) };
        let row = inner * w;
        // Choices of N:M and V:N:M need no more than whole groups of the rows or columns that share one.
        let local = match self.pattern {
            SparsityPattern::Nm { m, .. } => Some(if transposed { m as usize } else { 1 }),
            SparsityPattern::Vnm { v, m, .. } => Some(if transposed { m as usize } else { v as usize }),
            _ => None,
        }
        .filter(|_| choose.is_local(self.pattern));
        let mut tally = Tally { elements: (groups * n * k) as u64, zeros: 0 };
        let short = match self.pattern {
            SparsityPattern::Nm { n, m } if choose.by_magnitude() && self.zero.is_empty() => Some((n, m)),
            _ => None,
        };
        for group in 0..groups {
            let block = &data[group * n * k * w..][..n * k * w];
            let whole = match local {
                Some(_) => None,
                None => {
                    let mut weights = vec![0f32; n * k];
                    self.load(elem, block, &mut weights, outer, group * n);
                    let from = self.from.as_ref();
                    let tile = Tile { layer: &self.layer, group, row: 0, col: 0, n, k, from };
                    Some(choose.choose(&tile, weights, self.pattern)?)
                }
            };
            let align = local.unwrap_or(1);
            let step = (TILE / inner.max(1)).max(1).next_multiple_of(align).min(outer.max(1));
            let per_window = (RUN / (row * step).max(1)).max(1) * step;
            for from in (0..outer).step_by(per_window.max(1)) {
                let rows = per_window.min(outer - from);
                let mut window = out.buffer();
                window.resize(rows * row, 0);
                let zeros: Result<Vec<u64>> = window
                    .par_chunks_mut((step * row).max(1))
                    .zip(block[from * row..].par_chunks((step * row).max(1)))
                    .enumerate()
                    .map(|(i, (part, source))| {
                        part.copy_from_slice(&source[..part.len()]);
                        if let Some(zeros) = short.and_then(|nm| largest::keep(part, elem, inner, transposed, nm)) {
                            return Ok(zeros);
                        }
                        let first = from + i * step;
                        let rows = part.len() / row.max(1);
                        let own;
                        let (choice, at) = match &whole {
                            Some(choice) => (choice, first),
                            None => {
                                let (n, k) = if transposed { (n, rows) } else { (rows, k) };
                                let (row, col) = if transposed { (0, first) } else { (first, 0) };
                                let mut weights = vec![0f32; n * k];
                                self.load(elem, part, &mut weights, rows, group * self.view.n + row);
                                let tile = Tile { layer: &self.layer, group, row, col, n, k, from: None };
                                own = choose.choose(&tile, weights, self.pattern)?;
                                (&own, 0)
                            }
                        };
                        let output = group * n + if transposed { 0 } else { first };
                        let zeroed = self.apply(part, choice, (at, rows), elem, output);
                        Ok(if self.zero.is_empty() { zeros(part, elem) } else { zeroed })
                    })
                    .collect();
                tally.zeros += zeros?.into_iter().sum::<u64>();
                if let Err(e) = out.own(window) {
                    return Ok(Err(e));
                }
            }
        }
        Ok(Ok(tally))
    }

    /// Elements of `outer` stored rows as `[n, k]`, the first output being number `output`; zero points taken off.
    fn load(&self, elem: Elem, raw: &[u8], into: &mut [f32], outer: usize, output: usize) {
        let k = if self.view.transposed { outer } else { self.view.k };
        if self.view.transposed {
            let n = self.view.n;
            let mut line = vec![0f32; n];
            for (c, raw) in raw.chunks_exact((n * width(elem).unwrap_or(1)).max(1)).enumerate() {
                decode(elem, raw, &mut line);
                line.iter().enumerate().for_each(|(r, &x)| into[r * outer + c] = x);
            }
        } else {
            decode(elem, raw, into);
        }
        if !self.zero.is_empty() {
            for (r, row) in into.chunks_mut(k.max(1)).enumerate() {
                let mut zero = [0f32];
                decode(elem, &[self.fill(output + r)], &mut zero);
                row.iter_mut().for_each(|x| *x -= zero[0]);
            }
        }
    }

    /// What an output stores for zero.
    fn fill(&self, output: usize) -> u8 {
        match self.zero[..] {
            [] => 0,
            [one] => one,
            ref all => all.get(output).copied().unwrap_or(0),
        }
    }

    /// Writes zeros into `rows` stored rows wherever the mask, whose rows (columns, where the matrix is stored transposed)
    /// from `at` on are theirs, does not keep, and what the others become; the first output is number `output`. Returns
    /// how many are zeros now because of it.
    fn apply(&self, part: &mut [u8], choice: &Choice, (at, rows): (usize, usize), elem: Elem, output: usize) -> u64 {
        let inner = if self.view.transposed { self.view.n } else { self.view.k };
        let w = width(elem).unwrap_or(1);
        let k = choice.mask.cols() as usize;
        let updated = choice.updated.as_deref().filter(|_| elem.is_float());
        let mut zeroed = 0;
        for i in 0..rows {
            let line = &mut part[i * inner * w..][..inner * w];
            for (j, element) in line.chunks_exact_mut(w).enumerate() {
                let (r, c, out) = if self.view.transposed { (j, at + i, output + j) } else { (at + i, j, output + i) };
                if !choice.mask.get(r as u64, c as u64) {
                    element.fill(self.fill(out));
                    zeroed += 1;
                } else if let Some(x) = updated.and_then(|u| u.get(r * k + c)) {
                    encode(elem, *x, element);
                }
            }
        }
        zeroed
    }
}
