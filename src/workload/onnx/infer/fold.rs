//! Arithmetic on small constants: what exporters emit to compute shapes.

use crate::workload::onnx::value::{Data, Elem, FOLD_LIMIT, Info, broadcast_index, count};

/// Rounds to what `elem` can hold. Single operations in f64 rounded once to f32 are exact for + − × ÷ √.
pub fn round(elem: Elem, x: f64) -> f64 {
    if elem == Elem::F64 { x } else { f64::from(x as f32) }
}

/// Whether a result of this shape is small enough to keep.
pub fn small(shape: &[u64]) -> bool {
    count(shape).is_ok_and(|n| n <= FOLD_LIMIT)
}

/// One input.
pub fn unary(kind: &str, a: &Info) -> Option<Data> {
    let data = a.data.as_deref()?;
    let float = |f: fn(f64) -> f64| Some(Data::Floats(data.floats().iter().map(|&x| round(a.elem, f(x))).collect()));
    let int = |f: fn(i64) -> i64| Some(Data::Ints(data.ints().iter().map(|&x| f(x)).collect()));
    match (kind, data) {
        ("Identity", _) => Some(data.clone()),
        ("Neg", Data::Ints(_)) => int(i64::wrapping_neg),
        ("Neg", Data::Floats(_)) => float(|x| -x),
        ("Abs", Data::Ints(_)) => int(i64::wrapping_abs),
        ("Abs", Data::Floats(_)) => float(f64::abs),
        ("Sign", Data::Ints(_)) => int(i64::signum),
        ("Not", Data::Ints(_)) => int(|x| i64::from(x == 0)),
        ("Floor", _) => float(f64::floor),
        ("Ceil", _) => float(f64::ceil),
        ("Round", _) => float(f64::round_ties_even),
        ("Sqrt", _) => float(f64::sqrt),
        ("Reciprocal", _) => float(|x| 1.0 / x),
        ("Exp", _) => float(f64::exp),
        ("Log", _) => float(f64::ln),
        ("Sin", _) => float(f64::sin),
        ("Cos", _) => float(f64::cos),
        ("Sigmoid", _) => float(|x| 1.0 / (1.0 + (-x).exp())),
        ("Relu", Data::Floats(_)) => float(|x| x.max(0.0)),
        _ => None,
    }
}

/// `Cast`: saturating toward the target.
pub fn cast(a: &Info, to: Elem) -> Option<Data> {
    let data = a.data.as_deref()?;
    Some(match to {
        Elem::Bool => Data::Ints(data.floats().iter().map(|&x| i64::from(x != 0.0)).collect()),
        e if e.is_float() => Data::Floats(data.floats().iter().map(|&x| round(e, x)).collect()),
        Elem::I8 | Elem::U8 | Elem::I16 | Elem::U16 | Elem::I32 | Elem::U32 | Elem::I64 | Elem::U64 => Data::Ints(
            data.ints()
                .iter()
                .map(|&x| match to {
                    Elem::I8 => i64::from(x as i8),
                    Elem::U8 => i64::from(x as u8),
                    Elem::I16 => i64::from(x as i16),
                    Elem::U16 => i64::from(x as u16),
                    Elem::I32 => i64::from(x.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32),
                    Elem::U32 => i64::from(x as u32),
                    _ => x,
                })
                .collect(),
        ),
        _ => return None,
    })
}

/// Two inputs that broadcast to `out`.
pub fn binary(kind: &str, fmod: bool, a: &Info, b: &Info, out: &[u64]) -> Option<Data> {
    if !small(out) {
        return None;
    }
    let (x, y) = (a.data.as_deref()?, b.data.as_deref()?);
    let x = x.pick(&broadcast_index(&a.shape, out));
    let y = y.pick(&broadcast_index(&b.shape, out));
    match (&x, &y) {
        (Data::Ints(x), Data::Ints(y)) => {
            x.iter().zip(y).map(|(&x, &y)| integer(kind, fmod, x, y)).collect::<Option<Vec<_>>>().map(Data::Ints)
        }
        _ => {
            let (x, y) = (x.floats(), y.floats());
            if matches!(kind, "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual") {
                return Some(Data::Ints(
                    x.iter()
                        .zip(&y)
                        .map(|(x, y)| {
                            i64::from(match kind {
                                "Equal" => x == y,
                                "Less" => x < y,
                                "LessOrEqual" => x <= y,
                                "Greater" => x > y,
                                _ => x >= y,
                            })
                        })
                        .collect(),
                ));
            }
            x.iter()
                .zip(&y)
                .map(|(&x, &y)| floating(kind, x, y).map(|z| round(a.elem, z)))
                .collect::<Option<Vec<_>>>()
                .map(Data::Floats)
        }
    }
}

fn integer(kind: &str, fmod: bool, x: i64, y: i64) -> Option<i64> {
    Some(match kind {
        "Add" | "Sum" => x.checked_add(y)?,
        "Sub" => x.checked_sub(y)?,
        "Mul" => x.checked_mul(y)?,
        "Div" => x.checked_div(y)?,
        "Mod" if fmod => x.checked_rem(y)?,
        // ONNX's integer Mod takes the sign of the divisor.
        "Mod" => match x.checked_rem(y)? {
            0 => 0,
            r if (r < 0) != (y < 0) => r + y,
            r => r,
        },
        "Min" => x.min(y),
        "Max" => x.max(y),
        "Pow" => x.checked_pow(u32::try_from(y).ok()?)?,
        "Equal" => i64::from(x == y),
        "Less" => i64::from(x < y),
        "LessOrEqual" => i64::from(x <= y),
        "Greater" => i64::from(x > y),
        "GreaterOrEqual" => i64::from(x >= y),
        "And" => i64::from(x != 0 && y != 0),
        "Or" => i64::from(x != 0 || y != 0),
        "Xor" => i64::from((x != 0) != (y != 0)),
        "BitwiseAnd" => x & y,
        "BitwiseOr" => x | y,
        "BitwiseXor" => x ^ y,
        _ => return None,
    })
}

fn floating(kind: &str, x: f64, y: f64) -> Option<f64> {
    Some(match kind {
        "Add" | "Sum" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Mod" => x % y,
        "Min" => x.min(y),
        "Max" => x.max(y),
        "Pow" => x.powf(y),
        _ => return None,
    })
}
