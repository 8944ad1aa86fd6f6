//! Broken ONNX: every fault has its message, and no bytes make the importer panic.

use crate::onnx::*;
use hwsim::error::Error;
use hwsim::workload::onnx::import;
use hwsim::workload::onnx::proto::{EXTERNAL, StringStringEntryProto, TensorProto};
use hwsim::workload::options::Options;
use proptest::prelude::*;
use prost::Message;
use std::io::Write;
use std::path::PathBuf;

fn sample() -> Builder {
    Builder::new(17)
        .input("x", &[1, 3, 8, 8])
        .weight(floats("w", &[4, 3, 3, 3]))
        .weight(ints("target", &[1, -1]))
        .weight(floats("fc", &[144, 10]))
        .node(node("Conv", &["x", "w"], &["c"], vec![list("pads", &[0, 0, 0, 0])]))
        .node(node("Relu", &["c"], &["r"], vec![]))
        .node(node("Reshape", &["r", "target"], &["f"], vec![]))
        .node(node("MatMul", &["f", "fc"], &["y"], vec![]))
        .output("y")
}

fn refuse_bytes(bytes: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::with_suffix(".onnx").expect("a file");
    file.write_all(bytes).expect("written");
    let error = import(file.path(), &Options::default()).expect_err("must be refused");
    error.to_string().replace(&file.path().display().to_string(), "FILE")
}

#[test]
fn a_truncated_file_says_where_it_breaks_off() {
    let bytes = sample().model.encode_to_vec();
    let cut = &bytes[..bytes.len() / 2];
    let message = refuse_bytes(cut);
    let end = format!("runs past byte {}, the end of the file; fetch it again", cut.len());
    assert!(message.starts_with("FILE: is truncated: its field `graph` of "), "{message}");
    assert!(message.ends_with(&end), "{message}");
}

#[test]
fn what_is_no_onnx_is_called_so() {
    assert_eq!(refuse_bytes(b""), "FILE: is empty; export or fetch it again");
    let text = refuse_bytes(b"# just a readme\n");
    assert_eq!(text, "FILE: is not an ONNX model (byte 0 starts no field of one)");
    let page = refuse_bytes(b"<html>not found</html>");
    assert!(page.starts_with("FILE: is not an ONNX model"), "{page}");
    let no_graph = refuse_bytes(&[8, 8]);
    assert_eq!(no_graph, "FILE: is not an ONNX model: it has no graph");
}

#[test]
fn a_missing_file_is_an_io_error() {
    let error = import(&PathBuf::from("no/such.onnx"), &Options::default()).expect_err("must be refused");
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn an_empty_graph_is_refused() {
    let message = refuse_bytes(&Builder::new(17).input("x", &[1]).model.encode_to_vec());
    assert_eq!(message, "FILE: its graph `test` has no nodes");
}

#[test]
fn a_cycle_is_named() {
    let message = Builder::new(17)
        .input("x", &[1])
        .node(node("Add", &["x", "c"], &["a"], vec![]))
        .node(node("Relu", &["a"], &["b"], vec![]))
        .node(node("Relu", &["b"], &["c"], vec![]))
        .output("c")
        .refusal();
    assert_eq!(message, "test.onnx: node `b`: nodes form a cycle (b → c → a → …); a network must not feed itself");
}

#[test]
fn nodes_out_of_order_are_sorted() {
    let m = Builder::new(17)
        .input("x", &[1])
        .node(node("Relu", &["a"], &["b"], vec![]))
        .node(node("Relu", &["x"], &["a"], vec![]))
        .output("b")
        .import()
        .expect("a network");
    let names: Vec<&str> = m.graph.layers().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["x", "a", "b"]);
}

#[test]
fn a_dangling_input_is_named() {
    let message = Builder::new(17).input("x", &[1]).node(node("Add", &["x", "ghost"], &["a"], vec![])).refusal();
    assert_eq!(message, "test.onnx: node `a`: reads `ghost`, which no node, input or initializer produces");
}

#[test]
fn a_name_that_two_nodes_produce_is_refused() {
    let message = Builder::new(17)
        .input("x", &[1])
        .node(node("Relu", &["x"], &["a"], vec![]))
        .node(node("Relu", &["x"], &["a"], vec![]))
        .refusal();
    assert_eq!(message, "test.onnx: node `a`: produces `a`, which `a` produces too");
}

#[test]
fn absurd_extents_are_refused() {
    let message = Builder::new(17).input("x", &[1 << 62, 4]).node(node("Relu", &["x"], &["y"], vec![])).refusal();
    assert_eq!(message, "test.onnx: input `x` shape 4611686018427387904x4 has more elements than 2^60");
    let message = Builder::new(17)
        .input("x", &[1])
        .weight(ints("big", &[1 << 31, 1 << 31, 1 << 31]))
        .node(node("Expand", &["x", "big"], &["y"], vec![]))
        .refusal();
    assert_eq!(
        message,
        "test.onnx: node `y`: Expand shape 2147483648x2147483648x2147483648 has more elements than 2^60"
    );
    let negative = TensorProto { dims: vec![-3], ..floats("w", &[0]) };
    let message = Builder::new(17).weight(negative).node(node("Relu", &["w"], &["y"], vec![])).refusal();
    assert_eq!(message, "test.onnx: tensor `w` an extent is -3; an extent can't be negative");
}

#[test]
fn a_tensor_that_claims_more_than_it_holds_is_refused() {
    let huge = TensorProto { dims: vec![1_000_000, 1_000_000], ..floats("w", &[1]) };
    let message = Builder::new(17).weight(huge).node(node("Relu", &["w"], &["y"], vec![])).refusal();
    assert_eq!(
        message,
        "test.onnx: tensor `w` claims 1000000000000 elements (1000000x1000000), 4000000000000 bytes, but holds 4 bytes; \
         the file is damaged"
    );
}

#[test]
fn shapes_that_do_not_fit_name_the_node() {
    let message = Builder::new(17)
        .input("x", &[4, 8])
        .weight(floats("w", &[7, 3]))
        .node(node("MatMul", &["x", "w"], &["y"], vec![]))
        .refusal();
    assert_eq!(message, "test.onnx: node `y`: MatMul multiplies 4x8 by 7x3");
}

#[test]
fn an_input_that_the_model_lacks_is_refused() {
    let inputs = [("image".to_owned(), vec![1])].into();
    let error = sample().import_with(&Options { inputs, ..Options::default() }).expect_err("must be refused");
    assert_eq!(error.to_string(), "test.onnx: has no input `image`; its inputs are x");
}

#[test]
fn an_operator_set_newer_than_known_is_said() {
    let mut b = sample();
    b.model.opset_import[0].version = 999;
    let m = b.import().expect("a network");
    assert!(m.graph.warnings[0].starts_with("operator set 999 is newer than "), "{:?}", m.graph.warnings);
}

fn external(location: &str) -> TensorProto {
    let entry = |key: &str, value: &str| StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
    TensorProto {
        raw_data: bytes::Bytes::new(),
        data_location: EXTERNAL,
        external_data: vec![entry("location", location), entry("offset", "4"), entry("length", "48")],
        ..floats("w", &[4, 3])
    }
}

#[test]
fn external_weights_are_mapped_and_missing_ones_leave_shapes() {
    use hwsim::workload::onnx::consts::Payload;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("m.onnx");
    let model = |location: &str| {
        let b = Builder::new(17).input("x", &[2, 4]).weight(external(location));
        b.node(node("MatMul", &["x", "w"], &["y"], vec![])).output("y").model.encode_to_vec()
    };
    std::fs::write(&path, model("w.bin")).expect("written");
    let without = import(&path, &Options::default()).expect("shapes");
    assert_eq!(macs(&without), 2 * 4 * 3);
    assert!(without.graph.warnings[0].contains("w.bin is missing or can't be read"), "{:?}", without.graph.warnings);
    assert!(matches!(without.weights.get("w").expect("known").payload, Payload::Missing));

    std::fs::write(folder.path().join("w.bin"), [7u8; 52]).expect("written");
    let with = import(&path, &Options::default()).expect("a network");
    assert!(with.graph.warnings.is_empty(), "{:?}", with.graph.warnings);
    assert!(matches!(&with.weights.get("w").expect("known").payload, Payload::Raw(b) if b[..] == [7u8; 48]));

    std::fs::write(folder.path().join("w.bin"), [7u8; 20]).expect("written");
    let short = import(&path, &Options::default()).expect("shapes");
    assert!(short.graph.warnings[0].contains("the file has 20"), "{:?}", short.graph.warnings);

    std::fs::write(&path, model("../w.bin")).expect("written");
    let outside = import(&path, &Options::default()).expect("shapes");
    assert!(outside.graph.warnings[0].contains("points outside the model's folder"), "{:?}", outside.graph.warnings);
}

fn import_bytes(bytes: Vec<u8>) {
    let path = PathBuf::from("fuzz.onnx");
    if let Ok(model) = hwsim::workload::onnx::load::decode(&path, bytes.into()) {
        // Either answer will do; a panic or a hang will not.
        let _ = hwsim::workload::onnx::from_model(&path, &model, &Options::default());
    }
}

fn samples() -> Vec<Vec<u8>> {
    let loops = Builder::new(17)
        .input("x", &[2, 8])
        .weight(scalar("n", 7, 3))
        .weight(scalar("t", 9, 1))
        .weight(ints("pads", &[0, 1, 0, 1]))
        .weight(ints("s", &[1]))
        .weight(ints("e", &[-1]))
        .node(node("Pad", &["x", "pads"], &["p"], vec![]))
        .node(node("Slice", &["p", "s", "e"], &["q"], vec![]))
        .node(node("Shape", &["q"], &["sh"], vec![]))
        .node(node("ConstantOfShape", &["sh"], &["z"], vec![]))
        .node(node("Einsum", &["q", "z"], &["y"], vec![text("equation", "ij,kj->ik")]))
        .node(node("Split", &["y"], &["a", "b"], vec![int("axis", 0)]))
        .node(node("TopK", &["y", "s"], &["v", "i"], vec![]))
        .output("y");
    vec![sample().model.encode_to_vec(), loops.model.encode_to_vec()]
}

/// Extents that are small, odd at the edges, or nonsense.
fn extents() -> impl Strategy<Value = Vec<i64>> {
    let one = prop_oneof![4 => 0i64..9, 1 => Just(-1i64), 1 => Just(1 << 31), 1 => any::<i64>()];
    prop::collection::vec(one, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(which in 0usize..2, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = samples().swap_remove(which);
        // Most of a model is weights; damage what is not.
        for (at, value) in edits {
            let i = at.index(bytes.len());
            bytes[i] = value;
        }
        import_bytes(bytes);
    }

    #[test]
    fn shortened_bytes_never_panic(which in 0usize..2, cut in any::<prop::sample::Index>()) {
        let mut bytes = samples().swap_remove(which);
        bytes.truncate(cut.index(bytes.len()));
        import_bytes(bytes);
    }

    #[test]
    fn absurd_extents_never_panic(dims in extents(), shape in extents(), kind in 0usize..8) {
        let op = ["Reshape", "Expand", "Tile", "ConstantOfShape", "Resize", "Pad", "Slice", "Split"][kind];
        let b = Builder::new(17).weight(ints("s", &shape)).input("x", &dims);
        let inputs: &[&str] = match op {
            "ConstantOfShape" => &["s"],
            "Resize" => &["x", "", "", "s"],
            "Slice" => &["x", "s", "s"],
            _ => &["x", "s"],
        };
        let b = b.node(node(op, inputs, &["y"], vec![])).node(node("Relu", &["y"], &["z"], vec![]));
        let _ = b.import();
    }
}
