//! A sample's prediction.

use super::gpu::{framework_key, quantised};
use crate::bench::{Sample, SampleOp, Timing};
use crate::cost::gpu::GpuModel;
use crate::cost::gpu::constants::framework;
use crate::cost::gpu::facts::Facts;
use crate::cost::gpu::memory::Setting;
use crate::cost::gpu::work::{Work, evaluate, of_sample};
use crate::cost::{CostModel, Options, model};
use crate::error::Result;
use crate::lower::Lowered;
use crate::pattern::SparsityPattern;
use crate::profile::calibration::{Calibration, FrameworkConstants, GpuCalibration};
use crate::profile::cpu_parameters::CpuCalibration;
use crate::profile::{Device, Profile};
use crate::sparsity::StorageFormat;
use std::sync::Arc;

/// A predicted time and its 90 % interval, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Predicted {
    /// The time.
    pub time: f64,
    /// Low and high end.
    pub interval: (f64, f64),
}

/// Predicts samples of one device.
pub enum Predictor {
    /// A GPU, with what the samples' frameworks add.
    Gpu(Box<GpuModel>, Box<GpuCalibration>),
    /// A CPU, under the threads and the cache state of each row.
    Cpu(Box<Profile>),
    /// Any other family: its own model.
    Other(Box<dyn CostModel>),
}

impl Predictor {
    /// The predictor of a profile under a calibration.
    ///
    /// # Errors
    /// What the profile's model refuses.
    pub fn new(profile: &Profile, calibration: &Calibration) -> Result<Self> {
        Ok(match &profile.device {
            Device::Gpu(_) => Self::Gpu(
                Box::new(GpuModel::with(profile, Options::default(), calibration)?),
                Box::new(calibration.gpu.clone().unwrap_or_default()),
            ),
            Device::Cpu(_) => Self::Cpu(Box::new(with_calibration(profile, calibration.cpu.clone()))),
            Device::Systolic(_) => Self::Other(model(profile, Options::default())?),
        })
    }

    /// Predicts a row.
    ///
    /// # Errors
    /// Why no operation or kernel of the model stands for the row.
    pub fn predict(&self, sample: &Sample) -> Result<Predicted, &'static str> {
        match self {
            Self::Gpu(model, _) if sample.op == SampleOp::Network => {
                let (time, interval) = super::network::predict(&**model, sample)?;
                Ok(Predicted { time, interval })
            }
            Self::Gpu(model, calibration) => {
                let work = prepare(model.facts(), sample)?;
                let key = framework_key(&sample.setting(), quantised(sample));
                let setting = setting_of(sample.timing, &framework(calibration, &key, sample.op.name()));
                let time = evaluate(model.facts(), model.constants(), &setting, &work).time;
                Ok(Predicted { time, interval: model.interval(&work, time) })
            }
            Self::Cpu(profile) => {
                let (op, options) = cpu_row(sample)?;
                let model = model(profile, options).map_err(|_| "the model refuses the profile")?;
                let cost = model.cost(&op).map_err(|_| "the model refuses the operation")?;
                Ok(Predicted { time: cost.time.get(), interval: (cost.interval.0.get(), cost.interval.1.get()) })
            }
            Self::Other(model) => {
                let cost = model.cost(&sample.lowered()?).map_err(|_| "the model refuses the operation")?;
                Ok(Predicted { time: cost.time.get(), interval: (cost.interval.0.get(), cost.interval.1.get()) })
            }
        }
    }
}

/// A CPU's profile under a calibration, or under none.
fn with_calibration(profile: &Profile, calibration: Option<CpuCalibration>) -> Profile {
    let mut profile = profile.clone();
    if let Device::Cpu(cpu) = &mut profile.device {
        cpu.calibration = calibration.map(Arc::new);
    }
    profile
}

/// What a row measured on a CPU: the operation in the format of its kernel, its threads and the state of its caches.
pub(super) fn cpu_row(sample: &Sample) -> Result<(Lowered, Options), &'static str> {
    let mut op = sample.lowered()?;
    if let Lowered::Gemm(g) = &mut op {
        g.format = match (sample.kernel.as_str(), g.weights.pattern()) {
            ("csr", _) => StorageFormat::Csr,
            // Row by row, whatever their groups of rows share.
            ("nm", SparsityPattern::Vnm { n, m, .. }) => StorageFormat::Nm { n, m },
            _ => g.format,
        };
    }
    let threads = sample.attrs.get("threads").and_then(serde_json::Value::as_u64).filter(|&t| t > 0);
    let timing = setting_of(sample.timing, &FrameworkConstants::default()).timing;
    Ok((op, Options { threads, timing }))
}

/// The kernel that a sample measured.
pub(super) fn prepare(facts: &Facts, sample: &Sample) -> Result<Work, &'static str> {
    let op = sample.lowered()?;
    of_sample(facts, &op, &sample.kernel).ok_or("no kernel of the model serves the row")
}

/// The setting of a measuring loop.
pub(super) fn setting_of(timing: Timing, f: &FrameworkConstants) -> Setting {
    Setting {
        timing: match timing {
            Timing::Warm => crate::cost::Timing::Warm,
            Timing::Cold => crate::cost::Timing::Cold,
            Timing::Host => crate::cost::Timing::Host,
        },
        copies: f.copies,
        overhead: f.overhead,
        quantise: f.quantise,
        serving: timing == Timing::Cold && f.pace > 0.0,
        pace: if f.pace > 0.0 { f.pace } else { 1.0 },
        looped: true,
    }
}
