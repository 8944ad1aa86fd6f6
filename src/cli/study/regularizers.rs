//! `hwsim study regularizers`: train, remove, predict, measure.

use crate::cli::output;
use crate::cli::provenance::Provenance;
use crate::cli::question::Machine;
use crate::cli::run::{product, products};
use crate::cli::train::{Data, Schedule, parse_method};
use hwsim::bench::network::{Ready, measure, prepare};
use hwsim::cost::{self, Options, Timing};
use hwsim::dtype::DType;
use hwsim::error::{Error, Result};
use hwsim::kernels::Isa;
use hwsim::lower::{Assignment, Masks};
use hwsim::profile::Device;
use hwsim::prune::saliency::matrix;
use hwsim::report::estimate::default_dtype;
use hwsim::report::export::write_whole;
use hwsim::report::study::{Cell, GROUPS, Study, Timed};
use hwsim::report::{Pruned, Request, Target, estimate_pruned};
use hwsim::sparsity::Mask;
use hwsim::sparsity::regularize::dynamic::best_of;
use hwsim::train::data::Split;
use hwsim::train::method::METHODS;
use hwsim::train::{Method, Network, audit, autodiff, compact, export, fit};
use hwsim::workload::onnx::{Model, from_model, load};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: Data,
    /// The network [default: FEATURES-128-64-CLASSES]
    #[arg(long, short)]
    network: Option<String>,
    /// Methods, joined by commas [default: all but ssl, which wants convolutions]
    #[arg(long, value_delimiter = ',', value_parser = parse_method)]
    methods: Vec<Method>,
    /// λ of the penalties, joined by commas [default: a path of each method's own]
    #[arg(long, value_delimiter = ',')]
    lambdas: Vec<f64>,
    /// Seeds of a cell
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    #[command(flatten)]
    schedule: Schedule,
    /// Machines that predict: paths or names, joined by commas; CPUs on one thread
    #[arg(long, short, value_delimiter = ',', default_value = "a100,epyc-9755,systolic-128x128")]
    profile: Vec<String>,
    /// Examples of the batch whose latency counts
    #[arg(long, default_value_t = 1024)]
    timed_batch: u64,
    /// Passes of the measurement on this CPU; 0 measures nothing
    #[arg(long, default_value_t = 20)]
    passes: usize,
    /// Accuracy that must stay, for the closing sentence
    #[arg(long, default_value_t = 0.955)]
    least: f64,
    /// Folder for regularizers.csv, its provenance, the figures and the sentence
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

/// A trained network and what it was found to be.
struct Trained {
    accuracy: f64,
    structure: audit::Structure,
    whole: Network,
    small: Network,
    compact_accuracy: f64,
    difference: f64,
}

/// The strengths of a method.
fn path(method: Method, lambdas: &[f64]) -> Vec<f64> {
    if !method.takes_share() && !lambdas.is_empty() && method != Method::None {
        return lambdas.to_vec();
    }
    match method {
        Method::None => vec![0.0],
        Method::L2 => vec![1e-4, 1e-3, 5e-3, 0.02],
        Method::Elimination => vec![1e-6, 1e-5, 1e-4],
        Method::Selective | Method::Adaptive => vec![1e-4, 1e-3, 5e-3],
        Method::L1Subgradient => vec![1e-4, 5e-4, 1e-3],
        Method::L1 => vec![1e-4, 3e-4, 5e-4, 1e-3],
        Method::GroupSubgradient | Method::SmoothGroup | Method::NoisyGroup => vec![3e-4, 1e-3, 2e-3],
        Method::Group | Method::GroupIncoming | Method::SparseGroup | Method::Ssl => vec![3e-4, 1e-3, 2e-3],
        Method::GroupJoint => vec![3e-4, 5e-4, 1e-3],
        Method::ProxSparse => vec![0.01, 0.1, 1.0],
        Method::StraightThrough => vec![2e-4],
        Method::Spartan | Method::SpartanUnits | Method::Obd | Method::Gradual | Method::RigL | Method::SRigL => {
            vec![0.5, 0.8, 0.95]
        }
    }
}

fn family(method: Method) -> &'static str {
    match method {
        Method::None => "none",
        Method::L2 | Method::Elimination | Method::Selective | Method::Adaptive => "decay",
        Method::L1Subgradient | Method::GroupSubgradient | Method::SmoothGroup => "subgradients",
        Method::L1 => "elements by prox",
        Method::Group
        | Method::GroupIncoming
        | Method::GroupJoint
        | Method::SparseGroup
        | Method::NoisyGroup
        | Method::Ssl => GROUPS,
        Method::ProxSparse | Method::StraightThrough => "2:4",
        Method::Spartan | Method::SpartanUnits | Method::Obd | Method::Gradual | Method::RigL | Method::SRigL => {
            "masks"
        }
    }
}

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    if args.seeds == 0 || args.timed_batch == 0 {
        return Err(Error::argument("--seeds", "at least one seed and one example").into());
    }
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io(&args.output, e))?;
    let mut provenance = Provenance::new();
    if let Some(path) = args.data.file() {
        provenance.workload(&path.to_string_lossy())?;
    }
    let machines = machines(&args.profile)?;
    machines.iter().for_each(|m| provenance.profile(&m.profile));
    let data = args.data.load()?;
    let text = args.network.clone();
    let text = text.unwrap_or_else(|| format!("{}-128-64-{}", data.train.features, data.train.classes));
    let methods = if args.methods.is_empty() {
        METHODS.iter().map(|row| row.0).filter(|m| *m != Method::Ssl).collect()
    } else {
        let mut all = vec![Method::None];
        all.extend(args.methods.iter().filter(|m| **m != Method::None));
        all
    };
    let running = crate::cli::bench::stop_on_interrupt()?;
    let pool = crate::cli::bench::pool(1)?;
    let first = Network::parse(&text, 0)?;
    let mut study = Study {
        data: args.data.name(),
        network: first.describe(),
        weights: first.weights().count() as u64,
        batch: args.timed_batch,
        machines: machines.iter().map(|m| m.label.clone()).collect(),
        ..Study::default()
    };
    let mut ready: Vec<Vec<Vec<Ready>>> = Vec::new();
    for method in methods {
        for strength in path(method, &args.lambdas) {
            let (mut trained, mut ways) = (Vec::new(), Vec::new());
            for seed in 0..args.seeds {
                if !running.load(Ordering::Relaxed) {
                    anyhow::bail!("stopped before the study was complete; nothing was written");
                }
                let one = pool.install(|| train(&args, &data, &text, (method, strength, seed)))?;
                ways.push(ways_of(&one, args.timed_batch)?);
                trained.push(one);
            }
            let mut cell = cell(method, strength, &trained);
            for machine in &machines {
                cell.times.push(predicted(machine, &ways)?);
            }
            eprintln!(
                "{method} {strength}: accuracy {:.2} %, zeros {:.1} %, dead units {:.1} %, {:.1} % of the MACs left",
                100.0 * cell.accuracy,
                100.0 * cell.zeros,
                100.0 * cell.zero_units,
                100.0 * cell.macs
            );
            for network in &ways {
                let packed: Result<Vec<Vec<Ready>>> =
                    network.iter().map(|way| pool.install(|| packed(way, &machines))).collect();
                ready.push(packed?);
            }
            study.cells.push(cell);
        }
    }
    if args.passes > 0 {
        study.machines.push("this CPU, measured".to_owned());
        measured(&mut study, &ready, &args, &pool, &running);
    }
    write(&study, &args, &provenance)?;
    writeln!(out, "{}\n", study.grid().text(output::width(), output::colour()))?;
    writeln!(out, "{}", study.sentence(args.least))?;
    Ok(())
}

fn machines(names: &[String]) -> Result<Vec<Machine>> {
    let one = |name: &String| {
        let profile = crate::cli::profile(name)?;
        let dtype = default_dtype(&profile);
        let stem = Path::new(name).file_stem().and_then(|n| n.to_str()).unwrap_or(name);
        Ok(Machine { label: format!("{stem} {dtype}, predicted"), profile, dtype })
    };
    names.iter().map(one).collect()
}

fn train(args: &Args, data: &Split, text: &str, (method, strength, seed): (Method, f64, u64)) -> Result<Trained> {
    let mut whole = Network::parse(text, seed)?;
    let mut found = None;
    fit(&mut whole, data, &args.schedule.settings(method, strength, seed), 0, &mut |p| {
        found = Some(p);
        true
    })?;
    let small = compact::compact(&whole)?;
    let before = autodiff::logits(&whole, &data.test.inputs)?;
    let after = autodiff::logits(&small, &small.select(&data.test.inputs))?;
    let difference = before.iter().zip(&after).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    let (accuracy, structure) = found.map_or((0.0, audit::Structure::default()), |p| (p.accuracy, p.structure));
    Ok(Trained {
        accuracy,
        structure,
        compact_accuracy: audit::accuracy(&small, &data.test)?,
        whole,
        small,
        difference,
    })
}

fn cell(method: Method, strength: f64, trained: &[Trained]) -> Cell {
    let count = trained.len() as f64;
    let mean = |f: &dyn Fn(&Trained) -> f64| trained.iter().map(f).sum::<f64>() / count;
    let accuracy = mean(&|t| t.accuracy);
    let spread = trained.iter().map(|t| (t.accuracy - accuracy).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    let zeros = || trained.iter().map(|t| t.structure.zeros);
    Cell {
        method: method.to_string(),
        family: family(method).to_owned(),
        strength,
        seeds: trained.len() as u64,
        accuracy,
        accuracy_sd: spread.sqrt(),
        zeros: mean(&|t| t.structure.zero_share()),
        fewest_zeros: zeros().min().unwrap_or(0),
        most_zeros: zeros().max().unwrap_or(0),
        small: mean(&|t| t.structure.small as f64 / (t.structure.weights as f64).max(1.0)),
        subnormals: mean(&|t| t.structure.subnormals as f64),
        zero_inputs: mean(&|t| t.structure.zero_inputs as f64),
        zero_units: mean(&|t| t.structure.dead_share()),
        compact: trained.first().map_or(String::new(), |t| t.small.describe()),
        macs: mean(&|t| t.small.macs() as f64 / (t.whole.macs() as f64).max(1.0)),
        compact_accuracy: mean(&|t| t.compact_accuracy),
        difference: trained.iter().map(|t| t.difference).fold(0.0, f64::max),
        times: Vec::new(),
    }
}

/// A way to run a trained network.
struct Way {
    name: &'static str,
    model: Model,
    rules: Assignment,
    masks: Masks,
}

/// The smaller network dense, the same with its zeros as CSR where it has some, the whole one as 2:4 where it is.
fn ways_of(trained: &Trained, batch: u64) -> Result<Vec<Way>> {
    let mut ways = vec![way("dense", &trained.small, batch, &|_, _, _| None)?];
    let zeros = trained.small.weights().filter(|w| *w == 0.0).count();
    if zeros * 10 > trained.small.weights().count() {
        ways.push(way("csr", &trained.small, batch, &|values, _, _| {
            let share = values.iter().filter(|w| **w == 0.0).count() as f64 / values.len().max(1) as f64;
            (share > 0.1 && share < 1.0).then(|| format!("unstructured@{share}"))
        })?);
    }
    let follows = |values: &[f32], k: usize| {
        k % 4 == 0 && values.iter().zip(best_of(values, k, 2, 4)).all(|(w, kept)| kept || *w == 0.0)
    };
    if trained.whole.layers.iter().all(|l| follows(&trained.whole.parameters[l.weights()], l.inputs * l.kernel)) {
        ways.push(way("2:4", &trained.whole, batch, &|_, _, _| Some("2:4".to_owned()))?);
    }
    Ok(ways)
}

/// The pattern of a layer from its weights `[n, k]`.
type Rule<'a> = &'a dyn Fn(&[f32], usize, usize) -> Option<String>;

fn way(name: &'static str, network: &Network, batch: u64, rule: Rule<'_>) -> Result<Way> {
    let path = Path::new(name);
    let proto = load::decode(path, export::onnx(network, name, false).into())?;
    let options = hwsim::workload::Options { batch: Some(batch), ..Default::default() };
    let model = from_model(path, &proto, &options)?;
    let (mut rules, mut masks) = (Vec::new(), Masks::new());
    for layer in model.graph.layers() {
        let Some(param) = layer.weight() else { continue };
        let bad = |reason: String| Error::layer(name, &layer.name, reason);
        let (values, n, k) = matrix(layer, param, &model.weights).map_err(bad)?;
        if let Some(pattern) = rule(&values, n, k) {
            rules.push(format!("{}={pattern}", layer.name));
            let mask = Mask::from_fn(n as u64, k as u64, |r, c| values[r as usize * k + c as usize] != 0.0);
            // 2:4 is stored with two of four whether they are zero or not.
            if pattern.starts_with("unstructured") {
                masks.insert(layer.name.clone(), vec![Arc::new(mask)]);
            }
        }
    }
    Ok(Way { name, model, rules: Assignment::parse(&rules)?, masks })
}

/// Means over networks of the fastest way of each, and the way that is fastest most often.
fn fastest(times: &[Vec<(f64, &'static str)>]) -> Timed {
    let best: Vec<(f64, &str)> =
        times.iter().filter_map(|ways| ways.iter().min_by(|a, b| a.0.total_cmp(&b.0)).map(|(t, n)| (*t, *n))).collect();
    let votes = |name: &str| best.iter().filter(|(_, n)| *n == name).count();
    let way = best.iter().map(|(_, n)| *n).max_by_key(|n| votes(n)).unwrap_or("dense");
    Timed { seconds: best.iter().map(|(t, _)| t).sum::<f64>() / best.len().max(1) as f64, way: way.to_owned() }
}

fn options(machine: &Machine) -> Options {
    let threads = matches!(machine.profile.device, Device::Cpu(_)).then_some(1);
    Options { threads, timing: Timing::Cold }
}

fn predicted(machine: &Machine, networks: &[Vec<Way>]) -> Result<Timed> {
    let mut times = Vec::new();
    for ways in networks {
        let mut own = Vec::new();
        for way in ways {
            let request = Request {
                profile: &machine.profile,
                assignment: &way.rules,
                dtype: machine.dtype,
                options: options(machine),
                queues: 1,
                fuse: true,
                framework: None,
            };
            let known = Pruned { masks: way.masks.clone(), round_to: 1 };
            let answer = estimate_pruned(&Target::Network(&way.model.graph), &request, &known)?;
            own.push((answer.total.latency_s, way.name));
        }
        times.push(own);
    }
    Ok(fastest(&times))
}

/// A way's products, ready to run on this CPU.
fn packed(way: &Way, machines: &[Machine]) -> Result<Vec<Ready>> {
    // Which kernel runs is what a CPU's model says; without such a machine the host's own.
    let cpu = machines.iter().find(|m| matches!(m.profile.device, Device::Cpu(_)));
    let profile = match cpu {
        Some(machine) => machine.profile.clone(),
        None => crate::cli::profile("host")?,
    };
    let model = cost::model(&profile, Options { threads: Some(1), timing: Timing::Cold })?;
    let (asked, _) = products(&way.model.graph, &way.rules, (DType::Fp32, &way.masks), &*model)?;
    asked.iter().map(|a| prepare(Isa::detect(), &product(a, &way.masks, Some(&way.model), 0)?)).collect()
}

/// Times every way of every network, all of them twice over, and adds the fastest to the cells.
fn measured(
    study: &mut Study,
    ready: &[Vec<Vec<Ready>>],
    args: &Args,
    pool: &rayon::ThreadPool,
    running: &std::sync::atomic::AtomicBool,
) {
    const NAMES: [&str; 3] = ["dense", "csr", "2:4"];
    let mut best: Vec<Vec<f64>> = ready.iter().map(|ways| vec![f64::INFINITY; ways.len()]).collect();
    for _ in 0..2 {
        for (ways, best) in ready.iter().zip(&mut best) {
            for (products, best) in ways.iter().zip(best) {
                let go_on = |_| running.load(Ordering::Relaxed);
                let run = || measure(products, Isa::detect(), (1, args.passes), 1 << 22, &go_on);
                *best = best.min(pool.install(run).iter().sum());
            }
        }
    }
    // Ways have their names in `NAMES`' order, but for a whole network in 2:4 without other zeros.
    let mut rest = ready.iter().zip(best);
    for cell in &mut study.cells {
        let times: Vec<Vec<(f64, &'static str)>> = rest
            .by_ref()
            .take(cell.seeds as usize)
            .map(|(ways, best)| {
                let name = |i: usize| ways[i].first().map_or(NAMES[i.min(2)], named);
                best.iter().enumerate().map(|(i, t)| (*t, name(i))).collect()
            })
            .collect();
        cell.times.push(fastest(&times));
    }
}

/// A way by the kernel of its first product.
fn named(ready: &Ready) -> &'static str {
    match ready.kernel {
        "csr" => "csr",
        "nm" => "2:4",
        _ => "dense",
    }
}

fn write(study: &Study, args: &Args, provenance: &Provenance) -> anyhow::Result<()> {
    let folder = &args.output;
    write_whole(&folder.join("regularizers.csv"), |to| study.csv(to))?;
    write_whole(&folder.join("regularizers.csv.provenance.toml"), |to| to.write_all(provenance.text().as_bytes()))?;
    draw(study, folder)?;
    write_whole(&folder.join("answer.md"), |to| writeln!(to, "{}", study.sentence(args.least)))?;
    eprintln!("wrote {}", folder.display());
    Ok(())
}

/// The figures of a study, one a machine.
fn draw(study: &Study, folder: &Path) -> Result<()> {
    for machine in 0..study.machines.len() {
        let figure = study.figure(machine);
        write_whole(&folder.join(format!("{}.svg", figure.stem())), |to| to.write_all(figure.standalone().as_bytes()))?;
    }
    Ok(())
}

#[derive(clap::Args)]
pub struct Redraw {
    /// Folder with regularizers.csv
    folder: PathBuf,
}

/// Draws the figures of a study again, from its table.
pub fn redraw(args: &Redraw, out: &mut dyn Write) -> anyhow::Result<()> {
    let path = args.folder.join("regularizers.csv");
    let file = std::fs::File::open(&path).map_err(|e| Error::io(&path, e))?;
    let study = Study::read(&path.display().to_string(), file)?;
    draw(&study, &args.folder)?;
    writeln!(out, "{} figures of {} cells", study.machines.len(), study.cells.len())?;
    Ok(())
}
