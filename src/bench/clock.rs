//! Clocks: the time of one thread where one thread works, wall time where several do.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Which time is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The processor time of the calling thread: what other programs take from it is not counted.
    Thread,
    /// Time as it passes.
    Wall,
}

impl Clock {
    /// The clock for work on so many threads.
    pub fn for_threads(threads: usize) -> Self {
        if threads == 1 && cfg!(unix) { Self::Thread } else { Self::Wall }
    }

    /// Its name in sample files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Thread => "thread",
            Self::Wall => "wall",
        }
    }

    /// Seconds that `work` takes.
    pub fn time(self, work: impl FnOnce()) -> f64 {
        match self {
            Self::Thread => {
                let start = thread_time();
                work();
                thread_time().saturating_sub(start).as_secs_f64()
            }
            Self::Wall => {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64()
            }
        }
    }
}

#[cfg(unix)]
fn thread_time() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec.max(0) as u64, t.tv_nsec.clamp(0, 999_999_999) as u32)
}

#[cfg(not(unix))]
fn thread_time() -> Duration {
    // Without a thread's clock the time that passes stands in; `Clock::for_threads` does not choose this one there.
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

/// Calls of `work` that fill about `seconds`, found by doubling; warms up on the way.
pub fn repetitions(clock: Clock, seconds: f64, work: &mut dyn FnMut()) -> u64 {
    let mut calls = 1u64;
    loop {
        let took = clock.time(|| (0..calls).for_each(|_| work()));
        if took >= 0.5 * seconds || calls >= 1 << 24 {
            let each = (took / calls as f64).max(1e-9);
            return ((seconds / each).round() as u64).clamp(1, 1 << 24);
        }
        calls = if took > 0.01 * seconds { (calls as f64 * 0.8 * seconds / took).ceil() as u64 } else { calls * 8 };
    }
}

/// Seconds a call of the fastest of `rounds` rounds of about `seconds` each.
pub fn fastest(clock: Clock, rounds: usize, seconds: f64, mut work: impl FnMut()) -> f64 {
    let calls = repetitions(clock, seconds, &mut work);
    (0..rounds.max(1))
        .map(|_| clock.time(|| (0..calls).for_each(|_| work())) / calls as f64)
        .fold(f64::INFINITY, f64::min)
}

/// Keeps a result from being optimised away.
pub fn keep<T>(value: T) -> T {
    black_box(value)
}
