//! Networks ready to be estimated on many machines: equal operations are known once, and on each machine estimated once.
//!
//! Latency, its interval and energy are those of [`crate::cost::network::network`] on one queue, bit for bit: the same operations with the
//! same cached inputs, summed in the same order.

use crate::cost::CostModel;
use crate::cost::network::{Residency, Spread, most_resident, set_resident, touched};
use crate::error::Result;
use crate::lower::{Lowered, Step};
use crate::units::Bytes;
use std::collections::HashMap;

/// What a network costs on a machine. Unknown figures are not a number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimated {
    /// Seconds, with the 90 % interval.
    pub latency: [f64; 3],
    /// Joules.
    pub energy: f64,
    /// Bytes of main memory moved.
    pub dram: f64,
    /// Multiply–accumulates whose weight is nonzero.
    pub macs: f64,
}

/// Distinct operations of many networks.
#[derive(Clone, Debug, Default)]
pub struct Operations {
    list: Vec<(Lowered, Bytes)>,
    known: HashMap<String, usize>,
}

impl Operations {
    fn place(&mut self, op: &Lowered) -> usize {
        // Every field that a model can see is in the text.
        *self.known.entry(format!("{op:?}")).or_insert_with(|| {
            self.list.push((op.clone(), most_resident(op)));
            self.list.len() - 1
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Everything that decides what they cost, as text.
    pub fn describe(&self) -> impl Iterator<Item = String> + '_ {
        self.list.iter().map(|(op, _)| format!("{op:?}"))
    }
}

/// One network under one assignment.
#[derive(Clone, Debug)]
pub struct Lean {
    steps: Vec<LeanStep>,
    /// Steps that sparsity patterns apply to.
    pub prunable: u64,
}

#[derive(Clone, Debug)]
struct LeanStep {
    ops: Vec<usize>,
    reads: Vec<(usize, Bytes)>,
    touched: Bytes,
}

impl Lean {
    /// Takes a network's steps, its operations into `operations`.
    pub fn of(steps: &[Step], operations: &mut Operations) -> Self {
        let lean = |s: &Step| LeanStep {
            ops: s.ops.iter().map(|op| operations.place(op)).collect(),
            reads: s.reads.clone(),
            touched: touched(s),
        };
        Self { prunable: steps.iter().filter(|s| s.prunable).count() as u64, steps: steps.iter().map(lean).collect() }
    }
}

impl Lean {
    /// Steps of the network.
    pub fn len(&self) -> u64 {
        self.steps.len() as u64
    }

    /// Whether it has no step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

#[derive(Clone, Copy)]
struct Known {
    resident: u64,
    time: f64,
    interval: (f64, f64),
    energy: f64,
    dram: f64,
    macs: f64,
}

/// Working memory of one thread: estimates of the machine at hand.
pub struct Desk {
    operations: Vec<Lowered>,
    known: Vec<Vec<Known>>,
    residency: Residency,
    /// Operations that the model was asked about.
    pub asked: u64,
    /// (layer, pattern, machine) triples answered, equal layers counted each.
    pub answered: u64,
}

impl Desk {
    /// A desk for these operations.
    pub fn new(operations: &Operations) -> Self {
        Self {
            operations: operations.list.iter().map(|(op, _)| op.clone()).collect(),
            known: vec![Vec::new(); operations.len()],
            residency: Residency::default(),
            asked: 0,
            answered: 0,
        }
    }

    /// Forgets the machine before.
    pub fn next_machine(&mut self) {
        self.known.iter_mut().for_each(Vec::clear);
    }

    /// What a network costs on the machine at hand.
    ///
    /// # Errors
    /// The first operation that the machine cannot run.
    pub fn estimate(&mut self, lean: &Lean, operations: &Operations, model: &dyn CostModel) -> Result<Estimated> {
        self.residency.follow(lean.steps.iter().map(|s| (s.reads.as_slice(), s.touched)), model.last_level());
        let mut total = Estimated::default();
        let (mut below, mut above) = (Spread::default(), Spread::default());
        let mut runs = false;
        for (i, step) in lean.steps.iter().enumerate() {
            let mut available = self.residency.resident[i];
            let mut sum: Option<Known> = None;
            for &op in &step.ops {
                let share = available.min(operations.list[op].1);
                available = available - share;
                let next = self.ask(op, share, model)?;
                sum = Some(match sum {
                    None => next,
                    Some(s) => Known {
                        resident: 0,
                        time: s.time + next.time,
                        interval: (s.interval.0 + next.interval.0, s.interval.1 + next.interval.1),
                        energy: s.energy + next.energy,
                        dram: s.dram + next.dram,
                        macs: s.macs + next.macs,
                    },
                });
            }
            let Some(s) = sum else { continue };
            runs = true;
            total.latency[0] += s.time;
            total.energy += s.energy;
            total.dram += s.dram;
            total.macs += s.macs;
            below.add(s.time - s.interval.0);
            above.add(s.interval.1 - s.time);
        }
        self.answered += lean.prunable;
        let time = total.latency[0];
        total.latency = [time, time - below.half(), time + above.half()];
        if !runs {
            total.energy = f64::NAN;
        }
        Ok(total)
    }

    fn ask(&mut self, op: usize, resident: Bytes, model: &dyn CostModel) -> Result<Known> {
        let bits = resident.get().to_bits();
        if let Some(known) = self.known[op].iter().find(|k| k.resident == bits) {
            return Ok(*known);
        }
        set_resident(&mut self.operations[op], resident);
        let cost = model.cost(&self.operations[op])?;
        self.asked += 1;
        let known = Known {
            resident: bits,
            time: cost.time.get(),
            interval: (cost.interval.0.get(), cost.interval.1.get()),
            energy: cost.energy.map_or(f64::NAN, |e| e.get()),
            dram: cost.traffic.dram().get(),
            macs: cost.macs.effectual,
        };
        self.known[op].push(known);
        Ok(known)
    }
}
