//! Real ONNX models: parameters, MACs and every tensor's shape against the recorded figures.
//!
//! Needs the models (`python3 scripts/fetch_models.py`) and the reference material in `$HWSIM_SHARED` or `../shared`; without
//! them it says so and passes.

use hwsim::workload::onnx::{Model, import};
use hwsim::workload::options::Options;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn shared() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let from = std::env::var_os("HWSIM_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    from.join("reference/onnx_models.csv").exists().then_some(from)
}

struct Row {
    path: PathBuf,
    name: String,
    params: u64,
    macs: Option<u64>,
    by_op: BTreeMap<String, u64>,
    options: Options,
}

fn rows(shared: &Path) -> Vec<Row> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut table = csv::Reader::from_path(shared.join("reference/onnx_models.csv")).expect("the table of models");
    let head = table.headers().expect("its header").clone();
    let mut rows = Vec::new();
    for record in table.records() {
        let record = record.expect("a row");
        let get = |name: &str| &record[head.iter().position(|h| h == name).expect(name)];
        let name = get("file").rsplit('/').next().expect("a file name").to_owned();
        let path = models.join(get("package")).join(&name);
        if !path.exists() {
            eprintln!("skipping {}: not fetched (python3 scripts/fetch_models.py)", path.display());
            continue;
        }
        let inputs: BTreeMap<String, Vec<u64>> = serde_json::from_str(get("macs_input_shape")).expect("input shapes");
        rows.push(Row {
            path,
            name,
            params: get("params").parse().expect("params"),
            macs: get("macs").parse().ok(),
            by_op: serde_json::from_str(get("macs_by_op")).expect("macs_by_op"),
            options: Options { inputs, ..Options::default() },
        });
    }
    rows
}

fn all() -> Vec<(Row, Model)> {
    let Some(shared) = shared() else {
        eprintln!("skipping: no reference material beside the checkout ($HWSIM_SHARED)");
        return Vec::new();
    };
    let import_row = |r: Row| {
        let model = import(&r.path, &r.options).unwrap_or_else(|e| panic!("{}: {e}", r.name));
        (r, model)
    };
    rows(&shared).into_iter().map(import_row).collect()
}

#[test]
fn parameters_are_those_of_the_files() {
    let wrong: Vec<String> = all()
        .iter()
        .filter_map(|(r, m)| {
            let got = m.graph.total_parameters().expect("a count");
            (got != r.params).then(|| format!("{}: {got}, not {}", r.name, r.params))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn macs_are_those_recorded_in_all_and_by_operator() {
    let mut wrong = Vec::new();
    for (r, m) in all() {
        let Some(macs) = r.macs else { continue };
        let got = m.graph.total_macs().expect("a count");
        if got != macs {
            wrong.push(format!("{}: {got}, not {macs}", r.name));
        }
        let mut by_op: BTreeMap<String, u64> = BTreeMap::new();
        for &node in m.graph.order() {
            let macs = m.graph.macs(node).expect("a count");
            if macs > 0 {
                *by_op.entry(m.graph.layer(node).spelled.clone()).or_default() += macs;
            }
        }
        if by_op != r.by_op {
            wrong.push(format!("{}: {by_op:?}, not {:?}", r.name, r.by_op));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_recorded_shape_is_inferred() {
    let Some(shared) = shared() else { return };
    let mut wrong = Vec::new();
    for (r, m) in all() {
        let known = shared.join("reference/onnx_shapes").join(format!("{}.json", r.name));
        let Ok(text) = std::fs::read_to_string(known) else { continue };
        let want: BTreeMap<String, Vec<u64>> = serde_json::from_str(&text).expect("shapes");
        // Two models are called model.onnx; the record belongs to the one whose inputs it names.
        if r.options.inputs.keys().any(|n| !want.contains_key(n)) {
            continue;
        }
        let mut got: BTreeMap<&str, &[u64]> = BTreeMap::new();
        for t in m.graph.constants.iter().chain(m.graph.layers().flat_map(|l| &l.outputs)) {
            got.insert(&t.name, &t.shape);
        }
        for (name, shape) in &want {
            match got.get(name.as_str()) {
                Some(s) if s == shape => {}
                other => wrong.push(format!("{} `{name}`: {other:?}, not {shape:?}", r.name)),
            }
        }
        eprintln!("{}: {} shapes", r.name, want.len());
    }
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(40)]);
}

#[test]
fn weights_are_found_where_the_layers_say() {
    for (r, m) in all() {
        for layer in m.graph.layers() {
            if let Some(w) = layer.weight().filter(|w| !w.shared) {
                let stored =
                    m.weights.get(&w.name).unwrap_or_else(|| panic!("{}: `{}` of `{}`", r.name, w.name, layer.name));
                let count = |s: &[u64]| s.iter().product::<u64>();
                assert_eq!(count(&stored.shape), count(&w.shape), "{}: `{}`", r.name, w.name);
            }
        }
    }
}
