//! The roofline (Williams et al., CACM 2009) with operations on it.

use super::Figure;
use super::chart::{Canvas, Entry, Key, Labels, WIDTH};
use super::scale::{Axis, Scale, Unit, extent};
use super::style::{COLOURS, marker};
use super::svg::{Anchor, Rect, px};

/// The peaks of a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Roof {
    /// Peak arithmetic, in MAC/s.
    pub macs_per_second: f64,
    /// Peak main-memory bandwidth, in B/s.
    pub bytes_per_second: f64,
}

/// An operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Short name, written beside the largest marks.
    pub name: String,
    /// Effectual MACs per byte of main memory.
    pub intensity: f64,
    /// Effectual MACs per second.
    pub rate: f64,
    /// Share of the whole time: the mark's area.
    pub share: f64,
    /// Colour, modulo [`COLOURS`].
    pub colour: usize,
    /// What the tooltip says; empty for none.
    pub label: String,
}

/// Largest marks that are named.
const NAMED: usize = 6;

/// Operations under the roof of a machine; `legend` names the colours.
pub fn roofline(title: &str, caption: &str, roof: &Roof, legend: &[(usize, String)], marks: &[Mark]) -> Figure {
    let entries: Vec<Entry> =
        legend.iter().map(|(c, n)| Entry { name: n.clone(), colour: *c, key: Key::Dot }).collect();
    let mut canvas = Canvas::new(title, caption, &entries);
    let xs = Axis::log("arithmetic intensity: effectual MACs per byte of main memory", Unit::Plain);
    let ys = Axis::log("effectual MACs per second", Unit::Prefixed("MAC/s"));
    let ridge = roof.macs_per_second / roof.bytes_per_second;
    let across = extent(&xs, marks.iter().map(|m| m.intensity).chain([ridge / 10.0, ridge * 10.0]));
    let up = extent(&ys, marks.iter().map(|m| m.rate).chain([roof.macs_per_second, roof.macs_per_second / 100.0]));
    let area = Rect { x: 96.0, y: canvas.top + 22.0, w: WIDTH - 96.0 - 28.0, h: 400.0 };
    let x = Scale::new(&xs, across, area.x, area.right());
    let y = Scale::new(&ys, (up.0, up.1 * 1.2), area.bottom(), area.y);
    canvas.axes(area, (&xs, &x), (&ys, &y), true);
    let svg = &mut canvas.svg;
    let (low, high) = x.range();
    let corner = (x.at(ridge), y.at(roof.macs_per_second));
    svg.clipped(area, |svg| {
        let foot = (x.at(low), y.at(low * roof.bytes_per_second));
        let end = (x.at(high), corner.1);
        let at = |p: (f64, f64)| format!("{} {}", px(p.0), px(p.1));
        svg.path("l x", &format!("M{} L{} L{}", at(foot), at(corner), at(end)), "");
    });
    let mut labels = Labels::default();
    let peak = format!("peak {}", Unit::Prefixed("MAC/s").show(roof.macs_per_second));
    svg.text("m n", (area.right() - 4.0, corner.1 - 7.0), Anchor::End, &peak);
    labels.keep_free(Rect { x: area.right() - 160.0, y: corner.1 - 20.0, w: 160.0, h: 20.0 });
    let bandwidth = format!("{} of main memory", Unit::Prefixed("B/s").show(roof.bytes_per_second));
    // The slope's name stands left of the ridge, above the line.
    svg.text("m n", (corner.0 - 10.0, corner.1 + 2.0), Anchor::End, &bandwidth);
    labels.keep_free(Rect { x: corner.0 - 190.0, y: corner.1 - 10.0, w: 190.0, h: 14.0 });
    let mut order: Vec<usize> = (0..marks.len()).collect();
    order.sort_by(|&a, &b| marks[b].share.total_cmp(&marks[a].share));
    let shown = |m: &Mark| m.rate > 0.0 && m.intensity > 0.0 && m.intensity.is_finite();
    let radius = |m: &Mark| 3.0 + 16.0 * m.share.clamp(0.0, 1.0).sqrt();
    for &i in order.iter().filter(|&&i| shown(&marks[i])) {
        let m = &marks[i];
        let c = m.colour % COLOURS;
        let at = (x.at(m.intensity), y.at(m.rate));
        let r = radius(m);
        svg.path(&format!("f{c} s{c} u"), &marker(c, at, r), &m.label);
        labels.keep_free(Rect { x: at.0 - r, y: at.1 - r, w: 2.0 * r, h: 2.0 * r });
    }
    let mut named = 0;
    for &i in order.iter().filter(|&&i| shown(&marks[i])) {
        let m = &marks[i];
        if named < NAMED && labels.place(svg, "t n z", (x.at(m.intensity), y.at(m.rate), radius(m)), &m.name, area) {
            named += 1;
        }
    }
    canvas.finish(area.bottom() + 52.0)
}
