//! Figures over many networks' totals: speedup over sparsity, and time against what is kept.

use crate::pattern::SparsityPattern;
use crate::report::Estimate;
use crate::report::compare::Entry;
use crate::report::plot::{Axis, Candidate, Figure, Front, Line, LinePanel, LinePoint, Unit, panels, pareto};
use crate::report::sweep::Record;
use crate::report::table::time;
use std::collections::BTreeMap;

/// A whole network on a machine under a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Total {
    /// The network and what binds its sizes: `llama-3-8b, 2048 tokens`.
    pub workload: String,
    /// The machine and its dtype.
    pub device: String,
    /// Samples of a batch.
    pub batch: u64,
    /// The rules, `dense` for none.
    pub pattern: String,
    /// Seconds.
    pub latency_s: f64,
    /// Dense over predicted time.
    pub speedup: Option<f64>,
    /// The speedup's 90 % interval.
    pub interval: Option<(f64, f64)>,
    /// What is kept, 0 to 1: the share of MACs, or 1 − loss where a search measured a loss.
    pub kept: f64,
}

impl Total {
    /// That of one estimate.
    pub fn of(e: &Estimate) -> Self {
        let mut patterns: Vec<&str> = e.layers.iter().map(|r| r.pattern.as_str()).filter(|p| *p != "dense").collect();
        patterns.sort_unstable();
        patterns.dedup();
        let pattern = match patterns.as_slice() {
            [] => "dense".to_owned(),
            [one] => (*one).to_owned(),
            some => format!("{} patterns", some.len()),
        };
        Self {
            workload: e.workload.clone(),
            device: format!("{}, {}", e.profile, e.dtype),
            batch: e.batch,
            pattern,
            latency_s: e.total.latency_s,
            speedup: Some(e.total.speedup),
            interval: None,
            kept: e.total.macs_effectual / e.total.macs_dense.max(1) as f64,
        }
    }
}

impl From<&Entry> for Total {
    fn from(e: &Entry) -> Self {
        Self {
            workload: e.workload.clone(),
            device: format!("{}, {}", e.profile, e.dtype),
            batch: e.batch,
            pattern: e.pattern.clone(),
            latency_s: e.latency_s,
            speedup: Some(e.speedup),
            interval: Some((e.speedup_low, e.speedup_high)),
            kept: e.macs_kept,
        }
    }
}

/// The totals of a sweep: its records of whole networks, or the sums of its layers where it has no such record.
pub fn of_sweep(records: &[Record]) -> Vec<Total> {
    type Key = (String, String, u64, String);
    let mut order: Vec<Key> = Vec::new();
    let mut sums: BTreeMap<Key, (f64, f64, f64)> = BTreeMap::new();
    let mut whole: BTreeMap<Key, Total> = BTreeMap::new();
    for r in records {
        let mut workload = r.workload.clone();
        if let Some(tokens) = r.seq_tokens {
            workload += &format!(", {tokens} tokens");
        }
        if let Some(keys) = r.context_tokens {
            workload += &format!(", decode at {keys}");
        }
        let key = (workload, format!("{}, {}", r.device, r.dtype), r.batch, r.pattern.clone());
        if !sums.contains_key(&key) && !whole.contains_key(&key) {
            order.push(key.clone());
        }
        if r.op == "network" {
            let total = Total {
                workload: key.0.clone(),
                device: key.1.clone(),
                batch: r.batch,
                pattern: r.pattern.clone(),
                latency_s: r.latency_s,
                speedup: r.speedup,
                interval: r.speedup_low.zip(r.speedup_high),
                kept: r.macs_effectual / r.macs_dense.max(1.0),
            };
            whole.insert(key, total);
        } else {
            let sum = sums.entry(key).or_default();
            *sum = (sum.0 + r.latency_s, sum.1 + r.macs_dense, sum.2 + r.macs_effectual);
        }
    }
    // A removed channel's MACs are missing from its layer, so that what is kept is counted against the dense network.
    let dense: BTreeMap<(String, String, u64), (f64, f64, f64)> = sums
        .iter()
        .filter(|(key, _)| key.3 == "dense")
        .map(|(key, sum)| ((key.0.clone(), key.1.clone(), key.2), *sum))
        .collect();
    order
        .into_iter()
        .filter_map(|key| {
            if let Some(total) = whole.remove(&key) {
                return Some(total);
            }
            let sum = sums.get(&key)?;
            let (workload, device, batch, pattern) = key;
            let before = dense.get(&(workload.clone(), device.clone(), batch)).copied();
            Some(Total {
                latency_s: sum.0,
                speedup: before.map(|b| b.0 / sum.0),
                interval: None,
                kept: sum.2 / before.map_or(sum.1, |b| b.1).max(1.0),
                workload,
                device,
                batch,
                pattern,
            })
        })
        .collect()
}

/// Totals by network and batch, in the order of their first appearance.
pub fn by_network(totals: &[Total]) -> Vec<(String, Vec<&Total>)> {
    let mut groups: Vec<(String, Vec<&Total>)> = Vec::new();
    for total in totals {
        let name = format!("{}, batch {}", total.workload, total.batch);
        match groups.iter_mut().find(|(n, _)| *n == name) {
            Some((_, list)) => list.push(total),
            None => groups.push((name, vec![total])),
        }
    }
    groups
}

fn devices<'a>(totals: &[&'a Total]) -> Vec<&'a str> {
    let mut devices: Vec<&str> = Vec::new();
    for t in totals {
        if !devices.contains(&t.device.as_str()) {
            devices.push(&t.device);
        }
    }
    devices
}

/// The family of a pattern's lines and its sparsity; `None` for mixed rules.
fn family(pattern: &str) -> Option<(String, f64)> {
    let parsed: SparsityPattern = pattern.split('/').next()?.parse().ok()?;
    let name = match parsed {
        SparsityPattern::Block { rows, cols, .. } => format!("block {rows}×{cols}"),
        SparsityPattern::Vnm { v, .. } => format!("{v}:N:M"),
        other => other.family().to_owned(),
    };
    (!parsed.is_dense()).then(|| (name, 1.0 - parsed.density()))
}

/// Speedup over sparsity, a panel a device and a line a family of patterns; `None` where fewer than two sparsities are
/// known.
pub fn crossover(name: &str, totals: &[&Total]) -> Option<Figure> {
    let mut families: Vec<String> = totals.iter().filter_map(|t| family(&t.pattern)).map(|f| f.0).collect();
    families.sort();
    families.dedup();
    let mut sparsities: Vec<f64> = totals.iter().filter_map(|t| family(&t.pattern)).map(|f| f.1).collect();
    sparsities.sort_by(f64::total_cmp);
    sparsities.dedup();
    if sparsities.len() < 2 {
        return None;
    }
    let panel = |device: &str| {
        let line = |(colour, name): (usize, &String)| {
            let mut points: Vec<LinePoint> = totals
                .iter()
                .filter(|t| t.device == device)
                .filter_map(|t| {
                    let (_, sparsity) = family(&t.pattern).filter(|(f, _)| f == name)?;
                    let y = t.speedup?;
                    let label = format!("{} on {}: {y:.2}×, {}", t.pattern, t.device, time(t.latency_s));
                    Some(LinePoint { x: sparsity, y, interval: t.interval, label })
                })
                .collect();
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Line { name: name.clone(), colour, dashed: false, points }
        };
        let lines = families.iter().enumerate().map(line).filter(|l| !l.points.is_empty()).collect();
        LinePanel { title: device.to_owned(), lines }
    };
    let shown: Vec<LinePanel> = devices(totals).into_iter().map(panel).collect();
    let banded = totals.iter().any(|t| t.interval.is_some());
    let caption = format!(
        "{name}: predicted latency dense over sparse, every prunable layer with the same pattern. A line that stays at \
         break-even has no kernel that uses its zeros.{}",
        if banded { " Bands are 90 % intervals." } else { "" }
    );
    Some(panels(
        &format!("Speedup over sparsity: {name}"),
        &caption,
        &Axis::linear("sparsity (share of zeros)", Unit::Percent),
        &Axis::log("speedup over dense", Unit::Factor),
        Some(1.0),
        &shown,
    ))
}

/// Latency against what is kept, a front a device; `None` where fewer than two choices are known. `quality` names what
/// is kept.
pub fn front(name: &str, quality: &str, totals: &[&Total]) -> Option<Figure> {
    if totals.len() < 2 {
        return None;
    }
    let of = |device: &str| -> Vec<Candidate> {
        let own = totals.iter().filter(|t| t.device == device);
        own.map(|t| Candidate {
            cost: t.latency_s,
            quality: t.kept,
            name: t.pattern.clone(),
            label: format!("{} on {}: {}, {:.1} % kept", t.pattern, t.device, time(t.latency_s), 100.0 * t.kept),
        })
        .collect()
    };
    let fronts: Vec<Front> =
        devices(totals).into_iter().map(|d| Front { name: d.to_owned(), candidates: of(d) }).collect();
    let caption = format!(
        "{name}. Steps join choices that no other choice on the device beats in both respects; faint marks are beaten. What is kept \
         stands for quality here: accuracy after retraining is another matter."
    );
    Some(pareto(
        &format!("Latency against {quality} kept: {name}"),
        &caption,
        &Axis::log("predicted latency", Unit::Prefixed("s")),
        &Axis::linear(format!("{quality} kept"), Unit::Percent),
        &fronts,
    ))
}
