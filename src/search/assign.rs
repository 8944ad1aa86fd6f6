//! Which pattern for which layer: a table of costs and losses, the knapsack over it, and the heuristics beside it.
//!
//! **How separable a network's time is.** On one queue it is the sum of its steps' times, and a mask changes its own
//! step alone, but for one thing: fewer stored weights leave more of the last cache level to activations, so that a later
//! step may find an input there that it would not have found. The table is therefore made at a given state of the cache (that
//! of the dense network first, then that of the best answer so far), every answer is estimated again as a whole, and the best
//! *whole* estimate is what is returned. [`Answer`] has both figures. The proof of optimality speaks of the table.

use super::baselines::{self, Candidates, Limit};
use super::knapsack;
use super::quality::{Memo, Proxy};
use crate::cost::network::{Total, network, residency_of, step_cost};
use crate::cost::{self, CostModel};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::lower::{Assignment, Choice, Lowered, Rule, Step, steps};
use crate::pattern::SparsityPattern;
use crate::profile::Profile;
use crate::units::Bytes;
use crate::workload::Graph;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What is asked.
pub struct Question<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// The machine.
    pub profile: &'a Profile,
    /// Number format of operands.
    pub dtype: DType,
    /// Cache state, threads.
    pub options: cost::Options,
    /// The patterns to choose from; dense is always among them.
    pub patterns: &'a [Choice],
    /// Where losses come from.
    pub proxy: &'a Proxy,
    /// What is minimised or limited besides the loss.
    pub cost: Cost,
}

/// What a network costs, for the search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cost {
    /// Seconds.
    #[default]
    Latency,
    /// Joules.
    Energy,
}

impl Cost {
    fn of(self, total: &Total, profile: &Profile) -> Result<f64> {
        match self {
            Self::Latency => Ok(total.time.get()),
            Self::Energy => total.energy.map(|e| e.get()).ok_or_else(|| no_energy(profile)),
        }
    }
}

fn no_energy(profile: &Profile) -> Error {
    Error::argument("--minimize", format!("`{}` says nothing of energy; minimise latency instead", profile.name))
}

/// A budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// The network's loss is at most this.
    Loss(f64),
    /// Its latency (or energy) is at most this, in seconds or joules.
    Cost(f64),
    /// Its latency (or energy) is at most this share of the dense network's.
    Share(f64),
}

/// One way of choosing, and what it chose.
#[derive(Clone, Debug)]
pub struct Method {
    /// `optimal`, `uniform`, `MACs-greedy`, `cost-greedy` (by latency or energy), `discretised knapsack (HALP)`.
    pub name: &'static str,
    /// For each layer the place of its pattern in [`Answer::patterns`]; `None` where the budget cannot be met this way.
    pub outcome: Option<Outcome>,
}

/// A choice and what it costs.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For each layer the place of its pattern in [`Answer::patterns`].
    pub choice: Vec<usize>,
    /// Loss of the network.
    pub loss: f64,
    /// Cost by the table: a sum over steps at a fixed state of the cache.
    pub separable: f64,
    /// Cost of the network as a whole.
    pub whole: f64,
    /// Whether the whole meets the budget too.
    pub within: bool,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The patterns that were offered, dense first.
    pub patterns: Vec<Choice>,
    /// Names of the layers that patterns apply to, in the network's order.
    pub layers: Vec<String>,
    /// The budget in loss, seconds or joules.
    pub limit: Limit,
    /// Cost of the dense network.
    pub dense: f64,
    /// The optimal assignment first, then the heuristics.
    pub methods: Vec<Method>,
    /// Least cost (or loss) that any choice within the budget can have by the table.
    pub bound: f64,
    /// Relative gap between the answer and that bound; zero proves it optimal for the table.
    pub gap: f64,
    /// Partial assignments that the proof looked at.
    pub states: u64,
    /// (step, pattern) pairs that were estimated.
    pub evaluations: u64,
    /// Cost and loss of each layer under each pattern, by the last table.
    pub table: Vec<Vec<(f64, f64)>>,
}

impl Answer {
    /// The optimal assignment.
    pub fn optimal(&self) -> Option<&Outcome> {
        self.methods.first().and_then(|m| m.outcome.as_ref())
    }

    /// What was minimised; infinite where the optimal assignment is over the budget as a whole.
    pub fn objective(&self) -> f64 {
        self.optimal().map_or(f64::INFINITY, |o| match self.limit {
            _ if !o.within => f64::INFINITY,
            Limit::Loss(_) => o.whole,
            Limit::Cost(_) => o.loss,
        })
    }

    /// Rules that give `hwsim estimate` the assignment of an outcome.
    pub fn rules(&self, outcome: &Outcome) -> Vec<String> {
        let pairs = self.layers.iter().zip(&outcome.choice);
        pairs.filter(|(_, j)| **j > 0).map(|(layer, &j)| format!("{layer}={}", self.patterns[j])).collect()
    }
}

/// The network's steps under each pattern, and which of them patterns apply to.
pub struct Variants {
    /// The patterns, dense first.
    pub patterns: Vec<Choice>,
    /// Steps under each pattern; all have the same leads and reads.
    pub steps: Vec<Vec<Step>>,
    /// Indices of the steps that patterns apply to.
    pub prunable: Vec<usize>,
    /// Their layers' names.
    pub names: Vec<String>,
    /// Loss of each of them under each pattern.
    pub losses: Vec<Vec<f64>>,
}

/// The network as it is before channels go.
pub(super) struct Dense {
    /// Its cost.
    pub(super) cost: f64,
    /// What sums of losses are divided by.
    scale: f64,
    /// What each layer with weights runs.
    ops: BTreeMap<String, Vec<Lowered>>,
}

/// The dense network of a question.
pub(super) fn dense_of(question: &Question<'_>) -> Result<Dense> {
    let model = cost::model(question.profile, question.options)?;
    let steps = steps(question.graph, &Assignment::dense(), question.dtype, true)?;
    let cost = question.cost.of(&network(&steps, &*model, 1)?.total, question.profile)?;
    let weighted = || steps.iter().filter(|s| s.prunable);
    Ok(Dense {
        cost,
        scale: question.proxy.scale(weighted().map(|s| s.ops.as_slice())),
        ops: weighted().map(|s| (question.graph.layer(s.lead).name.clone(), s.ops.clone())).collect(),
    })
}

impl Variants {
    /// Variants of a network that has lost channels: `removed` names the layers that make them, with the pattern and the
    /// share. Those layers take no mask besides.
    pub(super) fn cut(
        question: &Question<'_>,
        dense: &Dense,
        removed: &BTreeMap<String, (SparsityPattern, f64)>,
    ) -> Result<Self> {
        let mut variants = Self::of(question)?;
        let scale = question.proxy.scale(variants.prunable.iter().map(|&i| variants.steps[0][i].ops.as_slice()));
        let mut memo = Memo::default();
        for (place, name) in variants.names.iter().enumerate() {
            for loss in &mut variants.losses[place] {
                *loss *= scale / dense.scale;
            }
            let (Some(&(pattern, share)), Some(ops)) = (removed.get(name), dense.ops.get(name)) else { continue };
            let loss = question.proxy.removed(name, pattern, share, ops, &mut memo)? / dense.scale;
            variants.losses[place].fill(loss);
            let i = variants.prunable[place];
            let (first, rest) = variants.steps.split_at_mut(1);
            rest.iter_mut().for_each(|steps| steps[i].clone_from(&first[0][i]));
        }
        Ok(variants)
    }

    /// Lowers the network under every pattern.
    ///
    /// # Errors
    /// Patterns that remove channels or heads, formats that do not fit, layers that a quality table lacks.
    pub fn of(question: &Question<'_>) -> Result<Self> {
        let mut patterns = vec![Choice::DENSE];
        for &p in question.patterns {
            if p.pattern.shrinks_graph() {
                return Err(Error::argument(
                    "--patterns",
                    format!(
                        "`{p}` removes channels from the graph and is no choice of one layer; leave it out under a budget"
                    ),
                ));
            }
            if !patterns.contains(&p) {
                patterns.push(p);
            }
        }
        let steps: Vec<Vec<Step>> = patterns
            .iter()
            .map(|&choice| steps(question.graph, &everywhere(choice), question.dtype, true))
            .collect::<Result<_>>()?;
        let prunable: Vec<usize> = (0..steps[0].len()).filter(|&i| steps[0][i].prunable).collect();
        let names: Vec<String> =
            prunable.iter().map(|&i| question.graph.layer(steps[0][i].lead).name.clone()).collect();
        let scale = question.proxy.scale(prunable.iter().map(|&i| steps[0][i].ops.as_slice()));
        let mut memo = Memo::default();
        let mut losses = vec![Vec::with_capacity(patterns.len()); prunable.len()];
        for (choice, steps) in patterns.iter().zip(&steps) {
            for ((&i, name), losses) in prunable.iter().zip(&names).zip(&mut losses) {
                losses.push(question.proxy.loss(name, choice.pattern, &steps[i].ops, &mut memo)? / scale);
            }
        }
        Ok(Self { patterns, steps, prunable, names, losses })
    }

    /// The steps of a mixed assignment.
    pub fn mixed(&self, choice: &[usize]) -> Vec<Step> {
        let mut mixed = self.steps[0].clone();
        for (&i, &j) in self.prunable.iter().zip(choice) {
            mixed[i] = self.steps[j][i].clone();
        }
        mixed
    }

    /// Loss of a mixed assignment.
    pub fn loss(&self, choice: &[usize]) -> f64 {
        self.losses.iter().zip(choice).map(|(l, &j)| l[j]).sum()
    }
}

/// One choice for every layer.
pub fn everywhere(choice: Choice) -> Assignment {
    if choice == Choice::DENSE {
        return Assignment::dense();
    }
    Assignment { rules: vec![Rule::everywhere(choice)] }
}

/// Tables are made again at the cache state of the last answer at most this often.
const ROUNDS: usize = 3;

/// Chooses a pattern for every layer within a budget.
///
/// # Errors
/// A budget that not even the lightest assignment meets, a machine without energy where energy is asked for, layers that
/// the machine cannot run.
pub fn assign(question: &Question<'_>, budget: Budget) -> Result<Answer> {
    let model = cost::model(question.profile, question.options)?;
    let variants = Variants::of(question)?;
    answer(question, &variants, &*model, budget)
}

/// The same with the network lowered before.
///
/// # Errors
/// As [`assign`].
pub fn answer(question: &Question<'_>, variants: &Variants, model: &dyn CostModel, budget: Budget) -> Result<Answer> {
    let steps = variants.mixed(&vec![0; variants.prunable.len()]);
    let dense = question.cost.of(&network(&steps, model, 1)?.total, question.profile)?;
    answer_cut(question, variants, model, budget, dense)
}

/// The same for a network that has lost channels; `dense` is what it cost whole.
pub(super) fn answer_cut(
    question: &Question<'_>,
    variants: &Variants,
    model: &dyn CostModel,
    budget: Budget,
    dense: f64,
) -> Result<Answer> {
    let whole = |choice: &[usize]| -> Result<f64> {
        question.cost.of(&network(&variants.mixed(choice), model, 1)?.total, question.profile)
    };
    let limit = match budget {
        Budget::Loss(l) => Limit::Loss(l),
        Budget::Cost(c) => Limit::Cost(c),
        Budget::Share(s) => Limit::Cost(s * dense),
    };
    let mut at = vec![0; variants.prunable.len()];
    let mut best: Option<(Answer, f64)> = None;
    let mut evaluations = 0;
    for _ in 0..ROUNDS {
        let table = Table::at(question, variants, model, &at)?;
        evaluations += table.evaluations;
        let Some(found) = solve(variants, &table, limit, dense, &whole)? else { break };
        let objective = found.objective();
        let next = found.optimal().map(|o| o.choice.clone()).unwrap_or_default();
        if best.as_ref().is_none_or(|(_, least)| objective < *least) {
            best = Some((found, objective));
        }
        if next == at || next.is_empty() {
            break;
        }
        at = next;
    }
    let Some((mut answer, _)) = best else {
        return Err(Error::argument(
            "--budget",
            "no assignment of these patterns meets it; allow more, or offer sparser patterns",
        ));
    };
    answer.evaluations = evaluations;
    Ok(answer)
}

/// Least `cost + price · loss` over all choices of masks, with the cost and the loss where it is reached: the Lagrangian
/// relaxation of the budget, exact layer by layer at the cache of the dense network.
pub(super) fn priced(
    question: &Question<'_>,
    variants: &Variants,
    model: &dyn CostModel,
    price: f64,
) -> Result<(f64, f64, f64)> {
    let table = Table::at(question, variants, model, &vec![0; variants.prunable.len()])?;
    let (mut cost, mut loss) = (table.fixed, 0.0);
    for layer in &table.candidates {
        let value = |f: &(f64, f64)| f.1 + price * f.0;
        let best = layer.figures.iter().min_by(|a, b| value(a).total_cmp(&value(b)));
        if let Some(&(l, c)) = best {
            (cost, loss) = (cost + c, loss + l);
        }
    }
    Ok((cost + price * loss, cost, loss))
}

impl Question<'_> {
    /// What a step costs with so many bytes of its inputs in the last cache level.
    pub(super) fn step(&self, step: &Step, resident: Bytes, model: &dyn CostModel) -> Result<(f64, f64)> {
        let Some(cost) = step_cost(step, resident, model)? else { return Ok((0.0, 0.0)) };
        let value = match self.cost {
            Cost::Latency => cost.time.get(),
            Cost::Energy => cost.energy.map(|e| e.get()).ok_or_else(|| no_energy(self.profile))?,
        };
        Ok((value, cost.macs.effectual))
    }
}

struct Table {
    candidates: Vec<Candidates>,
    /// Cost of the steps that patterns do not apply to.
    fixed: f64,
    evaluations: u64,
}

impl Table {
    /// Costs of every step under every pattern, with the cache as an assignment leaves it.
    fn at(question: &Question<'_>, variants: &Variants, model: &dyn CostModel, at: &[usize]) -> Result<Self> {
        let resident = residency_of(&variants.mixed(at), model);
        let figure = |step: &Step, resident: Bytes| question.step(step, resident, model);
        let candidates: Vec<Candidates> = variants
            .prunable
            .par_iter()
            .zip(&variants.losses)
            .map(|(&i, losses)| {
                let mut c = Candidates { figures: Vec::new(), macs: Vec::new() };
                for (steps, &loss) in variants.steps.iter().zip(losses) {
                    let (value, macs) = figure(&steps[i], resident[i])?;
                    c.figures.push((loss, value));
                    c.macs.push(macs);
                }
                Ok(c)
            })
            .collect::<Result<_>>()?;
        let mut fixed = 0.0;
        for (i, step) in variants.steps[0].iter().enumerate().filter(|(_, s)| !s.prunable) {
            fixed += figure(step, resident[i])?.0;
        }
        let evaluations = (variants.prunable.len() * variants.patterns.len()) as u64;
        Ok(Self { candidates, fixed, evaluations })
    }
}

fn solve(
    variants: &Variants,
    table: &Table,
    limit: Limit,
    dense: f64,
    whole: &dyn Fn(&[usize]) -> Result<f64>,
) -> Result<Option<Answer>> {
    // What no pattern touches is paid before the first choice.
    let inner = match limit {
        Limit::Loss(l) => Limit::Loss(l),
        Limit::Cost(c) => Limit::Cost(c - table.fixed),
    };
    let layers = &table.candidates;
    let classes = baselines::classes(layers, inner);
    let Some(solution) = knapsack::solve(&classes, inner.value()) else { return Ok(None) };
    let outcome = |choice: Vec<usize>| -> Result<Outcome> {
        let separable = table.fixed + layers.iter().zip(&choice).map(|(l, &j)| l.figures[j].1).sum::<f64>();
        let (loss, whole) = (variants.loss(&choice), whole(&choice)?);
        let slack = 1.0 + 1e-9;
        let within = match limit {
            Limit::Loss(l) => loss <= l * slack,
            Limit::Cost(c) => whole <= c * slack,
        };
        Ok(Outcome { choice, loss, separable, whole, within })
    };
    let named = |name, choice: Option<Vec<usize>>| -> Result<Method> {
        Ok(Method { name, outcome: choice.map(outcome).transpose()? })
    };
    let mut methods = vec![
        named("optimal", Some(solution.choice.clone()))?,
        named("uniform", baselines::uniform(layers, inner))?,
        named("MACs-greedy", baselines::greedy_macs(layers, inner))?,
        named("cost-greedy", baselines::greedy_cost(layers, inner))?,
        named("discretised knapsack (HALP)", baselines::discretised(layers, inner))?,
    ];
    adopt_better(&mut methods, limit);
    let fixed_share = match limit {
        Limit::Loss(_) => table.fixed,
        Limit::Cost(_) => 0.0,
    };
    let (cost, bound) = (solution.cost + fixed_share, solution.bound + fixed_share);
    Ok(Some(Answer {
        patterns: variants.patterns.clone(),
        layers: variants.names.clone(),
        limit,
        dense,
        methods,
        bound,
        gap: if cost > 0.0 { ((cost - bound) / cost).max(0.0) } else { 0.0 },
        states: solution.states,
        evaluations: 0,
        table: layers.iter().map(|l| l.figures.clone()).collect(),
    }))
}

/// Where the network as a whole prefers a heuristic's choice (the cache that the table cannot see), that is the answer.
fn adopt_better(methods: &mut [Method], limit: Limit) {
    let value = |m: &Method| match (&m.outcome, limit) {
        (Some(o), Limit::Loss(_)) if o.within => o.whole,
        (Some(o), Limit::Cost(_)) if o.within => o.loss,
        _ => f64::INFINITY,
    };
    let Some((first, rest)) = methods.split_first_mut() else { return };
    let Some(best) = rest.iter().min_by(|a, b| value(a).total_cmp(&value(b))) else { return };
    if value(best) < value(first) {
        first.outcome.clone_from(&best.outcome);
    }
}
