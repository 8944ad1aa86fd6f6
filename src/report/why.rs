//! Why not faster: what limits the speedup, computed from the rows, and what would help.

use super::estimate::Estimate;
use super::row::Row;
use super::table::{percent, time};

/// A short closing paragraph. Every sentence rests on a figure of the estimate; where nothing was pruned it says what
/// bounds the dense network.
pub fn why(estimate: &Estimate) -> String {
    let total = estimate.total.latency_s;
    let rows = &estimate.layers;
    if rows.is_empty() || total <= 0.0 {
        return "Nothing runs: the network holds no operation that costs time.".into();
    }
    let share = |keep: &dyn Fn(&Row) -> bool| rows.iter().filter(|r| keep(r)).map(|r| r.latency_s).sum::<f64>() / total;
    let pruned = rows.iter().any(|r| r.pattern != "dense");
    let mut said: Vec<String> = Vec::new();
    let mut helps: Vec<String> = Vec::new();

    if pruned {
        said.push(headline(estimate));
        amdahl(estimate, &mut said);
        fallbacks(rows, total, &mut said, &mut helps);
        slower(rows, &mut said, &mut helps);
        metadata(rows, &mut said);
        padding(rows, &mut said, &mut helps);
    }
    let memory = share(&|r| r.bound != "compute" && r.bound != "overhead");
    let compute = share(&|r| r.bound == "compute");
    let mut levels: Vec<(&str, f64)> = Vec::new();
    for row in rows.iter().filter(|r| r.bound != "compute" && r.bound != "overhead") {
        match levels.iter_mut().find(|(l, _)| *l == row.bound) {
            Some((_, t)) => *t += row.latency_s,
            None => levels.push((&row.bound, row.latency_s)),
        }
    }
    levels.sort_by(|a, b| b.1.total_cmp(&a.1));
    let levels: Vec<String> = levels.iter().map(|(l, t)| format!("{l} {}", percent(t / total))).collect();
    let overhead = estimate.total.overhead_s / total;
    said.push(format!(
        "Of the time, {} lies in layers bound by arithmetic and {} in layers bound by memory{}; launches, packing and other fixed work take {}.",
        percent(compute),
        percent(memory),
        if levels.is_empty() { String::new() } else { format!(" ({})", levels.join(", ")) },
        percent(overhead),
    ));
    if overhead > 0.25 {
        helps.push("a larger batch or fewer, larger layers, so that less fixed work is paid per result".into());
    }
    if memory > 0.5 {
        let weights: f64 = rows.iter().map(|r| r.weight_bytes + r.metadata_bytes).sum();
        let dram = estimate.total.dram_bytes;
        if weights > 0.5 * dram {
            helps.push(format!(
                "fewer weight bytes ({} of the main-memory traffic are weights): a narrower dtype or a pattern with less metadata",
                percent(weights / dram)
            ));
        } else {
            helps.push(format!(
                "fewer activation bytes ({} of the main-memory traffic): fusion, or removing channels, which masks do not do",
                percent(1.0 - weights / dram)
            ));
        }
    }
    let (unprunable, name) = longest_untouched(rows);
    if pruned && unprunable / total > 0.3 {
        said.push(format!(
            "Operations without weights (longest: `{name}`) take {} and no weight pattern touches them.",
            percent(unprunable / total)
        ));
    }
    if !helps.is_empty() {
        said.push(format!("What would help: {}.", helps.join("; ")));
    }
    said.join(" ")
}

fn headline(estimate: &Estimate) -> String {
    let t = &estimate.total;
    let ideal = t.macs_dense as f64 / t.macs_effectual.max(1.0);
    // What share of the ideal gain arrived.
    let gain = if ideal > 1.0 { (t.speedup - 1.0) / (ideal - 1.0) } else { 1.0 };
    let verdict = match (t.speedup, gain) {
        (s, _) if s < 0.995 => "it gets slower".to_owned(),
        (s, _) if s < 1.02 => "nothing gets faster".to_owned(),
        (_, g) if g > 1.05 => "more than the MACs promise, because bytes and launches fall as well".to_owned(),
        (_, g) => format!("{} of the promised gain arrives", percent(g)),
    };
    format!(
        "The MACs fall {ideal:.2}-fold and the time {:.2}-fold ({} → {}): {verdict}.",
        t.speedup,
        time(t.dense_latency_s),
        time(t.latency_s)
    )
}

/// The best total speedup if every pruned layer took no time at all.
fn amdahl(estimate: &Estimate, said: &mut Vec<String>) {
    let dense = estimate.total.dense_latency_s;
    let untouched: f64 =
        estimate.layers.iter().filter(|r| r.pattern == "dense").filter_map(|r| r.dense_latency_s).sum();
    let touched =
        estimate.layers.iter().filter(|r| r.pattern != "dense").filter_map(|r| r.dense_latency_s).sum::<f64>();
    if untouched / dense > 0.15 && touched > 0.0 {
        said.push(format!(
            "The pruned layers are {} of the dense time, so that even free they would give {:.2}× (Amdahl).",
            percent(touched / dense),
            dense / untouched
        ));
    }
}

fn fallbacks(rows: &[Row], total: f64, said: &mut Vec<String>, helps: &mut Vec<String>) {
    let mut reasons: Vec<(&str, usize, f64)> = Vec::new();
    for row in rows.iter().filter(|r| r.pattern != "dense" && r.executed != r.pattern) {
        // Channel and head removal run as smaller dense layers: that is no fallback.
        if row.pattern.starts_with("channel") || row.pattern.starts_with("head") {
            continue;
        }
        let reason = row.note.split(';').next().unwrap_or_default();
        match reasons.iter_mut().find(|(r, ..)| *r == reason) {
            Some((_, n, t)) => (*n, *t) = (*n + 1, *t + row.latency_s),
            None => reasons.push((reason, 1, row.latency_s)),
        }
    }
    reasons.sort_by(|a, b| b.2.total_cmp(&a.2));
    for (reason, count, t) in reasons.iter().take(2) {
        let layers = if *count == 1 { "one layer falls back".to_owned() } else { format!("{count} layers fall back") };
        said.push(format!("{} of the time, {layers}: {}.", percent(t / total), reason.trim()));
    }
    if reasons.iter().map(|r| r.2).sum::<f64>() / total > 0.2 {
        helps.push("a pattern that this machine has a kernel for, or removing whole channels".into());
    }
}

fn slower(rows: &[Row], said: &mut Vec<String>, helps: &mut Vec<String>) {
    let slow: Vec<&Row> = rows.iter().filter(|r| r.pattern != "dense" && r.speedup.is_some_and(|s| s < 0.99)).collect();
    if slow.is_empty() {
        return;
    }
    let lost: f64 = slow.iter().map(|r| r.latency_s - r.dense_latency_s.unwrap_or(r.latency_s)).sum();
    let worst = slow.iter().min_by(|a, b| a.speedup.partial_cmp(&b.speedup).unwrap_or(std::cmp::Ordering::Equal));
    if let Some(worst) = worst {
        said.push(format!(
            "{} of the pruned layers are slower than dense ({} lost; worst `{}` at {:.2}×): too small or too few rows for the sparse kernel.",
            slow.len(),
            time(lost),
            worst.name,
            worst.speedup.unwrap_or(1.0)
        ));
        helps.push(format!("leaving those layers dense (-s '{}=dense')", worst.name));
    }
}

fn metadata(rows: &[Row], said: &mut Vec<String>) {
    let values: f64 = rows.iter().map(|r| r.weight_bytes).sum();
    let metadata: f64 = rows.iter().map(|r| r.metadata_bytes).sum();
    if metadata > 0.1 * values {
        said.push(format!("Indices and positions add {} to the bytes of the kept values.", percent(metadata / values)));
    }
}

fn padding(rows: &[Row], said: &mut Vec<String>, helps: &mut Vec<String>) {
    // Where memory is the limit, padded arithmetic costs nothing.
    let pruned = || rows.iter().filter(|r| r.bound == "compute" && r.pattern != "dense" && r.executed == r.pattern);
    let issued: f64 = pruned().map(|r| r.macs_issued).sum();
    let useful: f64 = pruned().map(|r| r.macs_effectual).sum();
    if useful > 0.0 && issued > 1.25 * useful {
        said.push(format!(
            "The kernels execute {:.2} MACs for each useful one (padding to tiles, zeros inside kept units).",
            issued / useful
        ));
        helps.push("extents that are multiples of the machine's tile".into());
    }
}

fn longest_untouched(rows: &[Row]) -> (f64, &str) {
    let without = || rows.iter().filter(|r| r.weight_bytes == 0.0);
    let longest = without().max_by(|a, b| a.latency_s.total_cmp(&b.latency_s)).map_or("", |r| r.name.as_str());
    (without().map(|r| r.latency_s).sum(), longest)
}
