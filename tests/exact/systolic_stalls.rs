//! The stall closed form against a double buffer that is stepped cycle by cycle.

use hwsim::cost::systolic::dram::{Buffers, Channel, LoopOrder, Operands, Schedule, fold_turn};
use hwsim::cost::systolic::fold::{Array, Shape, dense};
use hwsim::profile::systolic::{Dataflow, Folding};
use hwsim::simulate::systolic::buffer::{Job, run};
use rand::{RngExt, SeedableRng};

#[test]
fn stalls_follow_the_stepped_buffer() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
    let (mut worst, mut stalled) = (0.0f64, 0);
    for case in 0..1000 {
        let array = Array {
            rows: rng.random_range(2..=32),
            cols: rng.random_range(2..=32),
            dataflow: Dataflow::ALL[case % 3],
            folding: [Folding::Serial, Folding::Overlapped][case / 3 % 2],
        };
        let mut extent = || rng.random_range(1..=300u64);
        let shape = Shape { m: extent(), n: extent(), k: extent() };
        let operands = Operands {
            inputs: (shape.m * shape.k) as f64,
            weights: (shape.n * shape.k) as f64,
            outputs: (shape.m * shape.n) as f64,
            partials: 4.0 * (shape.m * shape.n) as f64,
        };
        let mut size = || 2f64.powf(rng.random_range(8.0..18.0));
        let buffers = Buffers { inputs: size(), weights: size(), outputs: size() };
        let channel = Channel {
            bandwidth: 2f64.powf(rng.random_range(-1.0..7.0)),
            latency: f64::from(rng.random_range(0..200u32)),
            overlap: true,
        };
        for order in [LoopOrder::RowsOuter, LoopOrder::ColsOuter] {
            let schedule = Schedule::with_order(array, shape, operands, buffers, order);
            let (_, _, steps) = shape.spans(array.dataflow);
            let (turn, last) = fold_turn(array, steps);
            let (outers, inners) = schedule.loops();
            let mut jobs = Vec::new();
            let mut moved = 0.0;
            for outer in 0..outers {
                for inner in 0..inners {
                    let end = outer + 1 == outers && inner + 1 == inners;
                    let compute = if end { last } else { turn } as u64;
                    jobs.push(Job {
                        reads: schedule.reads(outer, inner),
                        compute,
                        writes: schedule.writes(outer, inner),
                    });
                    moved += jobs[jobs.len() - 1].reads + jobs[jobs.len() - 1].writes;
                }
            }
            let compute = dense(array, shape).unwrap().cycles;
            assert_eq!(jobs.iter().map(|j| j.compute).sum::<u64>(), compute, "the turns of the folds are their cycles");
            assert!(
                (moved / schedule.moved.total() - 1.0).abs() < 1e-9,
                "the folds move what the schedule says: {case} {order:?}"
            );
            let stepped = run(&jobs, channel.bandwidth, channel.latency as u64) as f64;
            let closed = compute as f64 + schedule.stalls(turn, last, channel);
            let error = (closed - stepped).abs() / stepped;
            assert!(error <= 0.02, "case {case} {array:?} {shape:?} {order:?}: {closed} against {stepped}");
            worst = worst.max(error);
            stalled += usize::from(stepped > compute as f64 * 1.01);
        }
    }
    println!("worst error {:.2} %, {stalled} of 2000 stall", worst * 100.0);
    assert!(stalled > 500, "a test without stalls tests nothing");
}
