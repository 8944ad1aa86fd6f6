//! The table that a person reads.

use super::estimate::Estimate;
use super::grid::{Cell, Grid};
use super::row::Row;
use crate::units::{Bytes, Seconds};
use comfy_table::{ContentLineStyle, LineStyle, TableStyle};

/// In which order layers are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they run.
    #[default]
    Network,
    /// Longest first.
    Latency,
}

/// A rule under the header, nothing else.
pub(super) const PLAIN: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::new(' ', ' ', ' '))
    .header_separator(LineStyle::new('─', '─', '─', '─'))
    .content_lines(ContentLineStyle::new(' ', ' ', ' '));

/// How a table is laid out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Style {
    /// Order of the layers.
    pub order: Order,
    /// At most this many layers; the rest is summed in one line.
    pub top: Option<usize>,
    /// Whether the dense time of each layer is shown.
    pub baseline: bool,
    /// Width in columns; unlimited where unknown.
    pub width: Option<u16>,
    /// Bold headers.
    pub colour: bool,
}

/// Lays an estimate out as a table for a terminal.
pub fn table(estimate: &Estimate, style: Style) -> String {
    grid(estimate, style).text(style.width, style.colour)
}

/// The rows of an estimate and their total.
pub fn grid(estimate: &Estimate, style: Style) -> Grid {
    let mut rows: Vec<&Row> = estimate.layers.iter().collect();
    if style.order == Order::Latency {
        rows.sort_by(|a, b| b.latency_s.total_cmp(&a.latency_s));
    }
    let total = estimate.total.latency_s;
    let hidden = style.top.map_or(0, |top| rows.len().saturating_sub(top));
    let (shown, rest) = rows.split_at(rows.len() - hidden);

    let mut header =
        vec!["layer", "op", "#m × n × k", "pattern", "runs as", "#latency", "#share", "bound", "#util", "#speedup"];
    if style.baseline {
        header.insert(5, "#dense");
    }
    let mut grid = Grid::new(&header);
    for row in shown {
        let mut cells = vec![
            row.name.clone(),
            row.op.clone(),
            shape(row),
            row.pattern.clone(),
            runs_as(row),
            time(row.latency_s),
            percent(row.latency_s / total),
            row.bound.clone(),
            percent(row.utilization),
            row.speedup.map_or_else(String::new, |s| format!("{s:.2}×")),
        ];
        if style.baseline {
            cells.insert(5, row.dense_latency_s.map_or_else(String::new, time));
        }
        grid.push(cells);
    }
    if hidden > 0 {
        let sum: f64 = rest.iter().map(|r| r.latency_s).sum();
        let mut cells = vec![String::new(); 10];
        cells[0] = format!("… {hidden} more");
        cells[5] = time(sum);
        cells[6] = percent(sum / total);
        if style.baseline {
            let dense: f64 = rest.iter().filter_map(|r| r.dense_latency_s).sum();
            cells.insert(5, time(dense));
        }
        grid.push(cells);
    }
    let mut totals: Vec<Cell> = vec![Cell::default(); 10];
    totals[0] = Cell::bold("total");
    totals[1] = count(estimate.layers.len()).into();
    totals[5] = Cell::bold(time(total));
    totals[6] = "100 %".into();
    totals[8] = percent(busy(estimate)).into();
    totals[9] = Cell::bold(format!("{:.2}×", estimate.total.speedup));
    if style.baseline {
        totals.insert(5, time(estimate.total.dense_latency_s).into());
    }
    grid.push(totals);
    grid
}

/// One line that says what was asked and what came out.
pub fn headline(estimate: &Estimate) -> String {
    let t = &estimate.total;
    let mut line = format!(
        "{} on {}, {}, batch {}: {} (90 % interval {} … {})",
        estimate.workload,
        estimate.profile,
        estimate.dtype,
        estimate.batch,
        time(t.latency_s),
        time(t.latency_low_s),
        time(t.latency_high_s),
    );
    if t.speedup != 1.0 {
        line += &format!(", {:.2}× over dense ({})", t.speedup, time(t.dense_latency_s));
    }
    line += &format!(
        "\n{} GMACs dense, {} effectual, {} issued; {} from main memory, {} of weights",
        giga(t.macs_dense as f64),
        giga(t.macs_effectual),
        giga(t.macs_issued),
        Bytes(t.dram_bytes),
        Bytes(t.weight_bytes),
    );
    if let Some(energy) = t.energy_j {
        line += &format!("; {}", crate::units::Joules(energy));
    }
    line
}

fn count(layers: usize) -> String {
    if layers == 1 { "1 step".into() } else { format!("{layers} steps") }
}

fn busy(estimate: &Estimate) -> f64 {
    let sum: f64 = estimate.layers.iter().map(|l| l.utilization * l.latency_s).sum();
    sum / estimate.total.latency_s
}

fn runs_as(row: &Row) -> String {
    if row.executed == row.pattern { row.kernel.clone() } else { format!("{} ({})", row.executed, row.kernel) }
}

fn shape(row: &Row) -> String {
    let (Some(m), Some(n), Some(k)) = (row.m, row.n, row.k) else { return String::new() };
    let product = format!("{m}×{n}×{k}");
    match row.groups {
        Some(g) if g > 1 => format!("{g}·({product})"),
        _ => product,
    }
}

/// A time with three digits and a fitting unit.
pub fn time(seconds: f64) -> String {
    Seconds(seconds).to_string()
}

fn giga(macs: f64) -> String {
    format!("{:.3}", macs / 1e9)
}

/// A fraction in percent.
pub fn percent(fraction: f64) -> String {
    // Adding zero turns the −0 of an empty sum into 0.
    if fraction.is_finite() { format!("{:.1} %", 100.0 * fraction + 0.0) } else { String::new() }
}
