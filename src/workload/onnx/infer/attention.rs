//! Attention and embedding, as fused operators.

use super::{Op, UNKNOWN};
use crate::workload::onnx::value::{Elem, Info, Result, extent, show};

/// Extents of scaled dot-product attention.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// Batch.
    pub batch: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Query length.
    pub queries: u64,
    /// Key and value length, the past included.
    pub keys: u64,
    /// Extent of a query or key head.
    pub head: u64,
    /// Extent of a value head.
    pub value: u64,
    /// Features that a fused projection makes for each token, 0 without one.
    pub project_out: u64,
    /// Whether the first input has its heads on an axis of their own.
    pub split: bool,
}

impl Attention {
    fn present(&self, elem: Elem) -> (Info, Info) {
        (
            Info::new(elem, vec![self.batch, self.kv_heads, self.keys, self.head]),
            Info::new(elem, vec![self.batch, self.kv_heads, self.keys, self.value]),
        )
    }
}

pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    if op.kind() == "EmbedLayerNormalization" || op.kind() == "QEmbedLayerNormalization" {
        let (ids, words) = (op.input(0)?, op.input(2)?);
        let mut shape = ids.shape.clone();
        shape.push(words.shape.last().copied().ok_or("needs an embedding matrix")?);
        let batch = ids.shape.first().copied().unwrap_or(1);
        let elem = if words.elem.is_float() { words.elem } else { Elem::F32 };
        let mut outs = vec![Info::new(elem, shape.clone()), Info::new(Elem::I32, vec![batch]), Info::new(elem, shape)];
        outs.truncate(op.outputs());
        return Ok(Some(outs));
    }
    let Some(a) = attention(op)? else { return Ok(None) };
    let elem = op.input(0)?.elem;
    let flat = Info::new(elem, vec![a.batch, a.queries, a.heads.saturating_mul(a.value)]);
    let y = if a.split { Info::new(elem, vec![a.batch, a.heads, a.queries, a.value]) } else { flat };
    let (key, value) = a.present(elem);
    Ok(Some(match op.kind() {
        "Attention" if op.node.domain == "com.microsoft" => {
            vec![y, Info::new(elem, vec![2, a.batch, a.heads, a.keys, a.head])]
        }
        "QAttention" => {
            let elem = op.opt(3).map_or(Elem::F32, |s| s.elem);
            vec![Info { elem, ..y }, Info::new(elem, vec![2, a.batch, a.heads, a.keys, a.head])]
        }
        "LongformerAttention" => vec![y],
        _ => vec![y, key, value, Info::new(elem, vec![a.batch, a.heads, a.queries, a.keys])],
    }))
}

fn heads(op: &Op, name: &str) -> Result<Option<u64>> {
    op.int(name).filter(|&h| h > 0).map(|h| extent(h, name)).transpose()
}

/// Extents of an attention node; `None` for other operators.
pub fn attention(op: &Op) -> Result<Option<Attention>> {
    let fused = op.node.domain == "com.microsoft";
    Ok(Some(match op.kind() {
        "Attention" | "QAttention" if fused => projected(op)?,
        "LongformerAttention" if fused => {
            let mut a = projected(op)?;
            let window = extent(op.int_or("window", 0), "window")?;
            a.keys = a.keys.min(window.saturating_mul(2).saturating_add(1));
            a
        }
        "MultiHeadAttention" | "DecoderMaskedMultiHeadAttention" if fused => multi_head(op)?,
        "GroupQueryAttention" | "PagedAttention" | "SparseAttention" if fused => grouped(op)?,
        "Attention" => standard(op)?,
        _ => return Ok(None),
    }))
}

fn triple(x: &Info) -> Result<(u64, u64, u64)> {
    match x.shape[..] {
        [b, s, h] => Ok((b, s, h)),
        _ => Err(format!("needs batch, length and features, has {}", show(&x.shape))),
    }
}

/// Query, key and value projections and attention in one operator.
fn projected(op: &Op) -> Result<Attention> {
    let (x, w) = (op.input(0)?, op.input(1)?);
    let (batch, queries, _) = triple(x)?;
    let heads = heads(op, "num_heads")?.ok_or("needs an attribute `num_heads`")?;
    let project_out = *w.shape.last().ok_or("needs a weight")?;
    let (qk, v) = match op.ints("qkv_hidden_sizes") {
        Some(&[q, _, v]) => (extent(q, "qkv_hidden_sizes")?, extent(v, "qkv_hidden_sizes")?),
        _ => (project_out / 3, project_out / 3),
    };
    let past = op.opt(if op.kind() == "QAttention" { 8 } else { 4 }).and_then(|p| p.shape.get(3).copied()).unwrap_or(0);
    Ok(Attention {
        batch,
        heads,
        kv_heads: heads,
        queries,
        keys: queries.saturating_add(past),
        head: qk / heads,
        value: v / heads,
        project_out,
        split: false,
    })
}

fn multi_head(op: &Op) -> Result<Attention> {
    let q = op.input(0)?;
    let heads = heads(op, "num_heads")?.ok_or("needs an attribute `num_heads`")?;
    let (batch, queries, hidden) = match q.shape[..] {
        [b, s, h] => (b, s, h),
        // Packed query, key and value: batch, length, heads, 3, head.
        [b, s, n, 3, d] => (b, s, n.saturating_mul(d)),
        _ => return Err(format!("needs batch, length and features, has {}", show(&q.shape))),
    };
    let head = hidden / heads;
    let (mut keys, mut value) = (queries, head);
    if let Some(k) = op.opt(1) {
        keys = match k.shape[..] {
            [_, l, _] | [_, _, l, _] | [_, l, _, 2, _] => l,
            _ => return Err(format!("its key has shape {}", show(&k.shape))),
        };
    }
    if let Some(v) = op.opt(2) {
        value = match v.shape[..] {
            [_, _, h] => h / heads,
            [_, _, _, d] => d,
            _ => return Err(format!("its value has shape {}", show(&v.shape))),
        };
    }
    let past = if op.kind() == "MultiHeadAttention" { 6 } else { 5 };
    let cross = op.opt(1).is_some_and(|k| k.rank() == 4);
    let past = op.opt(past).filter(|_| !cross).and_then(|p| p.shape.get(2).copied()).unwrap_or(0);
    Ok(Attention {
        batch,
        heads,
        kv_heads: heads,
        queries,
        keys: keys.saturating_add(past),
        head,
        value,
        project_out: 0,
        split: false,
    })
}

fn grouped(op: &Op) -> Result<Attention> {
    let (batch, queries, hidden) = triple(op.input(0)?)?;
    let n = heads(op, "num_heads")?.ok_or("needs an attribute `num_heads`")?;
    let kv = heads(op, "kv_num_heads")?.ok_or("needs an attribute `kv_num_heads`")?;
    let packed = op.opt(1).is_none();
    let head = if packed { hidden / n.saturating_add(kv.saturating_mul(2)).max(1) } else { hidden / n };
    let past = op.opt(3).and_then(|p| p.shape.get(2).copied()).unwrap_or(0);
    // A buffer that is shared by past and present is as long as its capacity; the total says how much is filled.
    let keys = match op.opt(6).and_then(Info::int) {
        Some(total) => extent(total, "total_sequence_length")?.max(past),
        None => past.saturating_add(queries),
    };
    Ok(Attention { batch, heads: n, kv_heads: kv, queries, keys, head, value: head, project_out: 0, split: false })
}

/// The standard's own `Attention` (operator set 23).
fn standard(op: &Op) -> Result<Attention> {
    let (q, k, v) = (op.input(0)?, op.input(1)?, op.input(2)?);
    let past = op.opt(4).and_then(|p| p.shape.get(2).copied()).unwrap_or(0);
    match (&q.shape[..], &k.shape[..], &v.shape[..]) {
        (&[batch, n, queries, head], &[_, kv, keys, _], &[_, _, _, value]) => Ok(Attention {
            batch,
            heads: n,
            kv_heads: kv,
            queries,
            keys: keys.saturating_add(past),
            head,
            value,
            project_out: 0,
            split: true,
        }),
        (&[batch, queries, h], &[_, keys, _], &[_, _, hv]) => {
            let n = heads(op, "q_num_heads")?.ok_or("needs an attribute `q_num_heads`")?;
            let kv = heads(op, "kv_num_heads")?.unwrap_or(n);
            Ok(Attention {
                batch,
                heads: n,
                kv_heads: kv,
                queries,
                keys: keys.saturating_add(past),
                head: h / n,
                value: hv / kv,
                project_out: 0,
                split: false,
            })
        }
        _ => Err(format!(
            "its query, key and value have shapes {}, {}, {}; {UNKNOWN}",
            show(&q.shape),
            show(&k.shape),
            show(&v.shape)
        )),
    }
}
