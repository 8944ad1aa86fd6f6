//! The GPU model: facts of a device, constants of its architecture, and the kernels that a library would choose from.
//!
//! Reading order: [`facts`], [`memory`], [`gemm`], then what builds on them.

pub mod attention;
pub mod constants;
pub mod conv;
pub mod facts;
pub mod gemm;
pub mod memory;
pub mod sparse;
pub mod stream;
pub mod work;

use super::roofline::Peaks;
use super::{Bound, CostModel, Executed, Fallback, LayerCost, MacCount, Options, Timing, Traffic};
use crate::error::{Error, Result};
use crate::lower::{Lowered, Source, SparseGemm};
use crate::pattern::SparsityPattern;
use crate::profile::Profile;
use crate::profile::calibration::{Calibration, GpuCalibration, Spread};
use crate::sparsity::StorageFormat;
use crate::units::{Bytes, Cycles, Hertz, Seconds};
use constants::Constants;
use facts::Facts;
use memory::Setting;
use sparse::Library;
use work::{Evaluated, Work, evaluate};

/// A GPU.
pub struct GpuModel {
    facts: Facts,
    constants: Constants,
    setting: Setting,
    spreads: [(&'static str, f64); 4],
    peaks: Peaks,
    dispatch: f64,
    clock: Hertz,
    levels: Vec<String>,
}

/// Half-width of the interval where no calibration says better: a factor of 1.6 either way.
const UNKNOWN_SPREAD: f64 = 1.6;

impl GpuModel {
    /// The model of a GPU profile with the calibration that travels with hwsim.
    ///
    /// # Errors
    /// A profile that is no GPU, or has no usable rate.
    pub fn new(profile: &Profile, options: Options) -> Result<Self> {
        Self::with(profile, options, Calibration::shipped())
    }

    /// The model with another calibration.
    ///
    /// # Errors
    /// As [`GpuModel::new`].
    pub fn with(profile: &Profile, options: Options, calibration: &Calibration) -> Result<Self> {
        let facts = Facts::of(profile)?;
        let empty = GpuCalibration::default();
        let gpu = calibration.gpu.as_ref().unwrap_or(&empty);
        let seen = calibration.provenance.devices.iter().any(|d| profile.answers_to(d));
        let kin = facts.arch.is_some_and(|a| gpu.gemm.values().any(|t| t.arch.contains_key(a.kin().name())));
        let spread = |kind: &'static str| {
            let pick = |s: &Spread| {
                if seen {
                    s.seen
                } else if kin {
                    s.kin
                } else {
                    s.unknown
                }
            };
            (kind, gpu.spread.get(kind).map_or(UNKNOWN_SPREAD, pick))
        };
        Ok(Self {
            constants: Constants::of(&facts, gpu),
            setting: Setting::network(&facts, options.timing),
            spreads: ["gemm", "sparse", "attention", "stream"].map(spread),
            peaks: Peaks::of(profile),
            dispatch: constants::framework(gpu, "/host", "").overhead,
            clock: profile.clock,
            levels: vec!["dram".into(), "l2".into()],
            facts,
        })
    }

    /// The device's facts.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The constants in use.
    pub fn constants(&self) -> &Constants {
        &self.constants
    }

    /// Interval around a time of a kind of work.
    pub fn interval(&self, work: &Work, time: f64) -> (f64, f64) {
        let kind = match work {
            Work::Dense(_) | Work::Conv(..) => "gemm",
            Work::Half(_) | Work::HalfConv(..) | Work::Library(_) => "sparse",
            Work::Attention(_) => "attention",
            Work::Stream(_) => "stream",
        };
        let factor = self.spreads.iter().find(|(k, _)| *k == kind).map_or(UNKNOWN_SPREAD, |(_, f)| *f);
        (time / factor, time * factor)
    }

    /// The kernel that runs, and why it is not the one that was asked for.
    fn choose(&self, op: &SparseGemm) -> Result<(Work, Evaluated, SparsityPattern, StorageFormat, Option<Fallback>)> {
        let pattern = op.weights.pattern();
        let facts = &self.facts;
        let run = |w: &Work| evaluate(facts, &self.constants, &self.setting, w);
        let plain = work::dense_kernel(facts, op)
            .ok_or_else(|| Error::argument("dtype", format!("this GPU cannot compute in {}", op.dtype)))?;
        let dense = |why: Option<Fallback>| {
            let cut = matches!(pattern, SparsityPattern::Row(_) | SparsityPattern::Column(_));
            let shown = if cut { pattern } else { SparsityPattern::Dense };
            Ok((plain, run(&plain), shown, StorageFormat::Dense, why))
        };
        if pattern.is_dense() || pattern.shrinks_graph() {
            return dense(None);
        }
        if op.source == Source::Activations {
            return dense(Some(Fallback::NoWeights));
        }
        if matches!(pattern, SparsityPattern::Row(_) | SparsityPattern::Column(_)) {
            return dense(None);
        }
        if op.format == StorageFormat::Dense && !op.format_free {
            return dense(Some(Fallback::NoKernel { pattern, knows: "a dense format only" }));
        }
        if pattern == (SparsityPattern::Nm { n: 2, m: 4 }) {
            return match work::half(facts, op) {
                Ok(w) => Ok((w, run(&w), pattern, op.format, None)),
                Err(why) => dense(Some(why)),
            };
        }
        let base = work::dense(facts, op);
        let fastest = base.and_then(|base| {
            Library::ALL
                .into_iter()
                .filter_map(|l| sparse::library_work(facts, l, op, &base))
                .map(|w| (w, run(&Work::Library(w))))
                .min_by(|a, b| a.1.time.total_cmp(&b.1.time))
        });
        let Some((w, cost)) = fastest else {
            return dense(Some(Fallback::NoKernel { pattern, knows: "2:4, V:N:M, blocks and compressed rows" }));
        };
        if op.format_free && run(&plain).time < cost.time {
            return dense(Some(Fallback::Slower { pattern }));
        }
        let format = match w.library {
            Library::CusparseCsr | Library::Sputnik | Library::Macko => StorageFormat::Csr,
            Library::CusparseLt | Library::Spatha | Library::Clasp | Library::Block => op.format,
        };
        Ok((Work::Library(w), cost, pattern, format, None))
    }
}

impl CostModel for GpuModel {
    fn cost(&self, op: &Lowered) -> Result<LayerCost> {
        let (work, run, pattern, format, fallback) = match op {
            Lowered::Gemm(g) => self.choose(g)?,
            Lowered::Attention(_) | Lowered::Stream(_) => {
                let work = work::of_sample(&self.facts, op, "")
                    .ok_or_else(|| Error::argument("dtype", "this GPU cannot compute attention in this dtype"))?;
                let run = evaluate(&self.facts, &self.constants, &self.setting, &work);
                (work, run, SparsityPattern::Dense, StorageFormat::Dense, None)
            }
        };
        let (steps, dense, effectual, dtype) = match op {
            Lowered::Gemm(g) => (g.steps() as f64, g.dense_macs(), g.effectual_macs(), g.dtype),
            Lowered::Attention(a) => (1.0, a.dense_macs(), a.effectual_macs(), a.dtype),
            Lowered::Stream(s) => (1.0, 0.0, 0.0, s.dtype),
        };
        let time = (run.time * steps).max(self.roofline(op).get());
        let (low, high) = self.interval(&work, time);
        let mut traffic = Traffic::default();
        traffic.levels[0] = run.dram;
        for (moved, times) in [
            (&mut traffic.levels[0].weights, steps),
            (&mut traffic.levels[0].metadata, steps),
            (&mut traffic.levels[0].inputs, steps),
            (&mut traffic.levels[0].outputs, steps),
        ] {
            *moved = *moved * times;
        }
        traffic.levels[1].inputs = Bytes(run.l2 * steps);
        let overhead = run.overhead * steps;
        let bound = if overhead >= run.compute.max(run.memory) * steps {
            Bound::Overhead
        } else if run.memory >= run.compute {
            Bound::Memory(0)
        } else {
            Bound::Compute
        };
        let peak = self.peaks.macs(dtype);
        Ok(LayerCost {
            time: Seconds(time),
            interval: (Seconds(low), Seconds(high)),
            compute: Cycles(run.compute * steps * self.facts.clock),
            overhead: Seconds(overhead),
            traffic,
            macs: MacCount { dense, effectual, issued: (run.issued * steps).max(effectual) },
            energy: None,
            bound,
            executed: Executed { pattern, format, kernel: run.kernel, fallback },
            utilization: (effectual / peak / time).min(1.0),
            convention: None,
        })
    }

    fn roofline(&self, op: &Lowered) -> Seconds {
        let floor = self.peaks.floor(op);
        if self.setting.timing == Timing::Cold {
            return floor;
        }
        // A repeated run may find all of its operands in L2: only arithmetic binds it.
        let macs = match op {
            Lowered::Gemm(g) => g.effectual_macs() / self.peaks.macs(g.dtype),
            Lowered::Attention(a) => a.effectual_macs() / self.peaks.macs(a.dtype),
            Lowered::Stream(_) => 0.0,
        };
        floor.min(Seconds(macs))
    }

    fn levels(&self) -> &[String] {
        &self.levels
    }

    fn clock(&self) -> Hertz {
        self.clock
    }

    fn last_level(&self) -> Bytes {
        Bytes(self.facts.l2)
    }

    fn dispatch(&self) -> Seconds {
        Seconds(self.dispatch)
    }
}
