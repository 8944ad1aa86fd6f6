//! A plain executor of small graphs in f64: slow, obvious, for oracles.

use hwsim::workload::Graph;
use hwsim::workload::layer::{Function, NormKind, Op};

/// A dense tensor, row-major.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<u64>,
    pub data: Vec<f64>,
}

impl Array {
    pub fn from_fn(shape: &[u64], mut f: impl FnMut(&[u64]) -> f64) -> Self {
        let n: u64 = shape.iter().product();
        let mut at = vec![0; shape.len()];
        let mut data = Vec::new();
        for _ in 0..n {
            data.push(f(&at));
            for i in (0..shape.len()).rev() {
                at[i] += 1;
                if at[i] < shape[i] {
                    break;
                }
                at[i] = 0;
            }
        }
        Self { shape: shape.to_vec(), data }
    }

    /// Entry at an index, broadcasting and aligned at the last axis.
    pub fn at(&self, index: &[u64]) -> f64 {
        let ahead = index.len() - self.shape.len();
        let place = self.shape.iter().zip(&index[ahead..]).fold(0, |p, (&d, &i)| p * d + if d == 1 { 0 } else { i });
        self.data[place as usize]
    }
}

/// Values of every layer's outputs. `params[node]` are the layer's parameters in order.
pub fn execute(graph: &Graph, params: &[Vec<Array>], input: impl Fn(&[u64]) -> f64) -> Vec<Vec<Array>> {
    let mut values: Vec<Vec<Array>> = vec![Vec::new(); graph.len()];
    for &node in graph.order() {
        let layer = graph.layer(node);
        let x: Vec<&Array> = graph.inputs(node).into_iter().map(|(n, o)| &values[n.index()][o as usize]).collect();
        let p = &params[node.index()];
        let make = |f: &mut dyn FnMut(&[u64]) -> f64| vec![Array::from_fn(layer.shape(), |i| f(i))];
        let out = match &layer.op {
            Op::Input => make(&mut |i| input(i)),
            Op::Parameter => vec![p[0].clone()],
            Op::Conv(c) if c.transposed => {
                let (cin, per) = (x[0].shape[1] / c.groups, c.out / c.groups);
                make(&mut |i| {
                    let g = i[1] / per;
                    let mut sum = p.get(1).map_or(0.0, |b| b.data[i[1] as usize]);
                    for ch in 0..cin {
                        for ky in 0..c.kernel[0] {
                            for kx in 0..c.kernel[1] {
                                let (ny, nx) =
                                    ((i[2] + c.pad[0].0).wrapping_sub(ky), (i[3] + c.pad[1].0).wrapping_sub(kx));
                                let (y, xx) = (ny / c.stride[0], nx / c.stride[1]);
                                if ny % c.stride[0] == 0
                                    && nx % c.stride[1] == 0
                                    && y < x[0].shape[2]
                                    && xx < x[0].shape[3]
                                {
                                    let ch = g * cin + ch;
                                    sum += x[0].at(&[i[0], ch, y, xx]) * p[0].at(&[ch, i[1] % per, ky, kx]);
                                }
                            }
                        }
                    }
                    sum
                })
            }
            Op::Conv(c) => {
                let (cin, per) = (x[0].shape[1] / c.groups, c.out / c.groups);
                make(&mut |i| {
                    let mut sum = p.get(1).map_or(0.0, |b| b.data[i[1] as usize]);
                    for ch in 0..cin {
                        for ky in 0..c.kernel[0] {
                            for kx in 0..c.kernel[1] {
                                let y = (i[2] * c.stride[0] + ky).wrapping_sub(c.pad[0].0);
                                let xx = (i[3] * c.stride[1] + kx).wrapping_sub(c.pad[1].0);
                                if y < x[0].shape[2] && xx < x[0].shape[3] {
                                    sum +=
                                        x[0].at(&[i[0], i[1] / per * cin + ch, y, xx]) * p[0].at(&[i[1], ch, ky, kx]);
                                }
                            }
                        }
                    }
                    sum
                })
            }
            Op::Linear(_) => make(&mut |i| {
                let (&o, rows) = i.split_last().unwrap();
                let k = *x[0].shape.last().unwrap();
                let dot: f64 = (0..k).map(|j| x[0].at(&[rows, &[j]].concat()) * p[0].at(&[o, j])).sum();
                dot + p.get(1).map_or(0.0, |b| b.data[o as usize])
            }),
            Op::MatMul { transpose_a, transpose_b } => {
                let rank = layer.shape().len();
                let (ra, rb) = (x[0].shape.len(), x[1].shape.len());
                let k = x[0].shape[if *transpose_a { ra - 2 } else { ra - 1 }];
                assert_eq!(k, x[1].shape[if *transpose_b { rb - 1 } else { rb - 2 }]);
                make(&mut |i| {
                    let (batch, m, n) = (&i[..rank - 2], i[rank - 2], i[rank - 1]);
                    let a = |j| if *transpose_a { [batch, &[j, m]].concat() } else { [batch, &[m, j]].concat() };
                    let b = |j| if *transpose_b { [batch, &[n, j]].concat() } else { [batch, &[j, n]].concat() };
                    (0..k).map(|j| x[0].at(&a(j)) * x[1].at(&b(j))).sum()
                })
            }
            Op::Attention(a) => {
                let (keys, d, share) = (x[1].shape[1], a.head_dim, a.heads / a.kv_heads);
                make(&mut |i| {
                    let (h, c) = (i[2] / d, i[2] % d);
                    let kv = h / share;
                    let score = |t: u64| -> f64 {
                        let s: f64 =
                            (0..d).map(|j| x[0].at(&[i[0], i[1], h * d + j]) * x[1].at(&[i[0], t, kv * d + j])).sum();
                        (s / (d as f64).sqrt()).exp()
                    };
                    let total: f64 = (0..keys).map(score).sum();
                    (0..keys).map(|t| score(t) / total * x[2].at(&[i[0], t, kv * d + c])).sum()
                })
            }
            Op::Norm(n) => {
                assert_eq!(n.kind, NormKind::Batch);
                make(&mut |i| x[0].at(i) * p[0].data[i[n.axis] as usize] + p[1].data[i[n.axis] as usize])
            }
            Op::Pointwise(f) => make(&mut |i| {
                let mut all = x.iter().map(|a| a.at(i));
                let first = all.next().unwrap();
                match f {
                    Function::Add => first + all.sum::<f64>(),
                    Function::Mul => first * all.product::<f64>(),
                    Function::Relu => first.max(0.0),
                    Function::Sigmoid => 1.0 / (1.0 + (-first).exp()),
                    Function::Silu => first / (1.0 + (-first).exp()),
                    other => panic!("{other:?} is not executed"),
                }
            }),
            Op::Softmax { axis } => make(&mut |i| {
                let mut at = i.to_vec();
                let total: f64 = (0..x[0].shape[*axis])
                    .map(|j| {
                        at[*axis] = j;
                        x[0].at(&at).exp()
                    })
                    .sum();
                x[0].at(i).exp() / total
            }),
            Op::Pool(q) if q.kernel.is_empty() => {
                let (h, w) = (x[0].shape[2], x[0].shape[3]);
                make(&mut |i| {
                    let sum: f64 = (0..h * w).map(|s| x[0].at(&[i[0], i[1], s / w, s % w])).sum();
                    sum / (h * w) as f64
                })
            }
            Op::Concat { axis } => make(&mut |i| {
                let mut at = i.to_vec();
                let part = x.iter().find(|a| {
                    let inside = at[*axis] < a.shape[*axis];
                    if !inside {
                        at[*axis] -= a.shape[*axis];
                    }
                    inside
                });
                part.unwrap().at(&at)
            }),
            Op::Split { axis, .. } => {
                let mut start = 0;
                let mut parts = Vec::new();
                for t in &layer.outputs {
                    parts.push(Array::from_fn(&t.shape, |i| {
                        let mut at = i.to_vec();
                        at[*axis] += start;
                        x[0].at(&at)
                    }));
                    start += t.shape[*axis];
                }
                parts
            }
            Op::Slice { ranges } => make(&mut |i| {
                let mut at = i.to_vec();
                ranges.iter().for_each(|r| at[r.axis] += r.start);
                x[0].at(&at)
            }),
            Op::Reshape { .. } => vec![Array { shape: layer.shape().to_vec(), data: x[0].data.clone() }],
            Op::Transpose { perm } => make(&mut |i| {
                let mut at = vec![0; i.len()];
                perm.iter().zip(i).for_each(|(&q, &v)| at[q] = v);
                x[0].at(&at)
            }),
            other => panic!("{other:?} is not executed"),
        };
        values[node.index()] = out;
    }
    values
}
