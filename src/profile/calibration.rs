//! Fitted numbers of the device models, apart from facts: what `hwsim calibrate` writes and a model reads.
//!
//! A calibration belongs to a device family, not to a device: its constants are shared by all devices of an
//! architecture, and each has a physical meaning. The generated file names its samples and its errors.

use super::gpu::GpuArch;
use crate::embedded;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

/// One `*.calib.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Where the numbers come from.
    pub provenance: Provenance,
    /// Constants of the GPU model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuCalibration>,
    /// Parameters of the CPU model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<super::cpu_parameters::CpuCalibration>,
}

/// Samples behind a calibration, and how well it describes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The version of hwsim that fitted.
    pub hwsim: String,
    /// The measurement file's name.
    pub samples: String,
    /// Public sources of the rows, with the number of rows used.
    pub sources: BTreeMap<String, u64>,
    /// Rows used.
    pub rows: u64,
    /// Rows left out, by reason.
    pub left_out: BTreeMap<String, u64>,
    /// Devices among the rows.
    pub devices: Vec<String>,
    /// Mean absolute percentage error before the fit (the prior's means) and after it, by operation.
    pub errors: BTreeMap<String, BeforeAfter>,
}

/// Error before and after a fit, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeforeAfter {
    /// With the constants' prior means.
    pub before: f64,
    /// With the fitted constants.
    pub after: f64,
}

/// Fitted constants of the GPU model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuCalibration {
    /// Matrix products, by engine.
    pub gemm: BTreeMap<String, Table<GemmConstants>>,
    /// 2:4 products relative to the dense ones of the same engine, by engine.
    pub sparse: BTreeMap<String, SparseConstants>,
    /// Kernels for other patterns, by library.
    pub library: BTreeMap<String, LibraryConstants>,
    /// Attention.
    pub attention: Table<AttentionConstants>,
    /// Byte-moving kernels, by kind.
    pub stream: BTreeMap<String, Table<StreamConstants>>,
    /// Convolutions relative to plain products, by engine.
    pub conv: BTreeMap<String, ConvConstants>,
    /// What a measuring framework adds, by `source/timing`, and the default of each timing by the timing alone.
    pub framework: BTreeMap<String, FrameworkConstants>,
    /// Half-widths of the 90 % interval as factors: by operation, for `seen` devices, `kin` (architecture seen) and
    /// `unknown`.
    pub spread: BTreeMap<String, Spread>,
}

/// Constants that all architectures share, and what single architectures depart in. In the file an architecture's table
/// holds the constants in which it differs, and no others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Sparing", into = "Sparing", bound(serialize = "T: ConstantSet", deserialize = "T: ConstantSet"))]
pub struct Table<T> {
    /// What an architecture without an entry has.
    pub shared: T,
    /// Whole sets of constants by architecture.
    pub arch: BTreeMap<String, T>,
}

impl<T: Copy> Table<T> {
    /// The constants of an architecture.
    pub fn of(&self, arch: Option<GpuArch>) -> T {
        arch.and_then(|a| self.arch.get(a.kin().name())).copied().unwrap_or(self.shared)
    }
}

/// A set of named constants.
pub trait ConstantSet: Copy + Default {
    /// Their names, in order.
    const NAMES: &'static [&'static str];
    /// Their values, in order.
    fn values(&self) -> Vec<f64>;
    /// The set of given values, in order.
    fn from_values(values: &[f64]) -> Self;
}

/// A table as it stands in the file: `shared` and the architectures, each by the constants' names.
type Sparing = BTreeMap<String, BTreeMap<String, f64>>;

/// The key of what all architectures share.
const SHARED: &str = "shared";

impl<T: ConstantSet> From<Table<T>> for Sparing {
    fn from(table: Table<T>) -> Self {
        let named = |of: &T| T::NAMES.iter().map(|n| (*n).to_owned()).zip(of.values()).collect::<BTreeMap<_, _>>();
        let shared = named(&table.shared);
        let mut file: Self = table
            .arch
            .iter()
            .map(|(arch, of)| {
                let differs = named(of).into_iter().filter(|(name, value)| shared[name] != *value).collect();
                (arch.clone(), differs)
            })
            .collect();
        file.insert(SHARED.to_owned(), shared);
        file
    }
}

impl<T: ConstantSet> TryFrom<Sparing> for Table<T> {
    type Error = String;
    fn try_from(file: Sparing) -> Result<Self, String> {
        let over = |base: &T, by: &BTreeMap<String, f64>| {
            let mut values = base.values();
            for (name, value) in by {
                let at = T::NAMES.iter().position(|n| n == name);
                let at = at.ok_or_else(|| format!("unknown constant `{name}`; known are {}", T::NAMES.join(", ")))?;
                values[at] = *value;
            }
            Ok::<T, String>(T::from_values(&values))
        };
        let shared = match file.get(SHARED) {
            Some(by) => over(&T::default(), by)?,
            None => T::default(),
        };
        let mut arch = BTreeMap::new();
        for (name, by) in file.iter().filter(|(name, _)| *name != SHARED) {
            arch.insert(name.clone(), over(&shared, by)?);
        }
        Ok(Self { shared, arch })
    }
}

macro_rules! constants {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $kind:ident = $mean:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* pub $field: f64),+ }
        impl $name {
            /// Names of the constants, in the order of [`Self::from_slots`].
            pub const NAMES: &'static [&'static str] = &[$(stringify!($field)),+];
            /// From unbounded numbers: logarithms of positive constants, logits of shares, logarithms of what a norm's order
            /// exceeds 1 by.
            pub fn from_slots(slots: &[f64]) -> Self {
                let mut slots = slots.iter().copied();
                Self { $($field: constants!(@decode $kind, slots.next().unwrap_or(constants!(@encode $kind, $mean)))),+ }
            }
            /// The inverse of [`Self::from_slots`].
            pub fn to_slots(&self) -> Vec<f64> { vec![$(constants!(@encode $kind, self.$field)),+] }
            /// Prior means, in the same unbounded form.
            pub fn prior() -> Vec<f64> { Self::default().to_slots() }
        }
        impl ConstantSet for $name {
            const NAMES: &'static [&'static str] = Self::NAMES;
            fn values(&self) -> Vec<f64> { vec![$(self.$field),+] }
            fn from_values(values: &[f64]) -> Self {
                let mut values = values.iter().copied();
                Self { $($field: values.next().unwrap_or($mean)),+ }
            }
        }
        impl Default for $name { fn default() -> Self { Self { $($field: $mean),+ } } }
    };
    (@decode positive, $v:expr) => { f64::exp($v) };
    (@decode norm, $v:expr) => { 1.0 + f64::exp($v) };
    (@encode norm, $v:expr) => { f64::ln($v - 1.0) };
    (@decode most, $v:expr) => { 0.7 + 0.3 / (1.0 + f64::exp(-$v)) };
    (@encode most, $v:expr) => { f64::ln(($v - 0.7) / (1.0 - $v)) };
    (@decode share, $v:expr) => { 1.0 / (1.0 + f64::exp(-$v)) };
    (@encode positive, $v:expr) => { f64::ln($v) };
    (@encode share, $v:expr) => { f64::ln($v / (1.0 - $v)) };
}

constants!(/// Constants of tiled matrix products on one engine of one architecture.
GemmConstants {
    /// Share of the engine's issue slots that the main loop fills; libraries' loops fill at least 0.7.
    issue: most = 0.9,
    /// Bytes per cycle that one multiprocessor draws from L2 into its tiles.
    feed: positive = 32.0,
    /// Cycles per 64 bytes of k that a lone block waits in its pipelined main loop.
    step: positive = 80.0,
    /// Cycles from the kernel's start to the first product and from the last to its end.
    ramp: positive = 4000.0,
    /// Bytes per cycle and multiprocessor at which finished tiles leave.
    drain: positive = 10.0,
    /// Share of a partial last wave that is paid as if it were whole.
    tail: share = 0.5,
    /// Share of main memory's bandwidth that a stream reaches.
    dram: share = 0.82,
    /// Sustained share of the peak at one watt per 10¹² operations a second.
    power: positive = 0.7,
    /// Exponent of that share in the watts per operation.
    alpha: positive = 0.5,
    /// Bytes per cycle and multiprocessor at which the partial sums of a split k are combined.
    combine: positive = 20.0,
    /// Exponent of the norm that joins arithmetic and main memory (large: perfect overlap).
    overlap: norm = 3.0,
    /// Exponent by which tiles narrower than 128 outputs (on tensor cores: or lower than 128 rows) lose issue rate.
    narrow: positive = 0.2,
    /// Share lost when a row of operands is longer than a page, so that each row needs its own translation.
    tlb: positive = 0.2,
    /// Exponent by which tiles lower than 128 rows lose issue rate on ordinary lanes.
    low: positive = 0.2,
});

constants!(/// 2:4 relative to dense on the same engine.
SparseConstants {
    /// Factor on the issue share.
    issue: positive = 0.95,
    /// Factor on `feed`: the dense operand passes twice as often.
    feed: positive = 1.0,
    /// Cycles of start and end beyond the dense kernel's.
    ramp: positive = 2000.0,
    /// Factor on `step`: one instruction takes twice the k.
    step: positive = 0.5,
    /// Factor on `power`: zeros that are skipped cost no energy, but the operand selectors do.
    energy: positive = 1.25,
    /// Factor on `narrow`.
    narrow: positive = 1.0,
    /// Factor on `combine`.
    combine: positive = 1.0,
});

constants!(/// A library's kernel for another pattern.
LibraryConstants {
    /// Share of the engine's issue slots.
    issue: positive = 0.3,
    /// Factor on L2 feed.
    feed: positive = 1.0,
    /// Share of main memory's bandwidth.
    dram: share = 0.7,
    /// Cycles of work for each row of weights.
    row: positive = 50.0,
    /// Cycles of start and end.
    ramp: positive = 6000.0,
    /// Exponent on the expected imbalance of rows.
    imbalance: positive = 0.5,
    /// Cycles for each nonzero beyond its arithmetic (index decoding).
    decode: positive = 1.0,
    /// Exponent of the block height's gain in reuse.
    reuse: positive = 0.5,
    /// For one column of activations: cycles of the whole device per million pairs of nonzeros of one row. cuSPARSE's
    /// compressed rows slow down with the square of the row's length.
    quadratic: positive = 1.0,
});

constants!(/// Fused attention.
AttentionConstants {
    /// Share of the tensor cores' issue slots in prefill.
    issue: share = 0.6,
    /// Exponentials per cycle and multiprocessor.
    exponential: positive = 16.0,
    /// Sustained share of the peak at one watt per 10¹² operations a second.
    power: positive = 0.7,
    /// Cycles of start and end of a prefill kernel.
    ramp: positive = 4000.0,
    /// Share of main memory's bandwidth in decode.
    dram: share = 0.75,
    /// Cycles of start and end of a decode kernel (two of them with split keys).
    decode_ramp: positive = 6000.0,
    /// Cycles of a multiprocessor for each 64 keys of a key/value head in decode.
    decode_step: positive = 300.0,
    /// Cycles of a multiprocessor for each query head of a sequence in decode.
    decode_head: positive = 800.0,
    /// Share of a partial last wave that is paid.
    tail: share = 0.3,
    /// Cycles of a multiprocessor for each token and query head of a serving stack's rotary embedding and cache write.
    tokens: positive = 60.0,
    /// Cycles of a multiprocessor for the start and end of each block of queries in prefill.
    block: positive = 300.0,
});

constants!(/// A byte-moving kernel.
StreamConstants {
    /// Share of main memory's bandwidth.
    dram: share = 0.82,
    /// Bytes per cycle and multiprocessor from L2 and through the lanes.
    feed: positive = 40.0,
    /// Cycles in which the kernel fills and drains the machine: a few trips to memory.
    ramp: positive = 2000.0,
    /// Cycles that a row takes its unit beyond its bytes.
    row: positive = 100.0,
    /// Passes over the row beyond read and write.
    passes: positive = 0.5,
    /// Share of L2 that a repeated run finds filled with its own data.
    resident: positive = 0.5,
});

constants!(/// Convolutions relative to plain products.
ConvConstants {
    /// Factor on the issue share of implicit GEMM.
    issue: positive = 0.85,
    /// Share of Winograd's saving in multiplications that arrives.
    winograd: positive = 0.6,
    /// Factor on `ramp`.
    ramp: positive = 1.5,
    /// Cost of building the gather table or transforming tiles, in passes over the image.
    gather: positive = 1.0,
});

/// What a measuring framework adds to a kernel's own time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameworkConstants {
    /// Seconds a call.
    pub overhead: f64,
    /// Copies of the weights that a `cold` loop cycles through.
    #[serde(default)]
    pub copies: f64,
    /// Bytes per input element of a quantisation pass inside the timed call.
    #[serde(default)]
    pub quantise: f64,
    /// Speed of the source's attention kernels relative to the fastest library's; 0 means as fast.
    #[serde(default)]
    pub pace: f64,
}

/// Factors around the prediction that hold 90 % of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// On a device whose samples were fitted.
    pub seen: f64,
    /// On another device of a fitted architecture.
    pub kin: f64,
    /// On an architecture without samples.
    pub unknown: f64,
}

static SHIPPED: LazyLock<Calibration> = LazyLock::new(|| {
    let text = embedded::PROFILES.iter().find(|(stem, _)| *stem == "gpu.calib").map_or("", |(_, text)| *text);
    Calibration::from_toml(text, "gpu.calib.toml").unwrap_or_default()
});

impl Calibration {
    /// The calibration that travels inside the binary.
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// Reads a calibration from TOML; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Parse`] with line and caret.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self> {
        toml::from_str(text)
            .map_err(|e| Error::Parse { origin: origin.to_owned(), message: e.to_string().trim_end().to_owned() })
    }

    /// Reads a calibration file.
    ///
    /// # Errors
    /// As [`Calibration::from_toml`], or the file cannot be read.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::from_toml(&text, &path.display().to_string())
    }
}
