//! Running ONNX networks: an existing runtime, [rten](https://docs.rs/rten), behind what calibration asks of one.
//!
//! Graph optimisation is off, so that every tensor of the file keeps its name and can be asked for. What the runtime does
//! not have (fp16 arithmetic, most operators of other domains) is an error that names the operator.

use super::npz::Array;
#[cfg(feature = "runtime")]
use super::wire::{Piece, Pieces, fields};
use crate::error::{Error, Result};
use crate::workload::onnx::load;
use crate::workload::onnx::proto::{Dimension, ModelProto, ValueInfoProto, dimension, type_proto};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// A tensor that a network reads or answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its extents, where the file states them; open ones by their symbol, which may be empty.
    pub shape: Option<Vec<Extent>>,
    /// `TensorProto.DataType` of its elements.
    pub elem: i32,
}

/// One stated extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Of this size.
    Fixed(u64),
    /// Open, with a name.
    Open(String),
}

/// A network that can be run.
pub struct Session {
    path: PathBuf,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    #[cfg(feature = "runtime")]
    model: rten::Model,
}

impl Session {
    /// Loads an ONNX file, elements in other files included.
    ///
    /// # Errors
    /// What is no model, and an operator or element type that the runtime does not have.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_bytes(path, load::map(path)?)
    }

    /// The same from its bytes; `path` is for messages and for finding elements in other files.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn from_bytes(path: &Path, bytes: Bytes) -> Result<Self> {
        let proto = load::decode(path, bytes.clone())?;
        let (inputs, outputs) = ports(&proto);
        #[cfg(not(feature = "runtime"))]
        {
            let _ = (inputs, outputs);
            let reason = "needs a runtime to run calibration inputs, and hwsim was built without the feature `runtime`";
            Err(load::bad(path, format!("{reason}; {ELSEWHERE}")))
        }
        #[cfg(feature = "runtime")]
        {
            let model = self::load(path, &bytes, &proto)?;
            Ok(Self { path: path.to_path_buf(), inputs, outputs, model })
        }
    }

    /// What it reads, tensors that are stored with it left out.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What it answers with.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Whether a tensor of this name is computed in the main graph.
    pub fn knows(&self, tensor: &str) -> bool {
        #[cfg(feature = "runtime")]
        return self.model.find_node(tensor).is_some();
        #[cfg(not(feature = "runtime"))]
        return self.outputs.iter().any(|p| p.name == tensor);
    }

    /// Runs it once; `wanted` are names of any of its tensors, answered in that order. Answers that are no numbers (or
    /// sequences) come as empty arrays.
    ///
    /// # Errors
    /// An input that is missing or has another element type, rank or extents; an operator that fails, by its name.
    pub fn run(&self, feeds: &BTreeMap<String, Array>, wanted: &[&str]) -> Result<Vec<Array>> {
        self.check(feeds)?;
        self.compute(feeds, wanted)
    }

    /// Whether arrays can be its inputs.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self, feeds: &BTreeMap<String, Array>) -> Result<()> {
        for port in &self.inputs {
            let array = feeds.get(&port.name).ok_or_else(|| self.bad(format!("needs an array `{}`", port.name)))?;
            port.check(array).map_err(|reason| self.bad(format!("input `{}` {reason}", port.name)))?;
        }
        Ok(())
    }

    fn bad(&self, reason: String) -> Error {
        load::bad(&self.path, reason)
    }

    #[cfg(not(feature = "runtime"))]
    fn compute(&self, _: &BTreeMap<String, Array>, _: &[&str]) -> Result<Vec<Array>> {
        Err(self.bad(format!("cannot be run by this build; {ELSEWHERE}")))
    }

    #[cfg(feature = "runtime")]
    fn compute(&self, feeds: &BTreeMap<String, Array>, wanted: &[&str]) -> Result<Vec<Array>> {
        let id = |name: &str| {
            self.model.find_node(name).ok_or_else(|| self.bad(format!("has no tensor `{name}` in its main graph")))
        };
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for port in &self.inputs {
            let value = value(port, &feeds[&port.name])
                .ok_or_else(|| self.bad(format!("input `{}` is of a type that is not run", port.name)))?;
            inputs.push((id(&port.name)?, value.into()));
        }
        // The runtime takes each tensor once.
        let (mut ids, mut places) = (Vec::new(), Vec::with_capacity(wanted.len()));
        for name in wanted {
            let id = id(name)?;
            places.push(ids.iter().position(|known| *known == id).unwrap_or(ids.len()));
            if places.last() == Some(&ids.len()) {
                ids.push(id);
            }
        }
        let refused = |what: String| self.bad(format!("cannot be run here: {what}; {ELSEWHERE}"));
        // The runtime checks shapes as it goes, but not every combination that a file can ask of it.
        let run = std::panic::AssertUnwindSafe(|| self.model.run(inputs, &ids, None));
        let values = std::panic::catch_unwind(run)
            .map_err(|_| refused("the runtime gave up within an operator".to_owned()))?
            .map_err(|e| refused(e.to_string()))?;
        Ok(places.into_iter().map(|i| array(&values[i])).collect())
    }
}

/// What to do where the runtime is of no help.
const ELSEWHERE: &str = "scripts/calibration_statistics.py makes statistics with onnxruntime";

impl Port {
    /// Whether an array can be this input.
    fn check(&self, array: &Array) -> Result<(), String> {
        let floats = matches!(self.elem, 1 | 10 | 11 | 16);
        if floats != array.integers.is_none() {
            let (wants, has) = if floats { ("floats", "integers") } else { ("integers", "floats") };
            return Err(format!("takes {wants}, and its array holds {has}"));
        }
        if array.integers.iter().flatten().any(|&i| i32::try_from(i).is_err()) {
            return Err("holds integers past 32 bits, which the runtime does not have".to_owned());
        }
        let Some(shape) = &self.shape else { return Ok(()) };
        let fits = |(stated, &given): (&Extent, &u64)| match stated {
            Extent::Fixed(n) => *n == given,
            Extent::Open(_) => true,
        };
        if shape.len() == array.shape.len() && shape.iter().zip(&array.shape).all(fits) {
            return Ok(());
        }
        let text = |e: &Extent| match e {
            Extent::Fixed(n) => n.to_string(),
            Extent::Open(symbol) if symbol.is_empty() => "?".to_owned(),
            Extent::Open(symbol) => symbol.clone(),
        };
        let stated: Vec<String> = shape.iter().map(text).collect();
        let given: Vec<String> = array.shape.iter().map(u64::to_string).collect();
        Err(format!("is {} where its array is {}", stated.join("×"), given.join("×")))
    }
}

/// Inputs and outputs of a model.
fn ports(model: &ModelProto) -> (Vec<Port>, Vec<Port>) {
    let Some(graph) = &model.graph else { return Default::default() };
    let stored: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let port = |info: &ValueInfoProto| {
        let tensor = info.r#type.as_ref().and_then(|t| match &t.value {
            Some(type_proto::Value::Tensor(tensor)) => Some(tensor),
            _ => None,
        });
        let extent = |d: &Dimension| match &d.value {
            Some(dimension::Value::Known(n)) => u64::try_from(*n).map_or(Extent::Open(String::new()), Extent::Fixed),
            Some(dimension::Value::Symbol(s)) => Extent::Open(s.clone()),
            None => Extent::Open(String::new()),
        };
        Port {
            name: info.name.clone(),
            shape: tensor.and_then(|t| t.shape.as_ref()).map(|s| s.dim.iter().map(extent).collect()),
            elem: tensor.map_or(0, |t| t.elem_type),
        }
    };
    let inputs = graph.input.iter().filter(|i| !stored.contains(i.name.as_str())).map(port).collect();
    (inputs, graph.output.iter().map(port).collect())
}

#[cfg(feature = "runtime")]
fn load(path: &Path, bytes: &Bytes, proto: &ModelProto) -> Result<rten::Model> {
    let named = named(bytes).map_err(|e| load::bad(path, e))?;
    let mut options = rten::ModelOptions::with_all_ops();
    options.enable_optimization(false);
    let tensors = proto.graph.iter().flat_map(|g| &g.initializer);
    let outside = tensors.flat_map(|t| &t.external_data).filter(|e| e.key == "location").map(|e| e.value.as_str());
    for location in outside.collect::<HashSet<_>>() {
        let file = path.parent().unwrap_or(Path::new("")).join(location);
        options.external_data(location, std::fs::read(&file).map_err(|e| Error::io(&file, e))?);
    }
    let refused = |what: String| load::bad(path, format!("cannot be run here: {what}; {ELSEWHERE}"));
    let open = std::panic::AssertUnwindSafe(|| options.load(named));
    std::panic::catch_unwind(open)
        .map_err(|_| refused("the runtime gave up while it read the model".to_owned()))?
        .map_err(|e| refused(e.to_string()))
}

/// The model with every node named after its operator and first output: the runtime keeps nodes and tensors in one
/// name space, and its messages name nodes.
#[cfg(feature = "runtime")]
fn named(model: &Bytes) -> Result<Vec<u8>, String> {
    let mut out = Pieces::default();
    for f in fields(model)? {
        match f.number {
            7 if f.wire == 2 => out.message(7, renamed(&model.slice(f.body))?),
            _ => out.bytes(model.slice(f.whole)),
        }
    }
    let mut whole = Vec::with_capacity(out.len as usize);
    for piece in &out.list {
        if let Piece::Bytes(b) = piece {
            whole.extend_from_slice(b);
        }
    }
    Ok(whole)
}

#[cfg(feature = "runtime")]
fn renamed(graph: &Bytes) -> Result<Pieces, String> {
    let mut out = Pieces::default();
    for f in fields(graph)? {
        if f.number != 1 || f.wire != 2 {
            out.bytes(graph.slice(f.whole));
            continue;
        }
        let body = graph.slice(f.body);
        let all = fields(&body)?;
        let text = |number: u64| {
            let field = all.iter().find(|f| f.number == number && f.wire == 2);
            field.map_or("", |f| std::str::from_utf8(&body[f.body.clone()]).unwrap_or_default())
        };
        let mut node = Pieces::default();
        for f in &all {
            let own = body.slice(f.body.clone());
            match f.number {
                3 => {}
                5 if f.wire == 2 => {
                    let mut attribute = Pieces::default();
                    for f in fields(&own)? {
                        match f.number {
                            6 if f.wire == 2 => attribute.message(6, renamed(&own.slice(f.body))?),
                            _ => attribute.bytes(own.slice(f.whole)),
                        }
                    }
                    node.message(5, attribute);
                }
                _ => node.bytes(body.slice(f.whole.clone())),
            }
        }
        let mut name = Pieces::default();
        name.bytes(
            format!("{} {}", text(4), [text(3), text(2)].into_iter().find(|t| !t.is_empty()).unwrap_or_default())
                .into_bytes(),
        );
        node.message(3, name);
        out.message(1, node);
    }
    Ok(out)
}

#[cfg(feature = "runtime")]
fn value(port: &Port, array: &Array) -> Option<rten::Value> {
    let shape: Vec<usize> = array.shape.iter().map(|&d| d as usize).collect();
    match (&array.integers, port.elem) {
        (None, _) => rten::Value::from_shape(shape, array.values.clone()).ok(),
        (Some(i), 2) => rten::Value::from_shape(shape, i.iter().map(|&i| i as u8).collect::<Vec<_>>()).ok(),
        (Some(i), 3) => rten::Value::from_shape(shape, i.iter().map(|&i| i as i8).collect::<Vec<_>>()).ok(),
        (Some(i), _) => rten::Value::from_shape(shape, i.iter().map(|&i| i as i32).collect::<Vec<_>>()).ok(),
    }
}

#[cfg(feature = "runtime")]
fn array(value: &rten::Value) -> Array {
    use rten_tensor::prelude::*;
    let shape: Vec<u64> = value.shape().iter().map(|&d| d as u64).collect();
    match value {
        rten::Value::FloatTensor(t) => Array::new(shape, t.to_vec()),
        rten::Value::Int32Tensor(t) => Array::of_integers(shape, t.iter().map(|&i| i.into()).collect()),
        rten::Value::Int8Tensor(t) => Array::of_integers(shape, t.iter().map(|&i| i.into()).collect()),
        rten::Value::UInt8Tensor(t) => Array::of_integers(shape, t.iter().map(|&i| i.into()).collect()),
        _ => Array::new(vec![0], Vec::new()),
    }
}
