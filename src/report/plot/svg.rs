//! A small writer of SVG: elements with classes, text as text, tooltips, nothing that refers to another file.

use std::fmt::Write as _;

/// Where a text stands relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    /// The point is the text's left end.
    Start,
    /// Its middle.
    Middle,
    /// Its right end.
    End,
}

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Width.
    pub w: f64,
    /// Height.
    pub h: f64,
}

impl Rect {
    /// Right edge.
    pub fn right(&self) -> f64 {
        self.x + self.w
    }

    /// Bottom edge.
    pub fn bottom(&self) -> f64 {
        self.y + self.h
    }

    /// Whether two rectangles share any area.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.x < other.right() && other.x < self.right() && self.y < other.bottom() && other.y < self.bottom()
    }
}

/// The elements drawn so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Svg(pub String);

impl Svg {
    /// A straight line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (px(from.0), px(from.1), px(to.0), px(to.1));
        let _ = writeln!(self.0, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
    }

    /// A rectangle with corners rounded by `radius`, and a tooltip unless that is empty.
    pub fn rect(&mut self, class: &str, r: Rect, radius: f64, tooltip: &str) {
        let attributes = format!(
            r#"x="{}" y="{}" width="{}" height="{}" rx="{}""#,
            px(r.x),
            px(r.y),
            px(r.w.max(0.0)),
            px(r.h.max(0.0)),
            px(radius)
        );
        self.element("rect", class, &attributes, tooltip);
    }

    /// A path, `data` as in the attribute `d`.
    pub fn path(&mut self, class: &str, data: &str, tooltip: &str) {
        self.element("path", class, &format!(r#"d="{data}""#), tooltip);
    }

    /// A line of text.
    pub fn text(&mut self, class: &str, at: (f64, f64), anchor: Anchor, text: &str) {
        let _ = writeln!(
            self.0,
            r#"<text class="{class}" x="{}" y="{}"{}>{}</text>"#,
            px(at.0),
            px(at.1),
            anchored(anchor),
            escape(text)
        );
    }

    /// A line of text that reads upwards, centred on its point.
    pub fn upright(&mut self, class: &str, at: (f64, f64), text: &str) {
        let (x, y) = (px(at.0), px(at.1));
        let _ = writeln!(
            self.0,
            r#"<text class="{class}" transform="translate({x} {y}) rotate(-90)" text-anchor="middle">{}</text>"#,
            escape(text)
        );
    }

    /// Draws within a rectangle and shows nothing beyond it; coordinates stay those of the whole.
    pub fn clipped(&mut self, r: Rect, draw: impl FnOnce(&mut Self)) {
        let (x, y, w, h) = (px(r.x), px(r.y), px(r.w), px(r.h));
        let _ = writeln!(self.0, r#"<svg x="{x}" y="{y}" width="{w}" height="{h}" viewBox="{x} {y} {w} {h}">"#);
        draw(self);
        self.0.push_str("</svg>\n");
    }

    fn element(&mut self, tag: &str, class: &str, attributes: &str, tooltip: &str) {
        let _ = if tooltip.is_empty() {
            writeln!(self.0, r#"<{tag} class="{class}" {attributes}/>"#)
        } else {
            writeln!(self.0, r#"<{tag} class="{class}" {attributes}><title>{}</title></{tag}>"#, escape(tooltip))
        };
    }
}

fn anchored(anchor: Anchor) -> &'static str {
    match anchor {
        Anchor::Start => "",
        Anchor::Middle => r#" text-anchor="middle""#,
        Anchor::End => r#" text-anchor="end""#,
    }
}

/// A coordinate with at most two decimals.
pub(super) fn px(value: f64) -> String {
    let rounded = (value * 100.0).round() / 100.0;
    // Adding zero turns −0 into 0.
    format!("{}", if rounded.is_finite() { rounded + 0.0 } else { 0.0 })
}

/// Text as XML and HTML both read it; characters that XML 1.0 forbids are left out.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{FFFE}' | '\u{FFFF}' => {}
            c if c.is_control() && c != '\n' && c != '\t' => {}
            c => out.push(c),
        }
    }
    out
}

/// Approximate width in pixels of a text in a sans-serif face of a size: there is no font to ask.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let em: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'l' | 'j' | 'f' | 't' | 'r' | '.' | ',' | ':' | ';' | '|' | '\'' | '(' | ')' | ' ' => 0.39,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.9,
            c if c.is_ascii_uppercase() => 0.69,
            c if c.is_ascii() => 0.62,
            c if (c as u32) < 0x2E80 => 0.62,
            _ => 1.0,
        })
        .sum();
    em * size
}

/// A text cut to a width, its middle replaced by an ellipsis: names differ at both ends.
pub(super) fn shorten(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    for keep in (2..chars.len()).rev() {
        let head = keep.div_ceil(2);
        let cut: String = chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - (keep - head)..]).collect();
        if text_width(&cut, size) <= width {
            return cut;
        }
    }
    chars.first().map(char::to_string).unwrap_or_default()
}
