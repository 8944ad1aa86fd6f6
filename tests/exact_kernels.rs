//! Every kernel against the product by definition.

use hwsim::kernels::{Activations, Isa, Kernel, WeightMatrix, all, reference};
use hwsim::pattern::SparsityPattern;
use hwsim::sparsity::Mask;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Weights of a pattern and activations, small whole numbers, so that every order of summation gives the same.
fn drawn(pattern: SparsityPattern, (n, k, m): (usize, usize, usize), seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mask = Mask::draw(pattern, n as u64, k as u64, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut value = || f32::from(rng.random_range(1..8i16)) * if rng.random() { 1.0 } else { -1.0 };
    let weights = (0..n * k).map(|i| if mask.get((i / k) as u64, (i % k) as u64) { value() } else { 0.0 }).collect();
    let x = (0..k * m).map(|_| value()).collect();
    (weights, x)
}

fn run(kernel: &dyn Kernel, pattern: SparsityPattern, size: (usize, usize, usize), hint: usize, seed: u64) {
    let (n, k, m) = size;
    if kernel.refusal(&pattern, n, k).is_some() {
        return;
    }
    let (weights, x) = drawn(pattern, size, seed);
    let matrix = WeightMatrix { n, k, values: &weights };
    let activations = Activations { k, m, values: &x };
    let packed = kernel.pack(matrix, &pattern, hint).unwrap();
    let expected = reference::product(matrix, activations);
    let absolute = |values: &[f32]| values.iter().map(|v| v.abs()).collect::<Vec<_>>();
    let (w, a) = (absolute(&weights), absolute(&x));
    let sizes = reference::product(WeightMatrix { n, k, values: &w }, Activations { k, m, values: &a });
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut y = vec![f32::NAN; n * m];
        pool.install(|| packed.run(activations, &mut y));
        // Half a step of eight bits over [-7, 7] on both sides of a product of ones: 2 · 0.0276.
        let tolerance = if kernel.dtype() == hwsim::dtype::DType::Fp32 { 0.0 } else { 0.06 };
        for (i, ((a, b), size)) in y.iter().zip(&expected).zip(&sizes).enumerate() {
            assert!(
                (a - b).abs() <= tolerance * size,
                "{} {pattern} {n}x{k} times {m} columns (packed for {hint}), {threads} threads, row {}, column {}: {a} is not {b}",
                kernel.name(),
                i / m,
                i % m
            );
        }
    }
}

fn patterns() -> impl Strategy<Value = SparsityPattern> {
    prop_oneof![
        Just(SparsityPattern::Dense),
        (0.0..0.99).prop_map(SparsityPattern::Unstructured),
        (1u64..40, 1u64..40, 0.0..0.99).prop_map(|(rows, cols, sparsity)| SparsityPattern::Block {
            rows,
            cols,
            sparsity
        }),
        prop_oneof![Just((8, 1)), Just((4, 4)), Just((16, 16)), Just((32, 32)), Just((1, 8))]
            .prop_flat_map(|(rows, cols)| (Just((rows, cols)), 0.0..0.99))
            .prop_map(|((rows, cols), sparsity)| SparsityPattern::Block { rows, cols, sparsity }),
        (0.0..0.99).prop_map(SparsityPattern::Row),
        (0.0..0.99).prop_map(SparsityPattern::Column),
        (1u64..9).prop_flat_map(|m| (1..=m, Just(m))).prop_map(|(n, m)| SparsityPattern::Nm { n, m }),
        prop_oneof![Just((2, 4)), Just((1, 4)), Just((4, 8)), Just((2, 8)), Just((1, 16))]
            .prop_map(|(n, m)| SparsityPattern::Nm { n, m }),
        (1u64..70, prop_oneof![Just((2, 4)), Just((2, 8)), Just((2, 16))])
            .prop_map(|(v, (n, m))| SparsityPattern::Vnm { v, n, m }),
    ]
}

fn columns() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1usize), Just(16), Just(32), Just(128), 1usize..40, 1usize..300]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn every_kernel_computes_the_product(
        pattern in patterns(),
        n in prop_oneof![1usize..70, 1usize..200],
        k in prop_oneof![1usize..70, 1usize..300],
        m in columns(),
        hint in columns(),
        seed in 0u64..1000,
    ) {
        for isa in Isa::available() {
            for kernel in all(isa) {
                run(kernel.as_ref(), pattern, (n, k, m), hint, seed);
            }
        }
    }
}

#[test]
fn large_blocks_of_k_and_many_rows() {
    for isa in Isa::available() {
        for kernel in all(isa) {
            for pattern in ["unstructured@0.5", "unstructured@0.99", "block:16x16@0.5", "block:8x1@0.9", "2:4", "1:4"] {
                for size in [(700, 1100, 130), (1030, 520, 96), (3, 70_000, 1), (3, 70_000, 20)] {
                    run(kernel.as_ref(), pattern.parse().unwrap(), size, size.2, 7);
                }
            }
        }
    }
}

#[test]
fn nothing_in_nothing_out() {
    for kernel in all(Isa::detect()) {
        let dense = SparsityPattern::Dense;
        if kernel.refusal(&dense, 3, 0).is_some() {
            continue;
        }
        let packed = kernel.pack(WeightMatrix { n: 3, k: 0, values: &[] }, &dense, 2).unwrap();
        let mut y = [9.0; 6];
        packed.run(Activations { k: 0, m: 2, values: &[] }, &mut y);
        assert_eq!(y, [0.0; 6], "{}", kernel.name());
        let packed = kernel.pack(WeightMatrix { n: 0, k: 2, values: &[] }, &dense, 2).unwrap();
        packed.run(Activations { k: 2, m: 1, values: &[1.0, 2.0] }, &mut []);
    }
}
