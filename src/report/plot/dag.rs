//! A network as a layered graph: ranks from top to bottom, columns from left to right where it is long.

use super::Figure;
use super::chart::{Canvas, Entry, Key, WIDTH};
use super::style::COLOURS;
use super::svg::{Anchor, Rect, Svg, px, shorten};

/// A step of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Short words behind the name.
    pub remark: String,
    /// Places of the nodes that it reads, all before its own.
    pub inputs: Vec<usize>,
    /// Colour, modulo [`COLOURS`].
    pub colour: usize,
    /// Share of the whole time: the length of the bar in the box.
    pub share: f64,
    /// What the tooltip says; empty for none.
    pub label: String,
}

const BOX: f64 = 30.0;
const PITCH: f64 = 44.0;
const WIDEST: f64 = 216.0;
/// Ranks beyond which another column begins.
const COLUMN: usize = 18;

/// The graph; `legend` names the colours.
pub fn network(title: &str, caption: &str, legend: &[(usize, String)], nodes: &[Node]) -> Figure {
    let entries: Vec<Entry> =
        legend.iter().map(|(c, n)| Entry { name: n.clone(), colour: *c, key: Key::Box }).collect();
    let mut canvas = Canvas::new(title, caption, &entries);
    let ranks = ranks(nodes);
    let most = ranks.iter().map(Vec::len).max().unwrap_or(1);
    let columns = ranks.len().div_ceil(COLUMN).clamp(1, if most > 3 { 1 } else { 3 });
    let rows = ranks.len().div_ceil(columns).max(1);
    let (top, left, gutter) = (canvas.top + 12.0, 16.0, 34.0);
    let width = (WIDTH - 2.0 * left - gutter * columns as f64) / columns as f64;
    let mut boxes = vec![Rect { x: 0.0, y: 0.0, w: 0.0, h: 0.0 }; nodes.len()];
    for (r, rank) in ranks.iter().enumerate() {
        let (column, row) = (r / rows, r % rows);
        let slot = width / rank.len() as f64;
        let w = (slot - 8.0).min(WIDEST);
        for (k, &i) in rank.iter().enumerate() {
            let x = left + column as f64 * (width + gutter) + (k as f64 + 0.5) * slot - w / 2.0;
            boxes[i] = Rect { x, y: top + row as f64 * PITCH, w, h: BOX };
        }
    }
    let largest = nodes.iter().map(|n| n.share).fold(0.0, f64::max);
    let svg = &mut canvas.svg;
    for (i, node) in nodes.iter().enumerate() {
        for &from in node.inputs.iter().filter(|&&from| from < i) {
            svg.path("k a", &edge(boxes[from], boxes[i]), "");
        }
    }
    for (node, r) in nodes.iter().zip(&boxes) {
        draw(svg, node, *r, largest);
    }
    canvas.finish(top + rows as f64 * PITCH)
}

fn draw(svg: &mut Svg, node: &Node, r: Rect, largest: f64) {
    let c = node.colour % COLOURS;
    svg.rect("bg", r, 4.0, "");
    svg.rect(&format!("f{c} v"), r, 4.0, &node.label);
    svg.rect(&format!("k s{c}"), r, 4.0, "");
    if largest > 0.0 {
        let bar = Rect { x: r.x + 2.0, y: r.bottom() - 6.0, w: (r.w - 4.0) * node.share / largest, h: 4.0 };
        svg.rect(&format!("f{c}"), bar, 1.5, "");
    }
    let remark = super::svg::text_width(&node.remark, 11.0);
    let room = r.w - 14.0 - remark;
    let shows_remark = !node.remark.is_empty() && room > 30.0;
    let name = shorten(&node.name, 11.0, if shows_remark { room - 6.0 } else { r.w - 10.0 });
    svg.text("t n", (r.x + 6.0, r.y + 16.0), Anchor::Start, &name);
    if shows_remark {
        svg.text("m n", (r.right() - 6.0, r.y + 16.0), Anchor::End, &node.remark);
    }
}

/// Nodes by longest distance from a node without inputs; within a rank by the mean place of what they read.
fn ranks(nodes: &[Node]) -> Vec<Vec<usize>> {
    let mut depth = vec![0usize; nodes.len()];
    for (i, node) in nodes.iter().enumerate() {
        depth[i] = node.inputs.iter().filter(|&&f| f < i).map(|&f| depth[f] + 1).max().unwrap_or(0);
    }
    let mut ranks: Vec<Vec<usize>> = vec![Vec::new(); depth.iter().max().map_or(0, |d| d + 1)];
    let mut place = vec![0.5f64; nodes.len()];
    for (i, &d) in depth.iter().enumerate() {
        ranks[d].push(i);
    }
    for rank in &mut ranks {
        let centre = |i: usize, place: &[f64]| {
            let inputs: Vec<f64> = nodes[i].inputs.iter().filter(|&&f| f < i).map(|&f| place[f]).collect();
            if inputs.is_empty() { 0.5 } else { inputs.iter().sum::<f64>() / inputs.len() as f64 }
        };
        let mut keyed: Vec<(f64, usize)> = rank.iter().map(|&i| (centre(i, &place), i)).collect();
        keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (k, (slot, &(_, i))) in rank.iter_mut().zip(&keyed).enumerate() {
            *slot = i;
            place[i] = (k as f64 + 0.5) / keyed.len() as f64;
        }
    }
    ranks
}

/// A curve between two boxes: down to the next rank, around the side past other ranks, across to another column.
fn edge(from: Rect, to: Rect) -> String {
    let down = to.y - from.bottom();
    let same_column = to.y > from.y && (to.x - from.x).abs() < WIDEST.max(from.w).max(to.w) + 60.0;
    let (fx, tx) = (from.x + from.w / 2.0, to.x + to.w / 2.0);
    let p = |x: f64, y: f64| format!("{} {}", px(x), px(y));
    if same_column && down < PITCH {
        let middle = from.bottom() + down / 2.0;
        format!("M{} C{} {} {}", p(fx, from.bottom()), p(fx, middle), p(tx, middle), p(tx, to.y))
    } else if same_column {
        let (y1, y2) = (from.y + BOX / 2.0, to.y + BOX / 2.0);
        let side = from.right().max(to.right()) + (12.0 + down / 14.0).min(30.0);
        format!("M{} C{} {} {}", p(from.right(), y1), p(side, y1), p(side, y2), p(to.right(), y2))
    } else {
        let (y1, y2) = (from.y + BOX / 2.0, to.y + BOX / 2.0);
        let (x1, x2) = (from.right(), to.x);
        let reach = ((x2 - x1) / 2.0).max(18.0);
        format!("M{} C{} {} {}", p(x1, y1), p(x1 + reach, y1), p(x2 - reach, y2), p(x2, y2))
    }
}
