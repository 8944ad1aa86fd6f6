//! Every kernel against the product by definition.

use hwsim::dtype::DType;
use hwsim::kernels::{Activations, Isa, Kernel, WeightMatrix, all, random, reference, tiles};
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
        let tolerance = if kernel.dtype() == DType::Int8 { 0.06 } else { 0.0 };
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
        prop_oneof![
            Just((8, 1)),
            Just((4, 4)),
            Just((16, 16)),
            Just((32, 32)),
            Just((1, 4)),
            Just((1, 8)),
            Just((1, 20))
        ]
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

/// Units that multiply tiles here: the emulation, and the processor's where it has one.
fn units() -> Vec<tiles::Unit> {
    let mut units = vec![tiles::Unit::Emulated];
    units.extend(tiles::usable().ok().map(|()| tiles::Unit::Amx));
    units
}

/// Blocks of whole tiles, some also in int8.
fn tiled() -> impl Strategy<Value = SparsityPattern> {
    let blocks = (1u64..5, 1u64..5, 0.0..1.0f64).prop_map(|(rows, cols, sparsity)| SparsityPattern::Block {
        rows: 16 * rows,
        cols: 32 * cols,
        sparsity,
    });
    prop_oneof![1 => Just(SparsityPattern::Dense), 3 => blocks]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn kernels_on_tiles_compute_the_product(
        pattern in tiled(),
        n in prop_oneof![Just(16usize), Just(32), 1usize..100],
        k in prop_oneof![Just(64usize), 1usize..70, 1usize..300],
        m in prop_oneof![Just(1usize), Just(16), Just(32), 1usize..70],
        hint in 1usize..40,
        seed in 0u64..1000,
    ) {
        for unit in units() {
            for kernel in tiles::all(unit) {
                run(kernel.as_ref(), pattern, (n, k, m), hint, seed);
            }
        }
    }
}

#[test]
fn sums_on_tiles_go_on_from_block_to_block_and_group_to_group() {
    for unit in units() {
        for kernel in tiles::all(unit) {
            for pattern in ["dense", "block:32x64@0.5", "block:16x64@0.97", "block:48x128@0.999"] {
                // Three blocks of K, and three groups of columns: 512 of a short reduction.
                for size in [(50, 8300, 3), (33, 40, 1030)] {
                    run(kernel.as_ref(), pattern.parse().unwrap(), size, size.2, 7);
                }
            }
        }
    }
}

/// Real numbers: both operands lose half a step, 2^-9 of a bf16 or half of a row's or column's 127th, and sums of fp32 a
/// little more.
#[test]
fn narrow_kernels_err_by_their_rounding_and_no_more() {
    let kernels = all(Isa::detect()).into_iter().chain(units().into_iter().flat_map(tiles::all));
    for kernel in kernels.filter(|kernel| kernel.dtype() != DType::Fp32) {
        for pattern in ["dense", "block:32x64@0.7"] {
            let pattern: SparsityPattern = pattern.parse().unwrap();
            let (n, k, m) = (70, 333, 45);
            if kernel.refusal(&pattern, n, k).is_some() {
                continue;
            }
            let (weights, x) = (random::weights(pattern, n, k, 3), random::activations(k, m, 4));
            let matrix = WeightMatrix { n, k, values: &weights };
            let activations = Activations { k, m, values: &x };
            let mut y = vec![0.0; n * m];
            kernel.pack(matrix, &pattern, m).unwrap().run(activations, &mut y);
            let expected = reference::product(matrix, activations);
            let mut errors = 0.0;
            for (at, (y, expected)) in y.iter().zip(&expected).enumerate() {
                let row = &weights[at / m * k..][..k];
                let column: Vec<f32> = (0..k).map(|c| x[c * m + at % m]).collect();
                let step = |values: &[f32]| values.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
                let size = |values: &[f32]| values.iter().map(|v| v.abs()).sum::<f32>();
                let products: f32 = row.iter().zip(&column).map(|(w, x)| (w * x).abs()).sum();
                let rounding = if kernel.dtype() == DType::Bf16 {
                    products / 256.0 * (1.0 + 1.0 / 1024.0)
                } else {
                    let (w, x) = (step(row), step(&column));
                    0.5 * (w * size(&column) + x * size(row)) + 0.25 * w * x * k as f32
                };
                let most = rounding + products * k as f32 / (1 << 24) as f32;
                let error = (y - expected).abs();
                assert!(error <= most, "{} {pattern}: {y} for {expected}, which allows {most}", kernel.name());
                errors += error;
            }
            assert!(errors > 0.0, "{} does not round", kernel.name());
        }
    }
}

#[test]
fn blocks_that_tiles_do_not_divide_are_refused_with_the_reason() {
    for (kernel, pattern, reason) in [
        (2, "block:8x32@0.5", "tiles need blocks of multiples of 16 rows and 32 columns"),
        (3, "block:16x32@0.5", "tiles need blocks of multiples of 16 rows and 64 columns"),
        (2, "2:4", "it stores blocks, and N:M has none"),
    ] {
        let kernels = tiles::all(tiles::Unit::Emulated);
        let weights = [0.0; 64 * 64];
        let matrix = WeightMatrix { n: 64, k: 64, values: &weights };
        let error = kernels[kernel].pack(matrix, &pattern.parse().unwrap(), 1).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}
