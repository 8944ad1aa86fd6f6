//! Operators that pick elements: gathers, searches, and outputs whose size depends on the data.

use super::{Op, UNKNOWN};
use crate::workload::onnx::value::{self, Data, Elem, Info, Result, count, extent, show, strides};

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    Ok(Some(match op.kind() {
        "Gather" => vec![gather(op)?],
        "GatherElements" => {
            let (a, i) = (op.input(0)?, op.input(1)?);
            vec![Info::new(a.elem, i.shape.clone())]
        }
        "GatherND" => vec![gather_nd(op)?],
        "ArrayFeatureExtractor" => {
            let (a, i) = (op.input(0)?, op.input(1)?);
            let mut shape = a.shape.clone();
            if let Some(last) = shape.last_mut() {
                *last = i.count();
            }
            if shape.len() == 1 {
                shape.insert(0, 1);
            }
            vec![Info::new(a.elem, shape)]
        }
        "OneHot" => {
            let depth = op.input(1)?.int().ok_or_else(|| format!("its depth {UNKNOWN}"))?;
            let a = op.input(0)?;
            let at = value::axis(op.int_or("axis", -1), a.rank() + 1)?;
            let mut shape = a.shape.clone();
            shape.insert(at, extent(depth, "depth")?);
            vec![Info::new(op.input(2)?.elem, shape)]
        }
        "TopK" => {
            let a = op.input(0)?;
            let k = match op.int("k") {
                Some(k) => k,
                None => op.input(1)?.int().ok_or_else(|| format!("its k {UNKNOWN}"))?,
            };
            let at = value::axis(op.int_or("axis", -1), a.rank())?;
            let mut shape = a.shape.clone();
            shape[at] = extent(k, "k")?.min(shape[at]);
            vec![Info::new(a.elem, shape.clone()), Info::new(Elem::I64, shape)]
        }
        "NonZero" => vec![nonzero(op)?],
        "Compress" => compress(op)?,
        "Unique" => {
            let a = op.input(0)?.clone();
            let n = match op.int("axis") {
                Some(x) => a.shape[value::axis(x, a.rank())?],
                None => a.count(),
            };
            op.notes.push(format!("the number of distinct values depends on the data; taken as all {n}"));
            let shape = match op.int("axis") {
                Some(_) => a.shape.clone(),
                None => vec![n],
            };
            let mut outs = vec![Info::new(a.elem, shape)];
            outs.extend((1..op.outputs()).map(|_| Info::new(Elem::I64, vec![n])));
            outs
        }
        "NonMaxSuppression" => vec![nms(op)?],
        "SequenceMap" | "StringConcat" => return Ok(None),
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => {
            let n = op.input(0)?.int().ok_or_else(|| format!("its length {UNKNOWN}"))?;
            vec![Info::new(Elem::from_onnx(op.int_or("output_datatype", 1) as i32), vec![extent(n, "length")?])]
        }
        "MelWeightMatrix" => {
            let bins = op.input(0)?.int().ok_or_else(|| format!("its number of bins {UNKNOWN}"))?;
            let dft = op.input(1)?.int().ok_or_else(|| format!("its length {UNKNOWN}"))?;
            vec![Info::new(Elem::F32, vec![extent(dft, "length")? / 2 + 1, extent(bins, "bins")?])]
        }
        "DFT" => vec![dft(op)?],
        "STFT" => {
            let a = op.input(0)?;
            let [batch, signal, ..] = a.shape[..] else {
                return Err(format!("needs three axes, has {}", show(&a.shape)));
            };
            let step = op.input(1)?.int().ok_or_else(|| format!("its step {UNKNOWN}"))?;
            let frame = match op.opt(3).and_then(Info::int) {
                Some(f) => extent(f, "frame length")?,
                None => op.opt(2).map(Info::count).ok_or("needs a window or a frame length")?,
            };
            let step = extent(step, "step")?.max(1);
            let frames = signal.checked_sub(frame).ok_or("the frame is longer than the signal")? / step + 1;
            let bins = if op.int_or("onesided", 1) != 0 { frame / 2 + 1 } else { frame };
            vec![Info::new(a.elem, vec![batch, frames, bins, 2])]
        }
        "Multinomial" => {
            let a = op.input(0)?;
            let n = extent(op.int_or("sample_size", 1), "sample_size")?;
            vec![Info::new(Elem::from_onnx(op.int_or("dtype", 6) as i32), vec![*a.shape.first().unwrap_or(&1), n])]
        }
        "TfIdfVectorizer" => {
            let a = op.input(0)?;
            let n = op.ints("ngram_indexes").and_then(|v| v.iter().max().copied()).unwrap_or(0) + 1;
            let mut shape = a.shape[..a.rank().saturating_sub(1)].to_vec();
            shape.push(extent(n, "ngram_indexes")?);
            vec![Info::new(Elem::F32, shape)]
        }
        "LabelEncoder" | "CategoryMapper" => {
            let a = op.input(0)?;
            let elem = if a.elem == Elem::Text { Elem::I64 } else { Elem::Text };
            vec![Info::new(elem, a.shape.clone())]
        }
        "OneHotEncoder" => {
            let a = op.input(0)?;
            let n = op
                .attr("cats_int64s")
                .map_or(0, |c| c.ints.len())
                .max(op.attr("cats_strings").map_or(0, |c| c.strings.len()));
            let mut shape = a.shape.clone();
            shape.push(n as u64);
            vec![Info::new(Elem::F32, shape)]
        }
        "FeatureVectorizer" => {
            let rows = op.input(0)?.shape.first().copied().unwrap_or(1);
            let n =
                op.ins.iter().flatten().map(|i| i.shape.get(1).copied().unwrap_or(1)).fold(0u64, u64::saturating_add);
            vec![Info::new(Elem::F32, vec![rows, n])]
        }
        "LinearClassifier" | "SVMClassifier" | "TreeEnsembleClassifier" => {
            let rows = op.input(0)?.shape.first().copied().unwrap_or(1);
            let ints =
                ["classlabels_ints", "classlabels_int64s"].iter().find_map(|n| op.ints(n)).map_or(0, <[i64]>::len);
            let texts = op.attr("classlabels_strings").map_or(0, |a| a.strings.len());
            let label = if texts > 0 { Elem::Text } else { Elem::I64 };
            vec![Info::new(label, vec![rows]), Info::new(Elem::F32, vec![rows, ints.max(texts).max(1) as u64])]
        }
        "LinearRegressor" | "SVMRegressor" | "TreeEnsembleRegressor" | "TreeEnsemble" => {
            let rows = op.input(0)?.shape.first().copied().unwrap_or(1);
            let n = op.int("targets").or_else(|| op.int("n_targets")).unwrap_or(1);
            vec![Info::new(Elem::F32, vec![rows, extent(n, "targets")?])]
        }
        "ZipMap" => vec![Info::new(Elem::Unknown, op.input(0)?.shape.clone())],
        _ => return Ok(None),
    }))
}

fn gather(op: &Op) -> Result<Info> {
    let (a, i) = (op.input(0)?, op.input(1)?);
    let axis = value::axis(op.int_or("axis", 0), a.rank())?;
    let mut shape = a.shape[..axis].to_vec();
    shape.extend(&i.shape);
    shape.extend(&a.shape[axis + 1..]);
    count(&shape)?;
    let mut out = Info::new(a.elem, shape);
    if let (Some(d), Some(at)) = (&a.data, i.ints())
        && super::fold::small(&out.shape)
    {
        let (outer, inner): (u64, u64) = (a.shape[..axis].iter().product(), a.shape[axis + 1..].iter().product());
        let n = a.shape[axis];
        let mut pick = Vec::new();
        for o in 0..outer {
            for &k in &at {
                let k = if k < 0 { k.saturating_add(n as i64) } else { k };
                let k = u64::try_from(k)
                    .ok()
                    .filter(|&k| k < n)
                    .ok_or_else(|| format!("takes element {k} of an axis of {n}"))?;
                pick.extend((0..inner).map(|j| Some(((o * n + k) * inner + j) as usize)));
            }
        }
        out = out.with_data(Some(d.pick(&pick)));
    }
    Ok(out)
}

fn gather_nd(op: &Op) -> Result<Info> {
    let (a, i) = (op.input(0)?, op.input(1)?);
    let batch = usize::try_from(op.int_or("batch_dims", 0)).unwrap_or(0);
    let depth = i.shape.last().copied().ok_or("needs indices of at least one axis")?;
    let from = usize::try_from(depth).ok().and_then(|d| d.checked_add(batch)).filter(|&f| f <= a.rank());
    let from = from.ok_or_else(|| format!("indexes {depth} axes of {}", show(&a.shape)))?;
    let mut shape = i.shape[..i.rank() - 1].to_vec();
    shape.extend(&a.shape[from..]);
    count(&shape)?;
    let mut out = Info::new(a.elem, shape);
    if let (Some(d), Some(at), 0, true) = (&a.data, i.ints(), batch, depth > 0)
        && super::fold::small(&out.shape)
    {
        let st = strides(&a.shape);
        let run = a.shape[from..].iter().product::<u64>() as usize;
        let mut pick = Vec::new();
        for tuple in at.chunks(depth as usize) {
            let base: usize = tuple
                .iter()
                .enumerate()
                .map(|(x, &k)| (if k < 0 { k.saturating_add(a.shape[x] as i64) } else { k }).max(0) as usize * st[x])
                .fold(0, usize::saturating_add);
            pick.extend((0..run).map(|j| Some(base.saturating_add(j))));
        }
        out = out.with_data(Some(d.pick(&pick)));
    }
    Ok(out)
}

fn nonzero(op: &mut Op) -> Result<Info> {
    let a = op.input(0)?.clone();
    let rank = a.rank().max(1) as u64;
    if let Some(d) = &a.data {
        let st = strides(&a.shape);
        let hits: Vec<usize> = d.floats().iter().enumerate().filter(|(_, x)| **x != 0.0).map(|(i, _)| i).collect();
        let mut all = Vec::with_capacity(hits.len() * rank as usize);
        for (&stride, &n) in st.iter().zip(&a.shape) {
            all.extend(hits.iter().map(|&h| (h / stride % n.max(1) as usize) as i64));
        }
        // A scalar counts as a vector of one.
        if a.shape.is_empty() {
            all.resize(hits.len(), 0);
        }
        return Ok(Info::known(Elem::I64, vec![rank, hits.len() as u64], Data::Ints(all)));
    }
    let n = a.count();
    op.notes.push(format!("how many elements are nonzero depends on the data; taken as all {n}"));
    Ok(Info::new(Elem::I64, vec![rank, n]))
}

fn compress(op: &mut Op) -> Result<Vec<Info>> {
    let a = op.input(0)?.clone();
    let mask = op.input(1)?.clone();
    let kept = match mask.ints() {
        Some(m) => m.iter().filter(|&&x| x != 0).count() as u64,
        None => {
            let n = mask.count();
            op.notes.push(format!("how many elements are kept depends on the data; taken as all {n}"));
            n
        }
    };
    Ok(vec![match op.int("axis") {
        Some(x) => {
            let x = value::axis(x, a.rank())?;
            let mut shape = a.shape.clone();
            shape[x] = kept.min(shape[x]);
            Info::new(a.elem, shape)
        }
        None => Info::new(a.elem, vec![kept.min(a.count())]),
    }])
}

fn nms(op: &mut Op) -> Result<Info> {
    let (boxes, scores) = (op.input(0)?.clone(), op.input(1)?.clone());
    let spatial = boxes.shape.get(1).copied().unwrap_or(1);
    let most = op.opt(2).and_then(Info::int).and_then(|m| u64::try_from(m).ok()).unwrap_or(0);
    let each = spatial.min(most);
    let lists = scores.shape.iter().take(2).product::<u64>();
    let n = lists.saturating_mul(each);
    op.notes.push(format!("how many boxes are kept depends on the data; taken as at most {n}"));
    Ok(Info::new(Elem::I64, vec![n, 3]))
}

fn dft(op: &Op) -> Result<Info> {
    let a = op.input(0)?;
    let axis = match op.opt(2).and_then(Info::int) {
        Some(x) => x,
        None if op.opset < 20 => op.int_or("axis", 1),
        None => -2,
    };
    let axis = value::axis(axis, a.rank())?;
    let mut shape = a.shape.clone();
    if let Some(n) = op.opt(1).and_then(Info::int) {
        shape[axis] = extent(n, "length")?;
    }
    let inverse = op.int_or("inverse", 0) != 0;
    if op.int_or("onesided", 0) != 0 && !inverse {
        shape[axis] = shape[axis] / 2 + 1;
    } else if op.int_or("onesided", 0) != 0 && op.opt(1).is_none() {
        // Half a spectrum of n/2 + 1 bins comes from n samples; n is taken as even.
        shape[axis] = shape[axis].saturating_sub(1).saturating_mul(2);
    }
    if let Some(last) = shape.last_mut() {
        *last = if op.int_or("onesided", 0) != 0 && inverse { 1 } else { 2 };
    }
    Ok(Info::new(a.elem, shape))
}
