//! Convolutions: implicit GEMM, and Winograd where libraries use it.

use super::facts::{Engine, Facts};
use super::gemm::{GemmCost, GemmWork, gemm};
use super::memory::Setting;
use crate::lower::ConvShape;
use crate::profile::calibration::{ConvConstants, GemmConstants};

/// The faster of implicit GEMM and Winograd F(2×2, 3×3) (Lavin and Gray, CVPR'16: 2.25 times fewer products).
pub fn conv(
    facts: &Facts,
    c: &ConvConstants,
    dense: &GemmConstants,
    setting: &Setting,
    work: &GemmWork,
    shape: &ConvShape,
) -> (GemmCost, &'static str) {
    let asked = work;
    let work = &padded(asked, shape);
    let constants = GemmConstants { issue: (dense.issue * c.issue).min(1.0), ramp: dense.ramp * c.ramp, ..*dense };
    let image = work.footprint.inputs * c.gather / (facts.bandwidth * constants.dram);
    let mut implicit = gemm(facts, &constants, setting, work);
    // One-by-one kernels read the image as it is.
    if shape.kernel != [1, 1] {
        implicit.time += image;
    }
    // The padded image is written once more before the kernel reads it.
    if work.k > asked.k {
        implicit.time += 2.0 * work.footprint.inputs / (facts.bandwidth * constants.dram);
    }
    if !winograd_applies(work.engine, shape) {
        return (implicit, "implicit-gemm");
    }
    let saving = (2.25 * c.winograd).max(1.0);
    let fewer = GemmWork { rate: work.rate * saving, ..*work };
    // The saved products do no work, so they do not burn power either.
    let relaxed = GemmConstants { power: constants.power * saving.powf(constants.alpha), ..constants };
    let mut winograd = gemm(facts, &relaxed, setting, &fewer);
    winograd.time += 2.0 * image;
    if winograd.time < implicit.time { (winograd, "winograd") } else { (implicit, "implicit-gemm") }
}

/// The product over channels padded to whole vectors: tensor cores read 16 bytes of channels at a time and dp4a four int8
/// (cuDNN's documentation, "Tensor Core operations": it pads where the tensors do not). On V100 a first layer of three
/// channels in 16 bit takes 2.4 times as long as its own products would, one of a single channel 5 times.
fn padded(work: &GemmWork, shape: &ConvShape) -> GemmWork {
    let vector = match work.engine {
        Engine::Lanes32 | Engine::Lanes16 => return *work,
        Engine::Lanes8 => 4.0,
        Engine::Tensor16 | Engine::Tensor8 | Engine::Tensor4 => 16.0 / work.element,
    };
    let whole = |extent: f64| (extent / vector).ceil() * vector;
    let taps = shape.kernel.iter().product::<u64>().max(1) as f64;
    GemmWork { n: whole(work.n), k: whole(work.k / taps) * taps, ..*work }
}

fn winograd_applies(engine: Engine, shape: &ConvShape) -> bool {
    matches!(engine, Engine::Lanes32 | Engine::Lanes16)
        && shape.kernel == [3, 3]
        && shape.stride == [1, 1]
        && shape.dilation == [1, 1]
        && !shape.transposed
}
