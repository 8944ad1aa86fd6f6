//! What all charts share: the title and legend above, panels with axes and a grid below.

use super::Figure;
use super::scale::{Axis, Scale};
use super::style::{COLOURS, marker};
use super::svg::{Anchor, Rect, Svg, shorten, text_width};

/// Width of a figure in pixels.
pub(super) const WIDTH: f64 = 760.0;
const LEGEND_ROW: f64 = 19.0;

/// How a legend's entry looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A marker.
    Dot,
    /// A line with a marker.
    Line,
    /// A dashed line with a marker.
    Dashed,
    /// The dotted line of the break-even.
    Even,
    /// A filled box.
    Box,
    /// A filled grey box.
    Grey,
}

/// A legend's entry: its words, its colour, how it is drawn.
pub(super) struct Entry {
    pub name: String,
    pub colour: usize,
    pub key: Key,
}

/// A figure being drawn.
pub(super) struct Canvas {
    pub svg: Svg,
    /// First free pixel row.
    pub top: f64,
    title: String,
    caption: String,
}

impl Canvas {
    /// Writes title and legend.
    pub fn new(title: &str, caption: &str, legend: &[Entry]) -> Self {
        let mut svg = Svg::default();
        svg.text("t h", (16.0, 26.0), Anchor::Start, &shorten(title, 15.0, WIDTH - 32.0));
        let (mut x, mut y) = (16.0, 48.0);
        for entry in legend {
            let width = 26.0 + text_width(&entry.name, 12.0) + 14.0;
            if x + width > WIDTH && x > 16.0 {
                (x, y) = (16.0, y + LEGEND_ROW);
            }
            let c = entry.colour % COLOURS;
            let middle = (x + 10.0, y - 4.0);
            match entry.key {
                Key::Dot => svg.path(&format!("f{c}"), &marker(c, middle, 4.0), ""),
                Key::Line | Key::Dashed => {
                    let dash = if entry.key == Key::Dashed { " d" } else { "" };
                    svg.line(&format!("l s{c}{dash}"), (x, y - 4.0), (x + 20.0, y - 4.0));
                    svg.path(&format!("f{c}"), &marker(c, middle, 3.5), "");
                }
                Key::Even => svg.line("e", (x, y - 4.0), (x + 20.0, y - 4.0)),
                Key::Box => svg.rect(&format!("f{c}"), Rect { x: x + 4.0, y: y - 10.0, w: 12.0, h: 12.0 }, 2.0, ""),
                Key::Grey => svg.rect("q", Rect { x: x + 4.0, y: y - 10.0, w: 12.0, h: 12.0 }, 2.0, ""),
            }
            svg.text("t", (x + 26.0, y), Anchor::Start, &shorten(&entry.name, 12.0, WIDTH - x - 40.0));
            x += width;
        }
        let top = if legend.is_empty() { 38.0 } else { y + 10.0 };
        Self { svg, top, title: title.to_owned(), caption: caption.to_owned() }
    }

    /// The finished figure.
    pub fn finish(self, height: f64) -> Figure {
        Figure { title: self.title, caption: self.caption, width: WIDTH, height, body: self.svg.0 }
    }

    /// Grid, ticks and labels around a rectangle.
    pub fn axes(&mut self, area: Rect, x: (&Axis, &Scale), y: (&Axis, &Scale), labels: bool) {
        let svg = &mut self.svg;
        let most = (area.w / 80.0).max(2.0) as usize;
        // Labels must not run into one another: each needs its own width.
        let mut last = f64::NEG_INFINITY;
        for tick in x.1.ticks(x.0.unit, most) {
            let at = x.1.at(tick.value);
            svg.line("g", (at, area.y), (at, area.bottom()));
            if let Some(label) = tick.label {
                let half = text_width(&label, 11.0) / 2.0;
                if at - half > last + 6.0 && at + half < WIDTH - 2.0 {
                    svg.text("m n", (at, area.bottom() + 16.0), Anchor::Middle, &label);
                    last = at + half;
                }
            }
        }
        for tick in y.1.ticks(y.0.unit, (area.h / 36.0).max(3.0) as usize) {
            let at = y.1.at(tick.value);
            svg.line("g", (area.x, at), (area.right(), at));
            if let Some(label) = tick.label {
                svg.text("m n", (area.x - 8.0, at + 4.0), Anchor::End, &label);
            }
        }
        svg.line("a", (area.x, area.bottom()), (area.right(), area.bottom()));
        svg.line("a", (area.x, area.y), (area.x, area.bottom()));
        if labels {
            svg.text("t", (area.x + area.w / 2.0, area.bottom() + 36.0), Anchor::Middle, &x.0.label);
            svg.upright("t", (18.0, area.y + area.h / 2.0), &y.0.label);
        }
    }
}

/// Places short labels beside points, each where it hides nothing placed before; one that fits nowhere is left out.
#[derive(Default)]
pub(super) struct Labels(Vec<Rect>);

impl Labels {
    /// Keeps a rectangle free.
    pub fn keep_free(&mut self, rect: Rect) {
        self.0.push(rect);
    }

    /// Writes a label near a mark `(x, y, radius)` inside an area, if there is room.
    pub fn place(&mut self, svg: &mut Svg, class: &str, (x, y, r): (f64, f64, f64), text: &str, area: Rect) -> bool {
        let (w, h) = (text_width(text, 11.0), 12.0);
        let places = [
            (r + 4.0, 4.0),
            (-r - 4.0 - w, 4.0),
            (-w / 2.0, -r - 4.0),
            (-w / 2.0, r + 13.0),
            (r + 3.0, -r - 2.0),
            (r + 3.0, r + 10.0),
        ];
        for (dx, dy) in places {
            let rect = Rect { x: x + dx, y: y + dy - 10.0, w, h };
            let inside =
                rect.x >= area.x && rect.right() <= area.right() && rect.y >= area.y && rect.bottom() <= area.bottom();
            if inside && !self.0.iter().any(|r| r.overlaps(&rect)) {
                svg.text(class, (x + dx, y + dy), Anchor::Start, text);
                self.0.push(rect);
                return true;
            }
        }
        false
    }
}
