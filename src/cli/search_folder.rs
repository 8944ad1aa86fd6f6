//! The folder of a search: what it asks, its rows, its front, and what it can go on from.
//!
//! `search.json` says what is asked, `points.csv` has the visited points, `front.csv` those that nothing dominates,
//! `state.txt` how far the search is. A kill at any moment loses what came after the last state, a few seconds: rows beyond
//! it are cut off when the search goes on.

use anyhow::Context;
use hwsim::error::Error;
use hwsim::report::export::write_whole;
use hwsim::search::evolve::{Evolution, evolve};
use hwsim::search::explore::{Chunks, Shard, State, exhaustive};
use hwsim::search::space::Space;
use hwsim::search::state;
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How a space is visited, and what is kept.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Whether all visited points are written.
    pub rows: bool,
    /// Evolution through a space too large to visit.
    pub evolution: Option<Evolution>,
}

/// A search's folder, with what it goes on from.
pub struct Folder {
    path: PathBuf,
    state: State,
    print: u64,
    rows: Option<File>,
    evolution: Option<Evolution>,
}

impl Folder {
    /// Opens or makes the folder. Without `resume` a folder that holds another run's state is refused.
    pub fn open(path: &Path, space: &Space, shard: Shard, how: How, resume: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        let How { rows, evolution } = how;
        let method = evolution.map_or("exhaustive".to_owned(), |e| format!("NSGA-II {e:?}"));
        let print = state::fingerprint(space, &format!("{method}, rows {rows}"));
        let at = path.join("state.txt");
        let state = match std::fs::read_to_string(&at) {
            Ok(_) if !resume => anyhow::bail!(
                "{} holds a search; go on with --resume, or remove it, or choose another folder",
                path.display()
            ),
            Ok(text) => {
                let state = state::read(&text, space.objectives(), Some(print), &at.display().to_string())?.0;
                if state.shard != shard {
                    anyhow::bail!("{} holds shard {}/{}", path.display(), state.shard.index, state.shard.count);
                }
                state
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => State::new(shard),
            Err(e) => return Err(Error::io(&at, e).into()),
        };
        let mut folder = Self { path: path.to_owned(), state, print, rows: None, evolution };
        let mut description = space.describe();
        description["method"] = method.into();
        let description = format!("{description:#}\n");
        write_whole(&path.join("search.json"), |w| w.write_all(description.as_bytes()))?;
        if rows {
            folder.rows = Some(folder.points(space)?);
        }
        folder.save()?;
        Ok(folder)
    }

    /// `points.csv`, cut to what the state knows of.
    fn points(&self, space: &Space) -> anyhow::Result<File> {
        let at = self.path.join("points.csv");
        let header = line(&space.columns())?;
        let mut file =
            OpenOptions::new().create(true).append(true).read(true).open(&at).map_err(|e| Error::io(&at, e))?;
        let known = if self.state.done == 0 { 0 } else { header.len() as u64 + self.state.rows_bytes };
        if file.metadata()?.len() < known {
            anyhow::bail!(
                "{} is shorter than the search's state says; remove the folder and start again",
                at.display()
            );
        }
        file.set_len(known)?;
        if known == 0 {
            file.write_all(&header)?;
        }
        Ok(file)
    }

    fn save(&self) -> anyhow::Result<()> {
        let text = state::write(&self.state, self.print);
        Ok(write_whole(&self.path.join("state.txt"), |w| w.write_all(text.as_bytes()))?)
    }

    /// Visits what is left, with a state every `checkpoint` seconds at the ends of rounds. Says how it ended, and how many seconds it took.
    pub fn explore(&mut self, space: &Space, checkpoint: f64) -> anyhow::Result<(State, f64)> {
        let chunks = Chunks::of(space);
        let shard = self.state.shard;
        let points = match self.evolution {
            Some(e) => e.evaluations / shard.count,
            None => chunks.of_shard(shard) * chunks.machines * space.points_of_a_machine(),
        };
        let bar = ProgressBar::new(points);
        bar.set_style(ProgressStyle::with_template(
            "{bar:30} {percent} % of {len} points, {per_sec}, {eta} left, {msg}",
        )?);
        bar.set_position(self.state.counts.points);
        bar.reset_eta();
        let started = Instant::now();
        let mut saved = Instant::now();
        let mut state = self.state.clone();
        let mut failure = None;
        let (evolution, with_rows) = (self.evolution, self.rows.is_some());
        let mut told = |state: &State, rows: &[u8]| {
            bar.set_position(state.counts.points);
            bar.set_message(format!("{} on the front", state.front.len()));
            let mut keep = || -> anyhow::Result<()> {
                if let Some(file) = &mut self.rows {
                    file.write_all(rows).context("cannot write points.csv")?;
                }
                if saved.elapsed().as_secs_f64() >= checkpoint {
                    if let Some(file) = &self.rows {
                        file.sync_data()?;
                    }
                    self.state = state.clone();
                    self.save()?;
                    saved = Instant::now();
                }
                Ok(())
            };
            Ok(match keep() {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => {
                    failure = Some(e);
                    ControlFlow::Break(())
                }
            })
        };
        match evolution {
            Some(e) => evolve(space, e, &mut state, &mut told)?,
            None => exhaustive(space, &mut state, with_rows, &mut told)?,
        }
        if let Some(e) = failure {
            return Err(e);
        }
        bar.finish_and_clear();
        self.state = state;
        write_front(&self.path, space, &self.state)?;
        self.save()?;
        Ok((self.state.clone(), started.elapsed().as_secs_f64()))
    }
}

/// Writes `front.csv`.
fn write_front(folder: &Path, space: &Space, state: &State) -> anyhow::Result<()> {
    let mut text = line(&space.columns())?;
    for p in state.front.sorted() {
        text.extend(line(&space.row(p.index, &p.figures))?);
    }
    Ok(write_whole(&folder.join("front.csv"), |w| w.write_all(&text))?)
}

fn line(fields: &[String]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields)?;
    writer.into_inner().map_err(|e| anyhow::anyhow!("{e}"))
}
