//! Examples to learn from: a task made by code, and files.

use crate::error::{Error, Result};
use crate::prune::npz;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Labelled examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Numbers of an example.
    pub features: usize,
    /// Number of classes; labels are below it.
    pub classes: usize,
    /// `[examples, features]`, row-major.
    pub inputs: Vec<f32>,
    /// The class of each example.
    pub labels: Vec<u32>,
}

/// Examples to learn from and examples to ask about.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// For training.
    pub train: Dataset,
    /// For testing.
    pub test: Dataset,
}

impl Dataset {
    /// A task that needs no file: 8×8 images of gratings at ten angles with drawn phase, wavelength and contrast under
    /// noise. The class is the angle; phases make single pixels useless.
    pub fn gratings(examples: usize, seed: u64) -> Self {
        const SIDE: usize = 8;
        const CLASSES: usize = 10;
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6a71);
        let (mut inputs, mut labels) = (Vec::with_capacity(examples * SIDE * SIDE), Vec::with_capacity(examples));
        for i in 0..examples {
            let class = i % CLASSES;
            let angle = std::f64::consts::PI * class as f64 / CLASSES as f64;
            let (phase, wave) = (std::f64::consts::TAU * rng.random::<f64>(), rng.random_range(3.0..4.5f64));
            let contrast = rng.random_range(0.6..1.0f64);
            let (sin, cos) = angle.sin_cos();
            for pixel in 0..SIDE * SIDE {
                let (x, y) = ((pixel % SIDE) as f64, (pixel / SIDE) as f64);
                let value = (std::f64::consts::TAU * (x * cos + y * sin) / wave + phase).sin();
                let noise = 0.3 * crate::sparsity::regularize::noise::normal(&mut rng);
                inputs.push((contrast * value + noise) as f32);
            }
            labels.push(class as u32);
        }
        Self { features: SIDE * SIDE, classes: CLASSES, inputs, labels }
    }

    /// Reads a `.csv` (numbers, the class last; a header is skipped) or a `.npz` with the arrays `x` (examples by
    /// anything) and `y` (classes).
    ///
    /// # Errors
    /// A file that cannot be read, holds something else than numbers, or classes that are no small whole numbers.
    pub fn from_file(path: &Path) -> Result<Self> {
        match path.extension().and_then(|e| e.to_str()) {
            Some("npz") => Self::from_npz(path),
            Some("csv") => Self::from_csv(path),
            _ => Err(bad(path, "examples come as .csv or .npz")),
        }
    }

    fn from_csv(path: &Path) -> Result<Self> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .trim(csv::Trim::All)
            .from_path(path)
            .map_err(|e| bad(path, e.to_string()))?;
        let (mut features, mut inputs, mut labels) = (0, Vec::new(), Vec::new());
        for (i, record) in reader.records().enumerate() {
            let record = record.map_err(|e| bad(path, e.to_string()))?;
            let values: Result<Vec<f32>, _> = record.iter().map(str::parse::<f32>).collect();
            let values = match values {
                Ok(values) => values,
                Err(_) if i == 0 => continue,
                Err(_) => return Err(bad(path, format!("row {} holds something that is no number", i + 1))),
            };
            let Some((label, row)) = values.split_last() else { continue };
            features = row.len();
            inputs.extend_from_slice(row);
            labels.push(*label);
        }
        Self::new(path, features, inputs, &labels)
    }

    fn from_npz(path: &Path) -> Result<Self> {
        let mut arrays = npz::read(path)?;
        let (Some(x), Some(y)) = (arrays.remove("x"), arrays.remove("y")) else {
            return Err(bad(path, "has no arrays `x` (examples) and `y` (classes)"));
        };
        let features = x.shape.iter().skip(1).product::<u64>() as usize;
        Self::new(path, features, x.values, &y.values)
    }

    fn new(path: &Path, features: usize, inputs: Vec<f32>, labels: &[f32]) -> Result<Self> {
        if features == 0 || labels.is_empty() || inputs.len() != features * labels.len() {
            let reason = format!("{} numbers are not {} examples of {features}", inputs.len(), labels.len());
            return Err(bad(path, reason));
        }
        if let Some(at) = inputs.iter().position(|v| !v.is_finite()) {
            return Err(bad(path, format!("example {} holds {}", at / features + 1, inputs[at])));
        }
        let class = |&l: &f32| ((0.0..4096.0).contains(&l) && l.fract() == 0.0).then_some(l as u32);
        let labels: Option<Vec<u32>> = labels.iter().map(class).collect();
        let labels = labels.ok_or_else(|| bad(path, "classes are whole numbers from 0 to 4095"))?;
        let classes = labels.iter().max().map_or(0, |&m| m as usize + 1);
        Ok(Self { features, classes, inputs, labels })
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Some of the examples, in this order: their numbers and classes.
    pub fn gather(&self, which: &[usize]) -> (Vec<f32>, Vec<u32>) {
        let row = |&i: &usize| self.inputs[i * self.features..(i + 1) * self.features].iter().copied();
        (which.iter().flat_map(row).collect(), which.iter().map(|&i| self.labels[i]).collect())
    }

    /// Keeps back a drawn share for testing, and divides all inputs by the largest magnitude of the others.
    ///
    /// # Errors
    /// A share that leaves nothing on one side.
    pub fn split(&self, share: f64, seed: u64) -> Result<Split> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        shuffle(&mut order, &mut ChaCha8Rng::seed_from_u64(seed ^ 0x5b117));
        let test = (share * self.len() as f64).round().clamp(0.0, self.len() as f64) as usize;
        if test == 0 || test == self.len() {
            let reason = format!("{share} of {} examples leaves none on one side", self.len());
            return Err(Error::argument("--test-share", reason));
        }
        let (train, test) = (self.gather(&order[test..]), self.gather(&order[..test]));
        let largest = train.0.iter().fold(0f32, |m, v| m.max(v.abs()));
        let scale = if largest > 0.0 { 1.0 / largest } else { 1.0 };
        let part = |(inputs, labels): (Vec<f32>, Vec<u32>)| Self {
            inputs: inputs.into_iter().map(|v| v * scale).collect(),
            labels,
            ..*self.shape()
        };
        Ok(Split { train: part(train), test: part(test) })
    }

    fn shape(&self) -> Box<Self> {
        Box::new(Self { features: self.features, classes: self.classes, inputs: Vec::new(), labels: Vec::new() })
    }
}

/// Puts items into a drawn order (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T], rng: &mut ChaCha8Rng) {
    for i in (1..items.len()).rev() {
        items.swap(i, rng.random_range(0..=i));
    }
}

fn bad(path: &Path, reason: impl Into<String>) -> Error {
    Error::Model { path: path.to_path_buf(), reason: reason.into() }
}
