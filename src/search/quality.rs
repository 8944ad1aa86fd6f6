//! What a pattern costs in quality, without training: a loss per layer and pattern, in [0, 1].
//!
//! Without weights the loss is the energy (sum of squares) that the pattern removes from **independent normal weights of
//! zero mean and one variance within a layer**, selected by magnitude. That is an assumption about the weights, not a
//! measurement, and carries that name ([`Proxy::GaussianEnergy`]). For white inputs it is also the relative squared error of the
//! layer's output. A network's loss is the mean over output features: `Σ nᵢ·lossᵢ / Σ nᵢ`, the share of removed energy when
//! a layer's variance is inverse to its fan-in (He et al., ICCV 2015, eq. 10). A user's own table replaces it
//! ([`Proxy::Table`]).

use crate::error::{Error, Result};
use crate::lower::{Lowered, Source, SparseGemm};
use crate::pattern::SparsityPattern;
use crate::sparsity::mask::{kept, vnm_columns};
use statrs::function::beta::beta_reg;
use statrs::function::gamma::{gamma_lr, ln_gamma};
use std::collections::BTreeMap;
use std::io::Read;

/// Where the loss of a layer under a pattern comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Proxy {
    /// Removed energy of independent normal weights (an assumption; see the module's head).
    GaussianEnergy,
    /// A user's table: (layer, pattern as it is displayed) to loss. Losses add over layers as they are.
    Table(BTreeMap<(String, String), f64>),
    /// What the network's own weights lose, as shares in [0, 1] of each layer: removed energy, or the squared relative error of
    /// its output where inputs are known. Layers are weighted by their output features, as the assumed energy is. A layer
    /// and pattern that is not there (its weights could not be read) counts by that assumption.
    Weights(BTreeMap<(String, String), f64>),
}

impl Proxy {
    /// Reads a table with the columns `layer,pattern,loss`; others are ignored. Dense needs no row and loses nothing.
    ///
    /// # Errors
    /// [`Error::Parse`] with the line: a missing column, a pattern that cannot be read, a loss that is negative or no number.
    pub fn table(from: impl Read, origin: &str) -> Result<Self> {
        let refuse = |line: u64, message: String| Error::Parse {
            origin: origin.to_owned(),
            message: format!("line {line}: {message}"),
        };
        let mut reader = csv::Reader::from_reader(from);
        let headers = reader.headers().map_err(|e| refuse(1, e.to_string()))?.clone();
        let column = |name: &str| {
            headers.iter().position(|h| h.trim() == name).ok_or_else(|| {
                refuse(1, format!("there is no column `{name}`; the table needs layer, pattern and loss"))
            })
        };
        let (layer, pattern, loss) = (column("layer")?, column("pattern")?, column("loss")?);
        let mut table = BTreeMap::new();
        for record in reader.records() {
            let record = record.map_err(|e| refuse(e.position().map_or(0, csv::Position::line), e.to_string()))?;
            let line = record.position().map_or(0, csv::Position::line);
            let field = |i: usize| record.get(i).unwrap_or_default().trim();
            let spelled: SparsityPattern = field(pattern).parse().map_err(|e: Error| refuse(line, e.to_string()))?;
            let value: f64 = field(loss)
                .parse()
                .ok()
                .filter(|v: &f64| v.is_finite() && *v >= 0.0)
                .ok_or_else(|| refuse(line, format!("`{}` is not a loss; give zero or more", field(loss))))?;
            table.insert((field(layer).to_owned(), spelled.to_string()), value);
        }
        Ok(Self::Table(table))
    }

    /// The name under which results carry it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::GaussianEnergy => "removed energy of independent normal weights (assumed)",
            Self::Table(_) => "the user's table",
            Self::Weights(_) => "what the network's own weights lose",
        }
    }

    /// Loss of one step under a pattern as a share of the network's, times `total`: summed over steps and divided by the
    /// network's weight ([`weight`]) it is the network's loss. A table's entries count as they are.
    ///
    /// # Errors
    /// A layer and pattern that a table lacks.
    pub fn loss(&self, layer: &str, pattern: SparsityPattern, ops: &[Lowered], memo: &mut Memo) -> Result<f64> {
        match self {
            Self::GaussianEnergy => Ok(products(ops).map(|g| features(g) * (1.0 - memo.of(g))).sum()),
            Self::Weights(_) if pattern.is_dense() => Ok(0.0),
            Self::Weights(table) => match table.get(&(layer.to_owned(), pattern.to_string())) {
                Some(share) => Ok(weight(ops) * share),
                None => Self::GaussianEnergy.loss(layer, pattern, ops, memo),
            },
            Self::Table(_) if pattern.is_dense() => Ok(0.0),
            Self::Table(table) => table.get(&(layer.to_owned(), pattern.to_string())).copied().ok_or_else(|| {
                Error::argument("--quality-table", format!("it has no loss for `{layer}` under {pattern}"))
            }),
        }
    }

    /// The same for a layer that loses a share of its output channels or heads.
    ///
    /// # Errors
    /// As [`Proxy::loss`].
    pub fn removed(
        &self,
        layer: &str,
        pattern: SparsityPattern,
        share: f64,
        dense: &[Lowered],
        memo: &mut Memo,
    ) -> Result<f64> {
        match self {
            Self::GaussianEnergy => Ok(products(dense)
                .map(|g| features(g) * (1.0 - memo.get(SparsityPattern::Channel(share), g.gemm.n, g.gemm.k)))
                .sum()),
            Self::Weights(table) => match table.get(&(layer.to_owned(), pattern.to_string())) {
                Some(lost) => Ok(weight(dense) * lost),
                None => Self::GaussianEnergy.removed(layer, pattern, share, dense, memo),
            },
            Self::Table(_) => self.loss(layer, pattern, dense, memo),
        }
    }

    /// What the sum of [`Proxy::loss`] over a network is divided by.
    pub fn scale<'a>(&self, steps: impl Iterator<Item = &'a [Lowered]>) -> f64 {
        match self {
            Self::GaussianEnergy | Self::Weights(_) => steps.map(weight).sum::<f64>().max(f64::MIN_POSITIVE),
            Self::Table(_) => 1.0,
        }
    }
}

/// The products of a step that read weights.
fn products(ops: &[Lowered]) -> impl Iterator<Item = &SparseGemm> {
    ops.iter().filter_map(|op| match op {
        Lowered::Gemm(g) if g.source != Source::Activations => Some(g),
        _ => None,
    })
}

fn features(g: &SparseGemm) -> f64 {
    g.gemm.groups as f64 * g.gemm.n as f64
}

/// Output features of a step's weights.
pub fn weight(ops: &[Lowered]) -> f64 {
    products(ops).map(features).sum()
}

/// Kept energies that were computed before.
#[derive(Clone, Debug, Default)]
pub struct Memo(BTreeMap<String, f64>);

impl Memo {
    fn of(&mut self, g: &SparseGemm) -> f64 {
        self.get(g.weights.pattern(), g.gemm.n, g.gemm.k)
    }

    fn get(&mut self, pattern: SparsityPattern, n: u64, k: u64) -> f64 {
        let key = match pattern {
            SparsityPattern::Nm { .. } | SparsityPattern::Vnm { .. } => pattern.to_string(),
            _ => format!("{pattern} {n} {k}"),
        };
        *self.0.entry(key).or_insert_with(|| kept_energy(pattern, n, k))
    }
}

/// Expected share of the energy of an `[n, k]` matrix of independent normal weights that a pattern keeps, when what it keeps
/// is chosen by energy.
///
/// A unit of the pattern (a weight, a block, a row) with `b` weights has a χ² energy with `b` degrees of freedom. Keeping
/// the largest `K` of `B` units keeps `∫ y·f_b(y)·P(Bin(B−1, 1−F_b(y)) ≤ K−1) dy / b` of the energy, the mean of the order
/// statistics (David and Nagaraja, Order Statistics, 2003, §2.1); as `y·f_b(y)/b = f_{b+2}(y)`, it is an expectation over
/// χ² with b + 2 degrees. For many units it tends to `1 − F_{b+2}(q)` with `F_b(q) = 1 − K/B` (for b = 1 the moment of the
/// truncated normal, `d + 2·t·φ(t)`).
///
/// - N:M: the largest N of M.
/// - V:N:M: the largest 4 of M columns of V weights, then the largest N of 4; where the columns' norms differ the second
///   choice gains a little more than this, and it is never more than N:M keeps.
/// - Channels and heads: as rows; the weights of their consumers lose nothing further.
pub fn kept_energy(pattern: SparsityPattern, n: u64, k: u64) -> f64 {
    match pattern {
        SparsityPattern::Dense => 1.0,
        SparsityPattern::Nm { n: keep, m } => largest(keep, m, 1.0),
        SparsityPattern::Vnm { v, n: keep, m } => {
            let columns = vnm_columns(keep, m).min(m);
            let strips = largest(columns, m, v as f64) * largest(keep.min(columns), columns, 1.0);
            strips.min(largest(keep, m, 1.0))
        }
        SparsityPattern::Unstructured(s) => share(n.saturating_mul(k), s, 1.0),
        SparsityPattern::Row(s) | SparsityPattern::Channel(s) | SparsityPattern::Head(s) => share(n, s, k as f64),
        SparsityPattern::Column(s) => share(k, s, n as f64),
        SparsityPattern::Block { rows, cols, sparsity } => {
            let blocks = n.div_ceil(rows).saturating_mul(k.div_ceil(cols));
            share(blocks, sparsity, rows.min(n) as f64 * cols.min(k) as f64)
        }
    }
}

fn share(units: u64, sparsity: f64, freedom: f64) -> f64 {
    largest(kept(units, sparsity), units, freedom)
}

/// Units from which on the limit of many serves: its error falls as their inverse.
const MANY: u64 = 512;

/// Expected share of the energy in the largest `keep` of `count` independent χ² with `freedom` degrees.
fn largest(keep: u64, count: u64, freedom: f64) -> f64 {
    if keep >= count {
        return 1.0;
    }
    if keep == 0 {
        return 0.0;
    }
    // Above a million degrees every unit is as good as any other to six digits.
    if freedom > 1e6 {
        return keep as f64 / count as f64;
    }
    if count >= MANY {
        let threshold = quantile(1.0 - keep as f64 / count as f64, freedom);
        return 1.0 - cumulative(threshold, freedom + 2.0);
    }
    // Over the square root of the energy the density is smooth at zero and within 8 of its centre.
    let centre = (freedom + 2.0).sqrt();
    let (from, to) = ((centre - 8.0).max(0.0), centre + 8.0);
    let (a, b) = ((count - keep) as f64, keep as f64);
    let at = |x: f64| {
        let selected = beta_reg(a, b, cumulative(x * x, freedom).clamp(0.0, 1.0));
        density(x, freedom + 2.0) * selected
    };
    simpson(from, to, at).clamp(0.0, 1.0)
}

fn simpson(from: f64, to: f64, f: impl Fn(f64) -> f64) -> f64 {
    const INTERVALS: usize = 1024;
    let h = (to - from) / INTERVALS as f64;
    let inner: f64 = (1..INTERVALS).map(|i| f(from + h * i as f64) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(from) + inner + f(to)) * h / 3.0
}

/// Distribution function of χ² with `freedom` degrees.
fn cumulative(y: f64, freedom: f64) -> f64 {
    if y <= 0.0 { 0.0 } else { gamma_lr(freedom / 2.0, y / 2.0) }
}

/// Density of χ (the root of χ²) with `freedom` degrees.
fn density(x: f64, freedom: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    let half = freedom / 2.0;
    ((freedom - 1.0) * x.ln() - x * x / 2.0 - (half - 1.0) * std::f64::consts::LN_2 - ln_gamma(half)).exp()
}

/// Inverse of [`cumulative`] by bisection.
fn quantile(p: f64, freedom: f64) -> f64 {
    let (mut low, mut high) = (0.0, (freedom.sqrt() + 9.0).powi(2));
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if cumulative(middle, freedom) < p {
            low = middle;
        } else {
            high = middle;
        }
        if high - low <= 1e-14 * high {
            break;
        }
    }
    0.5 * (low + high)
}
