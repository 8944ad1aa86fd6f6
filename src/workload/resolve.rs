//! From what a caller writes to a network: a path, or the name of one that travels inside the binary.

use super::graph::Graph;
use super::onnx;
use super::options::Options;
use super::toml;
use crate::embedded::WORKLOADS;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// Finds and reads a network: a path to a `.toml` or `.onnx`, or a built-in name in any case, with or without `.toml`.
///
/// # Errors
/// An unknown name (the nearest is suggested), a file that cannot be read, and what the importers refuse.
pub fn resolve(workload: &str, options: &Options) -> Result<Graph> {
    let path = Path::new(workload);
    if path.is_file() {
        return load(path, options);
    }
    let name = workload.to_lowercase();
    let name = name.strip_suffix(".toml").unwrap_or(&name);
    let looks_like_path = path.components().count() > 1;
    match WORKLOADS.iter().find(|(known, _)| *known == name) {
        Some((known, text)) if !looks_like_path => toml::parse(text, known, options),
        _ if looks_like_path => Err(Error::io(path, std::io::ErrorKind::NotFound.into())),
        _ => Err(Error::unknown("workload", workload, WORKLOADS.iter().map(|(known, _)| *known))),
    }
}

/// Reads a network from a file, by its ending.
///
/// # Errors
/// A file that cannot be read or whose ending says nothing, and what the importers refuse.
pub fn load(path: &Path, options: &Options) -> Result<Graph> {
    let text = || fs::read_to_string(path).map_err(|e| Error::io(path, e));
    match path.extension().and_then(OsStr::to_str).map(str::to_lowercase).as_deref() {
        Some("toml") => toml::parse(&text()?, &path.display().to_string(), options),
        Some("onnx") => Ok(onnx::import(path, options)?.graph),
        _ => Err(Error::Model { path: path.into(), reason: "a workload ends in .toml, .json or .onnx".into() }),
    }
}
