//! Lines, alone or in panels that share their axes.

use super::Figure;
use super::chart::{Canvas, Entry, Key, WIDTH};
use super::scale::{Axis, Scale, extent};
use super::style::{COLOURS, marker};
use super::svg::{Anchor, Rect, Svg, px, shorten};

/// One point of a line.
#[derive(Clone, Debug, PartialEq)]
pub struct LinePoint {
    /// Along.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Interval of `y`, drawn as a band.
    pub interval: Option<(f64, f64)>,
    /// What the tooltip says; empty for none.
    pub label: String,
}

/// One line. Points are joined in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name; lines of several panels that share one share the legend's entry.
    pub name: String,
    /// Its colour, modulo [`COLOURS`].
    pub colour: usize,
    /// Dashed: what was measured, where what is predicted is solid.
    pub dashed: bool,
    /// Its points.
    pub points: Vec<LinePoint>,
}

/// Some lines under a title of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct LinePanel {
    /// The panel's title.
    pub title: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// Lines over one pair of axes; `even` marks the break-even, where nothing is won or lost.
pub fn lines(title: &str, caption: &str, x: &Axis, y: &Axis, even: Option<f64>, lines: &[Line]) -> Figure {
    let mut canvas = Canvas::new(title, caption, &legend(lines.iter(), even));
    let area = Rect { x: 74.0, y: canvas.top + 8.0, w: WIDTH - 74.0 - 28.0, h: 380.0 };
    let scales = scales(x, y, even, lines.iter(), area);
    canvas.axes(area, (x, &scales.0), (y, &scales.1), true);
    draw(&mut canvas.svg, area, &scales, even, lines);
    canvas.finish(area.bottom() + 52.0)
}

/// Panels beside and below one another with the same axes, so that heights compare.
pub fn panels(title: &str, caption: &str, x: &Axis, y: &Axis, even: Option<f64>, panels: &[LinePanel]) -> Figure {
    let all = || panels.iter().flat_map(|p| &p.lines);
    let mut canvas = Canvas::new(title, caption, &legend(all(), even));
    // Four fill a square better than three and one.
    let columns = if panels.len() == 4 { 2 } else { panels.len().clamp(1, 3) };
    let (left, gap) = (74.0, if columns == 1 { 0.0 } else { 52.0 });
    let width = (WIDTH - left - 28.0 - gap * (columns as f64 - 1.0)) / columns as f64;
    let height = if columns == 3 { 170.0 } else { 230.0 };
    let pitch = height + 50.0;
    let rows = panels.len().div_ceil(columns);
    let top = canvas.top + 26.0;
    for (i, panel) in panels.iter().enumerate() {
        let area = Rect {
            x: left + (i % columns) as f64 * (width + gap),
            y: top + (i / columns) as f64 * pitch,
            w: width,
            h: height,
        };
        let scales = scales(x, y, even, all(), area);
        canvas.axes(area, (x, &scales.0), (y, &scales.1), false);
        let name = shorten(&panel.title, 13.0, width);
        canvas.svg.text("t b", (area.x, area.y - 8.0), Anchor::Start, &name);
        draw(&mut canvas.svg, area, &scales, even, &panel.lines);
    }
    let bottom = top + (rows.max(1) - 1) as f64 * pitch + height;
    canvas.svg.text("t", (WIDTH / 2.0, bottom + 36.0), Anchor::Middle, &x.label);
    canvas.svg.upright("t", (18.0, (top + bottom) / 2.0), &y.label);
    canvas.finish(bottom + 52.0)
}

fn legend<'a>(lines: impl Iterator<Item = &'a Line>, even: Option<f64>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in lines {
        if !entries.iter().any(|e| e.name == line.name) {
            let key = if line.dashed { Key::Dashed } else { Key::Line };
            entries.push(Entry { name: line.name.clone(), colour: line.colour, key });
        }
    }
    if even.is_some() {
        entries.push(Entry { name: "break-even".into(), colour: 0, key: Key::Even });
    }
    entries
}

fn scales<'a>(
    x: &Axis,
    y: &Axis,
    even: Option<f64>,
    lines: impl Iterator<Item = &'a Line> + Clone,
    area: Rect,
) -> (Scale, Scale) {
    let points = || lines.clone().flat_map(|l| &l.points);
    let across = extent(x, points().map(|p| p.x));
    let up =
        extent(y, points().flat_map(|p| [Some(p.y), p.interval.map(|i| i.0), p.interval.map(|i| i.1), even]).flatten());
    (Scale::new(x, across, area.x, area.right()), Scale::new(y, up, area.bottom(), area.y))
}

fn draw(svg: &mut Svg, area: Rect, (x, y): &(Scale, Scale), even: Option<f64>, lines: &[Line]) {
    svg.clipped(area, |svg| {
        for line in lines {
            let c = line.colour % COLOURS;
            let inside = line.points.iter().filter_map(|p| Some((p, p.interval?)));
            let upper: Vec<String> = inside.clone().map(|(p, i)| place(x.at(p.x), y.at(i.1))).collect();
            let lower: Vec<String> = inside.rev().map(|(p, i)| place(x.at(p.x), y.at(i.0))).collect();
            if upper.len() > 1 {
                svg.path(&format!("f{c} v"), &format!("M{} L{}Z", upper.join(" L"), lower.join(" L")), "");
            }
        }
    });
    if let Some(even) = even {
        svg.line("e", (area.x, y.at(even)), (area.right(), y.at(even)));
    }
    for line in lines {
        let c = line.colour % COLOURS;
        let dash = if line.dashed { " d" } else { "" };
        let path: Vec<String> = line.points.iter().map(|p| place(x.at(p.x), y.at(p.y))).collect();
        if path.len() > 1 {
            svg.path(&format!("l s{c}{dash}"), &format!("M{}", path.join(" L")), "");
        }
        for p in &line.points {
            svg.path(&format!("f{c}"), &marker(c, (x.at(p.x), y.at(p.y)), 3.5), &p.label);
        }
    }
}

fn place(x: f64, y: f64) -> String {
    format!("{} {}", px(x), px(y))
}
