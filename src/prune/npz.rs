//! NumPy archives: arrays by name from `.npz` files (a zip of `.npy`, format versions 1 to 3).

use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Bytes of one array at most: a Hessian of 32,768 inputs.
const LARGEST: u64 = 8 << 30;

/// An array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Extents.
    pub shape: Vec<u64>,
    /// Elements.
    pub values: Vec<f32>,
    /// The same without rounding, where they are stored as integers or booleans.
    pub integers: Option<Vec<i64>>,
}

impl Array {
    /// Of floats.
    pub fn new(shape: Vec<u64>, values: Vec<f32>) -> Self {
        Self { shape, values, integers: None }
    }

    /// Of integers.
    pub fn of_integers(shape: Vec<u64>, integers: Vec<i64>) -> Self {
        Self { shape, values: integers.iter().map(|&i| i as f32).collect(), integers: Some(integers) }
    }

    /// `count` slices along the first axis, from slice `first` on.
    pub fn rows(&self, first: u64, count: u64) -> Self {
        let each = self.shape.iter().skip(1).product::<u64>();
        let range = (first * each) as usize..((first + count) * each) as usize;
        let shape = std::iter::once(count).chain(self.shape.iter().skip(1).copied()).collect();
        let integers = self.integers.as_ref().map(|i| i[range.clone()].to_vec());
        Self { shape, values: self.values[range].to_vec(), integers }
    }
}

/// Reads every array of an archive, by name without the `.npy`.
///
/// # Errors
/// [`Error::Io`] when it cannot be read; [`Error::Model`] for what is no archive of numeric row-major arrays.
pub fn read(path: &Path) -> Result<BTreeMap<String, Array>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let bad = |reason: String| Error::Model { path: path.into(), reason };
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|e| bad(format!("is no .npz archive ({e})")))?;
    let mut arrays = BTreeMap::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| bad(format!("entry {i} cannot be read ({e})")))?;
        let name = entry.name().map_err(|e| bad(format!("entry {i} has no readable name ({e})")))?.into_owned();
        let Some(stem) = name.strip_suffix(".npy") else { continue };
        let mut bytes = Vec::new();
        (&mut entry)
            .take(LARGEST)
            .read_to_end(&mut bytes)
            .map_err(|e| bad(format!("array `{stem}` cannot be unpacked ({e})")))?;
        let array = parse(&bytes).map_err(|reason| bad(format!("array `{stem}` {reason}")))?;
        arrays.insert(stem.to_owned(), array);
    }
    Ok(arrays)
}

/// One `.npy` file: magic, version, length, a Python dictionary as text, elements.
///
/// # Errors
/// Why it is none, in words.
pub fn parse(bytes: &[u8]) -> Result<Array, String> {
    let body = bytes.strip_prefix(b"\x93NUMPY").ok_or("does not begin as a .npy file does")?;
    let (&[major, _], rest) = body.split_first_chunk::<2>().ok_or("ends within its header")?;
    let (length, rest) = match major {
        1 => rest.split_first_chunk::<2>().map(|(n, r)| (usize::from(u16::from_le_bytes(*n)), r)),
        2 | 3 => rest.split_first_chunk::<4>().map(|(n, r)| (u32::from_le_bytes(*n) as usize, r)),
        v => return Err(format!("has format version {v}, which is not read")),
    }
    .ok_or("ends within its header")?;
    if rest.len() < length {
        return Err("ends within its header".into());
    }
    let (header, data) = rest.split_at(length);
    let header = String::from_utf8_lossy(header);
    let field = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, v)| v.trim_start());
    let descr = field("descr").and_then(|v| v.strip_prefix('\'')?.split_once('\'')).map(|(d, _)| d);
    let descr = descr.ok_or("has a structured type; save plain arrays")?;
    if field("fortran_order").is_some_and(|v| v.starts_with("True")) {
        return Err("is column-major; save it after numpy.ascontiguousarray".into());
    }
    let shape = field("shape").and_then(|v| v.strip_prefix('(')?.split_once(')')).map(|(s, _)| s);
    let shape: Vec<u64> = shape
        .ok_or("has no shape")?
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().map_err(|_| format!("has the extent `{s}`")))
        .collect::<Result<_, _>>()?;
    let count = shape.iter().try_fold(1u64, |a, &d| a.checked_mul(d)).ok_or("is larger than any memory")?;
    fn each<const N: usize, T>(data: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
        data.as_chunks::<N>().0.iter().map(|b| f(*b)).collect()
    }
    let array = match descr {
        "<f4" => Array::new(shape, each(data, f32::from_le_bytes)),
        "<f8" => Array::new(shape, each(data, |b| f64::from_le_bytes(b) as f32)),
        "<f2" => Array::new(shape, each(data, |b| half::f16::from_le_bytes(b).to_f32())),
        "<i8" => Array::of_integers(shape, each(data, i64::from_le_bytes)),
        "<i4" => Array::of_integers(shape, each(data, |b| i32::from_le_bytes(b).into())),
        "<i2" => Array::of_integers(shape, each(data, |b| i16::from_le_bytes(b).into())),
        "|i1" => Array::of_integers(shape, each(data, |[b]: [u8; 1]| (b as i8).into())),
        "|u1" | "|b1" => Array::of_integers(shape, each(data, |[b]: [u8; 1]| b.into())),
        other => {
            let known = "float16, float32, float64, bool, uint8 or an integer of at most 64 bits";
            return Err(format!("has the type `{other}`; save {known}"));
        }
    };
    if array.values.len() as u64 != count {
        return Err(format!("claims {count} elements but holds {}", array.values.len()));
    }
    Ok(array)
}
