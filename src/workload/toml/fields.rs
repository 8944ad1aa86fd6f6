//! Fields that may be written short: one number for all axes, or a list with one entry an axis.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// One number for every axis, or one an axis.
#[derive(Clone, Debug)]
pub(super) enum Extents {
    /// The same along every axis.
    All(u64),
    /// One entry an axis.
    Each(Vec<u64>),
}

impl Extents {
    /// One entry for each of `dims` axes; a list of another length is left for shape inference to refuse.
    pub(super) fn over(&self, dims: usize) -> Vec<u64> {
        match self {
            Self::All(n) => vec![*n; dims],
            Self::Each(list) => list.clone(),
        }
    }
}

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Extents;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number ≥ 0, or a list with one an axis")
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Extents, E> {
                let valid = u64::try_from(n).map_err(|_| E::invalid_value(Unexpected::Signed(n), &self))?;
                Ok(Extents::All(valid))
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<Extents, E> {
                Ok(Extents::All(n))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Extents, A::Error> {
                let mut list = Vec::with_capacity(2);
                while let Some(n) = seq.next_element()? {
                    list.push(n);
                }
                Ok(Extents::Each(list))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// Padding: one number for every side, one an axis, or `[before, after]` an axis.
#[derive(Clone, Debug)]
pub(super) enum Padding {
    /// The same on every side.
    All(u64),
    /// One side pair an axis.
    Each(Vec<(u64, u64)>),
}

impl Padding {
    /// No padding.
    pub(super) const NONE: Self = Self::All(0);

    /// (before, after) for each of `dims` axes.
    pub(super) fn over(&self, dims: usize) -> Vec<(u64, u64)> {
        match self {
            Self::All(n) => vec![(*n, *n); dims],
            Self::Each(list) => list.clone(),
        }
    }
}

/// One axis of [`Padding`].
struct Sides(u64, u64);

impl<'de> Deserialize<'de> for Sides {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Extents::deserialize(deserializer)? {
            Extents::All(n) => Ok(Self(n, n)),
            Extents::Each(list) => match list[..] {
                [before, after] => Ok(Self(before, after)),
                _ => Err(D::Error::invalid_length(list.len(), &"two numbers, [before, after]")),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Padding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Padding;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number ≥ 0, or a list with a number or [before, after] an axis")
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Padding, E> {
                let valid = u64::try_from(n).map_err(|_| E::invalid_value(Unexpected::Signed(n), &self))?;
                Ok(Padding::All(valid))
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<Padding, E> {
                Ok(Padding::All(n))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Padding, A::Error> {
                let mut list = Vec::with_capacity(2);
                while let Some(Sides(before, after)) = seq.next_element()? {
                    list.push((before, after));
                }
                Ok(Padding::Each(list))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// An extent of an input: a number, or the name of a dimension that `dims` or the caller gives a value.
#[derive(Clone, Debug)]
pub(super) enum Extent {
    /// Known.
    Fixed(u64),
    /// Bound by name.
    Named(String),
}

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Extent;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a whole number ≥ 1 or the name of a dimension")
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Extent, E> {
                match u64::try_from(n) {
                    Ok(n) if n > 0 => Ok(Extent::Fixed(n)),
                    _ => Err(E::invalid_value(Unexpected::Signed(n), &self)),
                }
            }
            fn visit_str<E: Error>(self, name: &str) -> Result<Extent, E> {
                Ok(Extent::Named(name.to_owned()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// The network's inputs: one shape (the input is called `input`), or shapes by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs(pub(super) Vec<(String, Vec<Extent>)>);

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Inputs;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a shape such as [1, 3, 224, 224], or a table of named shapes")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inputs, A::Error> {
                let mut shape = Vec::with_capacity(4);
                while let Some(extent) = seq.next_element()? {
                    shape.push(extent);
                }
                Ok(Inputs(vec![("input".to_owned(), shape)]))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Inputs, A::Error> {
                let mut named = BTreeMap::new();
                while let Some((name, shape)) = map.next_entry()? {
                    named.insert(name, shape);
                }
                Ok(Inputs(named.into_iter().collect()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// Schemas of the short spellings, as the visitors above read them.
macro_rules! schema {
    ($($type:ty, $name:literal => $schema:expr;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let value: serde_json::Value = $schema;
                json_schema!({ "anyOf": value })
            }
        }
    )*};
}

fn whole(least: u64) -> serde_json::Value {
    serde_json::json!({ "type": "integer", "minimum": least })
}

fn list(of: serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "type": "array", "items": of })
}

fn extent() -> serde_json::Value {
    serde_json::json!({ "anyOf": [whole(1), { "type": "string" }] })
}

schema! {
    Extents, "Extents" => serde_json::json!([whole(0), list(whole(0))]);
    Padding, "Padding" => serde_json::json!([whole(0), list(serde_json::json!({ "anyOf": [whole(0), list(whole(0))] }))]);
    Inputs, "Inputs" => serde_json::json!([list(extent()), { "type": "object", "additionalProperties": list(extent()) }]);
}
