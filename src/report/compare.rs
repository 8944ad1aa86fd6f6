//! One network, several machines, several patterns: which wins where, as far as the predictions can tell.

use super::estimate::Estimate;
use super::grid::{Cell, Grid};
use super::ratio::{Ratio, ratio};
use super::table::time;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::io::Write;

/// What a comparison says of one pattern on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The network.
    pub workload: String,
    /// The machine.
    pub profile: String,
    /// Number format.
    pub dtype: String,
    /// Samples of a batch.
    pub batch: u64,
    /// The rules, `dense` for none.
    pub pattern: String,
    /// Predicted latency in seconds.
    pub latency_s: f64,
    /// Lower end of its 90 % interval.
    pub latency_low_s: f64,
    /// Upper end.
    pub latency_high_s: f64,
    /// Dense latency on the same machine over latency.
    pub speedup: f64,
    /// Lower end of the speedup's 90 % interval ([`ratio`]).
    pub speedup_low: f64,
    /// Upper end.
    pub speedup_high: f64,
    /// Effectual over dense multiply–accumulates.
    pub macs_kept: f64,
    /// Bytes of stored weights, metadata included.
    pub weight_bytes: f64,
    /// Energy in joules, where the profile knows it.
    pub energy_j: Option<f64>,
    /// Whether it is the fastest on its machine.
    pub winner: bool,
    /// Whether it cannot be told from the fastest on its machine: the interval of their quotient holds 1.
    pub like_winner: bool,
    /// Whether it cannot be told from dense on its machine.
    pub like_dense: bool,
}

/// One machine's estimates: dense first, then one a pattern.
pub struct Machine {
    /// What its columns are called.
    pub label: String,
    /// Everything dense.
    pub dense: Estimate,
    /// The patterns' texts and estimates; `Err` holds why a pattern cannot be carried out there.
    pub patterns: Vec<(String, Result<Estimate, String>)>,
}

/// The comparison: one entry a machine and pattern, dense among them; refused patterns are left out.
pub fn entries(machines: &[Machine]) -> Vec<Entry> {
    let mut entries = Vec::new();
    for machine in machines {
        let all: Vec<(&str, &Estimate)> = std::iter::once(("dense", &machine.dense))
            .chain(machine.patterns.iter().filter_map(|(p, e)| Some((p.as_str(), e.as_ref().ok()?))))
            .collect();
        let Some((_, best)) = all.iter().min_by(|a, b| a.1.total.latency_s.total_cmp(&b.1.total.latency_s)) else {
            continue;
        };
        for (pattern, estimate) in &all {
            let over_dense = ratio(&machine.dense, estimate);
            let against_best = ratio(best, estimate);
            entries.push(entry(pattern, estimate, over_dense, std::ptr::eq(*best, *estimate), against_best.is_open()));
        }
    }
    entries
}

fn entry(pattern: &str, e: &Estimate, over_dense: Ratio, winner: bool, like_winner: bool) -> Entry {
    Entry {
        workload: e.workload.clone(),
        profile: e.profile.clone(),
        dtype: e.dtype.to_string(),
        batch: e.batch,
        pattern: pattern.to_owned(),
        latency_s: e.total.latency_s,
        latency_low_s: e.total.latency_low_s,
        latency_high_s: e.total.latency_high_s,
        speedup: over_dense.value,
        speedup_low: over_dense.low,
        speedup_high: over_dense.high,
        macs_kept: e.total.macs_effectual / e.total.macs_dense.max(1) as f64,
        weight_bytes: e.total.weight_bytes,
        energy_j: e.total.energy_j,
        winner,
        like_winner,
        like_dense: over_dense.is_open(),
    }
}

/// One row a pattern, two columns a machine: latency, and speedup over that machine's dense with its interval.
pub fn grid(machines: &[Machine]) -> Grid {
    let entries = entries(machines);
    let mut header = vec!["pattern".to_owned(), "#MACs kept".to_owned()];
    for machine in machines {
        header.push(format!("#{}", machine.label));
        header.push("#speedup".into());
    }
    let mut grid = Grid::new(&header.iter().map(String::as_str).collect::<Vec<_>>());
    let mut patterns: Vec<&str> = vec!["dense"];
    if let Some(first) = machines.first() {
        patterns.extend(first.patterns.iter().map(|(p, _)| p.as_str()));
    }
    for pattern in patterns {
        let mut row: Vec<Cell> = vec![pattern.into()];
        let of = |m: &Machine| entries.iter().find(|e| e.pattern == pattern && same_machine(e, m));
        let kept = machines.iter().find_map(of);
        row.push(kept.map_or_else(String::new, |e| format!("{:.1} %", 100.0 * e.macs_kept)).into());
        for machine in machines {
            match of(machine) {
                Some(e) => {
                    let latency = time(e.latency_s);
                    row.push(if e.winner { Cell::bold(latency) } else { latency.into() });
                    row.push(if e.winner { Cell::bold(verdict(e)) } else { verdict(e).into() });
                }
                None => row.extend(["–".into(), "–".into()]),
            }
        }
        grid.rows.push(row);
    }
    grid
}

fn same_machine(e: &Entry, m: &Machine) -> bool {
    e.profile == m.dense.profile && e.dtype == m.dense.dtype.to_string()
}

fn verdict(e: &Entry) -> String {
    let mark = match (e.winner, e.like_winner) {
        (true, _) => " *",
        (false, true) => " ≈",
        (false, false) => "",
    };
    if e.pattern == "dense" {
        return format!("1.00×{mark}");
    }
    format!("{:.2}× ({:.2}–{:.2}){mark}", e.speedup, e.speedup_low, e.speedup_high)
}

/// What the marks mean, and for each machine what may be concluded.
pub fn words(machines: &[Machine]) -> String {
    let entries = entries(machines);
    let mut text = String::from(
        "* fastest on its machine; ≈ not distinguishable from it: the 90 % interval of their quotient holds 1. Speedups are \
         over the same machine's dense. Errors are taken as equal where a step runs unchanged, as half shared where another \
         step runs the same kernel, as independent where the kernels differ.\n",
    );
    for machine in machines {
        let of: Vec<&Entry> = entries.iter().filter(|e| same_machine(e, machine)).collect();
        let Some(winner) = of.iter().find(|e| e.winner) else { continue };
        let alike: Vec<&str> = of.iter().filter(|e| e.like_winner && !e.winner).map(|e| e.pattern.as_str()).collect();
        text += &format!("{} ({}): ", machine.label, machine.dense.profile);
        text += &match (winner.pattern.as_str(), alike.as_slice()) {
            ("dense", []) => "dense is fastest".to_owned(),
            (best, []) => format!("{best} wins, {:.2}× over dense", winner.speedup),
            (best, alike) => format!("{best} is fastest, not distinguishable from {}", alike.join(", ")),
        };
        text.push('\n');
        for (pattern, refused) in machine.patterns.iter().filter_map(|(p, e)| Some((p, e.as_ref().err()?))) {
            text += &format!("{}: {pattern} cannot be carried out: {refused}\n", machine.label);
        }
    }
    text
}

/// One CSV record an entry.
///
/// # Errors
/// The writer's.
pub fn csv(entries: &[Entry], out: &mut dyn Write) -> std::io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    for entry in entries {
        writer.serialize(entry).map_err(std::io::Error::other)?;
    }
    writer.flush()
}
