//! Embeds every profile and workload under `hw_profiles/` and `workloads/`, so that a new one is one new file.

use std::fmt::Write as _;
use std::{env, fs, path::Path};

fn main() {
    let mut code = String::new();
    embed(&mut code, "PROFILES", "hw_profiles", ".toml");
    embed(&mut code, "WORKLOADS", "workloads", ".toml");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("embedded.rs"), code).expect("OUT_DIR is writable");
}

fn embed(code: &mut String, list: &str, folder: &str, ending: &str) {
    println!("cargo:rerun-if-changed={folder}");
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&root).join(folder);
    let mut names: Vec<String> = fs::read_dir(&folder)
        .map(|entries| entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.retain(|n| n.ends_with(ending));
    names.sort();
    let _ = writeln!(
        code,
        "/// (file stem, text) of each file under `{}`.",
        folder.file_name().unwrap_or_default().display()
    );
    let _ = writeln!(code, "pub const {list}: &[(&str, &str)] = &[");
    for name in names {
        let path = folder.join(&name);
        let stem = &name[..name.len() - ending.len()];
        let _ = writeln!(code, "    ({stem:?}, include_str!({:?})),", path.display().to_string());
    }
    let _ = writeln!(code, "];");
}
