//! Figures: the same bytes always, well-formed XML, nothing from elsewhere.

use hwsim::report::plot::*;

fn dots() -> Vec<Dots> {
    let dot = |m: f64, p: f64| Dot { measured: m, predicted: p, label: format!("{m} <measured> & {p}") };
    vec![
        Dots { name: "gemm".into(), dots: vec![dot(1e-5, 1.1e-5), dot(3e-4, 2.6e-4), dot(2e-3, 2.9e-3)] },
        Dots { name: "attention".into(), dots: vec![dot(4e-5, 3e-5), dot(9e-4, 1e-3)] },
        Dots { name: "conv2d".into(), dots: vec![dot(6e-5, 6.1e-5)] },
    ]
}

fn line(name: &str, colour: usize, dashed: bool, points: &[(f64, f64)]) -> Line {
    let point =
        |&(x, y): &(f64, f64)| LinePoint { x, y, interval: Some((0.9 * y, 1.2 * y)), label: format!("{x}: {y}") };
    Line { name: name.into(), colour, dashed, points: points.iter().map(point).collect() }
}

fn figures() -> Vec<Figure> {
    let sparsity = Axis::linear("sparsity (share of zeros)", Unit::Percent);
    let speedup = Axis::log("speedup over dense", Unit::Factor);
    let some = vec![
        line("unstructured", 0, false, &[(0.5, 0.3), (0.7, 0.5), (0.8, 0.8), (0.9, 1.4), (0.95, 2.6)]),
        line("block:32x1", 1, false, &[(0.5, 0.9), (0.7, 1.3), (0.8, 1.9), (0.9, 3.4)]),
        line("measured", 2, true, &[(0.5, 1.4)]),
    ];
    let times = Axis::linear("time", Unit::Prefixed("s"));
    let bar = |name: &str, before: f64, after: f64| Bar {
        name: name.into(),
        before: Some(before),
        after,
        interval: Some((0.8 * after, 1.3 * after)),
        colour: usize::from(after > before),
        remark: format!("{:.2}×", before / after),
        label: name.into(),
    };
    let mark = |name: &str, intensity: f64, rate: f64, share: f64, colour| Mark {
        name: name.into(),
        intensity,
        rate,
        share,
        colour,
        label: name.into(),
    };
    let candidate =
        |name: &str, cost: f64, quality: f64| Candidate { cost, quality, name: name.into(), label: name.into() };
    let node = |name: &str, inputs: &[usize], colour, share| Node {
        name: name.into(),
        remark: "12 µs".into(),
        inputs: inputs.to_vec(),
        colour,
        share,
        label: name.into(),
    };
    let bounds = [(0, "compute".to_owned()), (1, "dram".to_owned())];
    vec![
        predicted_against_measured("Predicted against measured", "Six kernels.", &dots()),
        lines("Speedup over sparsity", "One device.", &sparsity, &speedup, Some(1.0), &some),
        panels(
            "Speedup by device",
            "Two devices.",
            &sparsity,
            &speedup,
            Some(1.0),
            &[
                LinePanel { title: "A100".into(), lines: some[..2].to_vec() },
                LinePanel {
                    title: "a device whose name is much too long for its panel".into(),
                    lines: some[1..].to_vec(),
                },
            ],
        ),
        bars(
            "Layers",
            "Dense against 2:4.",
            &times,
            "dense",
            &[(0, "2:4".into())],
            &[bar("conv1", 2e-4, 2e-4), bar("layer1.0.conv2", 1e-4, 6e-5), bar("fc", 1e-5, 1.2e-5)],
        ),
        roofline(
            "Roofline",
            "fp16.",
            &Roof { macs_per_second: 156e12, bytes_per_second: 2.0e12 },
            &bounds,
            &[mark("conv1", 30.0, 2e13, 0.4, 0), mark("fc", 0.9, 1.5e12, 0.1, 1), mark("mid", 200.0, 1.2e14, 0.3, 0)],
        ),
        pareto(
            "Fronts",
            "Kept weights.",
            &Axis::log("latency", Unit::Prefixed("s")),
            &Axis::linear("weights kept", Unit::Percent),
            &[
                Front {
                    name: "A100".into(),
                    candidates: vec![
                        candidate("dense", 2e-3, 1.0),
                        candidate("2:4", 1.3e-3, 0.5),
                        candidate("worse", 3e-3, 0.4),
                    ],
                },
                Front {
                    name: "CPU".into(),
                    candidates: vec![
                        candidate("dense", 4e-2, 1.0),
                        candidate("2:4", 3e-2, 0.5),
                        candidate("90 %", 1e-2, 0.1),
                    ],
                },
            ],
        ),
        network(
            "Network",
            "Coloured by what bounds.",
            &bounds,
            &[
                node("input", &[], 1, 0.1),
                node("a", &[0], 0, 0.5),
                node("b", &[0], 1, 0.2),
                node("add", &[1, 2], 0, 0.1),
                node("skip", &[0, 3], 1, 0.1),
            ],
        ),
    ]
}

#[test]
fn small_figures() {
    for figure in figures() {
        insta::assert_snapshot!(figure.stem(), figure.standalone());
    }
}

#[test]
fn figures_are_well_formed() {
    for figure in figures() {
        for text in [figure.standalone(), figure.inline()] {
            let document = roxmltree::Document::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", figure.title));
            let texts = document.descendants().filter(|n| n.has_tag_name("text") || n.tag_name().name() == "text");
            assert!(texts.count() > 4, "{}: text is not text", figure.title);
        }
    }
}

#[test]
fn figures_refer_to_nothing_else() {
    for figure in figures() {
        let text = figure.standalone().replace("http://www.w3.org/2000/svg", "");
        for word in ["http", "href", "url(", "@import", "<script", "<image", "NaN", "inf"] {
            assert!(!text.contains(word), "{}: `{word}`", figure.title);
        }
    }
}

#[test]
fn a_small_page() {
    use hwsim::report::grid::{Cell, Grid};
    use hwsim::report::html::{Section, page};
    let mut grid = Grid::new(&["layer", "#time"]);
    grid.push([Cell::from("conv1 <&>"), Cell::bold("1.00 ms")]);
    let section = Section {
        title: "One <section>".into(),
        paragraphs: vec!["Said & done.".into()],
        figures: vec![figures().swap_remove(3)],
        tables: vec![("Layers".into(), grid)],
    };
    let text = page("A page", &[section.clone(), section], "Made by hand.");
    // The rules of the page are looked at, not compared.
    let (head, rest) = text.split_once("<style>").unwrap();
    let (_, body) = rest.split_once("</style>").unwrap();
    insta::assert_snapshot!("page", format!("{head}<style></style>{body}"));
}
