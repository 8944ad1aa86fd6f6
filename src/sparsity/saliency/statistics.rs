//! What calibration data say of one layer: inputs or their sums, gradients, batch-norm scales.

use super::Criterion;
use crate::error::{Error, Result};

/// Statistics of one weight matrix `[n, k]`; what is absent is simply not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Calibration rows `[samples, k]`.
    pub inputs: Option<Vec<f32>>,
    /// ‖x_j‖₂ of each input.
    pub norms: Option<Vec<f64>>,
    /// Σ x·xᵀ, `[k, k]`.
    pub products: Option<Vec<f64>>,
    /// Gradients of the loss by weight, one row of all weights a sample.
    gradients: Option<Vec<f32>>,
    /// Their mean, computed once.
    mean_gradient: Option<Vec<f32>>,
    /// Rows in `gradients`.
    samples: usize,
    /// γ of the batch norm behind the outputs.
    pub gamma: Option<Vec<f32>>,
    /// Of filters in groups, each of which reads inputs of its own: what is known of them group by group, for as many
    /// consecutive outputs each. Empty where all outputs read the same.
    pub groups: Vec<Self>,
}

impl Statistics {
    /// Nothing known.
    pub fn none() -> Self {
        Self::default()
    }

    /// From calibration rows `[samples, k]`.
    pub fn of_inputs(inputs: Vec<f32>) -> Self {
        Self { inputs: Some(inputs), ..Self::default() }
    }

    /// From Σ x·xᵀ, `[k, k]`.
    pub fn of_products(products: Vec<f64>) -> Self {
        Self { products: Some(products), ..Self::default() }
    }

    /// Adds gradients: `samples` rows of one value a weight.
    #[must_use]
    pub fn with_gradients(mut self, gradients: Vec<f32>, samples: usize) -> Self {
        let weights = gradients.len() / samples.max(1);
        let mut mean = vec![0f32; weights];
        for row in gradients.chunks_exact(weights.max(1)) {
            mean.iter_mut().zip(row).for_each(|(m, g)| *m += g / samples.max(1) as f32);
        }
        (self.gradients, self.mean_gradient, self.samples) = (Some(gradients), Some(mean), samples);
        self
    }

    /// Of the matrix that has these rows and columns of an `[n, k]` one, in this order; `None` for all of them.
    #[must_use]
    pub fn part(&self, (n, k): (usize, usize), rows: Option<&[usize]>, cols: Option<&[usize]>) -> Self {
        let all = |extent: usize, some: Option<&[usize]>| some.map_or_else(|| (0..extent).collect(), <[usize]>::to_vec);
        let (rows, cols): (Vec<usize>, Vec<usize>) = (all(n, rows), all(k, cols));
        let matrix = |values: &[f32]| -> Vec<f32> {
            let at = |&r: &usize| cols.iter().map(move |&c| values[r * k + c]);
            rows.iter().flat_map(at).collect()
        };
        // What does not fit the whole matrix is left as it is, to those who say so.
        fn picked<T: Copy>(all: &Option<Vec<T>>, extent: usize, which: &[usize]) -> Option<Vec<T>> {
            let all = all.as_ref()?;
            Some(if all.len() == extent { which.iter().map(|&i| all[i]).collect() } else { all.clone() })
        }
        let part = Self {
            inputs: self.inputs.as_ref().map(|x| match x.len() % k.max(1) {
                0 => x.chunks_exact(k.max(1)).flat_map(|x| cols.iter().map(|&c| x[c])).collect(),
                _ => x.clone(),
            }),
            norms: picked(&self.norms, k, &cols),
            products: self.products.as_ref().map(|p| match p.len() == k * k {
                true => cols.iter().flat_map(|&i| cols.iter().map(move |&j| p[i * k + j])).collect(),
                false => p.clone(),
            }),
            gamma: picked(&self.gamma, n, &rows),
            groups: self.groups_of(n, &rows).into_iter().map(|g| g.part((n, k), None, Some(&cols))).collect(),
            ..Self::default()
        };
        match &self.gradients {
            Some(g) if g.len() == self.samples * n * k => {
                part.with_gradients(g.chunks_exact((n * k).max(1)).flat_map(matrix).collect(), self.samples)
            }
            _ => part,
        }
    }

    /// The groups that rows of an `[n, k]` matrix belong to, each of the same number of them; none where they are torn.
    fn groups_of(&self, n: usize, rows: &[usize]) -> Vec<&Self> {
        let each = n / self.groups.len().max(1);
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for group in rows.iter().map(|r| r / each.max(1)) {
            match runs.last_mut() {
                Some((last, count)) if *last == group => *count += 1,
                _ => runs.push((group, 1)),
            }
        }
        let even = runs.windows(2).all(|w| w[0].1 == w[1].1);
        let groups = runs.iter().map(|(group, _)| self.groups.get(*group)).collect::<Option<Vec<_>>>();
        groups.filter(|_| even).unwrap_or_default()
    }

    /// Whether anything of the inputs is known.
    pub fn knows_inputs(&self) -> bool {
        let here = self.inputs.is_some() || self.norms.is_some() || self.products.is_some();
        here || !self.groups.is_empty() && self.groups.iter().all(Self::knows_inputs)
    }

    /// Whether gradients are known.
    pub fn knows_gradients(&self) -> bool {
        self.gradients.is_some()
    }

    /// Gradients and their number of rows.
    pub(super) fn gradients(&self) -> Option<(&[f32], usize)> {
        self.gradients.as_deref().map(|g| (g, self.samples))
    }

    /// Σ x_j² of each of `k` inputs, from whatever is known.
    ///
    /// # Errors
    /// Nothing known of the inputs, or of another number of them.
    pub fn squares(&self, k: usize, of: Criterion) -> Result<Vec<f64>> {
        if let Some(norms) = &self.norms {
            fits(norms.len(), k)?;
            return Ok(norms.iter().map(|x| x * x).collect());
        }
        if let Some(products) = &self.products {
            fits(products.len(), k * k)?;
            return Ok((0..k).map(|j| products[j * (k + 1)]).collect());
        }
        let inputs = self.rows(k, of)?;
        let mut sums = vec![0f64; k];
        for row in inputs.chunks_exact(k.max(1)) {
            sums.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x) * f64::from(x));
        }
        Ok(sums)
    }

    /// Σ x·xᵀ, `[k, k]`.
    ///
    /// # Errors
    /// As [`Statistics::squares`]; norms alone do not say it.
    pub fn products(&self, k: usize, of: Criterion) -> Result<Vec<f64>> {
        if let Some(products) = &self.products {
            fits(products.len(), k * k)?;
            return Ok(products.clone());
        }
        let inputs = self.rows(k, of)?;
        let mut sums = vec![0f64; k * k];
        for row in inputs.chunks_exact(k.max(1)) {
            for (i, line) in sums.chunks_exact_mut(k.max(1)).enumerate() {
                let x = f64::from(row[i]);
                line[..=i].iter_mut().zip(row).for_each(|(s, &y)| *s += x * f64::from(y));
            }
        }
        for i in 0..k {
            for j in 0..i {
                sums[j * k + i] = sums[i * k + j];
            }
        }
        Ok(sums)
    }

    fn rows(&self, k: usize, of: Criterion) -> Result<&[f32]> {
        let inputs =
            self.inputs.as_deref().ok_or_else(|| missing(of, "inputs X (samples×k), norms or products XXᵀ"))?;
        if k == 0 || inputs.is_empty() || inputs.len() % k != 0 {
            let reason = format!("{} input values are not rows of {k}", inputs.len());
            return Err(Error::argument("calibration statistics", reason));
        }
        Ok(inputs)
    }

    /// The mean gradient of each weight.
    pub(super) fn gradient(&self, weights: usize) -> Result<&[f32]> {
        let mean = self.mean_gradient.as_deref().ok_or_else(|| missing(Criterion::Taylor, "gradients"))?;
        fits(mean.len(), weights)?;
        Ok(mean)
    }

    /// γ of each output.
    pub(super) fn gamma(&self, n: usize) -> Result<&[f32]> {
        let gamma = self.gamma.as_deref().ok_or_else(|| {
            missing(Criterion::BatchNorm, "a batch norm behind the layer (one that was folded has no scale left)")
        })?;
        fits(gamma.len(), n)?;
        Ok(gamma)
    }
}

fn missing(of: Criterion, what: &str) -> Error {
    Error::argument("calibration statistics", format!("saliency `{of}` needs {what} and there is none"))
}

fn fits(found: usize, wanted: usize) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::argument("calibration statistics", format!("{found} values where the layer needs {wanted}")))
}
