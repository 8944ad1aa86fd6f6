//! The fidelity report: errors by group under three ways of holding out, and 2:4's gain over problem size.

use super::validate::{Outcome, Validation, question};
use crate::bench::Sample;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Gain of 2:4 over dense within one decade of problem size: medians of predicted and measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// Device, as in the sample file.
    pub device: String,
    /// Operand format.
    pub dtype: String,
    /// Who measured.
    pub source: String,
    /// Least of the problems' operations (two a multiply–accumulate), a power of ten.
    pub operations: f64,
    /// Pairs of a dense and a 2:4 row of the same product.
    pub pairs: u64,
    /// Median measured dense time over 2:4 time.
    pub measured: f64,
    /// Median predicted one.
    pub predicted: f64,
}

/// Gains by device, dtype, source and decade of problem size.
pub fn gains(samples: &[Sample], outcomes: &[Outcome]) -> Vec<Gain> {
    // Of each question a row's place, and (predicted, measured) of its dense and its 2:4 answer.
    type Pair = (usize, [Option<(f64, f64)>; 2]);
    type Bin = (String, String, String, i32);
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for (i, (s, outcome)) in samples.iter().zip(outcomes).enumerate() {
        let (Ok(p), Some(side)) = (outcome, ["dense", "2:4"].iter().position(|n| *n == s.pattern)) else { continue };
        pairs.entry(question(s)).or_insert((i, [None; 2])).1[side] = Some((p.time, s.seconds()));
    }
    let mut bins: BTreeMap<Bin, Vec<(f64, f64)>> = BTreeMap::new();
    for (i, sides) in pairs.into_values() {
        let [Some(dense), Some(sparse)] = sides else { continue };
        let s = &samples[i];
        let decade = (2.0 * s.batch as f64 * s.m as f64 * s.n as f64 * s.k as f64).log10().floor() as i32;
        let key = (s.device.clone(), s.dtype.clone(), s.source.clone(), decade);
        bins.entry(key).or_default().push((dense.1 / sparse.1, dense.0 / sparse.0));
    }
    bins.into_iter()
        .map(|((device, dtype, source, decade), ratios)| Gain {
            device,
            dtype,
            source,
            operations: 10f64.powi(decade),
            pairs: ratios.len() as u64,
            measured: median(ratios.iter().map(|r| r.0).collect()),
            predicted: median(ratios.iter().map(|r| r.1).collect()),
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A class of rows that the report sums up, and whether a row belongs to it.
type Class = (&'static str, fn(&Sample) -> bool);

const CLASSES: &[Class] = &[
    ("gemm, dense, fp32", |s| s.op.name() == "gemm" && s.pattern == "dense" && s.dtype == "fp32"),
    ("gemm, dense, narrower", |s| s.op.name() == "gemm" && s.pattern == "dense" && s.dtype != "fp32"),
    ("bmm, fp32", |s| s.op.name() == "bmm" && s.dtype == "fp32"),
    ("gemm, 2:4", |s| s.pattern == "2:4"),
    ("gemm, V:N:M", |s| s.pattern.split(':').count() == 3),
    ("gemm, column vectors", |s| s.pattern.starts_with("block:")),
    ("gemm, unstructured (CSR)", |s| s.pattern.starts_with("unstructured")),
    ("attention", |s| s.op.name() == "attention"),
    ("softmax", |s| s.op.name() == "softmax"),
    ("norm", |s| s.op.name() == "layernorm"),
    ("elementwise", |s| s.op.name() == "elementwise"),
    ("conv2d", |s| s.op.name() == "conv2d"),
    ("network, fp32", |s| s.op.name() == "network" && s.dtype == "fp32"),
];

/// One way of holding out, with its outcomes and what they amount to.
pub struct Way<'a> {
    /// Its name.
    pub name: &'a str,
    /// Every row's outcome.
    pub outcomes: &'a [Outcome],
    /// Their errors.
    pub validation: &'a Validation,
}

/// The summary in Markdown: mean and median error by class for each way of holding out.
pub fn summary(samples: &[Sample], ways: &[Way]) -> String {
    let mut text =
        String::from("# Fidelity of the GPU model\n\nMean / median absolute percentage error (rows).\n\n| class |");
    for way in ways {
        let _ = write!(text, " {} |", way.name);
    }
    text.push_str("\n| --- |");
    text.push_str(&" --- |".repeat(ways.len()));
    for (name, belongs) in CLASSES {
        let _ = write!(text, "\n| {name} |");
        for way in ways {
            let mut errors: Vec<f64> = samples
                .iter()
                .zip(way.outcomes)
                .filter(|(s, _)| belongs(s))
                .filter_map(|(s, o)| Some(100.0 * (o.as_ref().ok()?.time / s.seconds() - 1.0).abs()))
                .collect();
            if errors.is_empty() {
                text.push_str(" – |");
                continue;
            }
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            let rows = errors.len();
            errors.sort_by(f64::total_cmp);
            let _ = write!(text, " {mean:.1} / {:.1} ({rows}) |", errors[rows / 2]);
        }
    }
    text.push('\n');
    let show = |v: Option<f64>| v.map_or_else(|| "–".to_owned(), |v| format!("{v:.1} %"));
    for way in ways {
        let v = way.validation;
        let _ = write!(
            text,
            "\n{}: inside the interval {}; sign of 2:4's gain right in {} of {} pairs; following the prediction costs {} \
             over {} choices.\n",
            way.name,
            show(v.coverage),
            show(v.gain_sign),
            v.gain_pairs,
            show(v.regret),
            v.regret_cases
        );
    }
    text
}
