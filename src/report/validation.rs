//! Errors of predictions, for people and as CSV.

use super::grid::Grid;
use crate::calibrate::validate::Validation;
use std::fmt::Write as _;
use std::io::Write;

/// One row a group.
///
/// # Errors
/// The writer's.
pub fn csv(answer: &Validation, to: &mut dyn Write) -> std::io::Result<()> {
    let mut writer = csv::Writer::from_writer(to);
    for group in &answer.groups {
        writer.serialize(group).map_err(std::io::Error::other)?;
    }
    writer.flush()
}

/// The groups.
pub fn grid(answer: &Validation) -> Grid {
    let mut grid = Grid::new(&[
        "device",
        "op",
        "dtype",
        "pattern",
        "kernel",
        "#rows",
        "#mean %",
        "#median %",
        "#p90 %",
        "#bias %",
        "#tau",
    ]);
    for g in &answer.groups {
        let number = |v: f64| format!("{v:.1}");
        grid.push([
            g.device.clone(),
            g.op.clone(),
            g.dtype.clone(),
            g.pattern.clone(),
            g.kernel.clone(),
            g.rows.to_string(),
            number(g.mape),
            number(g.median_ape),
            number(g.p90_ape),
            format!("{:+.1}", g.bias),
            g.kendall_tau.map_or_else(|| "–".into(), |t| format!("{t:.2}")),
        ]);
    }
    grid
}

/// For people: the groups, then what they amount to.
pub fn table(answer: &Validation) -> String {
    let table = grid(answer).text(None, false);
    let mut text = format!("{table}\n\n");
    let to = &mut text;
    let show = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{v:.1} %"));
    let _ = writeln!(
        to,
        "{} rows, {} skipped: mean error {}, median {}, 90th percentile {}, bias {}",
        answer.rows,
        answer.skipped,
        show(answer.mape),
        show(answer.median_ape),
        show(answer.p90_ape),
        show(answer.bias)
    );
    let _ = writeln!(
        to,
        "inside the predicted interval {}; rank correlation {}",
        show(answer.coverage),
        answer.kendall_tau.map_or_else(|| "–".into(), |t| format!("{t:.3}"))
    );
    if answer.regret_cases > 0 {
        let _ =
            writeln!(to, "following the prediction costs {} over {} choices", show(answer.regret), answer.regret_cases);
    }
    if answer.gain_pairs > 0 {
        let _ = writeln!(to, "sign of 2:4's gain right in {} of {} pairs", show(answer.gain_sign), answer.gain_pairs);
    }
    for (reason, rows) in &answer.skipped_because {
        let _ = writeln!(to, "skipped {rows}: {reason}");
    }
    text
}
