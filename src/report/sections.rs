//! What a report says of its inputs.

use super::figures::totals::{Total, by_network, crossover, front};
use super::figures::{layer_bars, network_graph, on_the_roof, too_many_boxes};
use super::grid::{Cell, Grid};
use super::html::Section;
use super::inputs::{Content, Found, Input};
use super::plot::{Axis, Candidate, Front, Unit, pareto};
use super::predictions::{Prediction, scatter};
use super::table::{Order, Style, headline, time};
use super::{Estimate, table, validation, why};
use std::collections::BTreeMap;

/// The sections: what compares first, then input by input.
pub fn sections(inputs: &[Input]) -> Vec<Section> {
    let mut sections = Vec::new();
    let estimates: Vec<(&str, &Estimate)> = inputs
        .iter()
        .filter_map(|i| match &i.content {
            Content::Estimate(e) => Some((i.name.as_str(), &**e)),
            _ => None,
        })
        .collect();
    if estimates.len() > 1 {
        sections.push(overview(&estimates));
    }
    let mut totals: Vec<Total> = Vec::new();
    for input in inputs {
        match &input.content {
            Content::Totals(some) => totals.extend(some.iter().cloned()),
            Content::Estimate(e) if estimates.len() > 1 => totals.push(Total::of(e)),
            _ => {}
        }
    }
    sections.extend(by_network(&totals).iter().filter(|(_, t)| t.len() > 1).map(|(name, t)| network(name, t)));
    for input in inputs {
        match &input.content {
            Content::Estimate(e) => sections.push(one(&input.name, e)),
            Content::Search(found) => sections.extend(search(&input.name, found)),
            Content::Predictions(records) => sections.push(predictions(&input.name, records)),
            Content::Validation(v) => sections.push(Section {
                title: format!("Errors of predictions: {}", input.name),
                paragraphs: vec![format!("{} rows predicted, {} skipped.", v.rows, v.skipped)],
                tables: vec![("Errors by group".into(), validation::grid(v))],
                ..Section::default()
            }),
            Content::Totals(_) => {}
        }
    }
    sections
}

fn overview(estimates: &[(&str, &Estimate)]) -> Section {
    let mut grid =
        Grid::new(&["estimate", "network", "machine", "dtype", "#batch", "#latency", "#90 % interval", "#over dense"]);
    for (name, e) in estimates {
        let t = &e.total;
        grid.push([
            (*name).to_owned(),
            e.workload.clone(),
            e.profile.clone(),
            e.dtype.to_string(),
            e.batch.to_string(),
            time(t.latency_s),
            format!("{} … {}", time(t.latency_low_s), time(t.latency_high_s)),
            format!("{:.2}×", t.speedup),
        ]);
    }
    Section { title: "Estimates".into(), tables: vec![("Totals".into(), grid)], ..Section::default() }
}

fn network(name: &str, totals: &[&Total]) -> Section {
    let mut grid = Grid::new(&["machine", "pattern", "#MACs kept", "#latency", "#over dense", "#90 % interval"]);
    let best = |device: &str| {
        let own = totals.iter().filter(|t| t.device == device).map(|t| t.latency_s);
        own.fold(f64::INFINITY, f64::min)
    };
    for t in totals {
        let latency = time(t.latency_s);
        grid.push([
            Cell::from(t.device.clone()),
            t.pattern.clone().into(),
            format!("{:.1} %", 100.0 * t.kept).into(),
            if t.latency_s <= best(&t.device) { Cell::bold(latency) } else { latency.into() },
            t.speedup.map_or_else(String::new, |s| format!("{s:.2}×")).into(),
            t.interval.map_or_else(String::new, |(low, high)| format!("{low:.2}–{high:.2}")).into(),
        ]);
    }
    Section {
        title: name.to_owned(),
        figures: [crossover(name, totals), front(name, "MACs", totals)].into_iter().flatten().collect(),
        tables: vec![("Machines and patterns; the fastest of each machine is bold".into(), grid)],
        ..Section::default()
    }
}

fn one(name: &str, e: &Estimate) -> Section {
    let style =
        Style { order: Order::Network, baseline: e.layers.iter().any(|r| r.pattern != "dense"), ..Style::default() };
    let left_out = too_many_boxes(e).map(|boxes| {
        format!(
            "The network's graph is left out: it has {boxes} boxes after blocks that repeat are folded, too many to read. \
             The table of layers has all of them."
        )
    });
    Section {
        title: name.to_owned(),
        paragraphs: headline(e).lines().map(str::to_owned).chain([why::why(e)]).chain(left_out).collect(),
        figures: [on_the_roof(e, name), layer_bars(e, name), network_graph(e, name)].into_iter().flatten().collect(),
        tables: vec![("Layers".into(), table::grid(e, style))],
    }
}

fn search(name: &str, found: &[Found]) -> Vec<Section> {
    let mut settings: BTreeMap<&str, BTreeMap<&str, Vec<&Found>>> = BTreeMap::new();
    for f in found {
        settings.entry(&f.setting).or_default().entry(&f.series).or_default().push(f);
    }
    let share = found.iter().all(|f| (0.0..=1.0).contains(&f.loss));
    let quality = |f: &Found| if share { 1.0 - f.loss } else { -f.loss };
    let axis = match share {
        true => Axis::linear("quality kept (1 − loss)", Unit::Percent),
        false => Axis::linear("negated loss (in the unit of the table)", Unit::Plain),
    };
    let section = |(setting, series): (&str, BTreeMap<&str, Vec<&Found>>)| {
        let mut grid = Grid::new(&["by", "choice", "#latency", "#loss"]);
        let fronts: Vec<Front> = series
            .iter()
            .map(|(by, list)| Front {
                name: (*by).to_owned(),
                candidates: list
                    .iter()
                    .map(|f| Candidate {
                        cost: f.latency_s,
                        quality: quality(f),
                        name: f.choice.clone(),
                        label: format!("{by}, {}: {}, loss {:.4}", f.choice, time(f.latency_s), f.loss),
                    })
                    .collect(),
            })
            .collect();
        for (by, list) in &series {
            for f in list {
                grid.push([(*by).to_owned(), f.choice.clone(), time(f.latency_s), format!("{:.4}", f.loss)]);
            }
        }
        let figure = pareto(
            &format!("Latency against quality: {setting}"),
            &format!("{name}, {setting}. Steps join choices that no other of the same colour beats in both respects."),
            &Axis::log("predicted latency", Unit::Prefixed("s")),
            &axis,
            &fronts,
        );
        Section {
            title: format!("Search {name}: {setting}"),
            figures: vec![figure],
            tables: vec![("Choices".into(), grid)],
            ..Section::default()
        }
    };
    settings.into_iter().map(section).collect()
}

fn predictions(name: &str, records: &[Prediction]) -> Section {
    let mut classes: BTreeMap<(&str, &str, &str), Vec<f64>> = BTreeMap::new();
    for r in records {
        if let Some(predicted) = r.predicted_s {
            classes.entry((&r.device, &r.op, &r.pattern)).or_default().push(predicted / r.measured_s - 1.0);
        }
    }
    let mut grid = Grid::new(&["device", "op", "pattern", "#rows", "#mean |error|", "#median |error|", "#mean error"]);
    for ((device, op, pattern), errors) in classes {
        let mut absolute: Vec<f64> = errors.iter().map(|e| e.abs()).collect();
        absolute.sort_by(f64::total_cmp);
        let mean = |v: &[f64]| 100.0 * v.iter().sum::<f64>() / v.len() as f64;
        grid.push([
            device.to_owned(),
            op.to_owned(),
            pattern.to_owned(),
            errors.len().to_string(),
            format!("{:.1} %", mean(&absolute)),
            format!("{:.1} %", 100.0 * absolute[absolute.len() / 2]),
            format!("{:+.1} %", mean(&errors)),
        ]);
    }
    Section {
        title: format!("Predicted against measured: {name}"),
        figures: scatter(&format!("Predicted against measured: {name}"), records).into_iter().collect(),
        tables: vec![("Errors".into(), grid)],
        ..Section::default()
    }
}
