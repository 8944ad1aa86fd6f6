//! How much each weight counts, by the field's criteria: one score a weight, larger means more worth keeping.
//!
//! | name | score of w_ij | needs | source |
//! | --- | --- | --- | --- |
//! | `magnitude`, `l1` | \|w\| | – | Han et al., NeurIPS 2015 |
//! | `l2` | w² | – | Li et al., ICLR 2017 (groups by their norm) |
//! | `obd` | ½·h·w² | inputs or gradients | LeCun et al., NeurIPS 1989, eq. 4 |
//! | `wanda` | \|w_ij\|·‖x_j‖₂ | inputs | Sun et al., ICLR 2024, eq. 1 |
//! | `sparsegpt` | w²/[H⁻¹]²_jj, then a weight update | inputs, all products | Frantar & Alistarh, ICML 2023, eq. 3–5 |
//! | `bn` | \|γ_i\| of the batch norm behind output i | γ | Liu et al., ICCV 2017 (Network Slimming) |
//! | `taylor` | \|w·g\| | gradients | Molchanov et al., CVPR 2019, eq. 8 |
//! | `random` | uniform in \[0, 1) | a seed | the control of every study |
//!
//! Every criterion is a pure function on slices; [`Criterion::scores`] names them in one place.

pub mod linalg;
pub mod magnitude;
pub mod obd;
pub mod sparsegpt;
pub mod statistics;
pub mod taylor;
pub mod wanda;

pub use sparsegpt::SparseGpt;
pub use statistics::Statistics;

use super::mask::Mask;
use super::select;
use crate::error::{Error, Result};
use crate::pattern::SparsityPattern;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt;
use std::str::FromStr;

/// A criterion by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Criterion {
    /// |w|.
    #[default]
    Magnitude,
    /// w².
    L2,
    /// ½·h·w² with the diagonal of the Hessian.
    Obd,
    /// |w|·‖x‖₂, compared within each output.
    Wanda,
    /// w²/[H⁻¹]² with its update of the remaining weights.
    SparseGpt,
    /// |γ| of the batch norm behind the output.
    BatchNorm,
    /// |w·g|.
    Taylor,
    /// Uniform noise.
    Random,
}

/// One weight matrix, as criteria see it.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// `[n, k]`, row-major.
    pub weights: &'a [f32],
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

/// A mask with the weights that go with it.
#[derive(Clone, Debug)]
pub struct Selection {
    /// What stays.
    pub mask: Mask,
    /// The remaining weights where the criterion changes them, zeros elsewhere; `None` where they stay as they were.
    pub updated: Option<Vec<f32>>,
}

impl Criterion {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Magnitude,
        Self::L2,
        Self::Obd,
        Self::Wanda,
        Self::SparseGpt,
        Self::BatchNorm,
        Self::Taylor,
        Self::Random,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Magnitude => "magnitude",
            Self::L2 => "l2",
            Self::Obd => "obd",
            Self::Wanda => "wanda",
            Self::SparseGpt => "sparsegpt",
            Self::BatchNorm => "bn",
            Self::Taylor => "taylor",
            Self::Random => "random",
        }
    }

    /// Whether it needs what only calibration data say.
    pub const fn needs_statistics(self) -> bool {
        !matches!(self, Self::Magnitude | Self::L2 | Self::Random)
    }

    /// Whether its scores come from the inputs that are known.
    fn reads_inputs(self, statistics: &Statistics) -> bool {
        match self {
            Self::Obd => !statistics.knows_gradients(),
            Self::Wanda | Self::SparseGpt => true,
            _ => false,
        }
    }

    /// One score a weight, row-major. For SparseGPT these are the scores before any update: the saliency
    /// w²/[H⁻¹]_jj of pruning one weight alone (optimal brain surgeon, Hassibi & Stork 1993, eq. 5). `seed` matters to
    /// [`Criterion::Random`] alone; give each layer its own.
    ///
    /// # Errors
    /// Statistics that the criterion needs and that are missing or do not fit the matrix.
    pub fn scores(self, w: Matrix<'_>, statistics: &Statistics, seed: u64) -> Result<Vec<f32>> {
        if w.n.checked_mul(w.k) != Some(w.weights.len()) {
            let reason = format!("{} weights do not fill a {}×{} matrix", w.weights.len(), w.n, w.k);
            return Err(Error::argument("weights", reason));
        }
        if let Some(parts) = by_group(w, statistics).filter(|_| self.reads_inputs(statistics)) {
            let parts = parts?.into_iter().map(|(w, s)| self.scores(w, s, seed)).collect::<Result<Vec<_>>>()?;
            return Ok(parts.concat());
        }
        match self {
            Self::Magnitude => Ok(magnitude::l1(w.weights)),
            Self::L2 => Ok(magnitude::l2(w.weights)),
            Self::Obd => match statistics.gradients() {
                Some((gradients, samples)) => {
                    let diagonal = obd::fisher(gradients, samples, w.weights.len())?;
                    obd::scores(w, &diagonal)
                }
                None => {
                    let squares = statistics.squares(w.k, self)?;
                    obd::scores_by_input(w, &squares)
                }
            },
            Self::Wanda => {
                let norms: Vec<f64> = statistics.squares(w.k, self)?.iter().map(|s| s.sqrt()).collect();
                wanda::scores(w, &norms)
            }
            Self::SparseGpt => sparsegpt::scores(w, &statistics.products(w.k, self)?, sparsegpt::DAMPENING),
            Self::BatchNorm => magnitude::batch_norm(w, statistics.gamma(w.n)?),
            Self::Taylor => taylor::scores(w, statistics.gradient(w.weights.len())?),
            Self::Random => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                Ok((0..w.weights.len()).map(|_| rng.random::<f32>()).collect())
            }
        }
    }

    /// The mask of a pattern under this criterion, and the changed weights where it changes any: Wanda compares within
    /// each output, SparseGPT works through the columns and updates what is behind them.
    ///
    /// # Errors
    /// As [`Criterion::scores`] and [`select::mask`].
    pub fn select(
        self,
        w: Matrix<'_>,
        statistics: &Statistics,
        pattern: &SparsityPattern,
        seed: u64,
    ) -> Result<Selection> {
        if self == Self::SparseGpt
            && matches!(pattern, SparsityPattern::Nm { .. } | SparsityPattern::Unstructured(_))
            && let Some(parts) = by_group(w, statistics)
        {
            let parts =
                parts?.into_iter().map(|(w, s)| self.select(w, s, pattern, seed)).collect::<Result<Vec<_>>>()?;
            let rows = (w.n / parts.len()) as u64;
            let keep = |r: u64, c: u64| parts[(r / rows) as usize].mask.get(r % rows, c);
            let mask = Mask::from_fn(w.n as u64, w.k as u64, keep);
            let updated = parts.into_iter().map(|p| p.updated).collect::<Option<Vec<_>>>();
            return Ok(Selection { mask, updated: updated.map(|u| u.concat()) });
        }
        if self == Self::SparseGpt && SparseGpt::supports(pattern) && statistics.groups.is_empty() {
            let products = statistics.products(w.k, self)?;
            let mut updated = w.weights.to_vec();
            let mask = SparseGpt::default().prune(&mut updated, w.n, w.k, &products, pattern)?;
            return Ok(Selection { mask, updated: Some(updated) });
        }
        let scores = self.scores(w, statistics, seed)?;
        let mask = match self {
            Self::Wanda => select::mask_per_output(&scores, w.n, w.k, pattern)?,
            _ => select::mask(&scores, w.n, w.k, pattern)?,
        };
        Ok(Selection { mask, updated: None })
    }
}

/// A matrix whose groups of outputs read inputs of their own, group by group with what is known of each; `None` where all
/// read the same.
pub(in crate::sparsity) fn by_group<'a>(
    w: Matrix<'a>,
    s: &'a Statistics,
) -> Option<Result<Vec<(Matrix<'a>, &'a Statistics)>>> {
    let groups = s.groups.len();
    if groups == 0 {
        return None;
    }
    let n = w.n / groups;
    if n * groups != w.n || n * w.k == 0 {
        let reason = format!("what is known of {groups} groups does not fit {} outputs", w.n);
        return Some(Err(Error::argument("calibration statistics", reason)));
    }
    let part = |(weights, s)| (Matrix { weights, n, k: w.k }, s);
    Some(Ok(w.weights.chunks_exact(n * w.k).zip(&s.groups).map(part).collect()))
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Criterion {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "l1" => Ok(Self::Magnitude),
            name => Self::ALL
                .into_iter()
                .find(|c| c.name() == name)
                .ok_or_else(|| Error::unknown("saliency", text, Self::ALL.map(Self::name))),
        }
    }
}
