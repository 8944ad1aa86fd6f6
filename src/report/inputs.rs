//! Files that a report is made of, told apart by what they hold.

use super::compare::Entry;
use super::estimate::Estimate;
use super::figures::totals::{Total, of_sweep};
use super::predictions::{Prediction, predictions};
use super::{predictions as records, sweep};
use crate::bench::Sample;
use crate::calibrate::validate::{Validation, predict, profiles_for};
use crate::error::{Error, Result};
use crate::profile::{Calibration, Profile};
use std::path::Path;

/// A file's name and content.
#[derive(Clone, Debug)]
pub struct Input {
    /// The file's stem.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// The JSON of `hwsim estimate`.
    Estimate(Box<Estimate>),
    /// A sweep's CSV, or a comparison's CSV or JSON: totals of networks.
    Totals(Vec<Total>),
    /// Points that a search visited, or what its methods chose.
    Search(Vec<Found>),
    /// Samples with predictions: a CSV of `hwsim validate --predictions`, or a sample file that is predicted here.
    Predictions(Vec<Prediction>),
    /// The JSON of `hwsim validate`.
    Validation(Box<Validation>),
}

/// One choice of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Network, machine, dtype and batch, in words.
    pub setting: String,
    /// Who chose: a method's name, or the machine where points were visited.
    pub series: String,
    /// What was chosen, in words.
    pub choice: String,
    /// Predicted seconds.
    pub latency_s: f64,
    /// Loss of quality.
    pub loss: f64,
}

/// Reads a file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Parse`] where the file is none of those that a report is made of.
pub fn read(path: &Path) -> Result<Input> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let origin = path.display().to_string();
    let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or("results").to_owned();
    let first = text.iter().find(|b| !b.is_ascii_whitespace());
    let content = match first {
        Some(b'{' | b'[') => json(&text, &origin)?,
        _ => table(&text, &origin)?,
    };
    Ok(Input { name, content })
}

fn unknown(origin: &str) -> Error {
    let message = "is no result that a report knows: give JSON of `estimate`, `compare` or `validate`, or CSV of `sweep`, \
                   `compare`, `search`, `validate --predictions` or `bench`";
    Error::Parse { origin: origin.to_owned(), message: message.into() }
}

fn json(text: &[u8], origin: &str) -> Result<Content> {
    let refuse = |e: serde_json::Error| Error::Parse { origin: origin.to_owned(), message: e.to_string() };
    let value: serde_json::Value = serde_json::from_slice(text).map_err(refuse)?;
    let has = |key: &str| value.get(key).is_some();
    if value.is_array() {
        let entries: Vec<Entry> = serde_json::from_value(value).map_err(|_| unknown(origin))?;
        return Ok(Content::Totals(entries.iter().map(Total::from).collect()));
    }
    if has("layers") && has("total") {
        // Read from the text again: a message then names the line.
        return Ok(Content::Estimate(Box::new(serde_json::from_slice(text).map_err(refuse)?)));
    }
    if has("groups") && has("mape") {
        return Ok(Content::Validation(Box::new(serde_json::from_slice(text).map_err(refuse)?)));
    }
    Err(unknown(origin))
}

fn table(text: &[u8], origin: &str) -> Result<Content> {
    let refuse = |e: csv::Error| Error::Parse { origin: origin.to_owned(), message: e.to_string() };
    let mut reader = csv::Reader::from_reader(text);
    let header = reader.headers().map_err(refuse)?.clone();
    let has = |names: &[&str]| names.iter().all(|n| header.iter().any(|h| h == *n));
    if has(&["layer_pattern", "latency_s"]) {
        return Ok(Content::Totals(of_sweep(&sweep::read(text, origin)?)));
    }
    if has(&["macs_kept", "speedup_low", "winner"]) {
        let entries = reader.deserialize().collect::<Result<Vec<Entry>, _>>().map_err(refuse)?;
        return Ok(Content::Totals(entries.iter().map(Total::from).collect()));
    }
    if has(&["measured_s", "predicted_s"]) {
        return Ok(Content::Predictions(records::read(text, origin)?));
    }
    if has(&["latency_us", "device", "op"]) {
        return Ok(Content::Predictions(predicted(&Sample::parse(text, origin)?)?));
    }
    if has(&["workload", "profile", "latency_s", "loss"]) {
        return found(reader, &header).map(Content::Search).map_err(refuse);
    }
    Err(unknown(origin))
}

/// Predicts samples with the profiles that answer to their devices.
fn predicted(samples: &[Sample]) -> Result<Vec<Prediction>> {
    let built_in: Vec<Profile> = Profile::built_in()?.into_iter().map(|(_, p)| p).collect();
    let profiles = profiles_for(samples, None, &built_in);
    Ok(predictions(samples, &predict(samples, &profiles, Calibration::shipped())?))
}

fn found(mut reader: csv::Reader<&[u8]>, header: &csv::StringRecord) -> Result<Vec<Found>, csv::Error> {
    let at = |name: &str| header.iter().position(|h| h == name);
    let (latency, loss, method) = (at("latency_s"), at("loss"), at("method"));
    // What a choice is called: the columns before the figures that do not already stand in the setting.
    let fixed = ["point", "workload", "profile", "batch", "dtype", "method", "minimized", "layer"];
    let words: Vec<usize> = (0..latency.unwrap_or(0))
        .filter(|&i| Some(i) != loss && !fixed.contains(&&header[i]) && !header[i].ends_with("_s"))
        .collect();
    let mut list = Vec::new();
    for record in reader.records() {
        let record = record?;
        let text = |name: &str| at(name).and_then(|i| record.get(i)).unwrap_or("").to_owned();
        let number = |i: Option<usize>| i.and_then(|i| record.get(i)?.parse::<f64>().ok());
        // A figure that is not known, or a layer's record, is no choice of a network.
        let (Some(latency_s), Some(loss)) = (number(latency), number(loss)) else { continue };
        if !text("layer").is_empty() {
            continue;
        }
        let mut setting = vec![text("workload")];
        if method.is_some() {
            setting.push(text("profile"));
        }
        setting.extend([text("dtype"), format!("batch {}", text("batch"))]);
        let choice: Vec<&str> = words.iter().filter_map(|&i| record.get(i)).filter(|w| !w.is_empty()).collect();
        list.push(Found {
            setting: setting.join(", "),
            series: if method.is_some() { text("method") } else { text("profile") },
            choice: choice.join(", "),
            latency_s,
            loss,
        });
    }
    Ok(list)
}
