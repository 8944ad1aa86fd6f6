//! Operators that are several layers: products with transposes, Einstein sums, and the fused forms of transformers.

use super::convert::{Site, linear};
use super::infer::{Op, attention, dense, spatial};
use super::value::{Info, Result};
use super::walk::Walk;
use crate::workload::layer::{Attention, Conv, Function, Norm, NormKind, Op as LayerOp, Param, Role};

impl Walk<'_> {
    /// The layers of a node that is not one layer, or whose layer depends on which operand is stored; `None` for others.
    pub fn compose(&mut self, op: &Op, site: &Site, outs: &[Info]) -> Result<Option<Vec<usize>>> {
        let kind = op.kind();
        Ok(Some(match kind {
            "MatMul"
            | "FusedMatMul"
            | "FusedMatMulActivation"
            | "TransposeMatMul"
            | "MatMulInteger"
            | "MatMulInteger16"
            | "DynamicQuantizeMatMul"
            | "MatMulIntegerToFloat"
            | "QLinearMatMul"
            | "Gemm"
            | "FusedGemm"
            | "QGemm"
            | "GemmFastGelu"
            | "GemmFloat8" => self.product(op, site, outs)?,
            "MatMulNBits" | "MatMulBnb4" | "MatMulFpQ4" => {
                let n = outs[0].shape.last().copied().unwrap_or(1);
                let params = self.stored(site, &[0], &[(1, Role::Weight), (5, Role::Bias)], false);
                let x = self.activation(site, 0)?;
                self.finish_layer(site, linear(n, false), &[x], params, outs)
            }
            "Einsum" => match self.einsum(op, site, outs)? {
                Some(made) => made,
                None => return Ok(None),
            },
            "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => self.skip_norm(op, site, outs)?,
            "EmbedLayerNormalization" | "QEmbedLayerNormalization" => self.embed_norm(op, site, outs)?,
            "NhwcConv" | "NhwcFusedConv" => self.channels_last(op, site, outs)?,
            "QLinearConv" if spatial::channels_last(op) => self.channels_last(op, site, outs)?,
            _ => match attention::attention(op)? {
                Some(a) => self.attention(op, site, outs, a)?,
                None => return Ok(None),
            },
        }))
    }

    fn activation(&self, site: &Site, i: usize) -> Result<usize> {
        site.ids.get(i).copied().flatten().ok_or_else(|| format!("needs an input number {}", i + 1))
    }

    /// Parameters from the stored inputs outside `acts`.
    fn stored(&mut self, site: &Site, acts: &[usize], roles: &[(usize, Role)], transposed: bool) -> Vec<Param> {
        let mut params = Vec::new();
        for (i, id) in site.ids.iter().enumerate() {
            if let Some(id) = id.filter(|_| !acts.contains(&i) && self.fixed(site.ids, i)) {
                let role = roles.iter().find(|r| r.0 == i).map_or(Role::Constant, |r| r.1);
                self.parameters(id, role, transposed && role == Role::Weight, &mut params);
            }
        }
        params
    }

    /// Activations among the inputs outside `acts`.
    fn others(&self, site: &Site, acts: &[usize]) -> Vec<usize> {
        (0..site.ids.len())
            .filter(|i| !acts.contains(i) && !self.fixed(site.ids, *i))
            .filter_map(|i| site.ids[i])
            .collect()
    }

    /// The layer that carries the node's name and makes its outputs.
    fn finish_layer(
        &mut self,
        site: &Site,
        op: LayerOp,
        acts: &[usize],
        params: Vec<Param>,
        outs: &[Info],
    ) -> Vec<usize> {
        let named = site.outputs.iter().cloned().zip(outs.iter().cloned()).collect();
        self.layer(site.name.clone(), site.spelled, op, acts, params, named)
    }

    /// A layer on the way, named after the node and its part in it.
    fn part(&mut self, site: &Site, part: &str, op: LayerOp, acts: &[usize], params: Vec<Param>, out: Info) -> usize {
        let name = self.unique("", &format!("{}/{part}", site.name));
        let tensor = name.clone();
        self.layer(name, site.spelled, op, acts, params, vec![(tensor, out)])[0]
    }

    fn transposed(&mut self, site: &Site, part: &str, id: usize, perm: Vec<usize>) -> usize {
        let info = &self.tensors[id].info;
        if perm.iter().enumerate().all(|(i, &p)| i == p) {
            return id;
        }
        let out = Info::new(info.elem, perm.iter().map(|&p| info.shape[p]).collect());
        self.part(site, part, LayerOp::Transpose { perm }, &[id], Vec::new(), out)
    }

    fn reshaped(&mut self, site: &Site, part: &str, id: usize, shape: Vec<u64>) -> usize {
        let info = &self.tensors[id].info;
        if info.shape == shape {
            return id;
        }
        let out = Info::new(info.elem, shape.clone());
        self.part(site, part, LayerOp::Reshape { shape }, &[id], Vec::new(), out)
    }

    fn product(&mut self, op: &Op, site: &Site, outs: &[Info]) -> Result<Vec<usize>> {
        let (ia, ib) = dense::operands(op.kind());
        let (mut a, mut b) = (self.activation(site, ia)?, self.activation(site, ib)?);
        let gemm = op.kind().contains("Gemm");
        let bias = match op.kind() {
            "QGemm" => 6,
            "DynamicQuantizeMatMul" => 4,
            "MatMulIntegerToFloat" => 6,
            _ if gemm => 2,
            _ => usize::MAX,
        };
        let (mut ta, mut tb) = (op.int_or("transA", 0) != 0, op.int_or("transB", 0) != 0);
        let batch_last = |rank: usize| {
            let mut perm: Vec<usize> = (1..rank).collect();
            perm.insert(rank.saturating_sub(2), 0);
            perm
        };
        for (flag, id, part) in [("transBatchA", &mut a, "batch_a"), ("transBatchB", &mut b, "batch_b")] {
            let rank = self.tensors[*id].info.rank();
            if op.int_or(flag, 0) != 0 && rank > 2 {
                *id = self.transposed(site, part, *id, batch_last(rank));
            }
        }
        let rank = |w: &Self, id: usize| w.tensors[id].info.rank();
        // Runtimes ignore the flag on a vector.
        (ta, tb) = (ta && rank(self, a) > 1, tb && rank(self, b) > 1);
        let matrix = self.tensors[b].info.shape.iter().rev().skip(2).all(|&d| d == 1);
        let mut roles: Vec<(usize, Role)> =
            (0..10).filter(|&i| i != bias && i != ib).map(|i| (i, Role::Scale)).collect();
        roles.extend([(ib, Role::Weight), (bias, Role::Bias)]);
        if self.tensors[b].layer.is_none() && self.tensors[a].layer.is_some() && matrix {
            if ta {
                let mut perm: Vec<usize> = (0..rank(self, a)).collect();
                let last = perm.len() - 1;
                perm.swap(last, last - 1);
                a = self.transposed(site, "transpose", a, perm);
            }
            let n = match &self.tensors[b].info.shape[..] {
                [.., k, n] => {
                    if tb {
                        *k
                    } else {
                        *n
                    }
                }
                _ => 1,
            };
            let biased = site.ids.get(bias).copied().flatten().is_some();
            let mut params = self.stored(site, &[ia], &roles, !tb);
            // The weight comes first, whatever its place in the operator.
            params.sort_by_key(|p| p.role != Role::Weight);
            let mut acts = vec![a];
            acts.extend(self.others(site, &[ia, ib]));
            return Ok(self.finish_layer(site, linear(n, biased), &acts, params, outs));
        }
        let params = self.stored(site, &[ia, ib], &roles, false);
        let mut acts = vec![a, b];
        acts.extend(self.others(site, &[ia, ib]));
        Ok(self.finish_layer(site, LayerOp::MatMul { transpose_a: ta, transpose_b: tb }, &acts, params, outs))
    }

    /// `batch, m, k × batch, k, n` with the transposes that bring both operands there; `None` for other sums.
    fn einsum(&mut self, op: &Op, site: &Site, outs: &[Info]) -> Result<Option<Vec<usize>>> {
        let e = dense::einsum(op)?;
        let [la, lb] = &e.terms[..] else { return Ok(None) };
        let repeats = |t: &[u32]| t.iter().enumerate().any(|(i, l)| t[..i].contains(l));
        let lone = |t: &[u32], o: &[u32]| t.iter().any(|l| !o.contains(l) && !e.out.contains(l));
        if repeats(la) || repeats(lb) || repeats(&e.out) || lone(la, lb) || lone(lb, la) {
            return Ok(None);
        }
        let pick =
            |f: &dyn Fn(u32) -> bool, from: &[u32]| -> Vec<u32> { from.iter().copied().filter(|&l| f(l)).collect() };
        let batch = pick(&|l| la.contains(&l) && lb.contains(&l), &e.out);
        let rows = pick(&|l| la.contains(&l) && !lb.contains(&l), &e.out);
        let columns = pick(&|l| !la.contains(&l) && lb.contains(&l), &e.out);
        let inner = pick(&|l| lb.contains(&l) && !e.out.contains(&l), la);
        if inner.is_empty() {
            return Ok(None);
        }
        let extent = |labels: &[u32]| labels.iter().map(|&l| e.extent(l)).product::<u64>();
        let order = |labels: &[u32], wish: &[&[u32]]| -> Vec<usize> {
            wish.concat().iter().filter_map(|l| labels.iter().position(|x| x == l)).collect()
        };
        // A label of extent 1 that broadcasts needs no copy, and is rare enough to be left to the general form.
        for (i, labels) in [la, lb].into_iter().enumerate() {
            let x = op.input(i)?;
            if labels.iter().zip(&x.shape).any(|(&l, &d)| e.extent(l) != d) {
                return Ok(None);
            }
        }
        let (a, b) = (self.activation(site, 0)?, self.activation(site, 1)?);
        let elem = outs[0].elem;
        let groups: Vec<u64> = batch.iter().map(|&l| e.extent(l)).collect();
        let (m, n, k) = (extent(&rows), extent(&columns), extent(&inner));
        let shape = |x: u64, y: u64| groups.iter().copied().chain([x, y]).collect::<Vec<_>>();
        let a = self.transposed(site, "transpose_a", a, order(la, &[&batch, &rows, &inner]));
        let a = self.reshaped(site, "reshape_a", a, shape(m, k));
        let full: Vec<u32> = [&batch[..], &rows, &columns].concat();
        let split: Vec<u64> = full.iter().map(|&l| e.extent(l)).collect();
        let straight = full == e.out;
        let last_is_product = straight && split == shape(m, n);
        let (op_layer, acts, params) =
            if self.tensors[b].layer.is_none() && batch.is_empty() && self.tensors[a].layer.is_some() {
                let mut params = Vec::new();
                self.parameters(b, Role::Weight, false, &mut params);
                if let Some(p) = params.first_mut().filter(|p| p.role == Role::Weight) {
                    // Stored with the reduction first means [in, out].
                    p.transposed = lb.first().is_some_and(|l| inner.contains(l));
                    p.shape = if p.transposed { vec![k, n] } else { vec![n, k] };
                }
                (linear(n, false), vec![a], params)
            } else {
                let direct = order(lb, &[&batch, &columns, &inner]).iter().enumerate().all(|(i, &p)| i == p);
                let wish: [&[u32]; 3] = if direct { [&batch, &columns, &inner] } else { [&batch, &inner, &columns] };
                let b = self.transposed(site, "transpose_b", b, order(lb, &wish));
                let b = self.reshaped(site, "reshape_b", b, if direct { shape(n, k) } else { shape(k, n) });
                (LayerOp::MatMul { transpose_a: false, transpose_b: direct }, vec![a, b], Vec::new())
            };
        if last_is_product {
            return Ok(Some(self.finish_layer(site, op_layer, &acts, params, outs)));
        }
        let y = self.part(site, "product", op_layer, &acts, params, Info::new(elem, shape(m, n)));
        if straight {
            return Ok(Some(self.finish_layer(site, LayerOp::Reshape { shape: split }, &[y], Vec::new(), outs)));
        }
        let y = self.reshaped(site, "reshape", y, split);
        let perm = e.out.iter().filter_map(|l| full.iter().position(|x| x == l)).collect();
        Ok(Some(self.finish_layer(site, LayerOp::Transpose { perm }, &[y], Vec::new(), outs)))
    }

    fn skip_norm(&mut self, op: &Op, site: &Site, outs: &[Info]) -> Result<Vec<usize>> {
        let x = op.input(0)?;
        let rms = op.kind().contains("Simplified");
        let bias = if rms { 3 } else { 4 };
        let mut addends = vec![self.activation(site, 0)?, self.activation(site, 1)?];
        let mut params = Vec::new();
        if let Some(b) = site.ids.get(bias).copied().flatten() {
            if self.fixed(site.ids, bias) {
                self.parameters(b, Role::Bias, false, &mut params);
            } else {
                addends.push(b);
            }
        }
        // The sum is the node's fourth output, where somebody reads it.
        let sum = match site.outputs.get(3) {
            Some(name) if outs.len() > 3 => {
                let layer = self.unique("", &format!("{}/add", site.name));
                self.layer(
                    layer,
                    site.spelled,
                    LayerOp::Pointwise(Function::Add),
                    &addends,
                    params,
                    vec![(name.clone(), outs[3].clone())],
                )[0]
            }
            _ => self.part(
                site,
                "add",
                LayerOp::Pointwise(Function::Add),
                &addends,
                params,
                Info::new(x.elem, x.shape.clone()),
            ),
        };
        let params = self.stored(site, &[0, 1, bias], &[(2, Role::Scale), (3, Role::Scale)], false);
        let kind = if rms { NormKind::Rms } else { NormKind::Layer };
        let norm = LayerOp::Norm(Norm { kind, axis: x.rank().saturating_sub(1), affine: true });
        let mut made = self.finish_layer(site, norm, &[sum], params, &outs[..outs.len().min(3)]);
        if outs.len() > 3 {
            made.push(sum);
        }
        Ok(made)
    }

    fn embed_norm(&mut self, op: &Op, site: &Site, outs: &[Info]) -> Result<Vec<usize>> {
        let ids = self.activation(site, 0)?;
        let words = op.input(2)?;
        let (vocab, dim) = (words.shape.first().copied().unwrap_or(1), words.shape.last().copied().unwrap_or(1));
        let mut params = Vec::new();
        for i in 2..5 {
            if let Some(id) = site.ids.get(i).copied().flatten().filter(|_| self.fixed(site.ids, i)) {
                self.parameters(id, Role::Constant, false, &mut params);
            }
        }
        let sum = self.part(
            site,
            "embedding",
            LayerOp::Embedding { vocab, dim },
            &[ids],
            params,
            Info::new(outs[0].elem, outs[0].shape.clone()),
        );
        let params = self.stored(site, &[0, 1, 2, 3, 4], &[(5, Role::Scale), (6, Role::Scale)], false);
        let norm = LayerOp::Norm(Norm { kind: NormKind::Layer, axis: outs[0].rank().saturating_sub(1), affine: true });
        let mut acts = vec![sum];
        acts.extend(self.others(site, &[0, 2, 3, 4]));
        Ok(self.finish_layer(site, norm, &acts, params, outs))
    }

    /// A convolution whose channels come last: between two transposes.
    fn channels_last(&mut self, op: &Op, site: &Site, outs: &[Info]) -> Result<Vec<usize>> {
        let (xi, wi) = spatial::conv_operands(op)?;
        let (x, w) = (op.input(xi)?, op.input(wi)?);
        let win = spatial::conv_window(op, x, w, true)?;
        let rank = x.rank();
        let id = self.activation(site, xi)?;
        let first: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        let back: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
        let groups = u64::try_from(op.int_or("group", 1)).unwrap_or(1).max(1);
        let half = win.pads.len() / 2;
        let bias = if op.kind() == "QLinearConv" { 8 } else { 2 };
        let conv = Conv {
            out: w.shape[0],
            pad: (0..half).map(|i| (win.pads[i].max(0) as u64, win.pads[i + half].max(0) as u64)).collect(),
            kernel: win.kernel,
            stride: win.strides,
            dilation: win.dilations,
            groups,
            bias: op.opt(bias).is_some(),
            transposed: false,
            output_pad: Vec::new(),
        };
        let id = self.transposed(site, "to_channels_first", id, first);
        let params = self.stored(site, &[xi], &[(wi, Role::Weight), (bias, Role::Bias)], false);
        let mut shape = vec![x.shape[0], w.shape[0]];
        shape.extend(&win.out);
        let mut acts = vec![id];
        acts.extend(self.others(site, &[xi]));
        let y = self.part(site, "conv", LayerOp::Conv(conv), &acts, params, Info::new(outs[0].elem, shape));
        Ok(self.finish_layer(site, LayerOp::Transpose { perm: back }, &[y], Vec::new(), outs))
    }

    fn attention(&mut self, op: &Op, site: &Site, outs: &[Info], a: attention::Attention) -> Result<Vec<usize>> {
        let elem = op.input(0)?.elem;
        let flat = |tokens: u64, heads: u64, dim: u64| vec![a.batch, tokens, heads.saturating_mul(dim)];
        let mut used = vec![0, 1, 2];
        let (q, k, v) = if a.project_out > 0 {
            let x = self.activation(site, 0)?;
            let params = self.stored(site, &[0], &[(1, Role::Weight), (2, Role::Bias)], true);
            let shape = vec![a.batch, a.queries, a.project_out];
            let y = self.part(
                site,
                "qkv",
                linear(a.project_out, op.opt(2).is_some()),
                &[x],
                params,
                Info::new(elem, shape),
            );
            used.extend(3..site.ids.len());
            let width = a.heads.saturating_mul(a.head);
            self.cut3(site, y, [width, width, a.project_out.saturating_sub(width.saturating_mul(2))], elem)
        } else if op.opt(1).is_none() {
            let x = self.activation(site, 0)?;
            let x = self.reshaped(
                site,
                "pack",
                x,
                vec![a.batch, a.queries, op.input(0)?.count() / a.batch.saturating_mul(a.queries).max(1)],
            );
            self.cut3(
                site,
                x,
                [a.heads.saturating_mul(a.head), a.kv_heads.saturating_mul(a.head), a.kv_heads.saturating_mul(a.value)],
                elem,
            )
        } else {
            let mut all = [0; 3];
            for (i, (name, heads, dim)) in
                [("q", a.heads, a.head), ("k", a.kv_heads, a.head), ("v", a.kv_heads, a.value)].into_iter().enumerate()
            {
                let id = self.activation(site, if i == 2 && op.opt(2).is_none() { 1 } else { i })?;
                let info = &self.tensors[id].info;
                // Batch, heads, length, features: heads go back beside the features.
                all[i] = match info.shape[..] {
                    [_, n, t, d] if n == heads => {
                        let id = self.transposed(site, &format!("{name}_transpose"), id, vec![0, 2, 1, 3]);
                        self.reshaped(site, &format!("{name}_reshape"), id, vec![a.batch, t, n.saturating_mul(d)])
                    }
                    [_, t, ..] if info.rank() > 3 => self.part(
                        site,
                        &format!("{name}_unpack"),
                        LayerOp::Opaque,
                        &[id],
                        Vec::new(),
                        Info::new(elem, flat(t, heads, dim)),
                    ),
                    _ => id,
                };
            }
            (all[0], all[1], all[2])
        };
        let tokens = self.tensors[k].info.shape.get(1).copied().unwrap_or(0);
        let causal = ["unidirectional", "is_causal", "causal"].iter().any(|n| op.int_or(n, 0) != 0)
            || op.kind() == "GroupQueryAttention";
        let window = op.int("local_window_size").and_then(|w| u64::try_from(w).ok()).filter(|&w| w > 0);
        let layer = Attention {
            heads: a.heads,
            kv_heads: a.kv_heads,
            // Both products together cost head + value; the layer knows one width, so it gets their mean.
            head_dim: a.head.saturating_add(a.value) / 2,
            causal,
            past: a.keys.saturating_sub(tokens),
            window,
        };
        let mut params = self.stored(site, &used, &[(3, Role::Bias)], false);
        params.retain(|p| p.role != Role::Weight);
        let mut acts = vec![q, k, v];
        acts.extend(self.others(site, &[0, 1, 2]));
        if !a.split {
            return Ok(self.finish_layer(site, LayerOp::Attention(layer), &acts, params, outs));
        }
        let y = self.part(
            site,
            "attention",
            LayerOp::Attention(layer),
            &acts,
            params,
            Info::new(elem, flat(a.queries, a.heads, a.value)),
        );
        let y = self.reshaped(site, "split_heads", y, vec![a.batch, a.queries, a.heads, a.value]);
        let mut made =
            self.finish_layer(site, LayerOp::Transpose { perm: vec![0, 2, 1, 3] }, &[y], Vec::new(), &outs[..1]);
        for (name, out) in site.outputs.iter().zip(outs).skip(1) {
            let layer = self.unique("", &format!("{}/present", site.name));
            made.extend(self.layer(
                layer,
                site.spelled,
                LayerOp::Opaque,
                &[k, v],
                Vec::new(),
                vec![(name.clone(), out.clone())],
            ));
        }
        Ok(made)
    }

    fn cut3(&mut self, site: &Site, x: usize, sizes: [u64; 3], elem: super::value::Elem) -> (usize, usize, usize) {
        let shape = self.tensors[x].info.shape.clone();
        let name = self.unique("", &format!("{}/split", site.name));
        let outs = sizes
            .iter()
            .enumerate()
            .map(|(i, &s)| (format!("{name}:{i}"), Info::new(elem, vec![shape[0], shape[1], s])))
            .collect();
        let made =
            self.layer(name, site.spelled, LayerOp::Split { axis: 2, sizes: sizes.to_vec() }, &[x], Vec::new(), outs);
        (made[0], made[1], made[2])
    }
}
