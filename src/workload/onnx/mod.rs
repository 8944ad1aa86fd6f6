//! ONNX models: from the file to a network whose every shape is known.
//!
//! [`load`] maps and decodes the file into the messages of [`proto`]; [`dims`] binds open sizes; [`walk`] runs over the
//! nodes in the order of [`scope`], asks [`infer`] for their outputs, folds constants ([`consts`], [`value`]) and inlines
//! bodies (`control`); what depends on the input becomes layers (`convert`, `compose`). Weights are never read.

mod compose;
pub mod consts;
mod control;
mod convert;
pub mod dims;
mod infer;
pub mod load;
pub mod proto;
mod scope;
pub mod value;
mod walk;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::workload::graph::Graph;
use crate::workload::layer::Tensor;
use crate::workload::options::Options;
use crate::workload::weights::Weights;
use infer::NEWEST_OPSET;
use load::bad;
use proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use std::path::Path;

/// An imported model.
#[derive(Debug)]
pub struct Model {
    /// The network.
    pub graph: Graph,
    /// Where its stored tensors are.
    pub weights: Weights,
}

/// Imports the model in a file.
///
/// # Errors
/// [`crate::error::Error::Io`] when it can't be read, [`crate::error::Error::Model`] when it is damaged, not an ONNX
/// model, or contradicts itself (the message names the node).
pub fn import(path: &Path, options: &Options) -> Result<Model> {
    let bytes = load::map(path)?;
    from_model(path, &load::decode(path, bytes)?, options)
}

/// Imports a decoded model; `path` is for messages and for finding external data.
///
/// # Errors
/// As [`import`].
pub fn from_model(path: &Path, model: &ModelProto, options: &Options) -> Result<Model> {
    let mut first = None;
    for image in dims::IMAGES {
        match with_images(path, model, options, image) {
            Err(fault) if fault.guessed => first = first.or(Some(fault.error)),
            Err(fault) => return Err(first.unwrap_or(fault.error)),
            Ok(model) => return Ok(model),
        }
    }
    Err(first.unwrap_or_else(|| bad(path, "fits none of the sizes that were tried")))
}

/// Why an import failed, and whether another guess at open sizes could mend it.
struct Fault {
    error: Error,
    guessed: bool,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self { error, guessed: false }
    }
}

fn with_images(path: &Path, model: &ModelProto, options: &Options, image: (u64, u64)) -> Result<Model, Fault> {
    let Some(main) = &model.graph else { return Err(bad(path, "is not an ONNX model: it has no graph").into()) };
    let stored: std::collections::HashSet<&str> = main.initializer.iter().map(|t| t.name.as_str()).collect();
    // Before IR version 4 every initializer is listed as an input too.
    let inputs: Vec<_> = main.input.iter().filter(|i| !stored.contains(i.name.as_str())).collect();
    for name in options.inputs.keys() {
        if !inputs.iter().any(|i| i.name == *name) {
            let known: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
            return Err(bad(path, format!("has no input `{name}`; its inputs are {}", known.join(", "))).into());
        }
    }
    let mut symbols = dims::Symbols::new(options, &inputs, image);
    let mut chosen = Vec::new();
    let mut bound = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let stated = symbols.input(input, &mut chosen);
        let given = options.inputs.get(&input.name);
        let mut info = stated.unwrap_or_else(|| value::Info::new(value::Elem::Unknown, Vec::new()));
        if let Some(shape) = given {
            info.shape.clone_from(shape);
            let prefix = format!(" of `{}`=", input.name);
            chosen.retain(|c| !c.contains(&prefix));
        }
        bound.push((input.name.as_str(), info));
    }
    rebatch(&mut bound, options);
    for (name, info) in &bound {
        value::count(&info.shape).map_err(|e| bad(path, format!("input `{name}` {e}")))?;
    }
    let mut walk = walk::Walk::new(path, model, symbols);
    if !chosen.is_empty() {
        walk.warn(format!(
            "open sizes were set to {}; bind them with --dim NAME=SIZE or --input NAME=AxBxC",
            chosen.join(", ")
        ));
    }
    let sets = walk::opsets(&model.opset_import);
    if let Some(&v) = sets.get("").filter(|&&v| v > NEWEST_OPSET) {
        walk.warn(format!("operator set {v} is newer than {NEWEST_OPSET}, the newest that is known; operators are read as they were in that one"));
    }
    let mut scope = scope::Scope::default();
    for (name, info) in bound {
        let id = walk.input(name, info);
        scope.bind(name, id);
    }
    walk.initializers(main, &mut scope)?;
    // A contradiction after guessed sizes says more about the guess than about the model.
    if let Err(error) = walk.run(&main.node, &main.value_info, &main.output, &mut scope, &sets) {
        let Error::Model { path, reason } = error else { return Err(error.into()) };
        if chosen.is_empty() {
            return Err(bad(&path, reason).into());
        }
        let hint =
            format!("{reason} (open sizes were set to {}; bind them with --input NAME=AxBxC)", chosen.join(", "));
        return Err(Fault { error: bad(&path, hint), guessed: true });
    }
    for out in &main.output {
        if scope.find(&out.name).is_none() {
            return Err(bad(path, format!("its output `{}` is produced by no node", out.name)).into());
        }
    }
    Ok(finish(path, model, walk)?)
}

/// Replaces a batch that the file fixes: the first axis of every input, where they all agree on it.
fn rebatch(inputs: &mut [(&str, value::Info)], options: &Options) {
    let Some(batch) = options.batch else { return };
    let free = |name: &str, info: &value::Info| info.rank() > 1 && !options.inputs.contains_key(name);
    let mut firsts = inputs.iter().filter(|(n, i)| free(n, i)).map(|(_, i)| i.shape[0]);
    let Some(first) = firsts.next() else { return };
    if firsts.all(|f| f == first) {
        inputs.iter_mut().filter(|(n, i)| free(n, i)).for_each(|(_, i)| i.shape[0] = batch);
    }
}

fn finish(path: &Path, model: &ModelProto, walk: walk::Walk) -> Result<Model> {
    let name = path.file_stem().map_or_else(|| "model".to_owned(), |n| n.to_string_lossy().into_owned());
    let unowned = walk.generated().saturating_add(stored_elements(model)).saturating_sub(walk.owned_elements());
    let mut constants: Vec<Tensor> = walk
        .tensors
        .iter()
        .filter(|t| t.layer.is_none() && t.info.sequence.is_none() && !t.name.is_empty())
        .map(|t| Tensor { name: t.name.clone(), shape: t.info.shape.clone() })
        .collect();
    constants.extend(walk.aliases.iter().cloned());
    let mut weights = Weights::new(walk.weights);
    weights.reordered = walk.reordered;
    let dtype = main_dtype(&weights);
    let mut graph = Graph::from_layers(&name, walk.layers, &walk.edges)?;
    graph.sources = vec![path.display().to_string()];
    graph.warnings = walk.warnings;
    graph.constants = constants;
    graph.unowned = unowned;
    graph.answers = model.graph.iter().flat_map(|g| &g.output).map(|o| o.name.clone()).collect();
    graph.dtype = dtype;
    // Counts past 64 bits are an error here, not a surprise later.
    graph.total_macs()?;
    graph.total_parameters()?;
    Ok(Model { graph, weights })
}

/// The format that most stored elements have, of those that products run in.
fn main_dtype(weights: &Weights) -> Option<DType> {
    let mut sums: Vec<(DType, u64)> = Vec::new();
    for stored in weights.iter() {
        let Some(dtype) = stored.elem.dtype() else { continue };
        let n = stored.shape.iter().fold(1u64, |p, &d| p.saturating_mul(d));
        match sums.iter_mut().find(|s| s.0 == dtype) {
            Some(s) => s.1 = s.1.saturating_add(n),
            None => sums.push((dtype, n)),
        }
    }
    sums.into_iter().max_by_key(|s| s.1).map(|s| s.0)
}

/// Elements that a model stores in initializers and `Constant` nodes, bodies included.
fn stored_elements(model: &ModelProto) -> u64 {
    let functions = model.functions.iter().map(|f| of_nodes(&f.node));
    functions.chain(model.graph.iter().map(of_graph)).fold(0, u64::saturating_add)
}

fn of_graph(g: &GraphProto) -> u64 {
    let dense = g.initializer.iter().map(of_tensor);
    let sparse = g.sparse_initializer.iter().map(|t| product(&t.dims));
    dense.chain(sparse).chain([of_nodes(&g.node)]).fold(0, u64::saturating_add)
}

fn of_nodes(nodes: &[NodeProto]) -> u64 {
    nodes
        .iter()
        .flat_map(|n| n.attribute.iter().map(move |a| (n, a)))
        .map(|(n, a)| match (&a.g, &a.t, n.op_type.as_str()) {
            (Some(g), ..) => of_graph(g),
            (None, Some(t), "Constant") if a.name == "value" => of_tensor(t),
            (None, None, "Constant") => match a.name.as_str() {
                "value_int" | "value_float" | "value_string" => 1,
                _ => {
                    (a.ints.len() + a.floats.len() + a.strings.len()) as u64
                        + a.sparse_tensor.as_ref().map_or(0, |s| product(&s.dims))
                }
            },
            _ => 0,
        })
        .fold(0, u64::saturating_add)
}

fn of_tensor(t: &TensorProto) -> u64 {
    product(&t.dims)
}

fn product(dims: &[i64]) -> u64 {
    dims.iter().fold(1u64, |p, &d| p.saturating_mul(u64::try_from(d).unwrap_or(0)))
}
