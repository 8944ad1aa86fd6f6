//! A search's state as text, exact to the last bit: what a checkpoint holds, and what merging reads.

use super::explore::{Counts, Shard, State};
use super::pareto::{Front, Visited};
use super::space::{Figures, Fingerprint, Objective, Space, key};
use crate::error::{Error, Result};
use std::fmt::Write as _;

/// The first line of a state.
const HEAD: &str = "hwsim search state 1";

/// Whether two searches ask the same: everything that [`Space::describe`] says, and how the space is visited.
pub fn fingerprint(space: &Space, method: &str) -> u64 {
    let mut print = Fingerprint::default();
    print.take(&space.describe().to_string());
    print.take(method);
    print.0
}

/// Writes a state.
pub fn write(state: &State, fingerprint: u64) -> String {
    let c = &state.counts;
    let mut text = format!(
        "{HEAD}\nsearch {fingerprint:016x}\nshard {}/{}\ndone {} {}\nrows_bytes {}\ncounts {} {} {} {} {}\n",
        state.shard.index,
        state.shard.count,
        state.done,
        state.all,
        state.rows_bytes,
        c.points,
        c.ruled_out,
        c.refused,
        c.answered,
        c.estimated,
    );
    if let Some(why) = &state.refusal {
        let _ = writeln!(text, "refusal {}", why.replace('\n', " "));
    }
    let points = state.front.sorted();
    let _ = writeln!(text, "front {}", points.len());
    for p in points {
        // The shortest decimal that reads back as the same number.
        let values: Vec<String> = p.figures.values().iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{} {}", p.index, values.join(" "));
    }
    let _ = writeln!(text, "islands {}", state.populations.len());
    for island in &state.populations {
        let _ = writeln!(text, "population {}", island.len());
        for genes in island {
            let genes: Vec<String> = genes.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "{}", genes.join(" "));
        }
    }
    text.push_str("end\n");
    text
}

/// Reads a state and the fingerprint of its search; `origin` names it in errors.
///
/// # Errors
/// A text that is no state, or the state of another search than `fingerprint` says, where it says one.
pub fn read(text: &str, objectives: &[Objective], fingerprint: Option<u64>, origin: &str) -> Result<(State, u64)> {
    let refuse = |message: String| Error::Parse { origin: origin.to_owned(), message };
    let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, l));
    let mut line = |key: &str| -> Result<(usize, String)> {
        let (number, line) =
            lines.next().ok_or_else(|| refuse("it ends too early; remove it and start again".into()))?;
        let rest = if key.is_empty() { Some(line) } else { line.strip_prefix(key) };
        rest.map(|r| (number, r.trim().to_owned()))
            .ok_or_else(|| refuse(format!("line {number}: `{key}` was expected; it is no state of a search")))
    };
    let count = |(number, text): (usize, String)| -> Result<u64> {
        text.parse().map_err(|_| refuse(format!("line {number}: `{text}` is no count")))
    };
    line(HEAD)?;
    let (number, print) = line("search")?;
    let print = u64::from_str_radix(&print, 16).map_err(|_| refuse(format!("line {number}: no fingerprint")))?;
    if fingerprint.is_some_and(|f| f != print) {
        return Err(refuse(
            "it belongs to another search (other workload, profile, space, condition or version)".into(),
        ));
    }
    let shard: Shard = line("shard")?.1.parse()?;
    let mut state = State::new(shard);
    let (number, done) = line("done")?;
    let (done, all) = done.split_once(' ').unwrap_or((&done, ""));
    (state.done, state.all) = (count((number, done.to_owned()))?, count((number, all.to_owned()))?);
    state.rows_bytes = count(line("rows_bytes")?)?;
    let (number, counts) = line("counts")?;
    let counts: Vec<u64> = counts.split(' ').map_while(|c| c.parse().ok()).collect();
    let [points, ruled_out, refused, answered, estimated] = counts[..] else {
        return Err(refuse(format!("line {number}: five counts were expected")));
    };
    state.counts = Counts { points, ruled_out, refused, answered, estimated };
    let mut next = line("")?;
    if let Some(why) = next.1.strip_prefix("refusal ") {
        state.refusal = Some(why.to_owned());
        next = line("")?;
    }
    let many = |(number, text): (usize, String), key: &str| -> Result<u64> {
        let rest = text.strip_prefix(key).ok_or_else(|| refuse(format!("line {number}: `{key}` was expected")))?;
        count((number, rest.trim().to_owned()))
    };
    let mut front = Front::new();
    for _ in 0..many(next, "front")? {
        let (number, row) = line("")?;
        let (index, values) = row.split_once(' ').unwrap_or((&row, ""));
        let index = count((number, index.to_owned()))?;
        let values: Vec<f64> = values.split(' ').map_while(|v| v.parse().ok()).collect();
        let values = values.try_into().map_err(|_| refuse(format!("line {number}: a point has nine figures")))?;
        let figures = Figures::from_values(values);
        front.insert(Visited { index, key: key(objectives, &figures), figures });
    }
    state.front = front;
    for _ in 0..many(line("")?, "islands")? {
        let mut island = Vec::new();
        for _ in 0..many(line("")?, "population")? {
            let (number, genes) = line("")?;
            let genes: Option<Vec<u64>> = genes.split(' ').map(|g| g.parse().ok()).collect();
            island.push(genes.ok_or_else(|| refuse(format!("line {number}: not a list of places")))?);
        }
        state.populations.push(island);
    }
    line("end")?;
    Ok((state, print))
}

/// The state of the whole from those of all its shards.
///
/// # Errors
/// Shards that are missing, there twice, unfinished, or of another division.
pub fn merge(states: Vec<State>) -> Result<State> {
    let refuse = |reason: String| Error::argument("merge", reason);
    let count = states.first().map_or(0, |s| s.shard.count);
    let mut seen: Vec<u64> = states.iter().map(|s| s.shard.index).collect();
    seen.sort_unstable();
    if let Some(other) = states.iter().find(|s| s.shard.count != count) {
        return Err(refuse(format!("shards of {count} and of {} do not make a whole", other.shard.count)));
    }
    if let Some(s) = states.iter().find(|s| s.done < s.all) {
        let (i, n) = (s.shard.index, s.shard.count);
        return Err(refuse(format!("shard {i}/{n} is not finished; run it again with --resume")));
    }
    if let Some(missing) = (0..count).find(|i| !seen.contains(i)) {
        return Err(refuse(format!("shard {missing}/{count} is missing")));
    }
    if seen.len() as u64 != count {
        return Err(refuse("a shard is there twice".into()));
    }
    let mut whole = State::new(Shard::WHOLE);
    let mut states = states;
    states.sort_by_key(|s| s.shard.index);
    // Islands were dealt to the shards in turn.
    let islands: usize = states.iter().map(|s| s.populations.len()).sum();
    let dealt = |i: usize| states[i % states.len()].populations.get(i / states.len()).cloned();
    whole.populations = (0..islands).filter_map(dealt).collect();
    for state in states {
        whole.done += state.done;
        whole.all += state.all;
        whole.rows_bytes += state.rows_bytes;
        whole.counts.add(&state.counts);
        whole.refusal = whole.refusal.or(state.refusal);
        whole.front.merge(state.front);
    }
    Ok(whole)
}
