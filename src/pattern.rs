//! Sparsity patterns, as they are spelled on the command line, in sample files and in workloads.
//!
//! ```
//! use hwsim::pattern::SparsityPattern;
//! let p: SparsityPattern = "block:32x1@0.9".parse()?;
//! assert_eq!(p.to_string(), "block:32x1@0.9");
//! assert!("3:2".parse::<SparsityPattern>().is_err());
//! # Ok::<(), hwsim::error::Error>(())
//! ```

use crate::error::Error;
use std::fmt;
use std::str::FromStr;

/// Which weights of a layer are zero. Weights are `[n, k]` (outputs by inputs, PyTorch's `[out, in]`); every fraction
/// is a fraction of **zeros**, in [0, 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SparsityPattern {
    /// Every weight is kept.
    Dense,
    /// At most `n` nonzeros in every aligned group of `m` along k.
    Nm {
        /// Kept per group.
        n: u64,
        /// Group length along k.
        m: u64,
    },
    /// VENOM's V:N:M (Castro et al., SC'23): in every block of `v` rows and `m` columns, `min(4, m)` columns are kept
    /// (at most `n` where n > 4), and each row keeps `n` of those. Density n/m.
    Vnm {
        /// Rows that share the column choice.
        v: u64,
        /// Kept per row and group.
        n: u64,
        /// Group length along k.
        m: u64,
    },
    /// Any weight may be zero; positions are uniformly random unless a real mask says otherwise.
    Unstructured(f64),
    /// Whole aligned blocks of `rows` outputs by `cols` inputs are zero.
    Block {
        /// Outputs in a block.
        rows: u64,
        /// Inputs in a block.
        cols: u64,
        /// Fraction of blocks that are zero.
        sparsity: f64,
    },
    /// Whole rows of the lowered weight matrix (outputs; SSL's filter-wise) are zero.
    Row(f64),
    /// Whole columns of the lowered weight matrix (SSL's shape-wise: one input tap over all filters) are zero.
    Column(f64),
    /// Output channels are removed from the graph, consumers and residual partners with them. Never a mask.
    Channel(f64),
    /// Attention heads are removed from the graph, with their rows of q, k, v and columns of o. Never a mask.
    Head(f64),
}

impl SparsityPattern {
    /// Fraction of weights that the pattern keeps, before rounding to whole groups, blocks or rows.
    pub fn density(&self) -> f64 {
        match *self {
            Self::Dense => 1.0,
            Self::Nm { n, m } | Self::Vnm { n, m, .. } => n as f64 / m as f64,
            Self::Unstructured(s)
            | Self::Block { sparsity: s, .. }
            | Self::Row(s)
            | Self::Column(s)
            | Self::Channel(s)
            | Self::Head(s) => 1.0 - s,
        }
    }

    /// Whether it removes nothing at all, so that it must cost exactly what dense costs.
    pub fn is_dense(&self) -> bool {
        self.density() >= 1.0
    }

    /// Whether it rewrites the graph instead of masking one layer's weights.
    pub fn shrinks_graph(&self) -> bool {
        matches!(self, Self::Channel(_) | Self::Head(_))
    }

    /// The family's name, without its numbers.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Nm { .. } => "N:M",
            Self::Vnm { .. } => "V:N:M",
            Self::Unstructured(_) => "unstructured",
            Self::Block { .. } => "block",
            Self::Row(_) => "row",
            Self::Column(_) => "column",
            Self::Channel(_) => "channel",
            Self::Head(_) => "head",
        }
    }
}

impl fmt::Display for SparsityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::Dense => "dense".to_owned(),
            Self::Nm { n, m } => format!("{n}:{m}"),
            Self::Vnm { v, n, m } => format!("{v}:{n}:{m}"),
            Self::Unstructured(s) => format!("unstructured@{s}"),
            Self::Block { rows, cols, sparsity } => format!("block:{rows}x{cols}@{sparsity}"),
            Self::Row(s) => format!("row@{s}"),
            Self::Column(s) => format!("column@{s}"),
            Self::Channel(s) => format!("channel@{s}"),
            Self::Head(s) => format!("head@{s}"),
        };
        f.pad(&text)
    }
}

const SPELLINGS: &str = "dense, N:M, V:N:M, unstructured@s, block:RxC@s, row@s, column@s, channel@s, head@s";

impl FromStr for SparsityPattern {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Pattern { text: text.to_owned(), reason };
        let count = |field: &str, what: &str| match field.parse::<u64>() {
            Ok(0) => Err(refuse(format!("{what} must be at least 1"))),
            Ok(v) if v > 1 << 32 => Err(refuse(format!("{what} {v} is larger than any matrix; give one up to 2^32"))),
            Ok(v) => Ok(v),
            Err(_) => Err(refuse(format!("`{field}` is not a whole number; spellings: {SPELLINGS}"))),
        };
        let group = |n: &str, m: &str| {
            let (n, m) = (count(n, "N")?, count(m, "M")?);
            if n > m {
                return Err(refuse(format!("N:M keeps N of every M, and {n} is more than {m}; did you mean {m}:{n}?")));
            }
            Ok((n, m))
        };
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("dense") {
            return Ok(Self::Dense);
        }
        if let Some((kind, fraction)) = trimmed.split_once('@') {
            let s: f64 = fraction.parse().map_err(|_| {
                refuse(format!("`{fraction}` is not a number; give the fraction of zeros, such as 0.9"))
            })?;
            if !(0.0..1.0).contains(&s) {
                let hint =
                    if (1.0..100.0).contains(&s) { format!(" (for {s} % write {})", s / 100.0) } else { String::new() };
                return Err(refuse(format!("the fraction of zeros must lie in [0, 1){hint}")));
            }
            return match kind {
                "unstructured" => Ok(Self::Unstructured(s)),
                "row" => Ok(Self::Row(s)),
                "column" => Ok(Self::Column(s)),
                "channel" => Ok(Self::Channel(s)),
                "head" => Ok(Self::Head(s)),
                other => {
                    let size = other.strip_prefix("block:").ok_or_else(|| {
                        refuse(format!("`{other}` is not a pattern that takes a fraction; spellings: {SPELLINGS}"))
                    })?;
                    let (r, c) = size
                        .split_once(['x', 'X'])
                        .ok_or_else(|| refuse("a block is rows x columns, such as block:16x16@0.9".to_owned()))?;
                    Ok(Self::Block { rows: count(r, "block rows")?, cols: count(c, "block columns")?, sparsity: s })
                }
            };
        }
        let parts: Vec<&str> = trimmed.split(':').collect();
        match parts[..] {
            [n, m] if n != "block" => group(n, m).map(|(n, m)| Self::Nm { n, m }),
            [v, n, m] => group(n, m).and_then(|(n, m)| Ok(Self::Vnm { v: count(v, "V")?, n, m })),
            ["unstructured" | "row" | "column" | "channel" | "head"] | ["block", ..] => {
                Err(refuse(format!("it lacks its fraction of zeros; write it like {trimmed}@0.9")))
            }
            _ => Err(refuse(format!("not a pattern; spellings: {SPELLINGS}"))),
        }
    }
}
