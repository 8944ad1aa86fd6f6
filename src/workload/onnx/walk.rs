//! The walk over a model: node by node it infers shapes, folds constants and collects layers.

use super::consts::{self, Payload};
use super::dims::Symbols;
use super::infer::{self, NEWEST_OPSET, Op, UNKNOWN};
use super::load;
use super::proto::{
    EXTERNAL, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use super::scope::{Scope, Stuck, label, order};
use super::value::{self, Info, Order, Origin};
use crate::error::{Error, Result};
use crate::workload::layer::{Layer, Op as LayerOp, Param, Role, Tensor};
use crate::workload::weights::Stored;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Component, Path};
use std::rc::Rc;

/// A tensor that the walk has met.
pub struct Known {
    /// Its name.
    pub name: String,
    /// What is known about it.
    pub info: Info,
    /// The layer that produces it and which output it is; `None` for constants.
    pub layer: Option<(usize, u32)>,
    /// What a folded constant was computed from.
    pub sources: Vec<usize>,
    /// Its place among the stored tensors.
    pub stored: Option<usize>,
    /// Whether it was stored in a node instead of among the model's initializers.
    pub from_node: bool,
}

/// Versions of operator sets by domain.
pub type Opsets = Rc<HashMap<String, i64>>;

/// State of the walk.
pub struct Walk<'m> {
    path: &'m Path,
    /// Bodies that nodes may call.
    pub functions: HashMap<(&'m str, &'m str), &'m FunctionProto>,
    /// Everything met so far.
    pub tensors: Vec<Known>,
    /// Layers so far.
    pub layers: Vec<Layer>,
    /// Connections (producer, output, consumer, input).
    pub edges: Vec<(usize, u32, usize, u32)>,
    /// Stored tensors so far.
    pub weights: Vec<Stored>,
    /// Layers that stand for constants which are read as activations.
    pub materialized: HashMap<usize, usize>,
    /// Further names of tensors: outputs of control flow and of calls.
    pub aliases: Vec<Tensor>,
    /// What had to be assumed, each once.
    pub warnings: Vec<String>,
    /// Stored tensors that a layer reads with their axes in another order.
    pub reordered: BTreeSet<String>,
    names: HashMap<String, usize>,
    owned: HashSet<usize>,
    symbols: Symbols,
    files: BTreeMap<String, Option<Bytes>>,
    estimated: bool,
    /// Nodes run so far.
    pub steps: usize,
    /// Tensors read so far, by the place of their message, which stays where it is while the model is walked.
    met: HashMap<usize, usize>,
    /// Calls in progress whose nodes are copies, so that the place of a message says nothing.
    pub copies: usize,
    /// Which branch of an `If` was found to cost more.
    pub choices: HashMap<String, bool>,
}

/// Nodes that the walk runs at most, unrolled loops and calls included.
const MAX_STEPS: usize = 2_000_000;

/// Nesting of subgraphs and calls.
const MAX_DEPTH: usize = 48;

/// A state of the walk to come back to.
pub struct Mark {
    tensors: usize,
    layers: usize,
    edges: usize,
    weights: usize,
    aliases: usize,
    warnings: usize,
    owned: HashSet<usize>,
    names: HashMap<String, usize>,
}

/// Versions that a list of imports states.
pub fn opsets(imports: &[OperatorSetIdProto]) -> Opsets {
    let name = |d: &str| if d == "ai.onnx" { String::new() } else { d.to_owned() };
    Rc::new(imports.iter().map(|o| (name(&o.domain), o.version)).collect())
}

impl Mark {
    /// Layers that there were.
    pub fn layers(&self) -> usize {
        self.layers
    }
}

impl<'m> Walk<'m> {
    /// Starts at a model.
    pub fn new(path: &'m Path, model: &'m ModelProto, symbols: Symbols) -> Self {
        let functions = model.functions.iter().map(|f| ((f.domain.as_str(), f.name.as_str()), f)).collect();
        Self {
            path,
            functions,
            symbols,
            tensors: Vec::new(),
            layers: Vec::new(),
            edges: Vec::new(),
            weights: Vec::new(),
            materialized: HashMap::new(),
            aliases: Vec::new(),
            warnings: Vec::new(),
            reordered: BTreeSet::new(),
            names: HashMap::new(),
            owned: HashSet::new(),
            files: BTreeMap::new(),
            estimated: false,
            steps: 0,
            met: HashMap::new(),
            copies: 0,
            choices: HashMap::new(),
        }
    }

    /// Says something once.
    pub fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) && self.warnings.len() < 200 {
            self.warnings.push(text);
        }
    }

    /// An error at a node.
    pub fn fault(&self, node: &str, reason: impl std::fmt::Display) -> Error {
        load::bad(self.path, format!("node `{node}`: {reason}"))
    }

    /// The state now.
    pub fn mark(&self) -> Mark {
        Mark {
            tensors: self.tensors.len(),
            layers: self.layers.len(),
            edges: self.edges.len(),
            weights: self.weights.len(),
            aliases: self.aliases.len(),
            warnings: self.warnings.len(),
            owned: self.owned.clone(),
            names: self.names.clone(),
        }
    }

    /// Back to a state.
    pub fn rollback(&mut self, mark: Mark) {
        self.tensors.truncate(mark.tensors);
        self.layers.truncate(mark.layers);
        self.edges.truncate(mark.edges);
        self.weights.truncate(mark.weights);
        self.aliases.truncate(mark.aliases);
        self.warnings.truncate(mark.warnings);
        self.owned = mark.owned;
        self.names = mark.names;
        self.met.retain(|_, id| *id < mark.tensors);
        self.materialized.retain(|_, at| *at < mark.layers);
    }

    /// Adds a tensor.
    pub fn add(&mut self, name: &str, info: Info, layer: Option<(usize, u32)>, sources: Vec<usize>) -> usize {
        self.tensors.push(Known { name: name.to_owned(), info, layer, sources, stored: None, from_node: false });
        self.tensors.len() - 1
    }

    /// Adds a stored tensor.
    pub fn store(&mut self, name: &str, mut info: Info, payload: Payload) -> usize {
        let id = self.tensors.len();
        info.constant = true;
        info.origin = Some(Origin { root: id, order: Order::AsStored });
        self.weights.push(Stored { name: name.to_owned(), elem: info.elem, shape: info.shape.clone(), payload });
        let stored = Some(self.weights.len() - 1);
        self.tensors.push(Known {
            name: name.to_owned(),
            info,
            layer: None,
            sources: Vec::new(),
            stored,
            from_node: false,
        });
        id
    }

    /// Adds a graph input.
    pub fn input(&mut self, name: &str, info: Info) -> usize {
        let shape = info.shape.clone();
        let unique = self.unique(name, name);
        self.layers.push(Layer {
            name: unique,
            op: LayerOp::Input,
            spelled: "Input".to_owned(),
            outputs: vec![Tensor { name: name.to_owned(), shape }],
            params: Vec::new(),
        });
        self.add(name, info, Some((self.layers.len() - 1, 0)), Vec::new())
    }

    /// Reads the stored tensors of a graph into a scope.
    pub fn initializers(&mut self, graph: &GraphProto, scope: &mut Scope) -> Result<()> {
        for t in &graph.initializer {
            let id = self.initializer(&t.name, t)?;
            scope.bind(&t.name, id);
        }
        for t in &graph.sparse_initializer {
            let Some(values) = &t.values else { continue };
            let shape = t.dims.iter().map(|&d| u64::try_from(d)).collect::<std::result::Result<Vec<_>, _>>();
            let shape = shape.map_err(|_| self.fault(&values.name, "has a negative extent"))?;
            value::count(&shape).map_err(|e| self.fault(&values.name, e))?;
            let info = Info::new(value::Elem::from_onnx(values.data_type), shape);
            let id = self.store(&values.name, info, Payload::Missing);
            scope.bind(&values.name, id);
        }
        Ok(())
    }

    /// Reads one stored tensor; a body that runs again has it already.
    pub fn initializer(&mut self, name: &str, t: &TensorProto) -> Result<usize> {
        let key = std::ptr::from_ref(t) as usize;
        if self.copies > 0 {
            return self.read(name, t);
        }
        if let Some(&id) = self.met.get(&key).filter(|&&id| self.tensors[id].name == name) {
            return Ok(id);
        }
        let id = self.read(name, t)?;
        self.met.insert(key, id);
        Ok(id)
    }

    fn read(&mut self, name: &str, t: &TensorProto) -> Result<usize> {
        let at = |e: String| load::bad(self.path, format!("tensor `{name}` {e}"));
        let mut info = consts::read(t).map_err(at)?;
        let mut payload = consts::payload(t).map_err(at)?;
        if t.data_location == EXTERNAL {
            payload = self.external(name, t, &info)?;
            if info.count() <= value::FOLD_LIMIT
                && let Some(d) = consts::decode(info.elem, info.count(), &payload)
            {
                info = info.with_data(Some(d));
            }
        } else if matches!(payload, Payload::Missing) && info.count() > 0 && info.elem != value::Elem::Text {
            self.warn(format!(
                "the model was saved without the elements of `{name}` and maybe others; only shapes are known"
            ));
        }
        Ok(self.store(name, info, payload))
    }

    /// Reads the tensor of a `Constant` node.
    pub fn constant_node(&mut self, name: &str, t: &TensorProto) -> Result<usize> {
        let id = self.initializer(name, t)?;
        self.tensors[id].from_node = true;
        Ok(id)
    }

    /// Elements that lie in a file beside the model.
    fn external(&mut self, name: &str, t: &TensorProto, info: &Info) -> Result<Payload> {
        let get = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let Some(location) = get("location") else {
            self.warn(format!("`{name}` does not say which file holds its elements; only its shape is known"));
            return Ok(Payload::Missing);
        };
        let plain = Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !plain {
            self.warn(format!("`{name}` points outside the model's folder (`{location}`), which is not followed; only its shape is known"));
            return Ok(Payload::Missing);
        }
        if !self.files.contains_key(location) {
            let file = self.path.parent().unwrap_or(Path::new("")).join(location);
            let bytes = load::map(&file).ok();
            if bytes.is_none() {
                self.warn(format!("{} is missing or can't be read: the weights in it are known by shape only; put it beside the model", file.display()));
            }
            self.files.insert(location.to_owned(), bytes);
        }
        let Some(Some(bytes)) = self.files.get(location) else { return Ok(Payload::Missing) };
        let number = |key: &str| get(key).map_or(Some(0), |v| v.trim().parse::<usize>().ok());
        let want = (u128::from(info.count()) * u128::from(info.elem.bits())).div_ceil(8);
        let (from, length) = match (number("offset"), number("length")) {
            (Some(from), Some(0)) => (from, usize::try_from(want).unwrap_or(usize::MAX)),
            (Some(from), Some(length)) => (from, length),
            _ => {
                return Err(load::bad(
                    self.path,
                    format!("tensor `{name}` has an offset or a length that is not a number"),
                ));
            }
        };
        match from.checked_add(length).filter(|&to| to <= bytes.len() && length as u128 == want) {
            Some(to) => Ok(Payload::Raw(bytes.slice(from..to))),
            None => {
                let held = bytes.len();
                self.warn(format!("`{name}` claims bytes {from}+{length} of {location} for {want} bytes of elements, the file has {held}; only its shape is known"));
                Ok(Payload::Missing)
            }
        }
    }

    /// Runs the nodes of a graph.
    pub fn run(
        &mut self,
        nodes: &[NodeProto],
        hints: &[ValueInfoProto],
        outputs: &[ValueInfoProto],
        scope: &mut Scope,
        sets: &Opsets,
    ) -> Result<()> {
        if scope.depth > MAX_DEPTH {
            return Err(load::bad(
                self.path,
                format!("subgraphs or functions nest more than {MAX_DEPTH} deep; does one call itself?"),
            ));
        }
        let order = order(nodes, scope).map_err(|Stuck { node, reason }| self.fault(&node, reason))?;
        let hints: HashMap<&str, &ValueInfoProto> = hints.iter().chain(outputs).map(|v| (v.name.as_str(), v)).collect();
        for i in order {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(load::bad(
                    self.path,
                    format!("takes more than {MAX_STEPS} steps, unrolled loops included"),
                ));
            }
            self.step(&nodes[i], &hints, scope, sets)?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        node: &NodeProto,
        hints: &HashMap<&str, &ValueInfoProto>,
        scope: &mut Scope,
        sets: &Opsets,
    ) -> Result<()> {
        let ids: Vec<Option<usize>> =
            node.input.iter().map(|n| if n.is_empty() { None } else { scope.find(n) }).collect();
        if let Some(outs) = self.control(node, &ids, scope, sets)? {
            for (name, id) in node.output.iter().zip(outs) {
                if !name.is_empty() {
                    let shape = self.tensors[id].info.shape.clone();
                    self.aliases.push(Tensor { name: name.clone(), shape });
                    scope.bind(name, id);
                }
            }
            return Ok(());
        }
        let ins: Vec<Option<Info>> = ids.iter().map(|i| i.map(|i| self.tensors[i].info.clone())).collect();
        let domain = if node.domain == "ai.onnx" { "" } else { node.domain.as_str() };
        let opset = sets.get(domain).copied().unwrap_or(if domain.is_empty() { NEWEST_OPSET } else { 1 });
        let hints = node.output.iter().map(|o| hints.get(o.as_str()).and_then(|v| self.symbols.hint(v))).collect();
        let constant = ins.iter().flatten().all(|i| i.constant);
        let mut op = Op { node, opset, ins, hints, notes: Vec::new() };
        let name = label(node);
        let mut outs = match infer::infer(&mut op) {
            Ok(Some(outs)) => outs,
            Ok(None) => {
                let domain = if domain.is_empty() { "the standard" } else { domain };
                self.warn(format!("`{name}`: operator {} of {domain} is not known; it is carried as memory traffic and its MACs are not counted", node.op_type));
                self.estimated = true;
                return self.finish(&mut op, &ids, Vec::new(), scope);
            }
            Err(e) if e.contains(UNKNOWN) || self.estimated => {
                op.notes.push(format!("{e}; its output shape is taken from the file or from its input"));
                self.estimated = true;
                infer::carry(&mut op)
            }
            Err(e) => return Err(self.fault(&name, format!("{} {e}", node.op_type))),
        };
        outs.truncate(node.output.len());
        if !op.notes.is_empty() {
            self.estimated = true;
        }
        for out in &outs {
            value::count(&out.shape).map_err(|e| self.fault(&name, format!("{} {e}", node.op_type)))?;
        }
        let random = node.op_type.starts_with("Random") || matches!(node.op_type.as_str(), "Bernoulli" | "Multinomial");
        if !random && (constant || outs.iter().all(|o| o.constant)) {
            self.fold(&op, &ids, outs, scope)
        } else {
            self.finish(&mut op, &ids, outs, scope)
        }
    }

    /// Keeps the outputs of a node that does the same for every input: they are constants, not layers.
    fn fold(&mut self, op: &Op, ids: &[Option<usize>], outs: Vec<Info>, scope: &mut Scope) -> Result<()> {
        let sources: Vec<usize> = ids.iter().flatten().copied().collect();
        for (name, mut info) in op.node.output.iter().zip(outs) {
            info.constant = true;
            let id = match op.kind() {
                "Constant" => match op.tensor("value") {
                    Some(t) => self.constant_node(name, t)?,
                    None => {
                        let id = self.store(name, info, Payload::Missing);
                        self.tensors[id].from_node = true;
                        id
                    }
                },
                // Models without weights generate them from a stored shape.
                "ConstantOfShape"
                    if sources.iter().all(|&s| self.tensors[s].stored.is_some() && !self.tensors[s].from_node) =>
                {
                    let fill = op
                        .tensor("value")
                        .and_then(|t| consts::read(t).ok())
                        .and_then(|i| i.floats()?.first().copied());
                    self.store(name, info, Payload::Fill(fill.unwrap_or(0.0)))
                }
                _ => self.add(name, info, None, sources.clone()),
            };
            if !name.is_empty() {
                scope.bind(name, id);
            }
        }
        Ok(())
    }

    fn finish(&mut self, op: &mut Op, ids: &[Option<usize>], mut outs: Vec<Info>, scope: &mut Scope) -> Result<()> {
        let unknown = outs.is_empty();
        if unknown {
            outs = infer::carry(op);
        }
        let name = label(op.node);
        for note in std::mem::take(&mut op.notes) {
            self.warn(format!("`{name}`: {} {note}", op.kind()));
        }
        let fault = |w: &Self, e: String| w.fault(&name, format!("{} {e}", op.node.op_type));
        let made = match self.emit(op, ids, outs.clone(), scope, unknown) {
            // After a guessed shape a contradiction is no fault of the model.
            Err(e) if self.estimated => {
                self.warn(format!("`{name}`: {} {e}; it is carried as memory traffic", op.kind()));
                self.emit(op, ids, outs, scope, true).map_err(|e| fault(self, e))?
            }
            made => made.map_err(|e| fault(self, e))?,
        };
        for (name, id) in op.node.output.iter().zip(made) {
            if !name.is_empty() {
                scope.bind(name, id);
            }
        }
        Ok(())
    }

    /// A layer name that nobody has: the wish, else the fallback, else the fallback with a number.
    pub fn unique(&mut self, wish: &str, fallback: &str) -> String {
        for name in [wish, fallback] {
            if !name.is_empty() && !self.names.contains_key(name) {
                self.names.insert(name.to_owned(), 1);
                return name.to_owned();
            }
        }
        let base = if fallback.is_empty() { wish } else { fallback };
        loop {
            let n = self.names.entry(base.to_owned()).or_insert(1);
            *n += 1;
            let name = format!("{base}#{n}");
            if !self.names.contains_key(&name) {
                self.names.insert(name.clone(), 1);
                return name;
            }
        }
    }

    /// A parameter of a layer from a constant tensor: the stored tensors behind it, each counted by its first reader.
    pub fn parameters(&mut self, id: usize, role: Role, transposed: bool, into: &mut Vec<Param>) {
        let info = self.tensors[id].info.clone();
        let named = |w: &Walk, i: usize| w.tensors[i].name.clone();
        if self.tensors[id].stored.is_some() {
            let shared = !self.owned.insert(id);
            into.push(Param { name: named(self, id), shape: info.shape, role, transposed, shared });
            return;
        }
        let roots = self.roots(id);
        let main = info
            .origin
            .as_ref()
            .filter(|o| self.tensors[o.root].info.count() == info.count())
            .filter(|_| role != Role::Constant);
        if let Some(origin) = main {
            let shared = !self.owned.insert(origin.root);
            let stored = &self.tensors[origin.root];
            // A stored matrix that is only transposed on the way is described as it is stored.
            let (shape, transposed) = match &origin.order {
                Order::Permuted(p) if p[..] == [1, 0] => (stored.info.shape.clone(), !transposed),
                Order::AsStored => (info.shape.clone(), transposed),
                Order::Permuted(_) | Order::Lost => {
                    self.reordered.insert(stored.name.clone());
                    (info.shape.clone(), transposed)
                }
            };
            into.push(Param { name: stored.name.clone(), shape, role, transposed, shared });
        } else if role != Role::Constant || roots.is_empty() {
            // Computed from constants alone: it is read, but what is stored are the tensors behind it. What a generator
            // node makes is stored nowhere else, so as a weight it counts.
            let counts = roots.is_empty() && role != Role::Constant;
            into.push(Param { name: named(self, id), shape: info.shape, role, transposed, shared: !counts });
        }
        for root in roots {
            if self.owned.insert(root) {
                let stored = &self.tensors[root];
                let role = if role == Role::Weight { Role::Scale } else { role };
                into.push(Param {
                    name: stored.name.clone(),
                    shape: stored.info.shape.clone(),
                    role,
                    transposed: false,
                    shared: false,
                });
            }
        }
    }

    /// Stored tensors that a folded constant was computed from.
    fn roots(&self, id: usize) -> Vec<usize> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        let mut todo = vec![id];
        while let Some(i) = todo.pop() {
            if !seen.insert(i) {
                continue;
            }
            let t = &self.tensors[i];
            if t.layer.is_some() {
                continue;
            }
            if t.stored.is_some() {
                found.push(i);
            }
            todo.extend(&t.sources);
        }
        found.sort_unstable();
        found
    }

    /// Elements of weights that the model generates instead of storing them.
    pub fn generated(&self) -> u64 {
        self.weights
            .iter()
            .filter(|w| matches!(w.payload, Payload::Fill(_)))
            .fold(0u64, |sum, w| sum.saturating_add(w.shape.iter().fold(1, |p, &d| p.saturating_mul(d))))
    }

    /// Elements of stored tensors that layers have as their parameters.
    pub fn owned_elements(&self) -> u64 {
        self.owned.iter().fold(0u64, |sum, &i| sum.saturating_add(self.tensors[i].info.count()))
    }
}
