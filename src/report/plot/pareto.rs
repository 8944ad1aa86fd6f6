//! Fronts: less time against more of what is kept.

use super::Figure;
use super::chart::{Canvas, Entry, Key, Labels, WIDTH};
use super::scale::{Axis, Scale, extent};
use super::style::{COLOURS, marker};
use super::svg::{Rect, px};

/// A choice: what it costs and what it keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Less is better.
    pub cost: f64,
    /// More is better.
    pub quality: f64,
    /// Short name, written beside it where there is room.
    pub name: String,
    /// What the tooltip says; empty for none.
    pub label: String,
}

/// The choices on one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Front {
    /// Its name.
    pub name: String,
    /// All choices, in any order.
    pub candidates: Vec<Candidate>,
}

/// Those that no other beats in both respects, by rising cost; equal ones once.
pub fn undominated(candidates: &[Candidate]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&candidates[a], &candidates[b]);
        a.cost.total_cmp(&b.cost).then(b.quality.total_cmp(&a.quality))
    });
    let mut best = f64::NEG_INFINITY;
    order.retain(|&i| {
        let better = candidates[i].quality > best;
        best = best.max(candidates[i].quality);
        better
    });
    order
}

/// Above this many choices, dominated ones are not drawn.
const MANY: usize = 2000;

/// The front of each device as steps, with dominated choices faint.
pub fn pareto(title: &str, caption: &str, cost: &Axis, quality: &Axis, fronts: &[Front]) -> Figure {
    let legend: Vec<Entry> =
        fronts.iter().enumerate().map(|(i, f)| Entry { name: f.name.clone(), colour: i, key: Key::Line }).collect();
    let mut canvas = Canvas::new(title, caption, &legend);
    let area = Rect { x: 84.0, y: canvas.top + 8.0, w: WIDTH - 84.0 - 28.0, h: 400.0 };
    let all = || fronts.iter().flat_map(|f| &f.candidates);
    let x = Scale::new(cost, extent(cost, all().map(|c| c.cost)), area.x, area.right());
    let y = Scale::new(quality, extent(quality, all().map(|c| c.quality)), area.bottom(), area.y);
    canvas.axes(area, (cost, &x), (quality, &y), true);
    let few = all().count() <= MANY;
    let svg = &mut canvas.svg;
    let mut labels = Labels::default();
    let mut wanted = Vec::new();
    for (i, front) in fronts.iter().enumerate() {
        let c = i % COLOURS;
        let best = undominated(&front.candidates);
        let mut path = String::new();
        for (k, &j) in best.iter().enumerate() {
            let p = &front.candidates[j];
            let (px_, py_) = (px(x.at(p.cost)), px(y.at(p.quality)));
            // Between two choices the front is a step: nothing better is known there.
            path += &if k == 0 { format!("M{px_} {py_}") } else { format!(" H{px_} V{py_}") };
        }
        if best.len() > 1 {
            svg.path(&format!("l s{c}"), &path, "");
        }
        for (j, p) in front.candidates.iter().enumerate() {
            let on = best.contains(&j);
            if !on && !few {
                continue;
            }
            let at = (x.at(p.cost), y.at(p.quality));
            let class = if on { format!("f{c}") } else { format!("f{c} o") };
            svg.path(&class, &marker(c, at, if on { 4.0 } else { 3.0 }), &p.label);
            labels.keep_free(Rect { x: at.0 - 4.0, y: at.1 - 4.0, w: 8.0, h: 8.0 });
            if on && !p.name.is_empty() {
                wanted.push((at, p.name.as_str()));
            }
        }
    }
    for (at, name) in wanted {
        labels.place(svg, "m n z", (at.0, at.1, 4.0), name, area);
    }
    canvas.finish(area.bottom() + 52.0)
}
