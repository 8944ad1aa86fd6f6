//! A double buffer in front of the array, stepped cycle by cycle: the reference of the stall closed form.

/// What one fold asks of memory and of the array.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Job {
    /// Bytes that must have arrived before it starts.
    pub reads: f64,
    /// Cycles that the array computes.
    pub compute: u64,
    /// Bytes that it leaves to be written.
    pub writes: f64,
}

/// Cycles until the last result has left, over a channel of `bandwidth` bytes a cycle that answers a request after
/// `latency` cycles.
///
/// Each buffer has two halves that swap when a fold ends: while it computes from one, the next fold's operands arrive in
/// the other, and the results of the fold before leave. The swap waits for all three. The channel carries operands as
/// soon as they come and results in the rest of a cycle.
pub fn run(jobs: &[Job], bandwidth: f64, latency: u64) -> u64 {
    let mut cycle = 0u64;
    // Folds whose operands are on their way, that compute, and whose results leave: one each at most, in a row.
    let mut turn = 0usize;
    loop {
        let filling = jobs.get(turn);
        let computing = turn.checked_sub(1).and_then(|i| jobs.get(i));
        let leaving = turn.checked_sub(2).and_then(|i| jobs.get(i));
        if filling.is_none() && computing.is_none() && leaving.is_none() {
            return cycle;
        }
        let mut reads = filling.map_or(0.0, |j| j.reads);
        let mut wait = if reads > 0.0 { latency } else { 0 };
        let mut compute = computing.map_or(0, |j| j.compute);
        let mut writes = leaving.map_or(0.0, |j| j.writes);
        while reads > 0.0 || compute > 0 || writes > 0.0 {
            let mut budget = bandwidth;
            if wait > 0 {
                wait -= 1;
            } else {
                let taken = reads.min(budget);
                reads -= taken;
                budget -= taken;
            }
            writes = (writes - budget).max(0.0);
            compute = compute.saturating_sub(1);
            cycle += 1;
        }
        turn += 1;
    }
}
