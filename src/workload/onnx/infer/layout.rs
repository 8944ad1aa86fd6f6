//! Operators that join, cut and pad tensors along axes, and lists of tensors.

use super::{Op, UNKNOWN, fold};
use crate::workload::onnx::value::{self, Data, Elem, Info, Result, count, extent, show};

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    Ok(Some(match op.kind() {
        "Concat" | "QLinearConcat" => vec![concat(op)?],
        "Split" => split(op)?,
        "Slice" | "DynamicSlice" => vec![slice(op)?],
        "Crop" => {
            let a = op.input(0)?;
            let border = op.ints("border").unwrap_or(&[0, 0, 0, 0]);
            let [n, c, h, w] = a.shape[..] else { return Err(format!("needs four axes, has {}", show(&a.shape))) };
            let [l, t, r, b] = border[..] else { return Err("needs four borders".to_owned()) };
            let (h, w) = match op.ints("scale") {
                Some(&[sh, sw]) => (extent(sh, "scale")?, extent(sw, "scale")?),
                _ => (h.saturating_sub((t + b).max(0) as u64), w.saturating_sub((l + r).max(0) as u64)),
            };
            vec![Info::new(a.elem, vec![n, c, h, w])]
        }
        "Pad" => vec![pad(op)?],
        // Blocked channels of a layout-optimized model; the padding of the last block is not kept.
        "ReorderInput" => vec![op.input(0)?.clone()],
        "ReorderOutput" => {
            let a = op.input(0)?;
            let mut shape = a.shape.clone();
            if let (Some(c), Some(kept)) = (shape.get_mut(1), op.int("channels")) {
                *c = extent(kept, "channels")?;
            }
            vec![Info::new(a.elem, shape)]
        }
        "CenterCropPad" => {
            let a = op.input(0)?;
            let to = super::movement::known_shape(op, 1)?;
            let axes = match op.ints("axes") {
                Some(axes) => axes.iter().map(|&x| value::axis(x, a.rank())).collect::<Result<Vec<_>>>()?,
                None => (0..a.rank()).collect(),
            };
            let mut shape = a.shape.clone();
            for (&axis, &d) in axes.iter().zip(&to) {
                shape[axis] = d;
            }
            vec![Info::new(a.elem, shape)]
        }
        "SequenceConstruct" => vec![Info::list(op.ins.iter().flatten().cloned().collect())],
        "SequenceEmpty" => vec![Info::list(Vec::new())],
        "SequenceInsert" => {
            let mut all = members(op, 0)?;
            let one = op.input(1)?.clone();
            let at = op.opt(2).and_then(Info::int).unwrap_or(all.len() as i64);
            let at = if at < 0 { at + all.len() as i64 } else { at };
            all.insert(at.clamp(0, all.len() as i64) as usize, one);
            vec![Info::list(all)]
        }
        "SequenceErase" => {
            let mut all = members(op, 0)?;
            let at = op.opt(1).and_then(Info::int).unwrap_or(-1);
            let at = value::axis(at, all.len())?;
            all.remove(at);
            vec![Info::list(all)]
        }
        "SequenceAt" => {
            let all = members(op, 0)?;
            // Members mostly look alike, so an unknown position still gives the shape.
            let at = op.input(1)?.int().unwrap_or(0);
            vec![all[value::axis(at, all.len())?].clone()]
        }
        "SequenceLength" => vec![Info::known(Elem::I64, vec![], Data::Ints(vec![members(op, 0)?.len() as i64]))],
        "SplitToSequence" => split_to_sequence(op)?,
        "ConcatFromSequence" => {
            let all = members(op, 0)?;
            let first = all.first().ok_or("joins an empty list")?.clone();
            if op.int_or("new_axis", 0) != 0 {
                let at = value::axis(op.int_or("axis", 0), first.rank() + 1)?;
                let mut shape = first.shape.clone();
                shape.insert(at, all.len() as u64);
                vec![Info::new(first.elem, shape)]
            } else {
                let at = value::axis(op.int_or("axis", 0), first.rank())?;
                vec![join(&all.iter().collect::<Vec<_>>(), at)?]
            }
        }
        "Optional" | "OptionalGetElement" => vec![op.input(0)?.clone()],
        "OptionalHasElement" => vec![Info::known(Elem::Bool, vec![], Data::Ints(vec![i64::from(op.opt(0).is_some())]))],
        _ => return Ok(None),
    }))
}

fn members(op: &Op, i: usize) -> Result<Vec<Info>> {
    Ok(op.input(i)?.sequence.as_ref().ok_or("needs a list of tensors")?.to_vec())
}

fn concat(op: &Op) -> Result<Info> {
    let parts: Vec<&Info> = if op.kind() == "QLinearConcat" {
        op.ins.iter().skip(2).step_by(3).flatten().collect()
    } else {
        op.ins.iter().flatten().collect()
    };
    let first = parts.first().ok_or("joins nothing")?;
    join(&parts, value::axis(op.int_or("axis", 1), first.rank())?)
}

fn join(parts: &[&Info], axis: usize) -> Result<Info> {
    let first = parts.first().ok_or("joins nothing")?;
    let mut shape = first.shape.clone();
    for p in &parts[1..] {
        let fits =
            p.rank() == shape.len() && p.shape.iter().zip(&shape).enumerate().all(|(i, (a, b))| i == axis || a == b);
        if !fits {
            return Err(format!("joins {} and {} along axis {axis}", show(&first.shape), show(&p.shape)));
        }
        shape[axis] = shape[axis].checked_add(p.shape[axis]).ok_or("extents overflow")?;
    }
    count(&shape)?;
    let mut out = Info::new(first.elem, shape.clone());
    if fold::small(&shape) && parts.iter().all(|p| p.data.is_some()) {
        let outer: usize = shape[..axis].iter().product::<u64>() as usize;
        let (mut ints, mut floats) = (Vec::new(), Vec::new());
        for o in 0..outer {
            for p in parts {
                let run = p.shape[axis..].iter().product::<u64>() as usize;
                match p.data.as_deref() {
                    Some(Data::Ints(v)) => ints.extend(v.get(o * run..(o + 1) * run).unwrap_or_default()),
                    Some(Data::Floats(v)) => floats.extend(v.get(o * run..(o + 1) * run).unwrap_or_default()),
                    None => {}
                }
            }
        }
        let data = if floats.is_empty() && matches!(first.data.as_deref(), Some(Data::Ints(_))) {
            Data::Ints(ints)
        } else {
            Data::Floats(floats)
        };
        if data.len() as u64 == out.count() {
            out = out.with_data(Some(data));
        }
    }
    Ok(out)
}

fn split(op: &Op) -> Result<Vec<Info>> {
    let a = op.input(0)?;
    let axis = value::axis(op.int_or("axis", 0), a.rank())?;
    let n = op.outputs() as u64;
    let d = a.shape[axis];
    let sizes = match op.list("split", 1)? {
        Some(sizes) => sizes.iter().map(|&s| extent(s, "a part")).collect::<Result<Vec<_>>>()?,
        None => {
            let n = op.int("num_outputs").map_or(Ok(n), |n| extent(n, "num_outputs"))?.max(1);
            let each = d.div_ceil(n);
            (0..n.min(op.outputs() as u64)).map(|i| each.min(d.saturating_sub(i * each))).collect()
        }
    };
    if sizes.iter().try_fold(0u64, |s, &x| s.checked_add(x)) != Some(d) || (sizes.len() as u64) < n {
        return Err(format!("cuts axis {axis} of {} into {sizes:?}", show(&a.shape)));
    }
    let mut from = 0;
    Ok(sizes
        .iter()
        .map(|&s| {
            let part = cut(a, axis, from, 1, s);
            from += s as i64;
            part
        })
        .collect())
}

fn split_to_sequence(op: &Op) -> Result<Vec<Info>> {
    let a = op.input(0)?;
    let axis = value::axis(op.int_or("axis", 0), a.rank())?;
    let d = a.shape[axis];
    let keep = op.int_or("keepdims", 1) != 0;
    let sizes: Vec<u64> = match op.opt(1) {
        None => vec![1; usize::try_from(d.min(value::FOLD_LIMIT)).unwrap_or(0)],
        Some(s) => {
            let v = s.ints().ok_or_else(|| format!("its parts {UNKNOWN}"))?;
            if s.rank() == 0 {
                let each = extent(v.first().copied().unwrap_or(1), "a part")?.max(1);
                (0..d.div_ceil(each).min(value::FOLD_LIMIT)).map(|i| each.min(d - i * each)).collect()
            } else {
                v.iter().map(|&s| extent(s, "a part")).collect::<Result<_>>()?
            }
        }
    };
    let squeeze = op.opt(1).is_none() && !keep;
    let mut from = 0;
    let parts = sizes
        .iter()
        .map(|&s| {
            let mut part = cut(a, axis, from, 1, s);
            from += s as i64;
            if squeeze {
                part.shape.remove(axis);
            }
            part
        })
        .collect();
    Ok(vec![Info::list(parts)])
}

/// `n` elements of `axis` from `start` in steps of `step`.
fn cut(a: &Info, axis: usize, start: i64, step: i64, n: u64) -> Info {
    let mut shape = a.shape.clone();
    shape[axis] = n;
    let st = value::strides(&a.shape);
    let data = a.data.as_ref().map(|d| {
        d.pick(&value::indices(&shape, |at| {
            let x = start.checked_add(step.checked_mul(at[axis] as i64)?)?;
            let x = usize::try_from(x).ok().filter(|&x| (x as u64) < a.shape[axis])?;
            Some(at.iter().enumerate().map(|(i, &y)| if i == axis { x } else { y } * st[i]).sum())
        }))
    });
    let mut out = Info::new(a.elem, shape).with_data(data);
    out.constant = a.constant;
    out
}

/// A range of one axis: which, where it starts, in what steps, how many.
pub type Cut = (usize, i64, i64, u64);

/// The ranges that a `Slice` keeps.
pub fn slice_ranges(op: &Op) -> Result<Vec<Cut>> {
    let a = op.input(0)?;
    let starts = op.list("starts", 1)?.ok_or("needs starts")?;
    let ends = op.list("ends", 2)?.ok_or("needs ends")?;
    let axes = match op.list("axes", 3)? {
        Some(axes) => axes.iter().map(|&x| value::axis(x, a.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..starts.len()).collect(),
    };
    let steps = op.list("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if starts.len() != ends.len() || starts.len() != axes.len() || starts.len() != steps.len() {
        return Err(format!(
            "has {} starts, {} ends, {} axes and {} steps",
            starts.len(),
            ends.len(),
            axes.len(),
            steps.len()
        ));
    }
    let mut cuts = Vec::with_capacity(axes.len());
    for (i, &axis) in axes.iter().enumerate() {
        let d = *a.shape.get(axis).ok_or_else(|| format!("cuts axis {axis} of {}", show(&a.shape)))? as i64;
        let step = steps[i];
        if step == 0 {
            return Err("has a step of 0".to_owned());
        }
        let wrap = |v: i64| if v < 0 { v.saturating_add(d) } else { v };
        let (start, end) = if step > 0 {
            (wrap(starts[i]).clamp(0, d), wrap(ends[i]).clamp(0, d))
        } else {
            // Walking backwards, the end may lie before the first element; an empty axis has only that place.
            (wrap(starts[i]).clamp(0.min(d - 1), d - 1), wrap(ends[i]).clamp(-1, d - 1))
        };
        let (span, pace) = if step > 0 { (end - start, i128::from(step)) } else { (start - end, -i128::from(step)) };
        let n = (i128::from(span) + pace - 1) / pace;
        cuts.push((axis, start, step, u64::try_from(n.max(0)).unwrap_or(0)));
    }
    Ok(cuts)
}

fn slice(op: &Op) -> Result<Info> {
    let a = op.input(0)?;
    let cuts = slice_ranges(op)?;
    let mut out = a.clone();
    for &(axis, start, step, n) in &cuts {
        if n != out.shape[axis] || step != 1 {
            out = cut(&out, axis, start, step, n);
        }
    }
    Ok(out)
}

/// Elements that a `Pad` adds before and after each axis.
pub fn borders(op: &Op) -> Result<Vec<(i64, i64)>> {
    let a = op.input(0)?;
    let pads = match op.ints("pads").or_else(|| op.ints("paddings")) {
        Some(p) => p.to_vec(),
        None => op.input(1)?.ints().ok_or_else(|| format!("its padding {UNKNOWN}"))?,
    };
    let axes = match op.opt(3) {
        Some(axes) => {
            let axes = axes.ints().ok_or_else(|| format!("its axes {UNKNOWN}"))?;
            axes.iter().map(|&x| value::axis(x, a.rank())).collect::<Result<Vec<_>>>()?
        }
        None => (0..a.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let mut border = vec![(0, 0); a.rank()];
    for (i, &axis) in axes.iter().enumerate() {
        border[axis] = (pads[i], pads[i + axes.len()]);
    }
    Ok(border)
}

fn pad(op: &Op) -> Result<Info> {
    let a = op.input(0)?;
    let border = borders(op)?;
    let mut shape = a.shape.clone();
    for (d, &(before, after)) in shape.iter_mut().zip(&border) {
        let padded = (*d as i64).checked_add(before).and_then(|d| d.checked_add(after)).ok_or("padding overflows")?;
        *d = extent(padded, "a padded extent")?;
    }
    count(&shape)?;
    let lead: Vec<i64> = border.iter().map(|b| b.0).collect();
    let plain = op.text("mode").is_none_or(|m| m == "constant");
    let zero = op.opt(2).is_none_or(|v| v.floats().is_some_and(|f| f.iter().all(|&x| x == 0.0)));
    let st = value::strides(&a.shape);
    let data = a.data.as_ref().filter(|_| plain && zero && fold::small(&shape)).map(|d| {
        d.pick(&value::indices(&shape, |at| {
            let mut from = 0usize;
            for (i, &x) in at.iter().enumerate() {
                let x = usize::try_from((x as i64).checked_sub(lead[i])?).ok().filter(|&x| (x as u64) < a.shape[i])?;
                from += x * st[i];
            }
            Some(from)
        }))
    });
    Ok(Info::new(a.elem, shape).with_data(data))
}
