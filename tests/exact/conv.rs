//! Convolutions of the kernels against the sum that they mean.

use hwsim::kernels::conv::{Convolution, Direct};
use hwsim::kernels::{Isa, WeightMatrix, all};
use hwsim::lower::ConvShape;
use hwsim::pattern::SparsityPattern;
use proptest::prelude::*;

/// Values between −1 and 1 that repeat after no short period.
fn values(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32 / 8_388_608.0) - 1.0)
        .collect()
}

/// Zeros before the image along an axis: half of what the output's extent implies.
fn before(s: &ConvShape, axis: usize) -> i64 {
    let reach = (s.output[axis] - 1) * s.stride[axis] + (s.kernel[axis] - 1) * s.dilation[axis] + 1;
    reach.saturating_sub(s.input[axis]) as i64 / 2
}

/// Images are `[channels, batch, height, width]`, weights `[outputs, channels of a group, taps]`.
fn reference(s: &ConvShape, groups: usize, outputs: usize, weights: &[f32], x: &[f32]) -> Vec<f64> {
    let u = |v: u64| v as usize;
    let (batch, own) = (u(s.batch), u(s.channels) / groups);
    let taps = u(s.kernel[0] * s.kernel[1]);
    let mut y = Vec::new();
    for o in 0..outputs {
        for n in 0..batch {
            for at in 0..u(s.output[0] * s.output[1]) {
                let (row, column) = (at as u64 / s.output[1], at as u64 % s.output[1]);
                let mut sum = 0.0;
                for (c, t) in (0..own).flat_map(|c| (0..taps).map(move |t| (c, t))) {
                    let place = |axis: usize, out: u64, tap: u64| {
                        (out * s.stride[axis] + tap * s.dilation[axis]) as i64 - before(s, axis)
                    };
                    let (r, q) = (place(0, row, t as u64 / s.kernel[1]), place(1, column, t as u64 % s.kernel[1]));
                    if r >= 0 && q >= 0 && r < s.input[0] as i64 && q < s.input[1] as i64 {
                        let channel = o / (outputs / groups) * own + c;
                        let pixel = ((channel * batch + n) * u(s.input[0]) + r as usize) * u(s.input[1]) + q as usize;
                        sum += f64::from(weights[(o * own + c) * taps + t]) * f64::from(x[pixel]);
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn shapes() -> impl Strategy<Value = (ConvShape, usize, usize)> {
    let axis = || (1u64..40, 1u64..6, 1u64..4, 1u64..3, 0u64..3);
    (1u64..3, 1usize..4, 1usize..4, 1usize..4, axis(), axis()).prop_filter_map(
        "the kernel fits",
        |(batch, groups, own, each, a, b)| {
            let out = |(input, kernel, stride, dilation, pad): (u64, u64, u64, u64, u64)| {
                Some((input + 2 * pad).checked_sub((kernel - 1) * dilation + 1)? / stride + 1)
            };
            let shape = ConvShape {
                batch,
                channels: (groups * own) as u64,
                input: [a.0, b.0],
                output: [out(a)?, out(b)?],
                kernel: [a.1, b.1],
                stride: [a.2, b.2],
                dilation: [a.3, b.3],
                transposed: false,
            };
            Some((shape, groups, groups * each))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn convolutions_are_their_sums((shape, groups, outputs) in shapes(), seed in any::<u32>()) {
        let own = shape.channels as usize / groups;
        let taps = (shape.kernel[0] * shape.kernel[1]) as usize;
        let (m, k) = ((shape.batch * shape.output[0] * shape.output[1]) as usize, own * taps);
        let weights = values(outputs * k, seed);
        let x = values((shape.channels * shape.batch * shape.input[0] * shape.input[1]) as usize, seed ^ 0xabcd);
        let expected = reference(&shape, groups, outputs, &weights, &x);
        let close = |got: &[f32], what: &str| {
            for (at, (got, want)) in got.iter().zip(&expected).enumerate() {
                let error = (f64::from(*got) - want).abs();
                assert!(error < 1e-5 * (k as f64).sqrt().max(1.0) * 4.0, "{what} at {at}: {got} for {want}");
            }
        };
        for isa in Isa::available() {
            let dense = all(isa).into_iter().find(|kernel| kernel.name() == "dense").unwrap();
            let each = outputs / groups;
            let pack = |values| {
                dense.pack(WeightMatrix { n: each, k, values }, &SparsityPattern::Dense, m).unwrap()
            };
            let mut y = vec![f32::NAN; outputs * m];
            Convolution::new(shape, weights.chunks_exact(each * k).map(pack).collect()).run(&x, &mut y);
            close(&y, "im2col");
            y.fill(f32::NAN);
            Direct::new(isa, shape, groups, weights.clone()).run(&x, &mut y);
            close(&y, "in place");
        }
    }
}
