//! One page that needs nothing else: sections of words, figures and tables.

use super::grid::Grid;
use super::plot::{Figure, css, escape};
use std::fmt::Write as _;

/// A part of a report.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What is said before the figures.
    pub paragraphs: Vec<String>,
    /// Its figures.
    pub figures: Vec<Figure>,
    /// Its tables, each with a caption.
    pub tables: Vec<(String, Grid)>,
}

/// Rows of a table that a page shows; the CSV has all.
const ROWS: usize = 500;

const PAGE: &str = "\
:root{color-scheme:light dark}*{box-sizing:border-box}
body{margin:0;background:#f6f8fa;color:#1b1f24;font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif}
main,header,footer{max-width:860px;margin:0 auto;padding:0 20px}header{padding-top:28px}footer{padding-bottom:40px;color:#57606a;font-size:14px}
h1{font-size:28px;margin:0 0 4px}h2{font-size:21px;margin:44px 0 8px;overflow-wrap:anywhere}p{margin:8px 0;overflow-wrap:anywhere}
nav ul{margin:8px 0;padding:0;list-style:none;display:flex;flex-wrap:wrap;gap:2px 18px}a{color:#0072b2}
figure{margin:16px 0;background:#fff;border:1px solid #d0d7de;border-radius:6px;padding:8px 8px 12px}
figure>div,.wide{overflow-x:auto}figure svg{display:block;max-width:100%;height:auto;margin:0 auto}
figcaption{padding:4px 10px 0;font-size:14px;color:#57606a}
details{margin:12px 0}summary{cursor:pointer}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:3px 10px;text-align:left;white-space:nowrap;border-bottom:1px solid #d8dee4}th{border-bottom:2px solid #8b949e}
.r{text-align:right}.hint{display:none}
@media (max-width:640px){.hint{display:block;font-size:13px;padding:2px 10px;color:#57606a}body{font-size:15px}main,header,footer{padding-left:12px;padding-right:12px}figure{padding:4px 0 10px}figure svg{max-width:none;width:640px}}
@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6eaef}a{color:#4aa8e0}figure{background:#14181d;border-color:#30363d}
figcaption,footer,.hint{color:#9ba4ae}th,td{border-color:#2a3038}th{border-bottom-color:#6b747e}}
@media print{body{background:none}figure{break-inside:avoid}}
";

/// Shown where the screen is narrower than a figure.
const HINT: &str = "<span class=\"hint\" aria-hidden=\"true\">wider than this screen: scroll sideways →</span>";

/// The page. `footer` says how it was made.
pub fn page(title: &str, sections: &[Section], footer: &str) -> String {
    let title = escape(title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{PAGE}{}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n",
        css()
    );
    if sections.len() > 1 {
        out.push_str("<nav aria-label=\"Contents\"><ul>\n");
        for (i, section) in sections.iter().enumerate() {
            let _ = writeln!(out, "<li><a href=\"#s{i}\">{}</a></li>", escape(&section.title));
        }
        out.push_str("</ul></nav>\n");
    }
    out.push_str("</header>\n<main>\n");
    for (i, section) in sections.iter().enumerate() {
        let _ = writeln!(out, "<section id=\"s{i}\">\n<h2>{}</h2>", escape(&section.title));
        for paragraph in &section.paragraphs {
            let _ = writeln!(out, "<p>{}</p>", escape(paragraph));
        }
        for figure in &section.figures {
            let (drawn, caption) = (figure.inline(), escape(&figure.caption));
            // The scrolling box takes the keyboard: it is the only way to the right half without a pointer.
            let _ = writeln!(
                out,
                "<figure>{HINT}<div tabindex=\"0\">\n{drawn}</div>\n<figcaption>{caption}</figcaption></figure>"
            );
        }
        for (caption, grid) in &section.tables {
            table(&mut out, caption, grid);
        }
        out.push_str("</section>\n");
    }
    let _ = writeln!(out, "</main>\n<footer><p>{}</p></footer>\n</body>\n</html>", escape(footer));
    out
}

fn table(out: &mut String, caption: &str, grid: &Grid) {
    let long = grid.rows.len() > 12;
    let _ = writeln!(
        out,
        "<details{}><summary>{} ({} rows)</summary>\n<div class=\"wide\" tabindex=\"0\"><table>\n<thead><tr>",
        if long { "" } else { " open" },
        escape(caption),
        grid.rows.len()
    );
    let class = |i: usize| if grid.columns.get(i).is_some_and(|c| c.number) { " class=\"r\"" } else { "" };
    for (i, column) in grid.columns.iter().enumerate() {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(i), escape(&column.name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in grid.rows.iter().take(ROWS) {
        out.push_str("<tr>");
        for (i, cell) in row.iter().enumerate() {
            let text = escape(&cell.text);
            let _ = if cell.bold {
                write!(out, "<td{}><b>{text}</b></td>", class(i))
            } else {
                write!(out, "<td{}>{text}</td>", class(i))
            };
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    if grid.rows.len() > ROWS {
        let _ = writeln!(out, "<p>{} more rows stand in the file itself.</p>", grid.rows.len() - ROWS);
    }
    out.push_str("</details>\n");
}
