//! Channels and heads under a budget: a fraction for every dependency group, and masks for the layers of what is left.
//!
//! A group's channels are the outputs of some layers and the inputs of others, so the time of a layer depends on several
//! groups at once, and not monotonously (tiles, waves). For one choice of all groups the graph is cut
//! ([`crate::lower::shrink::resized`]) and the masks of what is left are chosen exactly. The groups themselves are all tried
//! where there are at most [`FEW`] combinations, and the answer is then exact. Otherwise the budget gets a price: the
//! relaxation ([`super::relaxation`]) is solved over all groups at once at a series of prices, which gives a bound that no
//! choice can beat; the masks within the budget are chosen exactly for every choice of groups that it finds, and single groups
//! change as long as that helps and the gap to the bound is more than [`CLOSE`]. Where a step depends on too many groups for that (a dense
//! block's concatenations), one group after another takes what is cheapest at a price, and the answer carries no bound.
//!
//! A layer takes one pattern: one that makes removed channels stays dense otherwise. Removed channels cost their producers
//! alone (the energy of the removed outputs); what their consumers no longer read is no further loss.

use super::assign::{Answer, Budget, Dense, Question, Variants, answer_cut, dense_of, priced};
use super::relaxation::{Bound, Limited, Lowered, Relaxation};
use crate::cost;
use crate::error::{Error, Result};
use crate::lower::shrink::resized;
use crate::lower::{Choice, layer};
use crate::pattern::SparsityPattern;
use crate::sparsity::groups::{ClassId, Group, Groups, Kind};
use crate::sparsity::mask::kept;
use std::collections::BTreeMap;

/// Combinations of groups that are all tried.
pub const FEW: u64 = 512;

/// Passes over all groups at most, at one price and at the end.
const PASSES: usize = 2;

/// Prices that are tried: a bisection over twelve orders of magnitude around the dense cost.
const PRICES: usize = 10;

/// What is known of answers better than the one that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Proof {
    /// All combinations of groups were tried.
    All,
    /// No choice of groups and masks within the budget has less than `bound` of what is minimised, a relative `gap` away.
    Bound {
        /// Seconds, joules or loss.
        bound: f64,
        /// (answer − bound) / answer.
        gap: f64,
    },
    /// Nothing: a local optimum over groups.
    None,
}

/// Groups up to which two change at once.
const PAIRED: usize = 8;

/// Choices of the relaxation from which single groups and pairs change, at most: each ends in a local optimum of its own.
const STARTS: usize = 6;

/// Gap below which nobody looks further.
const CLOSE: f64 = 1e-3;

/// An answer that cuts channels too.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The masks of what is left, and the heuristics on the same cut graph.
    pub answer: Answer,
    /// Producers of each group that lost channels, and the pattern that did it.
    pub groups: Vec<(Vec<String>, Choice)>,
    /// What is known of better answers.
    pub proof: Proof,
    /// Combinations that were tried.
    pub tried: u64,
}

impl Cut {
    /// Rules that give `hwsim estimate` the whole answer: masks, then channels, as the last rule wins.
    pub fn rules(&self) -> Vec<String> {
        let cut = self.groups.iter().flat_map(|(names, choice)| names.iter().map(move |n| format!("{n}={choice}")));
        let masks = self.answer.optimal().map(|o| self.answer.rules(o)).unwrap_or_default();
        masks.into_iter().chain(cut).collect()
    }
}

/// Chooses fractions of channels (heads) for every group and patterns for every layer within a budget. `question.patterns`
/// holds both: those that rewrite the graph, and masks. A layer whose own channels were cut stays dense otherwise, as one
/// layer takes one pattern.
///
/// # Errors
/// As [`super::assign::assign`], or a network without groups that may lose anything.
pub fn assign_groups(question: &Question<'_>, budget: Budget) -> Result<Cut> {
    let (cuts, masks): (Vec<Choice>, Vec<Choice>) =
        question.patterns.iter().copied().partition(|c| c.pattern.shrinks_graph());
    let groups = Groups::analyse(question.graph);
    let makes = |g: &Group| g.members.iter().any(|m| layer::takes_rules(question.graph.layer(m.node)));
    let options: Vec<(&Group, Vec<Choice>)> = groups
        .prunable()
        .filter(|g| makes(g))
        .map(|g| {
            (
                g,
                cuts.iter()
                    .copied()
                    .filter(|c| fraction(c.pattern).is_some_and(|(k, _)| k == g.kind))
                    .collect::<Vec<_>>(),
            )
        })
        .filter(|(_, choices)| !choices.is_empty())
        .collect();
    if options.is_empty() {
        let reason = format!("no group of `{}` may lose channels or heads by these patterns", question.graph.name);
        return Err(Error::argument("--patterns", reason));
    }
    let search = Search { question, masks, groups: &groups, options, budget, dense: dense_of(question)? };
    let combinations = search.options.iter().try_fold(1u64, |n, (_, c)| n.checked_mul(c.len() as u64 + 1));
    let exact = combinations.is_some_and(|n| n <= FEW);
    let bound = if exact { None } else { search.bound()? };
    let (best, tried) = match &bound {
        _ if exact => search.all(),
        Some(bound) => search.near(bound),
        None => search.one_by_one(),
    }?;
    let Some((places, objective, mut answer)) = best else {
        return Err(Error::argument(
            "--budget",
            "no assignment of these patterns meets it; allow more, or offer sparser patterns",
        ));
    };
    let chosen = search.options.iter().zip(&places).filter(|(_, p)| **p > 0);
    let groups =
        chosen.map(|((g, c), &p)| (g.producers().into_iter().map(str::to_owned).collect(), c[p - 1])).collect();
    let proof = match bound {
        _ if exact => Proof::All,
        Some(Bound { value, .. }) => {
            // Summed in another order, the bound may exceed the answer by rounding alone.
            let bound = value.min(objective);
            Proof::Bound { bound, gap: gap(objective, bound) }
        }
        None => Proof::None,
    };
    if let Proof::Bound { bound, gap } = proof {
        (answer.bound, answer.gap) = (bound, gap);
    }
    Ok(Cut { answer, groups, proof, tried })
}

fn gap(objective: f64, bound: f64) -> f64 {
    if objective > 0.0 { ((objective - bound) / objective).max(0.0) } else { 0.0 }
}

/// What a pattern removes from the graph, and which fraction.
fn fraction(pattern: SparsityPattern) -> Option<(Kind, f64)> {
    match pattern {
        SparsityPattern::Channel(s) => Some((Kind::Channel, s)),
        SparsityPattern::Head(s) => Some((Kind::Head, s)),
        _ => None,
    }
}

struct Search<'a> {
    question: &'a Question<'a>,
    masks: Vec<Choice>,
    groups: &'a Groups,
    options: Vec<(&'a Group, Vec<Choice>)>,
    budget: Budget,
    dense: Dense,
}

/// Places of the groups' choices (0: whole), the objective, and the masks' answer.
type Found = Option<(Vec<usize>, f64, Answer)>;

impl Search<'_> {
    /// What `use_it` says of the network and its variants for one choice of all groups.
    fn cut<T>(
        &self,
        places: &[usize],
        use_it: impl FnOnce(&Question<'_>, &Variants, &dyn cost::CostModel) -> Result<T>,
    ) -> Result<T> {
        let mut sizes: BTreeMap<ClassId, u64> = BTreeMap::new();
        let mut removed: BTreeMap<String, (SparsityPattern, f64)> = BTreeMap::new();
        for ((group, choices), &place) in self.options.iter().zip(places).filter(|(_, p)| **p > 0) {
            let pattern = choices[place - 1].pattern;
            let Some((_, fraction)) = fraction(pattern) else { continue };
            let left = kept(group.size, fraction).max(1);
            sizes.insert(group.class, left);
            let share = 1.0 - left as f64 / group.size as f64;
            for name in group.producers() {
                let entry = removed.entry(name.to_owned()).or_insert((pattern, share));
                entry.1 = entry.1.max(share);
            }
        }
        let graph = resized(self.question.graph, self.groups, &sizes)?;
        let question = Question { graph: &graph, patterns: &self.masks, ..*self.question };
        let variants = Variants::cut(&question, &self.dense, &removed)?;
        let model = cost::model(question.profile, question.options)?;
        use_it(&question, &variants, &*model)
    }

    /// The answer for one choice of all groups; `None` where the budget cannot be met.
    fn at(&self, places: &[usize]) -> Result<Option<(f64, Answer)>> {
        self.cut(places, |question, variants, model| {
            match answer_cut(question, variants, model, self.budget, self.dense.cost) {
                Ok(answer) => {
                    let objective = answer.objective();
                    Ok(objective.is_finite().then_some((objective, answer)))
                }
                Err(Error::Argument { .. }) => Ok(None),
                Err(e) => Err(e),
            }
        })
    }

    /// Whether cost and loss are within the budget.
    fn within(&self, cost: f64, loss: f64) -> bool {
        match self.budget {
            Budget::Loss(l) => loss <= l,
            Budget::Cost(c) => cost <= c,
            Budget::Share(s) => cost <= s * self.dense.cost,
        }
    }

    /// From `places`, one group after another to what is cheapest at a price of loss; the cost and loss of where it ends.
    fn descend(&self, places: &mut [usize], price: f64, tried: &mut u64) -> Result<(f64, f64)> {
        let mut value = |places: &[usize]| {
            *tried += 1;
            self.cut(places, |question, variants, model| priced(question, variants, model, price))
        };
        let mut best = value(places)?;
        for _ in 0..PASSES {
            let mut improved = false;
            for group in 0..places.len() {
                let before = places[group];
                let mut chosen = before;
                for place in (0..=self.options[group].1.len()).filter(|p| *p != before) {
                    places[group] = place;
                    let next = value(places)?;
                    if next.0 < best.0 {
                        (best, chosen, improved) = (next, place, true);
                    }
                }
                places[group] = chosen;
            }
            if !improved {
                break;
            }
        }
        Ok((best.1, best.2))
    }

    fn better(&self, best: &mut Found, places: &[usize]) -> Result<bool> {
        let Some((objective, answer)) = self.at(places)? else { return Ok(false) };
        let improves = best.as_ref().is_none_or(|(_, least, _)| objective < *least);
        if improves {
            *best = Some((places.to_vec(), objective, answer));
        }
        Ok(improves)
    }

    fn all(&self) -> Result<(Found, u64)> {
        let mut places = vec![0; self.options.len()];
        let (mut best, mut tried) = (None, 0);
        loop {
            self.better(&mut best, &places)?;
            tried += 1;
            let Some(i) = (0..places.len()).find(|&i| places[i] < self.options[i].1.len()) else {
                return Ok((best, tried));
            };
            places[..i].fill(0);
            places[i] += 1;
        }
    }

    /// The bound over all groups and masks; `None` where a step depends on too many groups.
    fn bound(&self) -> Result<Option<Bound>> {
        let sizes: Vec<usize> = self.options.iter().map(|(_, c)| c.len() + 1).collect();
        let model = cost::model(self.question.profile, self.question.options)?;
        let lower = |places: &[usize]| -> Result<Lowered> {
            self.cut(places, |_, variants, _| {
                let Variants { steps, prunable, losses, .. } = variants;
                let alone = steps[0].iter().map(|s| vec![(s.clone(), 0.0)]);
                let mut lowered: Lowered = alone.collect();
                for (&i, losses) in prunable.iter().zip(losses) {
                    lowered[i] = steps.iter().zip(losses).map(|(s, &loss)| (s[i].clone(), loss)).collect();
                }
                Ok(lowered)
            })
        };
        let price = |step: &crate::lower::Step, resident| Ok(self.question.step(step, resident, &*model)?.0);
        let limited = match self.budget {
            Budget::Loss(l) => Limited::Loss(l),
            Budget::Cost(c) => Limited::Cost(c),
            Budget::Share(s) => Limited::Cost(s * self.dense.cost),
        };
        let relaxation = Relaxation::of(&sizes, &*model, &price, &lower)?;
        Ok(relaxation.map(|r| r.bound(limited, self.dense.cost)))
    }

    /// The relaxation's choices, each improved while the best of all is not close to the bound.
    fn near(&self, bound: &Bound) -> Result<(Found, u64)> {
        let mut tried = 0;
        let mut starts: Vec<Found> = Vec::new();
        for places in &bound.candidates {
            let mut start = None;
            self.better(&mut start, places)?;
            tried += 1;
            starts.extend(start.map(Some));
        }
        if starts.is_empty() {
            let mut start = None;
            self.uniform(&mut start, &mut tried)?;
            starts.push(start);
        }
        let objective = |found: &Found| found.as_ref().map_or(f64::INFINITY, |(_, objective, _)| *objective);
        let open = |found: &Found| objective(found).is_infinite() || gap(objective(found), bound.value) > CLOSE;
        starts.sort_by(|a, b| objective(a).total_cmp(&objective(b)));
        starts.truncate(STARTS);
        let mut best: Found = None;
        for mut found in starts {
            self.singles(&mut found, &mut tried, &open)?;
            if self.options.len() <= PAIRED {
                self.pairs(&mut found, &mut tried, &open)?;
            }
            if objective(&found) < objective(&best) {
                best = found;
            }
            if !open(&best) {
                break;
            }
        }
        Ok((best, tried))
    }

    /// Two groups change at once as long as that helps and the answer is open: with few groups the steps are large, and what one
    /// group gives up another must take.
    fn pairs(&self, best: &mut Found, tried: &mut u64, open: &dyn Fn(&Found) -> bool) -> Result<()> {
        loop {
            let mut improved = false;
            for (a, b) in (0..self.options.len()).flat_map(|b| (0..b).map(move |a| (a, b))) {
                let (of_a, of_b) = (self.options[a].1.len() + 1, self.options[b].1.len() + 1);
                for code in 0..of_a * of_b {
                    let Some((places, ..)) = best.as_ref().filter(|_| open(best)) else { return Ok(()) };
                    let mut places = places.clone();
                    let next = (code % of_a, code / of_a);
                    if places[a] == next.0 || places[b] == next.1 {
                        continue;
                    }
                    (places[a], places[b]) = next;
                    improved |= self.better(best, &places)?;
                    *tried += 1;
                }
            }
            if !improved {
                return Ok(());
            }
        }
    }

    /// All groups at the same place.
    fn uniform(&self, best: &mut Found, tried: &mut u64) -> Result<()> {
        let most = self.options.iter().map(|(_, c)| c.len()).max().unwrap_or(0);
        for place in 0..=most {
            let places: Vec<usize> = self.options.iter().map(|(_, c)| place.min(c.len())).collect();
            self.better(best, &places)?;
            *tried += 1;
        }
        Ok(())
    }

    /// Single groups change as long as that helps and the answer is open.
    fn singles(&self, best: &mut Found, tried: &mut u64, open: &dyn Fn(&Found) -> bool) -> Result<()> {
        for _ in 0..PASSES {
            let mut improved = false;
            for group in 0..self.options.len() {
                for place in 0..=self.options[group].1.len() {
                    let Some((places, ..)) = best.as_ref().filter(|_| open(best)) else { return Ok(()) };
                    let mut places = places.clone();
                    if places[group] == place {
                        continue;
                    }
                    places[group] = place;
                    improved |= self.better(best, &places)?;
                    *tried += 1;
                }
            }
            if !improved {
                break;
            }
        }
        Ok(())
    }

    fn one_by_one(&self) -> Result<(Found, u64)> {
        let (mut best, mut tried) = (None, 0);
        self.uniform(&mut best, &mut tried)?;
        let (mut low, mut high) = (1e-6f64.ln(), 1e6f64.ln());
        let mut places = vec![0; self.options.len()];
        for _ in 0..PRICES {
            let middle = 0.5 * (low + high);
            let (cost, loss) = self.descend(&mut places, middle.exp() * self.dense.cost, &mut tried)?;
            self.better(&mut best, &places)?;
            // A dearer loss buys less of it, at more cost.
            let dearer = match self.budget {
                Budget::Loss(_) => !self.within(cost, loss),
                Budget::Cost(_) | Budget::Share(_) => self.within(cost, loss),
            };
            if dearer {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.singles(&mut best, &mut tried, &|_| true)?;
        Ok((best, tried))
    }
}
