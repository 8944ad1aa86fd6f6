//! Checkpoints in the safetensors format, written tensor by tensor.

use super::behind::behind;
use super::choose::Choose;
use super::plan::Plan;
use super::tensor::{Edit, Tally};
use crate::error::{Error, Result};
use crate::workload::onnx::value::Elem;
use crate::workload::weights::Weights;
use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

/// A checkpoint on its way to a file.
pub struct Checkpoint<'a> {
    header: Vec<u8>,
    tensors: Vec<(&'a crate::workload::weights::Stored, Option<usize>)>,
    plan: &'a Plan,
}

impl<'a> Checkpoint<'a> {
    /// All stored tensors of a model after a plan, in the order of the model; `metadata` goes into the header.
    ///
    /// # Errors
    /// [`Error::Model`] for a tensor whose format safetensors does not have or whose elements are missing.
    pub fn of(
        path: &Path,
        weights: &'a Weights,
        plan: &'a Plan,
        metadata: Option<HashMap<String, String>>,
    ) -> Result<Self> {
        let bad = |reason: String| Error::Model { path: path.to_path_buf(), reason };
        let mut infos = Vec::new();
        let mut tensors = Vec::new();
        let mut at = 0usize;
        let mut seen = std::collections::HashSet::new();
        let mut all: Vec<_> = weights.iter().filter(|s| seen.insert(s.name.as_str())).collect();
        // Wide elements first, as the format's own writer does it: so every tensor is aligned for its type.
        all.sort_by_key(|s| std::cmp::Reverse(s.elem.bits()));
        for stored in all {
            let name = &stored.name;
            // What nodes generate is part of the program, not of the checkpoint.
            if matches!(stored.payload, crate::workload::onnx::consts::Payload::Fill(_)) {
                continue;
            }
            let dtype = dtype(stored.elem).ok_or_else(|| {
                bad(format!("tensor `{name}` is {:?}, which safetensors does not store", stored.elem))
            })?;
            stored.raw().map_err(|e| bad(format!("tensor `{name}` {e}")))?;
            let edit = plan.by_name.get(name).copied();
            let (shape, bytes) = match edit.map(|i| &plan.edits[i]) {
                Some(e) => (e.shape(), e.bytes()),
                None => (stored.shape.clone(), stored.bytes()),
            };
            let shape = shape.into_iter().map(|d| d as usize).collect();
            let end = at + bytes as usize;
            infos.push((name.clone(), TensorInfo { dtype, shape, data_offsets: (at, end) }));
            at = end;
            tensors.push((stored, edit));
        }
        let metadata = Metadata::new(metadata, infos).map_err(|e| bad(e.to_string()))?;
        let text = serde_json::to_string(&metadata).map_err(|e| bad(e.to_string()))?;
        let mut header = text.into_bytes();
        // Readers map the elements, so they begin at a multiple of eight bytes.
        header.resize(header.len().next_multiple_of(8), b' ');
        Ok(Self { header, tensors, plan })
    }

    /// Writes it; returns what each edited tensor became, by its number.
    ///
    /// # Errors
    /// What the writer says, and what choosing refuses.
    pub fn write(&self, choose: &dyn Choose, out: &mut (dyn Write + Send)) -> std::io::Result<BTreeMap<usize, Tally>> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(&self.header)?;
        behind(out, |out| {
            let mut tallies = BTreeMap::new();
            for (stored, edit) in &self.tensors {
                match edit.map(|i| (i, &self.plan.edits[i])) {
                    Some((i, edit)) => {
                        tallies.insert(i, Edit::write(edit, choose, out)?);
                    }
                    None => out.shared(stored.raw().map_err(std::io::Error::other)?)?,
                }
            }
            Ok(tallies)
        })
    }
}

fn dtype(elem: Elem) -> Option<Dtype> {
    Some(match elem {
        Elem::F64 => Dtype::F64,
        Elem::F32 => Dtype::F32,
        Elem::F16 => Dtype::F16,
        Elem::BF16 => Dtype::BF16,
        Elem::I64 => Dtype::I64,
        Elem::I32 => Dtype::I32,
        Elem::I16 => Dtype::I16,
        Elem::I8 => Dtype::I8,
        Elem::U64 => Dtype::U64,
        Elem::U32 => Dtype::U32,
        Elem::U16 => Dtype::U16,
        Elem::U8 => Dtype::U8,
        Elem::Bool => Dtype::BOOL,
        _ => return None,
    })
}
