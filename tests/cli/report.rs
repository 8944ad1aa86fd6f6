//! Reports, comparisons and sweeps through the binary: what is written reads back, and a page needs nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

fn hwsim(arguments: &[&str], folder: &Path) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hwsim")).args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn ok(arguments: &[&str], folder: &Path) -> String {
    let (success, out, err) = hwsim(arguments, folder);
    assert!(success, "{arguments:?}: {err}");
    out
}

/// A network small enough to read a page about.
const SMALL: &str = r#"
name = "three <layers> & more"
input = [1, 64, 8, 8]
[[layer]]
name = "stem"
op.conv2d = { out = 64, kernel = 3, pad = 1 }
[[repeat]]
name = "block.{i}"
times = 4
[[repeat.layer]]
name = "conv"
op.conv2d = { out = 64, kernel = 3, pad = 1 }
[[repeat.layer]]
name = "add"
inputs = ["conv", "@input"]
op.add = {}
[[layer]]
name = "flat"
op.flatten = {}
[[layer]]
name = "fc"
op.linear = { out = 10 }
"#;

const SAMPLES: &str = "source,device,op,dtype,batch,m,n,k,pattern,kernel,timing,latency_us,attrs\n\
    own,A100-SXM4-80GB,gemm,fp16,1,4096,4096,4096,dense,,warm,600,\n\
    own,A100-SXM4-80GB,gemm,fp16,1,4096,4096,4096,2:4,,warm,400,\n\
    own,nobody's machine,gemm,fp16,1,64,64,64,dense,,warm,4,\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.toml"), SMALL).unwrap();
    std::fs::write(folder.path().join("samples.csv"), SAMPLES).unwrap();
    folder
}

fn page(folder: &Path) -> String {
    let sweep = ["sweep", "-w", "small.toml", "-p", "a100,systolic-32x32", "-s", "unstructured@*", "-s", "2:4", "-s"];
    ok(&[&sweep[..], &["channel@*", "--at", "0.5,0.75", "-o", "sweep.csv"]].concat(), folder);
    ok(&["estimate", "-w", "small.toml", "-p", "a100", "-s", "2:4", "--format", "json", "-o", "a100.json"], folder);
    ok(&["estimate", "-w", "small.toml", "-p", "t4", "--format", "json", "-o", "t4.json"], folder);
    ok(&["validate", "--measurements", "samples.csv", "--format", "json", "-o", "errors.json"], folder);
    let inputs = ["a100.json", "t4.json", "sweep.csv", "samples.csv", "errors.json"];
    ok(&[&["report"], &inputs[..], &["-o", "report.html", "--svg", "figures"]].concat(), folder);
    std::fs::read_to_string(folder.join("report.html")).unwrap()
}

#[test]
fn a_report_is_one_well_formed_page() {
    let folder = folder();
    let text = page(folder.path());
    // HTML's void elements and doctype apart, the page is XML.
    let xml = text.replace("<!doctype html>\n", "");
    let void = ["<meta charset=\"utf-8\">", "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"];
    let xml = void.iter().fold(xml, |xml, tag| xml.replace(tag, &tag.replace('>', "/>")));
    let xml = xml.replace("href=\"data:,\">", "href=\"data:,\"/>").replace(" open>", " open=\"\">");
    let document = roxmltree::Document::parse(&xml).unwrap();
    let count = |tag: &str| document.descendants().filter(|n| n.tag_name().name() == tag).count();
    // Of each estimate a roofline, bars and a graph; of the network crossover and front; predicted against measured.
    assert_eq!(count("figure"), 3 + 3 + 2 + 1);
    assert!(count("table") >= 4);
    assert!(text.contains("three &lt;layers&gt; &amp; more"));
    let drawn = std::fs::read_dir(folder.path().join("figures")).unwrap().count();
    assert_eq!(drawn, 9);
    assert!(text.contains("scroll sideways"));
}

#[test]
fn a_graph_too_large_to_draw_is_said_to_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut network = String::from("name = \"long\"\ninput = [1, 8, 8, 8]\n");
    for i in 0..300 {
        // No two neighbours alike, so that nothing folds.
        network +=
            &format!("[[layer]]\nname = \"l{i}\"\nop.conv2d = {{ out = {}, kernel = [1, 1] }}\n", 8 + i * i % 97);
    }
    std::fs::write(folder.path().join("long.toml"), network).unwrap();
    ok(&["estimate", "-p", "a100", "-w", "long.toml", "--format", "json", "-o", "long.json"], folder.path());
    ok(&["report", "long.json", "-o", "report.html"], folder.path());
    let text = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        text.contains("graph is left out: it has 300 boxes"),
        "{}",
        text.lines().find(|l| l.contains("boxes")).unwrap_or("nothing")
    );
}

#[test]
fn a_report_refers_to_nothing_else() {
    let folder = folder();
    let mut texts = vec![page(folder.path())];
    for file in std::fs::read_dir(folder.path().join("figures")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        roxmltree::Document::parse(&text).unwrap();
        texts.push(text.replace("xmlns=\"http://www.w3.org/2000/svg\"", ""));
    }
    for text in texts {
        for word in ["http:", "https:", "src=", "url(", "@import", "<script", "<image", "<iframe", "NaN"] {
            assert!(!text.contains(word), "`{word}`");
        }
        let elsewhere =
            text.split("href=\"").skip(1).find(|rest| !rest.starts_with('#') && !rest.starts_with("data:,\""));
        assert_eq!(elsewhere, None);
    }
}

#[test]
fn a_report_says_what_it_cannot_read() {
    let folder = folder();
    std::fs::write(folder.path().join("other.csv"), "a,b\n1,2\n").unwrap();
    let (success, _, err) = hwsim(&["report", "other.csv", "-o", "report.html"], folder.path());
    assert!(!success && err.contains("other.csv") && err.contains("estimate"), "{err}");
    assert!(!folder.path().join("report.html").exists());
}

#[test]
fn a_sweep_reads_back_to_the_same_values() {
    let folder = folder();
    let ask = ["sweep", "-w", "small.toml,resnet18", "-p", "a100,xeon-gold-6148", "-s", "2:4", "-s", "block:8x1@0.9"];
    ok(&[&ask[..], &["--batch", "1,4", "-o", "sweep.csv"]].concat(), folder.path());
    let bytes = std::fs::read(folder.path().join("sweep.csv")).unwrap();
    let records = hwsim::report::sweep::read(&bytes, "sweep.csv").unwrap();
    let mut writer = csv::Writer::from_writer(Vec::new());
    records.iter().for_each(|r| writer.serialize(r).unwrap());
    assert_eq!(writer.into_inner().unwrap(), bytes);
    let networks: std::collections::BTreeSet<_> =
        records.iter().map(|r| (&r.workload, r.batch, &r.device, &r.pattern)).collect();
    assert_eq!(networks.len(), 2 * 2 * 2 * 3);
    let beside = std::fs::read_to_string(folder.path().join("sweep.csv.provenance.toml")).unwrap();
    let provenance: toml::Table = beside.parse().unwrap();
    assert_eq!(provenance["profiles"].as_table().unwrap().len(), 2);
    assert_eq!(provenance["workloads"]["small.toml"].as_str().unwrap().len(), 64);
}

#[test]
fn a_sweep_does_not_depend_on_threads() {
    let folder = folder();
    let with = |threads: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_hwsim"))
            .args(["sweep", "-w", "resnet18", "-p", "a100,h100", "-s", "unstructured@*", "-s", "2:4"])
            .env("RAYON_NUM_THREADS", threads)
            .current_dir(folder.path())
            .output()
            .unwrap();
        output.stdout
    };
    let one = with("1");
    assert!(one.len() > 10_000);
    assert_eq!(one, with("7"));
}

#[test]
fn every_column_of_a_sweep_is_documented() {
    let text = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/columns.md")).unwrap();
    let folder = folder();
    for command in [
        &["sweep", "-w", "small.toml", "-p", "a100", "-s", "2:4"][..],
        &["compare", "-w", "small.toml", "-p", "a100", "-s", "2:4", "--format", "csv"],
    ] {
        let out = ok(command, folder.path());
        let header = out.lines().next().unwrap().to_owned();
        for column in header.split(',') {
            assert!(text.contains(column), "`{column}` is not in docs/columns.md");
        }
    }
}

#[test]
fn a_layer_sum_is_the_network() {
    let folder = folder();
    let ask = ["sweep", "-w", "resnet18", "-p", "a100", "-s", "2:4"];
    let read = |more: &[&str]| {
        hwsim::report::sweep::read(ok(&[&ask[..], more].concat(), folder.path()).as_bytes(), "stdout").unwrap()
    };
    let sums = hwsim::report::figures::totals::of_sweep(&read(&[]));
    let whole = hwsim::report::figures::totals::of_sweep(&read(&["--per", "network"]));
    assert_eq!(sums.len(), 2);
    for (a, b) in sums.iter().zip(&whole) {
        assert_eq!((&a.pattern, &a.device), (&b.pattern, &b.device));
        assert!((a.latency_s / b.latency_s - 1.0).abs() < 1e-12 && (a.kept - b.kept).abs() < 1e-12);
    }
}

#[test]
fn a_comparison_marks_one_winner_a_machine() {
    let folder = folder();
    let ask = ["compare", "-w", "resnet50", "-p", "a100,systolic-128x128", "-s", "2:4", "-s", "channel@0.5"];
    let out = ok(&[&ask[..], &["--format", "json"]].concat(), folder.path());
    let entries: Vec<hwsim::report::compare::Entry> = serde_json::from_str(&out).unwrap();
    assert_eq!(entries.len(), 2 * 3);
    for machine in entries.chunks(3) {
        assert_eq!(machine.iter().filter(|e| e.winner).count(), 1);
        assert!(machine.iter().all(|e| e.speedup_low <= e.speedup && e.speedup <= e.speedup_high));
        assert!(machine.iter().all(|e| !e.winner || e.like_winner));
        // An array that multiplies zeros runs 2:4 as dense, with the same error: there is nothing to tell apart.
        let unused = machine.iter().find(|e| e.pattern == "2:4" && e.profile.contains("array"));
        assert!(unused.is_none_or(|e| e.like_dense && e.speedup_high - e.speedup_low < 1e-6));
    }
    let latex = ok(&[&ask[..], &["--format", "latex"]].concat(), folder.path());
    assert!(latex.contains("\\toprule") && latex.contains("\\times") && !latex.contains('×'));
    let markdown = ok(&[&ask[..], &["--format", "md"]].concat(), folder.path());
    assert!(markdown.contains("| pattern | MACs kept |"));
}

#[test]
fn validation_draws_and_writes_its_rows() {
    let folder = folder();
    let ask = ["validate", "--measurements", "samples.csv", "--plot", "p.svg", "--predictions", "p.csv"];
    ok(&ask, folder.path());
    let text = std::fs::read_to_string(folder.path().join("p.svg")).unwrap();
    roxmltree::Document::parse(&text).unwrap();
    assert!(text.contains("measured time") && text.contains("gemm 2:4 (1)"));
    let rows = hwsim::report::predictions::read(&std::fs::read(folder.path().join("p.csv")).unwrap(), "p.csv").unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows.iter().filter(|r| r.predicted_s.is_none() && !r.skipped.is_empty()).count(), 1);
    ok(&["validate", "--measurements", "samples.csv", "--report", "fidelity"], folder.path());
    for file in ["fitted.svg", "gain-2-4.svg", "unseen-shapes.svg", "unseen-devices.svg"] {
        assert!(file.starts_with("unseen") || folder.path().join("fidelity").join(file).is_file(), "{file}");
    }
}

#[test]
fn shells_and_manuals() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ok(&["completions", shell], folder.path());
        assert!(script.contains("estimate") && script.contains("sweep"), "{shell}");
    }
    ok(&["man", "man1"], folder.path());
    for page in ["hwsim.1", "hwsim-report.1", "hwsim-profiles-show.1"] {
        let text = std::fs::read_to_string(folder.path().join("man1").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
}
