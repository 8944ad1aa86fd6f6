//! Pruned files: what changes in them, what does not, and that the smaller network computes what the zeroed one does.

use crate::graphs::{
    More, attention, cut, decoder, dense_block, depthwise, flatten, grouped, noise, residual, shuffle, unet,
};
use crate::onnx::{self, Builder, int, node};
use bytes::Bytes;
use half::{bf16, f16};
use hwsim::lower::Assignment;
#[cfg(feature = "runtime")]
use hwsim::prune::npz::Array;
use hwsim::prune::onnx::Source;
#[cfg(feature = "runtime")]
use hwsim::prune::runtime::{Extent, Port, Session};
use hwsim::prune::tensor::Tally;
use hwsim::prune::{Magnitude, Request};
use hwsim::workload::Options;
use hwsim::workload::onnx::proto::*;
use hwsim::workload::onnx::value::Elem;
use hwsim::workload::weights::{Stored, decode, width};
use proptest::prelude::*;
use prost::Message;
use std::collections::HashMap;
use std::path::Path;

fn source(bytes: impl Into<Bytes>) -> Source {
    Source::from_bytes(Path::new("test.onnx"), bytes.into(), &Options::default()).unwrap()
}

/// The file that rules leave, and what was counted while it was written.
fn prune(source: &Source, rules: &[&str], keep_shapes: bool) -> hwsim::error::Result<(Vec<u8>, Vec<Tally>)> {
    let (bytes, tallies, _) = prune_with(source, rules, keep_shapes, None)?;
    Ok((bytes, tallies))
}

type Pruned = (Vec<u8>, Vec<Tally>, hwsim::prune::Plan);

fn prune_with(
    source: &Source,
    rules: &[&str],
    keep_shapes: bool,
    permute: Option<u64>,
) -> hwsim::error::Result<Pruned> {
    let assignment = Assignment::parse(rules)?;
    let zeros = source.zero_points();
    let request = Request {
        assignment: &assignment,
        choose: &Magnitude,
        zero_in_place: keep_shapes,
        strict: true,
        zeros,
        round_to: 1,
        global: false,
        permute,
    };
    let rewrite = source.plan(&request)?;
    let pieces = rewrite.splice(Some("test.onnx.data"))?.model;
    let mut out = Vec::new();
    let tallies = rewrite.write(&pieces, &Magnitude, &mut out).unwrap();
    assert_eq!(out.len() as u64, pieces.len);
    Ok((out, tallies.into_values().collect(), rewrite.plan))
}

fn floats(stored: &Stored) -> Vec<f32> {
    let mut into = vec![0f32; stored.elements() as usize];
    decode(stored.elem, &stored.raw().unwrap(), &mut into);
    into
}

/// Answers of a file, by a runtime that shares nothing with the importer that pruned it.
#[cfg(feature = "runtime")]
fn run(file: &[u8]) -> Vec<Array> {
    let session = Session::from_bytes(Path::new("test.onnx"), Bytes::copy_from_slice(file)).unwrap();
    let input = |port: &Port| {
        let extent = |e: &Extent| if let Extent::Fixed(n) = e { *n } else { panic!("{port:?} is open") };
        let shape: Vec<u64> = port.shape.iter().flatten().map(extent).collect();
        let values = (0..shape.iter().product()).map(|i| noise(77 << 20 | i)).collect();
        (port.name.clone(), Array::new(shape, values))
    };
    let feeds = session.inputs().iter().map(input).collect();
    let names: Vec<&str> = session.outputs().iter().map(|p| p.name.as_str()).collect();
    session.run(&feeds, &names).unwrap()
}

/// The files compute the same within 1e-5.
#[cfg(feature = "runtime")]
fn equal(name: &str, a: &[u8], b: &[u8]) {
    for (a, b) in run(a).iter().zip(run(b)) {
        assert_eq!(a.shape, b.shape, "{name}");
        let worst = a.values.iter().zip(&b.values).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5 && a.values.iter().all(|x| x.is_finite()), "{name}: {worst}");
        assert!(a.values.iter().any(|x| *x != 0.0), "{name} answers nothing");
    }
}

/// For every group: half of its units zeroed in the file, and removed from it; the answers must be equal.
#[cfg(feature = "runtime")]
fn oracle(name: &str, builder: &Builder, groups: usize) {
    let whole = source(builder.model.encode_to_vec());
    let analysed = hwsim::sparsity::groups::Groups::analyse(&whole.model.graph);
    let mut tried = 0;
    for group in analysed.prunable() {
        let unit = match group.kind {
            hwsim::sparsity::groups::Kind::Channel => "channel",
            hwsim::sparsity::groups::Kind::Head => "head",
        };
        let rule = format!("{}={unit}@0.5", group.producers()[0]);
        let (zeroed, _) = prune(&whole, &[&rule], true).unwrap();
        let (removed, _) = prune(&whole, &[&rule], false).unwrap();
        let macs = |s: &Source| s.model.graph.total_macs().unwrap();
        assert!(macs(&source(removed.clone())) < macs(&whole), "{name}: {rule}");
        equal(&format!("{name}: {rule}"), &zeroed, &removed);
        tried += 1;
    }
    assert_eq!(tried, groups, "{name}");
}

#[cfg(feature = "runtime")]
#[test]
fn a_network_without_units_computes_what_it_does_with_them_at_zero() {
    oracle("residual", &residual(), 2);
    oracle("depthwise", &depthwise(), 2);
    oracle("dense block", &dense_block(), 3);
    oracle("grouped", &grouped(), 2);
    oracle("flatten, constant", &flatten(true), 2);
    oracle("flatten, inferred", &flatten(false), 2);
    oracle("U-Net", &unet(), 4);
    oracle("attention", &attention(), 1);
    oracle("split and slice", &cut(), 2);
    oracle("decoder", &decoder(), 3);
    oracle("shuffle", &shuffle(), 3);
}

/// Fields that no reader knows: number 1000 of every message that is written by hand here.
fn unknown(message: Vec<u8>) -> Vec<u8> {
    let mut bytes = message;
    bytes.extend([0xc2, 0x3e, 3, b'o', b'd', b'd']);
    bytes
}

#[test]
fn everything_but_the_zeros_keeps_its_bytes() {
    let mut model = residual().model;
    let graph = model.graph.take().unwrap();
    // The graph comes last, as messages may; it and the model carry fields that are not known.
    let mut bytes = model.encode_to_vec();
    let graph = unknown(graph.encode_to_vec());
    bytes.extend([7 << 3 | 2]);
    prost::encoding::encode_varint(graph.len() as u64, &mut bytes);
    bytes.extend(&graph);
    let source = source(bytes.clone());
    let (out, tallies) = prune(&source, &["2:4", "out=dense"], false).unwrap();
    assert_eq!(out.len(), bytes.len());
    let changed = bytes.iter().zip(&out).filter(|(a, b)| a != b).count();
    assert!(changed > 0);
    // Each byte that differs became zero, inside of a weight; biases and everything else are as they were.
    assert!(bytes.iter().zip(&out).all(|(a, b)| a == b || *b == 0));
    assert_eq!(tallies.iter().map(|t| t.elements).sum::<u64>(), 8 * 27 + 6 * 72 + 8 * 54);
    let after = self::source(out.clone());
    for (before, after) in source.model.weights.iter().zip(after.model.weights.iter()) {
        let masked = ["stem.w", "a.w", "b.w"].contains(&before.name.as_str());
        assert_eq!(before.raw().unwrap() == after.raw().unwrap(), !masked, "{}", before.name);
    }
    // A second time there is nothing left to take.
    assert_eq!(prune(&self::source(out.clone()), &["2:4", "out=dense"], false).unwrap().0, out);
}

#[test]
fn constants_that_other_nodes_read_too_are_copied_for_the_one_that_changes() {
    let whole = source(attention().model.encode_to_vec());
    let (bytes, _) = prune(&whole, &["q.p=head@0.5"], false).unwrap();
    let model = ModelProto::decode(&bytes[..]).unwrap().graph.unwrap();
    let reads =
        |op: &str| model.node.iter().filter(|n| n.op_type == op).map(|n| n.input[1].clone()).collect::<Vec<_>>();
    let constants = model.node.iter().filter(|n| n.op_type == "Constant").count();
    // Three reshapes read `heads`: each gets its own; `whole` has one reader and changes where it is.
    assert_eq!((reads("Reshape").iter().filter(|r| *r == "heads").count(), constants), (0, 3));
    let whole = model.initializer.iter().find(|t| t.name == "whole").unwrap();
    assert_eq!(&whole.raw_data[16..24], &4i64.to_le_bytes());
}

#[test]
fn what_cannot_go_is_refused_with_the_operator() {
    let odd = Builder::new(13)
        .input("x", &[1, 3, 4, 4])
        .conv("a", "x", [6, 3, 1, 1], 1)
        .node(NodeProto { domain: "odd".into(), ..node("Odd", &["a"], &["y"], vec![]) })
        .op("Relu", &["y"], "z", vec![])
        .conv("out", "z", [2, 6, 1, 1], 1)
        .output("out");
    let error = prune(&source(odd.model.encode_to_vec()), &["a=channel@0.5"], false).unwrap_err().to_string();
    assert!(error.contains("Odd"), "{error}");
    let whole = source(residual().model.encode_to_vec());
    let error = prune(&whole, &["out=channel@0.5"], false).unwrap_err().to_string();
    assert!(error.contains("output of the network"), "{error}");
    let error = prune(&whole, &["stam=2:4"], false).unwrap_err().to_string();
    assert!(error.contains("stem"), "{error}");
}

#[test]
fn integers_store_their_zero_point_for_zero() {
    let weight: Vec<u8> = (0..32u32).map(|i| (i * 37 % 251) as u8).collect();
    let u8s = |name: &str, dims: &[i64], raw: Vec<u8>| TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: 2,
        raw_data: raw.into(),
        ..Default::default()
    };
    let net = Builder::new(13)
        .value(onnx::value("x", 2, &[1, 8]))
        .weight(u8s("w", &[8, 4], weight.clone()))
        .weight(u8s("xz", &[], vec![3]))
        .weight(u8s("wz", &[], vec![128]))
        .op("MatMulInteger", &["x", "w", "xz", "wz"], "y", vec![])
        .output("y");
    let (bytes, tallies) = prune(&source(net.model.encode_to_vec()), &["2:4"], false).unwrap();
    let after = source(bytes);
    let made = after.model.weights.get("w").unwrap().raw().unwrap();
    assert_eq!(tallies[0].zeros, made.iter().filter(|&&b| b == 128).count() as u64);
    // Stored [in, out]: groups of four run down the columns, and the two farthest from 128 stay.
    for column in 0..4 {
        for half in 0..2 {
            let at: Vec<usize> = (0..4).map(|i| (half * 4 + i) * 4 + column).collect();
            let far = |i: &usize| (i32::from(weight[*i]) - 128).abs();
            let mut order = at.clone();
            order.sort_by_key(|i| -far(i));
            for i in &at {
                assert_eq!(made[*i], if order[..2].contains(i) { weight[*i] } else { 128 });
            }
        }
    }
}

#[test]
fn typed_fields_and_constant_nodes_are_masked_too() {
    let halves: Vec<u8> = (0..16u64)
        .flat_map(|i| {
            let mut v = Vec::new();
            prost::encoding::encode_varint(u64::from(f16::from_f32(noise(i)).to_bits()), &mut v);
            v
        })
        .collect();
    let w = TensorProto { dims: vec![4, 4], data_type: 10, int32_data: vec![halves.into()], ..Default::default() };
    let value = AttributeProto { name: "value".into(), r#type: 4, t: Some(w), ..Default::default() };
    let net = Builder::new(13)
        .value(onnx::value("x", 10, &[1, 4]))
        .op("Constant", &[], "w", vec![value])
        .op("MatMul", &["x", "w"], "y", vec![])
        .output("y");
    let (bytes, tallies) = prune(&source(net.model.encode_to_vec()), &["2:4"], false).unwrap();
    assert_eq!((tallies[0].elements, tallies[0].zeros), (16, 8));
    let after = source(bytes);
    let made = floats(after.model.weights.get("w").unwrap());
    for (i, &x) in made.iter().enumerate() {
        assert!(x == 0.0 || x == f16::from_f32(noise(i as u64)).to_f32());
    }
}

#[test]
fn elements_in_another_file_come_inside() {
    let folder = tempfile::tempdir().unwrap();
    let mut net = residual();
    let graph = net.model.graph.as_mut().unwrap();
    let entry = |k: &str, v: String| StringStringEntryProto { key: k.into(), value: v };
    let mut data = vec![0u8; 64];
    for t in &mut graph.initializer {
        let raw = std::mem::take(&mut t.raw_data);
        t.external_data = vec![
            entry("location", "weights.bin".into()),
            entry("offset", data.len().to_string()),
            entry("length", raw.len().to_string()),
        ];
        t.data_location = EXTERNAL;
        data.extend_from_slice(&raw);
    }
    let path = folder.path().join("model.onnx");
    std::fs::write(folder.path().join("weights.bin"), &data).unwrap();
    std::fs::write(&path, net.model.encode_to_vec()).unwrap();
    let there = Source::open(&path, &Options::default()).unwrap();
    assert_eq!(there.outside(), data.len() as u64 - 64);
    let inside = source(prune(&there, &["a=2:4"], false).unwrap().0);
    let plain = source(residual().model.encode_to_vec());
    for (a, b) in inside.model.weights.iter().zip(plain.model.weights.iter()) {
        assert_eq!(a.raw().unwrap() == b.raw().unwrap(), a.name != "a.w", "{}", a.name);
    }
    std::fs::remove_file(folder.path().join("weights.bin")).unwrap();
    let gone = Source::open(&path, &Options::default()).unwrap();
    let error = prune(&gone, &["a=2:4"], false).unwrap_err().to_string();
    assert!(error.contains("a.w") && error.contains("not there"), "{error}");
}

fn encoded(elem: i32, x: f32) -> Vec<u8> {
    match elem {
        10 => f16::from_f32(x).to_le_bytes().to_vec(),
        16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        11 => f64::from(x).to_le_bytes().to_vec(),
        3 => vec![(x * 250.0) as i8 as u8],
        _ => x.to_le_bytes().to_vec(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nm_holds_in_every_group_and_what_stays_is_unchanged(
        n in 1u64..70, k in 1u64..90, keep in 1u64..4, wide in 0u32..3, transposed: bool,
        elem in prop::sample::select(vec![1, 10, 16, 11, 3]), seed: u64,
    ) {
        let m = 4 << wide;
        let dims = if transposed { [k, n] } else { [n, k] };
        let raw: Vec<u8> = (0..n * k).flat_map(|i| encoded(elem, noise(seed.wrapping_add(i)))).collect();
        let w = TensorProto {
            name: "w".into(), dims: dims.map(|d| d as i64).to_vec(), data_type: elem, raw_data: raw.into(), ..Default::default()
        };
        let net = Builder::new(13)
            .value(onnx::value("x", elem, &[1, k as i64]))
            .weight(w)
            .op("Gemm", &["x", "w"], "y", vec![int("transB", i64::from(!transposed))])
            .output("y");
        let whole = source(net.model.encode_to_vec());
        let (bytes, tallies) = prune(&whole, &[&format!("{keep}:{m}")], false).unwrap();
        let after = source(bytes);
        let (old, new) = (floats(whole.model.weights.get("w").unwrap()), floats(after.model.weights.get("w").unwrap()));
        prop_assert_eq!(width(whole.model.weights.get("w").unwrap().elem).unwrap() as u64 * n * k,
            after.model.weights.get("w").unwrap().bytes());
        let at = |r: u64, c: u64| (if transposed { c * n + r } else { r * k + c }) as usize;
        let mut zeros = 0;
        for r in 0..n {
            for start in (0..k).step_by(m as usize) {
                let group: Vec<usize> = (start..(start + m).min(k)).map(|c| at(r, c)).collect();
                let stay: Vec<usize> = group.iter().copied().filter(|&i| new[i] != 0.0).collect();
                prop_assert!(stay.len() as u64 <= keep);
                let least = stay.iter().map(|&i| new[i].abs()).fold(f32::INFINITY, f32::min);
                for &i in &group {
                    if new[i] != 0.0 {
                        prop_assert_eq!(new[i], old[i]);
                    } else {
                        zeros += 1;
                        // Nothing larger than what stays went.
                        prop_assert!(old[i].abs() <= least || (stay.len() as u64) < keep && old[i] == 0.0);
                    }
                }
            }
        }
        prop_assert_eq!(tallies[0], Tally { elements: n * k, zeros });
    }
}

#[test]
fn zero_points_are_found_by_operator() {
    let whole = source(residual().model.encode_to_vec());
    assert_eq!(whole.zero_points(), HashMap::new());
}

/// Every N:M layer's kept magnitude in a masked file, all layers added up.
fn magnitude(source: &Source) -> f64 {
    source
        .model
        .weights
        .iter()
        .filter(|s| s.elem == Elem::F32)
        .map(|s| floats(s).iter().map(|x| f64::from(x.abs())).sum::<f64>())
        .sum()
}

/// A network whose channels change their order computes what it did, and its N:M keeps more.
fn reordered(name: &str, builder: &Builder, groups: usize) {
    let whole = source(builder.model.encode_to_vec());
    let pattern = ["*=2:4"];
    let (plain, _, none) = prune_with(&whole, &pattern, false, None).unwrap();
    let (bytes, _, plan) = prune_with(&whole, &pattern, false, Some(1)).unwrap();
    assert!(none.permuted.is_empty());
    assert_eq!(plan.permuted.len(), groups, "{name}: {:?} {:?}", plan.permuted, plan.untouched);
    assert!(magnitude(&source(bytes)) >= magnitude(&source(plain)) * (1.0 - 1e-6), "{name}");
    for p in &plan.permuted {
        assert!(p.kept.1 > p.kept.0, "{name}: {p:?}");
        let mut sorted = p.order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..p.order.len()).collect::<Vec<_>>(), "{name}");
    }
    // The same edits without their masks: the dense network in the new order.
    let assignment = Assignment::parse(&pattern).unwrap();
    let request = Request {
        assignment: &assignment,
        choose: &Magnitude,
        zero_in_place: false,
        strict: true,
        zeros: whole.zero_points(),
        round_to: 1,
        global: false,
        permute: Some(1),
    };
    let mut rewrite = whole.plan(&request).unwrap();
    rewrite.plan.edits.iter_mut().for_each(|e| e.mask = None);
    let pieces = rewrite.splice(Some("test.onnx.data")).unwrap().model;
    let mut dense = Vec::new();
    rewrite.write(&pieces, &Magnitude, &mut dense).unwrap();
    assert!(groups == 0 || dense != builder.model.encode_to_vec(), "{name}");
    #[cfg(feature = "runtime")]
    equal(name, &builder.model.encode_to_vec(), &dense);
}

#[test]
fn channels_in_a_better_order_compute_the_same() {
    let pointwise = Builder::new(13)
        .input("x", &[1, 3, 4, 4])
        .conv("stem", "x", [16, 3, 3, 3], 1)
        .op("Relu", &["stem"], "r", vec![])
        .conv("dw", "r", [16, 1, 3, 3], 16)
        .conv("a", "dw", [12, 16, 1, 1], 1)
        .conv("b", "a", [16, 12, 1, 1], 1)
        .op("Add", &["b", "dw"], "add", vec![])
        .conv("out", "add", [6, 16, 1, 1], 1)
        .output("out");
    reordered("depthwise and residual", &pointwise, 2);
    let split = Builder::new(13)
        .input("x", &[1, 3, 4, 4])
        .conv("a", "x", [16, 3, 1, 1], 1)
        .conv("g", "a", [24, 8, 1, 1], 2)
        .conv("out", "g", [2, 24, 1, 1], 1)
        .output("out");
    // The grouped convolution reads the same order in each group, and what it makes is read whole.
    let whole = source(split.model.encode_to_vec());
    let (_, _, plan) = prune_with(&whole, &["*=2:4"], false, Some(1)).unwrap();
    reordered("grouped", &split, plan.permuted.len());
}

#[test]
fn channels_that_must_keep_their_order_are_named() {
    // 3×3 filters read each channel as nine columns; the network's own inputs have no order to choose.
    let net = Builder::new(13)
        .input("x", &[1, 4, 4, 4])
        .conv("a", "x", [16, 4, 1, 1], 1)
        .conv("b", "a", [8, 16, 3, 3], 1)
        .output("b");
    let whole = source(net.model.encode_to_vec());
    let (_, _, plan) = prune_with(&whole, &["*=2:4"], false, Some(1)).unwrap();
    assert!(plan.permuted.is_empty());
    let reasons: Vec<String> = plan.untouched.iter().map(|u| format!("{} {}", u.layer, u.reason)).collect();
    assert!(reasons.iter().any(|r| r.starts_with("a ") && r.contains("made of no channels")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.starts_with("b ") && r.contains("several columns")), "{reasons:?}");
}
