//! How fast a network of BERT's size is masked: 438 MB of fp32 weights, read, chosen and written, beside a copy of the
//! same bytes in memory, in interleaved runs. GB/s are bytes of the file over the least time, the same for all rows.
//!
//! `cargo bench --bench prune`, on an otherwise idle machine.

#[path = "../tests/common/onnx.rs"]
mod onnx;

use bytes::Bytes;
use hwsim::lower::Assignment;
use hwsim::prune::onnx::Source;
use hwsim::prune::{Magnitude, Request};
use hwsim::report::export::write_whole;
use hwsim::workload::Options;
use hwsim::workload::onnx::proto::TensorProto;
use onnx::{Builder, node, value};
use prost::Message;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

const RUNS: usize = 9;

/// What a row of the table runs.
type Work<'a> = Box<dyn FnMut() + 'a>;

/// Random elements in (−0.5, 0.5).
fn weight(name: &str, rows: i64, cols: i64, state: &mut u64) -> TensorProto {
    let mut raw = Vec::with_capacity((rows * cols * 4) as usize);
    for _ in 0..rows * cols {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        raw.extend(((*state >> 40) as f32 / (1u32 << 24) as f32 - 0.5).to_le_bytes());
    }
    let raw_data = Bytes::from(raw);
    TensorProto { name: name.to_owned(), dims: vec![rows, cols], data_type: 1, raw_data, ..TensorProto::default() }
}

/// Tables and the products of twelve layers, in BERT-base's sizes.
fn model() -> Vec<u8> {
    let mut state = 1;
    let mut net = Builder::new(13)
        .value(value("ids", 7, &[1, 128]))
        .weight(weight("words", 30_522, 768, &mut state))
        .weight(weight("places", 512, 768, &mut state))
        .node(node("Gather", &["words", "ids"], &["x0"], vec![]));
    for layer in 0..12 {
        let mut from = format!("x{layer}");
        for (part, (k, n)) in
            [(768, 768), (768, 768), (768, 768), (768, 768), (768, 3072), (3072, 768)].into_iter().enumerate()
        {
            let (w, to) = (format!("w{layer}.{part}"), format!("y{layer}.{part}"));
            let to = if part == 5 { format!("x{}", layer + 1) } else { to };
            net = net.weight(weight(&w, k, n, &mut state)).node(node("MatMul", &[&from, &w], &[&to], vec![]));
            from = to;
        }
    }
    net.output("x12").model.encode_to_vec()
}

fn prune(path: &Path, rule: &str, out: Option<&Path>) {
    let source = Source::open(path, &Options::default()).expect("a model");
    let assignment = Assignment::parse(&[rule]).expect("a pattern");
    let zeros = source.zero_points();
    let request = Request {
        assignment: &assignment,
        choose: &Magnitude,
        zero_in_place: false,
        strict: true,
        zeros,
        round_to: 1,
        global: false,
        permute: None,
    };
    let rewrite = source.plan(&request).expect("a plan");
    let pieces = rewrite.splice(Some("data")).expect("pieces").model;
    let write = |to: &mut (dyn std::io::Write + Send)| rewrite.write(&pieces, &Magnitude, to).map(drop);
    match out {
        Some(path) => write_whole(path, write).expect("a file"),
        None => write(&mut std::io::sink()).expect("a sink"),
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let (from, to) = (folder.path().join("bert.onnx"), folder.path().join("pruned.onnx"));
    let bytes = model();
    std::fs::write(&from, &bytes).expect("room for the model");
    let mut copy = vec![0u8; bytes.len()];
    let mut rows: Vec<(&str, Work<'_>)> = vec![
        (
            "memcpy, one thread",
            Box::new(|| {
                copy.copy_from_slice(black_box(&bytes));
                black_box(&copy);
            }),
        ),
        ("2:4, to nowhere", Box::new(|| prune(&from, "2:4", None))),
        ("2:4, to a file", Box::new(|| prune(&from, "2:4", Some(&to)))),
        ("unstructured@0.8, to a file", Box::new(|| prune(&from, "unstructured@0.8", Some(&to)))),
    ];
    let mut times = vec![Vec::with_capacity(RUNS); rows.len()];
    for _ in 0..RUNS {
        for ((_, work), times) in rows.iter_mut().zip(&mut times) {
            let began = Instant::now();
            work();
            times.push(began.elapsed().as_secs_f64());
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!(
        "| {} MB, {threads} threads, {RUNS} runs | least s | median s | GB/s | of memcpy |",
        bytes.len() / 1_000_000
    );
    println!("| --- | ---: | ---: | ---: | ---: |");
    times.iter_mut().for_each(|t| t.sort_by(f64::total_cmp));
    for ((name, _), t) in rows.iter().zip(&times) {
        let rate = |t: f64| bytes.len() as f64 / t / 1e9;
        println!(
            "| {name} | {:.3} | {:.3} | {:.2} | {:.2} |",
            t[0],
            t[RUNS / 2],
            rate(t[0]),
            rate(t[0]) / rate(times[0][0])
        );
    }
}
