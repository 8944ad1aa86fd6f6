//! The multiple-choice knapsack, solved exactly: one item of every class, least cost within a budget of weight.
//!
//! Dynamic programming over Pareto states (cost, weight), pruned by dominance and by the linear relaxation of what is left
//! (Dyer, Kayal and Walker, EJOR 1984; Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", EJOR 1995).
//! Costs and weights are real numbers, so nothing is rounded to a grid. Where the states outgrow their limit, those of the
//! weakest bound go and the answer carries the gap that this leaves.

/// One way to serve a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    /// What is minimised; finite, zero or more.
    pub cost: f64,
    /// What the budget limits; finite, zero or more.
    pub weight: f64,
}

/// An answer with its proof.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// The item of each class.
    pub choice: Vec<usize>,
    /// Sum of the costs, in the order of the classes.
    pub cost: f64,
    /// Sum of the weights.
    pub weight: f64,
    /// No answer within the budget costs less than this.
    pub bound: f64,
    /// Partial answers that were looked at.
    pub states: u64,
}

impl Solution {
    /// `(cost − bound)/cost`; zero is the proof of optimality.
    pub fn gap(&self) -> f64 {
        if self.cost > 0.0 { ((self.cost - self.bound) / self.cost).max(0.0) } else { 0.0 }
    }
}

/// Sums of floating-point numbers in another order differ by this share: a budget is met within it.
const TOLERANCE: f64 = 1e-12;

/// Most states that a stage keeps.
const LIMIT: usize = 400_000;

/// Least cost with one item of every class and at most `budget` of weight; `None` where even the lightest items weigh
/// more, or a class has no item.
pub fn solve(classes: &[Vec<Item>], budget: f64) -> Option<Solution> {
    solve_within(classes, budget, LIMIT)
}

/// The same with at most `limit` states a stage.
pub fn solve_within(classes: &[Vec<Item>], budget: f64, limit: usize) -> Option<Solution> {
    let lightest: f64 = classes
        .iter()
        .map(|c| c.iter().map(|i| i.weight).min_by(f64::total_cmp))
        .collect::<Option<Vec<f64>>>()?
        .iter()
        .sum();
    let capacity = budget + TOLERANCE * budget.abs().max(f64::MIN_POSITIVE);
    if lightest > capacity {
        return None;
    }
    let mut search = Search::new(classes, capacity);
    search.run(limit.max(1));
    let choice = search.best?;
    let (cost, weight) = sums(classes, &choice);
    // A bound summed in another order may exceed the answer by rounding alone.
    let bound = search.dropped.min(cost);
    Some(Solution { choice, cost, weight, bound, states: search.states })
}

/// Cost and weight of a choice, summed in the order of the classes.
pub fn sums(classes: &[Vec<Item>], choice: &[usize]) -> (f64, f64) {
    classes.iter().zip(choice).fold((0.0, 0.0), |(c, w), (class, &j)| (c + class[j].cost, w + class[j].weight))
}

/// A step down the lower convex hull of a class: more weight for less cost.
#[derive(Clone, Copy, Debug)]
struct Increment {
    class: usize,
    item: usize,
    weight: f64,
    saved: f64,
}

/// The linear relaxation of the classes from one stage on.
struct Relaxation {
    /// Cost and weight of the lightest items.
    base: (f64, f64),
    /// Steepest first.
    increments: Vec<Increment>,
    /// Weight and saving up to and without each increment.
    sums: Vec<(f64, f64)>,
}

#[derive(Clone, Copy)]
struct State {
    cost: f64,
    weight: f64,
    parent: u32,
    item: u16,
}

struct Search<'a> {
    classes: &'a [Vec<Item>],
    /// Order in which classes are decided.
    order: Vec<usize>,
    /// Undominated items of each class, by weight.
    efficient: Vec<Vec<usize>>,
    relaxations: Vec<Relaxation>,
    capacity: f64,
    incumbent: f64,
    best: Option<Vec<usize>>,
    dropped: f64,
    states: u64,
}

impl<'a> Search<'a> {
    fn new(classes: &'a [Vec<Item>], capacity: f64) -> Self {
        let efficient: Vec<Vec<usize>> = classes.iter().map(|c| undominated(c)).collect();
        let hulls: Vec<Vec<usize>> = classes.iter().zip(&efficient).map(|(c, e)| hull(c, e)).collect();
        // Classes with much at stake first: their wrong items are ruled out early and for good.
        let spread = |i: usize| {
            let c = &classes[i];
            efficient[i].first().map_or(0.0, |&f| c[f].cost) - efficient[i].last().map_or(0.0, |&l| c[l].cost)
        };
        let mut order: Vec<usize> = (0..classes.len()).collect();
        order.sort_by(|&a, &b| spread(b).total_cmp(&spread(a)).then(a.cmp(&b)));
        let relaxations = (0..=order.len()).map(|stage| Relaxation::of(classes, &hulls, &order[stage..])).collect();
        Self {
            classes,
            order,
            efficient,
            relaxations,
            capacity,
            incumbent: f64::INFINITY,
            best: None,
            dropped: f64::INFINITY,
            states: 0,
        }
    }

    fn run(&mut self, limit: usize) {
        let mut stages: Vec<Vec<State>> = vec![vec![State { cost: 0.0, weight: 0.0, parent: 0, item: 0 }]];
        self.complete(&stages, 0);
        for stage in 0..self.order.len() {
            let next = self.expand(&stages[stage], stage, limit);
            stages.push(next);
            // The states nearest to the relaxation are the likeliest to round to something better.
            let rest = &self.relaxations[stage + 1];
            let last = &stages[stage + 1];
            let capacity = self.capacity;
            let mut near: Vec<(f64, usize)> =
                last.iter().enumerate().map(|(i, s)| (s.cost + rest.bound(capacity - s.weight), i)).collect();
            let some = near.len().min(24);
            if some > 0 {
                near.select_nth_unstable_by(some - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            }
            for &(_, i) in &near[..some] {
                self.complete(&stages, i);
            }
        }
        self.dropped = self.dropped.min(self.incumbent);
    }

    /// All states one class further, without those that cannot lead to a better answer.
    fn expand(&mut self, states: &[State], stage: usize, limit: usize) -> Vec<State> {
        let class = self.order[stage];
        let rest = &self.relaxations[stage + 1];
        let mut next = Vec::with_capacity(states.len() * self.efficient[class].len());
        for &item in &self.efficient[class] {
            let Item { cost, weight } = self.classes[class][item];
            for (parent, s) in states.iter().enumerate() {
                next.push(State {
                    cost: s.cost + cost,
                    weight: s.weight + weight,
                    parent: parent as u32,
                    item: item as u16,
                });
            }
        }
        self.states += next.len() as u64;
        next.sort_unstable_by(|a, b| {
            a.weight
                .total_cmp(&b.weight)
                .then(a.cost.total_cmp(&b.cost))
                .then((a.item, a.parent).cmp(&(b.item, b.parent)))
        });
        let mut least = f64::INFINITY;
        let better = self.incumbent;
        let capacity = self.capacity;
        next.retain(|s| {
            let keep = s.cost < least && s.cost + rest.bound(capacity - s.weight) < better;
            if s.cost < least {
                least = s.cost;
            }
            keep
        });
        if next.len() > limit {
            let bound = |s: &State| s.cost + rest.bound(capacity - s.weight);
            next.select_nth_unstable_by(limit, |a, b| {
                bound(a).total_cmp(&bound(b)).then(a.weight.total_cmp(&b.weight))
            });
            let lost = next[limit..].iter().map(bound).min_by(f64::total_cmp);
            self.dropped = self.dropped.min(lost.unwrap_or(f64::INFINITY));
            next.truncate(limit);
            next.sort_unstable_by(|a, b| a.weight.total_cmp(&b.weight));
        }
        next
    }

    /// Completes a state of the last stage greedily by the relaxation and remembers the result if it is the best.
    fn complete(&mut self, stages: &[Vec<State>], index: usize) {
        let stage = stages.len() - 1;
        let state = stages[stage][index];
        let rest = &self.relaxations[stage];
        let mut room = self.capacity - state.weight - rest.base.1;
        if room < 0.0 {
            return;
        }
        let mut cost = state.cost + rest.base.0;
        let mut taken = vec![usize::MAX; self.classes.len()];
        let mut closed = vec![false; self.classes.len()];
        for inc in &rest.increments {
            // A step that does not fit ends its class: later steps of it build on this one.
            if closed[inc.class] {
                continue;
            }
            if inc.weight <= room {
                room -= inc.weight;
                cost -= inc.saved;
                taken[inc.class] = inc.item;
            } else {
                closed[inc.class] = true;
            }
        }
        if cost >= self.incumbent {
            return;
        }
        let mut choice: Vec<usize> = (0..self.classes.len())
            .map(|c| if taken[c] == usize::MAX { self.efficient[c][0] } else { taken[c] })
            .collect();
        let (mut at, mut s) = (stage, state);
        while at > 0 {
            choice[self.order[at - 1]] = usize::from(s.item);
            s = stages[at - 1][s.parent as usize];
            at -= 1;
        }
        let (cost, weight) = sums(self.classes, &choice);
        if cost < self.incumbent && weight <= self.capacity {
            self.incumbent = cost;
            self.best = Some(choice);
        }
    }
}

impl Relaxation {
    fn of(classes: &[Vec<Item>], hulls: &[Vec<usize>], open: &[usize]) -> Self {
        let mut base = (0.0, 0.0);
        let mut increments = Vec::new();
        for &class in open {
            let items = &classes[class];
            let Some(&first) = hulls[class].first() else { continue };
            base = (base.0 + items[first].cost, base.1 + items[first].weight);
            increments.extend(hulls[class].windows(2).map(|pair| Increment {
                class,
                item: pair[1],
                weight: items[pair[1]].weight - items[pair[0]].weight,
                saved: items[pair[0]].cost - items[pair[1]].cost,
            }));
        }
        // Slopes of one class fall along its hull, so a stable order keeps its steps in sequence.
        increments.sort_by(|a, b| (b.saved * a.weight).total_cmp(&(a.saved * b.weight)).then(a.class.cmp(&b.class)));
        let mut sums = Vec::with_capacity(increments.len() + 1);
        let mut sum = (0.0, 0.0);
        for inc in &increments {
            sums.push(sum);
            sum = (sum.0 + inc.weight, sum.1 + inc.saved);
        }
        sums.push(sum);
        Self { base, increments, sums }
    }

    /// Least cost of the open classes within `room`, items divisible; infinite where nothing fits.
    fn bound(&self, room: f64) -> f64 {
        let left = room - self.base.1;
        // Rounding in the sums must not rule out what fits exactly.
        if left < -1e-12 * room.abs().max(self.base.1) {
            return f64::INFINITY;
        }
        let left = left.max(0.0);
        let whole = self.sums.partition_point(|s| s.0 <= left) - 1;
        let (weight, saved) = self.sums[whole];
        let part =
            self.increments.get(whole).map_or(0.0, |inc| inc.saved * ((left - weight) / inc.weight).clamp(0.0, 1.0));
        self.base.0 - saved - part
    }
}

/// Items that no other of the class beats in both respects, by rising weight and falling cost.
fn undominated(items: &[Item]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|&a, &b| {
        items[a].weight.total_cmp(&items[b].weight).then(items[a].cost.total_cmp(&items[b].cost)).then(a.cmp(&b))
    });
    let mut least = f64::INFINITY;
    order.retain(|&i| {
        let keep = items[i].cost < least;
        least = least.min(items[i].cost);
        keep
    });
    order
}

/// The lower convex hull among undominated items.
fn hull(items: &[Item], efficient: &[usize]) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::with_capacity(efficient.len());
    for &i in efficient {
        while let [.., a, b] = hull[..] {
            let (p, q, r) = (items[a], items[b], items[i]);
            if (p.cost - q.cost) * (r.weight - q.weight) > (q.cost - r.cost) * (q.weight - p.weight) {
                break;
            }
            hull.pop();
        }
        hull.push(i);
    }
    hull
}
