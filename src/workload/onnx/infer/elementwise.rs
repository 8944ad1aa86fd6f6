//! Operators that work element by element, and normalizations and activations that keep their input's shape.

use super::{Op, fold};
use crate::workload::onnx::value::{Data, Elem, Info, Result, broadcast, broadcast_index};

/// Operators whose first output looks like their first input.
const SAME: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BiasGelu",
    "BitwiseNot",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "FastGelu",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Hardmax",
    "Identity",
    "Inverse",
    "LRN",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "MeanVarianceNormalization",
    "Mish",
    "Neg",
    "Not",
    "PRelu",
    "ParametricSoftplus",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Round",
    "ScaledTanh",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Silu",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Affine",
    "ImageScaler",
    "InstanceNormalization",
    "GroupNormalization",
    "GroupNorm",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "Trilu",
    "CumSum",
    "CumProd",
    "ReverseSequence",
    "BiasAdd",
    "BiasSoftmax",
    "RotaryEmbedding",
    "Bernoulli",
    "RandomNormalLike",
    "RandomUniformLike",
    "EyeLike",
    "BitShift",
    "TensorScatter",
    "ScatterElements",
    "Scatter",
    "ScatterND",
    "Normalizer",
    "Scaler",
    "Imputer",
    "Binarizer",
    "StringNormalizer",
    "FakeQuantize",
    "GemmaRotaryEmbedding",
    "Binarize",
    "QuantizeWithOrder",
    "DequantizeWithOrder",
    "BiasDropout",
    "BitmaskDropout",
    "SkipGroupNorm",
    "LayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Dropout",
    "BatchNormalization",
];

/// Operators of two or more inputs that broadcast.
const BROADCAST: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Mod",
    "Pow",
    "Min",
    "Max",
    "Sum",
    "Mean",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "And",
    "Or",
    "Xor",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
];

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    let kind = op.kind().to_owned();
    if SAME.contains(&kind.as_str()) {
        return same(op, &kind).map(Some);
    }
    if BROADCAST.contains(&kind.as_str()) {
        return nary(op, &kind).map(|i| Some(vec![i]));
    }
    Ok(Some(match kind.as_str() {
        "Cast" | "CastLike" | "BitCast" => {
            let a = op.input(0)?;
            let to = match op.opt(1) {
                Some(like) if kind == "CastLike" => like.elem,
                _ => Elem::from_onnx(i32::try_from(op.int_or("to", 0)).unwrap_or(0)),
            };
            let mut out = Info::new(to, a.shape.clone());
            if kind != "BitCast" {
                out = out.with_data(fold::cast(a, to));
            }
            out.origin = a.origin.clone();
            vec![out]
        }
        "IsInf" | "IsNaN" => vec![Info::new(Elem::Bool, op.input(0)?.shape.clone())],
        "Where" => {
            let (c, a, b) = (op.input(0)?, op.input(1)?, op.input(2)?);
            let shape = broadcast(&broadcast(&c.shape, &a.shape)?, &b.shape)?;
            let data = match (&c.data, &a.data, &b.data) {
                (Some(cd), Some(ad), Some(bd)) if fold::small(&shape) => {
                    let pick = cd.pick(&broadcast_index(&c.shape, &shape)).ints();
                    let x = ad.pick(&broadcast_index(&a.shape, &shape));
                    let y = bd.pick(&broadcast_index(&b.shape, &shape));
                    Some(match (x, y) {
                        (Data::Ints(x), Data::Ints(y)) => Data::Ints(
                            pick.iter()
                                .zip(x.iter().zip(&y))
                                .map(|(&c, (&x, &y))| if c != 0 { x } else { y })
                                .collect(),
                        ),
                        (x, y) => {
                            let (x, y) = (x.floats(), y.floats());
                            Data::Floats(
                                pick.iter()
                                    .zip(x.iter().zip(&y))
                                    .map(|(&c, (&x, &y))| if c != 0 { x } else { y })
                                    .collect(),
                            )
                        }
                    })
                }
                _ => None,
            };
            vec![Info::new(a.elem, shape).with_data(data)]
        }
        _ => return Ok(None),
    }))
}

fn same(op: &mut Op, kind: &str) -> Result<Vec<Info>> {
    let first = op.input(0)?.clone();
    let mut out = Info::new(first.elem, first.shape.clone()).with_data(fold::unary(kind, &first));
    match kind {
        "Identity" => return Ok(vec![first]),
        "EyeLike" | "Bernoulli" | "RandomNormalLike" | "RandomUniformLike" => {
            if let Some(t) = op.int("dtype") {
                out.elem = Elem::from_onnx(i32::try_from(t).unwrap_or(0));
            }
        }
        "Clip" => {
            if let (Some(data), Some(lo), Some(hi)) = (
                &first.data,
                op.opt(1).map_or(Some(f64::NEG_INFINITY), |i| i.floats()?.first().copied()),
                op.opt(2).map_or(Some(f64::INFINITY), |i| i.floats()?.first().copied()),
            ) && op.attr("min").is_none()
                && op.attr("max").is_none()
            {
                let clip = |x: f64| x.max(lo).min(hi);
                out = out.with_data(Some(match &**data {
                    Data::Ints(v) => Data::Ints(v.iter().map(|&x| clip(x as f64) as i64).collect()),
                    Data::Floats(v) => Data::Floats(v.iter().map(|&x| clip(x)).collect()),
                }));
            }
        }
        "CumSum" => {
            if let Some(Data::Ints(v)) = first.data.as_deref()
                && first.rank() == 1
                && op.int_or("exclusive", 0) == 0
                && op.int_or("reverse", 0) == 0
            {
                let mut sum = 0i64;
                let sums = v
                    .iter()
                    .map(|&x| {
                        sum = sum.wrapping_add(x);
                        sum
                    })
                    .collect();
                out = out.with_data(Some(Data::Ints(sums)));
            }
        }
        "ScatterND" => out = out.with_data(scatter_nd(op)),
        "ScatterElements" | "Scatter" => out = out.with_data(scatter_elements(op)),
        _ => {}
    }
    // A second output, where there is one.
    let n = op.outputs();
    let mut outs = vec![out];
    let channels = first.shape.get(1).copied().unwrap_or(1);
    match kind {
        "BatchNormalization" => outs.extend((1..n).map(|_| Info::new(first.elem, vec![channels]))),
        "Dropout" | "BiasDropout" | "BitmaskDropout" => {
            outs.extend((1..n).map(|_| Info::new(Elem::Bool, first.shape.clone())))
        }
        "LayerNormalization"
        | "SkipLayerNormalization"
        | "SkipSimplifiedLayerNormalization"
        | "SimplifiedLayerNormalization" => {
            let at = op.int_or("axis", -1);
            let at = crate::workload::onnx::value::axis(at, first.rank())?;
            let stats: Vec<u64> = first.shape.iter().enumerate().map(|(i, &d)| if i < at { d } else { 1 }).collect();
            for i in 1..n {
                outs.push(if i == 3 {
                    Info::new(first.elem, first.shape.clone())
                } else {
                    Info::new(Elem::F32, stats.clone())
                });
            }
        }
        _ => outs.extend((1..n).map(|_| Info::new(first.elem, first.shape.clone()))),
    }
    Ok(outs)
}

fn nary(op: &mut Op, kind: &str) -> Result<Info> {
    let mut acc = op.input(0)?.clone();
    let fmod = op.int_or("fmod", 0) != 0;
    // Before operator set 7 the second input was aligned at `axis` instead of at the end.
    let legacy = op.opset < 7 && op.int_or("broadcast", 0) != 0;
    for i in 1..op.ins.len() {
        let mut b = op.input(i)?.clone();
        if legacy && let Some(at) = op.int("axis") {
            let at = crate::workload::onnx::value::axis(at, acc.rank().max(1))?;
            while b.rank() + at < acc.rank() {
                b.shape.push(1);
            }
        }
        let shape = broadcast(&acc.shape, &b.shape)?;
        let data = fold::binary(kind, fmod, &acc, &b, &shape);
        let compare =
            matches!(kind, "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And" | "Or" | "Xor");
        // Scaling keeps zeros, so the stored tensor is still what says where they are.
        let origin = match (kind, &acc.origin, &b.origin) {
            ("Mul" | "Div", Some(o), _) if acc.shape == shape && b.constant && acc.count() > b.count() => {
                Some(o.clone())
            }
            ("Mul", _, Some(o)) if b.shape == shape && acc.constant && b.count() > acc.count() => Some(o.clone()),
            ("Sub", Some(o), _) if acc.shape == shape && b.constant && b.count() < acc.count() => Some(o.clone()),
            _ => None,
        };
        acc = Info::new(if compare { Elem::Bool } else { acc.elem }, shape).with_data(data);
        acc.origin = origin;
    }
    Ok(acc)
}

fn scatter_nd(op: &Op) -> Option<Data> {
    if op.text("reduction").is_some_and(|r| r != "none") {
        return None;
    }
    let (base, index, update) = (op.opt(0)?, op.opt(1)?, op.opt(2)?);
    let (mut out, index_data, update_data) = (base.data.as_deref()?.clone(), index.ints()?, update.data.as_deref()?);
    let depth = usize::try_from(*index.shape.last()?).ok()?;
    if depth == 0 || depth > base.rank() {
        return None;
    }
    let st = crate::workload::onnx::value::strides(&base.shape);
    let run: usize = base.shape[depth..].iter().product::<u64>() as usize;
    for (i, at) in index_data.chunks(depth).enumerate() {
        let mut from = 0usize;
        for (axis, &a) in at.iter().enumerate() {
            let d = base.shape[axis] as i64;
            let a = if a < 0 { a.checked_add(d)? } else { a };
            from += usize::try_from(a).ok().filter(|&a| (a as i64) < d)? * st[axis];
        }
        for j in 0..run {
            set(&mut out, from + j, update_data, i * run + j)?;
        }
    }
    Some(out)
}

fn scatter_elements(op: &Op) -> Option<Data> {
    if op.text("reduction").is_some_and(|r| r != "none") {
        return None;
    }
    let (base, index, update) = (op.opt(0)?, op.opt(1)?, op.opt(2)?);
    let (mut out, index_data, update_data) = (base.data.as_deref()?.clone(), index.ints()?, update.data.as_deref()?);
    let axis = crate::workload::onnx::value::axis(op.int_or("axis", 0), base.rank()).ok()?;
    let st = crate::workload::onnx::value::strides(&base.shape);
    if index.rank() != base.rank() {
        return None;
    }
    let mut places = Vec::new();
    let mut k = 0;
    crate::workload::onnx::value::indices(&index.shape, |at| {
        let a = *index_data.get(k)?;
        k += 1;
        let d = base.shape[axis] as i64;
        let a = if a < 0 { a + d } else { a };
        let a = usize::try_from(a).ok()?;
        places.push(at.iter().enumerate().map(|(i, &x)| if i == axis { a } else { x } * st[i]).sum::<usize>());
        None
    });
    for (i, &p) in places.iter().enumerate() {
        set(&mut out, p, update_data, i)?;
    }
    Some(out)
}

fn set(out: &mut Data, at: usize, from: &Data, i: usize) -> Option<()> {
    match (out, from) {
        (Data::Ints(o), Data::Ints(f)) => *o.get_mut(at)? = *f.get(i)?,
        (Data::Floats(o), Data::Floats(f)) => *o.get_mut(at)? = *f.get(i)?,
        _ => return None,
    }
    Some(())
}
