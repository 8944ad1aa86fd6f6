//! Quantization, and quantized forms that keep their input's shape.

use super::Op;
use crate::workload::onnx::value::{Elem, Info, Result, axis as value_axis, broadcast};

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    let kind = op.kind();
    Ok(Some(match kind {
        "QuantizeLinear" => {
            let x = op.input(0)?;
            let elem = match (op.opt(2), op.int("output_dtype")) {
                (Some(z), _) => z.elem,
                (None, Some(t)) if t != 0 => Elem::from_onnx(t as i32),
                _ => Elem::U8,
            };
            vec![Info::new(elem, x.shape.clone())]
        }
        "DequantizeLinear" => {
            let (x, scale) = (op.input(0)?, op.input(1)?);
            let mut out = Info::new(scale.elem, x.shape.clone());
            out.origin = x.origin.clone();
            vec![out]
        }
        "DynamicQuantizeLinear" => {
            let x = op.input(0)?;
            vec![Info::new(Elem::U8, x.shape.clone()), Info::new(Elem::F32, vec![]), Info::new(Elem::U8, vec![])]
        }
        "QLinearSigmoid" | "QLinearLeakyRelu" | "QLinearSoftmax" => {
            vec![Info::new(op.input(0)?.elem, op.input(0)?.shape.clone())]
        }
        "QLinearAdd" | "QLinearMul" => {
            let (a, b) = (op.input(0)?, op.input(3)?);
            vec![Info::new(a.elem, broadcast(&a.shape, &b.shape)?)]
        }
        "QLinearWhere" => {
            let (c, a, b) = (op.input(0)?, op.input(1)?, op.input(4)?);
            vec![Info::new(a.elem, broadcast(&broadcast(&c.shape, &a.shape)?, &b.shape)?)]
        }
        "GatherBlockQuantized" => {
            let (a, i, s) = (op.input(0)?, op.input(1)?, op.input(2)?);
            let axis = value_axis(op.int_or("gather_axis", 0), a.rank())?;
            // Two 4-bit elements share a byte along the quantized axis when the data is stored as bytes.
            let mut rows = a.shape.clone();
            if a.elem == Elem::U8
                && op.int_or("bits", 4) == 4
                && let Some(last) = rows.last_mut()
            {
                *last = last.saturating_mul(2);
            }
            let mut shape = rows[..axis].to_vec();
            shape.extend(&i.shape);
            shape.extend(&rows[axis + 1..]);
            vec![Info::new(s.elem, shape)]
        }
        _ => return Ok(None),
    }))
}
