//! A tiny builder of ONNX models for tests.
#![allow(dead_code)]

use bytes::Bytes;
use hwsim::error::Result;
use hwsim::workload::onnx::proto::*;
use hwsim::workload::onnx::{Model, from_model};
use hwsim::workload::options::Options;
use std::path::Path;

/// A model under construction.
pub struct Builder {
    pub model: ModelProto,
}

/// A value with known extents, `-1` open, of an element type.
pub fn value(name: &str, elem: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|&d| Dimension { value: (d >= 0).then_some(dimension::Value::Known(d)) }).collect();
    typed(name, elem, dim)
}

/// A value with named extents.
pub fn symbolic(name: &str, elem: i32, dims: &[&str]) -> ValueInfoProto {
    let one = |d: &&str| match d.parse() {
        Ok(k) => dimension::Value::Known(k),
        Err(_) => dimension::Value::Symbol((*d).to_owned()),
    };
    typed(name, elem, dims.iter().map(|d| Dimension { value: Some(one(d)) }).collect())
}

fn typed(name: &str, elem_type: i32, dim: Vec<Dimension>) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type, shape: Some(TensorShapeProto { dim }) };
    let value = Some(type_proto::Value::Tensor(tensor));
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { value }) }
}

/// A float tensor of zeros.
pub fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let n: i64 = dims.iter().product();
    let raw_data = Bytes::from(vec![0u8; n as usize * 4]);
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: 1, raw_data, ..TensorProto::default() }
}

/// An int8 tensor of zeros.
pub fn bytes(name: &str, dims: &[i64]) -> TensorProto {
    let n: i64 = dims.iter().product();
    let raw_data = Bytes::from(vec![0u8; n as usize]);
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: 3, raw_data, ..TensorProto::default() }
}

/// A list of int64.
pub fn ints(name: &str, values: &[i64]) -> TensorProto {
    let raw_data = Bytes::from(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    let dims = vec![values.len() as i64];
    TensorProto { name: name.to_owned(), dims, data_type: 7, raw_data, ..TensorProto::default() }
}

/// An int64 or boolean scalar.
pub fn scalar(name: &str, data_type: i32, v: i64) -> TensorProto {
    let raw = if data_type == 9 { vec![v as u8] } else { v.to_le_bytes().to_vec() };
    TensorProto { name: name.to_owned(), dims: vec![], data_type, raw_data: raw.into(), ..TensorProto::default() }
}

/// An integer attribute.
pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: 2, i, ..AttributeProto::default() }
}

/// A list of integers.
pub fn list(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: 7, ints: v.to_vec(), ..AttributeProto::default() }
}

/// Text.
pub fn text(name: &str, s: &str) -> AttributeProto {
    let s = Bytes::copy_from_slice(s.as_bytes());
    AttributeProto { name: name.to_owned(), r#type: 3, s, ..AttributeProto::default() }
}

/// A subgraph.
pub fn body(name: &str, g: GraphProto) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: 5, g: Some(g), ..AttributeProto::default() }
}

/// A node; an input named "" is left out.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let own = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect();
    NodeProto { op_type: op.to_owned(), input: own(inputs), output: own(outputs), attribute, ..NodeProto::default() }
}

/// A node of the `com.microsoft` domain.
pub fn contrib(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto { domain: "com.microsoft".to_owned(), ..node(op, inputs, outputs, attribute) }
}

impl Builder {
    /// An empty model of an operator set.
    pub fn new(opset: i64) -> Self {
        let set = |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version };
        let graph = GraphProto { name: "test".to_owned(), ..GraphProto::default() };
        let opset_import = vec![set("", opset), set("com.microsoft", 1)];
        Self { model: ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..ModelProto::default() } }
    }

    fn graph(&mut self) -> &mut GraphProto {
        self.model.graph.as_mut().expect("a graph")
    }

    pub fn input(mut self, name: &str, dims: &[i64]) -> Self {
        self.graph().input.push(value(name, 1, dims));
        self
    }

    pub fn value(mut self, v: ValueInfoProto) -> Self {
        self.graph().input.push(v);
        self
    }

    pub fn output(mut self, name: &str) -> Self {
        // No stated shape: what comes out has to be inferred.
        self.graph().output.push(ValueInfoProto { name: name.to_owned(), r#type: None });
        self
    }

    pub fn weight(mut self, t: TensorProto) -> Self {
        self.graph().initializer.push(t);
        self
    }

    pub fn node(mut self, n: NodeProto) -> Self {
        self.graph().node.push(n);
        self
    }

    /// Imports with these bindings.
    pub fn import_with(&self, options: &Options) -> Result<Model> {
        from_model(Path::new("test.onnx"), &self.model, options)
    }

    /// Imports.
    pub fn import(&self) -> Result<Model> {
        self.import_with(&Options::default())
    }

    /// The message of the error that importing ends in.
    pub fn refusal(&self) -> String {
        self.import().expect_err("must be refused").to_string()
    }
}

/// Shape of a tensor by name.
pub fn shape(m: &Model, tensor: &str) -> Vec<u64> {
    let outputs = m.graph.layers().flat_map(|l| &l.outputs);
    let found = m.graph.constants.iter().chain(outputs).find(|t| t.name == tensor);
    found.unwrap_or_else(|| panic!("no tensor `{tensor}`")).shape.clone()
}

/// Multiply–accumulates in all.
pub fn macs(m: &Model) -> u64 {
    m.graph.total_macs().expect("a count")
}
