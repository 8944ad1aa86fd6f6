//! Figures as SVG: text stays text, colours follow the reader's light or dark mode, nothing refers to another file.
//!
//! Each function takes plain numbers and gives a [`Figure`]; who has rows turns them into numbers first
//! ([`super::figures`]). [`Figure::standalone`] is a file, [`Figure::inline`] goes into a page that holds [`css`] once.

mod bars;
mod chart;
mod dag;
mod lines;
mod pareto;
mod roofline;
mod scale;
mod scatter;
mod style;
mod svg;

pub use bars::{Bar, bars};
pub use dag::{Node, network};
pub use lines::{Line, LinePanel, LinePoint, lines, panels};
pub use pareto::{Candidate, Front, pareto};
pub use roofline::{Mark, Roof, roofline};
pub use scale::{Axis, Unit};
pub use scatter::{Dot, Dots, predicted_against_measured};
pub use style::{COLOURS, css};
pub use svg::escape;

/// A drawn figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it shows, in a few words: its accessible name and the stem of its file.
    pub title: String,
    /// What a reader must know to read it: what is compared, what is assumed.
    pub caption: String,
    width: f64,
    height: f64,
    body: String,
}

impl Figure {
    /// A whole SVG file with its style.
    pub fn standalone(&self) -> String {
        let (w, h) = (svg::px(self.width), svg::px(self.height));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"hw\" role=\"img\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\">\n\
             <title>{}</title>\n<desc>{}</desc>\n<style>\n{}</style>\n<rect class=\"bg\" width=\"{w}\" height=\"{h}\"/>\n{}</svg>\n",
            escape(&self.title),
            escape(&self.caption),
            css(),
            self.body
        )
    }

    /// An element for a page that holds [`css`].
    pub fn inline(&self) -> String {
        let (w, h) = (svg::px(self.width), svg::px(self.height));
        format!(
            "<svg class=\"hw\" role=\"img\" aria-label=\"{}\" width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\">\n{}</svg>\n",
            escape(&self.title),
            self.body
        )
    }

    /// The title as a file's stem: lower case, words joined by hyphens.
    pub fn stem(&self) -> String {
        let mut stem = String::new();
        for c in self.title.to_lowercase().chars() {
            match c {
                c if c.is_ascii_alphanumeric() => stem.push(c),
                _ if stem.is_empty() || stem.ends_with('-') => {}
                _ => stem.push('-'),
            }
        }
        stem.trim_end_matches('-').chars().take(80).collect()
    }
}
