//! Edits spliced into an ONNX file: everything that does not change keeps its bytes.

use super::behind::behind;
use super::choose::Choose;
use super::nodes::{NodeEdit, NodeEdits, adjust};
use super::plan::{Plan, Request};
use super::tensor::Tally;
use super::wire::{Field, Piece, Pieces, fields};
use crate::error::{Error, Result};
use crate::sparsity::groups::ClassId;
use crate::workload::layer::{Layer, Tensor};
use crate::workload::onnx::proto::{
    Dimension, EXTERNAL, GraphProto, ModelProto, StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, dimension, type_proto,
};
use crate::workload::onnx::{Model, from_model, load};
use crate::workload::options::Options;
use crate::workload::weights::Weights;
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Messages above this many bytes are refused by protobuf readers: 2 GiB less room for the frame.
const MESSAGE_LIMIT: u64 = (1 << 31) - (1 << 20);

/// Stored tensors with more elements than this are left out where only shapes matter.
const SMALL: u64 = 1 << 14;

/// A model as it is.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    bytes: Bytes,
    proto: ModelProto,
    /// What it is as a network, and where its weights are.
    pub model: Model,
    options: Options,
    /// Names that several graphs of the file use for different tensors.
    ambiguous: BTreeSet<String>,
    /// Bytes of the elements that lie in other files, by tensor.
    external: HashMap<String, u64>,
}

/// A model on its way to a smaller file.
pub struct Rewrite<'s> {
    source: &'s Source,
    /// What happens.
    pub plan: Plan,
    nodes: NodeEdits,
}

/// The bytes of the new model, and of the file beside it that holds elements where one file would be too large.
pub struct Output {
    /// The model.
    pub model: Pieces,
    /// The elements beside it.
    pub beside: Option<Pieces>,
}

impl Source {
    /// Maps and imports a model.
    ///
    /// # Errors
    /// What the importer refuses.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let bytes = load::map(path)?;
        Self::from_bytes(path, bytes, options)
    }

    /// Imports a model from its bytes; `path` is for messages and for finding external data.
    ///
    /// # Errors
    /// What the importer refuses.
    pub fn from_bytes(path: &Path, bytes: Bytes, options: &Options) -> Result<Self> {
        let proto = load::decode(path, bytes.clone())?;
        let model = from_model(path, &proto, options)?;
        let (ambiguous, external) = (ambiguous(&proto), external(&proto, &model.weights));
        Ok(Self { path: path.to_path_buf(), bytes, proto, model, options: options.clone(), ambiguous, external })
    }

    /// Bytes of elements in other files.
    pub fn outside(&self) -> u64 {
        self.external.values().fold(0, |a, &b| a.saturating_add(b))
    }

    /// What integer weights store for zero, by tensor.
    pub fn zero_points(&self) -> HashMap<String, Vec<u8>> {
        self.proto.graph.as_ref().map(|g| zero_points(g, &self.model.weights)).unwrap_or_default()
    }

    /// Plans what is asked for; groups whose removal would contradict the model are refused one by one.
    ///
    /// # Errors
    /// What [`Plan::of`] refuses.
    pub fn plan(&self, request: &Request) -> Result<Rewrite<'_>> {
        let mut refused = BTreeMap::new();
        let first = self.attempt(request, &refused)?;
        let Some(reason) = first.contradiction()? else { return Ok(first) };
        let classes: Vec<ClassId> = first.plan.removed.iter().map(|r| r.class).collect();
        // Each group alone says whether it can go, and at which operator not.
        let lenient = Request { strict: false, ..request.clone() };
        for &class in &classes {
            let others = classes.iter().filter(|&&c| c != class).map(|&c| (c, reason.clone())).collect();
            if let Some(reason) = self.attempt(&lenient, &others)?.contradiction()? {
                refused.insert(class, reason);
            }
        }
        let rewrite = self.attempt(request, &refused)?;
        match rewrite.contradiction()? {
            None => Ok(rewrite),
            Some(reason) => Err(load::bad(
                &self.path,
                format!("cannot lose all these groups at once: {reason}; name fewer layers with -s 'GLOB=PATTERN'"),
            )),
        }
    }

    fn attempt(&self, request: &Request, refused: &BTreeMap<ClassId, String>) -> Result<Rewrite<'_>> {
        let Model { graph, weights } = &self.model;
        let plan = Plan::of(graph, weights, request, refused, &self.ambiguous)?;
        let nodes = match &self.proto.graph {
            Some(main) if !plan.removed.is_empty() && !request.zero_in_place => adjust(main, graph, &plan),
            _ => NodeEdits::default(),
        };
        Ok(Rewrite { source: self, plan, nodes })
    }
}

impl Rewrite<'_> {
    /// Imports the new model, without its large tensors, and compares every shape: the first place that differs, or why
    /// it is no model.
    fn contradiction(&self) -> Result<Option<String>> {
        if self.plan.removed.is_empty() {
            return Ok(None);
        }
        let source = self.source;
        let pieces = self.splice(None)?.model;
        let mut whole = Vec::with_capacity(pieces.len as usize);
        for piece in &pieces.list {
            if let Piece::Bytes(b) = piece {
                whole.extend_from_slice(b);
            }
        }
        let at = |e: prost::DecodeError| load::bad(&source.path, e.to_string());
        let proto = ModelProto::decode(Bytes::from(whole)).map_err(at)?;
        let made = match from_model(&source.path, &proto, &source.options) {
            Ok(model) => model,
            Err(Error::Model { reason, .. }) => return Ok(Some(reason)),
            Err(e) => return Ok(Some(e.to_string())),
        };
        let shapes: HashMap<&str, &[Tensor]> = made.graph.layers().map(|l| (l.name.as_str(), &l.outputs[..])).collect();
        let differs = |l: &&Layer| {
            let made = shapes.get(l.name.as_str()).copied().unwrap_or_default();
            !l.outputs.iter().map(|t| &t.shape).eq(made.iter().map(|t| &t.shape))
        };
        Ok(self
            .plan
            .after
            .layers()
            .find(differs)
            .map(|l| format!("{} `{}` names extents in a way that cannot be followed", l.spelled, l.name)))
    }

    /// The new file. Elements that lie in other files come into it while it stays below 2 GiB, and else into one file
    /// of the name `beside`; without that name, large tensors come without elements.
    ///
    /// # Errors
    /// [`Error::Model`] when elements are missing.
    pub fn splice(&self, beside: Option<&str>) -> Result<Output> {
        let source = self.source;
        let inline = source.external.values().fold(source.bytes.len() as u64, |a, &b| a.saturating_add(b));
        let apart = beside.filter(|_| inline > MESSAGE_LIMIT && !source.external.is_empty());
        let mut splice = Splice {
            rewrite: self,
            stub: beside.is_none(),
            beside: apart.map(|name| (name.to_owned(), Pieces::default())),
            known: (self.plan.after_differs()).then(|| self.known()),
        };
        let model = splice.model(&source.bytes).map_err(|e| load::bad(&source.path, e))?;
        Ok(Output { model, beside: splice.beside.map(|(_, pieces)| pieces) })
    }

    /// Tensors whose stated shapes still hold.
    fn known(&self) -> HashSet<&str> {
        let pairs = self.source.model.graph.layers().zip(self.plan.after.layers());
        pairs
            .flat_map(|(a, b)| a.outputs.iter().zip(&b.outputs))
            .filter(|(x, y)| x == y)
            .map(|(x, _)| x.name.as_str())
            .collect()
    }

    /// Writes pieces; returns what each edited tensor became, by its number.
    ///
    /// # Errors
    /// What the writer says, and what choosing refuses.
    pub fn write(
        &self,
        pieces: &Pieces,
        choose: &dyn Choose,
        out: &mut (dyn Write + Send),
    ) -> std::io::Result<BTreeMap<usize, Tally>> {
        behind(out, |out| {
            let mut tallies = BTreeMap::new();
            for piece in &pieces.list {
                match piece {
                    Piece::Bytes(b) => out.shared(b.clone())?,
                    Piece::Elements(edit, _) => {
                        tallies.insert(*edit, self.plan.edits[*edit].write(choose, out)?);
                    }
                }
            }
            Ok(tallies)
        })
    }
}

/// Cuts the old bytes and puts new ones between them.
struct Splice<'r> {
    rewrite: &'r Rewrite<'r>,
    stub: bool,
    beside: Option<(String, Pieces)>,
    known: Option<HashSet<&'r str>>,
}

type Spliced<T> = std::result::Result<T, String>;

impl Splice<'_> {
    fn model(&mut self, bytes: &Bytes) -> Spliced<Pieces> {
        let mut out = Pieces::default();
        for f in fields(bytes)? {
            match f.number {
                7 if f.wire == 2 => out.message(7, self.graph(&bytes.slice(f.body), true)?),
                _ => out.bytes(bytes.slice(f.whole)),
            }
        }
        Ok(out)
    }

    fn graph(&mut self, bytes: &Bytes, main: bool) -> Spliced<Pieces> {
        let mut out = Pieces::default();
        let mut node = 0;
        for f in fields(bytes)? {
            let body = bytes.slice(f.body.clone());
            match f.number {
                1 => {
                    self.node(&mut out, &body, bytes.slice(f.whole), main.then_some(node))?;
                    node += 1;
                }
                5 => self.tensor(&mut out, 5, &body, bytes.slice(f.whole), None)?,
                11 if main => self.input(&mut out, &body, bytes.slice(f.whole))?,
                13 if main => {
                    let name = text(&body, 1)?;
                    // What is not known to hold is left out: readers infer it again.
                    if self.known.as_ref().is_none_or(|k| k.contains(name.as_str())) {
                        out.bytes(bytes.slice(f.whole));
                    }
                }
                _ => out.bytes(bytes.slice(f.whole)),
            }
        }
        Ok(out)
    }

    /// Initializers that are listed as inputs too (before IR version 4) state their shape twice.
    fn input(&mut self, out: &mut Pieces, body: &Bytes, whole: Bytes) -> Spliced<()> {
        let plan = &self.rewrite.plan;
        let edit = plan.by_name.get(&text(body, 1)?).map(|&i| &plan.edits[i]);
        let Some(edit) = edit.filter(|e| e.shape() != e.source.shape) else {
            out.bytes(whole);
            return Ok(());
        };
        let mut info = ValueInfoProto::decode(body.clone()).map_err(|e| e.to_string())?;
        if let Some(TypeProto { value: Some(type_proto::Value::Tensor(t)) }) = &mut info.r#type {
            let dim = |d: u64| Dimension { value: Some(dimension::Value::Known(d as i64)) };
            t.shape = Some(TensorShapeProto { dim: edit.shape().into_iter().map(dim).collect() });
        }
        out.encoded(11, &info);
        Ok(())
    }

    fn node(&mut self, out: &mut Pieces, body: &Bytes, whole: Bytes, at: Option<usize>) -> Spliced<()> {
        let edit = at.and_then(|i| self.rewrite.nodes.nodes.get(&i)).cloned();
        let all = fields(body)?;
        let constant = all.iter().any(|f| f.number == 4 && &body[f.body.clone()] == b"Constant");
        let output = all.iter().find(|f| f.number == 2).map(|f| &body[f.body.clone()]);
        let output = output.filter(|_| constant).map(|o| String::from_utf8_lossy(o).into_owned());
        let mut inner = Pieces::default();
        let mut changed = false;
        let mut input = 0;
        for f in &all {
            let own = body.slice(f.body.clone());
            let kept = body.slice(f.whole.clone());
            match (f.number, &edit) {
                (1, Some(e)) => {
                    let new = e.inputs.iter().find(|(i, _)| *i == input);
                    input += 1;
                    match new {
                        Some((_, name)) => inner.message(1, named(name)),
                        None => inner.bytes(kept),
                    }
                }
                (5, _) => {
                    let name = text(&own, 1)?;
                    if let Some(new) = edit.as_ref().and_then(|e| e.attributes.iter().find(|a| a.name == name)) {
                        inner.encoded(5, new);
                    } else if !self.attribute(&mut inner, &own, kept, output.as_deref())? {
                        continue;
                    }
                    changed = true;
                }
                _ => inner.bytes(kept),
            }
        }
        if let Some(e) = &edit {
            self.complete(&mut inner, e, &all, body, input)?;
            e.before.iter().for_each(|n| out.encoded(1, n));
            changed = true;
        }
        if changed {
            out.message(1, inner);
        } else {
            out.bytes(whole);
        }
        Ok(())
    }

    /// Inputs and attributes that the node did not have.
    fn complete(
        &self,
        inner: &mut Pieces,
        e: &NodeEdit,
        all: &[Field],
        body: &Bytes,
        mut inputs: usize,
    ) -> Spliced<()> {
        let mut more: Vec<_> = e.inputs.iter().filter(|(i, _)| *i >= inputs).collect();
        more.sort_unstable();
        for (i, name) in more {
            while inputs < *i {
                inner.message(1, named(""));
                inputs += 1;
            }
            inner.message(1, named(name));
            inputs += 1;
        }
        let mut there = HashSet::new();
        for f in all.iter().filter(|f| f.number == 5) {
            there.insert(text(&body[f.body.clone()], 1)?);
        }
        e.attributes.iter().filter(|a| !there.contains(&a.name)).for_each(|a| inner.encoded(5, a));
        Ok(())
    }

    /// Descends into the tensor of a constant and into subgraphs; whether anything changed.
    fn attribute(&mut self, out: &mut Pieces, body: &Bytes, whole: Bytes, constant: Option<&str>) -> Spliced<bool> {
        let all = fields(body)?;
        let deep = all.iter().any(|f| matches!((f.number, constant), (5, Some(_)) | (6 | 11, _)) && f.wire == 2);
        if !deep {
            out.bytes(whole);
            return Ok(false);
        }
        let mut inner = Pieces::default();
        for f in &all {
            let own = body.slice(f.body.clone());
            match f.number {
                5 if constant.is_some() => self.tensor(&mut inner, 5, &own, body.slice(f.whole.clone()), constant)?,
                6 | 11 if f.wire == 2 => inner.message(f.number, self.graph(&own, false)?),
                _ => inner.bytes(body.slice(f.whole.clone())),
            }
        }
        out.message(5, inner);
        Ok(true)
    }

    fn tensor(
        &mut self,
        out: &mut Pieces,
        number: u64,
        body: &Bytes,
        whole: Bytes,
        constant: Option<&str>,
    ) -> Spliced<()> {
        let name = match constant {
            Some(output) => output.to_owned(),
            None => text(body, 8)?,
        };
        if let Some(new) = self.rewrite.nodes.tensors.get(&name) {
            let own = if constant.is_some() { text(body, 8)? } else { name };
            out.encoded(number, &TensorProto { name: own, ..new.clone() });
            return Ok(());
        }
        let plan = &self.rewrite.plan;
        let edit = plan.by_name.get(&name).copied();
        let outside = self.rewrite.source.external.get(&name).copied();
        let large = || {
            let stored = self.rewrite.source.model.weights.get(&name);
            stored.is_some_and(|s| s.elements() > SMALL)
        };
        if edit.is_none() && outside.is_none() && !(self.stub && large()) {
            out.bytes(whole);
            return Ok(());
        }
        let shape = match (edit, self.rewrite.source.model.weights.get(&name)) {
            (Some(i), _) => plan.edits[i].shape(),
            (None, Some(s)) => s.shape.clone(),
            (None, None) => return Err(format!("tensor `{name}` is not known")),
        };
        let mut inner = Pieces::default();
        let all = fields(body)?;
        let same = edit.is_none_or(|i| plan.edits[i].source.shape == shape);
        let in_place = same && outside.is_none() && !self.stub && all.iter().any(|f| f.number == 9);
        let mut dims = !same;
        for f in &all {
            match (f.number, edit) {
                (9, Some(i)) if in_place => inner.elements(9, i, plan.edits[i].bytes()),
                (1, _) if !same => {
                    if std::mem::take(&mut dims) {
                        inner.bytes(dimensions(&shape));
                    }
                }
                (4 | 5 | 6 | 7 | 9 | 10 | 11 | 13 | 14, _) if !in_place => {}
                _ => inner.bytes(body.slice(f.whole.clone())),
            }
        }
        if dims {
            inner.bytes(dimensions(&shape));
        }
        if !in_place && !self.stub {
            self.elements(&mut inner, &name, edit)?;
        }
        out.message(number, inner);
        Ok(())
    }

    /// The elements of a tensor that cannot stay where they are.
    fn elements(&mut self, inner: &mut Pieces, name: &str, edit: Option<usize>) -> Spliced<()> {
        let rewrite = self.rewrite;
        let len = match edit {
            Some(i) => rewrite.plan.edits[i].bytes(),
            None => rewrite.source.external.get(name).copied().unwrap_or(0),
        };
        let raw = || -> Spliced<Bytes> {
            let stored = rewrite.source.model.weights.get(name).ok_or_else(|| format!("`{name}` is not known"))?;
            stored.raw().map_err(|e| format!("tensor `{name}` {e}"))
        };
        let outside = rewrite.source.external.contains_key(name);
        let Some((location, beside)) = self.beside.as_mut().filter(|_| outside) else {
            match edit {
                Some(i) => inner.elements(9, i, len),
                None => inner.message(9, run(raw()?)),
            }
            return Ok(());
        };
        // Runtimes map the file; aligned tensors can be used where they lie.
        let gap = beside.len.next_multiple_of(ALIGNMENT) - beside.len;
        beside.bytes(vec![0u8; gap as usize]);
        let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        let entries = [
            entry("location", location.clone()),
            entry("offset", beside.len.to_string()),
            entry("length", len.to_string()),
        ];
        match edit {
            Some(i) => {
                beside.list.push(Piece::Elements(i, len));
                beside.len += len;
            }
            None => beside.bytes(raw()?),
        }
        entries.iter().for_each(|e| inner.encoded(13, e));
        inner.bytes(vec![14 << 3, EXTERNAL as u8]);
        Ok(())
    }
}

/// Offsets of elements in a file beside a model are multiples of this.
const ALIGNMENT: u64 = 64;

fn run(bytes: Bytes) -> Pieces {
    let mut pieces = Pieces::default();
    pieces.bytes(bytes);
    pieces
}

fn named(name: &str) -> Pieces {
    run(Bytes::copy_from_slice(name.as_bytes()))
}

/// `repeated int64 dims = 1`.
fn dimensions(shape: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    for &d in shape {
        out.push(1 << 3);
        prost::encoding::encode_varint(d, &mut out);
    }
    out
}

/// A text field of a message; empty where it is left out.
fn text(message: &[u8], number: u64) -> Spliced<String> {
    let all = fields(message)?;
    let last = all.iter().rfind(|f| f.number == number && f.wire == 2);
    Ok(last.map_or_else(String::new, |f| String::from_utf8_lossy(&message[f.body.clone()]).into_owned()))
}

/// Calls `visit` with the name and message of every tensor that a graph and its bodies store.
fn stored<'g>(graph: &'g GraphProto, visit: &mut impl FnMut(&'g str, &'g TensorProto)) {
    graph.initializer.iter().for_each(|t| visit(&t.name, t));
    for node in &graph.node {
        for attribute in &node.attribute {
            if let (Some(t), "Constant", [output]) = (&attribute.t, node.op_type.as_str(), &node.output[..]) {
                visit(output, t);
            }
            if let Some(body) = &attribute.g {
                stored(body, visit);
            }
        }
    }
}

/// Names of several tensors, and of those inside functions, which several calls share.
fn ambiguous(model: &ModelProto) -> BTreeSet<String> {
    let mut seen = HashMap::<&str, usize>::new();
    if let Some(graph) = &model.graph {
        stored(graph, &mut |name, _| *seen.entry(name).or_default() += 1);
    }
    let calls = model.functions.iter().flat_map(|f| &f.node).flat_map(|n| &n.output);
    let twice = seen.into_iter().filter(|(_, n)| *n > 1).map(|(name, _)| name.to_owned());
    twice.chain(calls.cloned()).collect()
}

fn external(model: &ModelProto, weights: &Weights) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    if let Some(graph) = &model.graph {
        stored(graph, &mut |name, t| {
            if let Some(s) = weights.get(name).filter(|_| t.data_location == EXTERNAL) {
                found.insert(name.to_owned(), s.bytes());
            }
        });
    }
    found
}

/// Which input is the weight and which its zero point.
fn zero_point_inputs(kind: &str) -> &'static [(usize, usize)] {
    match kind {
        "ConvInteger" | "MatMulInteger" => &[(1, 3)],
        "QLinearConv" | "QLinearMatMul" => &[(3, 5)],
        "QGemm" => &[(3, 5)],
        "DequantizeLinear" => &[(0, 2)],
        "DynamicQuantizeMatMul" => &[(1, 3)],
        "MatMulIntegerToFloat" => &[(1, 5)],
        "DynamicQuantizeLSTM" => &[(1, 9), (2, 11)],
        _ => &[],
    }
}

/// What integer weights store for zero, by tensor: one byte, or one for each output.
fn zero_points(graph: &GraphProto, weights: &Weights) -> HashMap<String, Vec<u8>> {
    let mut found = HashMap::new();
    for node in &graph.node {
        for &(weight, zero) in zero_point_inputs(&node.op_type) {
            let at = |i: usize| node.input.get(i).and_then(|name| weights.get(name));
            if let (Some(w), Some(z)) = (at(weight), at(zero))
                && let Ok(raw) = z.raw()
                && raw.iter().any(|&b| b != 0)
            {
                found.insert(w.name.clone(), raw.to_vec());
            }
        }
    }
    found
}
