//! Costs a second of the CPU model on one core.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hwsim::cost::{Options, Timing, model};
use hwsim::dtype::DType;
use hwsim::lower::{Gemm, Lowered, SparseGemm};
use hwsim::profile::Profile;
use std::hint::black_box;

const XEON: &str = r#"
name = "Intel Xeon Gold 6148, one socket"
clock = "2.4 GHz"
[memory]
bandwidth = "118 GB/s"
[device.cpu]
cores = 20
macs = { fp32 = "32 MAC/cy" }
cache = [
  { level = "L1", size = "32 KiB", line = "64 B", ways = 8, bandwidth = "128 B/cy" },
  { level = "L2", size = "1 MiB", line = "64 B", ways = 16, bandwidth = "64 B/cy" },
  { level = "L3", size = "27.5 MiB", line = "64 B", ways = 11, bandwidth = "16 B/cy", shared = true },
]
"#;

fn costs(c: &mut Criterion) {
    let profile = Profile::from_toml(XEON, "xeon").expect("a profile");
    let mut group = c.benchmark_group("cpu_costs");
    for threads in [1, 20] {
        let model = model(&profile, Options { threads: Some(threads), timing: Timing::Cold }).expect("a CPU");
        for pattern in ["dense", "unstructured@0.9", "block:16x16@0.9", "2:4"] {
            let extents = [64u64, 196, 512, 1000, 4096];
            let ops: Vec<Lowered> = (0..125)
                .map(|i| {
                    let gemm = Gemm { groups: 1, m: extents[i % 5], n: extents[i / 5 % 5], k: extents[i / 25] };
                    Lowered::Gemm(SparseGemm::with_pattern(gemm, DType::Fp32, pattern.parse().expect("a pattern")))
                })
                .collect();
            group.throughput(Throughput::Elements(ops.len() as u64));
            group.bench_function(format!("{pattern}, {threads} threads"), |b| {
                b.iter(|| ops.iter().for_each(|op| drop(black_box(model.cost(black_box(op)).expect("a cost")))));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, costs);
criterion_main!(benches);
