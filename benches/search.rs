//! How fast spaces are visited: (layer, pattern, machine) triples answered a second, on one thread and on two, least time of
//! nine interleaved runs. Estimates are of distinct operations: layers alike are answered by one of them.
//!
//! Two processors may be two threads of one core, which no program can make twice as fast. So two controls run in the same
//! rounds: arithmetic in registers on one thread and on two, and two separate searches side by side, one thread each. What one search
//! on two threads falls short of those is the program's own.
//!
//! `cargo bench --bench search`, on an otherwise idle machine.

use hwsim::cost;
use hwsim::profile::Profile;
use hwsim::report::estimate::default_dtype;
use hwsim::search::explore::{Shard, State, exhaustive};
use hwsim::search::quality::Proxy;
use hwsim::search::space::{Base, Description, Objective, Space};
use hwsim::workload::{self, resolve};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

const RUNS: usize = 9;

/// Profile, patterns, and the fields that vary.
const SWEEPS: [(&str, &[&str], &[&str]); 2] = [
    (
        "systolic-128x128",
        &["dense", "2:4", "1:4", "row@0.5", "block:16x16@0.5"],
        &["device.systolic.rows=16..256*2", "device.systolic.cols=16..256*2", "memory.bandwidth=100..800 GB/s:256"],
    ),
    (
        "a100",
        &["dense", "2:4", "1:4", "row@0.5", "block:16x16@0.5", "unstructured@0.9"],
        &["memory.bandwidth=1000..3000 GB/s:32", "device.gpu.sms=64..128+4"],
    ),
];

/// Independent multiplications in registers.
fn spin() -> u64 {
    let mut x = [1u64, 2, 3, 4];
    for _ in 0..50_000_000u64 {
        x = x.map(|v| v.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    }
    black_box(x[0] ^ x[1] ^ x[2] ^ x[3])
}

fn seconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

/// The same work twice at once.
fn twice(work: impl Fn() + Sync) {
    std::thread::scope(|s| {
        s.spawn(&work);
        work();
    });
}

fn main() {
    let graphs = [(1, resolve("resnet50", &workload::Options::default()).expect("a built-in network"))];
    println!(
        "| sweep of ResNet-50 | machines | threads | triples | estimates | s | M triples/s | M estimates/s | scaling |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (name, patterns, fields) in SWEEPS {
        let profile = Profile::find(name).expect("a built-in profile");
        let dtypes = vec![default_dtype(&profile)];
        let space = Space::new(Description {
            workload: "resnet50".into(),
            graphs: &graphs,
            bases: vec![Base { name: name.into(), profile, dtypes }],
            axes: fields.iter().map(|f| f.parse().expect("an axis")).collect(),
            patterns: patterns.iter().map(|p| p.parse().expect("a pattern")).collect(),
            proxy: &Proxy::GaussianEnergy,
            objectives: vec![Objective::Latency, Objective::Quality],
            condition: None,
            options: cost::Options::default(),
        })
        .expect("a space");
        let pools = [1, 2].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().expect("threads"));
        let mut least = [f64::INFINITY; 2];
        let (mut apart, mut alone, mut both) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        let whole = |pool: &rayon::ThreadPool| {
            let mut state = State::new(Shard::WHOLE);
            pool.install(|| exhaustive(&space, &mut state, false, &mut |_, _| Ok(ControlFlow::Continue(()))))
                .expect("machines that run it");
            black_box(state).counts
        };
        let single = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
        let pair = [0, 1].map(single);
        let mut counts = None;
        for _ in 0..RUNS {
            for (pool, least) in pools.iter().zip(&mut least) {
                *least = least.min(seconds(|| counts = Some(whole(pool))));
            }
            let side_by_side = || {
                std::thread::scope(|s| {
                    for pool in &pair {
                        s.spawn(|| whole(pool));
                    }
                });
            };
            apart = apart.min(seconds(side_by_side));
            alone = alone.min(seconds(|| {
                spin();
            }));
            both = both.min(seconds(|| {
                twice(|| {
                    spin();
                });
            }));
        }
        let counts = counts.expect("runs");
        let (answered, estimated) = (counts.answered as f64, counts.estimated as f64);
        for (threads, seconds) in [(1, least[0]), (2, least[1])] {
            println!(
                "| {name} | {} | {threads} | {answered} | {estimated} | {seconds:.3} | {:.2} | {:.2} | {:.2} |",
                space.machines(),
                answered / seconds / 1e6,
                estimated / seconds / 1e6,
                least[0] / seconds,
            );
        }
        println!(
            "| two searches side by side | | 2 | {} | {} | {apart:.3} | {:.2} | {:.2} | {:.2} |",
            2.0 * answered,
            2.0 * estimated,
            2.0 * answered / apart / 1e6,
            2.0 * estimated / apart / 1e6,
            2.0 * least[0] / apart,
        );
        println!("| arithmetic in registers | | 2 | | | {both:.3} | | | {:.2} |", 2.0 * alone / both);
    }
}
