//! Operators that make tensors or give them another shape without mixing elements.

use super::{Op, UNKNOWN, fold};
use crate::workload::onnx::consts;
use crate::workload::onnx::value::{
    self, Data, Elem, Info, Order, Result, broadcast, broadcast_index, count, extent, show,
};

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    Ok(Some(vec![match op.kind() {
        "Constant" => constant(op)?,
        "ConstantOfShape" => constant_of_shape(op)?,
        "RandomNormal" | "RandomUniform" => {
            let shape = op.ints("shape").ok_or("needs an attribute `shape`")?;
            let shape = shape.iter().map(|&d| extent(d, "shape")).collect::<Result<_>>()?;
            Info::new(Elem::from_onnx(op.int_or("dtype", 1) as i32), shape)
        }
        "Range" => range(op)?,
        "Shape" => {
            let a = op.input(0)?;
            let rank = a.rank() as i64;
            let clamp = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
            let (start, end) = (clamp(op.int_or("start", 0)), clamp(op.int_or("end", rank)));
            let dims: Vec<i64> = a.shape[start..end.max(start)].iter().map(|&d| d as i64).collect();
            Info::known(Elem::I64, vec![dims.len() as u64], Data::Ints(dims))
        }
        "Size" => Info::known(Elem::I64, vec![], Data::Ints(vec![op.input(0)?.count() as i64])),
        "Reshape" => reshape(op)?,
        "Flatten" => {
            let a = op.input(0)?;
            let at = op.int_or("axis", 1);
            let at = if at == a.rank() as i64 { a.rank() } else { value::axis(at, a.rank().max(1))? };
            let shape = vec![a.shape[..at].iter().product(), a.shape[at..].iter().product()];
            reshaped(a, shape)
        }
        "Squeeze" => {
            let a = op.input(0)?;
            let shape = match op.list("axes", 1)? {
                None => a.shape.iter().copied().filter(|&d| d != 1).collect(),
                Some(axes) => {
                    let axes = axes.iter().map(|&x| value::axis(x, a.rank())).collect::<Result<Vec<_>>>()?;
                    if let Some(&x) = axes.iter().find(|&&x| a.shape[x] != 1) {
                        return Err(format!("squeezes axis {x} of {}, which is not 1", show(&a.shape)));
                    }
                    a.shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, &d)| d).collect()
                }
            };
            reshaped(a, shape)
        }
        "Unsqueeze" | "ExpandDims" => {
            let a = op.input(0)?;
            let axes = op.list("axes", 1)?.ok_or("needs axes")?;
            let rank = a.rank() + axes.len();
            if rank > value::MAX_RANK {
                return Err(format!("makes {rank} axes; at most {} are supported", value::MAX_RANK));
            }
            let axes = axes.iter().map(|&x| value::axis(x, rank)).collect::<Result<Vec<_>>>()?;
            let mut rest = a.shape.iter().copied();
            let shape = (0..rank)
                .map(|i| if axes.contains(&i) { Some(1) } else { rest.next() })
                .collect::<Option<Vec<_>>>()
                .ok_or("names an axis twice")?;
            reshaped(a, shape)
        }
        "Transpose" => transpose(op)?,
        "Expand" => {
            let a = op.input(0)?;
            let to = known_shape(op, 1)?;
            let shape = broadcast(&a.shape, &to)?;
            count(&shape)?;
            let data =
                a.data.as_ref().filter(|_| fold::small(&shape)).map(|d| d.pick(&broadcast_index(&a.shape, &shape)));
            Info::new(a.elem, shape).with_data(data)
        }
        "Tile" => tile(op)?,
        "DepthToSpace" | "SpaceToDepth" => {
            let a = op.input(0)?;
            let b = extent(op.int_or("blocksize", 0), "blocksize")?.max(1);
            let [n, c, h, w] = a.shape[..] else { return Err(format!("needs four axes, has {}", show(&a.shape))) };
            let shape = if op.kind() == "DepthToSpace" {
                let bb = b
                    .checked_mul(b)
                    .filter(|&bb| c.is_multiple_of(bb))
                    .ok_or_else(|| format!("{c} channels do not divide by blocks of {b}"))?;
                vec![n, c / bb, h.saturating_mul(b), w.saturating_mul(b)]
            } else {
                vec![n, c.saturating_mul(b).saturating_mul(b), h / b, w / b]
            };
            Info::new(a.elem, shape)
        }
        _ => return Ok(None),
    }]))
}

/// Known elements of input `i` as a shape.
pub fn known_shape(op: &Op, i: usize) -> Result<Vec<u64>> {
    let dims = op.input(i)?.ints().ok_or_else(|| format!("its output shape {UNKNOWN}"))?;
    dims.iter().map(|&d| extent(d, "a requested extent")).collect()
}

/// The same elements in another shape.
fn reshaped(a: &Info, shape: Vec<u64>) -> Info {
    let mut out = a.clone();
    if let Some(o) = &mut out.origin
        && o.order != Order::AsStored
    {
        o.order = Order::Lost;
    }
    out.shape = shape;
    out
}

fn constant(op: &Op) -> Result<Info> {
    if let Some(t) = op.tensor("value") {
        return consts::read(t);
    }
    if let Some(t) = op.attr("sparse_value").and_then(|a| a.sparse_tensor.as_ref()) {
        let shape = t.dims.iter().map(|&d| extent(d, "a constant's extent")).collect::<Result<Vec<_>>>()?;
        let mut info = Info::new(Elem::from_onnx(t.values.as_ref().map_or(0, |v| v.data_type)), shape);
        info.constant = true;
        return Ok(info);
    }
    let Some(attr) = op.node.attribute.first() else { return Err("has no value".to_owned()) };
    let f = |v: &[f32]| Data::Floats(v.iter().map(|&x| f64::from(x)).collect());
    Ok(match attr.name.as_str() {
        "value_int" => Info::known(Elem::I64, vec![], Data::Ints(vec![attr.i])),
        "value_ints" => Info::known(Elem::I64, vec![attr.ints.len() as u64], Data::Ints(attr.ints.clone())),
        "value_float" => Info::known(Elem::F32, vec![], f(&[attr.f])),
        "value_floats" => Info::known(Elem::F32, vec![attr.floats.len() as u64], f(&attr.floats)),
        "value_string" => Info { constant: true, ..Info::new(Elem::Text, vec![]) },
        "value_strings" => Info { constant: true, ..Info::new(Elem::Text, vec![attr.strings.len() as u64]) },
        other => return Err(format!("has an unknown attribute `{other}`")),
    })
}

fn constant_of_shape(op: &Op) -> Result<Info> {
    let shape = known_shape(op, 0)?;
    let n = count(&shape)?;
    let fill = match op.tensor("value") {
        Some(t) => consts::read(t)?,
        None => Info::known(Elem::F32, vec![1], Data::Floats(vec![0.0])),
    };
    let mut info = Info::new(fill.elem, shape);
    info.constant = true;
    if n <= value::FOLD_LIMIT {
        info = info.with_data(fill.data.map(|d| d.pick(&vec![Some(0); n as usize])));
    }
    Ok(info)
}

fn range(op: &mut Op) -> Result<Info> {
    let elem = op.input(0)?.elem;
    let bounds = (op.input(0)?.data.clone(), op.input(1)?.data.clone(), op.input(2)?.data.clone());
    let (Some(a), Some(b), Some(c)) = bounds else {
        return Err(format!("its length {UNKNOWN}"));
    };
    let (Some(&a0), Some(&b0), Some(&c0)) = (a.floats().first(), b.floats().first(), c.floats().first()) else {
        return Err("needs three scalars".to_owned());
    };
    if c0 == 0.0 || !(a0.is_finite() && b0.is_finite() && c0.is_finite()) {
        return Err(format!("counts from {a0} to {b0} in steps of {c0}"));
    }
    let n = ((b0 - a0) / c0).ceil().max(0.0) as u64;
    count(&[n])?;
    let mut info = Info::new(elem, vec![n]);
    info.constant = true;
    if n <= value::FOLD_LIMIT {
        info = info.with_data(Some(match (&*a, &*c) {
            (Data::Ints(a), Data::Ints(c)) => {
                Data::Ints((0..n as i64).map(|i| a[0].wrapping_add(i.wrapping_mul(c[0]))).collect())
            }
            _ => Data::Floats((0..n).map(|i| fold::round(elem, a0 + i as f64 * c0)).collect()),
        }));
    }
    Ok(info)
}

fn reshape(op: &mut Op) -> Result<Info> {
    let a = op.input(0)?.clone();
    let total = a.count();
    let Some(want) = op.list("shape", 1).or_else(|e| if e.starts_with(UNKNOWN) { Ok(None) } else { Err(e) })? else {
        return Err(format!("its output shape {UNKNOWN}"));
    };
    let zero_is_zero = op.int_or("allowzero", 0) != 0;
    let mut shape = Vec::with_capacity(want.len());
    let mut open = None;
    for (i, &d) in want.iter().enumerate() {
        shape.push(match d {
            0 if !zero_is_zero => {
                *a.shape.get(i).ok_or_else(|| format!("copies axis {i} of a tensor of {} axes", a.rank()))?
            }
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            d => extent(d, "a requested extent")?,
        });
    }
    let rest = count(&shape)?;
    if let Some(i) = open {
        if rest == 0 {
            shape[i] = 0;
        } else if total.is_multiple_of(rest) {
            shape[i] = total / rest;
        } else {
            return Err(format!("{} elements of {} do not fill {:?}", total, show(&a.shape), want));
        }
    } else if rest != total {
        return Err(format!("{} has {total} elements, the requested {} has {rest}", show(&a.shape), show(&shape)));
    }
    Ok(reshaped(&a, shape))
}

fn transpose(op: &Op) -> Result<Info> {
    let a = op.input(0)?;
    let perm = match op.ints("perm") {
        Some(p) if !p.is_empty() || a.rank() == 0 => {
            p.iter().map(|&x| value::axis(x, a.rank())).collect::<Result<Vec<_>>>()?
        }
        _ => (0..a.rank()).rev().collect(),
    };
    let mut seen = perm.clone();
    seen.sort_unstable();
    if seen != (0..a.rank()).collect::<Vec<_>>() {
        return Err(format!("permutation {perm:?} does not fit {}", show(&a.shape)));
    }
    let shape: Vec<u64> = perm.iter().map(|&p| a.shape[p]).collect();
    let mut out = a.clone();
    let st = value::strides(&a.shape);
    out.data = a.data.as_ref().map(|d| {
        d.pick(&value::indices(&shape, |at| Some(at.iter().zip(&perm).map(|(&x, &p)| x * st[p]).sum()))).into()
    });
    if let Some(o) = &mut out.origin {
        o.order = match &o.order {
            Order::AsStored => Order::Permuted(perm),
            Order::Permuted(before) if before.len() == perm.len() => {
                Order::Permuted(perm.iter().map(|&p| before[p]).collect())
            }
            _ => Order::Lost,
        };
    }
    out.shape = shape;
    Ok(out)
}

fn tile(op: &Op) -> Result<Info> {
    let a = op.input(0)?;
    let repeats = if op.opset < 6 && op.opt(2).is_some() {
        let times = op.input(1)?.int().ok_or_else(|| format!("its repeats {UNKNOWN}"))?;
        let at = value::axis(op.input(2)?.int().ok_or_else(|| format!("its axis {UNKNOWN}"))?, a.rank())?;
        (0..a.rank()).map(|i| if i == at { times } else { 1 }).collect()
    } else {
        op.input(1)?.ints().ok_or_else(|| format!("its repeats {UNKNOWN}"))?
    };
    if repeats.len() != a.rank() {
        return Err(format!("{} repeats for {} axes", repeats.len(), a.rank()));
    }
    let shape = a
        .shape
        .iter()
        .zip(&repeats)
        .map(|(&d, &r)| d.checked_mul(extent(r, "a repeat")?).ok_or_else(|| "repeats overflow".to_owned()))
        .collect::<Result<Vec<_>>>()?;
    count(&shape)?;
    let st = value::strides(&a.shape);
    let data = a.data.as_ref().filter(|_| fold::small(&shape)).map(|d| {
        d.pick(&value::indices(&shape, |at| {
            Some(at.iter().enumerate().map(|(i, &x)| x % a.shape[i].max(1) as usize * st[i]).sum())
        }))
    });
    Ok(Info::new(a.elem, shape).with_data(data))
}
