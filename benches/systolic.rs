//! Systolic arrays: estimates a second, a whole network, and element cycles a second of the simulator.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hwsim::cost::systolic::fold::{Array, Shape, dense};
use hwsim::cost::systolic::sparse::Skipping;
use hwsim::cost::{Options, model, network::network};
use hwsim::dtype::DType;
use hwsim::lower::{Assignment, Gemm, Lowered, SparseGemm, steps};
use hwsim::profile::Profile;
use hwsim::profile::systolic::{Dataflow, Folding};
use hwsim::simulate::systolic::{Operands, run};
use hwsim::sparsity::Mask;
use hwsim::workload::{self, resolve};
use std::hint::black_box;

fn products() -> Vec<Gemm> {
    let extents = [1u64, 49, 128, 196, 784, 1000, 4096];
    let mut all = Vec::new();
    for m in extents {
        for n in extents {
            all.extend(extents.map(|k| Gemm { groups: 1, m, n, k }));
        }
    }
    all
}

fn estimates(c: &mut Criterion) {
    let mut group = c.benchmark_group("estimates");
    let gemms = products();
    group.throughput(Throughput::Elements(gemms.len() as u64));
    for dataflow in Dataflow::ALL {
        let array = Array { rows: 32, cols: 32, dataflow, folding: Folding::Serial };
        group.bench_function(BenchmarkId::new("folds", dataflow.short()), |b| {
            b.iter(|| {
                gemms
                    .iter()
                    .map(|g| black_box(dense(array, Shape { m: g.m, n: g.n, k: g.k })).unwrap().cycles)
                    .sum::<u64>()
            });
        });
    }
    // Cycles, traffic, loop order, stalls and energy.
    let ops: Vec<Lowered> = gemms.iter().map(|&g| Lowered::Gemm(SparseGemm::dense(g, DType::Int8))).collect();
    for name in ["systolic-32x32", "systolic-128x128"] {
        let profile = Profile::find(name).unwrap();
        let model = model(&profile, Options::default()).unwrap();
        group.bench_function(BenchmarkId::new("whole model", name), |b| {
            b.iter(|| ops.iter().map(|op| black_box(model.cost(op)).unwrap().time.get()).sum::<f64>());
        });
    }
    group.finish();
}

fn resnet50(c: &mut Criterion) {
    let profile = Profile::find("systolic-32x32").unwrap();
    let model = model(&profile, Options::default()).unwrap();
    let graph = resolve("resnet50", &workload::Options::default()).unwrap();
    let lowered = steps(&graph, &Assignment::default(), DType::Int8, true).unwrap();
    c.bench_function("resnet50 on 32x32", |b| {
        b.iter(|| black_box(network(&lowered, model.as_ref(), 1)).unwrap().total.time)
    });
}

fn simulator(c: &mut Criterion) {
    let mut group = c.benchmark_group("simulator");
    group.sample_size(10);
    for dataflow in Dataflow::ALL {
        let array = Array { rows: 32, cols: 32, dataflow, folding: Folding::Overlapped };
        let operands = Operands::draw(128, Mask::from_fn(128, 128, |_, _| true), 1);
        let stepped = run(array, &mut operands.clone(), Skipping::None).unwrap().stepped;
        group.throughput(Throughput::Elements(stepped));
        group.bench_function(dataflow.short(), |b| {
            b.iter(|| run(array, &mut operands.clone(), Skipping::None).unwrap().counts)
        });
    }
    group.finish();
}

criterion_group!(benches, estimates, resnet50, simulator);
criterion_main!(benches);
