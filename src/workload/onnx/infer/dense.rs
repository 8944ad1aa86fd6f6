//! Matrix products.

use super::Op;
use crate::workload::onnx::value::{Elem, Info, Result, broadcast, count, extent, show};

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    let kind = op.kind();
    Ok(Some(vec![match kind {
        "Gemm" | "FusedGemm" | "QGemm" | "GemmFastGelu" | "GemmFloat8" => gemm(op)?,
        "MatMul"
        | "FusedMatMul"
        | "FusedMatMulActivation"
        | "TransposeMatMul"
        | "MatMulInteger"
        | "MatMulInteger16"
        | "DynamicQuantizeMatMul"
        | "MatMulIntegerToFloat"
        | "QLinearMatMul" => {
            let shape = product(op)?;
            let a = op.input(operands(kind).0)?.elem;
            let elem = match kind {
                "MatMulInteger" | "MatMulInteger16" => Elem::I32,
                "MatMulIntegerToFloat" => op.opt(2).map_or(Elem::F32, |s| s.elem),
                "QLinearMatMul" => op.opt(7).map_or(a, |y| y.elem),
                _ => a,
            };
            Info::new(elem, shape)
        }
        "MatMulNBits" | "MatMulBnb4" | "MatMulFpQ4" => {
            let a = op.input(0)?;
            let (k, n) = if kind == "MatMulFpQ4" {
                let b = super::movement::known_shape(op, 2)?;
                (b.first().copied().unwrap_or(0), b.get(1).copied().unwrap_or(0))
            } else {
                (
                    extent(op.int("K").ok_or("needs an attribute `K`")?, "K")?,
                    extent(op.int("N").ok_or("needs an attribute `N`")?, "N")?,
                )
            };
            if a.shape.last() != Some(&k) {
                return Err(format!("{} does not end in K = {k}", show(&a.shape)));
            }
            let mut shape = a.shape.clone();
            if let Some(last) = shape.last_mut() {
                *last = n;
            }
            Info::new(a.elem, shape)
        }
        "Einsum" => {
            let e = einsum(op)?;
            Info::new(op.input(0)?.elem, e.out.iter().map(|&l| e.extent(l)).collect())
        }
        _ => return Ok(None),
    }]))
}

/// Which inputs of a product are A and B.
pub fn operands(kind: &str) -> (usize, usize) {
    if matches!(kind, "QLinearMatMul" | "QGemm") { (0, 3) } else { (0, 1) }
}

fn gemm(op: &Op) -> Result<Info> {
    let (ia, ib) = operands(op.kind());
    let (a, b) = (op.input(ia)?, op.input(ib)?);
    let (ta, tb) = (op.int_or("transA", 0) != 0, op.int_or("transB", 0) != 0);
    let [mut m, mut k] = a.shape[..] else { return Err(format!("needs a matrix, has {}", show(&a.shape))) };
    let [mut kb, mut n] = b.shape[..] else { return Err(format!("needs a matrix, has {}", show(&b.shape))) };
    if ta {
        (m, k) = (k, m);
    }
    if tb {
        (kb, n) = (n, kb);
    }
    if k != kb {
        return Err(format!("multiplies {m}x{k} by {kb}x{n}"));
    }
    let elem = if op.kind() == "QGemm" { op.opt(8).map_or(Elem::F32, |y| y.elem) } else { a.elem };
    Ok(Info::new(elem, vec![m, n]))
}

/// NumPy's matrix product, with the transposes of the fused forms.
fn product(op: &Op) -> Result<Vec<u64>> {
    let (ia, ib) = operands(op.kind());
    let (a, b) = (op.input(ia)?, op.input(ib)?);
    let (mut x, mut y) = (a.shape.clone(), b.shape.clone());
    if x.is_empty() || y.is_empty() {
        return Err("multiplies a scalar".to_owned());
    }
    let (row, column) = (x.len() == 1, y.len() == 1);
    if row {
        x.insert(0, 1);
    }
    if column {
        y.push(1);
    }
    // transBatch moves the first batch axis beside the last one.
    let batch_last = |s: &mut Vec<u64>| {
        if s.len() > 2 {
            let first = s.remove(0);
            s.insert(s.len() - 1, first);
        }
    };
    if op.int_or("transBatchA", 0) != 0 {
        batch_last(&mut x);
    }
    if op.int_or("transBatchB", 0) != 0 {
        batch_last(&mut y);
    }
    let (r, c) = (x.len(), y.len());
    if op.int_or("transA", 0) != 0 && !row {
        x.swap(r - 1, r - 2);
    }
    if op.int_or("transB", 0) != 0 && !column {
        y.swap(c - 1, c - 2);
    }
    let (m, k, n) = (x[r - 2], x[r - 1], y[c - 1]);
    if y[c - 2] != k {
        return Err(format!("multiplies {} by {}", show(&a.shape), show(&b.shape)));
    }
    let mut out = broadcast(&x[..r - 2], &y[..c - 2])?;
    if !row {
        out.push(m);
    }
    if !column {
        out.push(n);
    }
    count(&out)?;
    Ok(out)
}

/// A parsed Einstein summation.
pub struct Einsum {
    /// Labels of each operand; an ellipsis has become upper labels above `~`.
    pub terms: Vec<Vec<u32>>,
    /// Labels of the result.
    pub out: Vec<u32>,
    sizes: Vec<(u32, u64)>,
}

impl Einsum {
    /// Extent of a label.
    pub fn extent(&self, label: u32) -> u64 {
        self.sizes.iter().find(|s| s.0 == label).map_or(1, |s| s.1)
    }
}

/// Parses the equation and binds its labels.
pub fn einsum(op: &Op) -> Result<Einsum> {
    let equation: String =
        op.text("equation").ok_or("needs an attribute `equation`")?.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (equation.as_str(), None),
    };
    const DOTS: u32 = 0x10_0000;
    let mut sizes: Vec<(u32, u64)> = Vec::new();
    let mut terms = Vec::new();
    let mut widest = 0usize;
    for (i, term) in left.split(',').enumerate() {
        let x = op.input(i)?;
        let named = term.chars().filter(|c| *c != '.').count();
        let hidden = x.rank().checked_sub(named).ok_or_else(|| format!("`{term}` does not fit {}", show(&x.shape)))?;
        let labels: Vec<u32> = match term.split_once("...") {
            Some((l, r)) => {
                widest = widest.max(hidden);
                l.chars()
                    .map(u32::from)
                    .chain((0..hidden as u32).map(|j| DOTS + hidden as u32 - j))
                    .chain(r.chars().map(u32::from))
                    .collect()
            }
            None if hidden == 0 => term.chars().map(u32::from).collect(),
            None => return Err(format!("`{term}` does not fit {}", show(&x.shape))),
        };
        for (&l, &d) in labels.iter().zip(&x.shape) {
            match sizes.iter_mut().find(|s| s.0 == l) {
                None => sizes.push((l, d)),
                Some(s) if s.1 == d || d == 1 => {}
                Some(s) if s.1 == 1 => s.1 = d,
                Some(s) => return Err(format!("`{equation}` binds one label to {} and {d}", s.1)),
            }
        }
        terms.push(labels);
    }
    let dots = (0..widest as u32).map(|j| DOTS + widest as u32 - j);
    let out = match right {
        Some(r) => match r.split_once("...") {
            Some((a, b)) => a.chars().map(u32::from).chain(dots).chain(b.chars().map(u32::from)).collect(),
            None => r.chars().map(u32::from).collect(),
        },
        None => {
            let mut once: Vec<u32> = sizes
                .iter()
                .map(|s| s.0)
                .filter(|&l| l < DOTS && terms.iter().flatten().filter(|&&t| t == l).count() == 1)
                .collect();
            once.sort_unstable();
            dots.chain(once).collect()
        }
    };
    Ok(Einsum { terms, out, sizes })
}
