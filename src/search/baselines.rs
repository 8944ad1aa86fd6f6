//! What people do today, on the same table of costs: one pattern everywhere, greedy by MACs, greedy by cost, and a knapsack
//! on a discretised budget.

use super::knapsack::{Item, sums};

/// One layer's candidates as the heuristics see them; the first is dense.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// Loss, and cost (latency or energy), of each.
    pub figures: Vec<(f64, f64)>,
    /// Multiply–accumulates that each leaves.
    pub macs: Vec<f64>,
}

/// Which side the budget is on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Loss at most this; cost is minimised.
    Loss(f64),
    /// Cost at most this; loss is minimised.
    Cost(f64),
}

impl Limit {
    /// The budget's number.
    pub fn value(self) -> f64 {
        match self {
            Self::Loss(v) | Self::Cost(v) => v,
        }
    }

    /// A candidate as an item of the knapsack.
    pub fn item(self, (loss, cost): (f64, f64)) -> Item {
        match self {
            Self::Loss(_) => Item { cost, weight: loss },
            Self::Cost(_) => Item { cost: loss, weight: cost },
        }
    }

    fn met(self, weight: f64) -> bool {
        weight <= self.value() * (1.0 + 1e-12)
    }
}

/// The candidates as classes of a knapsack.
pub fn classes(layers: &[Candidates], limit: Limit) -> Vec<Vec<Item>> {
    layers.iter().map(|l| l.figures.iter().map(|&f| limit.item(f)).collect()).collect()
}

/// The same candidate for every layer, the best that meets the budget. All layers have candidates in the same order.
pub fn uniform(layers: &[Candidates], limit: Limit) -> Option<Vec<usize>> {
    let classes = classes(layers, limit);
    let count = layers.first().map_or(0, |l| l.figures.len());
    (0..count)
        .map(|j| vec![j; layers.len()])
        .map(|choice| (sums(&classes, &choice), choice))
        .filter(|((_, weight), _)| limit.met(*weight))
        .min_by(|a, b| a.0.0.total_cmp(&b.0.0))
        .map(|(_, choice)| choice)
}

/// From dense, again and again the change of one layer that gains the most of `score` for its loss (what it gains in `score`
/// over what it adds in loss), as long as the budget admits one; under a budget of cost, until it is met.
fn greedy(layers: &[Candidates], limit: Limit, score: impl Fn(&Candidates, usize) -> f64) -> Option<Vec<usize>> {
    let classes = classes(layers, limit);
    let mut choice = vec![0usize; layers.len()];
    loop {
        let (_, weight) = sums(&classes, &choice);
        if matches!(limit, Limit::Cost(_)) && limit.met(weight) {
            return Some(choice);
        }
        let mut best: Option<(f64, f64, usize, usize)> = None;
        for (i, layer) in layers.iter().enumerate() {
            let now = choice[i];
            for j in 0..layer.figures.len() {
                let gain = score(layer, now) - score(layer, j);
                let loss = layer.figures[j].0 - layer.figures[now].0;
                let fits = match limit {
                    Limit::Loss(_) => limit.met(weight - classes[i][now].weight + classes[i][j].weight),
                    Limit::Cost(_) => true,
                };
                if gain <= 0.0 || loss < 0.0 || !fits {
                    continue;
                }
                let rate = if loss > 0.0 { gain / loss } else { f64::INFINITY };
                if best.is_none_or(|(r, g, ..)| rate > r || (rate == r && gain > g)) {
                    best = Some((rate, gain, i, j));
                }
            }
        }
        match (best, limit) {
            (Some((_, _, i, j)), _) => choice[i] = j,
            (None, Limit::Loss(_)) => return Some(choice),
            (None, Limit::Cost(_)) => return None,
        }
    }
}

/// Greedy by multiply–accumulates removed for the loss.
pub fn greedy_macs(layers: &[Candidates], limit: Limit) -> Option<Vec<usize>> {
    greedy(layers, limit, |l, j| l.macs[j])
}

/// Greedy by predicted cost removed for the loss.
pub fn greedy_cost(layers: &[Candidates], limit: Limit) -> Option<Vec<usize>> {
    greedy(layers, limit, |l, j| l.figures[j].1)
}

/// Levels of the discretised budget: a network of some milliseconds in HALP's table of whole microseconds.
const LEVELS: usize = 1000;

/// The latency–saliency knapsack of HALP (Shen et al., NeurIPS 2022) with one choice a layer: dynamic programming over the
/// budget in [`LEVELS`] steps, each weight rounded up, so that the budget holds. Its table knows nothing finer.
pub fn discretised(layers: &[Candidates], limit: Limit) -> Option<Vec<usize>> {
    let classes = classes(layers, limit);
    let budget = limit.value();
    let level = |weight: f64| -> usize {
        if weight <= 0.0 {
            0
        } else if budget <= 0.0 {
            LEVELS + 1
        } else {
            // A share of a level lost to rounding would cost a whole one.
            (weight / budget * LEVELS as f64 - 1e-9).ceil().clamp(0.0, (LEVELS + 1) as f64) as usize
        }
    };
    let mut least = vec![f64::INFINITY; LEVELS + 1];
    least[0] = 0.0;
    let mut taken: Vec<Vec<u16>> = Vec::with_capacity(classes.len());
    for class in &classes {
        let mut next = vec![f64::INFINITY; LEVELS + 1];
        let mut from = vec![u16::MAX; LEVELS + 1];
        for (j, item) in class.iter().enumerate() {
            let w = level(item.weight);
            for at in w..=LEVELS {
                let cost = least[at - w] + item.cost;
                if cost < next[at] {
                    (next[at], from[at]) = (cost, j as u16);
                }
            }
        }
        least = next;
        taken.push(from);
    }
    let mut at = (0..=LEVELS).min_by(|&a, &b| least[a].total_cmp(&least[b]))?;
    if !least[at].is_finite() {
        return None;
    }
    let mut choice = vec![0; classes.len()];
    for (i, class) in classes.iter().enumerate().rev() {
        let j = usize::from(taken[i][at]);
        choice[i] = j;
        at -= level(class[j].weight);
    }
    Some(choice)
}
