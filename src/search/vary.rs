//! Axes of a hardware space: any field of a profile, by its path in the TOML, over a list or a range of values.
//!
//! `device.systolic.rows=16..256*2` (geometric), `device.systolic.rows=16..64+16` (arithmetic),
//! `memory.bandwidth=100..800 GB/s:8` (eight linear points), `device.systolic.dataflow=weight-stationary,output-stationary`.

use crate::error::{Error, Result};
use crate::profile::Profile;
use std::str::FromStr;
use toml::Value;

/// One axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Path of the field, keys joined by dots; a number is a place in an array.
    pub path: String,
    /// The values that it takes, in order.
    pub values: Vec<Value>,
}

/// Most values of one axis.
const MOST: usize = 1_000_000;

impl Axis {
    /// A value as results spell it.
    pub fn text(&self, index: usize) -> String {
        self.values.get(index).map_or_else(String::new, |v| match v {
            Value::String(s) => s.clone(),
            other => other.to_string(),
        })
    }

    /// A value as a number: bare numbers alone; a quantity with a unit has none.
    pub fn number(&self, index: usize) -> f64 {
        match self.values.get(index) {
            Some(Value::Integer(i)) => *i as f64,
            Some(Value::Float(f)) => *f,
            _ => f64::NAN,
        }
    }
}

impl FromStr for Axis {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |reason: String| Error::argument("--vary", format!("`{text}`: {reason}"));
        let (path, values) = text
            .split_once('=')
            .ok_or_else(|| refuse("write PATH=VALUES, such as device.systolic.rows=16..256*2".into()))?;
        let (path, values) = (path.trim(), values.trim());
        if path.is_empty() || values.is_empty() {
            return Err(refuse("it lacks its path or its values".into()));
        }
        let values = match values.split_once("..") {
            Some((from, to)) => range(from.trim(), to.trim()).map_err(refuse)?,
            None => values.split(',').map(|v| scalar(v.trim())).collect(),
        };
        Ok(Self { path: path.to_owned(), values })
    }
}

fn scalar(text: &str) -> Value {
    if let Ok(i) = text.parse::<i64>() {
        return Value::Integer(i);
    }
    match text.parse::<f64>() {
        Ok(f) if f.is_finite() => Value::Float(f),
        _ => match text {
            "true" => Value::Boolean(true),
            "false" => Value::Boolean(false),
            _ => Value::String(text.trim_matches('"').to_owned()),
        },
    }
}

fn range(from: &str, to: &str) -> Result<Vec<Value>, String> {
    const HINT: &str = "a range ends in its step: 16..256*2, 16..64+16, or 100..800 GB/s:8";
    let split = to.rfind(['*', '+', ':']).ok_or(HINT)?;
    let (end, step) = (to[..split].trim(), &to[split + 1..]);
    let digits = end.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))).unwrap_or(end.len());
    let (end, unit) = (&end[..digits], end[digits..].trim());
    let number = |text: &str| -> Result<f64, String> {
        let value = text.trim().replace('_', "").parse::<f64>().ok().filter(|v| v.is_finite());
        value.ok_or_else(|| format!("`{text}` is not a number; {HINT}"))
    };
    let (a, b, by) = (number(from)?, number(end)?, number(step)?);
    if b < a {
        return Err(format!("{b} is below {a}"));
    }
    let values: Vec<f64> = match &to[split..=split] {
        "*" if by > 1.0 && a > 0.0 => {
            let count = ((b / a).ln() / by.ln() + 1e-9).floor() as usize + 1;
            limited(count)?;
            (0..count).map(|i| a * by.powi(i as i32)).collect()
        }
        "*" => return Err("a geometric range starts above zero and multiplies by more than one".into()),
        "+" if by > 0.0 => {
            let count = ((b - a) / by + 1e-9).floor() as usize + 1;
            limited(count)?;
            (0..count).map(|i| a + by * i as f64).collect()
        }
        "+" => return Err("an arithmetic range adds more than zero".into()),
        _ if by >= 1.0 && by.fract() == 0.0 => {
            let count = by as usize;
            limited(count)?;
            let last = (count - 1).max(1) as f64;
            (0..count).map(|i| a + (b - a) * i as f64 / last).collect()
        }
        _ => return Err("a number of points is a whole number from 1 on".into()),
    };
    let whole = unit.is_empty() && values.iter().all(|v| v.fract() == 0.0 && v.abs() < 9e15);
    Ok(values
        .into_iter()
        .map(|v| match (unit.is_empty(), whole) {
            (false, _) => Value::String(format!("{v} {unit}")),
            (true, true) => Value::Integer(v as i64),
            (true, false) => Value::Float(v),
        })
        .collect())
}

fn limited(count: usize) -> Result<(), String> {
    if count > MOST { Err(format!("{count} values on one axis are too many; give at most {MOST}")) } else { Ok(()) }
}

/// Sets the field at a path; missing tables on the way are made, so that optional fields can be varied.
///
/// # Errors
/// A path through something that is neither a table nor an array, or past an array's end; in words.
pub fn set(root: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let mut place = root;
    for key in path.split('.') {
        place = match place {
            Value::Table(table) => table.entry(key.to_owned()).or_insert_with(|| Value::Table(toml::map::Map::new())),
            Value::Array(items) => {
                let len = items.len();
                key.parse::<usize>()
                    .ok()
                    .and_then(|i| items.get_mut(i))
                    .ok_or_else(|| format!("`{key}` is no place in an array of {len}"))?
            }
            _ => return Err(format!("`{key}` lies inside a value that is no table")),
        };
    }
    *place = value;
    Ok(())
}

/// A profile with one field changed, checked.
///
/// # Errors
/// A path or value that it does not take, in words.
pub fn with(profile: &Profile, path: &str, value: Value) -> Result<Profile, String> {
    let mut root = toml::from_str(&profile.to_toml()).map_err(|e: toml::de::Error| e.message().to_owned())?;
    set(&mut root, path, value)?;
    self::profile(root)
}

/// The profile that a TOML value describes, checked as one that was read from a file.
///
/// # Errors
/// What is wrong with it, in words.
pub fn profile(value: Value) -> Result<Profile, String> {
    let profile: Profile = value.try_into().map_err(|e: toml::de::Error| e.message().to_owned())?;
    profile.check().map_err(|e| e.to_string())?;
    Ok(profile)
}
