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

/// What a framework adds, by `source/timing` with an optional `:op` behind it, else by the timing alone, else nothing.
pub fn framework(calibration: &GpuCalibration, setting: &str, op: &str) -> FrameworkConstants {
    let timing = setting.split('/').nth(1).unwrap_or("");
    [format!("{setting}:{op}"), setting.to_owned(), format!("{timing}:{op}"), timing.to_owned()]
        .iter()
        .find_map(|key| calibration.framework.get(key))
        .copied()
        .unwrap_or_default()
}
