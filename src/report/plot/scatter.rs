//! Predicted against measured.

use super::Figure;
use super::chart::{Canvas, Entry, Key, WIDTH};
use super::scale::{Axis, Scale, Unit, extent};
use super::style::{COLOURS, marker};
use super::svg::{Anchor, Rect, px};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// One measurement and its prediction, both in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Dot {
    /// Measured seconds.
    pub measured: f64,
    /// Predicted seconds.
    pub predicted: f64,
    /// What the tooltip says; empty for none.
    pub label: String,
}

/// The measurements of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Dots {
    /// Its name in the legend.
    pub name: String,
    /// Its measurements.
    pub dots: Vec<Dot>,
}

/// Above this many points, points are drawn as one path a group and have no tooltips: a figure stays below a megabyte.
const INDIVIDUAL: usize = 1500;
/// Side of the cells in pixels, of which each shows one point of a group at most.
const CELL: f64 = 2.0;

/// Predicted over measured times on logarithmic axes, with bands of ±10 % and ±25 % about equality and a colour a group.
pub fn predicted_against_measured(title: &str, caption: &str, groups: &[Dots]) -> Figure {
    let axis = Axis::log("measured time", Unit::Prefixed("s"));
    let all = || groups.iter().flat_map(|g| &g.dots);
    let range = extent(&axis, all().flat_map(|d| [d.measured, d.predicted]));
    let legend: Vec<Entry> = groups
        .iter()
        .enumerate()
        .map(|(i, g)| Entry { name: format!("{} ({})", g.name, g.dots.len()), colour: i, key: Key::Dot })
        .collect();
    let mut canvas = Canvas::new(title, caption, &legend);
    let area = Rect { x: 84.0, y: canvas.top + 8.0, w: WIDTH - 84.0 - 28.0, h: 520.0 };
    let x = Scale::new(&axis, range, area.x, area.right());
    let y = x.over(area.bottom(), area.y);
    canvas.axes(area, (&axis, &x), (&Axis::log("predicted time", axis.unit), &y), true);
    let (low, high) = x.range();
    let svg = &mut canvas.svg;
    svg.clipped(area, |svg| {
        for band in [1.25, 1.1] {
            let at = |v: f64, f: f64| format!("{} {}", px(x.at(v)), px(y.at(v * f)));
            let path =
                format!("M{} L{} L{} L{}Z", at(low, band), at(high, band), at(high, 1.0 / band), at(low, 1.0 / band));
            svg.path("q v", &path, "");
        }
        svg.line("a", (x.at(low), y.at(low)), (x.at(high), y.at(high)));
        let individual = all().count() <= INDIVIDUAL;
        for (i, group) in groups.iter().enumerate() {
            let c = i % COLOURS;
            let mut cells = BTreeSet::new();
            let mut path = String::new();
            for dot in &group.dots {
                if !(dot.measured > 0.0 && dot.predicted > 0.0) {
                    continue;
                }
                let at = (x.at(dot.measured), y.at(dot.predicted));
                if individual {
                    svg.path(&format!("f{c}"), &marker(c, at, 3.5), &dot.label);
                } else if cells.insert(((at.0 / CELL) as i64, (at.1 / CELL) as i64)) {
                    let _ = write!(path, "M{} {}h0", px(at.0), px(at.1));
                }
            }
            if !path.is_empty() {
                svg.path(&format!("p s{c}"), &path, "");
            }
        }
    });
    svg.text("m n", (area.right() - 8.0, area.bottom() - 10.0), Anchor::End, "line: equal; bands: ±10 %, ±25 %");
    canvas.finish(area.bottom() + 52.0)
}
