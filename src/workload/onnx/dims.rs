//! Binding of sizes that a model leaves open.

use super::proto::{ValueInfoProto, dimension, type_proto};
use super::value::{Elem, Info};
use crate::workload::options::Options;
use std::collections::BTreeMap;

/// Heights and widths to try for images of open size: the usual one, then those of networks that only take others
/// (lines of text, detectors, thumbnails).
pub const IMAGES: [(u64, u64); 8] =
    [(224, 224), (48, 320), (32, 320), (640, 640), (64, 64), (32, 32), (256, 256), (299, 299)];

/// Named dimensions with their sizes.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    bound: BTreeMap<String, u64>,
    batch: Option<u64>,
    seq: Option<u64>,
    past: u64,
    image: (u64, u64),
}

/// One dimension as the file states it.
enum Dim<'a> {
    Known(u64),
    Named(&'a str),
    Open,
}

/// Element type and stated dimensions; `None` for lists.
fn dims(v: &ValueInfoProto) -> Option<(Elem, Option<Vec<Dim<'_>>>)> {
    let mut ty = v.r#type.as_ref()?;
    loop {
        match ty.value.as_ref()? {
            type_proto::Value::Tensor(t) | type_proto::Value::SparseTensor(t) => {
                let dims = t.shape.as_ref().map(|s| s.dim.iter().map(|d| dim(d.value.as_ref())).collect());
                return Some((Elem::from_onnx(t.elem_type), dims));
            }
            type_proto::Value::Optional(c) => ty = c.elem_type.as_deref()?,
            type_proto::Value::Sequence(_) => return None,
        }
    }
}

fn dim(value: Option<&dimension::Value>) -> Dim<'_> {
    match value {
        // Exporters write 0 and −1 for "unknown"; an axis that is really empty is not worth a network.
        Some(dimension::Value::Known(k)) if *k > 0 => Dim::Known(*k as u64),
        Some(dimension::Value::Symbol(s)) if !s.is_empty() && s != "?" => match s.parse::<u64>() {
            Ok(k) if k > 0 => Dim::Known(k),
            _ => Dim::Named(s),
        },
        _ => Dim::Open,
    }
}

impl Symbols {
    /// Binds what the caller gave, whole input shapes included.
    pub fn new(options: &Options, inputs: &[&ValueInfoProto], image: (u64, u64)) -> Self {
        let mut bound = options.dims.clone();
        for (name, shape) in &options.inputs {
            let Some((_, Some(dims))) = inputs.iter().find(|i| i.name == *name).and_then(|i| dims(i)) else { continue };
            for (d, &size) in dims.iter().zip(shape) {
                if let Dim::Named(s) = d {
                    bound.entry((*s).to_owned()).or_insert(size);
                }
            }
        }
        // One new token that sees `context` keys has all but itself behind it.
        let past = options.context.map_or(0, |c| c.saturating_sub(1));
        let seq = options.context.map_or(options.seq, |_| Some(1));
        Self { bound, batch: options.batch, seq, past, image }
    }

    /// The stated shape of a value when every dimension of it is bound.
    pub fn hint(&self, v: &ValueInfoProto) -> Option<Info> {
        let (elem, dims) = dims(v)?;
        let size = |d: &Dim| match d {
            Dim::Known(k) => Some(*k),
            Dim::Named(s) => self.size(s, 0),
            Dim::Open => None,
        };
        let shape = dims?.iter().map(size).collect::<Option<Vec<_>>>()?;
        Some(Info::new(elem, shape))
    }

    /// Element type and shape of a graph input, open dimensions filled by default; `chosen` collects what was chosen.
    pub fn input(&mut self, v: &ValueInfoProto, chosen: &mut Vec<String>) -> Option<Info> {
        let (elem, dims) = dims(v)?;
        let dims = dims.unwrap_or_default();
        let sizes: Vec<Option<u64>> =
            dims.iter().map(|d| if let Dim::Known(k) = d { Some(*k) } else { None }).collect();
        let mut shape = Vec::with_capacity(dims.len());
        for (i, d) in dims.iter().enumerate() {
            shape.push(match d {
                Dim::Known(k) => *k,
                Dim::Named(s) => match self.size(s, 0) {
                    Some(k) => k,
                    None => {
                        let k = self.default(s, i, &sizes, elem);
                        self.bound.insert((*s).to_owned(), k);
                        chosen.push(format!("{s}={k}"));
                        k
                    }
                },
                Dim::Open => {
                    let k = self.default("", i, &sizes, elem);
                    chosen.push(format!("axis {i} of `{}`={k}", v.name));
                    k
                }
            });
        }
        Some(Info::new(elem, shape))
    }

    /// Size of a named dimension, or of a sum, difference, product or quotient of such.
    fn size(&self, s: &str, depth: usize) -> Option<u64> {
        let s = s.trim();
        if let Some(&k) = self.bound.get(s) {
            return Some(k);
        }
        if let Ok(k) = s.parse() {
            return Some(k);
        }
        if depth > 8 {
            return None;
        }
        let size = |s: &str| self.size(s, depth + 1);
        if let Some(inner) = s.strip_prefix('(').and_then(|s| s.strip_suffix(')'))
            && let Some(k) = size(inner)
        {
            return Some(k);
        }
        if let Some((a, b)) = s.split_once('+') {
            return size(a)?.checked_add(size(b)?);
        }
        // A dash is a minus only between spaces: names have dashes too.
        if let Some((a, b)) = s.split_once(" - ") {
            return size(a)?.checked_sub(size(b)?);
        }
        if let Some((a, b)) = s.split_once('*') {
            return size(a)?.checked_mul(size(b)?);
        }
        let (a, b) = s.split_once("//").or_else(|| s.split_once('/'))?;
        size(a)?.checked_div(size(b)?)
    }

    /// A size for a dimension that nobody bound, from its name and its place.
    fn default(&self, name: &str, axis: usize, sizes: &[Option<u64>], elem: Elem) -> u64 {
        let seq = self.seq.unwrap_or(128);
        let batch = self.batch.unwrap_or(1);
        let n = name.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|w| n.contains(w));
        if has(&["past"]) && !has(&["total", "+"]) {
            return self.past;
        }
        if has(&["batch"]) || matches!(n.as_str(), "n" | "bs" | "b") {
            return batch;
        }
        if has(&["seq", "length", "token", "len", "text"]) {
            let find = |word: &str| self.bound.iter().find(|(k, _)| k.to_lowercase().contains(word)).map(|(_, &v)| v);
            return if has(&["total"]) { find("past").unwrap_or(0).saturating_add(seq) } else { seq };
        }
        let (height, width) = self.image;
        if has(&["height"]) || n == "h" {
            return height;
        }
        if has(&["width"]) || n == "w" {
            return width;
        }
        if has(&["channel"]) || n == "c" {
            return 3;
        }
        if has(&["sample", "audio"]) {
            return 16_000;
        }
        if axis == 0 && sizes.len() != 1 {
            return batch;
        }
        match (sizes.len(), axis) {
            // Images: channels first, or last where the last size is known to be small.
            (4, 1) if sizes[3].is_some_and(|c| c <= 4) => height,
            (4, 1) => 3,
            (4, 3) if sizes[1].is_none_or(|c| c > 4) && sizes[2].is_some() => 3,
            // Channels last shift the axes by one.
            (4, 2) if sizes[3].is_some_and(|c| c <= 4) => width,
            (4, 2) => height,
            (4, _) => width,
            (5, _) => 16,
            (1, _) if elem.is_float() => 16_000,
            (1, _) => batch,
            _ => seq,
        }
    }
}
