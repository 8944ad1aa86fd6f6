//! Machine-readable answers: JSON as in the contract, CSV with one row a layer.

use super::estimate::Estimate;
use crate::error::{Error, Result};
use serde_json::Value;
use std::io::Write;

/// Writes the estimate as one JSON object.
///
/// # Errors
/// What the writer says.
pub fn json(estimate: &Estimate, out: &mut dyn Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, estimate)?;
    writeln!(out)
}

/// Writes one CSV row a layer; nested objects are flattened, `traffic.dram` to `dram_bytes`.
///
/// # Errors
/// What the writer says.
pub fn csv(estimate: &Estimate, out: &mut dyn Write) -> std::io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    for (i, row) in estimate.layers.iter().enumerate() {
        let fields = flatten(&serde_json::to_value(row)?);
        if i == 0 {
            writer.write_record(fields.iter().map(|(name, _)| name))?;
        }
        writer.write_record(fields.iter().map(|(_, value)| value))?;
    }
    writer.flush()
}

/// Columns of an object, in its order.
pub fn flatten(value: &Value) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let Value::Object(object) = value else { return fields };
    for (name, value) in object {
        match value {
            Value::Object(inner) => {
                for (key, value) in inner {
                    let name = if name == "traffic" { format!("{key}_bytes") } else { format!("{name}_{key}") };
                    fields.push((name, text(value)));
                }
            }
            other => fields.push((name.clone(), text(other))),
        }
    }
    fields
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(";"),
        other => other.to_string(),
    }
}

/// Writes a file whole or not at all: into a temporary file beside it, then renamed.
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn write_whole(
    path: &std::path::Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> std::io::Result<()>,
) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let at = |e| Error::io(path, e);
    // The temporary file's own name would only confuse: its kind of failure is the folder's.
    let file = tempfile::NamedTempFile::new_in(folder).map_err(|e| at(e.kind().into()))?;
    let mut buffered = std::io::BufWriter::new(file);
    // What a layer was refused for is no failure of the file.
    write(&mut buffered).map_err(|e| e.downcast::<Error>().unwrap_or_else(at))?;
    let file = buffered.into_inner().map_err(|e| at(e.into_error()))?;
    readable(&file);
    file.persist(path).map_err(|e| at(e.error))?;
    Ok(())
}

/// Temporary files are private; an answer has the usual permissions.
#[cfg(unix)]
fn readable(file: &tempfile::NamedTempFile) {
    use std::os::unix::fs::PermissionsExt;
    // Without the permission bits the file is still whole, so a refusal here is no failure.
    let _ = file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644));
}

#[cfg(not(unix))]
fn readable(_: &tempfile::NamedTempFile) {}
