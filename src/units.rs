//! Quantities with their units: f64 newtypes between which only the legal products and quotients exist.
//!
//! In TOML a quantity is a string with its unit (`"40 MiB"`, `"1555 GB/s"`, `"1024 MAC/cy"`); a bare number is an
//! error that points at the place. Decimal prefixes (k, M, G, T, P) are powers of 1000, binary ones (Ki, Mi, Gi, Ti)
//! powers of 1024.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub};
use std::str::FromStr;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, [$($unit:literal),+], zero = $zero:literal, example = $example:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
        pub struct $name(pub f64);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0.0);
            /// The bare number, in the base unit.
            pub const fn get(self) -> f64 { self.0 }
            /// The larger of two.
            pub const fn max(self, other: Self) -> Self { Self(self.0.max(other.0)) }
            /// The smaller of two.
            pub const fn min(self, other: Self) -> Self { Self(self.0.min(other.0)) }
        }
        impl Add for $name { type Output = Self; fn add(self, o: Self) -> Self { Self(self.0 + o.0) } }
        impl Sub for $name { type Output = Self; fn sub(self, o: Self) -> Self { Self(self.0 - o.0) } }
        impl AddAssign for $name { fn add_assign(&mut self, o: Self) { self.0 += o.0; } }
        impl Mul<f64> for $name { type Output = Self; fn mul(self, o: f64) -> Self { Self(self.0 * o) } }
        impl Div<f64> for $name { type Output = Self; fn div(self, o: f64) -> Self { Self(self.0 / o) } }
        impl Div for $name { type Output = f64; fn div(self, o: Self) -> f64 { self.0 / o.0 } }
        impl Sum for $name { fn sum<I: Iterator<Item = Self>>(i: I) -> Self { Self(i.map(|x| x.0).sum()) } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_scaled(f, self.0, [$($unit),+][0])
            }
        }
        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                parse_quantity(text, &[$($unit),+], $zero, $example).map(Self)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                let reads_back = |text: &str| text.parse::<Self>().is_ok_and(|q| q == *self);
                s.serialize_str(&exact(self.0, [$($unit),+][0], reads_back))
            }
        }
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let unit = [$($unit),+][0];
                schemars::json_schema!({
                    "type": "string",
                    "description": format!("A number and its unit ({unit}, with a prefix such as k, M, G, Ki, Mi, m or u): \"{}\"", $example),
                    "pattern": format!("^\\s*[0-9].*{unit}\\s*$"),
                })
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(QuantityVisitor($example)).and_then(|s: String| s.parse().map_err(de::Error::custom))
            }
        }
    };
}

quantity!(/// Bytes. Fractions occur in expectations (4-bit values, expected occupancy).
    Bytes, ["B"], zero = false, example = "40 MiB");
quantity!(/// Multiply-accumulate operations.
    Macs, ["MAC"], zero = true, example = "4.09 GMAC");
quantity!(/// Clock cycles of the device.
    Cycles, ["cy"], zero = true, example = "100 cy");
quantity!(/// Seconds.
    Seconds, ["s"], zero = true, example = "4 us");
quantity!(/// Cycles per second.
    Hertz, ["Hz"], zero = false, example = "1410 MHz");
quantity!(/// Joules.
    Joules, ["J"], zero = true, example = "0.2 pJ");
quantity!(/// Watts.
    Watts, ["W"], zero = false, example = "400 W");
quantity!(/// Bytes per second.
    BytesPerSecond, ["B/s"], zero = false, example = "1555 GB/s");
quantity!(/// Bytes per clock cycle.
    BytesPerCycle, ["B/cy"], zero = false, example = "64 B/cy");
quantity!(/// Multiply-accumulates per clock cycle.
    MacsPerCycle, ["MAC/cy"], zero = false, example = "1024 MAC/cy");
quantity!(/// Joules per byte moved.
    JoulesPerByte, ["J/B"], zero = true, example = "4 pJ/B");
quantity!(/// Joules per multiply–accumulate.
    JoulesPerMac, ["J/MAC"], zero = true, example = "1.5 pJ/MAC");
quantity!(/// Square metres of silicon.
    Area, ["m2"], zero = true, example = "120 mm2");

macro_rules! legal {
    ($($a:ident / $b:ident = $c:ident;)*) => {$(
        impl Div<$b> for $a { type Output = $c; fn div(self, o: $b) -> $c { $c(self.0 / o.0) } }
        impl Div<$c> for $a { type Output = $b; fn div(self, o: $c) -> $b { $b(self.0 / o.0) } }
        impl Mul<$b> for $c { type Output = $a; fn mul(self, o: $b) -> $a { $a(self.0 * o.0) } }
        impl Mul<$c> for $b { type Output = $a; fn mul(self, o: $c) -> $a { $a(self.0 * o.0) } }
    )*};
}
legal! {
    Bytes / BytesPerSecond = Seconds;
    Bytes / BytesPerCycle = Cycles;
    Macs / MacsPerCycle = Cycles;
    Cycles / Hertz = Seconds;
    BytesPerSecond / BytesPerCycle = Hertz;
    Joules / Watts = Seconds;
    Joules / Bytes = JoulesPerByte;
    Joules / Macs = JoulesPerMac;
}

struct QuantityVisitor(&'static str);

impl de::Visitor<'_> for QuantityVisitor {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a quantity with its unit, such as \"{}\"", self.0)
    }
    fn visit_str<E: de::Error>(self, v: &str) -> Result<String, E> {
        Ok(v.to_owned())
    }
    fn visit_i64<E: de::Error>(self, v: i64) -> Result<String, E> {
        Err(E::custom(format!("`{v}` has no unit; write a string such as \"{}\"", self.0)))
    }
    fn visit_f64<E: de::Error>(self, v: f64) -> Result<String, E> {
        Err(E::custom(format!("`{v}` has no unit; write a string such as \"{}\"", self.0)))
    }
}

const PREFIXES: [(&str, f64); 17] = [
    ("Ki", 1024.0),
    ("Mi", 1048576.0),
    ("Gi", 1073741824.0),
    ("Ti", 1099511627776.0),
    ("k", 1e3),
    ("K", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("m", 1e-3),
    ("u", 1e-6),
    ("µ", 1e-6),
    ("μ", 1e-6),
    ("n", 1e-9),
    ("p", 1e-12),
    ("f", 1e-15),
];

fn parse_quantity(text: &str, units: &[&str], zero: bool, example: &str) -> Result<f64, String> {
    let text = text.trim();
    let split = text
        .char_indices()
        .find(|&(i, c)| {
            let exponent = matches!(c, 'e' | 'E')
                && text[i + 1..].starts_with(|d: char| d.is_ascii_digit() || d == '-' || d == '+');
            let sign = matches!(c, '-' | '+');
            !(c.is_ascii_digit() || c == '.' || c == '_' || exponent || sign)
        })
        .map_or(text.len(), |(i, _)| i);
    let (number, unit) = (text[..split].replace('_', ""), text[split..].trim());
    let value: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a quantity; write a number and a unit, such as \"{example}\""))?;
    if unit.is_empty() {
        return Err(format!("`{text}` has no unit; write a string such as \"{example}\""));
    }
    let scale = units.iter().find_map(|base| {
        let prefix = unit.strip_suffix(base)?;
        if prefix.is_empty() {
            return Some(1.0);
        }
        // A prefix on an area is squared with its metre.
        let power = if *base == "m2" { 2 } else { 1 };
        PREFIXES.iter().find(|(p, _)| *p == prefix).map(|(_, s)| s.powi(power))
    });
    let Some(scale) = scale else {
        return Err(format!("`{unit}` is not a unit of this quantity; write it like \"{example}\""));
    };
    let value = value * scale;
    if !value.is_finite() || value < 0.0 || (value == 0.0 && !zero) {
        let least = if zero { "zero or more" } else { "more than zero" };
        return Err(format!("`{text}` must be finite and {least}"));
    }
    Ok(value)
}

/// The shortest text that reads back as the same value, as profiles are written: `40 MiB`, `1410 MHz`.
fn exact(value: f64, unit: &str, reads_back: impl Fn(&str) -> bool) -> String {
    let plain = format!("{value} {unit}");
    PREFIXES
        .iter()
        .filter(|(p, _)| *p != "K" && p.is_ascii() && (p.len() == 1 || unit == "B"))
        .map(|(p, s)| (value / s.powi(if unit == "m2" { 2 } else { 1 }), p))
        .filter(|(v, _)| *v >= 1.0)
        .map(|(v, p)| format!("{v} {p}{unit}"))
        .filter(|text| reads_back(text))
        .chain([plain.clone()])
        .min_by_key(String::len)
        .unwrap_or(plain)
}

fn write_scaled(f: &mut fmt::Formatter<'_>, value: f64, unit: &str) -> fmt::Result {
    let digits = f.precision().unwrap_or(3);
    let magnitude = value.abs();
    let (scale, prefix) = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(s, _)| magnitude >= *s)
        .unwrap_or_else(|| {
            if magnitude == 0.0 || magnitude >= 1.0 || !matches!(unit, "s" | "J" | "W") {
                return (1.0, "");
            }
            [(1e-3, "m"), (1e-6, "µ"), (1e-9, "n")].into_iter().find(|(s, _)| magnitude >= *s).unwrap_or((1e-12, "p"))
        });
    let scaled = value / scale;
    let whole = if scaled.abs() < 1.0 { 1 } else { scaled.abs().log10().floor() as usize + 1 };
    let decimals = digits.saturating_sub(whole);
    let text = format!("{scaled:.decimals$} {prefix}{unit}");
    f.pad(&text)
}
