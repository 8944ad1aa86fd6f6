//! Kernels against dense on one thread: interleaved rounds, thread CPU time, ratio of minima.
//!
//! `cargo bench --bench kernels [-- N K M...]` prints one CSV row a kernel, pattern and size.

use hwsim::kernels::{Activations, Isa, WeightMatrix, all};
use hwsim::pattern::SparsityPattern;
use hwsim::sparsity::Mask;
use std::time::{Duration, Instant};

fn weights(pattern: SparsityPattern, n: usize, k: usize) -> Vec<f32> {
    let mask = Mask::draw(pattern, n as u64, k as u64, 1);
    let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0 + 1e-3;
    (0..n * k).map(|i| if mask.get((i / k) as u64, (i % k) as u64) { value(i) } else { 0.0 }).collect()
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let sizes: Vec<(usize, usize, usize)> = if numbers.len() == 3 {
        vec![(numbers[0], numbers[1], numbers[2])]
    } else {
        vec![(1024, 1024, 128), (1024, 1024, 1), (1024, 1024, 32), (1024, 1024, 512), (4096, 4096, 1), (4096, 4096, 128)]
    };
    println!("n,k,m,kernel,pattern,us,speedup,dense_gflops_equivalent");
    for (n, k, m) in sizes {
        let mut jobs = Vec::new();
        for pattern in [
            "dense", "unstructured@0.5", "unstructured@0.7", "unstructured@0.8", "unstructured@0.9", "unstructured@0.95",
            "unstructured@0.99", "block:8x1@0.5", "block:8x1@0.9", "block:4x4@0.5", "block:4x4@0.9", "block:16x16@0.5",
            "block:16x16@0.9", "block:32x32@0.9", "2:4", "1:4", "4:8", "64:2:8",
        ] {
            let pattern: SparsityPattern = pattern.parse().unwrap();
            let values = weights(pattern, n, k);
            for kernel in all(Isa::detect()) {
                let plain = matches!(pattern, SparsityPattern::Unstructured(_)) == (kernel.name() == "csr");
                let wanted = if pattern == SparsityPattern::Dense { kernel.name().starts_with("dense") } else { plain };
                if !wanted || (kernel.name().starts_with("dense") && pattern != SparsityPattern::Dense) {
                    continue;
                }
                if kernel.refusal(&pattern, n, k).is_none() {
                    jobs.push((kernel.name(), pattern, kernel.pack(WeightMatrix { n, k, values: &values }, &pattern, m).unwrap(), f64::INFINITY));
                }
            }
        }
        let x: Vec<f32> = (0..k * m).map(|i| (i % 17) as f32 - 8.0).collect();
        let mut y = vec![0.0; n * m];
        for round in 0..13 {
            for (_, _, packed, best) in &mut jobs {
                let end = Instant::now() + Duration::from_micros(if round == 0 { 500 } else { 2500 });
                loop {
                    let start = Instant::now();
                    packed.run(Activations { k, m, values: &x }, &mut y);
                    *best = best.min(start.elapsed().as_secs_f64());
                    if Instant::now() > end {
                        break;
                    }
                }
            }
        }
        let dense = jobs.iter().find(|j| j.0 == "dense").map_or(f64::NAN, |j| j.3);
        for (name, pattern, _, best) in &jobs {
            let flops = 2.0 * (n * k * m) as f64;
            println!("{n},{k},{m},{name},{pattern},{:.1},{:.2},{:.0}", best * 1e6, dense / best, flops / best * 1e-9);
        }
    }
}
