//! The layers that transformers share, appended one after another.

use crate::error::Result;
use crate::workload::graph::{Graph, LayerSpec};
use crate::workload::layer::*;
use std::collections::HashSet;

/// A network in the making. Every method adds one layer and returns its name for those that read it.
#[derive(Default)]
pub(super) struct Net {
    specs: Vec<LayerSpec>,
    tied: HashSet<String>,
    warnings: Vec<String>,
}

impl Net {
    fn push(
        &mut self,
        name: impl Into<String>,
        spelled: &str,
        op: Op,
        inputs: &[&str],
        shape: Option<Shape>,
    ) -> String {
        let name = name.into();
        let inputs = inputs.iter().map(|&i| i.to_owned()).collect();
        self.specs.push(LayerSpec { name: name.clone(), op, inputs, shape, spelled: spelled.to_owned() });
        name
    }

    pub(super) fn input(&mut self, name: &str, shape: &[u64]) -> String {
        self.push(name, "input", Op::Input, &[], Some(shape.to_vec()))
    }

    pub(super) fn parameter(&mut self, name: &str, shape: &[u64]) -> String {
        self.push(name, "parameter", Op::Parameter, &[], Some(shape.to_vec()))
    }

    pub(super) fn embedding(&mut self, name: &str, vocab: u64, dim: u64, x: &str) -> String {
        self.push(name, "embedding", Op::Embedding { vocab, dim }, &[x], None)
    }

    /// A table that another layer already stores.
    pub(super) fn tied_embedding(&mut self, name: &str, vocab: u64, dim: u64, x: &str) -> String {
        self.tied.insert(name.to_owned());
        self.embedding(name, vocab, dim, x)
    }

    pub(super) fn linear(&mut self, name: impl Into<String>, out: u64, bias: bool, x: &str) -> String {
        self.push(name, "linear", Op::Linear(Linear { out, bias, experts: None }), &[x], None)
    }

    /// One of `count` matrices for each row of x.
    pub(super) fn expert(&mut self, name: impl Into<String>, out: u64, count: u64, x: &str) -> String {
        let experts = Some(Experts { count, active: 1 });
        self.push(name, "linear", Op::Linear(Linear { out, bias: false, experts }), &[x], None)
    }

    /// A linear layer whose matrix another layer already stores.
    pub(super) fn tied_linear(&mut self, name: &str, out: u64, x: &str) -> String {
        self.tied.insert(name.to_owned());
        self.linear(name, out, false, x)
    }

    pub(super) fn conv(&mut self, name: &str, conv: Conv, x: &str) -> String {
        self.push(name, "conv2d", Op::Conv(conv), &[x], None)
    }

    pub(super) fn layer_norm(&mut self, name: impl Into<String>, x: &str) -> String {
        self.norm(name, "layer_norm", NormKind::Layer, x)
    }

    pub(super) fn rms_norm(&mut self, name: impl Into<String>, x: &str) -> String {
        self.norm(name, "rms_norm", NormKind::Rms, x)
    }

    fn norm(&mut self, name: impl Into<String>, spelled: &str, kind: NormKind, x: &str) -> String {
        self.push(name, spelled, Op::Norm(Norm { kind, axis: Op::axis_from_back(1), affine: true }), &[x], None)
    }

    pub(super) fn pointwise(&mut self, name: impl Into<String>, (f, spelled): (Function, &str), x: &[&str]) -> String {
        self.push(name, spelled, Op::Pointwise(f), x, None)
    }

    pub(super) fn add(&mut self, name: impl Into<String>, a: &str, b: &str) -> String {
        self.pointwise(name, (Function::Add, "add"), &[a, b])
    }

    pub(super) fn mul(&mut self, name: impl Into<String>, a: &str, b: &str) -> String {
        self.pointwise(name, (Function::Mul, "mul"), &[a, b])
    }

    pub(super) fn rotary(&mut self, name: impl Into<String>, x: &str) -> String {
        self.pointwise(name, (Function::Rotary, "rotary"), &[x])
    }

    pub(super) fn attention(&mut self, name: impl Into<String>, a: Attention, qkv: [&str; 3]) -> String {
        self.push(name, "attention", Op::Attention(a), &qkv, None)
    }

    pub(super) fn softmax(&mut self, name: impl Into<String>, x: &str) -> String {
        self.push(name, "softmax", Op::Softmax { axis: Op::axis_from_back(1) }, &[x], None)
    }

    /// `len` entries of an axis, from the first.
    pub(super) fn take(&mut self, name: impl Into<String>, spelled: &str, axis: usize, len: u64, x: &str) -> String {
        let ranges = vec![Range { axis, start: 0, len, step: 1 }];
        self.push(name, spelled, Op::Slice { ranges }, &[x], None)
    }

    pub(super) fn split(&mut self, name: impl Into<String>, sizes: Vec<u64>, x: &str) -> String {
        self.push(name, "split", Op::Split { axis: Op::axis_from_back(1), sizes }, &[x], None)
    }

    pub(super) fn concat(&mut self, name: &str, axis: usize, x: &[&str]) -> String {
        self.push(name, "concat", Op::Concat { axis }, x, None)
    }

    pub(super) fn expand(&mut self, name: impl Into<String>, shape: Shape, x: &str) -> String {
        self.push(name, "expand", Op::Expand { shape }, &[x], None)
    }

    pub(super) fn reshape(&mut self, name: impl Into<String>, shape: &[u64], x: &str) -> String {
        self.push(name, "reshape", Op::Reshape { shape: shape.to_vec() }, &[x], None)
    }

    pub(super) fn transpose(&mut self, name: &str, perm: &[usize], x: &str) -> String {
        self.push(name, "transpose", Op::Transpose { perm: perm.to_vec() }, &[x], None)
    }

    pub(super) fn sum(&mut self, name: impl Into<String>, axis: usize, x: &str) -> String {
        self.push(name, "sum", Op::Reduce { axes: vec![axis], keep: false }, &[x], None)
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Connects the layers and marks the parameters that another layer counts.
    pub(super) fn build(self, name: &str) -> Result<Graph> {
        let mut graph = Graph::build(name, self.specs)?;
        graph.warnings = self.warnings;
        for i in 0..graph.len() {
            let node = graph.order()[i];
            if self.tied.contains(&graph.layer(node).name) {
                graph.layer_mut(node).params.iter_mut().for_each(|p| p.shared = true);
            }
        }
        Ok(graph)
    }
}
