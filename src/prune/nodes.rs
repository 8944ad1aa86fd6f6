//! Constants and attributes of nodes that name extents: what they must say in the smaller network.

use super::plan::Plan;
use crate::workload::graph::Graph;
use crate::workload::layer::{Layer, Op};
use crate::workload::onnx::consts;
use crate::workload::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};
use petgraph::graph::NodeIndex;
use std::collections::{HashMap, HashSet};

/// What changes in one node.
#[derive(Clone, Debug, Default)]
pub struct NodeEdit {
    /// Attributes with new values, added where the node lacks them.
    pub attributes: Vec<AttributeProto>,
    /// Inputs that read another tensor.
    pub inputs: Vec<(usize, String)>,
    /// Constants that go before the node.
    pub before: Vec<NodeProto>,
}

/// Everything that changes beside the weights.
#[derive(Clone, Debug, Default)]
pub struct NodeEdits {
    /// By the node's position in the main graph.
    pub nodes: HashMap<usize, NodeEdit>,
    /// Small stored tensors that are replaced whole, by name; nobody else reads them.
    pub tensors: HashMap<String, TensorProto>,
}

/// The main graph by names.
struct Names<'g> {
    graph: &'g GraphProto,
    producer: HashMap<&'g str, usize>,
    stored: HashMap<&'g str, &'g TensorProto>,
    readers: HashMap<&'g str, usize>,
}

impl<'g> Names<'g> {
    fn of(graph: &'g GraphProto) -> Self {
        let mut names = Self { graph, producer: HashMap::new(), stored: HashMap::new(), readers: HashMap::new() };
        names.stored.extend(graph.initializer.iter().map(|t| (t.name.as_str(), t)));
        for (i, node) in graph.node.iter().enumerate() {
            for output in node.output.iter().filter(|o| !o.is_empty()) {
                names.producer.insert(output, i);
            }
            let value = node.attribute.iter().find(|a| a.name == "value").and_then(|a| a.t.as_ref());
            if let (Some(t), "Constant", [output]) = (value, node.op_type.as_str(), &node.output[..]) {
                names.stored.insert(output, t);
            }
        }
        names.count(graph);
        names
    }

    fn count(&mut self, graph: &'g GraphProto) {
        let inputs = graph.node.iter().flat_map(|n| &n.input).chain(graph.output.iter().map(|o| &o.name));
        inputs.for_each(|i| *self.readers.entry(i).or_default() += 1);
        for body in graph.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.g.as_ref()) {
            self.count(body);
        }
    }

    /// The integers of a constant.
    fn ints(&self, name: &str) -> Option<Vec<i64>> {
        if let Some(t) = self.stored.get(name) {
            return consts::read(t).ok()?.ints();
        }
        let node = self.graph.node.get(*self.producer.get(name)?)?;
        match node.op_type.as_str() {
            "Constant" => node.attribute.iter().find_map(|a| match a.name.as_str() {
                "value_ints" => Some(a.ints.clone()),
                "value_int" => Some(vec![a.i]),
                _ => None,
            }),
            "Identity" | "Cast" | "Unsqueeze" | "Squeeze" => self.ints(node.input.first()?),
            _ => None,
        }
    }

    /// The node of a layer: the one that makes its first output, or the one whose part it is.
    fn node(&self, layer: &Layer) -> Option<usize> {
        let made = layer.outputs.first().and_then(|t| self.producer.get(t.name.as_str())).copied();
        made.or_else(|| {
            let whole = layer.name.rsplit_once('/')?.0;
            let named = |n: &NodeProto| n.name == whole || n.output.first().is_some_and(|o| o == whole);
            self.graph.node.iter().position(|n| n.op_type == layer.spelled && named(n))
        })
    }
}

/// What has to change, for every layer whose shapes differ between `before` and the plan's network.
pub fn adjust(graph: &GraphProto, before: &Graph, plan: &Plan) -> NodeEdits {
    let names = Names::of(graph);
    let mut edits = NodeEdits::default();
    let mut taken: HashSet<String> =
        names.producer.keys().chain(names.stored.keys()).map(|s| (*s).to_owned()).collect();
    for &node in before.order() {
        let (old, new) = (before.layer(node), plan.after.layer(node));
        if old.outputs == new.outputs && old.op == new.op {
            continue;
        }
        let Some(at) = names.node(old) else { continue };
        let mut work = Work { names: &names, edits: &mut edits, taken: &mut taken, at };
        work.layer(old, new, before, node);
    }
    // A stored tensor that is reshaped on its way is no layer, but its constant names its extents all the same.
    for edit in plan.edits.iter().filter(|e| e.shape() != e.source.shape) {
        let name = edit.source.name.as_str();
        for (at, node) in graph.node.iter().enumerate() {
            if node.op_type != "Reshape" || node.input.first().is_none_or(|i| i != name) {
                continue;
            }
            let mut work = Work { names: &names, edits: &mut edits, taken: &mut taken, at };
            let Some(list) = work.names.ints_at(at, 1) else { continue };
            let changed = spread(&list, &edit.source.shape, &edit.shape());
            if changed != list {
                work.constant(1, changed);
            }
        }
    }
    edits
}

/// The target of a reshape that only adds or drops axes of extent 1, for a tensor of another shape.
fn spread(list: &[i64], old: &[u64], new: &[u64]) -> Vec<i64> {
    let mut wide = old.iter().zip(new).filter(|(o, _)| **o != 1);
    let entry = |&v: &i64| match v {
        1 => 1,
        v => wide.next().filter(|(o, _)| v == **o as i64).map_or(v, |(_, n)| *n as i64),
    };
    list.iter().map(entry).collect()
}

struct Work<'a, 'g> {
    names: &'a Names<'g>,
    edits: &'a mut NodeEdits,
    taken: &'a mut HashSet<String>,
    at: usize,
}

impl Work<'_, '_> {
    fn proto(&self) -> &NodeProto {
        &self.names.graph.node[self.at]
    }

    fn has(&self, attribute: &str) -> bool {
        self.proto().attribute.iter().any(|a| a.name == attribute)
    }

    fn set(&mut self, name: &str, kind: i32, i: i64, ints: Vec<i64>) {
        let attribute = AttributeProto { name: name.to_owned(), r#type: kind, i, ints, ..AttributeProto::default() };
        self.edits.nodes.entry(self.at).or_default().attributes.push(attribute);
    }

    fn layer(&mut self, old: &Layer, new: &Layer, before: &Graph, node: NodeIndex) {
        let kind = self.proto().op_type.clone();
        match (&old.op, &new.op) {
            (Op::Conv(a), Op::Conv(b)) if a.groups != b.groups => self.set("group", 2, b.groups as i64, Vec::new()),
            (Op::Attention(a), Op::Attention(b)) if a != b => {
                for (name, old, new) in [
                    ("num_heads", a.heads, b.heads),
                    ("q_num_heads", a.heads, b.heads),
                    ("kv_num_heads", a.kv_heads, b.kv_heads),
                ] {
                    if old != new && self.has(name) {
                        self.set(name, 2, new as i64, Vec::new());
                    }
                }
                if self.has("qkv_hidden_sizes") {
                    let widths = [b.heads, b.kv_heads, b.kv_heads].map(|h| (h * b.head_dim) as i64);
                    self.set("qkv_hidden_sizes", 7, 0, widths.to_vec());
                }
            }
            (Op::Reshape { .. }, _) if kind == "Reshape" => {
                if self.has("shape") {
                    let list = self.proto().attribute.iter().find(|a| a.name == "shape").map(|a| a.ints.clone());
                    let list = swapped(&list.unwrap_or_default(), old.shape(), new.shape());
                    self.set("shape", 7, 0, list);
                } else {
                    self.extents(1, old.shape(), new.shape());
                }
            }
            (Op::Expand { .. }, _) if kind == "Expand" => self.extents(1, old.shape(), new.shape()),
            (Op::Resize { .. }, _) if kind == "Resize" => self.extents(3, old.shape(), new.shape()),
            (Op::Split { sizes: was, .. }, Op::Split { sizes, .. }) if kind == "Split" && was != sizes => {
                let sizes: Vec<i64> = sizes.iter().map(|&s| s as i64).collect();
                let stated = self.has("split") || self.names.ints_at(self.at, 1).is_some();
                let even = sizes.iter().all(|s| *s == sizes[0]);
                if stated || !even {
                    if self.has("split") || self.names.old_split(self.at) {
                        self.set("split", 7, 0, sizes);
                    } else {
                        self.constant(1, sizes);
                    }
                }
            }
            (Op::Slice { ranges: was }, Op::Slice { ranges }) if kind == "Slice" && was != ranges => {
                let rank = before.input_shapes(node).first().map_or(0, |s| s.len());
                let by_input = self.proto().input.len() > 1;
                let get = |w: &Self, i: usize, attribute: &str| -> Option<Vec<i64>> {
                    if by_input {
                        w.names.ints_at(w.at, i)
                    } else {
                        w.proto().attribute.iter().find(|a| a.name == attribute).map(|a| a.ints.clone())
                    }
                };
                let (Some(mut starts), Some(mut ends)) = (get(self, 1, "starts"), get(self, 2, "ends")) else {
                    return;
                };
                let axes = get(self, 3, "axes").unwrap_or_else(|| (0..starts.len() as i64).collect());
                for (was, now) in was.iter().zip(ranges).filter(|(a, b)| a != b) {
                    let of = |&a: &i64| if a < 0 { a + rank as i64 } else { a } == was.axis as i64;
                    if let Some(i) = axes.iter().position(of).filter(|&i| i < starts.len() && i < ends.len()) {
                        (starts[i], ends[i]) = (now.start as i64, (now.start + now.len) as i64);
                    }
                }
                if by_input {
                    self.constant(1, starts);
                    self.constant(2, ends);
                } else {
                    self.set("starts", 7, 0, starts);
                    self.set("ends", 7, 0, ends);
                }
            }
            _ => {}
        }
    }

    /// An input that lists the extents of the output: a constant, or constants joined with what is known at run time.
    fn extents(&mut self, input: usize, old: &[u64], new: &[u64]) {
        let Some(name) = self.proto().input.get(input).cloned() else { return };
        if let Some(list) = self.names.ints(&name) {
            let changed = swapped(&list, old, new);
            if changed != list {
                self.constant(input, changed);
            }
            return;
        }
        // What casts do to a list of extents changes none of them.
        let mut at = self.names.producer.get(name.as_str()).copied();
        while let Some(node) = at.map(|i| &self.names.graph.node[i]).filter(|n| n.op_type == "Cast") {
            at = node.input.first().and_then(|i| self.names.producer.get(i.as_str())).copied();
        }
        let Some(concat) = at.filter(|&i| self.names.graph.node[i].op_type == "Concat") else { return };
        let mut place = 0;
        for (i, part) in self.names.graph.node[concat].input.iter().enumerate() {
            let Some(list) = self.names.ints(part) else {
                place += 1;
                continue;
            };
            let range = place.min(old.len())..(place + list.len()).min(old.len());
            let changed = swapped(&list, &old[range.clone()], &new[range]);
            if changed != list {
                let own = std::mem::replace(&mut self.at, concat);
                self.constant(i, changed);
                self.at = own;
            }
            place += list.len();
        }
    }

    /// Makes an input of the node this list of integers.
    fn constant(&mut self, input: usize, list: Vec<i64>) {
        let name = self.proto().input.get(input).cloned().unwrap_or_default();
        let raw = list.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into();
        let dims = vec![list.len() as i64];
        let made = TensorProto { name: name.clone(), dims, data_type: 7, raw_data: raw, ..TensorProto::default() };
        let stored = self.names.stored.get(name.as_str());
        if let Some(old) = stored.filter(|_| self.names.readers.get(name.as_str()) == Some(&1)) {
            let shaped = TensorProto { dims: old.dims.clone(), data_type: old.data_type, ..made };
            let narrow = list.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect::<Vec<u8>>();
            let raw_data = if old.data_type == 6 { narrow.into() } else { shaped.raw_data.clone() };
            self.edits.tensors.insert(name, TensorProto { raw_data, ..shaped });
            return;
        }
        let wish = format!("{}/extents{input}", self.proto().output.first().cloned().unwrap_or_default());
        let mut fresh = wish.clone();
        let mut number = 1;
        while !self.taken.insert(fresh.clone()) {
            number += 1;
            fresh = format!("{wish}{number}");
        }
        // A tensor of one element may stand where a scalar or a list is due; the old one says which.
        let dims = stored.map_or(made.dims.clone(), |t| t.dims.clone());
        let narrow = stored.is_some_and(|t| t.data_type == 6);
        let raw_data = if narrow {
            list.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect::<Vec<u8>>().into()
        } else {
            made.raw_data.clone()
        };
        let t = TensorProto { name: String::new(), dims, data_type: if narrow { 6 } else { 7 }, raw_data, ..made };
        let value = AttributeProto { name: "value".into(), r#type: 4, t: Some(t), ..AttributeProto::default() };
        let node = NodeProto {
            op_type: "Constant".into(),
            name: fresh.clone(),
            output: vec![fresh.clone()],
            attribute: vec![value],
            ..NodeProto::default()
        };
        let edit = self.edits.nodes.entry(self.at).or_default();
        edit.before.push(node);
        edit.inputs.push((input, fresh));
    }
}

impl Names<'_> {
    fn ints_at(&self, node: usize, input: usize) -> Option<Vec<i64>> {
        self.ints(self.graph.node[node].input.get(input)?)
    }

    /// Whether a split states its sizes in an attribute, as it did before operator set 13: nothing else in the graph says
    /// so than another split that does, or none that has an input for it.
    fn old_split(&self, node: usize) -> bool {
        self.graph.node[node].input.len() < 2
            && self.graph.node.iter().any(|n| n.op_type == "Split" && n.attribute.iter().any(|a| a.name == "split"))
    }
}

/// The list with every entry that names an old extent naming the new one; copied (0) and inferred (−1) entries stay.
fn swapped(list: &[i64], old: &[u64], new: &[u64]) -> Vec<i64> {
    let entry = |(i, &v): (usize, &i64)| match (old.get(i), new.get(i)) {
        (Some(&o), Some(&n)) if o != n && v == o as i64 => n as i64,
        _ => v,
    };
    list.iter().enumerate().map(entry).collect()
}
