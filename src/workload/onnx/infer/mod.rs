//! What each operator makes of its inputs: shapes, element types and, where they are small constants, the elements.

pub mod attention;
pub mod dense;
mod elementwise;
mod fold;
pub mod layout;
mod movement;
mod quantized;
mod reduce;
mod select;
pub mod sequence;
pub mod spatial;

use super::proto::{AttributeProto, NodeProto, TensorProto};
use super::value::{Elem, Info, Result};

/// One node with what is known about its inputs.
pub struct Op<'a> {
    /// The node.
    pub node: &'a NodeProto,
    /// Version of the operator set that the node's domain is imported at.
    pub opset: i64,
    /// Its inputs; an optional one that is left out is `None`.
    pub ins: Vec<Option<Info>>,
    /// What the file says about its outputs; it may be stale.
    pub hints: Vec<Option<Info>>,
    /// What had to be assumed.
    pub notes: Vec<String>,
}

impl Op<'_> {
    /// The operator's name.
    pub fn kind(&self) -> &str {
        &self.node.op_type
    }

    /// A required input.
    pub fn input(&self, i: usize) -> Result<&Info> {
        self.opt(i).ok_or_else(|| format!("needs an input number {}", i + 1))
    }

    /// An optional input.
    pub fn opt(&self, i: usize) -> Option<&Info> {
        self.ins.get(i).and_then(Option::as_ref)
    }

    /// Attribute by name.
    pub fn attr(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|a| a.name == name)
    }

    /// Integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attr(name).map(|a| a.i)
    }

    /// Integer attribute or its default.
    pub fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int(name).unwrap_or(default)
    }

    /// List of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attr(name).map(|a| a.ints.as_slice())
    }

    /// Text attribute.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.attr(name).and_then(|a| std::str::from_utf8(&a.s).ok())
    }

    /// Tensor attribute.
    pub fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attr(name).and_then(|a| a.t.as_ref())
    }

    /// A list that older operator sets have as attribute `name` and newer ones as input `i`. `Ok(None)` when neither is
    /// there, an error when the input is there but not known.
    pub fn list(&self, name: &str, i: usize) -> Result<Option<Vec<i64>>> {
        if let Some(v) = self.ints(name) {
            return Ok(Some(v.to_vec()));
        }
        match self.opt(i) {
            None => Ok(None),
            Some(info) => info.ints().map(Some).ok_or_else(|| format!("{UNKNOWN} `{name}`")),
        }
    }

    /// How many outputs the node has.
    pub fn outputs(&self) -> usize {
        self.node.output.len()
    }

    /// The shape that the file states for an output.
    pub fn hint(&self, i: usize) -> Option<&Info> {
        self.hints.get(i).and_then(Option::as_ref)
    }
}

/// Start of the message of a fault that a stated output shape may heal: the shape depends on data.
pub const UNKNOWN: &str = "depends on the data of its input";

/// Every operator set up to this version of the standard's default domain is understood.
pub const NEWEST_OPSET: i64 = 28;

/// Outputs of `op`, in order.
///
/// # Errors
/// Says in words what does not fit: a shape conflict, a missing input or attribute, or an operator that is not known
/// (`Ok(None)`).
pub fn infer(op: &mut Op) -> Result<Option<Vec<Info>>> {
    let families = [
        elementwise::infer,
        movement::infer,
        layout::infer,
        select::infer,
        dense::infer,
        spatial::infer,
        reduce::infer,
        sequence::infer,
        quantized::infer,
        attention::infer,
    ];
    for family in families {
        if let Some(outs) = family(op)? {
            return Ok(Some(outs));
        }
    }
    Ok(None)
}

/// Outputs for an operator whose rule is not known: what the file states, else the shape of the first input.
pub fn carry(op: &mut Op) -> Vec<Info> {
    (0..op.outputs())
        .map(|i| {
            op.hint(i)
                .cloned()
                .or_else(|| op.ins.iter().flatten().next().cloned())
                .map_or_else(|| Info::new(Elem::Unknown, Vec::new()), |info| Info::new(info.elem, info.shape))
        })
        .collect()
}
