//! From a path to decoded messages: memory map, plausibility, and the place where a damaged file breaks off.

use super::proto::ModelProto;
use crate::error::{Error, Result};
use bytes::Bytes;
use prost::Message;
use std::fs::File;
use std::path::Path;

/// Maps a file. Nothing is read until somebody looks at the bytes.
///
/// # Errors
/// [`Error::Io`].
pub fn map(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let meta = file.metadata().map_err(|e| Error::io(path, e))?;
    if meta.is_dir() {
        return Err(bad(path, "is a folder; name the .onnx file in it"));
    }
    if meta.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and private to this process; a file that another process truncates meanwhile can
    // end the process, as it can for every program that maps its input.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok(Bytes::from_owner(map))
}

/// Decodes a model from its bytes.
///
/// # Errors
/// [`Error::Model`] when the bytes are not an ONNX model, or break off: the message says where.
pub fn decode(path: &Path, bytes: Bytes) -> Result<ModelProto> {
    check_frame(path, &bytes)?;
    let model = ModelProto::decode(bytes)
        .map_err(|e| bad(path, format!("is not a readable ONNX model: {e}; export or fetch it again")))?;
    match &model.graph {
        None => Err(bad(path, "is not an ONNX model: it has no graph")),
        Some(g) if g.node.is_empty() => Err(bad(path, format!("its graph `{}` has no nodes", g.name))),
        Some(_) => Ok(model),
    }
}

/// An error about the file as a whole.
pub fn bad(path: &Path, reason: impl Into<String>) -> Error {
    Error::Model { path: path.to_path_buf(), reason: reason.into() }
}

/// Field numbers of `ModelProto`.
const FIELDS: &[(u64, &str)] = &[
    (1, "ir_version"),
    (2, "producer_name"),
    (3, "producer_version"),
    (4, "domain"),
    (5, "model_version"),
    (6, "doc_string"),
    (7, "graph"),
    (8, "opset_import"),
    (14, "metadata_props"),
    (20, "training_info"),
    (25, "functions"),
    (26, "configuration"),
];

/// Walks the outermost fields, which is enough to tell a foreign file from one that breaks off.
fn check_frame(path: &Path, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Err(bad(path, "is empty; export or fetch it again"));
    }
    let mut at = 0usize;
    let mut known = 0;
    while at < bytes.len() {
        let start = at;
        let foreign = || bad(path, format!("is not an ONNX model (byte {start} starts no field of one)"));
        let cut = |what: &str| {
            let end = bytes.len();
            bad(
                path,
                format!(
                    "is truncated: {what} at byte {start} runs past byte {end}, the end of the file; fetch it again"
                ),
            )
        };
        let Some(key) = varint(bytes, &mut at) else { return Err(if known > 0 { cut("a field") } else { foreign() }) };
        let Some(&(_, name)) = FIELDS.iter().find(|f| f.0 == key >> 3) else { return Err(foreign()) };
        let field = format!("its field `{name}`");
        match key & 7 {
            0 => {
                varint(bytes, &mut at).ok_or_else(|| cut(&field))?;
            }
            2 => {
                let len = varint(bytes, &mut at).ok_or_else(|| cut(&field))?;
                let left = (bytes.len() - at) as u64;
                if len > left {
                    // A text may well begin with bytes that look like a field.
                    if known == 0 && name != "graph" {
                        return Err(foreign());
                    }
                    return Err(cut(&format!("{field} of {len} bytes")));
                }
                at += len as usize;
            }
            _ => return Err(foreign()),
        }
        known += 1;
    }
    Ok(())
}

/// A protobuf varint at `at`, which moves behind it; `None` where the bytes end or it is longer than 64 bits.
pub(crate) fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let b = *bytes.get(*at)?;
        *at += 1;
        v |= u64::from(b & 127) << shift;
        if b < 128 {
            return Some(v);
        }
    }
    None
}
