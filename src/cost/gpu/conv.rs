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
    let constants = GemmConstants { issue: (dense.issue * c.issue).min(1.0), ramp: dense.ramp * c.ramp, ..*dense };
    let image = work.footprint.inputs * c.gather / (facts.bandwidth * constants.dram);
    let mut implicit = gemm(facts, &constants, setting, work);
    // One-by-one kernels read the image as it is.
    if shape.kernel != [1, 1] {
        implicit.time += image;
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

fn winograd_applies(engine: Engine, shape: &ConvShape) -> bool {
    matches!(engine, Engine::Lanes32 | Engine::Lanes16)
        && shape.kernel == [3, 3]
        && shape.stride == [1, 1]
        && shape.dilation == [1, 1]
        && !shape.transposed
}
