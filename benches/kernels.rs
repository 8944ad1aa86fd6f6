//! Kernels on one thread beside the crate `gemm` called directly: interleaved rounds of about 3 ms, minimum of the rounds'
//! means, ratio to the dense kernel of the same run.
//!
//! `cargo bench --bench kernels [-- N K M]...` prints one CSV row a kernel, pattern and size, of [n, k] weights and m
//! columns of activations. For other peers see `benches/kernels_peers.py`.

use hwsim::kernels::{Activations, Isa, Packed, WeightMatrix, all, random};
use hwsim::pattern::SparsityPattern;
use std::time::{Duration, Instant};

const PATTERNS: &[&str] = &[
    "dense",
    "unstructured@0.5",
    "unstructured@0.7",
    "unstructured@0.8",
    "unstructured@0.9",
    "unstructured@0.95",
    "unstructured@0.99",
    "block:8x1@0.5",
    "block:8x1@0.9",
    "block:4x4@0.5",
    "block:4x4@0.9",
    "block:16x16@0.5",
    "block:16x16@0.9",
    "block:32x32@0.9",
    "2:4",
    "1:4",
    "4:8",
    "64:2:8",
    "row@0.5",
    "column@0.5",
];
const SIZES: &[(usize, usize, usize)] =
    &[(1024, 1024, 128), (1024, 1024, 1), (1024, 1024, 32), (1024, 1024, 512), (4096, 4096, 1), (4096, 4096, 128)];
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(3);

/// The crate itself.
struct Direct {
    n: usize,
    k: usize,
    values: Vec<f32>,
}

impl Packed for Direct {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        let (n, k, m) = (self.n, self.k, x.m);
        let (to, w, x) = (y.as_mut_ptr(), self.values.as_ptr(), x.values.as_ptr());
        let (rows, across) = (k as isize, m as isize);
        // SAFETY: row-major n × k, k × m and n × m.
        unsafe {
            gemm::gemm(
                n,
                m,
                k,
                to,
                1,
                across,
                false,
                w,
                1,
                rows,
                x,
                1,
                across,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }

    fn bytes(&self) -> (u64, u64) {
        (4 * self.values.len() as u64, 0)
    }
}

struct Job {
    kernel: &'static str,
    pattern: SparsityPattern,
    packed: Box<dyn Packed>,
    best: f64,
}

/// Whether a kernel is one that somebody would take for a pattern.
fn suits(kernel: &str, pattern: &SparsityPattern) -> bool {
    match kernel {
        "dense" | "int8" | "bf16" => pattern.is_dense(),
        "csr" => matches!(
            pattern,
            SparsityPattern::Unstructured(_) | SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. }
        ),
        _ => true,
    }
}

fn jobs((n, k, m): (usize, usize, usize)) -> Vec<Job> {
    let mut jobs = Vec::new();
    for text in PATTERNS {
        let pattern: SparsityPattern = text.parse().expect("a pattern");
        let values = random::weights(pattern, n, k, 1);
        if pattern.is_dense() {
            let packed = Box::new(Direct { n, k, values: values.clone() });
            jobs.push(Job { kernel: "crate gemm", pattern, packed, best: f64::INFINITY });
        }
        for kernel in all(Isa::detect()) {
            if suits(kernel.name(), &pattern) && kernel.refusal(&pattern, n, k).is_none() {
                let packed =
                    kernel.pack(WeightMatrix { n, k, values: &values }, &pattern, m).expect("weights of the pattern");
                jobs.push(Job { kernel: kernel.name(), pattern, packed, best: f64::INFINITY });
            }
        }
    }
    jobs
}

fn measure(size: (usize, usize, usize)) {
    let (n, k, m) = size;
    let mut jobs = jobs(size);
    let x = random::activations(k, m, 1);
    let mut y = vec![0.0; n * m];
    for round in 0..=ROUNDS {
        for job in &mut jobs {
            let start = Instant::now();
            let mut calls = 0;
            while start.elapsed() < ROUND {
                job.packed.run(Activations { k, m, values: &x }, &mut y);
                calls += 1;
            }
            // The first round warms up.
            if round > 0 {
                job.best = job.best.min(start.elapsed().as_secs_f64() / f64::from(calls));
            }
        }
    }
    let dense = jobs.iter().find(|j| j.kernel == "dense").map_or(f64::NAN, |j| j.best);
    for Job { kernel, pattern, best, packed } in &jobs {
        let gflops = 2.0 * (n * k * m) as f64 / best * 1e-9;
        let (values, metadata) = packed.bytes();
        println!(
            "{n},{k},{m},{kernel},{pattern},{:.2},{:.2},{gflops:.0},{values},{metadata}",
            best * 1e6,
            dense / best
        );
    }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let given: Vec<_> = numbers.chunks_exact(3).map(|s| (s[0], s[1], s[2])).collect();
    println!("n,k,m,kernel,pattern,us,speedup,dense_equivalent_gflops,value_bytes,metadata_bytes");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    for size in if given.is_empty() { SIZES } else { &given } {
        pool.install(|| measure(*size));
    }
}
