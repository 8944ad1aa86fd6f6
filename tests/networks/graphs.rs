//! Small networks whose channels depend on one another in the ways that real ones do.

use crate::onnx::{self, Builder, int, list, node};
use hwsim::workload::onnx::proto::*;

pub fn noise(i: u64) -> f32 {
    let mut z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32 - 0.5
}

/// A float tensor of noise, which its name seeds.
pub fn random(name: &str, dims: &[i64]) -> TensorProto {
    let seed = name.bytes().fold(0u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let n: i64 = dims.iter().product();
    let raw = (0..n as u64).flat_map(|i| noise(seed << 20 | i).to_le_bytes()).collect::<Vec<_>>();
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: 1, raw_data: raw.into(), ..Default::default() }
}

pub trait More: Sized {
    fn conv(self, name: &str, from: &str, weight: [i64; 4], group: i64) -> Self;
    fn op(self, kind: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> Self;
}

impl More for Builder {
    fn conv(self, name: &str, from: &str, weight: [i64; 4], group: i64) -> Self {
        let (w, b) = (format!("{name}.w"), format!("{name}.b"));
        let pad = weight[2] / 2;
        let attributes = vec![int("group", group), list("kernel_shape", &weight[2..]), list("pads", &[pad; 4])];
        self.weight(random(&w, &weight)).weight(random(&b, &[weight[0]])).op("Conv", &[from, &w, &b], name, attributes)
    }

    fn op(self, kind: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> Self {
        self.node(NodeProto { name: output.to_owned(), ..node(kind, inputs, &[output], attributes) })
    }
}

pub fn residual() -> Builder {
    Builder::new(13)
        .input("x", &[1, 3, 6, 6])
        .conv("stem", "x", [8, 3, 3, 3], 1)
        .op("Relu", &["stem"], "relu", vec![])
        .conv("a", "relu", [6, 8, 3, 3], 1)
        .op("Relu", &["a"], "ra", vec![])
        .conv("b", "ra", [8, 6, 3, 3], 1)
        .op("Add", &["b", "relu"], "add", vec![])
        .conv("out", "add", [2, 8, 1, 1], 1)
        .output("out")
}

pub fn depthwise() -> Builder {
    Builder::new(13)
        .input("x", &[1, 3, 5, 5])
        .conv("expand", "x", [8, 3, 1, 1], 1)
        .conv("dw", "expand", [8, 1, 3, 3], 8)
        .op("GlobalAveragePool", &["dw"], "pool", vec![])
        .conv("fc1", "pool", [4, 8, 1, 1], 1)
        .op("Relu", &["fc1"], "r", vec![])
        .conv("fc2", "r", [8, 4, 1, 1], 1)
        .op("Sigmoid", &["fc2"], "gate", vec![])
        .op("Mul", &["dw", "gate"], "se", vec![])
        .conv("out", "se", [2, 8, 1, 1], 1)
        .output("out")
}

pub fn dense_block() -> Builder {
    Builder::new(13)
        .input("x", &[1, 3, 4, 4])
        .conv("a", "x", [6, 3, 3, 3], 1)
        .conv("b", "a", [4, 6, 3, 3], 1)
        .op("Concat", &["a", "b"], "ab", vec![int("axis", 1)])
        .conv("c", "ab", [4, 10, 1, 1], 1)
        .op("Concat", &["ab", "c"], "abc", vec![int("axis", 1)])
        .conv("out", "abc", [2, 14, 1, 1], 1)
        .output("out")
}

pub fn grouped() -> Builder {
    Builder::new(13)
        .input("x", &[1, 3, 4, 4])
        .conv("a", "x", [12, 3, 1, 1], 1)
        .conv("g", "a", [18, 4, 3, 3], 3)
        .conv("out", "g", [2, 18, 1, 1], 1)
        .output("out")
}

pub fn flatten(constant: bool) -> Builder {
    let to = onnx::ints("to", if constant { &[1, 96] } else { &[0, -1] });
    Builder::new(13)
        .input("x", &[1, 3, 4, 4])
        .conv("a", "x", [6, 3, 1, 1], 1)
        .weight(to)
        .op("Reshape", &["a", "to"], "flat", vec![])
        .weight(random("w1", &[96, 10]))
        .op("MatMul", &["flat", "w1"], "h", vec![])
        .weight(random("b1", &[10]))
        .op("Add", &["h", "b1"], "hb", vec![])
        .op("Relu", &["hb"], "hr", vec![])
        .weight(random("w2", &[4, 10]))
        .op("Gemm", &["hr", "w2"], "out", vec![int("transB", 1)])
        .output("out")
}

pub fn unet() -> Builder {
    Builder::new(13)
        .input("x", &[1, 3, 8, 8])
        .conv("e1", "x", [8, 3, 3, 3], 1)
        .weight(random("e2.w", &[12, 8, 2, 2]))
        .op("Conv", &["e1", "e2.w"], "e2", vec![list("kernel_shape", &[2, 2]), list("strides", &[2, 2])])
        .op("Relu", &["e2"], "r", vec![])
        .weight(random("up.w", &[12, 6, 2, 2]))
        .op("ConvTranspose", &["r", "up.w"], "up", vec![list("kernel_shape", &[2, 2]), list("strides", &[2, 2])])
        .op("Concat", &["up", "e1"], "cat", vec![int("axis", 1)])
        .conv("d1", "cat", [6, 14, 3, 3], 1)
        .conv("out", "d1", [2, 6, 1, 1], 1)
        .output("out")
}

/// Attention of four heads whose extents are named by constants that several nodes share.
pub fn attention() -> Builder {
    let mut net = Builder::new(13)
        .input("x", &[1, 3, 6])
        .weight(onnx::ints("heads", &[1, 3, 4, 2]))
        .weight(onnx::ints("whole", &[1, 3, 8]));
    for part in ["q", "k", "v"] {
        let (w, p, r) = (format!("{part}.w"), format!("{part}.p"), format!("{part}.r"));
        net = net.weight(random(&w, &[6, 8])).op("MatMul", &["x", &w], &p, vec![]);
        net = net.op("Reshape", &[&p, "heads"], &r, vec![]);
        net = net.op(
            "Transpose",
            &[&r],
            part,
            vec![list("perm", if part == "k" { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] })],
        );
    }
    net.op("MatMul", &["q", "k"], "qk", vec![])
        .op("Softmax", &["qk"], "soft", vec![int("axis", -1)])
        .op("MatMul", &["soft", "v"], "pv", vec![])
        .op("Transpose", &["pv"], "yt", vec![list("perm", &[0, 2, 1, 3])])
        .op("Reshape", &["yt", "whole"], "y", vec![])
        .weight(random("o.w", &[8, 5]))
        .op("MatMul", &["y", "o.w"], "out", vec![])
        .output("out")
}

/// Split with stated sizes, and a slice that begins behind channels that go.
pub fn cut() -> Builder {
    Builder::new(13)
        .input("x", &[1, 3, 4, 4])
        .conv("a", "x", [12, 3, 1, 1], 1)
        .weight(onnx::ints("sizes", &[4, 8]))
        .node(node("Split", &["a", "sizes"], &["s0", "s1"], vec![int("axis", 1)]))
        .conv("b", "s0", [2, 4, 1, 1], 1)
        .weight(onnx::ints("from", &[4]))
        .weight(onnx::ints("to", &[12]))
        .weight(onnx::ints("axis", &[1]))
        .op("Slice", &["a", "from", "to", "axis"], "tail", vec![])
        .op("Mul", &["s1", "tail"], "m", vec![])
        .conv("c", "m", [2, 8, 1, 1], 1)
        .op("Add", &["b", "c"], "out", vec![])
        .output("out")
}

/// A decoder's block with eight query heads on four key and value heads, and a gated MLP, on a residual stream.
pub fn decoder() -> Builder {
    let mut net = Builder::new(13)
        .input("x", &[1, 3, 6])
        .weight(random("embed.w", &[6, 8]))
        .op("MatMul", &["x", "embed.w"], "embed", vec![])
        .weight(onnx::ints("queries", &[1, 3, 4, 2, 2]))
        .weight(onnx::ints("keys", &[1, 3, 4, 1, 2]))
        .weight(onnx::ints("whole", &[1, 3, 16]));
    for (part, width, shape, perm) in
        [("q", 16, "queries", [0, 2, 3, 1, 4]), ("k", 8, "keys", [0, 2, 3, 4, 1]), ("v", 8, "keys", [0, 2, 3, 1, 4])]
    {
        let (w, p, r) = (format!("{part}.w"), format!("{part}.p"), format!("{part}.r"));
        net = net.weight(random(&w, &[8, width])).op("MatMul", &["embed", &w], &p, vec![]);
        net = net.op("Reshape", &[&p, shape], &r, vec![]).op("Transpose", &[&r], part, vec![list("perm", &perm)]);
    }
    net = net
        .op("MatMul", &["q", "k"], "qk", vec![])
        .op("Softmax", &["qk"], "soft", vec![int("axis", -1)])
        .op("MatMul", &["soft", "v"], "pv", vec![])
        .op("Transpose", &["pv"], "yt", vec![list("perm", &[0, 3, 1, 2, 4])])
        .op("Reshape", &["yt", "whole"], "y", vec![])
        .weight(random("o.w", &[16, 8]))
        .op("MatMul", &["y", "o.w"], "o", vec![])
        .op("Add", &["o", "embed"], "stream", vec![]);
    for part in ["gate", "up"] {
        let w = format!("{part}.w");
        net = net.weight(random(&w, &[8, 12])).op("MatMul", &["stream", &w], part, vec![]);
    }
    net.op("Sigmoid", &["gate"], "sigmoid", vec![])
        .op("Mul", &["gate", "sigmoid"], "silu", vec![])
        .op("Mul", &["silu", "up"], "inner", vec![])
        .weight(random("down.w", &[12, 8]))
        .op("MatMul", &["inner", "down.w"], "down", vec![])
        .op("Add", &["down", "stream"], "last", vec![])
        .weight(random("head.w", &[8, 5]))
        .op("MatMul", &["last", "head.w"], "out", vec![])
        .output("out")
}

/// Grouped convolutions with their channels dealt anew between them, batch norms and an inverted residual.
pub fn shuffle() -> Builder {
    let norm = |net: Builder, name: &str, from: &str, n: i64| {
        let all: Vec<String> = ["scale", "shift", "mean"].iter().map(|p| format!("{name}.{p}")).collect();
        let variance = TensorProto {
            name: format!("{name}.var"),
            dims: vec![n],
            data_type: 1,
            raw_data: (0..n).flat_map(|i| (0.5 + i as f32 / 8.0).to_le_bytes()).collect::<Vec<_>>().into(),
            ..Default::default()
        };
        let net = all.iter().fold(net, |net, p| net.weight(random(p, &[n]))).weight(variance);
        net.op("BatchNormalization", &[from, &all[0], &all[1], &all[2], &format!("{name}.var")], name, vec![])
    };
    let net = Builder::new(13).input("x", &[1, 4, 4, 4]).conv("a", "x", [16, 2, 1, 1], 2);
    let net = norm(net, "bn", "a", 16)
        .weight(onnx::ints("split", &[1, 2, 8, 4, 4]))
        .weight(onnx::ints("joined", &[1, 16, 4, 4]))
        .op("Reshape", &["bn", "split"], "s", vec![])
        .op("Transpose", &["s"], "t", vec![list("perm", &[0, 2, 1, 3, 4])])
        .op("Reshape", &["t", "joined"], "back", vec![])
        .conv("dw", "back", [16, 1, 3, 3], 16)
        .conv("b", "dw", [8, 8, 1, 1], 2)
        .conv("expand", "b", [12, 8, 1, 1], 1);
    norm(net, "bn2", "expand", 12)
        .op("Relu", &["bn2"], "r", vec![])
        .conv("dw2", "r", [12, 1, 3, 3], 12)
        .conv("project", "dw2", [8, 12, 1, 1], 1)
        .op("Add", &["project", "b"], "add", vec![])
        .op("GlobalAveragePool", &["add"], "pool", vec![])
        .op("Flatten", &["pool"], "flat", vec![])
        .weight(random("fc.w", &[3, 8]))
        .op("Gemm", &["flat", "fc.w"], "out", vec![int("transB", 1)])
        .output("out")
}
