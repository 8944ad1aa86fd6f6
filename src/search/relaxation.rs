//! The Lagrangian relaxation over dependency groups: a bound that no choice of channels and masks can beat, and choices that
//! come near it.
//!
//! With a price on what the budget limits, a network's value is a sum over its steps, and a step depends only on the groups
//! whose channels it reads or makes: `min over places of Σᵢ min over masks of fᵢ(places of i's groups, mask)`. That minimum is taken
//! exactly by eliminating one group after another (bucket elimination: Dechter, Artificial Intelligence 113, 1999). Where
//! groups hang together so widely that a table would outgrow [`TABLE`], the bucket is split and its parts are minimised apart
//! (mini-buckets: Dechter and Rish, JACM 50, 2003), which can only lower the value. The value minus the price of the budget is a
//! bound for every price (weak duality), and the best price is found by golden section, the bound being concave in it.
//!
//! **The cache.** Each read of an earlier step counts as cached where it could be under any choice: where the least that the
//! steps between can touch fits the last level. A step that finds more of its input there is never dearer, so the bound
//! holds for whole networks, and needs no table at a fixed state of the cache.

use crate::cost::CostModel;
use crate::cost::network::{Residency, touched};
use crate::error::Result;
use crate::lower::Step;
use crate::units::Bytes;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// A step with each mask that it may have, and the loss of each.
type Priced = Vec<(Step, f64)>;

/// Entries of a table at most.
const TABLE: usize = 1 << 18;

/// Combinations of its groups that one step may depend on.
const COMBINATIONS: usize = 1 << 12;

/// Prices at which the relaxation is solved.
const PRICES: usize = 48;

/// One choice of places for all groups, lowered: for each step its masks, each with its loss.
pub(super) type Lowered = Vec<Vec<(Step, f64)>>;

/// What a step costs and loses for each combination of its groups: undominated (cost, loss) pairs.
struct Factor {
    scope: Vec<usize>,
    options: Vec<Vec<(f64, f64)>>,
}

/// All steps, tabulated.
pub(super) struct Relaxation {
    sizes: Vec<usize>,
    order: Vec<usize>,
    factors: Vec<Factor>,
}

/// The best price's bound, and the places at which the relaxations had their minima.
pub(super) struct Bound {
    /// No choice within the budget has less.
    pub(super) value: f64,
    /// One for each price that gave another answer.
    pub(super) candidates: Vec<Vec<usize>>,
}

/// What the budget limits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limited {
    /// The loss; the cost is minimised.
    Loss(f64),
    /// The cost; the loss is minimised.
    Cost(f64),
}

impl Relaxation {
    /// Tabulates a network. `sizes` are the places of each group, `cost` is a step's with so many bytes of its inputs in the
    /// cache, and `lower` lowers one choice of all places. `None` where a step depends on too many groups.
    ///
    /// # Errors
    /// What lowering and estimating say.
    pub(super) fn of(
        sizes: &[usize],
        model: &dyn CostModel,
        cost: &(dyn Fn(&Step, Bytes) -> Result<f64> + Sync),
        lower: &(dyn Fn(&[usize]) -> Result<Lowered> + Sync),
    ) -> Result<Option<Self>> {
        let scopes = scopes(sizes, lower)?;
        let count = |scope: &[usize]| scope.iter().try_fold(1usize, |n, &g| n.checked_mul(sizes[g]));
        if scopes.iter().any(|s| count(s).is_none_or(|n| n > COMBINATIONS)) {
            return Ok(None);
        }
        let mut steps: Vec<Vec<Option<Priced>>> = scopes.iter().map(|s| vec![None; count(s).unwrap_or(1)]).collect();
        for (places, lowered) in rows(sizes, &scopes).par_iter().map(|p| (p, lower(p))).collect::<Vec<_>>() {
            for ((slots, scope), masks) in steps.iter_mut().zip(&scopes).zip(lowered?) {
                slots[index(sizes, scope, places)].get_or_insert(masks);
            }
        }
        let steps: Vec<Vec<Priced>> =
            steps.into_iter().map(|s| s.into_iter().map(Option::unwrap_or_default).collect()).collect();
        let cached = could_be_cached(&steps, model);
        let factors = steps
            .par_iter()
            .zip(&cached)
            .zip(scopes)
            .map(|((combinations, cached), scope)| {
                let options = combinations.iter().map(|masks| {
                    let figures = masks.iter().map(|(step, loss)| {
                        let reads = step.reads.iter().zip(cached).filter(|(_, c)| **c);
                        Ok((cost(step, reads.map(|((_, b), _)| *b).sum())?, *loss))
                    });
                    Ok(undominated(figures.collect::<Result<_>>()?))
                });
                Ok(Factor { options: options.collect::<Result<_>>()?, scope })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Self { sizes: sizes.to_vec(), order: order(sizes.len(), &factors), factors }))
    }

    /// The bound under a budget; `scale` is the cost of the dense network, for the range of prices.
    pub(super) fn bound(&self, limited: Limited, scale: f64) -> Bound {
        let mut candidates = BTreeSet::new();
        let mut value = f64::NEG_INFINITY;
        let mut at = |log_price: f64| {
            // Cost for a unit of loss, or its inverse.
            let price = log_price.exp();
            let (minimum, places, by) = match limited {
                Limited::Loss(l) => {
                    let price = price * scale;
                    let (v, p) = self.minimum(|cost, loss| cost + price * loss);
                    (v, p, price * l)
                }
                Limited::Cost(c) => {
                    let price = price / scale;
                    let (v, p) = self.minimum(|cost, loss| loss + price * cost);
                    (v, p, price * c)
                }
            };
            candidates.insert(places);
            value = value.max(minimum - by);
            minimum - by
        };
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let (mut low, mut high) = (1e-6f64.ln(), 1e6f64.ln());
        let (mut a, mut b) = (high - GOLDEN * (high - low), low + GOLDEN * (high - low));
        let (mut left, mut right) = (at(a), at(b));
        for _ in 2..PRICES {
            if left < right {
                (low, a, left) = (a, b, right);
                b = low + GOLDEN * (high - low);
                right = at(b);
            } else {
                (high, b, right) = (b, a, left);
                a = high - GOLDEN * (high - low);
                left = at(a);
            }
        }
        Bound { value: value.max(0.0), candidates: candidates.into_iter().collect() }
    }

    /// Least sum over the steps of what `of` makes of cost and loss, and places where it is (nearly, where buckets were split) reached.
    fn minimum(&self, of: impl Fn(f64, f64) -> f64) -> (f64, Vec<usize>) {
        let least = |o: &[(f64, f64)]| o.iter().map(|&(c, l)| of(c, l)).fold(f64::INFINITY, f64::min);
        let mut open: Vec<Table> = self
            .factors
            .iter()
            .map(|f| Table { scope: f.scope.clone(), values: f.options.iter().map(|o| least(o)).collect() })
            .collect();
        let mut buckets = Vec::with_capacity(self.order.len());
        for &group in &self.order {
            let (mine, others): (Vec<Table>, Vec<Table>) = open.into_iter().partition(|t| t.scope.contains(&group));
            open = others;
            let mut parts: Vec<(Vec<usize>, Vec<&Table>)> = Vec::new();
            for table in &mine {
                let joined = |scope: &[usize]| -> Vec<usize> {
                    scope.iter().chain(&table.scope).copied().collect::<BTreeSet<_>>().into_iter().collect()
                };
                let entries = |s: &[usize]| s.iter().fold(1usize, |n, &g| n.saturating_mul(self.sizes[g]));
                match parts.iter_mut().find(|(scope, _)| entries(&joined(scope)) <= TABLE) {
                    Some((scope, tables)) => {
                        *scope = joined(scope);
                        tables.push(table);
                    }
                    None => parts.push((table.scope.clone(), vec![table])),
                }
            }
            for (scope, tables) in parts {
                open.push(self.eliminate(group, &scope, &tables));
            }
            buckets.push((group, mine));
        }
        let value = open.iter().map(|t| t.values[0]).sum();
        let mut places = vec![0; self.sizes.len()];
        for (group, tables) in buckets.iter().rev() {
            let mut at = |place: usize| -> f64 {
                places[*group] = place;
                tables.iter().map(|t| t.values[index(&self.sizes, &t.scope, &places)]).sum()
            };
            let values: Vec<f64> = (0..self.sizes[*group]).map(&mut at).collect();
            places[*group] = (0..values.len()).min_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap_or(0);
        }
        (value, places)
    }

    /// The sum of tables, minimised over one group.
    fn eliminate(&self, group: usize, scope: &[usize], tables: &[&Table]) -> Table {
        let left: Vec<usize> = scope.iter().copied().filter(|&g| g != group).collect();
        let entries: usize = left.iter().map(|&g| self.sizes[g]).product();
        let mut places = vec![0; self.sizes.len()];
        let mut values = vec![f64::INFINITY; entries];
        for (entry, value) in values.iter_mut().enumerate() {
            let mut rest = entry;
            for &g in &left {
                (places[g], rest) = (rest % self.sizes[g], rest / self.sizes[g]);
            }
            for place in 0..self.sizes[group] {
                places[group] = place;
                let sum = tables.iter().map(|t| t.values[index(&self.sizes, &t.scope, &places)]).sum::<f64>();
                *value = value.min(sum);
            }
        }
        Table { scope: left, values }
    }
}

/// A function of some groups' places.
struct Table {
    scope: Vec<usize>,
    values: Vec<f64>,
}

/// Entry of a table: the first group of the scope changes fastest.
fn index(sizes: &[usize], scope: &[usize], places: &[usize]) -> usize {
    scope.iter().rev().fold(0, |at, &g| at * sizes[g] + places[g])
}

/// The groups that each step depends on: those of which one place changes what the step runs, what it reads or what it loses. Extents are sums over
/// groups, so that no dependence hides behind another group.
fn scopes(sizes: &[usize], lower: &(dyn Fn(&[usize]) -> Result<Lowered> + Sync)) -> Result<Vec<Vec<usize>>> {
    let text = |masks: &[(Step, f64)]| -> String {
        masks.iter().map(|(s, l)| format!("{:?} {:?} {:?} {l}\n", s.ops, s.reads, s.writes)).collect()
    };
    let whole: Vec<String> = lower(&vec![0; sizes.len()])?.iter().map(|m| text(m)).collect();
    let single: Vec<(usize, usize)> = (0..sizes.len()).flat_map(|g| (1..sizes[g]).map(move |p| (g, p))).collect();
    let differ: Vec<Result<(usize, Vec<bool>)>> = single
        .par_iter()
        .map(|&(group, place)| {
            let mut places = vec![0; sizes.len()];
            places[group] = place;
            Ok((group, lower(&places)?.iter().zip(&whole).map(|(m, w)| text(m) != *w).collect()))
        })
        .collect();
    let mut scopes = vec![BTreeSet::new(); whole.len()];
    for found in differ {
        let (group, differs) = found?;
        scopes.iter_mut().zip(differs).filter(|(_, d)| *d).for_each(|(s, _)| {
            s.insert(group);
        });
    }
    Ok(scopes.into_iter().map(|s| s.into_iter().collect()).collect())
}

/// Choices of all places that together show every step under every combination of its groups: each takes as many open
/// combinations as agree.
fn rows(sizes: &[usize], scopes: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let distinct: BTreeSet<&Vec<usize>> = scopes.iter().collect();
    let mut open: Vec<(&Vec<usize>, Vec<bool>)> =
        distinct.into_iter().map(|s| (s, vec![true; s.iter().map(|&g| sizes[g]).product()])).collect();
    open.sort_by_key(|(s, _)| std::cmp::Reverse(s.len()));
    let mut rows = Vec::new();
    while open.iter().any(|(_, o)| o.contains(&true)) {
        let mut row: Vec<Option<usize>> = vec![None; sizes.len()];
        for (scope, open) in &open {
            let digits = |mut entry: usize| -> Vec<usize> {
                let digit = |g: &usize| {
                    let d = entry % sizes[*g];
                    entry /= sizes[*g];
                    d
                };
                scope.iter().map(digit).collect()
            };
            let agrees = |d: &Vec<usize>| scope.iter().zip(d).all(|(&g, &p)| row[g].is_none_or(|r| r == p));
            let wanted = (0..open.len()).filter(|&e| open[e]).map(digits).find(agrees);
            for (&g, place) in scope.iter().zip(wanted.into_iter().flatten()) {
                row[g] = Some(place);
            }
        }
        let row: Vec<usize> = row.into_iter().map(|p| p.unwrap_or(0)).collect();
        open.iter_mut().for_each(|(scope, open)| open[index(sizes, scope, &row)] = false);
        rows.push(row);
    }
    rows
}

/// For each step and each of its reads, whether any choice leaves it in the last cache level.
fn could_be_cached(steps: &[Vec<Vec<(Step, f64)>>], model: &dyn CostModel) -> Vec<Vec<bool>> {
    let every = |s: &Vec<Vec<(Step, f64)>>| -> Vec<Step> { s.iter().flatten().map(|(s, _)| s.clone()).collect() };
    let least: Vec<(Vec<(usize, Bytes)>, Bytes)> = steps
        .iter()
        .map(|s| {
            let all = every(s);
            let reads =
                all.first().map_or_else(Vec::new, |s| s.reads.iter().map(|&(from, _)| (from, Bytes(1.0))).collect());
            let least = all.iter().map(touched).fold(None, |m: Option<Bytes>, t| Some(m.map_or(t, |m| m.min(t))));
            (reads, least.unwrap_or(Bytes::ZERO))
        })
        .collect();
    let width = least.iter().map(|(r, _)| r.len()).max().unwrap_or(0);
    let mut cached: Vec<Vec<bool>> = least.iter().map(|(r, _)| vec![false; r.len()]).collect();
    // One read of each step at a time, so that the model's own rule says which of them stay.
    for place in 0..width {
        let one: Vec<Vec<(usize, Bytes)>> =
            least.iter().map(|(r, _)| r.get(place).copied().into_iter().collect()).collect();
        let mut residency = Residency::default();
        residency.follow(one.iter().zip(&least).map(|(r, (_, t))| (r.as_slice(), *t)), model.last_level());
        for (slots, resident) in cached.iter_mut().zip(&residency.resident) {
            if let Some(slot) = slots.get_mut(place) {
                *slot = resident.get() > 0.0;
            }
        }
    }
    cached
}

/// Pairs that no other beats in both.
fn undominated(mut figures: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    figures.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut least = f64::INFINITY;
    figures.retain(|f| {
        let keep = f.1 < least;
        least = least.min(f.1);
        keep
    });
    figures
}

/// The order of elimination: the group with the fewest neighbours first.
fn order(groups: usize, factors: &[Factor]) -> Vec<usize> {
    let mut near: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); groups];
    for f in factors {
        for &g in &f.scope {
            near[g].extend(f.scope.iter().copied().filter(|&o| o != g));
        }
    }
    let mut left: BTreeSet<usize> = (0..groups).collect();
    let mut order = Vec::with_capacity(groups);
    while let Some(&next) = left.iter().min_by_key(|&&g| (near[g].len(), g)) {
        left.remove(&next);
        let around = std::mem::take(&mut near[next]);
        for &g in &around {
            near[g].extend(around.iter().copied().filter(|&o| o != g));
            near[g].remove(&next);
        }
        order.push(next);
    }
    order
}
