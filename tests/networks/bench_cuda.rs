//! The measuring loop on a simulated device, and what is said where there is no GPU.

use hwsim::bench::cuda::measure::all;
use hwsim::bench::cuda::problem::suite;
use hwsim::bench::cuda::{Gpu, Identity, Prepared, Problem, Progress};
use hwsim::bench::{Sample, Timing};
use hwsim::dtype::DType;
use hwsim::pattern::SparsityPattern;
use std::cell::RefCell;
use std::rc::Rc;

/// What the device was asked to do.
#[derive(Default)]
struct Log {
    copies: Vec<u64>,
    calls: Vec<u32>,
}

/// Takes 1 ns a row, plus 10 µs a launch of weights that are not in its cache; refuses int8.
struct Simulated {
    log: Rc<RefCell<Log>>,
    free: u64,
}

struct Product {
    log: Rc<RefCell<Log>>,
    seconds: f64,
    replays: u32,
}

impl Gpu for Simulated {
    fn identity(&self) -> Identity {
        Identity { name: "Simulated".into(), driver: "1.2.3".into(), last_cache: 32 << 20, free: self.free }
    }

    fn clock(&self) -> Option<u32> {
        Some(1410)
    }

    fn prepare(&mut self, problem: &Problem, copies: u64) -> Result<Box<dyn Prepared + '_>, String> {
        if problem.dtype == DType::Int8 {
            return Err("no int8 here".into());
        }
        self.log.borrow_mut().copies.push(copies);
        let outside = if copies > 1 { 1e-5 } else { 0.0 };
        let seconds = problem.m as f64 * 1e-9 + outside;
        Ok(Box::new(Product { log: Rc::clone(&self.log), seconds, replays: 0 }))
    }
}

impl Prepared for Product {
    fn kernel(&self) -> String {
        "made-up".into()
    }

    fn replay(&mut self, calls: u32) -> Result<f64, String> {
        self.log.borrow_mut().calls.push(calls);
        // The first replay is ten times as slow, a later one twice: neither may reach the median.
        self.replays += 1;
        let slow = if self.replays == 1 {
            10.0
        } else if self.replays == 5 {
            2.0
        } else {
            1.0
        };
        Ok(self.seconds * f64::from(calls) * slow)
    }
}

fn problem(m: u64, dtype: DType) -> Problem {
    Problem { m, n: 1024, k: 1024, dtype, pattern: SparsityPattern::Dense }
}

fn measure(problems: &[Problem], free: u64) -> (Vec<Sample>, Vec<Progress>, Log) {
    let log = Rc::new(RefCell::new(Log::default()));
    let mut gpu = Simulated { log: Rc::clone(&log), free };
    let mut seen = Vec::new();
    let samples = all(&mut gpu, problems, &mut |p| seen.push(p.clone())).unwrap();
    drop(gpu);
    let log = Rc::try_unwrap(log).ok().unwrap().into_inner();
    (samples, seen, log)
}

#[test]
fn medians_of_replays_without_the_slow_ones() {
    let (samples, seen, _) = measure(&[problem(2000, DType::Fp16)], 80 << 30);
    assert_eq!(samples.len(), 2);
    let (warm, cold) = (&samples[0], &samples[1]);
    assert_eq!((warm.timing, cold.timing), (Timing::Warm, Timing::Cold));
    assert!((warm.latency_us - 2.0).abs() < 1e-9, "{}", warm.latency_us);
    assert!((cold.latency_us - 12.0).abs() < 1e-9, "{}", cold.latency_us);
    assert_eq!((warm.source.as_str(), warm.device.as_str(), warm.kernel.as_str()), ("hwsim", "Simulated", "made-up"));
    assert_eq!(warm.attrs["driver"], "1.2.3");
    assert_eq!(warm.attrs["clock_mhz"], 1410);
    assert!((warm.attrs["max_us"].as_f64().unwrap() - 4.0).abs() < 1e-9);
    assert_eq!(seen.last().unwrap().done, 1);
}

#[test]
fn cold_loops_cycle_twice_the_cache_and_replays_last_long_enough() {
    let (_, _, log) = measure(&[problem(2000, DType::Fp16)], 80 << 30);
    // 2 MiB of weights: 64 MiB are 32 sets, and one more. A call of 2 µs needs 1,000 for 2 ms; 12 µs need 167, of which
    // each set takes as many.
    assert_eq!(log.copies, [1, 33]);
    assert!(log.calls.iter().any(|c| (1000..=1001).contains(c)), "{:?}", log.calls);
    assert_eq!(log.calls.last(), Some(&198));
}

#[test]
fn what_a_device_refuses_is_told_and_left_out() {
    let (samples, seen, _) = measure(&[problem(1, DType::Int8), problem(1, DType::Bf16)], 80 << 30);
    assert_eq!(samples.len(), 2);
    assert!(samples.iter().all(|s| s.dtype == "bf16"));
    assert_eq!(seen[0].outcome, Err("no int8 here".to_owned()));
    let (samples, seen, _) = measure(&[problem(1, DType::Bf16)], 3 << 20);
    assert!(samples.is_empty());
    assert!(seen[0].outcome.as_ref().unwrap_err().contains("more than half of what is free"));
}

#[test]
fn the_suite_has_300_shapes_in_four_formats_dense_and_half() {
    let suite = suite();
    for dtype in [DType::Fp16, DType::Bf16, DType::Int8, DType::Fp8] {
        for pattern in ["dense", "2:4"] {
            let pattern: SparsityPattern = pattern.parse().unwrap();
            let count = suite.iter().filter(|p| p.dtype == dtype && p.pattern == pattern).count();
            assert!(count >= 300, "{dtype} {pattern} {count}");
        }
    }
    assert!(suite.iter().all(|p| p.library().is_some()));
}

#[test]
fn without_a_driver_one_sentence_says_so() {
    match hwsim::bench::cuda::bench(&[], &mut |_| {}) {
        Ok(samples) => assert!(samples.is_empty()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("--device cuda: "), "{text}");
            let absent =
                "--device cuda: no NVIDIA driver: libcuda.so.1 was not found; install it, or measure with --device cpu";
            assert!(text == absent || text.contains("no usable GPU"), "{text}");
        }
    }
}
