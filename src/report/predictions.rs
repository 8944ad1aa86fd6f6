//! Predictions beside measurements, row by row: the file from which figures and one's own statistics are made.

use super::plot::{Axis, Dot, Dots, Figure, Line, LinePanel, LinePoint, Unit, panels, predicted_against_measured};
use super::table::time;
use crate::bench::Sample;
use crate::calibrate::fidelity::Gain;
use crate::calibrate::validate::Outcome;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;

/// A measured operation and its prediction. The order of the fields is the order of the columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Who measured.
    pub source: String,
    /// On which device.
    pub device: String,
    /// What.
    pub op: String,
    /// Operand format.
    pub dtype: String,
    /// Repetitions.
    pub batch: u64,
    /// Rows of activations.
    pub m: u64,
    /// Outputs.
    pub n: u64,
    /// The reduction.
    pub k: u64,
    /// Pattern of the weights.
    pub pattern: String,
    /// The library's kernel, where it is known.
    pub kernel: String,
    /// `warm`, `cold` or `host`.
    pub timing: String,
    /// Measured time in seconds.
    pub measured_s: f64,
    /// Predicted time in seconds; empty where the row was skipped.
    pub predicted_s: Option<f64>,
    /// Lower end of the 90 % interval.
    pub predicted_low_s: Option<f64>,
    /// Upper end.
    pub predicted_high_s: Option<f64>,
    /// Why the row was skipped.
    pub skipped: String,
}

/// One record a sample, in the samples' order.
pub fn predictions(samples: &[Sample], outcomes: &[Outcome]) -> Vec<Prediction> {
    let record = |(s, outcome): (&Sample, &Outcome)| {
        let predicted = outcome.as_ref().ok();
        Prediction {
            source: s.source.clone(),
            device: s.device.clone(),
            op: s.op.name().into(),
            dtype: s.dtype.clone(),
            batch: s.batch,
            m: s.m,
            n: s.n,
            k: s.k,
            pattern: s.pattern.clone(),
            kernel: s.kernel.clone(),
            timing: s.timing.name().into(),
            measured_s: s.seconds(),
            predicted_s: predicted.map(|p| p.time),
            predicted_low_s: predicted.map(|p| p.interval.0),
            predicted_high_s: predicted.map(|p| p.interval.1),
            skipped: outcome.as_ref().err().cloned().unwrap_or_default(),
        }
    };
    samples.iter().zip(outcomes).map(record).collect()
}

/// Writes records as CSV.
///
/// # Errors
/// The writer's.
pub fn write(records: &[Prediction], out: &mut dyn Write) -> std::io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    for record in records {
        writer.serialize(record).map_err(std::io::Error::other)?;
    }
    writer.flush()
}

/// Reads records.
///
/// # Errors
/// [`Error::Parse`] with the line at fault.
pub fn read(text: &[u8], origin: &str) -> Result<Vec<Prediction>> {
    let refuse = |e: csv::Error| Error::Parse { origin: origin.to_owned(), message: e.to_string() };
    csv::Reader::from_reader(text).deserialize().collect::<Result<_, _>>().map_err(refuse)
}

/// The family of a pattern, for legends: its spelling without numbers that vary from row to row.
fn family(pattern: &str) -> &str {
    if pattern.matches(':').count() == 2 {
        "V:N:M"
    } else {
        pattern.split(['@', ':']).next().map_or(pattern, |f| if f.parse::<u64>().is_ok() { pattern } else { f })
    }
}

/// Predicted against measured, one colour a class of operation and pattern; `None` where nothing was predicted.
pub fn scatter(title: &str, records: &[Prediction]) -> Option<Figure> {
    let mut groups: BTreeMap<String, Vec<Dot>> = BTreeMap::new();
    let mut errors = Vec::new();
    let mut inside = 0usize;
    for r in records {
        let Some(predicted) = r.predicted_s else { continue };
        let family = family(&r.pattern);
        let name = if family == "dense" { r.op.clone() } else { format!("{} {family}", r.op) };
        let error = predicted / r.measured_s - 1.0;
        errors.push(error.abs());
        let within = |(low, high)| r.measured_s >= low && r.measured_s <= high;
        inside += usize::from(r.predicted_low_s.zip(r.predicted_high_s).is_some_and(within));
        let label = format!(
            "{} {} {}×({}×{}×{}) {} {} on {}: measured {}, predicted {} ({:+.0} %)",
            r.op,
            r.dtype,
            r.batch,
            r.m,
            r.n,
            r.k,
            r.pattern,
            r.timing,
            r.device,
            time(r.measured_s),
            time(predicted),
            100.0 * error
        );
        groups.entry(name).or_default().push(Dot { measured: r.measured_s, predicted, label });
    }
    if errors.is_empty() {
        return None;
    }
    errors.sort_by(f64::total_cmp);
    let share = |limit: f64| 100.0 * errors.iter().filter(|e| **e <= limit).count() as f64 / errors.len() as f64;
    let caption = format!(
        "{} measurements, {} more not predicted: mean absolute error {:.1} %, median {:.1} %; {:.0} % within ±10 %, {:.0} % \
         within ±25 %, {:.0} % inside their predicted 90 % interval. Bands: ±10 % and ±25 %.",
        errors.len(),
        records.len() - errors.len(),
        100.0 * errors.iter().sum::<f64>() / errors.len() as f64,
        100.0 * errors[errors.len() / 2],
        share(0.1),
        share(0.25),
        100.0 * inside as f64 / errors.len() as f64,
    );
    let mut dots: Vec<Dots> = groups.into_iter().map(|(name, dots)| Dots { name, dots }).collect();
    // The large groups first: colours that differ most go to them, and small ones are drawn over them.
    dots.sort_by(|a, b| b.dots.len().cmp(&a.dots.len()).then(a.name.cmp(&b.name)));
    let rest = if dots.len() > 8 { dots.split_off(7) } else { Vec::new() };
    if !rest.is_empty() {
        let all = rest.into_iter().flat_map(|d| d.dots).collect();
        dots.push(Dots { name: "other".into(), dots: all });
    }
    Some(predicted_against_measured(title, &caption, &dots))
}

/// Gain of 2:4 over problem size, a panel a device, predicted and measured; `None` without pairs.
pub fn gain_figure(gains: &[Gain]) -> Option<Figure> {
    let mut devices: BTreeMap<&str, BTreeMap<&str, Vec<&Gain>>> = BTreeMap::new();
    for gain in gains {
        devices.entry(&gain.device).or_default().entry(&gain.dtype).or_default().push(gain);
    }
    if devices.is_empty() {
        return None;
    }
    let mut dtypes: Vec<&str> = gains.iter().map(|g| g.dtype.as_str()).collect();
    dtypes.sort_unstable();
    dtypes.dedup();
    let line = |dtype: &str, some: &[&Gain], measured: bool| {
        // Sources that measured the same decade are averaged by their pairs, in the logarithm.
        let mut sums: BTreeMap<u64, (f64, u64)> = BTreeMap::new();
        for g in some {
            let sum = sums.entry(g.operations as u64).or_default();
            let value = if measured { g.measured } else { g.predicted };
            *sum = (sum.0 + g.pairs as f64 * value.ln(), sum.1 + g.pairs);
        }
        let points = sums.into_iter().map(|(operations, (sum, pairs))| {
            let y = (sum / pairs as f64).exp();
            // A decade is drawn at its geometric middle.
            let x = operations as f64 * 10f64.sqrt();
            let label = format!("{dtype}, {} pairs: {y:.2}×", pairs);
            LinePoint { x, y, interval: None, label }
        });
        Line {
            name: format!("{dtype} {}", if measured { "measured" } else { "predicted" }),
            colour: dtypes.iter().position(|d| *d == dtype).unwrap_or(0),
            dashed: measured,
            points: points.collect(),
        }
    };
    let shown: Vec<LinePanel> = devices
        .into_iter()
        .map(|(device, by_dtype)| LinePanel {
            title: device.to_owned(),
            lines: by_dtype
                .iter()
                .flat_map(|(dtype, some)| [line(dtype, some, false), line(dtype, some, true)])
                .collect(),
        })
        .collect();
    Some(panels(
        "2:4 speedup over problem size",
        "Medians within a decade of problem size over pairs of a dense and a 2:4 kernel of the same product; solid \
         predicted, dashed measured. One operation is half a multiply–accumulate.",
        &Axis::log("operations of the product (two a multiply–accumulate)", Unit::Prefixed("OP")),
        &Axis::log("speedup of 2:4 over dense", Unit::Factor),
        Some(1.0),
        &shown,
    ))
}
