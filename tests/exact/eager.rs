//! What a framework launches for a network, counted by hand.

use hwsim::dtype::DType;
use hwsim::lower::eager::{Framework, framework_steps};
use hwsim::lower::{Assignment, Lowered, Step};
use hwsim::workload::{Graph, Options, resolve};

fn gpt2(framework: Framework) -> (Graph, Vec<Step>) {
    let options = Options { batch: Some(2), seq: Some(64), ..Options::default() };
    let graph = resolve("gpt2", &options).unwrap();
    let steps = framework_steps(&graph, &Assignment::dense(), DType::Fp32, framework).unwrap();
    (graph, steps)
}

fn products(steps: &[Step]) -> Vec<u64> {
    let macs = |op: &Lowered| match op {
        Lowered::Gemm(g) => Some(g.gemm.macs().unwrap()),
        Lowered::Attention(_) => panic!("attention is not fused here"),
        Lowered::Stream(_) => None,
    };
    steps.iter().flat_map(|s| &s.ops).filter_map(macs).collect()
}

#[test]
fn every_product_stays() {
    for framework in [Framework::Eager, Framework::Compiled] {
        let (graph, steps) = gpt2(framework);
        let products = products(&steps);
        // Four products of weights and two of attention in each of twelve blocks, and the head.
        assert_eq!(products.len(), 12 * 6 + 1, "{framework:?}");
        assert_eq!(products.iter().sum::<u64>(), graph.total_macs().unwrap(), "{framework:?}");
    }
}

#[test]
fn kernels_of_a_block() {
    let count = |steps: &[Step], at: &str, graph: &Graph| -> Vec<usize> {
        let of = |s: &&Step| graph.layer(s.lead).name.starts_with(at);
        steps.iter().filter(of).map(|s| s.ops.len()).filter(|&n| n > 0).collect()
    };
    let (graph, eager) = gpt2(Framework::Eager);
    // Norm, qkv, attention (three copies, product, scale, mask, softmax, product, copy), projection, sum, norm, product, GELU
    // written out, product, sum.
    assert_eq!(count(&eager, "transformer.h.3.", &graph), [1, 1, 9, 1, 1, 1, 1, 8, 1, 1]);
    let (graph, compiled) = gpt2(Framework::Compiled);
    // Norm, qkv, attention (product, softmax, product, copy), projection and sum, norm, product and GELU, product and sum.
    assert_eq!(count(&compiled, "transformer.h.3.", &graph), [1, 1, 4, 2, 1, 2, 2]);
}

#[test]
fn scores_are_written_and_read() {
    let (graph, steps) = gpt2(Framework::Eager);
    let attention = steps.iter().find(|s| graph.layer(s.lead).name == "transformer.h.0.attn.attention").unwrap();
    let streams: Vec<f64> = attention
        .ops
        .iter()
        .filter_map(|op| match op {
            Lowered::Stream(s) => Some((s.input + s.output).get()),
            _ => None,
        })
        .collect();
    // 2·12 heads, 64 tokens, 64 features or 64 keys of four bytes, read and written.
    let moved = 2.0 * 4.0 * (24 * 64 * 64) as f64;
    assert_eq!(streams, [moved; 7]);
}
