//! Hardware profiles: facts about one machine, as TOML with units and sources. Fitted numbers live in
//! [`calibration`](crate::profile), never here.

pub mod calibration;
pub mod cpu;
pub mod cpu_parameters;
pub mod detect;
pub mod energy;
pub mod gpu;
pub mod scale_sim;
pub mod systolic;

pub use calibration::Calibration;
pub use cpu::{CacheLevel, Cpu, Measured};
pub use energy::Energy;
pub use gpu::{Generation, Gpu, GpuArch, SparseCore, TensorCore};
pub use systolic::{Dataflow, Systolic};

use crate::embedded;
use crate::error::{Error, Result};
use crate::units::{Bytes, BytesPerSecond, Hertz, Seconds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name in full.
    pub name: String,
    /// Other names, such as those that measurement files use.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Where the numbers come from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// The clock at which its rates per cycle hold.
    pub clock: Hertz,
    /// Main memory.
    pub memory: Memory,
    /// Energy per operation and per byte, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// The family and its facts.
    pub device: Device,
}

/// Main memory (DRAM, HBM).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Bytes>,
    /// Peak bandwidth.
    pub bandwidth: BytesPerSecond,
    /// Time from request to first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Seconds>,
}

/// The device family, tagged by its table: `[device.cpu]`, `[device.gpu]`, `[device.systolic]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// A cache hierarchy with SIMD cores.
    Cpu(Cpu),
    /// A GPU.
    Gpu(Gpu),
    /// A systolic array.
    Systolic(Systolic),
}

impl Device {
    /// The family's name, as in the table.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Cpu(_) => "cpu",
            Self::Gpu(_) => "gpu",
            Self::Systolic(_) => "systolic",
        }
    }
}

impl Profile {
    /// Reads a profile from TOML; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Parse`] with line and caret where the text is at fault, [`Error::Profile`] where values contradict.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self> {
        let profile: Self = toml::from_str(text)
            .map_err(|e| Error::Parse { origin: origin.to_owned(), message: e.to_string().trim_end().to_owned() })?;
        profile.check()?;
        Ok(profile)
    }

    /// Reads a profile file.
    ///
    /// # Errors
    /// As [`Profile::from_toml`], or the file cannot be read.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::from_toml(&text, &path.display().to_string())
    }

    /// The profile as TOML that [`Profile::from_toml`] reads back to the same value.
    pub fn to_toml(&self) -> String {
        // Every field is a string, a number, a list or a table, so there is nothing that TOML cannot hold.
        toml::to_string(self).unwrap_or_default()
    }

    /// Finds a profile by path or name, with or without `.toml`: beside the caller, in `hw_profiles/`, then among the
    /// built-in ones by file name, name and alias (case, spaces, `-` and `_` do not matter).
    ///
    /// # Errors
    /// [`Error::UnknownName`] with the nearest name, or what [`Profile::from_file`] says.
    pub fn find(name: &str) -> Result<Self> {
        let candidates = [PathBuf::from(name), PathBuf::from(format!("{name}.toml"))];
        for path in candidates.iter().cloned().chain(candidates.iter().map(|c| Path::new("hw_profiles").join(c))) {
            if path.extension().is_some_and(|e| e == "toml") && path.is_file() {
                return Self::from_file(&path);
            }
        }
        let stem = Path::new(name).file_name().and_then(|n| n.to_str()).unwrap_or(name);
        let wanted = canonical(stem.strip_suffix(".toml").unwrap_or(stem));
        if let Some((stem, text)) = embedded::PROFILES.iter().find(|(stem, _)| canonical(stem) == wanted) {
            return Self::from_toml(text, stem);
        }
        let all = Self::built_in()?;
        if let Some((_, p)) = all.iter().find(|(_, p)| p.answers_to(name)) {
            return Ok(p.clone());
        }
        // The file name comes last because it is the one to suggest where an alias is as near.
        let known = all.iter().flat_map(|(s, p)| p.aliases.iter().map(String::as_str).chain([*s]));
        Err(Error::unknown("profile", name, known))
    }

    /// Every built-in profile with its file stem, in alphabetical order.
    ///
    /// # Errors
    /// None in a released build: a test parses all of them.
    pub fn built_in() -> Result<Vec<(&'static str, Self)>> {
        embedded::PROFILES
            .iter()
            .filter(|(stem, _)| !stem.ends_with(".calib"))
            .map(|&(stem, text)| Ok((stem, Self::from_toml(text, stem)?)))
            .collect()
    }

    /// Whether a name means this profile.
    pub fn answers_to(&self, name: &str) -> bool {
        let wanted = canonical(name);
        canonical(&self.name) == wanted || self.aliases.iter().any(|a| canonical(a) == wanted)
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`Error::Profile`] naming the field.
    pub fn check(&self) -> Result<()> {
        let checked = match &self.device {
            Device::Cpu(d) => d.check(),
            Device::Gpu(d) => d.check(),
            Device::Systolic(d) => d.check(),
        };
        checked.map_err(|(field, reason)| Error::Profile {
            profile: self.name.clone(),
            field: format!("device.{}.{field}", self.device.family()),
            reason,
        })
    }
}

/// The JSON Schema of profile files, from which editors complete and check them.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Profile).to_value()
}

/// What a family's check refuses: the field and why.
pub(crate) type Refusal = (String, String);

fn canonical(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect()
}
