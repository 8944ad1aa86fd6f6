//! ONNX graphs written by hand: shapes, MACs and parameters computed on paper.

use crate::onnx::*;
use hwsim::workload::layer::{Op, Role};
use hwsim::workload::onnx::proto::*;
use hwsim::workload::options::Options;

#[test]
fn a_grouped_dilated_strided_convolution() {
    // Reach 2·(3−1)+1 = 5; (17 + 2 − 5)/2 + 1 = 8; each output takes 8/2 channels × 3×3 taps.
    let attrs =
        vec![list("dilations", &[2, 2]), list("strides", &[2, 2]), list("pads", &[1, 1, 1, 1]), int("group", 2)];
    let m = Builder::new(17)
        .input("x", &[1, 8, 17, 17])
        .weight(floats("w", &[6, 4, 3, 3]))
        .weight(floats("b", &[6]))
        .node(node("Conv", &["x", "w", "b"], &["y"], attrs))
        .output("y")
        .import()
        .expect("a network");
    assert_eq!(shape(&m, "y"), [1, 6, 8, 8]);
    assert_eq!(macs(&m), 6 * 8 * 8 * 4 * 9);
    assert_eq!(m.graph.total_parameters().expect("a count"), 6 * 4 * 9 + 6);
    let conv = m.graph.layers().find(|l| l.spelled == "Conv").expect("the convolution");
    let roles: Vec<Role> = conv.params.iter().map(|p| p.role).collect();
    assert_eq!(roles, [Role::Weight, Role::Bias]);
}

#[test]
fn same_padding_depends_on_its_side_only_in_where_it_puts_the_odd_row() {
    for (side, pads) in [("SAME_UPPER", (0, 1)), ("SAME_LOWER", (1, 0))] {
        let m = Builder::new(17)
            .input("x", &[1, 1, 6])
            .weight(floats("w", &[1, 1, 3]))
            .node(node("Conv", &["x", "w"], &["y"], vec![text("auto_pad", side), list("strides", &[2])]))
            .output("y")
            .import()
            .expect("a network");
        assert_eq!(shape(&m, "y"), [1, 1, 3]);
        let layer = m.graph.layers().find(|l| l.spelled == "Conv").expect("the convolution");
        let Op::Conv(conv) = &layer.op else { panic!("{:?}", layer.op) };
        assert_eq!(conv.pad, [pads], "{side}");
    }
}

#[test]
fn a_transposed_convolution_multiplies_inputs() {
    // 2·(5−1) + 3 − 2·1 + 1 = 10.
    let attrs = vec![list("strides", &[2, 2]), list("pads", &[1, 1, 1, 1]), list("output_padding", &[1, 1])];
    let m = Builder::new(17)
        .input("x", &[1, 4, 5, 5])
        .weight(floats("w", &[4, 6, 3, 3]))
        .node(node("ConvTranspose", &["x", "w"], &["y"], attrs))
        .output("y")
        .import()
        .expect("a network");
    assert_eq!(shape(&m, "y"), [1, 6, 10, 10]);
    assert_eq!(macs(&m), 4 * 25 * 6 * 9);
}

#[test]
fn a_last_pool_window_never_starts_in_the_far_padding() {
    let attrs =
        |ceil| vec![list("kernel_shape", &[2]), list("strides", &[2]), list("pads", &[1, 1]), int("ceil_mode", ceil)];
    for (ceil, want) in [(0, 3), (1, 3)] {
        let m = Builder::new(19)
            .input("x", &[1, 1, 5])
            .node(node("MaxPool", &["x"], &["y"], attrs(ceil)))
            .output("y")
            .import()
            .expect("a network");
        assert_eq!(shape(&m, "y"), [1, 1, want], "ceil_mode {ceil}");
    }
}

#[test]
fn recurrent_layers_are_two_products_a_gate_and_step() {
    for (kind, gates) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        let m = Builder::new(14)
            .input("x", &[7, 2, 5])
            .weight(floats("w", &[2, gates * 3, 5]))
            .weight(floats("r", &[2, gates * 3, 3]))
            .node(node(
                kind,
                &["x", "w", "r"],
                &["y", "h"],
                vec![int("hidden_size", 3), text("direction", "bidirectional")],
            ))
            .output("y")
            .import()
            .expect("a network");
        assert_eq!(shape(&m, "y"), [7, 2, 2, 3], "{kind}");
        assert_eq!(shape(&m, "h"), [2, 2, 3], "{kind}");
        assert_eq!(macs(&m), 7 * 2 * 2 * gates as u64 * 3 * (5 + 3), "{kind}");
    }
}

#[test]
fn batched_products_broadcast_and_a_stored_matrix_is_a_linear_layer() {
    let m = Builder::new(17)
        .input("q", &[2, 1, 4, 8])
        .input("k", &[3, 8, 5])
        .weight(floats("w", &[5, 6]))
        .node(node("MatMul", &["q", "k"], &["s"], vec![]))
        .node(node("MatMul", &["s", "w"], &["y"], vec![]))
        .output("y")
        .import()
        .expect("a network");
    assert_eq!(shape(&m, "s"), [2, 3, 4, 5]);
    assert_eq!(shape(&m, "y"), [2, 3, 4, 6]);
    assert_eq!(macs(&m), 2 * 3 * 4 * 5 * 8 + 2 * 3 * 4 * 6 * 5);
    let linear = m.graph.layers().find(|l| matches!(l.op, Op::Linear(_))).expect("a linear layer");
    assert!(linear.weight().expect("a weight").transposed, "MatMul stores [in, out]");
}

#[test]
fn gemm_reads_its_flags_and_a_transposed_weight_is_described_as_stored() {
    let m = Builder::new(17)
        .input("x", &[4, 8])
        .weight(floats("w", &[6, 8]))
        .node(node("Transpose", &["w"], &["wt"], vec![list("perm", &[1, 0])]))
        .node(node("Gemm", &["x", "wt"], &["y"], vec![]))
        .node(node("Gemm", &["x", "w"], &["z"], vec![int("transB", 1)]))
        .output("y")
        .output("z")
        .import()
        .expect("a network");
    assert_eq!((shape(&m, "y"), shape(&m, "z"), shape(&m, "wt")), (vec![4, 6], vec![4, 6], vec![8, 6]));
    assert_eq!(m.graph.total_parameters().expect("a count"), 48, "both products read one stored matrix");
    for layer in m.graph.layers().filter(|l| l.spelled == "Gemm") {
        let w = layer.weight().expect("a weight");
        assert_eq!((w.name.as_str(), &w.shape[..], w.transposed), ("w", &[6, 8][..], false));
    }
}

#[test]
fn einstein_sums_become_products() {
    type Case<'a> = (&'a str, &'a [i64], &'a [i64], &'a [u64], u64);
    let cases: [Case; 5] = [
        ("bhid,bhjd->bhij", &[2, 3, 4, 8], &[2, 3, 5, 8], &[2, 3, 4, 5], 2 * 3 * 4 * 5 * 8),
        ("bid,bjd->bij", &[2, 4, 8], &[2, 5, 8], &[2, 4, 5], 2 * 4 * 5 * 8),
        ("bthd,bshd->bhts", &[2, 4, 3, 8], &[2, 5, 3, 8], &[2, 3, 4, 5], 2 * 3 * 4 * 5 * 8),
        ("...ij,jk->...ik", &[2, 3, 4, 5], &[5, 6], &[2, 3, 4, 6], 2 * 3 * 4 * 5 * 6),
        ("ij,jk", &[4, 5], &[5, 6], &[4, 6], 4 * 5 * 6),
    ];
    for (equation, a, b, out, want) in cases {
        let m = Builder::new(17)
            .input("a", a)
            .input("b", b)
            .node(node("Einsum", &["a", "b"], &["y"], vec![text("equation", equation)]))
            .output("y")
            .import()
            .expect("a network");
        assert_eq!(shape(&m, "y"), out, "{equation}");
        assert_eq!(macs(&m), want, "{equation}");
    }
}

#[test]
fn quantized_forms_count_like_their_originals() {
    let m = Builder::new(17)
        .input("x", &[1, 4, 8, 8])
        .weight(bytes("w", &[6, 4, 3, 3]))
        .weight(bytes("z", &[1]))
        .weight(bytes("m", &[36, 10]))
        .weight(floats("s", &[1]))
        .node(node("DynamicQuantizeLinear", &["x"], &["xq", "xs", "xz"], vec![]))
        .node(node("ConvInteger", &["xq", "w", "xz", "z"], &["c"], vec![]))
        .node(node("Cast", &["c"], &["cf"], vec![int("to", 1)]))
        .node(node("Reshape", &["cf", "rs"], &["r"], vec![]))
        .weight(ints("rs", &[6, 36]))
        .node(node("Cast", &["m"], &["mf"], vec![int("to", 1)]))
        .node(node("Mul", &["mf", "s"], &["md"], vec![]))
        .node(node("MatMul", &["r", "md"], &["y"], vec![]))
        .output("y")
        .import()
        .expect("a network");
    assert_eq!(shape(&m, "c"), [1, 6, 6, 6]);
    assert_eq!(macs(&m), 6 * 36 * 4 * 9 + 6 * 36 * 10);
    assert!(
        m.graph.layers().all(|l| l.name != "md" && l.name != "mf"),
        "dequantised weights are constants, not layers"
    );
    let linear = m.graph.layers().find(|l| l.spelled == "MatMul").expect("the product");
    assert_eq!(linear.weight().expect("a weight").name, "m", "the stored integers stand behind the weight");
    // Convolution 216 + zero point 1, matrix 360 + scale 1, the shape 2.
    assert_eq!(m.graph.total_parameters().expect("a count"), 216 + 1 + 360 + 1 + 2);
}

#[test]
fn shape_arithmetic_is_followed() {
    let m = Builder::new(17)
        .value(symbolic("x", 1, &["batch", "seq", "8"]))
        .node(node("Shape", &["x"], &["s"], vec![]))
        .weight(scalar("i1", 7, 1))
        .weight(ints("axis0", &[0]))
        .weight(ints("tail", &[-1, 2, 4]))
        .node(node("Gather", &["s", "i1"], &["t"], vec![int("axis", 0)]))
        .node(node("Unsqueeze", &["t", "axis0"], &["t1"], vec![]))
        .node(node("Concat", &["t1", "tail"], &["target"], vec![int("axis", 0)]))
        .node(node("Reshape", &["x", "target"], &["y"], vec![]))
        .node(node("Transpose", &["y"], &["z"], vec![list("perm", &[0, 2, 3, 1])]))
        .output("z");
    let dims = [("batch".to_owned(), 3), ("seq".to_owned(), 6)].into();
    let m = m.import_with(&Options { dims, ..Options::default() }).expect("a network");
    assert_eq!(shape(&m, "target"), [4]);
    assert_eq!(shape(&m, "y"), [6, 3, 2, 4]);
    assert_eq!(shape(&m, "z"), [6, 2, 4, 3]);
    let names: Vec<&str> = m.graph.layers().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["x", "y", "z"], "what is folded is no layer");
}

#[test]
fn older_operator_sets_have_attributes_where_newer_ones_have_inputs() {
    let old = Builder::new(9)
        .input("x", &[1, 6, 4])
        .node(node("Slice", &["x"], &["s"], vec![list("axes", &[1]), list("starts", &[-4]), list("ends", &[9999])]))
        .node(node("Unsqueeze", &["s"], &["u"], vec![list("axes", &[0])]))
        .node(node("ReduceMean", &["u"], &["r"], vec![list("axes", &[-1]), int("keepdims", 0)]))
        .node(node("Squeeze", &["r"], &["q"], vec![list("axes", &[0])]))
        .output("q")
        .import()
        .expect("a network");
    let new = Builder::new(18)
        .input("x", &[1, 6, 4])
        .weight(ints("starts", &[-4]))
        .weight(ints("ends", &[9999]))
        .weight(ints("one", &[1]))
        .weight(ints("zero", &[0]))
        .weight(ints("last", &[-1]))
        .node(node("Slice", &["x", "starts", "ends", "one"], &["s"], vec![]))
        .node(node("Unsqueeze", &["s", "zero"], &["u"], vec![]))
        .node(node("ReduceMean", &["u", "last"], &["r"], vec![int("keepdims", 0)]))
        .node(node("Squeeze", &["r", "zero"], &["q"], vec![]))
        .output("q")
        .import()
        .expect("a network");
    for name in ["s", "u", "r", "q"] {
        assert_eq!(shape(&old, name), shape(&new, name), "{name}");
    }
    assert_eq!(shape(&new, "q"), [1, 4]);
}

fn branch(weight: i64) -> GraphProto {
    GraphProto {
        initializer: vec![floats("w", &[8, weight])],
        node: vec![
            node("MatMul", &["x", "w"], &["h"], vec![]),
            node("ReduceSum", &["h"], &["out"], vec![int("keepdims", 1)]),
        ],
        output: vec![value("out", 1, &[])],
        ..GraphProto::default()
    }
}

#[test]
fn of_an_if_the_branch_that_runs_is_counted_and_an_open_one_is_said() {
    for (known, want) in [(Some(1), 4 * 8 * 3), (Some(0), 4 * 8 * 5), (None, 4 * 8 * 5)] {
        let mut b = Builder::new(17).input("x", &[4, 8]);
        b = match known {
            Some(v) => b.weight(scalar("c", 9, v)),
            None => b.value(value("c", 9, &[])),
        };
        let attrs = vec![body("then_branch", branch(3)), body("else_branch", branch(5))];
        let m = b.node(node("If", &["c"], &["y"], attrs)).output("y").import().expect("a network");
        assert_eq!(macs(&m), want, "condition {known:?}");
        assert_eq!(shape(&m, "y"), [1, 1]);
        // Both branches are stored, whichever runs, and the stored condition is.
        assert_eq!(m.graph.total_parameters().expect("a count"), 8 * 3 + 8 * 5 + u64::from(known.is_some()));
        let said = m.graph.warnings.iter().any(|w| w.contains("else branch is counted (the other has 64 MACs less)"));
        assert_eq!(said, known.is_none(), "{:?}", m.graph.warnings);
    }
}

#[test]
fn loops_are_unrolled_when_their_count_is_known() {
    let turn = GraphProto {
        input: vec![value("i", 7, &[]), value("go", 9, &[]), value("h", 1, &[])],
        node: vec![node("MatMul", &["h", "w"], &["h2"], vec![]), node("Identity", &["go"], &["go2"], vec![])],
        output: vec![value("go2", 9, &[]), value("h2", 1, &[]), value("h2", 1, &[])],
        ..GraphProto::default()
    };
    let with = |trips: Option<i64>| {
        let mut b = Builder::new(17).input("x", &[2, 8]).weight(floats("w", &[8, 8])).weight(scalar("t", 9, 1));
        b = match trips {
            Some(n) => b.weight(scalar("n", 7, n)),
            None => b.value(value("n", 7, &[])),
        };
        b.node(node("Loop", &["n", "t", "x"], &["y", "all"], vec![body("body", turn.clone())])).output("y").import()
    };
    let m = with(Some(5)).expect("a network");
    assert_eq!(macs(&m), 5 * 2 * 8 * 8);
    assert_eq!(shape(&m, "all"), [5, 2, 8]);
    assert_eq!(m.graph.total_parameters().expect("a count"), 64 + 2, "one weight for all turns");
    let m = with(None).expect("a network");
    assert_eq!(macs(&m), 2 * 8 * 8);
    assert!(m.graph.warnings.iter().any(|w| w.contains("one turn is counted")), "{:?}", m.graph.warnings);
}

#[test]
fn functions_are_inlined_with_their_callers_attributes() {
    let mut transposed = int("transB", 0);
    transposed.ref_attr_name = "flip".to_owned();
    let f = FunctionProto {
        name: "Dense".to_owned(),
        domain: "mine".to_owned(),
        input: vec!["a".to_owned(), "b".to_owned()],
        output: vec!["c".to_owned()],
        attribute: vec!["flip".to_owned()],
        node: vec![node("Gemm", &["a", "b"], &["c"], vec![transposed])],
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..FunctionProto::default()
    };
    let mut b = Builder::new(17).input("x", &[4, 8]).weight(floats("w", &[3, 8]));
    b.model.functions.push(f);
    let mut call = node("Dense", &["x", "w"], &["y"], vec![int("flip", 1)]);
    call.domain = "mine".to_owned();
    let m = b.node(call).output("y").import().expect("a network");
    assert_eq!(shape(&m, "y"), [4, 3]);
    assert_eq!(macs(&m), 4 * 8 * 3);
}

#[test]
fn fused_attention_counts_its_projections_and_both_products() {
    let m = Builder::new(17)
        .input("x", &[2, 16, 32])
        .weight(floats("w", &[32, 96]))
        .weight(floats("b", &[96]))
        .node(contrib("Attention", &["x", "w", "b"], &["y"], vec![int("num_heads", 4)]))
        .weight(floats("g", &[32]))
        .node(contrib("SkipSimplifiedLayerNormalization", &["y", "x", "g"], &["n"], vec![]))
        .output("n")
        .import()
        .expect("a network");
    assert_eq!(shape(&m, "y"), [2, 16, 32]);
    assert_eq!(macs(&m), 2 * 16 * 32 * 96 + 2 * (2 * 4 * 16 * 16 * 8));
    assert_eq!(m.graph.total_parameters().expect("a count"), 32 * 96 + 96 + 32);
}

#[test]
fn grouped_query_attention_reads_its_cache() {
    let m = Builder::new(17)
        .input("q", &[1, 1, 64])
        .input("k", &[1, 1, 16])
        .input("v", &[1, 1, 16])
        .input("pk", &[1, 2, 31, 8])
        .input("pv", &[1, 2, 31, 8])
        .value(value("lens", 6, &[1]))
        .value(value("total", 6, &[]))
        .node(contrib(
            "GroupQueryAttention",
            &["q", "k", "v", "pk", "pv", "lens", "total"],
            &["y", "nk", "nv"],
            vec![int("num_heads", 8), int("kv_num_heads", 2)],
        ))
        .output("y")
        .import()
        .expect("a network");
    assert_eq!(shape(&m, "y"), [1, 1, 64]);
    assert_eq!(shape(&m, "nk"), [1, 2, 32, 8]);
    assert_eq!(macs(&m), 2 * 8 * 32 * 8);
}

#[test]
fn weights_that_are_generated_count_as_parameters() {
    let m = Builder::new(9)
        .input("x", &[1, 8])
        .weight(ints("dims", &[4, 8]))
        .node(node("ConstantOfShape", &["dims"], &["w"], vec![]))
        .node(node("Gemm", &["x", "w"], &["y"], vec![int("transB", 1)]))
        .output("y")
        .import()
        .expect("a network");
    assert_eq!(macs(&m), 32);
    assert_eq!(m.graph.total_parameters().expect("a count"), 32 + 2);
}

#[test]
fn an_unknown_operator_is_carried_as_traffic_and_said() {
    let m = Builder::new(17)
        .input("x", &[4, 8])
        .weight(floats("w", &[8, 3]))
        .node(contrib("Frobnicate", &["x", "w"], &["y"], vec![]))
        .output("y")
        .import()
        .expect("a network");
    let layer = m.graph.layers().find(|l| l.spelled == "Frobnicate").expect("the layer");
    assert_eq!(layer.op, Op::Opaque);
    assert_eq!(layer.shape(), [4, 8]);
    assert_eq!(layer.parameter_count().expect("a count"), 24);
    let warning = "`y`: operator Frobnicate of com.microsoft is not known; it is carried as memory traffic";
    assert!(m.graph.warnings.iter().any(|w| w.starts_with(warning)), "{:?}", m.graph.warnings);
}

#[test]
fn open_sizes_have_defaults_that_are_said() {
    let m = Builder::new(17)
        .value(symbolic("ids", 7, &["batch_size", "sequence_length"]))
        .weight(floats("table", &[50, 8]))
        .node(node("Gather", &["table", "ids"], &["y"], vec![]))
        .output("y");
    let plain = m.import().expect("a network");
    assert_eq!(shape(&plain, "y"), [1, 128, 8]);
    assert!(plain.graph.warnings[0].contains("batch_size=1, sequence_length=128"), "{:?}", plain.graph.warnings);
    let bound = m.import_with(&Options { batch: Some(4), seq: Some(9), ..Options::default() }).expect("a network");
    assert_eq!(shape(&bound, "y"), [4, 9, 8]);
    let inputs = [("ids".to_owned(), vec![2, 7])].into();
    let given = m.import_with(&Options { inputs, ..Options::default() }).expect("a network");
    assert_eq!(shape(&given, "y"), [2, 7, 8]);
}

#[test]
fn an_image_of_open_size_gets_one_that_the_network_takes() {
    // The flattened 32×32 image fits the stored matrix; 224×224 does not.
    let m = Builder::new(17)
        .value(symbolic("x", 1, &["N", "1", "H", "W"]))
        .weight(floats("fc", &[1024, 2]))
        .node(node("Flatten", &["x"], &["f"], vec![]))
        .node(node("MatMul", &["f", "fc"], &["y"], vec![]))
        .output("y");
    let model = m.import().expect("a network");
    assert_eq!(shape(&model, "x"), [1, 1, 32, 32]);
    assert!(model.graph.warnings[0].contains("N=1, H=32, W=32"), "{:?}", model.graph.warnings);
    let dims = [("H".to_owned(), 30), ("W".to_owned(), 30)].into();
    let error = m.import_with(&Options { dims, ..Options::default() }).expect_err("must be refused");
    let message = "test.onnx: node `y`: MatMul multiplies 1x900 by 1024x2 (open sizes were set to N=1; bind them with --input NAME=AxBxC)";
    assert_eq!(error.to_string(), message);
}

#[test]
fn layers_are_named_after_their_nodes_where_that_is_unique() {
    let mut first = node("Relu", &["x"], &["a"], vec![]);
    first.name = "act".to_owned();
    let mut second = node("Relu", &["a"], &["b"], vec![]);
    second.name = "act".to_owned();
    let m = Builder::new(17)
        .input("x", &[1])
        .node(first)
        .node(second)
        .node(node("Relu", &["b"], &["c"], vec![]))
        .output("c")
        .import()
        .expect("a network");
    let names: Vec<&str> = m.graph.layers().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["x", "act", "b", "c"]);
}
