//! What a network computes of calibration inputs: the inputs of every weight layer as statistics, and its answers, with
//! which those of a pruned network are compared.

use super::npz::Array;
use super::plan::view;
use super::runtime::{Extent, Port, Session};
use crate::error::{Error, Result};
use crate::sparsity::saliency::Statistics;
use crate::workload::graph::Graph;
use crate::workload::layer::{Conv, Layer, Op, Param};
use crate::workload::onnx;
use crate::workload::options::Options;
use petgraph::graph::NodeIndex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// Inputs of a layer up to which Σ x·xᵀ is kept; layers with more know the norms of their inputs alone.
const LARGEST_PRODUCTS: usize = 8192;

/// Values of im2col rows that are made at a time.
const RUN: usize = 1 << 22;

/// What a network made of calibration inputs.
#[derive(Debug, Default)]
pub struct Observed {
    /// By layer.
    pub statistics: HashMap<String, Statistics>,
    /// Layers with weights of whose inputs nothing is known, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Runs of the network that the inputs are.
    pub batches: usize,
    feeds: Vec<BTreeMap<String, Array>>,
    outputs: Vec<String>,
    answers: Vec<Vec<Array>>,
}

/// How far an answer of the pruned network lies from the dense one's.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct OutputError {
    /// The network's output.
    pub name: String,
    /// ‖y − ŷ‖ over ‖y‖ (Frobenius) over all calibration inputs.
    pub error: f64,
}

impl Observed {
    /// Runs the network of an ONNX file on calibration inputs: arrays named like its inputs, with samples along the first
    /// axis, or `NAME/0`, `NAME/1`, … for several batches. A batch that the file fixes, or that all its inputs and
    /// outputs name alike, is cut from the first axis; all else runs at once.
    ///
    /// # Errors
    /// Arrays that are missing, strange or of another shape or type; what [`Session`] refuses.
    pub fn of(network: &Path, graph: &Graph, arrays: BTreeMap<String, Array>, data: &Path) -> Result<Self> {
        let session = Session::open(network)?;
        let feeds = batches(&session, arrays).map_err(|reason| Error::Model { path: data.into(), reason })?;
        let mut observed = Self { batches: feeds.len(), ..Self::default() };
        observed.outputs = session.outputs().iter().map(|p| p.name.clone()).collect();
        let mut sums: HashMap<String, Vec<Sums>> = HashMap::new();
        let mut bound: Option<(Vec<Vec<u64>>, Graph)> = None;
        for feed in &feeds {
            session.check(feed)?;
            let shapes: Vec<Vec<u64>> = feed.values().map(|a| a.shape.clone()).collect();
            if bound.as_ref().is_none_or(|(of, _)| *of != shapes) {
                // Padding may depend on extents, so the network is read again with those of the inputs.
                let inputs = feed.iter().map(|(name, a)| (name.clone(), a.shape.clone())).collect();
                let options = Options { inputs, ..Options::default() };
                let graph = onnx::import(network, &options)?.graph;
                let readers = Readers::of(&graph, &session);
                observed.skipped = readers.skipped;
                sums.retain(|name, _| readers.list.iter().any(|&(_, node)| graph.layer(node).name == *name));
                bound = Some((shapes, graph));
            }
            let Some((_, graph)) = &bound else { continue };
            let readers = Readers::of(graph, &session).list;
            let mut wanted: Vec<&str> = observed.outputs.iter().map(String::as_str).collect();
            let mut place = HashMap::new();
            for (tensor, _) in &readers {
                place.entry(tensor.as_str()).or_insert_with(|| {
                    wanted.push(tensor);
                    wanted.len() - 1
                });
            }
            let mut values = session.run(feed, &wanted)?;
            for (tensor, node) in &readers {
                let layer = graph.layer(*node);
                let (Some(weight), value) = (layer.weight(), &values[place[tensor.as_str()]]) else { continue };
                let sum = sums.entry(layer.name.clone()).or_default();
                let mut add = |group: usize, rows: &[f32], k: usize| {
                    sum.resize_with(sum.len().max(group + 1), Sums::default);
                    sum[group].add(rows, k);
                };
                if let Err(reason) = rows(layer, weight, value, &mut add) {
                    sums.remove(&layer.name);
                    if observed.skipped.iter().all(|(name, _)| *name != layer.name) {
                        observed.skipped.push((layer.name.clone(), reason));
                    }
                }
            }
            values.truncate(observed.outputs.len());
            observed.answers.push(values);
        }
        // The caller's graph may know fewer layers than that of the inputs' extents.
        let known: HashSet<&str> = graph.layers().map(|l| l.name.as_str()).collect();
        sums.retain(|name, _| known.contains(name.as_str()));
        observed.statistics = sums.into_iter().map(|(name, s)| (name, statistics(s))).collect();
        observed.feeds = feeds;
        Ok(observed)
    }

    /// Runs the pruned network on the same inputs: how far each of its answers lies from the dense one's. Answers that
    /// are integers are not compared.
    ///
    /// # Errors
    /// What [`Session`] refuses; an answer of another shape.
    pub fn compare(&self, pruned: &Path) -> Result<Vec<OutputError>> {
        let session = Session::open(pruned)?;
        let wanted: Vec<&str> = self.outputs.iter().map(String::as_str).collect();
        let mut sums = vec![(0f64, 0f64, false); wanted.len()];
        for (feed, dense) in self.feeds.iter().zip(&self.answers) {
            for (i, (y, dense)) in session.run(feed, &wanted)?.iter().zip(dense).enumerate() {
                if y.shape != dense.shape {
                    let reason = format!(
                        "its output `{}` is {:?} where the dense network's is {:?}",
                        wanted[i], y.shape, dense.shape
                    );
                    return Err(Error::Model { path: pruned.into(), reason });
                }
                if dense.integers.is_some() {
                    continue;
                }
                sums[i].2 = true;
                for (&a, &b) in dense.values.iter().zip(&y.values).filter(|(a, b)| a != b || a.is_finite()) {
                    sums[i].0 += (f64::from(a) - f64::from(b)).powi(2);
                    sums[i].1 += f64::from(a).powi(2);
                }
            }
        }
        let errors = self.outputs.iter().zip(sums).filter(|(_, (.., compared))| *compared);
        Ok(errors
            .map(|(name, (wrong, right, _))| OutputError {
                name: name.clone(),
                error: if right > 0.0 { (wrong / right).sqrt() } else { 0.0 },
            })
            .collect())
    }
}

/// The runs that arrays are, each with one array an input.
fn batches(session: &Session, arrays: BTreeMap<String, Array>) -> Result<Vec<BTreeMap<String, Array>>, String> {
    let mut lists: BTreeMap<&str, Vec<Array>> = BTreeMap::new();
    let ports = session.inputs();
    let names = || ports.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>().join(", ");
    let mut numbered: BTreeMap<(&str, u64), Array> = BTreeMap::new();
    let batch = batch_axis(session);
    for (name, array) in arrays {
        if let Some(port) = ports.iter().find(|p| p.name == name) {
            lists.insert(&port.name, cut(port, array, batch.as_deref()));
            continue;
        }
        let apart = name
            .rsplit_once('/')
            .and_then(|(stem, i)| Some((ports.iter().find(|p| p.name == stem)?.name.as_str(), i.parse::<u64>().ok()?)));
        let place = apart.ok_or_else(|| {
            format!("array `{name}` is no input of the network, which reads {}; nor is it named LAYER:x", names())
        })?;
        numbered.insert(place, array);
    }
    for ((name, i), array) in numbered {
        let list = lists.entry(name).or_default();
        if list.len() as u64 != i {
            return Err(format!("array `{name}/{i}` follows {} others of `{name}`; number them from 0 on", list.len()));
        }
        list.push(array);
    }
    if let Some(port) = ports.iter().find(|p| !lists.contains_key(p.name.as_str())) {
        return Err(format!("has no array for the input `{}`; the network reads {}", port.name, names()));
    }
    let count = lists.values().map(Vec::len).max().unwrap_or(1);
    if let Some((name, list)) = lists.iter().find(|(_, l)| l.len() != count && l.len() != 1) {
        return Err(format!("input `{name}` has {} batches where others have {count}", list.len()));
    }
    let mut feeds = vec![BTreeMap::new(); count];
    for (name, mut list) in lists {
        if list.len() == 1 && count > 1 {
            list = vec![list.remove(0); count];
        }
        feeds.iter_mut().zip(list).for_each(|(feed, array)| drop(feed.insert(name.to_owned(), array)));
    }
    Ok(feeds)
}

/// The symbol of the first axis, where all inputs and outputs have the same.
fn batch_axis(session: &Session) -> Option<String> {
    let mut symbol = None;
    for port in session.inputs().iter().chain(session.outputs()) {
        match port.shape.as_ref()?.first() {
            Some(Extent::Open(s)) if !s.is_empty() && symbol.as_ref().is_none_or(|known| known == s) => {
                symbol = Some(s.clone());
            }
            _ => return None,
        }
    }
    symbol
}

/// An input's samples as the batches that the network takes.
fn cut(port: &Port, array: Array, batch: Option<&str>) -> Vec<Array> {
    let size = match port.shape.as_ref().and_then(|s| s.first()) {
        Some(Extent::Fixed(n)) => *n,
        Some(Extent::Open(_)) if batch.is_some() => 1,
        _ => return vec![array],
    };
    match array.shape.first() {
        Some(&all) if size > 0 && all > size && all % size == 0 => {
            (0..all / size).map(|i| array.rows(i * size, size)).collect()
        }
        _ => vec![array],
    }
}

/// The layers whose inputs can be seen.
struct Readers {
    /// The tensor that each of them multiplies by its weights.
    list: Vec<(String, NodeIndex)>,
    skipped: Vec<(String, String)>,
}

impl Readers {
    fn of(graph: &Graph, session: &Session) -> Self {
        let mut readers = Self { list: Vec::new(), skipped: Vec::new() };
        for &node in graph.order() {
            let layer = graph.layer(node);
            if layer.weight().is_none() {
                continue;
            }
            let reason = match (&layer.op, graph.inputs(node).first()) {
                (Op::Conv(c), _) if c.transposed && c.groups > 1 => {
                    "its filters are transposed and in groups".to_owned()
                }
                (Op::Conv(_) | Op::Linear(_), Some(&(from, output))) => {
                    let tensor = &graph.layer(from).outputs[output as usize].name;
                    if session.knows(tensor) {
                        readers.list.push((tensor.clone(), node));
                        continue;
                    }
                    format!("`{tensor}`, which it reads, is no tensor of the file's main graph")
                }
                _ => format!("{} is no product of inputs that can be seen", layer.spelled),
            };
            readers.skipped.push((layer.name.clone(), reason));
        }
        readers
    }
}

/// Takes the group of filters, a run of rows and k.
type Visit<'a> = dyn FnMut(usize, &[f32], usize) + 'a;

/// Hands the rows `[samples, k]` that a layer multiplies by its weight matrix to `visit`, a run of them at a time, group by
/// group where filters are in groups. Of a transposed convolution, whose matrix has a row for each output channel and tap,
/// these are the channels at each place.
///
/// # Errors
/// A tensor that does not have the layer's inputs, in words.
fn rows(layer: &Layer, weight: &Param, x: &Array, visit: &mut Visit) -> Result<(), String> {
    let k = view(layer, weight, &weight.shape).ok_or("has no weight matrix")?.k;
    let strange = || format!("reads a tensor of {:?}, which is not rows of {k}", x.shape);
    if x.integers.is_some() {
        return Err("reads integers".to_owned());
    }
    match &layer.op {
        Op::Conv(c) if x.shape.len() == c.kernel.len() + 2 => {
            let groups = c.groups.max(1) as usize;
            let channels = x.shape[1] as usize / groups;
            let taps: u64 = if c.transposed { 1 } else { c.kernel.iter().product() };
            if channels * taps as usize != k {
                return Err(strange());
            }
            let columns = Columns::of(c, &x.shape[2..]);
            let each = channels * x.shape[2..].iter().product::<u64>() as usize;
            for (i, image) in x.values.chunks_exact(each.max(1)).enumerate() {
                columns.rows(image, channels, &mut |rows, k| visit(i % groups, rows, k));
            }
            Ok(())
        }
        Op::Linear(_) if x.shape.last() == Some(&(k as u64)) => {
            visit(0, &x.values, k);
            Ok(())
        }
        _ => Err(strange()),
    }
}

/// Where the taps of a convolution lie: im2col.
struct Columns {
    /// Extents of the image.
    image: Vec<u64>,
    /// Extents of the output.
    out: Vec<u64>,
    /// Extents, steps, distances and leading padding of the filter.
    kernel: Vec<u64>,
    stride: Vec<u64>,
    dilation: Vec<u64>,
    before: Vec<u64>,
}

impl Columns {
    fn of(c: &Conv, image: &[u64]) -> Self {
        let rank = image.len();
        if c.transposed {
            let ones = vec![1; rank];
            return Self {
                image: image.to_vec(),
                out: image.to_vec(),
                kernel: ones.clone(),
                stride: ones.clone(),
                dilation: ones,
                before: vec![0; rank],
            };
        }
        let out = (0..rank).map(|d| {
            let span = (c.kernel[d] - 1) * c.dilation[d] + 1;
            (image[d] + c.pad[d].0 + c.pad[d].1).checked_sub(span).map_or(0, |free| free / c.stride[d].max(1) + 1)
        });
        Self {
            image: image.to_vec(),
            out: out.collect(),
            kernel: c.kernel.clone(),
            stride: c.stride.clone(),
            dilation: c.dilation.clone(),
            before: c.pad.iter().map(|p| p.0).collect(),
        }
    }

    /// Rows (channel, taps…), one an output place.
    fn rows(&self, image: &[f32], channels: usize, visit: &mut dyn FnMut(&[f32], usize)) {
        let places: u64 = self.out.iter().product();
        let taps: u64 = self.kernel.iter().product();
        let (k, area) = (channels * taps as usize, image.len() / channels.max(1));
        let run = (RUN / k.max(1)).max(1);
        let mut rows = Vec::with_capacity(run.min(places as usize) * k);
        for place in 0..places {
            let at = unravel(place, &self.out);
            let from: Vec<Option<usize>> = (0..taps)
                .map(|tap| {
                    let tap = unravel(tap, &self.kernel);
                    let mut index = 0;
                    for d in 0..self.image.len() {
                        let i = (at[d] * self.stride[d] + tap[d] * self.dilation[d]).checked_sub(self.before[d]);
                        index = index * self.image[d] + i.filter(|&i| i < self.image[d])?;
                    }
                    Some(index as usize)
                })
                .collect();
            for channel in image.chunks_exact(area.max(1)) {
                rows.extend(from.iter().map(|i| i.map_or(0.0, |i| channel[i])));
            }
            if rows.len() >= run * k {
                visit(&rows, k);
                rows.clear();
            }
        }
        if !rows.is_empty() {
            visit(&rows, k);
        }
    }
}

fn unravel(mut flat: u64, extents: &[u64]) -> Vec<u64> {
    let mut at = vec![0; extents.len()];
    for (i, &extent) in at.iter_mut().zip(extents).rev() {
        *i = flat % extent.max(1);
        flat /= extent.max(1);
    }
    at
}

/// What is known of a layer's groups of filters, mostly one.
fn statistics(mut groups: Vec<Sums>) -> Statistics {
    if groups.len() == 1 {
        return groups.remove(0).statistics();
    }
    let mut known = Statistics::none();
    known.groups = groups.into_iter().map(Sums::statistics).collect();
    known
}

/// Rows of a layer as they come: kept as they are while they are few, then their products.
#[derive(Default)]
struct Sums {
    squares: Vec<f64>,
    rows: Vec<f32>,
    products: Option<Vec<f64>>,
}

impl Sums {
    fn add(&mut self, rows: &[f32], k: usize) {
        self.squares.resize(k, 0.0);
        for row in rows.chunks_exact(k.max(1)) {
            self.squares.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x) * f64::from(x));
        }
        if k <= LARGEST_PRODUCTS {
            self.rows.extend_from_slice(rows);
            if self.rows.len() / k.max(1) > (k / 4).max(64) {
                let products = self.products.get_or_insert_with(|| vec![0.0; k * k]);
                add_products(products, &std::mem::take(&mut self.rows), k);
            }
        }
    }

    fn statistics(mut self) -> Statistics {
        let k = self.squares.len();
        if let Some(products) = &mut self.products
            && !self.rows.is_empty()
        {
            add_products(products, &self.rows, k);
            self.rows.clear();
        }
        let mut known = Statistics::none();
        known.norms = Some(self.squares.iter().map(|s| s.sqrt()).collect());
        known.inputs = Some(self.rows).filter(|r| !r.is_empty());
        known.products = self.products;
        known
    }
}

/// Adds Σ x·xᵀ of rows `[samples, k]`.
fn add_products(products: &mut [f64], rows: &[f32], k: usize) {
    let x: Vec<f64> = rows.iter().map(|&x| x.into()).collect();
    let samples = x.len() / k.max(1);
    if products.len() != k * k || samples * k != x.len() {
        return;
    }
    let threads = match rayon::current_num_threads() {
        threads if threads > 1 && k > 64 => gemm::Parallelism::Rayon(threads),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: `products` is k × k and `x` samples × k, row-major, as was just checked; they do not overlap.
    unsafe {
        gemm::gemm(
            k,
            k,
            samples,
            products.as_mut_ptr(),
            1,
            k as isize,
            true,
            x.as_ptr(),
            k as isize,
            1,
            x.as_ptr(),
            1,
            k as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Columns, Sums, add_products};
    use crate::workload::layer::Conv;

    #[test]
    fn columns_of_a_padded_strided_image() {
        let conv = Conv {
            out: 1,
            kernel: vec![2, 2],
            stride: vec![2, 1],
            pad: vec![(1, 0), (0, 1)],
            dilation: vec![1, 1],
            groups: 1,
            bias: false,
            transposed: false,
            output_pad: vec![0, 0],
        };
        let mut all = Vec::new();
        let image: Vec<f32> = (1..=6).map(|i| i as f32).collect();
        Columns::of(&conv, &[3, 2]).rows(&image, 1, &mut |rows, k| all.extend(rows.chunks(k).map(<[f32]>::to_vec)));
        let expected = [[0., 0., 1., 2.], [0., 0., 2., 0.], [3., 4., 5., 6.], [4., 0., 6., 0.]];
        assert_eq!(all, expected.map(|r| r.to_vec()));
    }

    #[test]
    fn products_are_those_of_all_rows() {
        let rows: Vec<f32> = (0..300).map(|i| ((i * 37) % 11) as f32 - 5.0).collect();
        let mut sums = Sums::default();
        rows.chunks(30).for_each(|part| sums.add(part, 3));
        let statistics = sums.statistics();
        let mut expected = vec![0.0; 9];
        add_products(&mut expected, &rows, 3);
        let by_hand: f64 = rows.chunks(3).map(|r| f64::from(r[0] * r[2])).sum();
        assert_eq!((statistics.products.as_deref(), expected[2]), (Some(&expected[..]), by_hand));
    }
}
