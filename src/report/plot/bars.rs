//! Horizontal bars: what each layer took before and after.

use super::Figure;
use super::chart::{Canvas, Entry, Key, WIDTH};
use super::scale::{Axis, Scale, extent};
use super::svg::{Anchor, Rect, shorten};

/// One row: a value before (grey) and after (coloured).
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Name at the left.
    pub name: String,
    /// The value compared with; nothing is drawn where it is unknown.
    pub before: Option<f64>,
    /// The value.
    pub after: f64,
    /// Interval of the value, drawn as a whisker.
    pub interval: Option<(f64, f64)>,
    /// Colour of the value, modulo [`super::COLOURS`].
    pub colour: usize,
    /// Short words at the right end.
    pub remark: String,
    /// What the tooltip says; empty for none.
    pub label: String,
}

/// Bars from top to bottom. `legend` names the colours of the values; `before` names the grey ones.
pub fn bars(title: &str, caption: &str, axis: &Axis, before: &str, legend: &[(usize, String)], bars: &[Bar]) -> Figure {
    let mut entries = Vec::new();
    if bars.iter().any(|b| b.before.is_some()) {
        entries.push(Entry { name: before.to_owned(), colour: 0, key: Key::Grey });
    }
    entries.extend(legend.iter().map(|(c, n)| Entry { name: n.clone(), colour: *c, key: Key::Box }));
    let mut canvas = Canvas::new(title, caption, &entries);
    let left = 216.0;
    let (pitch, thick) = (24.0, 9.0);
    let area = Rect { x: left, y: canvas.top + 8.0, w: WIDTH - left - 84.0, h: pitch * bars.len().max(1) as f64 + 6.0 };
    let range = extent(axis, bars.iter().flat_map(|b| [Some(b.after), b.before, b.interval.map(|i| i.1)]).flatten());
    let x = Scale::new(axis, (0.0, range.1), area.x, area.right());
    let svg = &mut canvas.svg;
    for tick in x.ticks(axis.unit, 7) {
        let at = x.at(tick.value);
        svg.line("g", (at, area.y), (at, area.bottom()));
        svg.text("m n", (at, area.bottom() + 16.0), Anchor::Middle, &tick.label.unwrap_or_default());
    }
    for (i, bar) in bars.iter().enumerate() {
        let y = area.y + 4.0 + i as f64 * pitch;
        svg.text("t n", (left - 8.0, y + 13.0), Anchor::End, &shorten(&bar.name, 11.0, left - 20.0));
        let mut end = x.at(bar.after);
        if let Some(value) = bar.before {
            svg.rect("q", Rect { x: area.x, y, w: x.at(value) - area.x, h: thick }, 1.5, &bar.label);
            end = end.max(x.at(value));
        }
        let (y, h) = if bar.before.is_some() { (y + thick, thick) } else { (y + 3.0, 1.3 * thick) };
        let class = format!("f{}", bar.colour % super::COLOURS);
        svg.rect(&class, Rect { x: area.x, y, w: x.at(bar.after) - area.x, h }, 1.5, &bar.label);
        if let Some((low, high)) = bar.interval {
            let middle = y + h / 2.0;
            svg.line("k x", (x.at(low), middle), (x.at(high), middle));
            end = end.max(x.at(high));
        }
        svg.text("m n", (end + 6.0, area.y + 4.0 + i as f64 * pitch + 13.0), Anchor::Start, &bar.remark);
    }
    svg.line("a", (area.x, area.y), (area.x, area.bottom()));
    svg.text("t", (area.x + area.w / 2.0, area.bottom() + 36.0), Anchor::Middle, &axis.label);
    canvas.finish(area.bottom() + 52.0)
}
