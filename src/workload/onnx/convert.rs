//! From a node whose shapes are known to layers of the network.

use super::infer::{Op, layout, sequence, spatial};
use super::scope::{Scope, label};
use super::value::{self, Info, Result};
use super::walk::Walk;
use crate::workload::layer::{
    Cell, Conv, Function, Layer, Linear, Norm, NormKind, Op as LayerOp, Param, Pool, PoolKind, Range, Recurrent, Role,
    Tensor,
};
use crate::workload::shape;

/// What a node becomes: one layer, the inputs that are activations in the order that the layer takes them, and what the
/// stored inputs are for. Inputs that are not named are activations behind the named ones, or constants of the layer.
pub struct Plan {
    op: LayerOp,
    acts: Vec<usize>,
    roles: Vec<(usize, Role)>,
    transposed: bool,
}

impl Plan {
    fn new(op: LayerOp) -> Self {
        Self { op, acts: Vec::new(), roles: Vec::new(), transposed: false }
    }

    fn acts(mut self, acts: &[usize]) -> Self {
        self.acts = acts.to_vec();
        self
    }

    fn roles(mut self, roles: &[(usize, Role)]) -> Self {
        self.roles = roles.to_vec();
        self
    }
}

/// A node on its way to layers.
pub struct Site<'a> {
    /// What its layers are called.
    pub name: String,
    /// As the model spells the operator.
    pub spelled: &'a str,
    /// Its inputs.
    pub ids: &'a [Option<usize>],
    /// What its outputs are called.
    pub outputs: Vec<String>,
}

impl Walk<'_> {
    /// Adds the layers of a node and returns its outputs.
    ///
    /// # Errors
    /// Says in words what does not fit.
    pub fn emit(
        &mut self,
        op: &Op,
        ids: &[Option<usize>],
        outs: Vec<Info>,
        scope: &Scope,
        unknown: bool,
    ) -> Result<Vec<usize>> {
        let first = op.node.output.iter().find(|o| !o.is_empty()).cloned().unwrap_or_else(|| label(op.node));
        let decorate =
            |n: &str| if n.is_empty() { String::new() } else { format!("{}{n}{}", scope.prefix, scope.suffix) };
        let name = self.unique(&decorate(&op.node.name), &decorate(&first));
        let outputs = op
            .node
            .output
            .iter()
            .enumerate()
            .map(
                |(i, o)| {
                    if o.is_empty() { format!("{name}:{i}") } else { format!("{}{o}{}", scope.prefix, scope.suffix) }
                },
            )
            .collect();
        let site = Site { name, spelled: op.kind(), ids, outputs };
        if !unknown && let Some(made) = self.compose(op, &site, &outs)? {
            return Ok(made);
        }
        let plan = if unknown { Plan::new(LayerOp::Opaque) } else { plan(op, &outs)? };
        Ok(self.place(&site, plan, outs))
    }

    /// Adds one layer after a plan.
    fn place(&mut self, site: &Site, plan: Plan, outs: Vec<Info>) -> Vec<usize> {
        let mut acts = Vec::new();
        let mut params = Vec::new();
        for &i in &plan.acts {
            if let Some(id) = site.ids.get(i).copied().flatten() {
                acts.push(id);
            }
        }
        for (i, id) in site.ids.iter().enumerate() {
            let Some(id) = *id else { continue };
            if plan.acts.contains(&i) {
                continue;
            }
            if self.tensors[id].layer.is_some() {
                acts.push(id);
            } else {
                let role = plan.roles.iter().find(|r| r.0 == i).map_or(Role::Constant, |r| r.1);
                self.parameters(id, role, plan.transposed && role == Role::Weight, &mut params);
            }
        }
        let outs = site.outputs.iter().cloned().zip(outs).collect();
        self.layer(site.name.clone(), site.spelled, plan.op, &acts, params, outs)
    }

    /// Adds a layer that reads these tensors and returns its outputs. Constants among them get layers of their own.
    pub fn layer(
        &mut self,
        name: String,
        spelled: &str,
        op: LayerOp,
        acts: &[usize],
        params: Vec<Param>,
        outs: Vec<(String, Info)>,
    ) -> Vec<usize> {
        let from: Vec<(usize, u32)> = acts.iter().map(|&t| self.producer(t)).collect();
        let at = self.layers.len();
        self.edges.extend(from.into_iter().enumerate().map(|(i, (l, o))| (l, o, at, i as u32)));
        let outputs =
            outs.iter().map(|(name, info)| Tensor { name: name.clone(), shape: info.shape.clone() }).collect();
        self.layers.push(Layer { name, op, spelled: spelled.to_owned(), outputs, params });
        outs.into_iter()
            .enumerate()
            .map(|(i, (name, mut info))| {
                info.constant = false;
                info.data = None;
                info.origin = None;
                self.add(&name, info, Some((at, i as u32)), Vec::new())
            })
            .collect()
    }

    /// A layer with one output and no parameters, beside what the model names.
    pub fn plain(&mut self, name: &str, suffix: &str, spelled: &str, op: LayerOp, acts: &[usize], out: Info) -> usize {
        let name = self.unique("", &format!("{name}{suffix}"));
        let output = name.clone();
        self.layer(name, spelled, op, acts, Vec::new(), vec![(output, out)])[0]
    }

    /// The layer behind a tensor; a constant that is read as an activation becomes a layer of its own.
    fn producer(&mut self, id: usize) -> (usize, u32) {
        if let Some(at) = self.tensors[id].layer {
            return at;
        }
        if let Some(&at) = self.materialized.get(&id) {
            return (at, 0);
        }
        let mut params = Vec::new();
        self.parameters(id, Role::Constant, false, &mut params);
        let (tensor, shape) = (self.tensors[id].name.clone(), self.tensors[id].info.shape.clone());
        let name = self.unique("", if tensor.is_empty() { "constant" } else { &tensor });
        let outputs = vec![Tensor { name: tensor, shape }];
        self.layers.push(Layer { name, op: LayerOp::Parameter, spelled: "Initializer".to_owned(), outputs, params });
        self.materialized.insert(id, self.layers.len() - 1);
        (self.layers.len() - 1, 0)
    }

    /// Multiply–accumulates of the layers from position `from` on.
    pub fn macs_since(&self, from: usize) -> u64 {
        let mut inputs: Vec<Vec<(u32, &[u64])>> = vec![Vec::new(); self.layers.len().saturating_sub(from)];
        for &(l, o, to, i) in self.edges.iter().filter(|e| e.2 >= from) {
            inputs[to - from].push((i, &self.layers[l].outputs[o as usize].shape));
        }
        let mut sum = 0u64;
        for (mut ins, layer) in inputs.into_iter().zip(&self.layers[from.min(self.layers.len())..]) {
            ins.sort_unstable_by_key(|i| i.0);
            let shapes: Vec<&[u64]> = ins.into_iter().map(|i| i.1).collect();
            sum = sum.saturating_add(shape::macs(&layer.op, &shapes, &layer.outputs).unwrap_or(u64::MAX));
        }
        sum
    }

    /// Whether an input is there and constant.
    pub fn fixed(&self, ids: &[Option<usize>], i: usize) -> bool {
        ids.get(i).copied().flatten().is_some_and(|id| self.tensors[id].layer.is_none())
    }
}

/// The layer of an operator that is one layer.
fn plan(op: &Op, outs: &[Info]) -> Result<Plan> {
    let x = op.opt(0);
    let rank = x.map_or(0, Info::rank);
    let out = outs.first().map_or_else(Vec::new, |o| o.shape.clone());
    let axis = |name: &str, default: i64| value::axis(op.int_or(name, default), rank);
    let affine = |kind, axis| {
        let op = LayerOp::Norm(Norm { kind, axis, affine: true });
        Plan::new(op).acts(&[0]).roles(&[(1, Role::Scale), (2, Role::Scale), (3, Role::Scale), (4, Role::Scale)])
    };
    let bare = |kind, axis| Plan::new(LayerOp::Norm(Norm { kind, axis, affine: false })).acts(&[0]);
    Ok(match op.kind() {
        "Conv" | "FusedConv" | "ConvInteger" | "QLinearConv" | "ConvTranspose" | "ConvTransposeWithDynamicPads" => {
            convolution(op)?
        }
        "LSTM" | "DynamicQuantizeLSTM" | "GRU" | "RNN" => recurrent(op)?,
        "BatchNormalization" => affine(NormKind::Batch, 1.min(rank.saturating_sub(1))),
        "InstanceNormalization" | "GroupNormalization" => affine(NormKind::Group, 1.min(rank.saturating_sub(1))),
        "GroupNorm" | "SkipGroupNorm" => affine(NormKind::Group, rank.saturating_sub(1)),
        "LayerNormalization" => affine(NormKind::Layer, axis("axis", -1)?),
        "RMSNormalization" | "SimplifiedLayerNormalization" => affine(NormKind::Rms, axis("axis", -1)?),
        "LRN" => bare(NormKind::LocalResponse, 1.min(rank.saturating_sub(1))),
        "LpNormalization" => bare(NormKind::Layer, axis("axis", -1)?),
        "MeanVarianceNormalization" => bare(NormKind::Layer, rank.saturating_sub(1)),
        "Softmax" | "LogSoftmax" | "Hardmax" | "QLinearSoftmax" | "BiasSoftmax" if rank > 0 => {
            Plan::new(LayerOp::Softmax { axis: axis("axis", if op.opset < 13 { 1.min(rank as i64 - 1) } else { -1 })? })
                .acts(&[0])
        }
        "MaxPool"
        | "AveragePool"
        | "LpPool"
        | "QLinearAveragePool"
        | "NhwcMaxPool"
        | "GlobalAveragePool"
        | "GlobalMaxPool"
        | "GlobalLpPool"
        | "QLinearGlobalAveragePool" => pooling(op, &out)?,
        kind if kind.starts_with("Reduce") || matches!(kind, "ArgMax" | "ArgMin" | "QLinearReduceMean") => {
            let keep = op.int_or("keepdims", 1) != 0;
            let mut axes: Vec<usize> = if kind.starts_with("Arg") {
                vec![axis("axis", 0)?]
            } else {
                match op.list("axes", 1).ok().flatten() {
                    Some(a) if !a.is_empty() => a.iter().map(|&x| value::axis(x, rank)).collect::<Result<_>>()?,
                    _ if op.int_or("noop_with_empty_axes", 0) != 0 => Vec::new(),
                    _ => (0..rank).collect(),
                }
            };
            axes.sort_unstable();
            axes.dedup();
            Plan::new(LayerOp::Reduce { axes, keep }).acts(&[0])
        }
        "Concat" => {
            let all: Vec<usize> = (0..op.ins.len()).collect();
            Plan::new(LayerOp::Concat { axis: value::axis(op.int_or("axis", 1), rank)? }).acts(&all)
        }
        "QLinearConcat" => {
            let parts: Vec<usize> = (2..op.ins.len()).step_by(3).collect();
            let rank = op.opt(2).map_or(0, Info::rank);
            Plan::new(LayerOp::Concat { axis: value::axis(op.int_or("axis", 1), rank)? }).acts(&parts)
        }
        "Split" => {
            let axis = axis("axis", 0)?;
            let sizes = outs.iter().map(|o| o.shape[axis]).collect();
            Plan::new(LayerOp::Split { axis, sizes }).acts(&[0])
        }
        "Slice" => match layout::slice_ranges(op) {
            Ok(cuts) => {
                let x = op.input(0)?;
                let kept = |&(axis, _, step, n): &layout::Cut| n == x.shape[axis] && step == 1;
                let ranges = cuts
                    .iter()
                    .filter(|c| !kept(c))
                    .map(|&(axis, start, step, len)| Range {
                        axis,
                        start: u64::try_from(start).unwrap_or(0),
                        len,
                        step,
                    })
                    .collect();
                Plan::new(LayerOp::Slice { ranges }).acts(&[0])
            }
            Err(_) => Plan::new(LayerOp::Opaque).acts(&[0]),
        },
        "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "ExpandDims" | "Identity" | "Dropout" | "Optional"
        | "OptionalGetElement"
            if x.is_some_and(|x| x.sequence.is_none()) =>
        {
            Plan::new(LayerOp::Reshape { shape: out }).acts(&[0])
        }
        "Transpose" => {
            let perm = match op.ints("perm") {
                Some(p) if !p.is_empty() => p.iter().map(|&p| value::axis(p, rank)).collect::<Result<_>>()?,
                _ => (0..rank).rev().collect(),
            };
            Plan::new(LayerOp::Transpose { perm }).acts(&[0])
        }
        "Pad" => match layout::borders(op) {
            Ok(b) if b.iter().all(|&(l, r)| l >= 0 && r >= 0) => {
                Plan::new(LayerOp::Pad { pads: b.iter().map(|&(l, r)| (l as u64, r as u64)).collect() }).acts(&[0])
            }
            Ok(b) if b.iter().all(|&(l, r)| l <= 0 && r <= 0) => {
                let ranges = b
                    .iter()
                    .enumerate()
                    .filter(|(_, p)| **p != (0, 0))
                    .map(|(axis, &(l, _))| Range { axis, start: l.unsigned_abs(), len: out[axis], step: 1 })
                    .collect();
                Plan::new(LayerOp::Slice { ranges }).acts(&[0])
            }
            _ => Plan::new(LayerOp::Opaque).acts(&[0]),
        },
        "Resize" | "Upsample" => Plan::new(LayerOp::Resize { shape: out }).acts(&[0]),
        "Expand" | "Tile" => Plan::new(LayerOp::Expand { shape: out }).acts(&[0]),
        "Gather" => {
            let table = op.input(0)?;
            match table.shape[..] {
                [vocab, dim] if op.int_or("axis", 0) == 0 && table.constant => {
                    Plan::new(LayerOp::Embedding { vocab, dim }).acts(&[1])
                }
                _ => Plan::new(LayerOp::Gather { axis: axis("axis", 0)? }).acts(&[0, 1]),
            }
        }
        "GatherBlockQuantized" => {
            let table = op.input(0)?;
            let dim = out.last().copied().unwrap_or(1);
            Plan::new(LayerOp::Embedding { vocab: table.shape.first().copied().unwrap_or(1), dim }).acts(&[1])
        }
        kind => match function(kind) {
            Some(f) => {
                let bias = if f == Function::Mul || f == Function::Div || f == Function::Relu {
                    Role::Scale
                } else {
                    Role::Bias
                };
                Plan::new(LayerOp::Pointwise(f)).roles(&[(0, bias), (1, bias)])
            }
            None => Plan::new(LayerOp::Opaque),
        },
    })
}

/// Pointwise operators.
fn function(kind: &str) -> Option<Function> {
    Some(match kind {
        "Add" | "Sum" | "QLinearAdd" | "BiasAdd" | "Mean" => Function::Add,
        "Sub" => Function::Sub,
        "Mul" | "QLinearMul" => Function::Mul,
        "Div" => Function::Div,
        "Relu" | "LeakyRelu" | "PRelu" | "ThresholdedRelu" | "Clip" | "QLinearLeakyRelu" => Function::Relu,
        "Gelu" | "FastGelu" | "BiasGelu" => Function::Gelu,
        "QuickGelu" | "Swish" | "Silu" => Function::Silu,
        "Sigmoid" | "HardSigmoid" | "QLinearSigmoid" => Function::Sigmoid,
        "Tanh" => Function::Tanh,
        "HardSwish" => Function::HardSwish,
        "RotaryEmbedding" | "GemmaRotaryEmbedding" => Function::Rotary,
        "Abs"
        | "Acos"
        | "Acosh"
        | "Asin"
        | "Asinh"
        | "Atan"
        | "Atanh"
        | "BitwiseNot"
        | "Ceil"
        | "Celu"
        | "Cos"
        | "Cosh"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Log"
        | "Mish"
        | "Neg"
        | "Not"
        | "ParametricSoftplus"
        | "Reciprocal"
        | "Round"
        | "ScaledTanh"
        | "Selu"
        | "Shrink"
        | "Sign"
        | "Sin"
        | "Sinh"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Tan"
        | "Affine"
        | "ImageScaler"
        | "Trilu"
        | "BitShift"
        | "Mod"
        | "Pow"
        | "Min"
        | "Max"
        | "Equal"
        | "Less"
        | "LessOrEqual"
        | "Greater"
        | "GreaterOrEqual"
        | "And"
        | "Or"
        | "Xor"
        | "BitwiseAnd"
        | "BitwiseOr"
        | "BitwiseXor"
        | "Cast"
        | "CastLike"
        | "BitCast"
        | "IsInf"
        | "IsNaN"
        | "Where"
        | "QLinearWhere"
        | "QuantizeLinear"
        | "DequantizeLinear"
        | "DynamicQuantizeLinear"
        | "Bernoulli"
        | "BiasDropout"
        | "BitmaskDropout"
        | "Normalizer"
        | "Scaler"
        | "Imputer"
        | "Binarizer" => Function::Other,
        _ => return None,
    })
}

fn pairs(pads: &[i64]) -> Vec<(u64, u64)> {
    let n = pads.len() / 2;
    (0..n).map(|i| (pads[i].max(0) as u64, pads[i + n].max(0) as u64)).collect()
}

fn convolution(op: &Op) -> Result<Plan> {
    let (xi, wi) = spatial::conv_operands(op)?;
    let (x, w) = (op.input(xi)?, op.input(wi)?);
    let transposed = op.kind().starts_with("ConvTranspose");
    let groups = value::extent(op.int_or("group", 1), "group")?.max(1);
    let win = if transposed { spatial::transposed_window(op, x, w)? } else { spatial::conv_window(op, x, w, false)? };
    let bias = match op.kind() {
        "QLinearConv" => 8,
        "ConvInteger" => usize::MAX,
        _ => 2,
    };
    let output_pad = if transposed {
        // What the other attributes leave to reach the stated extents.
        let base = |i: usize| {
            let reach = win.dilations[i].saturating_mul(win.kernel[i].saturating_sub(1)).saturating_add(1);
            let full = x.shape[i + 2].saturating_sub(1).saturating_mul(win.strides[i]).saturating_add(reach);
            full.saturating_sub(win.pads[i].max(0) as u64).saturating_sub(win.pads[i + win.kernel.len()].max(0) as u64)
        };
        (0..win.kernel.len()).map(|i| win.out[i].saturating_sub(base(i))).collect()
    } else {
        Vec::new()
    };
    let conv = Conv {
        out: if transposed { w.shape[1].saturating_mul(groups) } else { w.shape[0] },
        pad: pairs(&win.pads),
        kernel: win.kernel,
        stride: win.strides,
        dilation: win.dilations,
        groups,
        bias: op.opt(bias).is_some(),
        transposed,
        output_pad,
    };
    let mut roles = vec![(wi, Role::Weight), (bias, Role::Bias)];
    roles.extend(
        (0..9)
            .filter(|&i| i != wi && i != bias && op.kind().contains("Q") || op.kind() == "ConvInteger" && i > 1)
            .map(|i| (i, Role::Scale)),
    );
    Ok(Plan::new(LayerOp::Conv(conv)).acts(&[xi]).roles(&roles))
}

fn recurrent(op: &Op) -> Result<Plan> {
    let r = sequence::recurrent(op)?.ok_or("is not recurrent")?;
    let cell = match r.gates {
        4 => Cell::Lstm,
        3 => Cell::Gru,
        _ => Cell::Rnn,
    };
    let layer = Recurrent { cell, hidden: r.hidden, directions: r.directions, batch_first: r.batch_first };
    let mut plan =
        Plan::new(LayerOp::Recurrent(layer)).acts(&[0]).roles(&[(1, Role::Weight), (2, Role::Weight), (3, Role::Bias)]);
    plan.transposed = op.kind() == "DynamicQuantizeLSTM";
    Ok(plan)
}

fn pooling(op: &Op, out: &[u64]) -> Result<Plan> {
    let kind = if op.kind().contains("Max") { PoolKind::Max } else { PoolKind::Average };
    let global = Pool { kind, kernel: Vec::new(), stride: Vec::new(), pad: Vec::new(), ceil: false, adaptive: None };
    if op.kind().contains("Global") {
        return Ok(Plan::new(LayerOp::Pool(global)).acts(&[0]));
    }
    let x = op.input(0)?;
    let last = spatial::channels_last(op);
    let win = spatial::pool_window(op, x)?;
    // A window with gaps has no field of its own; what it makes is stated instead.
    let gaps = win.dilations.iter().any(|&d| d != 1);
    let adaptive = (gaps || last).then(|| if last { out[1..out.len() - 1].to_vec() } else { out[2..].to_vec() });
    let pool = Pool {
        kernel: win.kernel,
        stride: win.strides,
        pad: pairs(&win.pads),
        ceil: op.int_or("ceil_mode", 0) != 0,
        adaptive,
        ..global
    };
    Ok(Plan::new(LayerOp::Pool(pool)).acts(&[0]))
}

/// A fully connected layer without experts.
pub fn linear(out: u64, bias: bool) -> LayerOp {
    LayerOp::Linear(Linear { out, bias, experts: None })
}
