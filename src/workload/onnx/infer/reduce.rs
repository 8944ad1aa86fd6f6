//! Operators that reduce along axes.

use super::{Op, fold};
use crate::workload::onnx::value::{self, Data, Elem, Info, Result, strides};

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    let kind = op.kind();
    Ok(Some(match kind {
        "ArgMax" | "ArgMin" => {
            let axis = value::axis(op.int_or("axis", 0), op.input(0)?.rank())?;
            vec![Info::new(Elem::I64, reduced(op, &[axis])?)]
        }
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
        | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare" | "ReduceSumInteger" | "QLinearReduceMean" => {
            let a = op.input(0)?;
            let axes = match if kind == "QLinearReduceMean" {
                op.ints("axes").map(<[i64]>::to_vec)
            } else {
                op.list("axes", 1)?
            } {
                Some(axes) if !axes.is_empty() => {
                    axes.iter().map(|&x| value::axis(x, a.rank())).collect::<Result<Vec<_>>>()?
                }
                _ if op.int_or("noop_with_empty_axes", 0) != 0 => return Ok(Some(vec![a.clone()])),
                _ => (0..a.rank()).collect(),
            };
            let shape = reduced(op, &axes)?;
            let data = reduce(kind, a, &axes);
            vec![Info::new(a.elem, shape).with_data(data)]
        }
        "SoftmaxCrossEntropyLoss" | "NegativeLogLikelihoodLoss" => {
            let (a, labels) = (op.input(0)?, op.input(1)?);
            let none = op.text("reduction") == Some("none");
            let loss = Info::new(a.elem, if none { labels.shape.clone() } else { vec![] });
            let mut outs = vec![loss];
            outs.extend((1..op.outputs()).map(|_| Info::new(a.elem, a.shape.clone())));
            outs
        }
        "Det" => {
            let a = op.input(0)?;
            vec![Info::new(a.elem, a.shape[..a.rank().saturating_sub(2)].to_vec())]
        }
        _ => return Ok(None),
    }))
}

fn reduced(op: &Op, axes: &[usize]) -> Result<Vec<u64>> {
    let a = op.input(0)?;
    let keep = op.int_or("keepdims", 1) != 0;
    Ok(a.shape
        .iter()
        .enumerate()
        .filter_map(|(i, &d)| match (axes.contains(&i), keep) {
            (false, _) => Some(d),
            (true, true) => Some(1),
            (true, false) => None,
        })
        .collect())
}

fn reduce(kind: &str, a: &Info, axes: &[usize]) -> Option<Data> {
    let data = a.data.as_deref()?;
    let kept: Vec<u64> = a.shape.iter().enumerate().map(|(i, &d)| if axes.contains(&i) { 1 } else { d }).collect();
    let st = strides(&kept);
    let to = value::indices(&a.shape, |at| {
        Some(at.iter().enumerate().map(|(i, &x)| if axes.contains(&i) { 0 } else { x * st[i] }).sum())
    });
    let n = kept.iter().product::<u64>() as usize;
    match data {
        Data::Ints(v) => {
            let step: fn(i64, i64) -> Option<i64> = match kind {
                "ReduceSum" => i64::checked_add,
                "ReduceProd" => i64::checked_mul,
                "ReduceMax" => |a, b| Some(a.max(b)),
                "ReduceMin" => |a, b| Some(a.min(b)),
                _ => return None,
            };
            let mut out: Vec<Option<i64>> = vec![None; n];
            for (x, t) in v.iter().zip(&to) {
                let slot = out.get_mut((*t)?)?;
                *slot = Some(slot.map_or(Some(*x), |s| step(s, *x))?);
            }
            let empty = i64::from(kind == "ReduceProd");
            Some(Data::Ints(out.into_iter().map(|x| x.unwrap_or(empty)).collect()))
        }
        Data::Floats(v) => {
            let step: fn(f64, f64) -> f64 = match kind {
                "ReduceSum" | "ReduceMean" => |a, b| a + b,
                "ReduceProd" => |a, b| a * b,
                "ReduceMax" => f64::max,
                "ReduceMin" => f64::min,
                _ => return None,
            };
            let mut out: Vec<Option<f64>> = vec![None; n];
            for (x, t) in v.iter().zip(&to) {
                let slot = out.get_mut((*t)?)?;
                *slot = Some(slot.map_or(*x, |s| step(s, *x)));
            }
            let over = if kind == "ReduceMean" { v.len() as f64 / n.max(1) as f64 } else { 1.0 };
            let empty = if kind == "ReduceProd" { 1.0 } else { 0.0 };
            Some(Data::Floats(out.into_iter().map(|x| fold::round(a.elem, x.unwrap_or(empty) / over)).collect()))
        }
    }
}
