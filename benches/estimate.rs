//! How fast the answers come: costs a second on one core, a whole estimate, reading and lowering large graphs.

#[path = "../tests/common/onnx.rs"]
mod onnx;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hwsim::cost::{Options, model};
use hwsim::dtype::DType;
use hwsim::lower::{Assignment, Gemm, Lowered, SparseGemm, steps};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::Profile;
use hwsim::report::{Request, Target, estimate};
use hwsim::workload::{self, resolve};
use prost::Message;
use std::hint::black_box;

/// Products of the sizes that networks have: powers of two and what lies between them.
fn products(pattern: SparsityPattern, dtype: DType) -> Vec<Lowered> {
    let extents = [1u64, 7, 49, 128, 196, 784, 1000, 4096];
    let mut all = Vec::new();
    for m in extents {
        for n in &extents[3..] {
            for k in &extents[3..] {
                let gemm = Gemm { groups: 1, m, n: *n, k: *k };
                all.push(Lowered::Gemm(SparseGemm::with_pattern(gemm, dtype, pattern)));
            }
        }
    }
    all
}

fn gemm_costs(c: &mut Criterion) {
    let mut group = c.benchmark_group("gemm_costs");
    for (name, dtype) in [("a100", DType::Fp16), ("xeon-gold-6148", DType::Fp32), ("systolic-128x128", DType::Int8)] {
        let profile = Profile::find(name).expect("a built-in profile");
        let model = model(&profile, Options::default()).expect("a complete profile");
        for pattern in ["dense", "2:4"] {
            let ops = products(pattern.parse().expect("a pattern"), dtype);
            group.throughput(Throughput::Elements(ops.len() as u64));
            group.bench_function(BenchmarkId::new(name, pattern), |b| {
                b.iter(|| {
                    for op in &ops {
                        black_box(model.cost(black_box(op)).expect("a cost"));
                    }
                });
            });
        }
    }
    group.finish();
}

fn whole_estimates(c: &mut Criterion) {
    let profile = Profile::find("a100").expect("a built-in profile");
    for (network, pattern) in [("resnet50", "2:4"), ("llama-3-8b", "2:4")] {
        let graph = resolve(network, &workload::Options::default()).expect("a built-in network");
        let assignment = Assignment::parse(&[pattern]).expect("a rule");
        c.bench_function(&format!("estimate/{network}"), |b| {
            let request = Request {
                profile: &profile,
                assignment: &assignment,
                dtype: DType::Fp16,
                options: Options::default(),
                queues: 1,
                fuse: true,
                framework: None,
            };
            b.iter(|| estimate(&Target::Network(&graph), &request).expect("an estimate"));
        });
    }
}

/// A chain of convolutions, normalisations and activations as TOML text.
fn chain(layers: usize) -> String {
    let mut text = String::from("name = \"chain\"\ninput = [1, 64, 14, 14]\n");
    for i in 0..layers / 3 {
        text += &format!(
            "[[layer]]\nname = \"b{i}.conv\"\nop.conv2d = {{ out = 64, kernel = 3, pad = 1, bias = false }}\n\
             [[layer]]\nname = \"b{i}.bn\"\nop.batch_norm = {{}}\n[[layer]]\nname = \"b{i}.relu\"\nop.relu = {{}}\n"
        );
    }
    text
}

fn large_graphs(c: &mut Criterion) {
    let mut group = c.benchmark_group("graph");
    group.sample_size(10);
    for layers in [10_000, 100_000] {
        let text = chain(layers);
        group.throughput(Throughput::Elements(layers as u64));
        group.bench_with_input(BenchmarkId::new("toml", layers), &text, |b, text| {
            b.iter(|| workload::toml::parse(text, "chain", &workload::Options::default()).expect("a network"));
        });
        let graph = workload::toml::parse(&text, "chain", &workload::Options::default()).expect("a network");
        group.bench_with_input(BenchmarkId::new("lower", layers), &graph, |b, graph| {
            b.iter_batched(
                Assignment::dense,
                |dense| steps(graph, &dense, DType::Fp16, true).expect("steps"),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// 96 products of 1024 × 1024 with their weights: 400 MB on disk, of which an import may touch only the messages.
fn large_model(c: &mut Criterion) {
    let mut model = onnx::Builder::new(17).input("x0", &[1, 1024]).output("x96");
    for i in 0..96 {
        let (from, weight, to) = (format!("x{i}"), format!("w{i}"), format!("x{}", i + 1));
        model = model.weight(onnx::floats(&weight, &[1024, 1024])).node(onnx::node(
            "MatMul",
            &[&from, &weight],
            &[&to],
            Vec::new(),
        ));
    }
    let file = tempfile::Builder::new().suffix(".onnx").tempfile().expect("a temporary file");
    std::fs::write(file.path(), model.model.encode_to_vec()).expect("room for the model");
    drop(model);
    c.bench_function("onnx/400 MB", |b| {
        b.iter(|| resolve(&file.path().display().to_string(), &workload::Options::default()).expect("a network"));
    });
}

criterion_group!(benches, gemm_costs, whole_estimates, large_graphs, large_model);
criterion_main!(benches);
