//! Operators over spatial axes: convolution, pooling, resizing.

use super::{Op, UNKNOWN};
use crate::workload::onnx::value::{self, Elem, Info, Result, count, extent, show};

/// A window sliding over the spatial axes of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Extents of the kernel.
    pub kernel: Vec<u64>,
    /// Steps.
    pub strides: Vec<u64>,
    /// Distances between taps.
    pub dilations: Vec<u64>,
    /// Padding before each axis, then after each axis; negative pads crop.
    pub pads: Vec<i64>,
    /// Extents of the result.
    pub out: Vec<u64>,
}

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    Ok(Some(match op.kind() {
        "Conv" | "FusedConv" | "NhwcConv" | "NhwcFusedConv" | "ConvInteger" | "QLinearConv" | "DeformConv" => {
            let (x, w) = conv_operands(op)?;
            let (x, w) = (op.input(x)?, op.input(w)?);
            let last = channels_last(op);
            let win = conv_window(op, x, w, last)?;
            let mut elem = x.elem;
            if op.kind() == "ConvInteger" {
                elem = Elem::I32;
            } else if op.kind() == "QLinearConv" {
                elem = op.opt(7).map_or(x.elem, |y| y.elem);
            }
            vec![Info::new(elem, place(x.shape[0], w.shape[0], &win.out, last))]
        }
        "ConvTranspose" | "ConvTransposeWithDynamicPads" => {
            let (x, w) = (op.input(0)?, op.input(1)?);
            let win = transposed_window(op, x, w)?;
            let groups = extent(op.int_or("group", 1), "group")?;
            let outs = w.shape[1].checked_mul(groups).ok_or("channels overflow")?;
            vec![Info::new(x.elem, place(x.shape[0], outs, &win.out, false))]
        }
        "MaxPool" | "AveragePool" | "LpPool" | "QLinearAveragePool" | "NhwcMaxPool" => {
            let x = op.input(0)?;
            let last = channels_last(op);
            let (n, c, _) = parts(x, last)?;
            let win = pool_window(op, x)?;
            let shape = place(n, c, &win.out, last);
            let mut outs = vec![Info::new(x.elem, shape.clone())];
            if op.outputs() > 1 {
                outs.push(Info::new(Elem::I64, shape));
            }
            outs
        }
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" | "QLinearGlobalAveragePool" => {
            let x = op.input(0)?;
            let last = channels_last(op);
            let (n, c, space) = parts(x, last)?;
            vec![Info::new(x.elem, place(n, c, &vec![1; space.len()], last))]
        }
        "MaxUnpool" => {
            let x = op.input(0)?;
            if op.opt(2).is_some() {
                vec![Info::new(x.elem, super::movement::known_shape(op, 2)?)]
            } else {
                let (n, c, space) = parts(x, false)?;
                let kernel = op.ints("kernel_shape").ok_or("needs an attribute `kernel_shape`")?.to_vec();
                let strides = op.ints("strides").map_or(vec![1; space.len()], <[i64]>::to_vec);
                let pads = op.ints("pads").map_or(vec![0; 2 * space.len()], <[i64]>::to_vec);
                if kernel.len() != space.len() || strides.len() != space.len() || pads.len() != 2 * space.len() {
                    return Err("kernel, strides and pads do not fit its input".to_owned());
                }
                let out = (0..space.len())
                    .map(|i| {
                        extent(
                            (space[i] as i64 - 1)
                                .saturating_mul(strides[i])
                                .saturating_sub(pads[i])
                                .saturating_sub(pads[i + space.len()])
                                .saturating_add(kernel[i]),
                            "extent",
                        )
                    })
                    .collect::<Result<Vec<_>>>()?;
                vec![Info::new(x.elem, place(n, c, &out, false))]
            }
        }
        "MaxRoiPool" => {
            let (x, rois) = (op.input(0)?, op.input(1)?);
            let (_, c, _) = parts(x, false)?;
            let pooled = op.ints("pooled_shape").ok_or("needs an attribute `pooled_shape`")?;
            let out = pooled.iter().map(|&k| extent(k, "pooled_shape")).collect::<Result<Vec<_>>>()?;
            vec![Info::new(x.elem, place(rois.shape.first().copied().unwrap_or(1), c, &out, false))]
        }
        "RoiAlign" | "CropAndResize" => {
            let (x, rois) = (op.input(0)?, op.input(1)?);
            let (_, c, _) = parts(x, false)?;
            let out = if op.kind() == "RoiAlign" {
                vec![
                    extent(op.int_or("output_height", 1), "output_height")?,
                    extent(op.int_or("output_width", 1), "output_width")?,
                ]
            } else {
                super::movement::known_shape(op, 3)?
            };
            vec![Info::new(x.elem, place(rois.shape.first().copied().unwrap_or(1), c, &out, false))]
        }
        "GridSample" => {
            let (x, grid) = (op.input(0)?, op.input(1)?);
            let (n, c, space) = parts(x, false)?;
            let out = grid.shape.get(1..=space.len()).ok_or("its grid does not fit its input")?;
            vec![Info::new(x.elem, place(n, c, out, false))]
        }
        "AffineGrid" => {
            let size = super::movement::known_shape(op, 1)?;
            let (Some(&n), Some(space)) = (size.first(), size.get(2..)) else { return Err("needs a size".to_owned()) };
            let mut shape = vec![n];
            shape.extend(space);
            shape.push(space.len() as u64);
            vec![Info::new(op.input(0)?.elem, shape)]
        }
        "Col2Im" => {
            let x = op.input(0)?;
            let image = super::movement::known_shape(op, 1)?;
            let block = super::movement::known_shape(op, 2)?.into_iter().fold(1, u64::saturating_mul).max(1);
            let (n, c, _) = parts(x, false)?;
            vec![Info::new(x.elem, place(n, c / block, &image, false))]
        }
        "Resize" | "Upsample" => vec![resize(op)?],
        _ => return Ok(None),
    }))
}

/// Which inputs are the activations and the weights of a convolution.
pub fn conv_operands(op: &Op) -> Result<(usize, usize)> {
    Ok(if op.kind() == "QLinearConv" { (0, 3) } else { (0, 1) })
}

/// Whether the channels of this operator's activations come last.
pub fn channels_last(op: &Op) -> bool {
    op.kind().starts_with("Nhwc") || op.int_or("channels_last", 0) != 0
}

/// Batch, channels and spatial extents.
pub fn parts(x: &Info, last: bool) -> Result<(u64, u64, Vec<u64>)> {
    if x.rank() < 2 {
        return Err(format!("needs a batch and a channel axis, has {}", show(&x.shape)));
    }
    let (n, rest) = (x.shape[0], &x.shape[1..]);
    let (c, space) = if last { (rest[rest.len() - 1], &rest[..rest.len() - 1]) } else { (rest[0], &rest[1..]) };
    Ok((n, c, space.to_vec()))
}

fn place(n: u64, c: u64, space: &[u64], last: bool) -> Vec<u64> {
    let mut shape = vec![n];
    if !last {
        shape.push(c);
    }
    shape.extend(space);
    if last {
        shape.push(c);
    }
    shape
}

/// The window of a convolution, its operands checked against each other.
pub fn conv_window(op: &Op, x: &Info, w: &Info, last: bool) -> Result<Window> {
    let (_, c, space) = parts(x, last)?;
    // Channels-last weights of the fused kernels are still M, C/group, then the kernel's extents, save for NhwcConv.
    let nhwc_weights = op.kind() == "NhwcConv";
    if w.rank() != x.rank() {
        return Err(format!("its weight {} does not fit its input {}", show(&w.shape), show(&x.shape)));
    }
    let (wc, taps) =
        if nhwc_weights { (w.shape[w.rank() - 1], &w.shape[1..w.rank() - 1]) } else { (w.shape[1], &w.shape[2..]) };
    let groups = extent(op.int_or("group", 1), "group")?.max(1);
    if wc.checked_mul(groups) != Some(c) {
        return Err(format!(
            "its input has {c} channels, its weight {} takes {wc} in each of {groups} groups",
            show(&w.shape)
        ));
    }
    if !w.shape[0].is_multiple_of(groups) {
        return Err(format!("{} filters do not divide into {groups} groups", w.shape[0]));
    }
    window(op, &space, taps.to_vec(), false)
}

/// The window of a pooling operator.
pub fn pool_window(op: &Op, x: &Info) -> Result<Window> {
    let (_, _, space) = parts(x, channels_last(op))?;
    let kernel = op.ints("kernel_shape").ok_or("needs an attribute `kernel_shape`")?;
    let kernel = kernel.iter().map(|&k| extent(k, "kernel_shape")).collect::<Result<Vec<_>>>()?;
    window(op, &space, kernel, op.int_or("ceil_mode", 0) != 0)
}

fn extents(op: &Op, name: &str, rank: usize) -> Result<Vec<u64>> {
    let v = match op.ints(name) {
        Some(v) if !v.is_empty() => v.iter().map(|&x| extent(x, name).map(|x| x.max(1))).collect::<Result<Vec<_>>>()?,
        _ => vec![1; rank],
    };
    if v.len() == rank { Ok(v) } else { Err(format!("has {} {name} for {rank} spatial axes", v.len())) }
}

fn window(op: &Op, space: &[u64], kernel: Vec<u64>, ceil: bool) -> Result<Window> {
    let rank = space.len();
    if kernel.len() != rank {
        return Err(format!("a kernel of {} axes for {rank} spatial axes", kernel.len()));
    }
    let strides = extents(op, "strides", rank)?;
    let dilations = extents(op, "dilations", rank)?;
    let auto = op.text("auto_pad").unwrap_or("NOTSET");
    let mut pads = vec![0i64; 2 * rank];
    if matches!(auto, "NOTSET" | "")
        && let Some(p) = op.ints("pads")
        && !p.is_empty()
    {
        if p.len() != 2 * rank {
            return Err(format!("has {} pads for {rank} spatial axes", p.len()));
        }
        pads = p.to_vec();
    }
    let mut out = Vec::with_capacity(rank);
    for i in 0..rank {
        let (d, s) = (i128::from(space[i]), i128::from(strides[i]));
        let reach = i128::from(dilations[i]) * (i128::from(kernel[i]) - 1) + 1;
        if auto.starts_with("SAME") {
            let n = (d + s - 1) / s;
            let total = i64::try_from(((n - 1) * s + reach - d).max(0)).map_err(|_| "padding overflows")?;
            let small = total / 2;
            (pads[i], pads[i + rank]) =
                if auto == "SAME_LOWER" { (total - small, small) } else { (small, total - small) };
            out.push(u64::try_from(n).unwrap_or(0));
            continue;
        }
        let room = d + i128::from(pads[i]) + i128::from(pads[i + rank]) - reach;
        if room < 0 {
            return Err(format!(
                "a kernel that reaches {reach} does not fit {d} padded by {} and {}",
                pads[i],
                pads[i + rank]
            ));
        }
        let mut n = if ceil { (room + s - 1) / s + 1 } else { room / s + 1 };
        // The last window has to start inside the input or its leading padding.
        if ceil && (n - 1) * s >= d + i128::from(pads[i]) {
            n -= 1;
        }
        out.push(u64::try_from(n).map_err(|_| "extents overflow")?);
    }
    Ok(Window { kernel, strides, dilations, pads, out })
}

/// The window of a transposed convolution.
pub fn transposed_window(op: &Op, x: &Info, w: &Info) -> Result<Window> {
    let (_, c, space) = parts(x, false)?;
    if w.rank() != x.rank() || w.shape[0] != c {
        return Err(format!("its weight {} does not fit its input {}", show(&w.shape), show(&x.shape)));
    }
    let rank = space.len();
    let kernel = w.shape[2..].to_vec();
    let strides = extents(op, "strides", rank)?;
    let dilations = extents(op, "dilations", rank)?;
    let auto = op.text("auto_pad").unwrap_or("NOTSET");
    let extra = op.ints("output_padding").filter(|e| e.len() == rank).map_or(vec![0; rank], <[i64]>::to_vec);
    let mut pads = op.ints("pads").filter(|p| p.len() == 2 * rank).map_or(vec![0; 2 * rank], <[i64]>::to_vec);
    if let Some(p) = op.opt(2).filter(|_| op.kind() == "ConvTransposeWithDynamicPads") {
        pads = p.ints().filter(|p| p.len() == 2 * rank).ok_or_else(|| format!("its padding {UNKNOWN}"))?;
    }
    let want = op.ints("output_shape").filter(|s| !s.is_empty());
    let mut out = Vec::with_capacity(rank);
    for i in 0..rank {
        let full = i128::from(strides[i]) * (i128::from(space[i]) - 1)
            + i128::from(extra[i])
            + i128::from(dilations[i]) * (i128::from(kernel[i]) - 1)
            + 1;
        let n = match want {
            Some(s) if s.len() >= rank => i128::from(s[s.len() - rank + i]),
            _ if auto.starts_with("SAME") => i128::from(space[i]) * i128::from(strides[i]),
            _ if auto == "VALID" => full,
            _ => full - i128::from(pads[i]) - i128::from(pads[i + rank]),
        };
        if want.is_some() || auto.starts_with("SAME") {
            let total = i64::try_from((full - n).max(0)).map_err(|_| "padding overflows")?;
            let half = total / 2;
            (pads[i], pads[i + rank]) = if auto == "SAME_UPPER" { (half, total - half) } else { (total - half, half) };
        }
        out.push(u64::try_from(n).map_err(|_| format!("a negative extent {n}"))?);
    }
    Ok(Window { kernel, strides, dilations, pads, out })
}

fn resize(op: &Op) -> Result<Info> {
    let x = op.input(0)?;
    let legacy = op.kind() == "Upsample" || op.opset < 11;
    let axes = match op.ints("axes") {
        Some(axes) => axes.iter().map(|&a| value::axis(a, x.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).collect(),
    };
    let mut shape = x.shape.clone();
    let sizes = if legacy { None } else { op.opt(3).filter(|s| s.count() > 0) };
    if let Some(sizes) = sizes {
        let sizes = sizes.ints().ok_or_else(|| format!("its size {UNKNOWN}"))?;
        if sizes.len() != axes.len() {
            return Err(format!("{} sizes for {} axes", sizes.len(), axes.len()));
        }
        let policy = op.text("keep_aspect_ratio_policy").unwrap_or("stretch");
        let ratios = axes.iter().zip(&sizes).map(|(&a, &s)| s as f64 / x.shape[a] as f64);
        let ratio = match policy {
            "not_larger" => Some(ratios.fold(f64::INFINITY, f64::min)),
            "not_smaller" => Some(ratios.fold(0.0, f64::max)),
            _ => None,
        };
        for (&a, &s) in axes.iter().zip(&sizes) {
            shape[a] = match ratio {
                Some(r) => (r * x.shape[a] as f64).round() as u64,
                None => extent(s, "a size")?,
            };
        }
    } else {
        let scales = match op.attr("scales") {
            Some(a) if !a.ints.is_empty() => a.ints.iter().map(|&i| i as f64).collect(),
            Some(a) if !a.floats.is_empty() => a.floats.iter().map(|&f| f64::from(f)).collect(),
            _ if op.attr("height_scale").is_some() => {
                vec![
                    1.0,
                    1.0,
                    f64::from(op.attr("height_scale").map_or(1.0, |a| a.f)),
                    f64::from(op.attr("width_scale").map_or(1.0, |a| a.f)),
                ]
            }
            _ => op.input(if legacy { 1 } else { 2 })?.floats().ok_or_else(|| format!("its scale {UNKNOWN}"))?,
        };
        if scales.len() != axes.len() {
            return Err(format!("{} scales for {} axes", scales.len(), axes.len()));
        }
        let roi = op
            .opt(1)
            .filter(|_| op.text("coordinate_transformation_mode") == Some("tf_crop_and_resize"))
            .and_then(Info::floats);
        for (i, (&a, &s)) in axes.iter().zip(&scales).enumerate() {
            let crop = roi.as_ref().filter(|r| r.len() == 2 * axes.len()).map_or(1.0, |r| r[i + axes.len()] - r[i]);
            // The scale is a float32; the product has to be taken at that precision to floor as runtimes do.
            let n = f64::from((x.shape[a] as f32) * (crop as f32) * (s as f32)).floor();
            if !(0.0..1e18).contains(&n) {
                return Err(format!("scales axis {a} by {s}"));
            }
            shape[a] = n as u64;
        }
    }
    count(&shape)?;
    Ok(Info::new(x.elem, shape))
}
