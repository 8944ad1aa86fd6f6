//! From operations to the network: what stays cached between steps, and the schedule over the DAG.

use super::{CostModel, LayerCost, MacCount, Traffic};
use crate::error::Result;
use crate::lower::{Lowered, Step};
use crate::units::{Bytes, Cycles, Joules, Seconds};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Share of the last cache level that activations can count on; the rest holds weights in flight and conflicts.
const CACHE_SHARE: f64 = 0.8;

/// Correlation of the errors of two layers: half of a layer's error is the model's (shared), half its own.
const ERROR_CORRELATION: f64 = 0.5;

/// What a network costs.
#[derive(Clone, Debug)]
pub struct NetworkCost {
    /// One cost a step, in the steps' order; `None` for views that run nothing.
    pub steps: Vec<Option<LayerCost>>,
    /// The sum, or the schedule's length.
    pub total: Total,
}

/// Totals of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total {
    /// Latency.
    pub time: Seconds,
    /// Its 90 % interval.
    pub interval: (Seconds, Seconds),
    /// Arithmetic cycles.
    pub cycles: Cycles,
    /// Time in launch and dispatch.
    pub overhead: Seconds,
    /// Multiply–accumulates.
    pub macs: MacCount,
    /// Traffic.
    pub traffic: Traffic,
    /// Energy, where every step knows its own.
    pub energy: Option<Joules>,
}

impl Total {
    /// With a host that needs this long to dispatch all kernels: it runs ahead of the device, so the slower of the two binds.
    #[must_use]
    pub fn dispatched(mut self, host: Seconds) -> Self {
        if self.time < host {
            self.overhead += host - self.time;
            self.time = host;
        }
        self.interval = (self.interval.0.max(host.min(self.time)), self.interval.1.max(self.time));
        self.interval.0 = self.interval.0.min(self.time);
        self
    }
}

/// Costs every step, alone and in parallel, and schedules them on `queues` queues (1: one after another).
///
/// # Errors
/// The first step that the machine cannot run.
pub fn network(steps: &[Step], model: &dyn CostModel, queues: usize) -> Result<NetworkCost> {
    let resident = residency_of(steps, model);
    let costs: Vec<Option<LayerCost>> = steps
        .par_iter()
        .zip(&resident)
        .with_min_len(64)
        .map(|(step, &resident)| step_cost(step, resident, model))
        .collect::<Result<_>>()?;
    let total = total(steps, &costs, queues);
    Ok(NetworkCost { steps: costs, total })
}

/// Bytes of each step's inputs that the model's last cache level still holds when it runs.
pub fn residency_of(steps: &[Step], model: &dyn CostModel) -> Vec<Bytes> {
    let mut scratch = Residency::default();
    scratch.follow(steps.iter().map(|s| (s.reads.as_slice(), touched(s))), model.last_level());
    scratch.resident
}

/// What is cached when, with its working memory.
#[derive(Clone, Debug, Default)]
pub struct Residency {
    produced_at: Vec<Bytes>,
    /// Bytes of each step's inputs that are still cached when it runs.
    pub resident: Vec<Bytes>,
}

impl Residency {
    /// Follows steps, each given by the earlier steps that it reads with the bytes of each and by what it [`touched`],
    /// through a last cache level: a tensor survives while what was touched since it was produced fits (least recently
    /// used, serial order).
    pub fn follow<'a>(&mut self, steps: impl Iterator<Item = (&'a [(usize, Bytes)], Bytes)>, last_level: Bytes) {
        let capacity = last_level * CACHE_SHARE;
        let mut all = Bytes::ZERO;
        self.produced_at.clear();
        self.resident.clear();
        for (reads, touched) in steps {
            let mut kept = Bytes::ZERO;
            for &(from, size) in reads {
                let start: Bytes = self.produced_at[from];
                if all - start <= capacity {
                    kept += size;
                }
            }
            self.resident.push(kept);
            self.produced_at.push(all);
            all += touched;
        }
    }
}

/// Bytes that a step reads, writes and holds as weights.
pub fn touched(step: &Step) -> Bytes {
    let read: Bytes = step.reads.iter().map(|&(_, b)| b).sum();
    read + step.writes + step.ops.iter().map(weights).sum()
}

fn weights(op: &Lowered) -> Bytes {
    match op {
        Lowered::Gemm(g) => {
            let stored = g.format.bytes(&g.weights, g.dtype).total() * g.gemm.groups as f64;
            if matches!(g.source, crate::lower::Source::Activations) { Bytes::ZERO } else { stored }
        }
        Lowered::Attention(_) => Bytes::ZERO,
        Lowered::Stream(s) => s.parameters,
    }
}

/// What one step costs with so many bytes of its inputs in the last cache level; `None` for a view.
///
/// # Errors
/// An operation that the machine cannot run.
pub fn step_cost(step: &Step, mut resident: Bytes, model: &dyn CostModel) -> Result<Option<LayerCost>> {
    let mut sum: Option<LayerCost> = None;
    for op in &step.ops {
        let mut op = op.clone();
        resident = occupy(&mut op, resident);
        let cost = model.cost(&op)?;
        sum = Some(match sum {
            None => cost,
            Some(before) => before.then(cost),
        });
    }
    Ok(sum)
}

/// Gives an operation its share of the resident bytes and returns what is left.
fn occupy(op: &mut Lowered, available: Bytes) -> Bytes {
    let share = available.min(most_resident(op));
    set_resident(op, share);
    available - share
}

/// Most bytes of an operation's inputs that can be cached.
pub fn most_resident(op: &Lowered) -> Bytes {
    match op {
        Lowered::Gemm(g) => {
            // The other activation operand of a product without weights stays cached as well as the first.
            let second = if matches!(g.source, crate::lower::Source::Activations) {
                g.format.bytes(&g.weights, g.dtype).total() * g.gemm.groups as f64
            } else {
                Bytes::ZERO
            };
            g.input_bytes() + second
        }
        Lowered::Attention(a) => a.query_bytes() + a.kv_bytes(),
        Lowered::Stream(s) => s.input,
    }
}

/// Says how many bytes of an operation's inputs are cached.
pub fn set_resident(op: &mut Lowered, bytes: Bytes) {
    match op {
        Lowered::Gemm(g) => g.resident = bytes,
        Lowered::Attention(a) => a.resident = bytes,
        Lowered::Stream(s) => s.resident = bytes,
    }
}

impl LayerCost {
    /// This operation and then another: times, traffic and counts add, the longer one names the bound.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        if next.time > self.time {
            self.bound = next.bound;
            self.executed = next.executed;
        }
        let busy = self.utilization * self.time.get() + next.utilization * next.time.get();
        self.time += next.time;
        self.utilization = if self.time > Seconds::ZERO { busy / self.time.get() } else { 0.0 };
        self.interval.0 += next.interval.0;
        self.interval.1 += next.interval.1;
        self.compute += next.compute;
        self.overhead += next.overhead;
        self.traffic.add(&next.traffic);
        self.macs = self.macs.plus(next.macs);
        self.energy = self.energy.zip(next.energy).map(|(a, b)| a + b);
        self
    }
}

impl MacCount {
    /// Sum of two counts.
    #[must_use]
    pub fn plus(self, o: Self) -> Self {
        Self { dense: self.dense + o.dense, effectual: self.effectual + o.effectual, issued: self.issued + o.issued }
    }
}

/// Half-width of a sum of terms whose errors are equally correlated: `√(ρ·(Σh)² + (1−ρ)·Σh²)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    sum: f64,
    squares: f64,
}

impl Spread {
    /// One more term with this half-width.
    pub fn add(&mut self, half: f64) {
        self.sum += half;
        self.squares += half * half;
    }

    /// The half-width of the sum.
    pub fn half(self) -> f64 {
        (ERROR_CORRELATION * self.sum * self.sum + (1.0 - ERROR_CORRELATION) * self.squares).sqrt()
    }
}

fn total(steps: &[Step], costs: &[Option<LayerCost>], queues: usize) -> Total {
    let mut total = Total { energy: Some(Joules::ZERO), ..Total::default() };
    let (mut below, mut above) = (Spread::default(), Spread::default());
    for cost in costs.iter().flatten() {
        total.time += cost.time;
        total.cycles += cost.compute;
        total.overhead += cost.overhead;
        total.macs = total.macs.plus(cost.macs);
        total.traffic.add(&cost.traffic);
        total.energy = total.energy.zip(cost.energy).map(|(a, b)| a + b);
        below.add((cost.time - cost.interval.0).get());
        above.add((cost.interval.1 - cost.time).get());
    }
    if costs.iter().all(Option::is_none) {
        total.energy = None;
    }
    let serial = total.time;
    if queues > 1 {
        total.time = schedule(steps, costs, queues);
    }
    // The interval shrinks with the schedule.
    let scale = if serial > Seconds::ZERO { total.time / serial } else { 1.0 };
    total.interval = (total.time - Seconds(below.half() * scale), total.time + Seconds(above.half() * scale));
    total
}

/// List scheduling on several queues: launches overlap, bodies share one machine. A step is issued on the first free
/// queue once its inputs are there; of those that are ready the earliest in order goes first.
fn schedule(steps: &[Step], costs: &[Option<LayerCost>], queues: usize) -> Seconds {
    let mut waiting: Vec<usize> = steps.iter().map(|s| s.reads.len()).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (i, step) in steps.iter().enumerate() {
        step.reads.iter().for_each(|&(from, _)| readers[from].push(i));
    }
    let mut ready_at = vec![0.0f64; steps.len()];
    let mut ready: BinaryHeap<Reverse<usize>> = (0..steps.len()).filter(|&i| waiting[i] == 0).map(Reverse).collect();
    let mut queue_free = vec![0.0f64; queues];
    let (mut machine_free, mut end) = (0.0f64, 0.0f64);
    while let Some(Reverse(i)) = ready.pop() {
        let finish = match &costs[i] {
            None => ready_at[i],
            Some(cost) => {
                let queue = (0..queues).min_by(|&a, &b| queue_free[a].total_cmp(&queue_free[b])).unwrap_or(0);
                let launched = ready_at[i].max(queue_free[queue]) + cost.overhead.get();
                let finish = launched.max(machine_free) + (cost.time - cost.overhead).get();
                machine_free = finish;
                queue_free[queue] = finish;
                finish
            }
        };
        end = end.max(finish);
        for &r in &readers[i] {
            ready_at[r] = ready_at[r].max(finish);
            waiting[r] -= 1;
            if waiting[r] == 0 {
                ready.push(Reverse(r));
            }
        }
    }
    Seconds(end)
}
