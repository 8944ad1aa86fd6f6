//! How a sparse matrix is stored, and exactly how many bytes of values and metadata that takes.

use super::stats::{Tile, WeightStats};
use crate::dtype::DType;
use crate::error::Error;
use crate::pattern::SparsityPattern;
use crate::units::Bytes;
use std::fmt;
use std::str::FromStr;

/// Storage of a weight matrix, with the numbers that its layout needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageFormat {
    /// Every element, zeros too.
    Dense,
    /// Nonzero values and one bit an element.
    Bitmask,
    /// Compressed sparse rows: a column index a nonzero (2 bytes where k < 65,536, else 4), 4 bytes a row pointer.
    Csr,
    /// A row and a column index (4 bytes each) a nonzero.
    Coo,
    /// Block compressed sparse rows: whole blocks of values, an index a block as in CSR, 4 bytes a block-row pointer.
    Bsr {
        /// Outputs in a block.
        rows: u64,
        /// Inputs in a block.
        cols: u64,
    },
    /// As many slots in every row as the longest row needs, each a value and a column index.
    Ell,
    /// N values of each M, with ⌈log2 M⌉ bits of position each.
    Nm {
        /// Kept per group.
        n: u64,
        /// Group length.
        m: u64,
    },
    /// VENOM: N values of each M, 2 bits of position among the kept columns each, and the kept columns' indices
    /// (⌈log2 M⌉ bits) once for V rows.
    Vnm {
        /// Rows that share columns.
        v: u64,
        /// Kept per row and group.
        n: u64,
        /// Group length.
        m: u64,
    },
    /// Values with a 4-bit run of zeros before each (Eyeriss, EIE); a longer run spends a padding zero.
    RunLength,
}

/// Bytes of a stored matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stored {
    /// Values, stored zeros included.
    pub values: Bytes,
    /// Indices, bitmaps, pointers, positions.
    pub metadata: Bytes,
}

impl Stored {
    /// Both together.
    pub fn total(self) -> Bytes {
        self.values + self.metadata
    }
}

impl StorageFormat {
    /// The format in which a pattern is stored when nobody asks for another one.
    pub fn natural(pattern: SparsityPattern) -> Self {
        match pattern {
            SparsityPattern::Nm { n, m } => Self::Nm { n, m },
            SparsityPattern::Vnm { v, n, m } => Self::Vnm { v, n, m },
            SparsityPattern::Unstructured(_) => Self::Csr,
            SparsityPattern::Block { rows, cols, .. } => Self::Bsr { rows, cols },
            // Whole rows and columns are cut out and leave a smaller dense matrix.
            SparsityPattern::Dense
            | SparsityPattern::Row(_)
            | SparsityPattern::Column(_)
            | SparsityPattern::Channel(_)
            | SparsityPattern::Head(_) => Self::Dense,
        }
    }

    /// Exact (or expected) bytes of a matrix in this format.
    pub fn bytes(&self, stats: &WeightStats, dtype: DType) -> Stored {
        let (rows, cols) = (stats.rows() as f64, stats.cols() as f64);
        let element = dtype.bytes();
        let index = index_bytes(stats.cols());
        let (values, metadata) = match *self {
            Self::Dense => match stats.pattern() {
                SparsityPattern::Row(_) | SparsityPattern::Column(_) => (stats.nonzeros(), removed_index(stats)),
                _ => (rows * cols, 0.0),
            },
            Self::Bitmask => (stats.nonzeros(), (rows * cols / 8.0).ceil()),
            Self::Csr => (stats.nonzeros(), stats.nonzeros() * index + 4.0 * (rows + 1.0)),
            Self::Coo => (stats.nonzeros(), stats.nonzeros() * 8.0),
            Self::Bsr { rows: r, cols: c } => {
                let blocks = stats.occupied_tiles(Tile::new(r, c));
                let block_rows = stats.rows().div_ceil(r) as f64;
                (blocks * (r * c) as f64, blocks * index_bytes(stats.cols().div_ceil(c)) + 4.0 * (block_rows + 1.0))
            }
            Self::Ell => {
                let slots = (stats.nonzeros() / rows * stats.imbalance(stats.rows())).ceil().min(cols) * rows;
                (slots, slots * index)
            }
            Self::Nm { n, m } => {
                let slots = rows * nm_slots(stats.cols(), n, m);
                (slots, (slots * position_bits(m) / 8.0).ceil())
            }
            Self::Vnm { v, n, m } => {
                let slots = rows * nm_slots(stats.cols(), n, m);
                let columns = super::mask::vnm_columns(n, m) as f64;
                let blocks = stats.rows().div_ceil(v) as f64 * stats.cols().div_ceil(m) as f64;
                let within = slots * position_bits(columns as u64) / 8.0;
                (slots, within.ceil() + (blocks * columns * position_bits(m) / 8.0).ceil())
            }
            Self::RunLength => {
                // A gap of 16 or more zeros needs one padding entry for each 16; gaps are geometric.
                let nonzeros = stats.nonzeros();
                let zero = 1.0 - stats.density();
                let long = zero.powi(16);
                let padding = if long < 1.0 {
                    (nonzeros * long / (1.0 - long)).min(rows * cols / 16.0)
                } else {
                    rows * cols / 16.0
                };
                let entries = nonzeros + padding;
                (entries, (entries / 2.0).ceil())
            }
        };
        Stored { values: Bytes(values * element), metadata: Bytes(metadata) }
    }

    /// Its name as it is written behind a pattern.
    pub fn name(&self) -> FormatName {
        match self {
            Self::Dense => FormatName::Dense,
            Self::Bitmask => FormatName::Bitmask,
            Self::Csr => FormatName::Csr,
            Self::Coo => FormatName::Coo,
            Self::Bsr { .. } => FormatName::Bsr,
            Self::Ell => FormatName::Ell,
            Self::Nm { .. } => FormatName::Nm,
            Self::Vnm { .. } => FormatName::Vnm,
            Self::RunLength => FormatName::RunLength,
        }
    }
}

/// Bytes of a column index: 2 where k < 65,536, else 4.
pub fn index_bytes(extent: u64) -> f64 {
    if extent < 65_536 { 2.0 } else { 4.0 }
}

/// One 2- or 4-byte index for each kept row or column, so that consumers know which.
fn removed_index(stats: &WeightStats) -> f64 {
    match stats.pattern() {
        SparsityPattern::Row(_) => stats.nonzeros() / stats.cols() as f64 * index_bytes(stats.rows()),
        SparsityPattern::Column(_) => stats.nonzeros() / stats.rows() as f64 * index_bytes(stats.cols()),
        _ => 0.0,
    }
}

fn nm_slots(cols: u64, n: u64, m: u64) -> f64 {
    (cols / m * n + n.min(cols % m)) as f64
}

/// ⌈log2 m⌉, at least one bit.
fn position_bits(m: u64) -> f64 {
    f64::from((64 - (m.max(2) - 1).leading_zeros()).max(1))
}

/// A storage format by name; its numbers come from the pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatName {
    /// See [`StorageFormat::Dense`].
    Dense,
    /// See [`StorageFormat::Bitmask`].
    Bitmask,
    /// See [`StorageFormat::Csr`].
    Csr,
    /// See [`StorageFormat::Coo`].
    Coo,
    /// See [`StorageFormat::Bsr`].
    Bsr,
    /// See [`StorageFormat::Ell`].
    Ell,
    /// See [`StorageFormat::Nm`].
    Nm,
    /// See [`StorageFormat::Vnm`].
    Vnm,
    /// See [`StorageFormat::RunLength`].
    RunLength,
}

impl FormatName {
    const NAMES: [(Self, &'static str); 9] = [
        (Self::Dense, "dense"),
        (Self::Bitmask, "bitmask"),
        (Self::Csr, "csr"),
        (Self::Coo, "coo"),
        (Self::Bsr, "bsr"),
        (Self::Ell, "ell"),
        (Self::Nm, "nm"),
        (Self::Vnm, "vnm"),
        (Self::RunLength, "run-length"),
    ];

    /// The format with the pattern's numbers.
    ///
    /// # Errors
    /// A format whose layout the pattern does not determine (`nm` without N:M).
    pub fn of(self, pattern: SparsityPattern) -> Result<StorageFormat, Error> {
        let refuse = |needs: &str| {
            Err(Error::Pattern { text: format!("{pattern}/{self}"), reason: format!("format {self} needs {needs}") })
        };
        Ok(match (self, pattern) {
            (Self::Dense, _) => StorageFormat::Dense,
            (Self::Bitmask, _) => StorageFormat::Bitmask,
            (Self::Csr, _) => StorageFormat::Csr,
            (Self::Coo, _) => StorageFormat::Coo,
            (Self::Bsr, SparsityPattern::Block { rows, cols, .. }) => StorageFormat::Bsr { rows, cols },
            (Self::Bsr, _) => return refuse("a block pattern, such as block:16x16@0.9"),
            (Self::Ell, _) => StorageFormat::Ell,
            (Self::Nm, SparsityPattern::Nm { n, m }) => StorageFormat::Nm { n, m },
            (Self::Nm, _) => return refuse("an N:M pattern, such as 2:4"),
            (Self::Vnm, SparsityPattern::Vnm { v, n, m }) => StorageFormat::Vnm { v, n, m },
            (Self::Vnm, _) => return refuse("a V:N:M pattern, such as 64:2:8"),
            (Self::RunLength, _) => StorageFormat::RunLength,
        })
    }
}

impl fmt::Display for FormatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::NAMES.iter().find(|(v, _)| v == self).map_or("", |(_, n)| n))
    }
}

impl FromStr for FormatName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let lower = text.to_lowercase();
        Self::NAMES
            .iter()
            .find(|(_, n)| *n == lower)
            .map(|(v, _)| *v)
            .ok_or_else(|| Error::unknown("storage format", text, Self::NAMES.iter().map(|(_, n)| *n)))
    }
}
