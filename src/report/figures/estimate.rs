//! Figures of one estimate: its roofline, its layers before and after, its graph.

use crate::report::Estimate;
use crate::report::plot::{Axis, Bar, Figure, Mark, Node, Roof, Unit, bars, network, roofline};
use crate::report::row::Row;
use crate::report::table::{percent, time};
use std::collections::HashMap;

/// Bars beyond which the shortest are summed.
const BARS: usize = 24;
/// Nodes beyond which a graph is a wall and not a picture.
const NODES: usize = 260;
/// Longest block of steps that is looked for as a repetition.
const BLOCK: usize = 64;

/// Rows alike in everything but an index in their names: a transformer's blocks, a stage's.
struct Alike<'a> {
    name: String,
    rows: Vec<&'a Row>,
}

impl Alike<'_> {
    fn sum(&self, of: impl Fn(&Row) -> f64) -> f64 {
        self.rows.iter().map(|r| of(r)).sum()
    }

    /// The dense time, where each row knows its own.
    fn dense(&self) -> Option<f64> {
        self.rows.iter().map(|r| r.dense_latency_s).sum()
    }

    fn tooltip(&self) -> String {
        let row = self.rows[0];
        let shape = match (row.m, row.n, row.k) {
            (Some(m), Some(n), Some(k)) => format!(" {m}×{n}×{k}"),
            _ => String::new(),
        };
        let mut text = format!("{}: {}{shape}, {}", self.name, row.op, time(self.sum(|r| r.latency_s)));
        if let Some(dense) = self.dense().filter(|_| row.pattern != "dense") {
            text += &format!(" ({} asked, {} runs; dense {})", row.pattern, row.executed, time(dense));
        }
        text + &format!("; bound by {}, kernel {}", row.bound, row.kernel)
    }
}

fn alike(rows: &[Row]) -> Vec<Alike<'_>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Alike> = Vec::new();
    for row in rows {
        let place = *places.entry(signature(row)).or_insert_with(|| {
            groups.push(Alike { name: String::new(), rows: Vec::new() });
            groups.len() - 1
        });
        groups[place].rows.push(row);
    }
    for group in &mut groups {
        group.name = common_name(&group.rows);
    }
    groups
}

type Signature<'a> = (Vec<&'a str>, &'a str, [Option<u64>; 4], &'a str, &'a str, &'a str);

/// What must agree: the name without its numbers, operator, shape, pattern, kernel, bound.
fn signature(r: &Row) -> Signature<'_> {
    let words = r.name.split(|c: char| c.is_ascii_digit()).filter(|w| !w.is_empty()).collect();
    (words, &r.op, [r.groups, r.m, r.n, r.k], &r.pattern, &r.kernel, &r.bound)
}

/// The name that rows share, `*` where their indices differ, and how many they are.
fn common_name(rows: &[&Row]) -> String {
    let [first, others @ ..] = rows else { return String::new() };
    if others.is_empty() {
        return first.name.clone();
    }
    let parts = pieces(&first.name);
    let rest: Vec<Vec<&str>> = others.iter().map(|r| pieces(&r.name)).collect();
    let shared = |i: usize| rest.iter().all(|p| p.get(i) == Some(&parts[i]));
    let name: String = (0..parts.len()).map(|i| if shared(i) { parts[i] } else { "*" }).collect();
    format!("{name} ×{}", rows.len())
}

/// A name in runs of digits and of other characters.
fn pieces(name: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let digit = |i: usize| name.as_bytes()[i].is_ascii_digit();
    for i in 1..=name.len() {
        if i == name.len() || digit(i) != digit(i - 1) {
            parts.push(&name[start..i]);
            start = i;
        }
    }
    parts
}

/// Colours of the bounds that occur, compute and main memory first.
fn bounds(rows: &[Row]) -> Vec<(usize, String)> {
    let mut legend: Vec<(usize, String)> = Vec::new();
    let mut levels = [4, 2, 3, 5, 7].into_iter();
    for row in rows {
        if legend.iter().any(|(_, name)| *name == row.bound) {
            continue;
        }
        let colour = match row.bound.as_str() {
            "compute" => 0,
            "dram" => 1,
            "overhead" => 6,
            _ => levels.next().unwrap_or(7),
        };
        legend.push((colour, row.bound.clone()));
    }
    legend.sort();
    legend
}

fn colour(legend: &[(usize, String)], bound: &str) -> usize {
    legend.iter().find(|(_, name)| name == bound).map_or(0, |(c, _)| *c)
}

fn legend(bounds: &[(usize, String)]) -> Vec<(usize, String)> {
    bounds.iter().map(|(c, name)| (*c, format!("bound by {name}"))).collect()
}

fn setting(e: &Estimate) -> String {
    format!("{} on {}, {}, batch {}", e.workload, e.profile, e.dtype, e.batch)
}

/// The layers under the machine's roof; `None` where the machine's peaks are not in the file or no layer multiplies.
pub fn on_the_roof(e: &Estimate, name: &str) -> Option<Figure> {
    let peaks = &e.machine;
    if !(peaks.peak_macs_per_s > 0.0 && peaks.dram_bytes_per_s > 0.0) {
        return None;
    }
    let bounds = bounds(&e.layers);
    let marks: Vec<Mark> = alike(&e.layers)
        .iter()
        .filter_map(|group| {
            let dram = group.sum(|r| r.traffic.0.iter().find(|(level, _)| level == "dram").map_or(0.0, |l| l.1));
            let (macs, seconds) = (group.sum(|r| r.macs_effectual), group.sum(|r| r.latency_s));
            let share = seconds / e.total.latency_s;
            let (intensity, rate) = (macs / dram, macs / seconds);
            let label = format!(
                "{}; {} of the time; {} at {intensity:.1} MAC/B",
                group.tooltip(),
                percent(share),
                Unit::Prefixed("MAC/s").show(rate)
            );
            let colour = colour(&bounds, &group.rows[0].bound);
            (macs > 0.0 && dram > 0.0).then(|| Mark { name: group.name.clone(), intensity, rate, share, colour, label })
        })
        .collect();
    if marks.is_empty() {
        return None;
    }
    let caption = format!(
        "{}. Area is share of the time; layers alike but for an index are one mark. Only effectual MACs and main-memory \
         bytes count, so zeros that are multiplied, caches and launches keep marks below the roof. Steps that do not \
         multiply are left out.",
        setting(e)
    );
    let roof = Roof { macs_per_second: peaks.peak_macs_per_s, bytes_per_second: peaks.dram_bytes_per_s };
    Some(roofline(&format!("Roofline: {name}"), &caption, &roof, &legend(&bounds), &marks))
}

/// Each layer's time, beside its time dense where something was pruned; `None` without layers.
pub fn layer_bars(e: &Estimate, name: &str) -> Option<Figure> {
    let groups = alike(&e.layers);
    if groups.is_empty() {
        return None;
    }
    let pruned = e.layers.iter().any(|r| r.pattern != "dense");
    let bounds = bounds(&e.layers);
    let mut longest: Vec<f64> = groups.iter().map(|g| g.sum(|r| r.latency_s).max(g.dense().unwrap_or(0.0))).collect();
    longest.sort_by(|a, b| b.total_cmp(a));
    let least = longest.get(BARS).copied().unwrap_or(f64::NEG_INFINITY);
    let (shown, rest): (Vec<&Alike>, Vec<&Alike>) =
        groups.iter().partition(|g| g.sum(|r| r.latency_s).max(g.dense().unwrap_or(0.0)) > least);
    let bar = |name: String, of: &[&Alike], colour: usize, label: String| {
        let after: f64 = of.iter().map(|g| g.sum(|r| r.latency_s)).sum();
        let before = of.iter().map(|g| g.dense()).sum::<Option<f64>>().filter(|_| pruned);
        let interval = (of.len() == 1)
            .then(|| (of[0].sum(|r| r.latency_low_s), of[0].sum(|r| r.latency_high_s)))
            .filter(|(low, high)| low < high);
        let remark = before.map_or_else(|| time(after), |b| format!("{:.2}×", b / after));
        Bar { name, before, after, interval, colour, remark, label }
    };
    let mut list: Vec<Bar> =
        shown.iter().map(|g| bar(g.name.clone(), &[*g], colour(&bounds, &g.rows[0].bound), g.tooltip())).collect();
    if !rest.is_empty() {
        let name = format!("{} more", rest.iter().map(|g| g.rows.len()).sum::<usize>());
        list.push(bar(name, &rest, 6, "the remaining steps together".into()));
    }
    let caption = format!(
        "{}: {} in all{}. Thin lines are 90 % intervals; layers alike but for an index are summed{}.",
        setting(e),
        time(e.total.latency_s),
        if pruned {
            format!(", {:.2}× over dense ({})", e.total.speedup, time(e.total.dense_latency_s))
        } else {
            String::new()
        },
        if rest.is_empty() { "" } else { ", the shortest together" },
    );
    let axis = Axis::linear("predicted time", Unit::Prefixed("s"));
    let title = if pruned { format!("Layers before and after: {name}") } else { format!("Layers: {name}") };
    Some(bars(&title, &caption, &axis, "dense", &legend(&bounds), &list))
}

/// The network as a graph, blocks that repeat drawn once; `None` where the file does not say what reads what, or where
/// the graph would be a wall.
pub fn network_graph(e: &Estimate, name: &str) -> Option<Figure> {
    let rows = &e.layers;
    if rows.len() < 2 || rows.iter().all(|r| r.inputs.is_empty()) {
        return None;
    }
    let (stands_for, times) = fold(rows);
    let mut place = vec![usize::MAX; rows.len()];
    let mut shown = Vec::new();
    for (i, &own) in stands_for.iter().enumerate() {
        if own == i {
            place[i] = shown.len();
            shown.push(i);
        }
    }
    if shown.len() > NODES {
        return None;
    }
    let index: HashMap<&str, usize> = rows.iter().enumerate().map(|(i, r)| (r.name.as_str(), i)).collect();
    let mut seconds = vec![0.0; shown.len()];
    let mut inputs: Vec<Vec<usize>> = vec![Vec::new(); shown.len()];
    for (i, row) in rows.iter().enumerate() {
        let at = place[stands_for[i]];
        seconds[at] += row.latency_s;
        for from in row.inputs.iter().filter_map(|name| index.get(name.as_str())) {
            let from = place[stands_for[*from]];
            // From one copy to the next the edge would run upwards.
            if from < at && !inputs[at].contains(&from) {
                inputs[at].push(from);
            }
        }
    }
    let bounds = bounds(rows);
    let nodes: Vec<Node> = shown
        .iter()
        .zip(inputs)
        .enumerate()
        .map(|(at, (&i, inputs))| {
            let row = &rows[i];
            let copies = times[i];
            let group = Alike { name: row.name.clone(), rows: vec![row] };
            let label = match copies {
                1 => group.tooltip(),
                n => format!("{} (one of {n} copies, {} together)", group.tooltip(), time(seconds[at])),
            };
            let each = time(row.latency_s);
            Node {
                name: row.name.clone(),
                remark: if copies > 1 { format!("{copies} × {each}") } else { each },
                inputs,
                colour: colour(&bounds, &row.bound),
                share: seconds[at] / e.total.latency_s,
                label,
            }
        })
        .collect();
    let caption = format!(
        "{}. Colour is what bounds a step, the bar its share of the time (the longest fills its box); pointwise work is \
         fused into the step before it. Blocks that repeat are drawn once.",
        setting(e)
    );
    Some(network(&format!("Network: {name}"), &caption, &legend(&bounds), &nodes))
}

/// Boxes that a graph would need where it is left out for being a wall, so that the page can say so.
pub fn too_many_boxes(e: &Estimate) -> Option<usize> {
    let (stands_for, _) = fold(&e.layers);
    let boxes = stands_for.iter().enumerate().filter(|(i, own)| *i == **own).count();
    (boxes > NODES && e.layers.iter().any(|r| !r.inputs.is_empty())).then_some(boxes)
}

/// For each row the one that is drawn for it, and how many rows each stands for: runs of three or more like blocks
/// become their first.
fn fold(rows: &[Row]) -> (Vec<usize>, Vec<usize>) {
    let signatures: Vec<Signature> = rows.iter().map(signature).collect();
    let mut stands_for: Vec<usize> = (0..rows.len()).collect();
    let mut times = vec![1; rows.len()];
    let mut i = 0;
    while i < rows.len() {
        let left = rows.len() - i;
        let mut best = (0, 1, 1);
        for period in 1..=BLOCK.min(left / 3) {
            let alike = (i..rows.len() - period).take_while(|&j| signatures[j] == signatures[j + period]).count();
            let copies = alike / period + 1;
            if copies >= 3 && period * copies > best.0 {
                best = (period * copies, period, copies);
            }
        }
        let (_, period, copies) = best;
        if copies > 1 {
            for j in 0..period * copies {
                stands_for[i + j] = i + j % period;
            }
            times[i..i + period].fill(copies);
        }
        i += period * copies;
    }
    (stands_for, times)
}
