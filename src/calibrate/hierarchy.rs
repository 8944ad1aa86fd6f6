//! Robust hierarchical least squares.
//!
//! A prediction depends on slots (unbounded numbers: logarithms and logits of constants). Each slot is a sum of columns:
//! the mean of its engine, the deviation of a generation, of an architecture, of both together. Columns have normal
//! priors around zero (around a physical value for means), so that what the rows do not determine stays with its
//! relatives (Gelman and Hill, *Data Analysis Using Regression*, ch. 12). Residuals are logarithms of predicted over
//! measured, under a smoothed absolute value; Gauss–Newton on iteratively reweighted squares with Levenberg's damping.

use std::collections::BTreeMap;

/// One fitted number and its prior.
#[derive(Clone, Debug)]
pub struct Column {
    /// Prior mean.
    pub mean: f64,
    /// Prior standard deviation; zero keeps the mean.
    pub deviation: f64,
}

/// One row: its slots' layout, the logarithm of its measured seconds, its weight.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Index of the layout.
    pub layout: usize,
    /// Natural logarithm of the measured seconds.
    pub target: f64,
    /// Weight in the objective.
    pub weight: f64,
}

/// Columns, layouts and rows.
#[derive(Debug, Default)]
pub struct Problem {
    columns: Vec<Column>,
    names: BTreeMap<String, usize>,
    layouts: Vec<Vec<Vec<usize>>>,
    layout_names: BTreeMap<String, usize>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// Residuals below this count as squares: 3 %, about the rows' own noise.
const SMOOTH: f64 = 0.03;
/// Weight of a standard deviation of a prior against a row.
const PRIOR: f64 = 0.02;
/// Step of the numerical derivatives.
const STEP: f64 = 0.03;

impl Problem {
    /// The column of a name, made with a prior where it is new.
    pub fn column(&mut self, name: &str, mean: f64, deviation: f64) -> usize {
        if let Some(&i) = self.names.get(name) {
            return i;
        }
        self.columns.push(Column { mean, deviation });
        self.names.insert(name.to_owned(), self.columns.len() - 1);
        self.columns.len() - 1
    }

    /// A column's value in a solution; 0 where no row asked for it.
    pub fn value(&self, name: &str, solution: &[f64]) -> Option<f64> {
        self.names.get(name).map(|&i| solution[i])
    }

    /// The layout of a name, made by `slots` where it is new.
    pub fn layout(&mut self, name: &str, slots: impl FnOnce(&mut Self) -> Vec<Vec<usize>>) -> usize {
        if let Some(&i) = self.layout_names.get(name) {
            return i;
        }
        let made = slots(self);
        self.layouts.push(made);
        self.layout_names.insert(name.to_owned(), self.layouts.len() - 1);
        self.layouts.len() - 1
    }

    /// A row's slots under a solution.
    pub fn slots(&self, layout: usize, solution: &[f64], out: &mut Vec<f64>) {
        out.clear();
        out.extend(self.layouts[layout].iter().map(|columns| columns.iter().map(|&c| solution[c]).sum::<f64>()));
    }

    /// Prior means.
    pub fn start(&self) -> Vec<f64> {
        self.columns.iter().map(|c| c.mean).collect()
    }

    /// Fits the columns to the rows; `predict` gives a row's seconds for its slots.
    pub fn fit(&self, predict: &dyn Fn(usize, &[f64]) -> f64, iterations: usize) -> Vec<f64> {
        let all = self.columns.len();
        let mut active = vec![false; all];
        for row in &self.rows {
            for &c in self.layouts[row.layout].iter().flatten() {
                active[c] |= self.columns[c].deviation > 0.0;
            }
        }
        let mut size = 0;
        let position: Vec<usize> = active
            .iter()
            .map(|&a| {
                size += usize::from(a);
                if a { size - 1 } else { usize::MAX }
            })
            .collect();
        let mut solution = self.start();
        let mut cost = self.objective(predict, &solution, &active);
        let mut damping = 1e-3;
        let mut idle = 0;
        for _ in 0..iterations {
            let (normal, gradient) = self.normal_equations(predict, &solution, &position, size);
            let mut improved = false;
            for _ in 0..6 {
                let mut damped = normal.clone();
                for i in 0..size {
                    damped[i * size + i] *= 1.0 + damping;
                }
                let step = solve(&mut damped, &gradient, size);
                let mut candidate = solution.clone();
                for (value, &at) in candidate.iter_mut().zip(&position) {
                    if at != usize::MAX {
                        *value -= step[at].clamp(-0.5, 0.5);
                    }
                }
                let candidate_cost = self.objective(predict, &candidate, &active);
                if candidate_cost < cost {
                    idle = if cost - candidate_cost < 1e-4 * cost { idle + 1 } else { 0 };
                    (cost, solution) = (candidate_cost, candidate);
                    damping = (damping * 0.3).max(1e-6);
                    improved = true;
                    break;
                }
                damping *= 6.0;
            }
            if !improved || idle >= 3 {
                break;
            }
        }
        solution
    }

    fn objective(&self, predict: &dyn Fn(usize, &[f64]) -> f64, solution: &[f64], active: &[bool]) -> f64 {
        let mut slots = Vec::new();
        let misfit: f64 = self
            .rows
            .iter()
            .enumerate()
            .map(|(i, row)| {
                self.slots(row.layout, solution, &mut slots);
                let r = predict(i, &slots).ln() - row.target;
                row.weight * ((r * r + SMOOTH * SMOOTH).sqrt() - SMOOTH)
            })
            .sum();
        let prior: f64 = (0..solution.len())
            .filter(|&i| active[i])
            .map(|i| ((solution[i] - self.columns[i].mean) / self.columns[i].deviation).powi(2))
            .sum();
        misfit + 0.5 * PRIOR * prior
    }

    fn normal_equations(
        &self,
        predict: &dyn Fn(usize, &[f64]) -> f64,
        solution: &[f64],
        position: &[usize],
        size: usize,
    ) -> (Vec<f64>, Vec<f64>) {
        let mut normal = vec![0.0; size * size];
        let mut gradient = vec![0.0; size];
        let mut slots = Vec::new();
        let mut derivatives: Vec<(usize, f64)> = Vec::new();
        for (i, row) in self.rows.iter().enumerate() {
            self.slots(row.layout, solution, &mut slots);
            let here = predict(i, &slots);
            let residual = here.ln() - row.target;
            let weight = row.weight / (residual * residual + SMOOTH * SMOOTH).sqrt();
            derivatives.clear();
            for s in 0..slots.len() {
                let columns = &self.layouts[row.layout][s];
                if columns.iter().all(|&c| position[c] == usize::MAX) {
                    continue;
                }
                let value = slots[s];
                slots[s] = value + STEP;
                let up = predict(i, &slots);
                slots[s] = value - STEP;
                let down = predict(i, &slots);
                slots[s] = value;
                let slope = (up - down) / (2.0 * STEP * here);
                if slope != 0.0 {
                    derivatives
                        .extend(columns.iter().filter(|&&c| position[c] != usize::MAX).map(|&c| (position[c], slope)));
                }
            }
            for &(a, da) in &derivatives {
                gradient[a] += weight * da * residual;
                for &(b, db) in &derivatives {
                    normal[a * size + b] += weight * da * db;
                }
            }
        }
        for (i, &at) in position.iter().enumerate() {
            if at != usize::MAX {
                let precision = PRIOR / self.columns[i].deviation.powi(2);
                normal[at * size + at] += precision;
                gradient[at] += precision * (solution[i] - self.columns[i].mean);
            }
        }
        (normal, gradient)
    }
}

/// Solves a symmetric positive system by Cholesky's decomposition, in place.
fn solve(matrix: &mut [f64], right: &[f64], n: usize) -> Vec<f64> {
    for j in 0..n {
        for i in j..n {
            let (a, b) = (&matrix[i * n..i * n + j], &matrix[j * n..j * n + j]);
            let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
            let rest = matrix[i * n + j] - dot;
            matrix[i * n + j] = if i == j { rest.max(1e-12).sqrt() } else { rest / matrix[j * n + j] };
        }
    }
    let mut x = right.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| matrix[i * n + k] * x[k]).sum();
        x[i] = (x[i] - dot) / matrix[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| matrix[k * n + i] * x[k]).sum();
        x[i] = (x[i] - dot) / matrix[i * n + i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_what_rows_do_not_tell() {
        // Two groups around a common mean of ln 2; the second has one row only and stays near the first.
        let mut p = Problem::default();
        for (group, count) in [("a", 20), ("b", 1)] {
            for _ in 0..count {
                let layout = p.layout(group, |p| {
                    vec![vec![p.column("mean", 0.0, 1.0), p.column(&format!("dev.{group}"), 0.0, 0.1)]]
                });
                p.rows.push(Row { layout, target: 2f64.ln(), weight: 1.0 });
            }
        }
        let solution = p.fit(&|_, s| s[0].exp(), 50);
        let mean = p.value("mean", &solution).unwrap();
        assert!((mean - 2f64.ln()).abs() < 0.02, "{mean}");
        assert!(p.value("dev.b", &solution).unwrap().abs() < 0.02);
    }
}
