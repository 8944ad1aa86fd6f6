//! From what a caller writes to a network: a path, or the name of one that travels inside the binary.

use super::graph::Graph;
use super::options::Options;
use super::{huggingface, onnx, safetensors, toml};
use crate::embedded::WORKLOADS;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Finds and reads a network: a path to a `.toml`, a `config.json` or an `.onnx`, or else a built-in name.
///
/// # Errors
/// An unknown name (the nearest is suggested), a file that cannot be read, and what the importers refuse.
pub fn resolve(workload: &str, options: &Options) -> Result<Graph> {
    options.check()?;
    let path = Path::new(workload);
    if path.is_file() || path.join("config.json").is_file() {
        return load(path, options);
    }
    if let Ok((known, text)) = built_in(workload) {
        return toml::parse(text, known, options);
    }
    let names_a_file = path.components().count() > 1 || path.extension().is_some_and(|e| e == "onnx" || e == "json");
    if names_a_file {
        return Err(Error::io(path, std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such file")));
    }
    Err(unknown(workload))
}

/// Name and text of a network that travels inside the binary, with or without `.toml`.
///
/// # Errors
/// An unknown name; the nearest is suggested.
pub fn built_in(name: &str) -> Result<(&'static str, &'static str)> {
    let wanted = canonical(name.strip_suffix(".toml").unwrap_or(name));
    let found = WORKLOADS.iter().find(|(known, _)| canonical(known) == wanted);
    found.copied().ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    Error::unknown("workload", name, WORKLOADS.iter().map(|(known, _)| *known))
}

/// Case and punctuation do not distinguish networks: `ViT-B/16` is `vit-b-16`.
fn canonical(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Reads a network from a file, by its ending, or from a folder with a `config.json`.
///
/// # Errors
/// A file that cannot be read or whose ending says nothing, and what the importers refuse.
pub fn load(path: &Path, options: &Options) -> Result<Graph> {
    if path.is_dir() {
        return load(&path.join("config.json"), options);
    }
    let text = || fs::read_to_string(path).map_err(|e| Error::io(path, e));
    match path.extension().and_then(OsStr::to_str).map(str::to_lowercase).as_deref() {
        Some("json") => huggingface::parse(&text()?, path, &name_of(path), options),
        Some("toml") => toml::parse(&text()?, &path.display().to_string(), options),
        Some("onnx") => Ok(onnx::import(path, options)?.graph),
        Some("safetensors") => Ok(safetensors::import(path, options)?.0.graph),
        _ => {
            let reason = "a workload ends in .toml, .json, .onnx or .safetensors, or is a folder with a config.json";
            Err(Error::Model { path: path.into(), reason: reason.into() })
        }
    }
}

/// Finds and reads a network together with its weights: an `.onnx`, a `.safetensors` (or an index of several), or a
/// folder with a `config.json` and one of them.
///
/// # Errors
/// What the importers refuse, and a network that has shapes alone.
pub fn with_weights(path: &Path, options: &Options) -> Result<onnx::Model> {
    options.check()?;
    let ending = path.extension().and_then(OsStr::to_str).map(str::to_lowercase);
    match ending.as_deref() {
        Some("onnx") => onnx::import(path, options),
        Some("safetensors" | "json") => Ok(safetensors::import(path, options)?.0),
        _ if path.is_dir() => Ok(safetensors::import(path, options)?.0),
        _ => {
            let reason =
                "holds no weights; name an .onnx, a .safetensors or a folder with a config.json and one".into();
            Err(Error::Model { path: path.into(), reason })
        }
    }
}

/// The file's stem, or its folder's name where the file is a plain `config.json`.
pub(super) fn name_of(path: &Path) -> String {
    let text = |part: Option<&OsStr>| part.map(|s| s.to_string_lossy().into_owned());
    let stem = text(path.file_stem()).unwrap_or_default();
    let folder = path.parent().and_then(|p| text(p.file_name()));
    if stem == "config" || stem == "model" && folder.is_some() && path.extension().is_some_and(|e| e == "safetensors") {
        folder.unwrap_or(stem)
    } else {
        stem
    }
}
