//! How a file was made: the command, the version, and hashes of what went in.

use hwsim::embedded::PROFILES;
use hwsim::error::{Error, Result};
use hwsim::profile::Profile;
use hwsim::workload::resolve::built_in;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// What stands in a sidecar file. Hashes are SHA-256: of a profile as `Profile::to_toml` writes it, of a network's file
/// or built-in text, of the fitted constants that travel with hwsim.
#[derive(Serialize)]
pub struct Provenance {
    hwsim: &'static str,
    /// Seconds since 1970 UTC at which the file was made.
    made_unix_s: u64,
    command: Vec<String>,
    refused: Vec<String>,
    calibrations: BTreeMap<String, String>,
    profiles: BTreeMap<String, String>,
    workloads: BTreeMap<String, String>,
}

impl Provenance {
    /// That of the running command.
    pub fn new() -> Self {
        let fitted = PROFILES.iter().filter(|(stem, _)| stem.ends_with(".calib"));
        Self {
            hwsim: env!("CARGO_PKG_VERSION"),
            made_unix_s: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            command: std::env::args().collect(),
            refused: Vec::new(),
            calibrations: fitted.map(|(stem, text)| ((*stem).to_owned(), hash(text.as_bytes()))).collect(),
            profiles: BTreeMap::new(),
            workloads: BTreeMap::new(),
        }
    }

    /// Notes a profile.
    pub fn profile(&mut self, profile: &Profile) {
        self.profiles.insert(profile.name.clone(), hash(profile.to_toml().as_bytes()));
    }

    /// Notes a network by the name or path that resolves to it.
    pub fn workload(&mut self, name: &str) -> Result<()> {
        let path = Path::new(name);
        let digest = if path.is_file() {
            let mut hasher = Sha256::new();
            let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
            std::io::copy(&mut file, &mut Sink(&mut hasher)).map_err(|e| Error::io(path, e))?;
            hex(&hasher.finalize())
        } else {
            hash(built_in(name)?.1.as_bytes())
        };
        self.workloads.insert(name.to_owned(), digest);
        Ok(())
    }

    /// Notes what could not be carried out.
    pub fn refused(&mut self, what: String) {
        self.refused.push(what);
    }

    /// As TOML.
    pub fn text(&self) -> String {
        // Strings, lists and tables of strings: nothing that TOML cannot hold.
        toml::to_string_pretty(self).unwrap_or_default()
    }
}

/// Feeds a hash from a reader; the hash crate's own `Write` needs features that hwsim does without.
struct Sink<'a>(&'a mut Sha256);

impl std::io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}
