//! How figures look: colours that the colour-blind tell apart, for light and dark surroundings.
//!
//! The colours are those of Okabe and Ito (Color Universal Design, 2008), ordered by contrast against white and black;
//! series differ by marker and dash as well, so that a grey print still reads. Rules name colours outright instead of CSS
//! variables, because tools that turn SVG into PDF know classes but not variables.

use std::fmt::Write as _;

/// Colours before they repeat.
pub const COLOURS: usize = 8;

/// (light, dark) of each series colour.
const PALETTE: [(&str, &str); COLOURS] = [
    ("#0072b2", "#4aa8e0"), // blue
    ("#d55e00", "#f0803c"), // vermillion
    ("#009e73", "#2fc79b"), // bluish green
    ("#cc79a7", "#e29bc2"), // reddish purple
    ("#e69f00", "#f2b632"), // orange
    ("#56b4e9", "#8fd0f5"), // sky blue
    ("#5b6470", "#b4bcc6"), // grey, for black
    ("#b3a400", "#f0e442"), // yellow, darkened on white
];

const LIGHT: [&str; 6] = ["#ffffff", "#1b1f24", "#57606a", "#e4e8ec", "#8b949e", "#a9b1ba"];
const DARK: [&str; 6] = ["#14181d", "#e6eaef", "#9ba4ae", "#2a3038", "#6b747e", "#66707b"];

/// The rules of all figures, once a page or file.
pub fn css() -> String {
    let mut css = String::from(
        ".hw{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif;font-size:12px}\n\
         .hw .h{font-size:15px;font-weight:600}.hw .b{font-weight:600}.hw .n{font-size:11px}\n\
         .hw .l{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}.hw .k{fill:none;stroke-width:1}\n\
         .hw .d{stroke-dasharray:6 4}.hw .o{opacity:.35}.hw .u{fill-opacity:.6}.hw .v{opacity:.16}\n\
         .hw .p{fill:none;stroke-width:4;stroke-linecap:round;opacity:.55}\n\
         .hw .z{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}\n\
         .hw .g,.hw .a,.hw .e{fill:none;stroke-width:1}.hw .e{stroke-width:1.5;stroke-dasharray:2 3}\n",
    );
    let colours = |css: &mut String, base: [&str; 6], series: fn(&(&str, &str)) -> String| {
        let [ground, text, muted, grid, axis, soft] = base;
        let _ = writeln!(
            css,
            ".hw .bg{{fill:{ground}}}.hw .t{{fill:{text}}}.hw .m{{fill:{muted}}}.hw .g{{stroke:{grid}}}\
             .hw .a{{stroke:{axis}}}.hw .e{{stroke:{text}}}.hw .q{{fill:{soft}}}.hw .r{{stroke:{soft}}}.hw .z{{stroke:{ground}}}.hw .x{{stroke:{muted}}}"
        );
        for (i, colour) in PALETTE.iter().enumerate() {
            let colour = series(colour);
            let _ = write!(css, ".hw .f{i}{{fill:{colour}}}.hw .s{i}{{stroke:{colour}}}");
        }
        css.push('\n');
    };
    colours(&mut css, LIGHT, |c| c.0.to_owned());
    css.push_str("@media (prefers-color-scheme:dark){\n");
    colours(&mut css, DARK, |c| c.1.to_owned());
    css.push_str("}\n");
    css
}

/// A marker's path around a point: a shape of its own for each colour.
pub(super) fn marker(series: usize, (x, y): (f64, f64), r: f64) -> String {
    use super::svg::px;
    let p = |dx: f64, dy: f64| format!("{} {}", px(x + dx * r), px(y + dy * r));
    let corners: &[(f64, f64)] = match series % COLOURS {
        1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2 => &[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        3 => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
        4 => &[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
        5 => &[
            (-0.4, -1.2),
            (0.4, -1.2),
            (0.4, -0.4),
            (1.2, -0.4),
            (1.2, 0.4),
            (0.4, 0.4),
            (0.4, 1.2),
            (-0.4, 1.2),
            (-0.4, 0.4),
            (-1.2, 0.4),
            (-1.2, -0.4),
            (-0.4, -0.4),
        ],
        6 => &[(-1.3, -0.6), (1.3, -0.6), (1.3, 0.6), (-1.3, 0.6)],
        7 => &[(-0.6, -1.3), (0.6, -1.3), (0.6, 1.3), (-0.6, 1.3)],
        _ => {
            let r = px(r);
            return format!("M{} a{r} {r} 0 1 0 {} 0 a{r} {r} 0 1 0 -{} 0Z", p(-1.0, 0.0), d(&r), d(&r));
        }
    };
    let points: Vec<String> = corners.iter().map(|&(dx, dy)| p(dx, dy)).collect();
    format!("M{}Z", points.join(" L"))
}

/// Twice a radius that was already rounded.
fn d(radius: &str) -> String {
    super::svg::px(2.0 * radius.parse::<f64>().unwrap_or(0.0))
}
