//! The shape of the house: which room may use which, and what the library never does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// (room, rooms that it may use besides itself and the base). Binary-only code (`cli`, `main.rs`) may use everything.
const BASE: &[&str] = &["error", "units", "dtype", "pattern", "embedded"];
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("units", &[]),
    ("dtype", &[]),
    ("pattern", &[]),
    ("embedded", &[]),
    ("workload", &[]),
    ("sparsity", &["workload"]),
    ("profile", &[]),
    ("lower", &["workload", "sparsity"]),
    ("prune", &["lower", "sparsity", "workload"]),
    ("cost", &["lower", "profile", "sparsity"]),
    ("report", &["bench", "cost", "lower", "profile", "sparsity", "workload", "calibrate", "search", "prune"]),
    ("kernels", &["lower", "sparsity"]),
    ("simulate", &["cost", "lower", "profile", "sparsity", "kernels"]),
    ("bench", &["lower", "sparsity", "profile", "kernels", "workload"]),
    ("calibrate", &["bench", "cost", "lower", "profile", "sparsity", "workload"]),
    ("train", &["prune", "sparsity", "workload"]),
    ("search", &["cost", "lower", "profile", "sparsity", "workload"]),
];

/// In the sparsity room, only the dependency groups read networks.
const WORKLOAD_READERS: &[&str] = &["sparsity/groups"];

/// What a pure library does not contain: (text, why).
const FORBIDDEN: &[(&str, &str)] = &[
    ("println!", "the library prints nothing"),
    ("eprint", "the library prints nothing"),
    ("process::exit", "only main decides the exit status"),
    ("use clap", "arguments are the binary's business"),
    ("anyhow", "the library has its own error"),
    ("Instant::now", "only the bench room reads a clock"),
    ("SystemTime", "results do not depend on when they are made"),
    ("thread_rng", "randomness takes a seed"),
    ("rand::rng()", "randomness takes a seed"),
    ("todo!", "no stubs"),
    ("unimplemented!", "no stubs"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn library() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files
        .into_iter()
        .map(|p| (p.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/"), fs::read_to_string(&p).unwrap()))
        .filter(|(name, _)| !name.starts_with("cli/") && name != "main.rs" && name != "lib.rs")
        .collect()
}

fn room(name: &str) -> &str {
    name.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Rooms that a file names as `crate::room`, in `use` lines and in paths, nested lists included; tests left out.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut rooms = BTreeSet::new();
    for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for part in line.split("crate::").skip(1) {
            let list = part.strip_prefix('{').map_or(vec![part], |l| l.split(',').collect());
            for item in list {
                let name: String = item.trim().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                rooms.insert(name);
            }
        }
    }
    rooms
}

#[test]
fn every_import_goes_one_way() {
    let mut wrong = Vec::new();
    for (file, text) in library() {
        let own = room(&file);
        let Some((_, allowed)) = ROOMS.iter().find(|(r, _)| *r == own) else {
            wrong.push(format!("{file}: room `{own}` is not in the plan"));
            continue;
        };
        for other in used(&text) {
            let known = ROOMS.iter().any(|(r, _)| *r == other);
            let base = BASE.contains(&other.as_str()) && (!BASE.contains(&own) || own == "dtype" || own == "pattern");
            let reader =
                other != "workload" || own != "sparsity" || WORKLOAD_READERS.iter().any(|f| file.starts_with(f));
            if known && other != own && !(base || allowed.contains(&other.as_str()) && reader) {
                wrong.push(format!("{file} uses {other}"));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden edges:\n{}", wrong.join("\n"));
}

#[test]
fn the_library_is_pure() {
    let mut wrong = Vec::new();
    for (file, text) in library() {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate() {
            let line = line.trim_start();
            for (word, why) in FORBIDDEN {
                let timer = *word == "Instant::now" && file.starts_with("bench/");
                if line.contains(word) && !line.starts_with("//") && !timer {
                    wrong.push(format!("{file}:{}: `{word}`: {why}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_plan_is_acyclic() {
    let edges: Vec<(&str, &str)> = ROOMS.iter().flat_map(|(r, uses)| uses.iter().map(move |u| (*r, *u))).collect();
    let mut left: BTreeSet<&str> = ROOMS.iter().map(|(r, _)| *r).collect();
    while !left.is_empty() {
        let ready: Vec<&str> =
            left.iter().copied().filter(|r| edges.iter().all(|(a, b)| a != r || !left.contains(b))).collect();
        let rest: Vec<&str> = left.iter().copied().collect();
        assert!(!ready.is_empty(), "a cycle among {rest:?}");
        ready.into_iter().for_each(|r| {
            left.remove(r);
        });
    }
}
