//! A calibration's constants, resolved for one device.

use super::facts::{Engine, Facts};
use super::sparse::Library;
use super::stream::Class;
use crate::profile::calibration::{
    AttentionConstants, ConvConstants, FrameworkConstants, GemmConstants, GpuCalibration, LibraryConstants,
    SparseConstants, StreamConstants,
};

/// All constants that the GPU model needs on one device.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    gemm: [GemmConstants; Engine::ALL.len()],
    sparse: [SparseConstants; Engine::ALL.len()],
    conv: [ConvConstants; Engine::ALL.len()],
    library: [LibraryConstants; Library::ALL.len()],
    stream: [StreamConstants; Class::ALL.len()],
    /// Attention.
    pub attention: AttentionConstants,
}

impl Constants {
    /// The constants of a device's architecture, those that all share where no sample covers it.
    pub fn of(facts: &Facts, calibration: &GpuCalibration) -> Self {
        let arch = facts.arch;
        Self {
            gemm: Engine::ALL.map(|e| calibration.gemm.get(e.name()).map_or_else(Default::default, |t| t.of(arch))),
            sparse: Engine::ALL.map(|e| calibration.sparse.get(e.name()).copied().unwrap_or_default()),
            conv: Engine::ALL.map(|e| calibration.conv.get(e.name()).copied().unwrap_or_default()),
            library: Library::ALL.map(|l| calibration.library.get(l.name()).copied().unwrap_or_default()),
            stream: Class::ALL.map(|s| calibration.stream.get(s.name()).map_or_else(Default::default, |t| t.of(arch))),
            attention: calibration.attention.of(arch),
        }
    }

    /// Of dense products on an engine.
    pub fn gemm(&self, engine: Engine) -> &GemmConstants {
        &self.gemm[engine as usize]
    }

    /// Of 2:4 products on an engine.
    pub fn sparse(&self, engine: Engine) -> &SparseConstants {
        &self.sparse[engine as usize]
    }

    /// Of convolutions on an engine.
    pub fn conv(&self, engine: Engine) -> &ConvConstants {
        &self.conv[engine as usize]
    }

    /// Of a library's kernel.
    pub fn library(&self, library: Library) -> &LibraryConstants {
        &self.library[library as usize]
    }

    /// Of a class of streams.
    pub fn stream(&self, class: Class) -> &StreamConstants {
        &self.stream[class as usize]
    }
}

/// What a framework adds, by `source/timing` with the serving stack and the dtype that it quantises behind it, and an
/// optional `:op`. Where no row covers that: the stack's own calls, another dtype that the same calls quantise (8 bit before
/// 4), the timing's default; a stack without any row is taken to launch each call.
pub fn framework(calibration: &GpuCalibration, setting: &str, op: &str) -> FrameworkConstants {
    let parts: Vec<&str> = setting.split('/').collect();
    let (timing, behind) = (parts.get(1).copied().unwrap_or(""), parts.get(2..).unwrap_or(&[]));
    let known = |key: &str| {
        calibration.framework.get(&format!("{key}:{op}")).or_else(|| calibration.framework.get(key)).copied()
    };
    if let Some(constants) = known(setting) {
        return constants;
    }
    let quantised = behind.last().is_some_and(|last| QUANTISED.contains(last));
    let stack = behind.first().is_some_and(|first| !QUANTISED.contains(first));
    let base = parts[..parts.len() - usize::from(quantised)].join("/");
    let kin = QUANTISED.iter().filter(|_| quantised).find_map(|dtype| known(&format!("{base}/{dtype}")));
    kin.or_else(|| known(&base))
        .or_else(|| if stack { known("host") } else { None })
        .or_else(|| known(timing))
        .unwrap_or_default()
}

/// Dtypes that a serving stack quantises to inside a timed call.
const QUANTISED: [&str; 3] = ["fp8", "int8", "fp4"];
