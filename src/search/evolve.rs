//! Evolving through a space that is too large to visit: NSGA-II (Deb et al., IEEE TEC 2002) on islands that never meet.
//!
//! An individual is a place on every axis of the space. Each island has its own population and its own stream of random
//! numbers for every generation, drawn from one seed; so islands can be dealt to shards and a run can stop after any
//! generation, and the front of all that was visited stays the same.

use super::explore::{Shard, State, Told};
use super::pareto::{Front, MOST, Visited};
use super::space::{Figures, Space};
use crate::error::Result;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::HashSet;

/// How to evolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evolution {
    /// Seed of everything random.
    pub seed: u64,
    /// Points that all islands together may visit, about.
    pub evaluations: u64,
    /// Populations.
    pub islands: u64,
}

/// Individuals of a population.
const POPULATION: usize = 100;

/// Chance that a child mixes its parents; Deb's 0.9.
const CROSSOVER: f64 = 0.9;

impl Evolution {
    /// Generations of each island, the first included.
    pub fn generations(&self) -> u64 {
        (self.evaluations / (self.islands.max(1) * POPULATION as u64)).max(1)
    }

    /// Islands of a shard.
    fn islands_of(&self, shard: Shard) -> Vec<u64> {
        (0..self.islands.max(1)).filter(|i| i % shard.count == shard.index).collect()
    }
}

#[derive(Clone, Debug)]
struct Individual {
    genes: Vec<u64>,
    index: u64,
    /// `None` where the point is ruled out or refused.
    key: Option<[f64; MOST]>,
}

/// Evolves until all generations are done. After every generation `told` gets the state (and no rows); it may stop the
/// search, which then can go on from the state.
///
/// # Errors
/// What `told` says.
pub fn evolve(space: &Space, evolution: Evolution, state: &mut State, told: &mut Told<'_>) -> Result<()> {
    let islands = evolution.islands_of(state.shard);
    let count = islands.len() as u64;
    state.all = count * evolution.generations();
    let radices = space.radices();
    let mut populations: Vec<Vec<Individual>> = Vec::with_capacity(islands.len());
    for genes in state.populations.clone() {
        // What was counted before the interruption is not counted again.
        populations.push(meet(space, genes, &mut State::new(state.shard)));
    }
    while state.done < state.all {
        let generation = state.done / count;
        for (place, &island) in islands.iter().enumerate() {
            let mut rng = ChaCha8Rng::seed_from_u64(evolution.seed);
            rng.set_stream((island << 32) | generation);
            match populations.get_mut(place) {
                None => {
                    let genes = (0..POPULATION).map(|_| radices.iter().map(|&r| rng.random_range(0..r)).collect());
                    populations.push(meet(space, genes.collect(), state));
                }
                Some(parents) => {
                    let children = offspring(parents, &radices, &mut rng);
                    let mut all = std::mem::take(parents);
                    all.extend(meet(space, children, state));
                    *parents = survivors(all);
                }
            }
        }
        state.done += count;
        state.populations = populations.iter().map(|p| p.iter().map(|i| i.genes.clone()).collect()).collect();
        if told(state, &[])?.is_break() {
            break;
        }
    }
    Ok(())
}

/// An individual, what is known of it or why nothing is, and estimates answered and asked.
type Met = (Individual, Option<Visited<Figures>>, Option<String>, [u64; 2]);

/// Estimates individuals; the state gets their counts and what belongs on the front.
fn meet(space: &Space, genes: Vec<Vec<u64>>, state: &mut State) -> Vec<Individual> {
    let radices = space.radices();
    let met: Vec<Met> = genes
        .into_par_iter()
        .with_min_len(8)
        .map_init(
            || space.desk(),
            |desk, genes| {
                let index = genes.iter().zip(&radices).fold(0, |index, (g, r)| index * r + g);
                let before = [desk.answered, desk.asked];
                desk.next_machine();
                let points = space.points_of_a_machine();
                let seen = space.machine(index / points).and_then(|m| space.visit(&m, index % points, desk));
                let counts = [desk.answered - before[0], desk.asked - before[1]];
                let (visited, why) = seen.map_or_else(|why| (None, Some(why)), |v| (v, None));
                (Individual { genes, index, key: visited.map(|v| v.key) }, visited, why, counts)
            },
        )
        .collect();
    let mut individuals = Vec::with_capacity(met.len());
    for (individual, visited, why, [answered, estimated]) in met {
        state.counts.points += 1;
        state.counts.answered += answered;
        state.counts.estimated += estimated;
        match (visited, why) {
            (Some(v), _) => {
                state.front.insert(v);
            }
            (None, None) => state.counts.ruled_out += 1,
            (None, Some(why)) => {
                state.counts.refused += 1;
                state.refusal.get_or_insert(why);
            }
        }
        individuals.push(individual);
    }
    individuals
}

/// Children of parents that won tournaments of two.
fn offspring(parents: &[Individual], radices: &[u64], rng: &mut impl Rng) -> Vec<Vec<u64>> {
    let order = ranked(parents);
    let mut place = vec![0; parents.len()];
    order.iter().enumerate().for_each(|(p, &i)| place[i] = p);
    let winner = |rng: &mut dyn FnMut() -> usize| {
        let (a, b) = (rng(), rng());
        if place[a] <= place[b] { a } else { b }
    };
    let rate = 1.0 / radices.iter().filter(|r| **r > 1).count().max(1) as f64;
    (0..POPULATION)
        .map(|_| {
            let mut draw = || rng.random_range(0..parents.len());
            let (a, b) = (winner(&mut draw), winner(&mut draw));
            let (a, b) = (&parents[a].genes, &parents[b].genes);
            let mixes = rng.random::<f64>() < CROSSOVER;
            let mut child: Vec<u64> =
                a.iter().zip(b).map(|(&x, &y)| if mixes && rng.random::<bool>() { y } else { x }).collect();
            for (gene, &radix) in child.iter_mut().zip(radices) {
                if radix < 2 || rng.random::<f64>() >= rate {
                    continue;
                }
                // Neighbours of a good point are often good; a leap finds other hills.
                *gene = match rng.random_range(0..4) {
                    0 => (*gene + 1).min(radix - 1),
                    1 => gene.saturating_sub(1),
                    _ => rng.random_range(0..radix),
                };
            }
            child
        })
        .collect()
}

/// The best distinct individuals.
fn survivors(all: Vec<Individual>) -> Vec<Individual> {
    let mut seen = HashSet::new();
    let distinct: Vec<Individual> = all.into_iter().filter(|i| seen.insert(i.index)).collect();
    ranked(&distinct).into_iter().take(POPULATION).map(|i| distinct[i].clone()).collect()
}

/// Individuals from best to worst: by non-domination rank, then by crowding distance, then by place in the space.
fn ranked(all: &[Individual]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..all.len()).filter(|&i| all[i].key.is_some()).collect();
    let mut order = Vec::with_capacity(all.len());
    while !left.is_empty() {
        let mut front = Front::new();
        for &i in &left {
            // Of equal points the first stands for all; the others rank behind it.
            front.insert(Visited { index: i as u64, key: all[i].key.unwrap_or_default(), figures: () });
        }
        let members: Vec<usize> = front.sorted().iter().map(|p| p.index as usize).collect();
        let distance = crowding(all, &members);
        let mut by: Vec<usize> = (0..members.len()).collect();
        by.sort_by(|&a, &b| {
            distance[b].total_cmp(&distance[a]).then(all[members[a]].index.cmp(&all[members[b]].index))
        });
        order.extend(by.into_iter().map(|b| members[b]));
        left.retain(|i| !members.contains(i));
    }
    order.extend((0..all.len()).filter(|&i| all[i].key.is_none()));
    order
}

/// Crowding distance of the members of one front: the sum over objectives of the gap between both neighbours.
fn crowding(all: &[Individual], members: &[usize]) -> Vec<f64> {
    let mut distance = vec![0.0; members.len()];
    for objective in 0..MOST {
        let value = |m: usize| all[members[m]].key.map_or(0.0, |k| k[objective]);
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by(|&a, &b| value(a).total_cmp(&value(b)).then(a.cmp(&b)));
        let (Some(&first), Some(&last)) = (order.first(), order.last()) else { continue };
        let range = value(last) - value(first);
        if range <= 0.0 {
            continue;
        }
        distance[first] = f64::INFINITY;
        distance[last] = f64::INFINITY;
        for window in order.windows(3) {
            distance[window[1]] += (value(window[2]) - value(window[0])) / range;
        }
    }
    distance
}
