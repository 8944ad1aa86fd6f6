//! What the GPU model reads from a profile, with defaults for what a profile may leave out.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;
use crate::profile::{Device, Generation, Gpu, GpuArch, Profile};

/// The unit that a product runs on; fitted constants are kept per engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// Ordinary lanes in fp32 (AMD's fp32 matrix units too: same tiles, more rate).
    Lanes32,
    /// Ordinary lanes on 16-bit operands.
    Lanes16,
    /// Four-way int8 dot products on the ordinary lanes (dp4a).
    Lanes8,
    /// Tensor cores on 16-bit operands and TF32.
    Tensor16,
    /// Tensor cores on 8-bit operands.
    Tensor8,
    /// Tensor cores on 4-bit operands.
    Tensor4,
}

impl Engine {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Lanes32, Self::Lanes16, Self::Lanes8, Self::Tensor16, Self::Tensor8, Self::Tensor4];

    /// Its name in calibrations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lanes32 => "lanes32",
            Self::Lanes16 => "lanes16",
            Self::Lanes8 => "lanes8",
            Self::Tensor16 => "tensor16",
            Self::Tensor8 => "tensor8",
            Self::Tensor4 => "tensor4",
        }
    }

    /// Whether it is a matrix unit.
    pub const fn is_tensor(self) -> bool {
        matches!(self, Self::Tensor16 | Self::Tensor8 | Self::Tensor4)
    }
}

/// An engine with its peak for a dtype.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// The engine.
    pub engine: Engine,
    /// Multiply–accumulates a second over the whole device.
    pub rate: f64,
}

/// A GPU's facts in base units.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Multiprocessors.
    pub sms: f64,
    /// Clock in Hz.
    pub clock: f64,
    /// Main-memory bandwidth in B/s.
    pub bandwidth: f64,
    /// L2 capacity in bytes.
    pub l2: f64,
    /// L2 bandwidth in B/cycle.
    pub l2_bandwidth: f64,
    /// Shared memory of a multiprocessor in bytes.
    pub shared: f64,
    /// Board power in W.
    pub watts: f64,
    /// Energy of an operation at the listed clock, relative to a 5 nm part at 2 GHz: feature size to the power of 4/3
    /// (capacitance and voltage), times the square of the clock (voltage).
    pub energy: f64,
    /// Seconds to launch a kernel.
    pub launch: f64,
    /// Architecture, as stated or as the rates tell.
    pub arch: Option<GpuArch>,
    peaks: [Option<Peak>; DType::ALL.len()],
    sparse: [f64; DType::ALL.len()],
    lanes: [f64; DType::ALL.len()],
}

/// Process node of a GPU of unknown architecture.
const USUAL_NANOMETRES: f64 = 7.0;

impl Facts {
    /// The facts of a GPU profile.
    ///
    /// # Errors
    /// A profile of another family, or a GPU without any usable rate.
    pub fn of(profile: &Profile) -> Result<Self> {
        let Device::Gpu(gpu) = &profile.device else {
            return Err(Error::Profile {
                profile: profile.name.clone(),
                field: "device".into(),
                reason: "the GPU model needs a [device.gpu] table".into(),
            });
        };
        let clock = profile.clock.get();
        // A kernel runs on one die of a package.
        let dies = gpu.dies.unwrap_or(1).max(1) as f64;
        let sms = gpu.sms as f64 / dies;
        let whole = sms * clock;
        let lane = |d: DType| gpu.simt.get(&d).map_or(0.0, |r| r.get() * whole);
        let tensor = |d: DType| gpu.tensor_core.as_ref().and_then(|t| t.dense.get(&d)).map_or(0.0, |r| r.get() * whole);
        let sparse = |d: DType| {
            let modes = gpu.tensor_core.iter().flat_map(|t| &t.sparse);
            modes
                .filter(|s| s.pattern == SparsityPattern::Nm { n: 2, m: 4 } && s.dtypes.contains(&d))
                .map(|s| s.speedup)
                .fold(0.0, f64::max)
        };
        let peaks = DType::ALL.map(|d| peak(d, &lane, &tensor));
        if peaks.iter().all(Option::is_none) {
            return Err(Error::Profile {
                profile: profile.name.clone(),
                field: "device.gpu.simt".into(),
                reason: "no rate from which any dtype could be computed; give at least fp32".into(),
            });
        }
        let arch = gpu.arch.or_else(|| guess(gpu));
        let usual = arch.map_or(2.5, GpuArch::usual_watts) * sms * clock / 1e9;
        let nanometres = arch.map_or(USUAL_NANOMETRES, GpuArch::nanometres);
        let energy = (nanometres / 5.0).powf(4.0 / 3.0) * (clock / 2e9).powi(2);
        Ok(Self {
            sms,
            clock,
            bandwidth: profile.memory.bandwidth.get() / dies,
            l2: gpu.l2.size.get() / dies,
            l2_bandwidth: gpu.l2.bandwidth.get() / dies,
            shared: gpu.shared_memory.size.get(),
            watts: gpu.tdp.map_or(usual, |w| w.get() / dies),
            energy,
            launch: gpu.launch.get(),
            arch,
            peaks,
            sparse: DType::ALL.map(sparse),
            lanes: DType::ALL.map(lane),
        })
    }

    /// Where a product in a dtype runs, and how fast at best.
    pub fn peak(&self, dtype: DType) -> Option<Peak> {
        self.peaks[dtype as usize]
    }

    /// Issue rate of 2:4 over dense in a dtype; `None` where the hardware has no such mode.
    pub fn sparse_speedup(&self, dtype: DType) -> Option<f64> {
        let speedup = self.sparse[dtype as usize];
        (speedup >= 1.0).then_some(speedup)
    }

    /// Rate of the ordinary lanes in fp32 (what sparse kernels without tensor cores compute in).
    pub fn lanes32(&self) -> f64 {
        let fp32 = self.lanes[DType::Fp32 as usize];
        if fp32 > 0.0 { fp32 } else { self.lanes.iter().copied().fold(0.0, f64::max) }
    }

    /// Generation, where the architecture is known.
    pub fn generation(&self) -> Option<Generation> {
        self.arch.map(GpuArch::generation)
    }
}

/// A dtype runs on the tensor cores that have it, else on the lanes that have it, else in the next wider dtype.
fn peak(dtype: DType, lane: &impl Fn(DType) -> f64, tensor: &impl Fn(DType) -> f64) -> Option<Peak> {
    let on = |engine: Engine, rate: f64| (rate > 0.0).then_some(Peak { engine, rate });
    let wider = |d: DType| peak(d, lane, tensor);
    match dtype {
        DType::Fp32 => on(Engine::Lanes32, lane(DType::Fp32).max(tensor(DType::Fp32))),
        DType::Tf32 => on(Engine::Tensor16, tensor(DType::Tf32)).or_else(|| wider(DType::Fp32)),
        // Without tensor cores libraries accumulate in fp32, at fp32's rate: half-precision lanes go unused.
        DType::Fp16 => on(Engine::Tensor16, tensor(DType::Fp16))
            .or_else(|| on(Engine::Tensor16, tensor(DType::Bf16)))
            .or_else(|| on(Engine::Lanes16, lane(DType::Fp32))),
        DType::Bf16 => on(Engine::Tensor16, tensor(DType::Bf16))
            .or_else(|| on(Engine::Tensor16, tensor(DType::Fp16)))
            .or_else(|| on(Engine::Lanes16, lane(DType::Fp32))),
        DType::Fp8 => on(Engine::Tensor8, tensor(DType::Fp8)).or_else(|| wider(DType::Bf16)),
        DType::Int8 => on(Engine::Tensor8, tensor(DType::Int8))
            .or_else(|| on(Engine::Lanes8, lane(DType::Int8)))
            .or_else(|| wider(DType::Fp16)),
        DType::Fp4 => on(Engine::Tensor4, tensor(DType::Fp4)).or_else(|| wider(DType::Fp8)),
    }
}

/// The architecture that the rates per multiprocessor betray (vendors' whitepapers), where the profile names none.
fn guess(gpu: &Gpu) -> Option<GpuArch> {
    let tensor = |d: DType| gpu.tensor_core.as_ref().and_then(|t| t.dense.get(&d)).map_or(0.0, |r| r.get());
    let half = tensor(DType::Fp16).max(tensor(DType::Bf16));
    let lanes = gpu.simt.get(&DType::Fp32).map_or(0.0, |r| r.get());
    let sparse = gpu.tensor_core.as_ref().is_some_and(|t| !t.sparse.is_empty());
    let kib = gpu.shared_memory.size.get() / 1024.0;
    let near = |value: f64, of: f64| (value / of - 1.0).abs() < 0.1;
    if half <= 0.0 {
        return Some(if near(lanes, 64.0) { GpuArch::PascalGp100 } else { GpuArch::PascalGp10x });
    }
    if !sparse {
        return (near(half, 512.0) && lanes <= 70.0).then_some(if kib > 80.0 {
            GpuArch::VoltaGv100
        } else {
            GpuArch::TuringTu10x
        });
    }
    if half > 3000.0 {
        return Some(GpuArch::BlackwellGb100);
    }
    if half > 1500.0 {
        return Some(GpuArch::HopperGh100);
    }
    if near(half, 1024.0) && lanes <= 70.0 {
        return Some(GpuArch::AmpereGa100);
    }
    if half <= 550.0 {
        return Some(if tensor(DType::Fp4) > 0.0 {
            GpuArch::BlackwellGb20x
        } else if tensor(DType::Fp8) > 0.0 {
            GpuArch::Ada
        } else {
            GpuArch::AmpereGa10x
        });
    }
    None
}
