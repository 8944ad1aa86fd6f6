//! Laws of networks, over random ones.

use hwsim::workload::{Graph, LayerSpec, Op, Options, toml};
use proptest::prelude::*;
use std::fmt::Write;

/// One layer on `[batch, channels, side, side]` that keeps the rank; `back` layers above it is its residual partner.
#[derive(Clone, Debug)]
enum Piece {
    Conv { out: u64, kernel: u64, stride: u64, bias: bool },
    Depthwise { kernel: u64 },
    Norm,
    Relu,
    Softmax { axis: i32 },
    Double,
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        (1u64..9, 0u64..3, 1u64..3, any::<bool>()).prop_map(|(out, half, stride, bias)| Piece::Conv {
            out,
            kernel: 2 * half + 1,
            stride,
            bias
        }),
        (0u64..3).prop_map(|half| Piece::Depthwise { kernel: 2 * half + 1 }),
        Just(Piece::Norm),
        Just(Piece::Relu),
        (-4i32..4).prop_map(|axis| Piece::Softmax { axis }),
        Just(Piece::Double),
    ]
}

/// The layers as TOML, their names after `prefix`; returns the channels that flow on.
fn write(text: &mut String, table: &str, prefix: &str, pieces: &[Piece], mut channels: u64) -> u64 {
    for (i, piece) in pieces.iter().enumerate() {
        let _ = writeln!(text, "[[{table}]]\nname = \"{prefix}{i}\"");
        let _ = match piece {
            Piece::Conv { out, kernel, stride, bias } => {
                channels = *out;
                let pad = kernel / 2;
                writeln!(
                    text,
                    "op.conv2d = {{ out = {out}, kernel = {kernel}, stride = {stride}, pad = {pad}, bias = {bias} }}"
                )
            }
            Piece::Depthwise { kernel } => {
                let pad = kernel / 2;
                writeln!(
                    text,
                    "op.conv2d = {{ out = {channels}, kernel = {kernel}, pad = {pad}, groups = {channels} }}"
                )
            }
            Piece::Norm => writeln!(text, "op.batch_norm = {{}}"),
            Piece::Relu => writeln!(text, "op.relu = {{}}"),
            Piece::Softmax { axis } => writeln!(text, "op.softmax = {{ axis = {axis} }}"),
            Piece::Double => writeln!(text, "op.add = {{}}"),
        };
    }
    channels
}

fn network(pieces: &[Piece]) -> String {
    let mut text = "name = \"net\"\ninput = [1, 3, 16, 16]\n".to_owned();
    write(&mut text, "layer", "l", pieces, 3);
    text
}

fn read(text: &str, batch: u64) -> Graph {
    toml::parse(text, "net", &Options { batch: Some(batch), ..Options::default() }).unwrap()
}

/// Name, operation, inputs, output shapes, parameter shapes, MACs.
type Facts = (String, Op, Vec<String>, Vec<Vec<u64>>, Vec<Vec<u64>>, u64);

/// Everything that a graph says of its layers.
fn facts(graph: &Graph) -> Vec<Facts> {
    let order = graph.order().iter();
    order
        .map(|&n| {
            let layer = graph.layer(n);
            let reads = graph.inputs(n).into_iter().map(|(p, o)| format!("{}:{o}", graph.layer(p).name)).collect();
            let outputs = layer.outputs.iter().map(|t| t.shape.clone()).collect();
            let params = layer.params.iter().map(|p| p.shape.clone()).collect();
            (layer.name.clone(), layer.op.clone(), reads, outputs, params, graph.macs(n).unwrap())
        })
        .collect()
}

/// The specification that a graph itself implies.
fn specs(graph: &Graph) -> Vec<LayerSpec> {
    let order = graph.order().iter();
    order
        .map(|&n| {
            let layer = graph.layer(n);
            let inputs = graph.inputs(n).into_iter();
            LayerSpec {
                name: layer.name.clone(),
                op: layer.op.clone(),
                inputs: inputs.map(|(p, o)| format!("{}:{o}", graph.layer(p).name)).collect(),
                shape: matches!(layer.op, Op::Input | Op::Parameter).then(|| layer.shape().to_vec()),
                spelled: layer.spelled.clone(),
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_graph_rebuilt_from_itself_is_the_same(pieces in prop::collection::vec(piece(), 1..20)) {
        let graph = read(&network(&pieces), 1);
        prop_assert_eq!(facts(&Graph::build("net", specs(&graph)).unwrap()), facts(&graph));
    }

    #[test]
    fn the_order_of_specifications_changes_no_count(pieces in prop::collection::vec(piece(), 1..20), seed in any::<u64>()) {
        let graph = read(&network(&pieces), 1);
        let mut shuffled = specs(&graph);
        shuffled.sort_by_key(|s| s.name.bytes().fold(seed, |h, b| h.wrapping_mul(0x100_0000_01b3) ^ u64::from(b)));
        let again = Graph::build("net", shuffled).unwrap();
        let sorted = |graph: &Graph| { let mut f = facts(graph); f.sort_by(|a, b| a.0.cmp(&b.0)); f };
        prop_assert_eq!(sorted(&again), sorted(&graph));
    }

    #[test]
    fn a_repeated_block_is_the_same_block_written_out(
        pieces in prop::collection::vec(piece(), 1..6),
        from in 0u64..5,
        times in 1u64..5,
    ) {
        // The last layer brings the channels back, so that every copy sees what the first does.
        let close = Piece::Conv { out: 3, kernel: 1, stride: 1, bias: false };
        let pieces = [pieces, vec![close]].concat();
        let mut folded = "name = \"net\"\ninput = [1, 3, 16, 16]\n".to_owned();
        let mut unrolled = folded.clone();
        let _ = writeln!(folded, "[[repeat]]\nname = \"b{{i}}\"\nfrom = {from}\ntimes = {times}");
        write(&mut folded, "repeat.layer", "l", &pieces, 3);
        for i in from..from + times {
            write(&mut unrolled, "layer", &format!("b{i}.l"), &pieces, 3);
        }
        prop_assert_eq!(facts(&read(&folded, 1)), facts(&read(&unrolled, 1)));
    }

    #[test]
    fn macs_grow_with_the_batch_and_parameters_do_not(pieces in prop::collection::vec(piece(), 1..20), batch in 1u64..9) {
        let (one, many) = (read(&network(&pieces), 1), read(&network(&pieces), batch));
        prop_assert_eq!(many.total_macs().unwrap(), batch * one.total_macs().unwrap());
        prop_assert_eq!(many.total_parameters().unwrap(), one.total_parameters().unwrap());
    }
}
