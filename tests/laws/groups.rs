//! Laws of channel removal over random networks.

use hwsim::lower::shrink::shrink;
use hwsim::pattern::SparsityPattern::Channel;
use hwsim::sparsity::groups::Groups;
use hwsim::workload::layer::*;
use hwsim::workload::{Graph, LayerSpec};
use proptest::prelude::*;

/// One more layer: (what, which earlier tensor, which other, how wide).
type Step = (u8, usize, usize, u64);

fn spec(name: String, op: Op, inputs: &[&str]) -> LayerSpec {
    let inputs = inputs.iter().map(|s| s.to_string()).collect();
    LayerSpec { name, op, inputs, shape: None, spelled: "layer".into() }
}

fn conv(out: u64, groups: u64) -> Op {
    let (kernel, stride, dilation) = (vec![3, 3], vec![1, 1], vec![1, 1]);
    let pad = vec![(1, 1); 2];
    Op::Conv(Conv { out, kernel, stride, pad, dilation, groups, bias: true, transposed: false, output_pad: vec![0; 2] })
}

/// A network of convolutions, joins, cuts and sums; sums first bring both sides to one width.
fn network(steps: &[Step]) -> Graph {
    let mut specs = vec![LayerSpec {
        name: "x".into(),
        op: Op::Input,
        inputs: vec![],
        shape: Some(vec![1, 4, 6, 6]),
        spelled: "input".into(),
    }];
    let mut tensors: Vec<(String, u64)> = vec![("x".into(), 4)];
    for (i, &(what, a, b, width)) in steps.iter().enumerate() {
        let (a, b) = (tensors[a % tensors.len()].clone(), tensors[b % tensors.len()].clone());
        let name = format!("l{i}");
        let (op, inputs, out) = match what % 8 {
            0 => (conv(4 * width, 1), vec![&a.0], 4 * width),
            1 => (conv(a.1, a.1), vec![&a.0], a.1),
            2 if a.1 % 4 == 0 => (conv(4 * width, 4), vec![&a.0], 4 * width),
            3 => (Op::Norm(Norm { kind: NormKind::Batch, axis: 1, affine: true }), vec![&a.0], a.1),
            4 if a.1 == b.1 => (Op::Pointwise(Function::Add), vec![&a.0, &b.0], a.1),
            5 if a.1 + b.1 <= 96 => (Op::Concat { axis: 1 }, vec![&a.0, &b.0], a.1 + b.1),
            6 if a.1 > width => {
                let range = Range { axis: 1, start: a.1 - width, len: width, step: 1 };
                (Op::Slice { ranges: vec![range] }, vec![&a.0], width)
            }
            7 => {
                // A projection brings one side to the width of the other.
                let other = format!("{name}p");
                specs.push(spec(other.clone(), conv(b.1, 1), &[&a.0]));
                specs.push(spec(name.clone(), Op::Pointwise(Function::Add), &[&other, &b.0]));
                tensors.push((name, b.1));
                continue;
            }
            _ => (Op::Pointwise(Function::Relu), vec![&a.0], a.1),
        };
        let inputs: Vec<&str> = inputs.into_iter().map(String::as_str).collect();
        specs.push(spec(name.clone(), op, &inputs));
        tensors.push((name, out));
    }
    // Every tensor reaches a head, so that not all is frozen as an output.
    for (i, (name, _)) in tensors.iter().enumerate().skip(1) {
        specs.push(spec(format!("head{i}"), conv(2, 1), &[name]));
    }
    Graph::build("random", specs).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_shrunk_network_is_consistent_and_never_larger(
        steps in prop::collection::vec((0u8..8, 0usize..64, 0usize..64, 1u64..9), 1..24),
        s in 0.0f64..1.0,
    ) {
        let graph = network(&steps);
        // `shrink` infers every shape again and refuses a contradiction.
        let small = shrink(&graph, |_| Some(Channel(s))).unwrap();
        prop_assert!(small.graph.total_macs().unwrap() <= graph.total_macs().unwrap());
        prop_assert!(small.graph.total_parameters().unwrap() <= graph.total_parameters().unwrap());
        // A shrunk graph built again from its operations has the same shapes and parameters.
        let specs = small.graph.order().iter().map(|&n| {
            let layer = small.graph.layer(n);
            let inputs = small.graph.inputs(n).into_iter().map(|(p, _)| small.graph.layer(p).name.clone()).collect();
            let shape = matches!(layer.op, Op::Input).then(|| layer.shape().to_vec());
            LayerSpec { name: layer.name.clone(), op: layer.op.clone(), inputs, shape, spelled: layer.spelled.clone() }
        });
        let again = Graph::build("again", specs.collect()).unwrap();
        for (a, b) in small.graph.layers().zip(again.layers()) {
            prop_assert_eq!(&a.outputs, &b.outputs);
            prop_assert!(a.params.iter().map(|p| &p.shape).eq(b.params.iter().map(|p| &p.shape)), "{}", a.name);
        }
    }

    #[test]
    fn nothing_asked_changes_nothing(
        steps in prop::collection::vec((0u8..8, 0usize..64, 0usize..64, 1u64..9), 1..24),
    ) {
        let graph = network(&steps);
        let same = shrink(&graph, |_| Some(Channel(0.0))).unwrap().graph;
        for (a, b) in graph.layers().zip(same.layers()) {
            prop_assert_eq!(&a.op, &b.op);
            prop_assert_eq!(&a.outputs, &b.outputs);
        }
    }

    #[test]
    fn parameter_slices_of_a_unit_do_not_overlap(
        steps in prop::collection::vec((0u8..8, 0usize..64, 0usize..64, 1u64..9), 1..24),
    ) {
        let graph = network(&steps);
        let groups = Groups::analyse(&graph);
        for g in groups.prunable() {
            for m in &g.members {
                let axis = &groups.params(m.node)[m.param][m.axis];
                let removed: u64 = (0..g.size)
                    .map(|u| axis.mask(&|c, i| c != g.class || i != u).iter().filter(|k| !**k).count() as u64)
                    .sum();
                prop_assert_eq!(removed, g.size * m.width);
            }
        }
    }
}
