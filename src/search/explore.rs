//! Visiting a whole space: chunk by chunk on all cores, in one order, resumable after every round.
//!
//! A chunk is a run of neighbouring machines with all their points, so that equal operations of one machine are estimated
//! once. Chunks are dealt to shards in turn; within a shard they run in parallel and are taken up in order. The front is a set
//! that no order changes, so threads, shards and interruptions leave no trace in it.

use super::evaluate::Desk;
use super::pareto::{Front, Visited};
use super::space::{Figures, Space};
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::ops::ControlFlow;

/// One of several runs that share a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which, from zero.
    pub index: u64,
    /// Of how many.
    pub count: u64,
}

impl Shard {
    /// The only one.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

impl std::str::FromStr for Shard {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        parts.filter(|(i, n)| i < n).map(|(index, count)| Self { index, count }).ok_or_else(|| {
            Error::argument("--shard", format!("`{text}` is no shard; write i/n with i from 0 to n − 1"))
        })
    }
}

/// How far a search is.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Which part of the space it visits.
    pub shard: Shard,
    /// Chunks (or generations) of its part that are done.
    pub done: u64,
    /// How many it has.
    pub all: u64,
    /// Bytes of rows written.
    pub rows_bytes: u64,
    /// Counts so far.
    pub counts: Counts,
    /// The front so far.
    pub front: Front<Figures>,
    /// The first refusal, if any.
    pub refusal: Option<String>,
    /// Populations of an evolutionary search, one an island: places of each individual's parts.
    pub populations: Vec<Vec<Vec<u64>>>,
}

/// Counts of a search; each is a sum over points, so shards add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Points looked at.
    pub points: u64,
    /// Points that a condition ruled out.
    pub ruled_out: u64,
    /// Points whose machine contradicts itself or cannot run the network.
    pub refused: u64,
    /// (layer, pattern, machine) triples answered; equal layers of one network counted each.
    pub answered: u64,
    /// Estimates really made: distinct operations, those without weights included.
    pub estimated: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, o: &Self) {
        self.points += o.points;
        self.ruled_out += o.ruled_out;
        self.refused += o.refused;
        self.answered += o.answered;
        self.estimated += o.estimated;
    }
}

impl State {
    /// Nothing done.
    pub fn new(shard: Shard) -> Self {
        Self {
            shard,
            done: 0,
            all: 0,
            rows_bytes: 0,
            counts: Counts::default(),
            front: Front::new(),
            refusal: None,
            populations: Vec::new(),
        }
    }
}

/// Points in a chunk, about.
const CHUNK: u64 = 128;

/// Chunks of a round for each thread: enough that the slowest one at its end does not matter, unless they take long.
const ROUND: u64 = 64;

/// Chunks that one desk serves.
const A_TIME: usize = 2;

/// Layers of a round for each thread: a tenth of a second's work, after which a state may be kept.
const LAYERS: u64 = 1 << 18;

/// How a space is cut.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    /// Machines in one.
    pub machines: u64,
    /// How many there are.
    pub count: u64,
}

impl Chunks {
    /// Chunks of a space; the same for any number of threads and shards.
    pub fn of(space: &Space) -> Self {
        let machines = (CHUNK / space.points_of_a_machine()).max(1);
        Self { machines, count: space.machines().div_ceil(machines) }
    }

    /// How many a shard has.
    pub fn of_shard(&self, shard: Shard) -> u64 {
        (self.count + shard.count - 1 - shard.index) / shard.count
    }
}

struct Part {
    rows: Vec<u8>,
    admitted: Vec<Visited<Figures>>,
    counts: Counts,
    refusal: Option<String>,
}

/// Who is told after every round, with the CSV rows of the points visited since; it may stop the search.
pub type Told<'a> = dyn FnMut(&State, &[u8]) -> Result<ControlFlow<()>> + 'a;

/// Visits all that a state has not yet seen. After every round `told` gets the state and the CSV rows of the points
/// visited since (`None` for `rows`: no rows); it may stop the search, which then can go on from the state.
///
/// # Errors
/// What `told` says.
pub fn exhaustive(space: &Space, state: &mut State, rows: bool, told: &mut Told<'_>) -> Result<()> {
    let chunks = Chunks::of(space);
    state.all = chunks.of_shard(state.shard);
    let all = state.all;
    let layers = space.layers() * chunks.machines * space.points_of_a_machine();
    let round = (LAYERS / layers.max(1)).clamp(1, ROUND) * rayon::current_num_threads() as u64;
    while state.done < all {
        let next: Vec<u64> = (state.done..(state.done + round).min(all)).collect();
        let front = &state.front;
        let parts: Vec<Part> = next
            .par_iter()
            .with_max_len(A_TIME)
            .map_init(
                || space.desk(),
                |desk, &i| chunk(space, chunks, i * state.shard.count + state.shard.index, front, rows, desk),
            )
            .collect();
        let mut text = Vec::new();
        for part in parts {
            text.extend_from_slice(&part.rows);
            part.admitted.into_iter().for_each(|p| {
                state.front.insert(p);
            });
            state.counts.add(&part.counts);
            state.refusal = state.refusal.take().or(part.refusal);
        }
        state.done += next.len() as u64;
        state.rows_bytes += text.len() as u64;
        if told(state, &text)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn chunk(space: &Space, chunks: Chunks, index: u64, front: &Front<Figures>, rows: bool, desk: &mut Desk) -> Part {
    let mut part = Part { rows: Vec::new(), admitted: Vec::new(), counts: Counts::default(), refusal: None };
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut own = Front::new();
    let (mut hint, mut own_hint) = (0, 0);
    let (asked, answered) = (desk.asked, desk.answered);
    let points = space.points_of_a_machine();
    for number in index * chunks.machines..((index + 1) * chunks.machines).min(space.machines()) {
        part.counts.points += points;
        let machine = match space.machine(number) {
            Ok(machine) => machine,
            Err(why) => {
                part.counts.refused += points;
                part.refusal.get_or_insert(why);
                continue;
            }
        };
        desk.next_machine();
        for point in 0..points {
            match space.visit(&machine, point, desk) {
                Ok(Some(visited)) => {
                    if rows {
                        // Memory cannot refuse a row.
                        let _ = writer.write_record(space.row(visited.index, &visited.figures));
                    }
                    if front.admits(&visited, &mut hint) && own.admits(&visited, &mut own_hint) {
                        own.insert(visited);
                    }
                }
                Ok(None) => part.counts.ruled_out += 1,
                Err(why) => {
                    part.counts.refused += 1;
                    part.refusal.get_or_insert(why);
                }
            }
        }
    }
    part.admitted = own.sorted();
    part.counts.estimated = desk.asked - asked;
    part.counts.answered = desk.answered - answered;
    part.rows = writer.into_inner().unwrap_or_default();
    part
}
