//! `hwsim merge`: the shards of a search become what one run would have written, byte for byte.

use anyhow::{Context, bail};
use hwsim::error::Error;
use hwsim::report::export::write_whole;
use hwsim::search::explore::State;
use hwsim::search::space::Objective;
use hwsim::search::state;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Folders of all shards of one search
    #[arg(required = true)]
    shards: Vec<PathBuf>,
    /// Folder of the whole
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let read = |folder: &PathBuf, name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|e| Error::io(path, e))
    };
    let first = &args.shards[0];
    let asked = read(first, "search.json")?;
    let objectives = objectives(&asked).with_context(|| format!("{} is no search", first.display()))?;
    let mut states = Vec::new();
    let mut print = None;
    for folder in &args.shards {
        if read(folder, "search.json")? != asked {
            bail!("{} and {} ask different things", first.display(), folder.display());
        }
        let origin = folder.join("state.txt").display().to_string();
        let (state, of) = state::read(&read(folder, "state.txt")?, &objectives, print, &origin)?;
        print = Some(of);
        states.push(state);
    }
    let with_rows = args.shards.iter().map(|f| f.join("points.csv").is_file()).collect::<Vec<_>>();
    let whole = state::merge(states)?;
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io(&args.output, e))?;
    let save = |name: &str, text: &[u8]| write_whole(&args.output.join(name), |w| w.write_all(text));
    save("search.json", asked.as_bytes())?;
    save("front.csv", front(&args.shards, &whole)?.as_bytes())?;
    if with_rows.iter().all(|r| *r) {
        write_whole(&args.output.join("points.csv"), |w| points(&args.shards, w))?;
    }
    save("state.txt", state::write(&whole, print.unwrap_or_default()).as_bytes())?;
    writeln!(
        out,
        "{} points of {} shards, {} on the front: {}",
        whole.counts.points,
        args.shards.len(),
        whole.front.len(),
        args.output.join("front.csv").display()
    )?;
    Ok(())
}

fn objectives(asked: &str) -> anyhow::Result<Vec<Objective>> {
    let value: serde_json::Value = serde_json::from_str(asked)?;
    let names = value["objectives"].as_array().context("it lacks its objectives")?;
    let known = |n: &serde_json::Value| Objective::NAMES.iter().find(|(k, _)| Some(*k) == n.as_str()).map(|(_, o)| *o);
    names.iter().map(|n| known(n).with_context(|| format!("unknown objective {n}"))).collect()
}

/// The number of the point that a row is about.
fn point(row: &str) -> Option<u64> {
    row.split(',').next()?.parse().ok()
}

/// Rows of the merged front, as the shards wrote them.
fn front(shards: &[PathBuf], whole: &State) -> anyhow::Result<String> {
    let mut header = String::new();
    let mut rows: HashMap<u64, String> = HashMap::new();
    for folder in shards {
        let path = folder.join("front.csv");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let mut lines = text.split_inclusive('\n');
        header = lines.next().unwrap_or_default().to_owned();
        rows.extend(lines.filter_map(|l| Some((point(l)?, l.to_owned()))));
    }
    let mut text = header;
    for p in whole.front.sorted() {
        let row = rows.get(&p.index).with_context(|| format!("no front.csv has point {}", p.index))?;
        text.push_str(row);
    }
    Ok(text)
}

/// All rows in the order of the space, from files that are each in that order.
fn points(shards: &[PathBuf], out: &mut dyn Write) -> std::io::Result<()> {
    let open = |folder: &PathBuf| File::open(Path::new(folder).join("points.csv")).map(BufReader::new);
    let mut files = shards.iter().map(open).collect::<std::io::Result<Vec<_>>>()?;
    let mut next = |i: usize| -> std::io::Result<String> {
        let mut line = String::new();
        files[i].read_line(&mut line)?;
        Ok(line)
    };
    let headers = (0..shards.len()).map(&mut next).collect::<std::io::Result<Vec<_>>>()?;
    out.write_all(headers[0].as_bytes())?;
    let mut heads = (0..shards.len()).map(&mut next).collect::<std::io::Result<Vec<_>>>()?;
    while let Some((_, i)) = heads.iter().enumerate().filter_map(|(i, l)| Some((point(l)?, i))).min() {
        out.write_all(heads[i].as_bytes())?;
        heads[i] = next(i)?;
    }
    Ok(())
}
