//! What pruning took: layer by layer, and what was asked for and not done.

use super::published::{self, Published};
use super::quality::QualityReport;
use super::table::PLAIN;
use crate::pattern::SparsityPattern;
use crate::prune::plan::Plan;
use crate::prune::tensor::{Edit, Tally};
use crate::workload::Graph;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

/// The answer of `hwsim prune`.
#[derive(Clone, Debug, Serialize)]
pub struct Pruning {
    /// The network.
    pub name: String,
    /// What decided which weights stay.
    pub saliency: String,
    /// One row an edited tensor, in the order of the network.
    pub tensors: Vec<PrunedTensor>,
    /// Channels and heads that went, one row a dependency group.
    pub groups: Vec<PrunedGroup>,
    /// Channels that are in another order, one row a dependency group.
    pub permuted: Vec<PermutedGroup>,
    /// What was asked for and is not done, with the reason.
    pub untouched: Vec<Refusal>,
    /// What the masks leave and what the network answers on calibration inputs, where there are such or statistics.
    pub quality: Option<QualityReport>,
    /// What others published for networks under the same patterns; nothing here is predicted from it.
    pub published: Vec<Published>,
    /// Everything together.
    pub total: PrunedTotal,
}

/// What became of one stored tensor.
#[derive(Clone, Debug, Serialize)]
pub struct PrunedTensor {
    /// The layer that it belongs to.
    pub layer: String,
    /// Its name.
    pub tensor: String,
    /// The mask that fell on it; empty where it only lost channels.
    pub pattern: String,
    /// Its shape before.
    pub shape_before: Vec<u64>,
    /// Its shape now.
    pub shape: Vec<u64>,
    /// Elements in the file.
    pub elements: u64,
    /// Of them nonzero.
    pub kept: u64,
    /// Of them zero.
    pub zeros: u64,
    /// Bytes before.
    pub bytes_before: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

/// A dependency group that lost units.
#[derive(Clone, Debug, Serialize)]
pub struct PrunedGroup {
    /// Layers that make its channels.
    pub producers: Vec<String>,
    /// `channel` or `head`.
    pub unit: String,
    /// Units before.
    pub before: u64,
    /// Units that stay.
    pub kept: u64,
    /// A layer that takes a statistic over the channels: there removing is not the same as zeroing.
    pub statistic: Option<String>,
}

/// A dependency group whose channels are in another order.
#[derive(Clone, Debug, Serialize)]
pub struct PermutedGroup {
    /// Layers that make the channels.
    pub producers: Vec<String>,
    /// Layers that read them.
    pub consumers: Vec<String>,
    /// Share of the readers' scores that N:M kept before.
    pub kept_before: f64,
    /// Share that it keeps now.
    pub kept: f64,
}

/// Something that was asked for and is not done.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// The layer.
    pub layer: String,
    /// The pattern asked for.
    pub pattern: String,
    /// Why.
    pub reason: String,
}

/// Sums over the network.
#[derive(Clone, Debug, Serialize)]
pub struct PrunedTotal {
    /// Multiply–accumulates before.
    pub macs_before: u64,
    /// Multiply–accumulates now, zeros included.
    pub macs: u64,
    /// Stored parameters before.
    pub params_before: u64,
    /// Stored parameters now, zeros included.
    pub params: u64,
    /// Zeros in the edited tensors.
    pub zeros: u64,
    /// Bytes of the file before, and of those that hold its elements.
    pub file_before: u64,
    /// Bytes of the file now, and of the one beside it.
    pub file: u64,
}

impl Pruning {
    /// Collects what happened. `files` are the sizes before and now.
    ///
    /// # Errors
    /// Counts past 2^64 − 1.
    pub fn of(
        before: &Graph,
        plan: &Plan,
        tallies: &BTreeMap<usize, Tally>,
        saliency: &str,
        files: (u64, u64),
    ) -> crate::error::Result<Self> {
        let mut owners = std::collections::HashMap::new();
        for layer in before.layers() {
            layer.params.iter().for_each(|p| {
                owners.entry(p.name.as_str()).or_insert(layer.name.as_str());
            });
        }
        let row = |(i, e): (usize, &Edit)| {
            let tally = tallies.get(&i).copied().unwrap_or_default();
            let name = e.source.name.as_str();
            PrunedTensor {
                layer: e
                    .mask
                    .as_ref()
                    .map_or_else(|| owners.get(name).copied().unwrap_or(name), |m| &m.layer)
                    .to_owned(),
                tensor: name.to_owned(),
                pattern: e.mask.as_ref().map_or_else(String::new, |m| m.pattern.to_string()),
                shape_before: e.source.shape.clone(),
                shape: e.shape(),
                elements: tally.elements,
                kept: tally.elements - tally.zeros,
                zeros: tally.zeros,
                bytes_before: e.source.bytes(),
                bytes: e.bytes(),
            }
        };
        let masks = plan.edits.iter().filter_map(|e| e.mask.as_ref());
        let patterns: BTreeMap<String, SparsityPattern> = masks.map(|m| (m.pattern.to_string(), m.pattern)).collect();
        let tensors: Vec<PrunedTensor> = plan.edits.iter().enumerate().map(row).collect();
        let groups = plan.removed.iter().map(|r| PrunedGroup {
            producers: r.producers.clone(),
            unit: match r.kind {
                crate::sparsity::groups::Kind::Channel => "channel".to_owned(),
                crate::sparsity::groups::Kind::Head => "head".to_owned(),
            },
            before: r.keep.len() as u64,
            kept: r.keep.iter().filter(|k| **k).count() as u64,
            statistic: r.mixed_by.clone(),
        });
        let permuted = plan.permuted.iter().map(|p| PermutedGroup {
            producers: p.producers.clone(),
            consumers: p.consumers.clone(),
            kept_before: p.kept.0,
            kept: p.kept.1,
        });
        let untouched = plan.untouched.iter().map(|u| Refusal {
            layer: u.layer.clone(),
            pattern: u.pattern.clone(),
            reason: u.reason.clone(),
        });
        Ok(Self {
            name: before.name.clone(),
            saliency: saliency.to_owned(),
            groups: groups.collect(),
            permuted: permuted.collect(),
            untouched: untouched.collect(),
            quality: None,
            published: patterns.into_values().flat_map(published::of).collect(),
            total: PrunedTotal {
                macs_before: before.total_macs()?,
                macs: plan.after.total_macs()?,
                params_before: before.total_parameters()?,
                params: plan.after.total_parameters()?,
                zeros: tensors.iter().map(|t| t.zeros).sum(),
                file_before: files.0,
                file: files.1,
            },
            tensors,
        })
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let right = |table: &mut Table, columns: std::ops::Range<usize>| {
            for c in columns {
                if let Some(column) = table.column_mut(c) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        };
        if !self.groups.is_empty() {
            let mut table = Table::new();
            table.load_style(PLAIN).set_header(["group", "unit", "before", "kept"]);
            for g in &self.groups {
                table.add_row([some(&g.producers), g.unit.clone(), g.before.to_string(), g.kept.to_string()]);
            }
            right(&mut table, 2..4);
            text += &format!("{}\n\n", table.trim_fmt());
        }
        if !self.permuted.is_empty() {
            let mut table = Table::new();
            table.load_style(PLAIN).set_header(["channels of", "read by", "% kept in their order", "% kept now"]);
            for p in &self.permuted {
                let percent = |share: f64| format!("{:.2}", 100.0 * share);
                table.add_row([some(&p.producers), some(&p.consumers), percent(p.kept_before), percent(p.kept)]);
            }
            right(&mut table, 2..4);
            text += &format!("{}\n\n", table.trim_fmt());
        }
        let masked: Vec<&PrunedTensor> = self.tensors.iter().filter(|t| !t.pattern.is_empty()).collect();
        if !masked.is_empty() {
            let mut table = Table::new();
            table.load_style(PLAIN).set_header(["layer", "pattern", "shape", "zeros", "% zero"]);
            for t in &masked {
                let shape: Vec<String> = t.shape.iter().map(u64::to_string).collect();
                let share = 100.0 * t.zeros as f64 / t.elements.max(1) as f64;
                table.add_row([
                    t.layer.clone(),
                    t.pattern.clone(),
                    shape.join("×"),
                    t.zeros.to_string(),
                    format!("{share:.1}"),
                ]);
            }
            right(&mut table, 3..5);
            text += &format!("{}\n\n", table.trim_fmt());
        }
        for u in &self.untouched {
            text += &format!("left as it is: {} ({}): {}\n", u.layer, u.pattern, u.reason);
        }
        let mixed = self.groups.iter().filter_map(|g| g.statistic.as_ref()).next();
        if let Some(place) = mixed {
            text += &format!("{place} takes statistics over channels that went: there removing is not zeroing\n");
        }
        if let Some(quality) = &self.quality {
            text += &format!("{}\n\n{}\n", quality.table(), quality.sentence());
        }
        if !self.published.is_empty() {
            text += &format!("{}\n", published::beside(&self.published));
        }
        let t = &self.total;
        text += &format!(
            "MACs {} → {}, parameters {} → {}, {} zeros in {} edited tensors, file {} → {} bytes",
            t.macs_before,
            t.macs,
            t.params_before,
            t.params,
            t.zeros,
            self.tensors.len(),
            t.file_before,
            t.file
        );
        text
    }

    /// One row an edited tensor.
    ///
    /// # Errors
    /// What the writer says.
    pub fn csv(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut writer = csv::Writer::from_writer(out);
        let shape = |s: &[u64]| s.iter().map(u64::to_string).collect::<Vec<_>>().join("x");
        writer.write_record([
            "layer",
            "tensor",
            "pattern",
            "shape_before",
            "shape",
            "elements",
            "kept",
            "zeros",
            "bytes_before",
            "bytes",
        ])?;
        for t in &self.tensors {
            writer.write_record([
                t.layer.clone(),
                t.tensor.clone(),
                t.pattern.clone(),
                shape(&t.shape_before),
                shape(&t.shape),
                t.elements.to_string(),
                t.kept.to_string(),
                t.zeros.to_string(),
                t.bytes_before.to_string(),
                t.bytes.to_string(),
            ])?;
        }
        writer.flush()
    }
}

/// Names, the first two where there are more.
fn some(names: &[String]) -> String {
    match names {
        [a, b, rest @ ..] if !rest.is_empty() => format!("{a}, {b} and {} more", rest.len()),
        all => all.join(", "),
    }
}
