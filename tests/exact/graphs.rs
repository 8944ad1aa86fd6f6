//! Networks in TOML: what is refused and how it is said, and counts that must not wrap.

use hwsim::workload::{Graph, Options, toml};

fn read(text: &str) -> Result<Graph, String> {
    read_with(text, &Options::default())
}

fn read_with(text: &str, options: &Options) -> Result<Graph, String> {
    toml::parse(text, "net.toml", options).map_err(|e| e.to_string())
}

fn refused(layers: &str) -> String {
    read(&format!("name = \"net\"\ninput = [1, 4, 8, 8]\n{layers}")).unwrap_err()
}

fn shapes(graph: &Graph) -> Vec<Vec<u64>> {
    graph.layers().map(|l| l.shape().to_vec()).collect()
}

#[test]
fn cycles_are_named() {
    let error = refused(
        "[[layer]]\nname = \"a\"\ninputs = [\"input\", \"c\"]\nop.add = {}\n[[layer]]\nname = \"b\"\nop.relu = {}\n\
         [[layer]]\nname = \"c\"\nop.relu = {}\n",
    );
    assert_eq!(
        error,
        "network `net`, layer `a`: layers form a cycle (a → b → c → …); remove the edge that points backwards"
    );
    let own = refused("[[layer]]\nname = \"a\"\ninputs = [\"a\"]\nop.relu = {}\n");
    assert!(own.contains("layers form a cycle (a → …)"), "{own}");
}

#[test]
fn dangling_inputs_suggest_the_nearest() {
    let layers =
        "[[layer]]\nname = \"conv1\"\nop.relu = {}\n[[layer]]\nname = \"b\"\ninputs = [\"conv\"]\nop.relu = {}\n";
    assert_eq!(
        refused(layers),
        "network `net`, layer `b`: input `conv` is produced by no layer; did you mean `conv1`?"
    );
    let no_output =
        "[[layer]]\nname = \"a\"\nop.relu = {}\n[[layer]]\nname = \"b\"\ninputs = [\"a:1\"]\nop.relu = {}\n";
    assert_eq!(refused(no_output), "network `net`, layer `b`: `a` has no output 1");
}

#[test]
fn names_are_unique() {
    let error = refused("[[layer]]\nname = \"a\"\nop.relu = {}\n[[layer]]\nname = \"a\"\nop.relu = {}\n");
    assert_eq!(error, "network `net`, layer `a`: a second layer has this name; names must be unique");
}

#[test]
fn shapes_must_fit() {
    let sum = refused(
        "[[layer]]\nname = \"a\"\nop.conv2d = { out = 8, kernel = 1 }\n[[layer]]\nname = \"b\"\ninputs = [\"a\", \"input\"]\nop.add = {}\n",
    );
    assert_eq!(sum, "network `net`, layer `b`: shapes [1, 8, 8, 8] and [1, 4, 8, 8] do not broadcast");
    let groups = refused("[[layer]]\nname = \"a\"\nop.conv2d = { out = 8, kernel = 1, groups = 3 }\n");
    assert!(groups.contains("do not divide into 3 groups"), "{groups}");
    let kernel = refused("[[layer]]\nname = \"a\"\nop.conv2d = { out = 8, kernel = 9 }\n");
    assert!(kernel.contains("kernel reaches 9 over an extent of 8"), "{kernel}");
    let stride = refused("[[layer]]\nname = \"a\"\nop.conv2d = { out = 8, kernel = 1, stride = 0 }\n");
    assert!(stride.contains("must be at least 1"), "{stride}");
    let list = refused("[[layer]]\nname = \"a\"\nop.conv2d = { out = 8, kernel = [1, 1, 1] }\n");
    assert!(list.contains("3-D convolution"), "{list}");
    let axis = refused("[[layer]]\nname = \"a\"\nop.softmax = { axis = -5 }\n");
    assert_eq!(axis, "network `net`, layer `a`: axis −5 of a tensor with 4 axes");
}

#[test]
fn unknown_keys_point_at_the_place() {
    let error = refused("[[layer]]\nname = \"a\"\nop.conv2d = { out = 8, kernel = 1, strides = 2 }\n");
    assert!(error.starts_with("net.toml: TOML parse error at line 5, column 36"), "{error}");
    assert!(error.contains(&format!("|{}^^^^^^^\nunknown field `strides`", " ".repeat(36))), "{error}");
    let op = refused("[[layer]]\nname = \"a\"\nop.conv9d = {}\n");
    assert!(op.contains("line 5, column 4") && op.contains("unknown variant `conv9d`"), "{op}");
    let layer = refused("[[layer]]\nname = \"a\"\nsparsity = 0.5\nop.relu = {}\n");
    assert!(layer.contains("line 5, column 1") && layer.contains("unknown field `sparsity`"), "{layer}");
    let negative = refused("[[layer]]\nname = \"a\"\nop.conv2d = { out = 8, kernel = -3 }\n");
    assert!(negative.contains("line 5, column 33") && negative.contains("expected a whole number ≥ 0"), "{negative}");
    let key = read("name = \"net\"\n[transformer]\nmodel_type = \"llama\"\nhiden_size = 8\n").unwrap_err();
    assert!(key.contains("line 4, column 1") && key.contains("unknown field `hiden_size`"), "{key}");
    let missing = refused("[[layer]]\nname = \"a\"\nop.linear = {}\n");
    assert!(missing.contains("missing field `out`") && missing.contains("line 5"), "{missing}");
}

#[test]
fn absurd_sizes_are_refused_not_wrapped() {
    let wide = read("name = \"net\"\ninput = [4294967296, 4294967296, 2]\n[[layer]]\nname = \"a\"\nop.relu = {}\n")
        .unwrap_err();
    assert!(wide.contains("larger than 2^64 − 1"), "{wide}");
    let deep = refused("[[layer]]\nname = \"a\"\nop.conv2d = { out = 4611686018427387904, kernel = 1 }\n");
    assert!(deep.contains("the output of layer `a`") && deep.contains("larger than 2^64 − 1"), "{deep}");
    let pad = refused("[[layer]]\nname = \"a\"\nop.max_pool = { kernel = 1, pad = 9223372036854775807 }\n");
    assert!(pad.contains("overflow"), "{pad}");
    let times =
        refused("[[repeat]]\nname = \"b{i}\"\ntimes = 1000000000000\n[[repeat.layer]]\nname = \"r\"\nop.relu = {}\n");
    assert_eq!(times, "network `net`, layer `b{i}`: 1000000000000 copies are more than 16777216 layers");
    let hidden = read(
        "name = \"net\"\ninput = [5, 1, 3]\n[[layer]]\nname = \"a\"\nop.lstm = { hidden = 9223372036854775807, bidirectional = true }\n",
    )
    .unwrap_err();
    assert!(hidden.contains("larger than 2^64 − 1") || hidden.contains("overflow"), "{hidden}");
}

#[test]
fn a_quadrillion_macs_count_exactly() {
    // 1000 layers of 10^5 × 10^5 weights on 100 rows.
    let graph = read(
        "name = \"net\"\ninput = [100, 100000]\n[[repeat]]\nname = \"l{i}\"\ntimes = 1000\n[[repeat.layer]]\nname = \"fc\"\nop.linear = { out = 100000 }\n",
    )
    .unwrap();
    assert_eq!(graph.total_macs().unwrap(), 1_000_000_000_000_000);
    assert_eq!(graph.total_parameters().unwrap(), 1000 * (10_000_000_000 + 100_000));
    // The sum of layers that each fit may still not fit.
    let too_many = read(
        "name = \"net\"\ninput = [4000000000, 40000]\n[[repeat]]\nname = \"l{i}\"\ntimes = 10\n[[repeat.layer]]\nname = \"fc\"\nop.linear = { out = 40000 }\n",
    )
    .unwrap();
    assert!(too_many.total_macs().unwrap_err().to_string().contains("the MACs of `net`"));
}

#[test]
fn a_million_layers() {
    let graph = read(
        "name = \"net\"\ninput = [1, 4]\n[[repeat]]\nname = \"l{i}\"\ntimes = 500000\n[[repeat.layer]]\nname = \"fc\"\nop.linear = { out = 4 }\n[[repeat.layer]]\nname = \"r\"\nop.relu = {}\n",
    )
    .unwrap();
    assert_eq!(graph.len(), 1_000_001);
    assert_eq!(graph.total_macs().unwrap(), 8_000_000);
    assert_eq!(graph.layers().last().unwrap().name, "l499999.r");
}

/// Files past a few hundred kilobytes are read in parts; nothing may tell.
#[test]
fn long_files_read_as_short_ones() {
    let head = "name = \"net\"\ninput = [1, 4]\n";
    let layers: Vec<String> = (0..12_000)
        .map(|i| match i % 1000 {
            // A block between layers must stay in its place.
            999 => format!(
                "[[repeat]]\nname = \"b{i}.{{i}}\"\ntimes = 1\n[[repeat.layer]]\nname = \"r\"\nop.relu = {{}}\n"
            ),
            _ => format!("[[layer]]\nname = \"größe{i}\"\nop.linear = {{ out = {} }}\n", i % 7 + 1),
        })
        .collect();
    let text = format!("{head}{}", layers.concat());
    assert!(text.len() > 600_000);
    // A multi-line string anywhere keeps a file in one piece.
    let whole = read(&text.replace("[1, 4]\n", "[1, 4]\nsources = [\"\"\"one\"\"\"]\n")).unwrap();
    let graph = read(&text).unwrap();
    assert_eq!(graph.len(), 12_001);
    let names = |g: &Graph| g.layers().map(|l| l.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&graph), shapes(&graph)), (names(&whole), shapes(&whole)));
    let wrong = text.replace("größe11000\"\nop", "größe11000\"\nopp");
    let error = read(&wrong).unwrap_err();
    let line = wrong.lines().position(|l| l.starts_with("opp")).unwrap() + 1;
    assert!(error.contains(&format!("line {line}, column 1")) && error.contains("unknown field `opp`"), "{error}");
    let dims = format!("{text}[dims]\nseq = 5\n");
    assert_eq!(shapes(&read(&dims).unwrap()), shapes(&graph));
}

#[test]
fn repeated_blocks_chain_and_resolve_names() {
    let graph = read(
        "name = \"net\"\ninput = [1, 4, 8, 8]\n[[layer]]\nname = \"stem\"\nop.relu = {}\n\
         [[repeat]]\nname = \"b.{i}\"\nfrom = 3\ntimes = 2\n\
         [[repeat.layer]]\nname = \"conv\"\nop.conv2d = { out = 4, kernel = 3, pad = 1 }\n\
         [[repeat.layer]]\nname = \"add\"\ninputs = [\"conv\", \"@input\", \"stem\"]\nop.add = {}\n\
         [[layer]]\nname = \"last\"\nop.relu = {}\n",
    )
    .unwrap();
    let wires: Vec<(String, Vec<String>)> = graph
        .order()
        .iter()
        .map(|&n| {
            let reads = graph.inputs(n).into_iter().map(|(p, _)| graph.layer(p).name.clone()).collect();
            (graph.layer(n).name.clone(), reads)
        })
        .collect();
    let expected: [(&str, &[&str]); 7] = [
        ("input", &[]),
        ("stem", &["input"]),
        ("b.3.conv", &["stem"]),
        ("b.3.add", &["b.3.conv", "stem", "stem"]),
        ("b.4.conv", &["b.3.add"]),
        ("b.4.add", &["b.4.conv", "b.3.add", "stem"]),
        ("last", &["b.4.add"]),
    ];
    let expected: Vec<(String, Vec<String>)> =
        expected.iter().map(|(n, r)| (n.to_string(), r.iter().map(|s| s.to_string()).collect())).collect();
    assert_eq!(wires, expected);
    let shared = refused("[[repeat]]\nname = \"b\"\ntimes = 2\n[[repeat.layer]]\nname = \"r\"\nop.relu = {}\n");
    assert!(shared.contains("line 4, column 8") && shared.contains("put {i} where the index belongs"), "{shared}");
}

#[test]
fn sizes_are_bound_from_outside() {
    let text = "name = \"net\"\ninput = { image = [1, 3, 8, 8], tokens = [1, \"seq\"] }\n[dims]\nseq = 7\n\
        [[layer]]\nname = \"r\"\ninputs = [\"image\"]\nop.relu = {}\n\
        [[layer]]\nname = \"e\"\ninputs = [\"tokens\"]\nop.embedding = { vocab = 9, dim = 5 }\n";
    let image_then_tokens = |graph: &Graph| (shapes(graph)[0].clone(), shapes(graph)[1].clone());
    let plain = read(text).unwrap();
    assert_eq!(image_then_tokens(&plain), (vec![1, 3, 8, 8], vec![1, 7]));
    let batch = read_with(text, &Options { batch: Some(4), seq: Some(9), ..Options::default() }).unwrap();
    assert_eq!(image_then_tokens(&batch), (vec![4, 3, 8, 8], vec![4, 9]));
    let inputs = [("image".to_owned(), vec![2, 3, 5, 5])].into();
    let shaped = read_with(text, &Options { inputs, batch: Some(4), ..Options::default() }).unwrap();
    assert_eq!(image_then_tokens(&shaped), (vec![2, 3, 5, 5], vec![4, 7]));
    let wrong = Options { inputs: [("images".to_owned(), vec![1])].into(), ..Options::default() };
    assert_eq!(read_with(text, &wrong).unwrap_err(), "unknown input `images`; did you mean `image`?");
    let wrong = Options { dims: [("sec".to_owned(), 1)].into(), ..Options::default() };
    assert_eq!(read_with(text, &wrong).unwrap_err(), "unknown dimension `sec`; did you mean `seq`?");
    let decode = read_with(text, &Options { context: Some(5), ..Options::default() }).unwrap_err();
    assert!(decode.contains("keeps no key/value cache"), "{decode}");
}

#[test]
fn the_vocabulary_infers_by_hand() {
    let cases: [(&str, &str, &[u64], u64, u64); 22] = [
        // input, operation, output, parameters, MACs
        ("[1, 4, 9]", "conv1d = { out = 6, kernel = 3, stride = 2 }", &[1, 6, 4], 6 * 4 * 3 + 6, 6 * 4 * 4 * 3),
        ("[1, 4, 5, 5, 5]", "conv3d = { out = 2, kernel = 2 }", &[1, 2, 4, 4, 4], 4 * 2 * 8 + 2, 2 * 64 * 4 * 8),
        (
            "[1, 4, 8, 8]",
            "conv2d = { out = 4, kernel = 3, groups = 4, pad = [[0, 1], 1] }",
            &[1, 4, 7, 8],
            40,
            4 * 56 * 9,
        ),
        (
            "[1, 4, 8, 8]",
            "conv2d = { out = 2, kernel = 3, dilation = 2, bias = false }",
            &[1, 2, 4, 4],
            72,
            2 * 16 * 36,
        ),
        (
            "[1, 4, 8, 8]",
            "conv_transpose2d = { out = 6, kernel = 2, stride = 2 }",
            &[1, 6, 16, 16],
            4 * 6 * 4 + 6,
            256 * 6 * 4,
        ),
        (
            "[1, 4, 8, 8]",
            "conv_transpose2d = { out = 6, kernel = 3, stride = 2, pad = 1, output_pad = 1 }",
            &[1, 6, 16, 16],
            222,
            256 * 6 * 9,
        ),
        ("[2, 7, 5]", "linear = { out = 3 }", &[2, 7, 3], 18, 2 * 7 * 15),
        ("[6, 2, 5]", "lstm = { hidden = 3 }", &[6, 2, 3], 4 * 3 * (5 + 3) + 2 * 12, 12 * 4 * 3 * 8),
        ("[6, 2, 5]", "gru = { hidden = 3, bidirectional = true }", &[6, 2, 6], 2 * (9 * 8 + 18), 12 * 2 * 9 * 8),
        ("[2, 7, 5]", "layer_norm = {}", &[2, 7, 5], 10, 0),
        ("[2, 7, 5]", "rms_norm = {}", &[2, 7, 5], 5, 0),
        ("[2, 7, 5]", "group_norm = { groups = 7 }", &[2, 7, 5], 14, 0),
        ("[2, 7, 5]", "batch_norm = { affine = false }", &[2, 7, 5], 0, 0),
        ("[1, 4, 7, 7]", "max_pool = { kernel = 3, stride = 2, ceil = true }", &[1, 4, 3, 3], 0, 0),
        ("[1, 4, 8, 8]", "max_pool = { kernel = 3, stride = 2, ceil = true }", &[1, 4, 4, 4], 0, 0),
        ("[1, 4, 8, 8]", "adaptive_avg_pool = { out = [6, 5] }", &[1, 4, 6, 5], 0, 0),
        ("[1, 4, 8, 8]", "flatten = {}", &[1, 256], 0, 0),
        ("[1, 4, 8, 8]", "reshape = { shape = [0, -1, 16] }", &[1, 16, 16], 0, 0),
        ("[1, 4, 8, 9]", "transpose = { perm = [0, 2, 3, 1] }", &[1, 8, 9, 4], 0, 0),
        ("[1, 4, 8, 9]", "mean = { axes = [-1, 2] }", &[1, 4], 0, 0),
        ("[1, 4, 8, 9]", "slice = { axis = -1, start = 2, len = 3 }", &[1, 4, 8, 3], 0, 0),
        ("[1, 4]", "pad = { pads = [0, [1, 2]] }", &[1, 7], 0, 0),
    ];
    for (input, op, output, parameters, macs) in cases {
        let text = format!("name = \"net\"\ninput = {input}\n[[layer]]\nname = \"a\"\nop.{op}\n");
        let graph = read(&text).unwrap_or_else(|e| panic!("{op}: {e}"));
        assert_eq!(graph.layers().last().unwrap().shape(), output, "{op}");
        assert_eq!(graph.total_parameters().unwrap(), parameters, "{op}");
        assert_eq!(graph.total_macs().unwrap(), macs, "{op}");
    }
}

#[test]
fn several_outputs_are_read_by_index() {
    let graph = read(
        "name = \"net\"\ninput = [1, 3, 12]\n[[layer]]\nname = \"qkv\"\nop.split = { axis = -1, sizes = [8, 2, 2] }\n\
         [[layer]]\nname = \"a\"\ninputs = [\"qkv\", \"qkv:1\", \"qkv:2\"]\nop.attention = { heads = 4, kv_heads = 1, head_dim = 2, causal = true }\n\
         [[layer]]\nname = \"p\"\nop.parameter = { shape = [1, 2, 8] }\n\
         [[layer]]\nname = \"c\"\ninputs = [\"p\", \"a\"]\nop.concat = { axis = -2 }\n\
         [[layer]]\nname = \"m\"\ninputs = [\"c\", \"c\"]\nop.matmul = { transpose_b = true }\n",
    )
    .unwrap();
    assert_eq!(
        shapes(&graph),
        [vec![1, 3, 12], vec![1, 3, 8], vec![1, 3, 8], vec![1, 2, 8], vec![1, 5, 8], vec![1, 5, 5]]
    );
    assert_eq!(graph.total_macs().unwrap(), 2 * 9 * 8 + 25 * 8);
    assert_eq!(graph.total_parameters().unwrap(), 16);
}
