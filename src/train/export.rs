//! Files that the rest of hwsim, and other tools, read: ONNX and safetensors.

use super::network::{Network, Stage};
use crate::error::{Error, Result};
use crate::sparsity::regularize::structure::Layer;
use crate::workload::onnx::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, dimension, type_proto,
};
use prost::Message;
use std::collections::HashMap;

/// Element types of the ONNX specification.
const FLOAT: i32 = 1;
const INT64: i32 = 7;

/// The network as an ONNX model (operator set 17) that reads batches of any size: the bytes of its file. `selecting` puts
/// a Gather in front of a network that reads some of the features alone; without it the model takes those.
pub fn onnx(network: &Network, name: &str, selecting: bool) -> Vec<u8> {
    let mut graph = GraphProto { name: name.to_owned(), ..GraphProto::default() };
    let [c, h, w] = network.input;
    let vector = h * w == 1;
    let delivered = network.selected.as_ref().filter(|_| selecting).map_or(c, |s| s.of);
    let extents: Vec<usize> = if vector { vec![delivered] } else { vec![c, h, w] };
    graph.input.push(value("input", &extents));
    graph.output.push(value("logits", &[network.classes()]));
    let mut at = "input".to_owned();
    if let Some(s) = network.selected.as_ref().filter(|_| selecting) {
        let raw: Vec<u8> = s.features.iter().flat_map(|&i| (i as i64).to_le_bytes()).collect();
        graph.initializer.push(tensor("read", INT64, &[s.features.len()], raw));
        graph.node.push(node("select", "Gather", &["input", "read"], "selected", vec![integer("axis", 1)]));
        at = "selected".to_owned();
    }
    let (mut flat, mut layers, mut pools) = (vector, network.layers.iter().zip(names(network)), 0);
    for (i, stage) in network.stages.iter().enumerate() {
        let last = i + 1 == network.stages.len();
        if let Stage::Pool { side } = *stage {
            pools += 1;
            let (name, sides) = (format!("pool{pools}"), [side as i64; 2]);
            let attributes = vec![integers("kernel_shape", &sides), integers("strides", &sides)];
            graph.node.push(node(&name, "MaxPool", &[&at], &name, attributes));
            at = name;
            continue;
        }
        let Some((layer, name)) = layers.next() else { break };
        if matches!(stage, Stage::Linear { .. }) && !flat {
            graph.node.push(node("flatten", "Flatten", &[&at], "flat", vec![integer("axis", 1)]));
            (at, flat) = ("flat".to_owned(), true);
        }
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let (shape, weights, biases) = parts(network, layer, stage);
        graph.initializer.push(tensor(&weight, FLOAT, &shape, bytes(weights)));
        graph.initializer.push(tensor(&bias, FLOAT, &[layer.outputs], bytes(biases)));
        let out = if last { "logits".to_owned() } else { name.clone() };
        let (operator, attribute) = match stage {
            Stage::Conv { side, .. } => ("Conv", integers("kernel_shape", &[*side as i64; 2])),
            Stage::Linear { .. } | Stage::Pool { .. } => ("Gemm", integer("transB", 1)),
        };
        graph.node.push(node(&name, operator, &[&at, &weight, &bias], &out, vec![attribute]));
        at = out;
        if !last {
            let active = format!("{name}.relu");
            graph.node.push(node(&active, "Relu", &[&at], &active, Vec::new()));
            at = active;
        }
    }
    let model = ModelProto {
        ir_version: 8,
        producer_name: "hwsim".to_owned(),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

/// The weights as a safetensors file: its bytes. The header's metadata has the network's text, and the features that it
/// reads where it does not read all.
///
/// # Errors
/// None for a network that [`Network::parse`] made.
pub fn safetensors(network: &Network) -> Result<Vec<u8>> {
    use ::safetensors::tensor::{Dtype, TensorView};
    let mut all = Vec::new();
    let stages: Vec<&Stage> = network.stages.iter().filter(|s| !matches!(s, Stage::Pool { .. })).collect();
    for ((layer, name), stage) in network.layers.iter().zip(names(network)).zip(stages) {
        let (shape, weights, biases) = parts(network, layer, stage);
        all.push((format!("{name}.weight"), shape, bytes(weights)));
        all.push((format!("{name}.bias"), vec![layer.outputs], bytes(biases)));
    }
    let bad = |e: ::safetensors::SafeTensorError| Error::argument("--output", e.to_string());
    let mut views = Vec::new();
    for (name, shape, data) in &all {
        views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data).map_err(bad)?));
    }
    let mut metadata = HashMap::from([("network".to_owned(), network.describe())]);
    if let Some(s) = &network.selected {
        let features: Vec<String> = s.features.iter().map(usize::to_string).collect();
        // One entry: the order of several would not be the same in every run.
        metadata = HashMap::from([(
            "network".to_owned(),
            format!("{} of features {}", network.describe(), features.join(",")),
        )]);
    }
    ::safetensors::serialize(views, Some(metadata)).map_err(bad)
}

/// Names of the layers with weights: `conv1`, …, `fc1`, ….
pub fn names(network: &Network) -> Vec<String> {
    let (mut convs, mut linears) = (0, 0);
    let name = |s: &Stage| match s {
        Stage::Conv { .. } => {
            convs += 1;
            Some(format!("conv{convs}"))
        }
        Stage::Linear { .. } => {
            linears += 1;
            Some(format!("fc{linears}"))
        }
        Stage::Pool { .. } => None,
    };
    network.stages.iter().filter_map(name).collect()
}

fn parts<'n>(network: &'n Network, layer: &Layer, stage: &Stage) -> (Vec<usize>, &'n [f32], &'n [f32]) {
    let shape = match stage {
        Stage::Conv { side, .. } => vec![layer.outputs, layer.inputs, *side, *side],
        Stage::Linear { .. } | Stage::Pool { .. } => vec![layer.outputs, layer.inputs],
    };
    let bias = layer.bias.map_or(&[][..], |b| &network.parameters[b..b + layer.outputs]);
    (shape, &network.parameters[layer.weights()], bias)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn tensor(name: &str, data_type: i32, shape: &[usize], raw: Vec<u8>) -> TensorProto {
    let dims = shape.iter().map(|&d| d as i64).collect();
    TensorProto { name: name.to_owned(), data_type, dims, raw_data: raw.into(), ..TensorProto::default() }
}

fn value(name: &str, extents: &[usize]) -> ValueInfoProto {
    let known = |&d: &usize| Dimension { value: Some(dimension::Value::Known(d as i64)) };
    let batch = Dimension { value: Some(dimension::Value::Symbol("batch".to_owned())) };
    let dim = std::iter::once(batch).chain(extents.iter().map(known)).collect();
    let tensor = type_proto::Tensor { elem_type: FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { value: Some(type_proto::Value::Tensor(tensor)) }) }
}

fn node(name: &str, operator: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        name: name.to_owned(),
        op_type: operator.to_owned(),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}

fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: 2, i, ..AttributeProto::default() }
}

fn integers(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: 7, ints: ints.to_vec(), ..AttributeProto::default() }
}
