//! Stored tensors: what they claim, what they hold, and the elements of the small ones.

use super::proto::{EXTERNAL, TensorProto};
use super::value::{self, Data, Elem, FOLD_LIMIT, Info, Result, extent, show};
use bytes::Bytes;

/// Where the elements of a stored tensor are.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Little-endian elements, row-major; a slice of the mapped file.
    Raw(Bytes),
    /// Protobuf varints, packed: integers and 16-bit floats that were stored in a typed field.
    Varints(Vec<Bytes>),
    /// Every element is this number.
    Fill(f64),
    /// The file that holds them is not there, or the model was saved without.
    Missing,
}

/// Shape of a stored tensor, checked.
pub fn shape(t: &TensorProto) -> Result<Vec<u64>> {
    let shape = t.dims.iter().map(|&d| extent(d, "an extent")).collect::<Result<Vec<_>>>()?;
    value::count(&shape)?;
    Ok(shape)
}

/// Where the elements of a stored tensor are, its claims checked against what is there.
///
/// # Errors
/// A payload shorter or longer than the shape claims.
pub fn payload(t: &TensorProto) -> Result<Payload> {
    let shape = shape(t)?;
    let elem = Elem::from_onnx(t.data_type);
    let n = value::count(&shape)?;
    if t.data_location == EXTERNAL || matches!(elem, Elem::Text | Elem::Unknown) {
        return Ok(Payload::Missing);
    }
    let want = (u128::from(n) * u128::from(elem.bits())).div_ceil(8);
    let claims = |held: usize| {
        format!("claims {n} elements ({}), {want} bytes, but holds {held} bytes; the file is damaged", show(&shape))
    };
    if !t.raw_data.is_empty() {
        let held = t.raw_data.len();
        return if held as u128 == want { Ok(Payload::Raw(t.raw_data.clone())) } else { Err(claims(held)) };
    }
    let fixed = if t.float_data.is_empty() { &t.double_data } else { &t.float_data };
    if !fixed.is_empty() {
        let all = match &fixed[..] {
            [one] => one.clone(),
            many => many.concat().into(),
        };
        return if all.len() as u128 == want { Ok(Payload::Raw(all)) } else { Err(claims(all.len())) };
    }
    if let Some(chunks) = [&t.int32_data, &t.int64_data, &t.uint64_data].into_iter().find(|v| !v.is_empty()) {
        // Every varint has at least one byte, so too few bytes are too few elements; counting them all would read weights.
        let held: usize = chunks.iter().map(Bytes::len).sum();
        let least = n.div_ceil(8 / elem.bits().clamp(1, 8));
        return if held as u64 >= least { Ok(Payload::Varints(chunks.clone())) } else { Err(claims(held)) };
    }
    Ok(if n == 0 { Payload::Raw(Bytes::new()) } else { Payload::Missing })
}

/// A stored tensor as the walk knows it: its shape, and its elements when they are few.
///
/// # Errors
/// As [`payload`].
pub fn read(t: &TensorProto) -> Result<Info> {
    let payload = payload(t)?;
    let mut info = Info::new(Elem::from_onnx(t.data_type), shape(t)?);
    info.constant = true;
    if info.count() <= FOLD_LIMIT
        && let Some(data) = decode(info.elem, info.count(), &payload)
    {
        info = info.with_data(Some(data));
    }
    Ok(info)
}

/// The elements of a payload; `None` for types that shape arithmetic never uses.
pub fn decode(elem: Elem, n: u64, payload: &Payload) -> Option<Data> {
    let n = usize::try_from(n).ok()?;
    let data = match payload {
        Payload::Missing => return None,
        Payload::Fill(x) if elem.is_float() => Data::Floats(vec![*x; n]),
        Payload::Fill(x) => Data::Ints(vec![*x as i64; n]),
        Payload::Raw(raw) => raw_elements(elem, raw)?,
        Payload::Varints(chunks) => {
            let ints: Vec<i64> = chunks.iter().flat_map(|c| varints(c)).map(|v| v as i64).collect();
            match elem {
                Elem::F16 => Data::Floats(ints.iter().map(|&b| half(b as u16)).collect()),
                Elem::BF16 => Data::Floats(ints.iter().map(|&b| f64::from(f32::from_bits((b as u32) << 16))).collect()),
                e if e.is_float() => return None,
                // Narrow integers are sign-extended to 32 bits first.
                Elem::I8 | Elem::I16 | Elem::I32 => Data::Ints(ints.iter().map(|&v| i64::from(v as i32)).collect()),
                _ => Data::Ints(ints),
            }
        }
    };
    (data.len() == n).then_some(data)
}

fn raw_elements(elem: Elem, raw: &[u8]) -> Option<Data> {
    fn each<const N: usize, T>(raw: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
        raw.as_chunks::<N>().0.iter().map(|c| f(*c)).collect()
    }
    Some(match elem {
        Elem::F32 => Data::Floats(each(raw, |b| f64::from(f32::from_le_bytes(b)))),
        Elem::F64 => Data::Floats(each(raw, f64::from_le_bytes)),
        Elem::F16 => Data::Floats(each(raw, |b| half(u16::from_le_bytes(b)))),
        Elem::BF16 => Data::Floats(each(raw, |b| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)))),
        Elem::I64 => Data::Ints(each(raw, i64::from_le_bytes)),
        Elem::U64 => Data::Ints(each(raw, |b| u64::from_le_bytes(b) as i64)),
        Elem::I32 => Data::Ints(each(raw, |b| i64::from(i32::from_le_bytes(b)))),
        Elem::U32 => Data::Ints(each(raw, |b| i64::from(u32::from_le_bytes(b)))),
        Elem::I16 => Data::Ints(each(raw, |b| i64::from(i16::from_le_bytes(b)))),
        Elem::U16 => Data::Ints(each(raw, |b| i64::from(u16::from_le_bytes(b)))),
        Elem::I8 => Data::Ints(raw.iter().map(|&b| i64::from(b as i8)).collect()),
        Elem::U8 | Elem::Bool => Data::Ints(raw.iter().map(|&b| i64::from(b)).collect()),
        _ => return None,
    })
}

/// IEEE binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (e, m) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    sign * match e {
        0 => m * 2f64.powi(-24),
        31 if m == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1.0 + m / 1024.0) * 2f64.powi(e - 15),
    }
}

/// Base-128 varints, little-endian groups of seven bits.
pub fn varints(mut raw: &[u8]) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        let mut v = 0u64;
        let mut shift = 0;
        while let Some((&b, rest)) = raw.split_first() {
            raw = rest;
            if shift < 64 {
                v |= u64::from(b & 127) << shift;
            }
            shift += 7;
            if b < 128 {
                return Some(v);
            }
        }
        None
    })
}
