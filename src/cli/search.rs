//! `hwsim search`: under a budget a pattern for every layer; without one, the Pareto front of a space.

use super::search_folder::{Folder, How};
use clap::ValueEnum;
use comfy_table::{Table, presets};
use hwsim::cost;
use hwsim::dtype::DType;
use hwsim::error::Error;
use hwsim::lower::Choice;
use hwsim::report::estimate::default_dtype;
use hwsim::report::export::write_whole;
use hwsim::search::assign::{Answer, Budget, Cost, Question, Variants, answer};
use hwsim::search::baselines::Limit;
use hwsim::search::channels::{Proof, assign_groups};
use hwsim::search::evolve::Evolution;
use hwsim::search::explore::Shard;
use hwsim::search::quality::Proxy;
use hwsim::search::space::{Base, Description, Objective, Space};
use hwsim::search::vary::{self, Axis};
use hwsim::sparsity::Criterion;
use hwsim::units::{Joules, Seconds};
use hwsim::workload::{self, Graph};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Network: .onnx, config.json, .toml, or a name
    #[arg(long, short)]
    workload: String,
    /// Hardware profiles: paths or names
    #[arg(long, short, required = true, value_delimiter = ',')]
    profile: Vec<String>,
    /// Patterns to choose from, such as dense,2:4,block:32x1@0.9
    #[arg(long, value_delimiter = ',', default_value = "dense")]
    patterns: Vec<Choice>,
    /// A pattern for every layer within this: loss=0.1, latency=2ms, energy=5mJ, latency=0.6x (of dense); several may follow
    #[arg(long, value_delimiter = ',', value_name = "FIGURE=LIMIT")]
    budget: Vec<String>,
    /// What a budget of loss minimises
    #[arg(long, value_enum, default_value_t, requires = "budget")]
    minimize: Minimize,
    /// Losses of layers: CSV with the columns layer,pattern,loss
    #[arg(long, value_name = "FILE")]
    quality_table: Option<PathBuf>,
    /// Losses of the workload's own weights by this criterion: magnitude (l1), l2, obd, wanda, sparsegpt, bn, taylor, random
    #[arg(long, value_name = "CRITERION", conflicts_with = "quality_table")]
    saliency: Option<Criterion>,
    /// Calibration inputs: .npz with arrays named like the network's inputs, which is run on them (samples along the first
    /// axis, or NAME/0, NAME/1, …); or statistics of such, arrays LAYER:x, :norms, :h, :g or :gamma
    #[arg(long, visible_alias = "calibration", value_name = "NPZ", requires = "saliency")]
    calibration_data: Option<PathBuf>,
    /// A field of the profile over values: PATH=16..256*2, PATH=100..800 GB/s:8, PATH=a,b,c
    #[arg(long, value_name = "PATH=VALUES")]
    vary: Vec<Axis>,
    /// What must hold: area_mm2 < 50 && power_w < 10
    #[arg(long = "where", value_name = "CONDITION", conflicts_with = "budget")]
    condition: Option<String>,
    /// What is minimised: latency, energy, area, quality, traffic
    #[arg(long, value_delimiter = ',', default_value = "latency,quality")]
    objectives: Vec<String>,
    /// Number formats [default: the machine's usual one]
    #[arg(long, value_delimiter = ',')]
    dtype: Vec<DType>,
    /// Batch sizes
    #[arg(long, value_delimiter = ',')]
    batch: Vec<u64>,
    #[command(flatten)]
    shapes: super::workload::Shapes,
    /// Visit every point of a space up to this size, and evolve (NSGA-II) in a larger one
    #[arg(long, default_value_t = 1_000_000_000, value_name = "POINTS")]
    exhaustive: u64,
    /// Points that an evolution may visit
    #[arg(long, default_value_t = 100_000, value_name = "POINTS")]
    evaluations: u64,
    /// Seed of an evolution
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Independent populations of an evolution
    #[arg(long, default_value_t = 4)]
    islands: u64,
    /// Which points to write to points.csv
    #[arg(long, value_enum, default_value_t)]
    rows: Rows,
    /// Only part i of n of the space; `hwsim merge` puts the parts together
    #[arg(long, value_name = "i/n", conflicts_with = "budget")]
    shard: Option<Shard>,
    /// Go on where a run that was interrupted stopped
    #[arg(long)]
    resume: bool,
    /// Seconds between two states that --resume can go on from
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    checkpoint: f64,
    /// Threads of the search [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Folder of the results
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Minimize {
    /// Seconds
    #[default]
    Latency,
    /// Joules
    Energy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// All, where the space has at most a million points
    #[default]
    Auto,
    /// All
    All,
    /// None: only the front is kept
    Front,
}

/// Points up to which all rows are written unasked.
const MANY: u64 = 1_000_000;

pub fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads.unwrap_or(0)).build()?;
    let mut text = Vec::new();
    let done =
        pool.install(|| if args.budget.is_empty() { explore(&args, &mut text) } else { budgets(&args, &mut text) });
    out.write_all(&text)?;
    done
}

/// The network at each batch size, with the size that results carry.
fn graphs(args: &Args) -> anyhow::Result<Vec<(u64, Graph)>> {
    let load = |batch: Option<u64>| -> anyhow::Result<(u64, Graph)> {
        let options = args.shapes.options(batch)?;
        let graph = workload::resolve(&args.workload, &options)?;
        let first = graph.layers().find(|l| matches!(l.op, workload::Op::Input));
        let given = first.and_then(|l| l.shape().first().copied()).unwrap_or(1);
        Ok((batch.unwrap_or(given), graph))
    };
    if args.batch.is_empty() { Ok(vec![load(None)?]) } else { args.batch.iter().map(|&b| load(Some(b))).collect() }
}

fn bases(args: &Args) -> anyhow::Result<Vec<Base>> {
    args.profile
        .iter()
        .map(|name| {
            let profile = super::profile(name)?;
            let dtypes = if args.dtype.is_empty() { vec![default_dtype(&profile)] } else { args.dtype.clone() };
            Ok(Base { name: name.clone(), profile, dtypes })
        })
        .collect()
}

/// Machines that budgets are answered on, one after another, at most.
const MACHINES: usize = 10_000;

/// Every machine that the fields make of the bases, named by them; those that contradict themselves are left out aloud.
fn varied(bases: Vec<Base>, axes: &[Axis]) -> anyhow::Result<Vec<Base>> {
    let count = axes.iter().try_fold(bases.len(), |n, a| n.checked_mul(a.values.len())).filter(|n| *n <= MACHINES);
    if count.is_none() {
        let reason = format!("a budget is answered on at most {MACHINES} machines; vary less, or leave --budget out");
        return Err(Error::argument("--vary", reason).into());
    }
    let mut all = bases;
    for axis in axes {
        let mut next = Vec::with_capacity(all.len() * axis.values.len());
        for base in &all {
            for (place, value) in axis.values.iter().enumerate() {
                let name = format!("{} {}={}", base.name, axis.path, axis.text(place));
                match vary::with(&base.profile, &axis.path, value.clone()) {
                    Ok(profile) => next.push(Base { name, profile, dtypes: base.dtypes.clone() }),
                    Err(why) => eprintln!("warning: {name} is left out: {why}"),
                }
            }
        }
        all = next;
    }
    anyhow::ensure!(!all.is_empty(), "--vary: no machine takes these values");
    Ok(all)
}

fn proxy(args: &Args) -> anyhow::Result<Proxy> {
    if let Some(criterion) = args.saliency {
        let data = args.calibration_data.as_deref();
        let options = args.shapes.options(args.batch.first().copied())?;
        return super::pruning::losses(Path::new(&args.workload), &options, &args.patterns, criterion, data, args.seed);
    }
    let Some(path) = &args.quality_table else { return Ok(Proxy::GaussianEnergy) };
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    Ok(Proxy::table(file, &path.display().to_string())?)
}

fn explore(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let proxy = proxy(args)?;
    let graphs = graphs(args)?;
    let objectives = args
        .objectives
        .iter()
        .map(|name| {
            let known = Objective::NAMES;
            let found = known.iter().find(|(n, _)| n == name).map(|(_, o)| *o);
            found.ok_or_else(|| Error::unknown("objective", name, known.iter().map(|(n, _)| *n)))
        })
        .collect::<Result<_, _>>()?;
    let space = Space::new(Description {
        workload: graphs[0].1.name.clone(),
        graphs: &graphs,
        bases: bases(args)?,
        axes: args.vary.clone(),
        patterns: args.patterns.clone(),
        proxy: &proxy,
        objectives,
        condition: args.condition.clone(),
        options: cost::Options::default(),
    })?;
    let rows = match args.rows {
        Rows::Auto => space.len() <= MANY,
        Rows::All => true,
        Rows::Front => false,
    };
    let evolution = (space.len() > args.exhaustive).then_some(Evolution {
        seed: args.seed,
        evaluations: args.evaluations,
        islands: args.islands.max(1),
    });
    if let Some(e) = &evolution {
        eprintln!(
            "{} points are more than --exhaustive {}: NSGA-II, {} islands of {} generations, seed {}",
            space.len(),
            args.exhaustive,
            e.islands,
            e.generations(),
            e.seed
        );
    }
    let how = How { rows: rows && evolution.is_none(), evolution };
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let mut folder = Folder::open(&args.output, &space, shard, how, args.resume)?;
    let (state, seconds) = folder.explore(&space, args.checkpoint)?;
    if let Some(why) = state.refusal.as_ref().filter(|_| state.front.is_empty()) {
        anyhow::bail!("no point could be estimated: {why}");
    }
    let c = state.counts;
    writeln!(
        out,
        "{} points ({} ruled out, {} refused), {} on the front: {}",
        c.points,
        c.ruled_out,
        c.refused,
        state.front.len(),
        args.output.join("front.csv").display()
    )?;
    if let Some(why) = &state.refusal {
        eprintln!("first refusal: {why}");
    }
    eprintln!(
        "{} (layer, pattern, machine) triples from {} estimates of distinct operations in {seconds:.2} s: {:.3} M triples/s, {:.3} M estimates/s",
        c.answered,
        c.estimated,
        c.answered as f64 / seconds / 1e6,
        c.estimated as f64 / seconds / 1e6
    );
    Ok(())
}

/// Reads a number with its unit.
type Quantity = fn(&str) -> Result<f64, String>;

/// A budget as it is written, and what is minimised under it.
fn budget(text: &str, minimize: Minimize) -> Result<(Budget, Cost), Error> {
    let refuse =
        || Error::argument("--budget", format!("`{text}` is no budget; write loss=0.1, latency=2ms or latency=0.6x"));
    let (figure, limit) = text.split_once('=').ok_or_else(refuse)?;
    let number = |t: &str| t.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0).ok_or_else(refuse);
    let (cost, quantity): (Cost, Quantity) = match figure.trim() {
        "loss" => {
            let cost = if minimize == Minimize::Energy { Cost::Energy } else { Cost::Latency };
            return Ok((Budget::Loss(number(limit)?), cost));
        }
        "latency" => (Cost::Latency, |t| t.parse::<Seconds>().map(Seconds::get)),
        "energy" => (Cost::Energy, |t| t.parse::<Joules>().map(Joules::get)),
        _ => return Err(refuse()),
    };
    match limit.trim().strip_suffix('x') {
        Some(share) => Ok((Budget::Share(number(share)?), cost)),
        None => Ok((Budget::Cost(quantity(limit).map_err(|e| Error::argument("--budget", e))?), cost)),
    }
}

fn budgets(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let budgets: Vec<(Budget, Cost)> =
        args.budget.iter().map(|t| budget(t, args.minimize)).collect::<Result<_, _>>()?;
    let (proxy, graphs, bases) = (proxy(args)?, graphs(args)?, varied(bases(args)?, &args.vary)?);
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io(&args.output, e))?;
    let mut methods = csv::Writer::from_writer(Vec::new());
    let mut layers = csv::Writer::from_writer(Vec::new());
    methods.write_record([
        "workload",
        "profile",
        "batch",
        "dtype",
        "budget",
        "minimized",
        "method",
        "loss",
        "latency_s",
        "energy_j",
        "table_latency_s",
        "table_energy_j",
        "dense_latency_s",
        "dense_energy_j",
        "speedup",
        "within_budget",
        "bound",
        "gap",
    ])?;
    layers.write_record([
        "workload",
        "profile",
        "batch",
        "dtype",
        "budget",
        "layer",
        "pattern",
        "loss",
        "latency_s",
        "energy_j",
        "dense_latency_s",
        "dense_energy_j",
    ])?;
    let (mut solved, mut failed) = (0, None);
    for base in &bases {
        let model = cost::model(&base.profile, cost::Options::default())?;
        for (batch, graph) in &graphs {
            for &dtype in &base.dtypes {
                for (text, &(budget, cost)) in args.budget.iter().zip(&budgets) {
                    let question = Question {
                        graph,
                        profile: &base.profile,
                        dtype,
                        options: cost::Options::default(),
                        patterns: &args.patterns,
                        proxy: &proxy,
                        cost,
                    };
                    let started = std::time::Instant::now();
                    let solution = if args.patterns.iter().any(|c| c.pattern.shrinks_graph()) {
                        assign_groups(&question, budget).map(|cut| {
                            let (rules, groups) = (cut.rules(), cut.groups);
                            (cut.answer, rules, Some((groups, cut.proof, cut.tried)))
                        })
                    } else {
                        let variants = Variants::of(&question)?;
                        answer(&question, &variants, &*model, budget).map(|a| {
                            let rules = a.optimal().map(|o| a.rules(o)).unwrap_or_default();
                            (a, rules, None)
                        })
                    };
                    let (found, rules, cut) = match solution {
                        Ok(found) => found,
                        Err(e @ Error::Argument { .. }) => {
                            eprintln!("warning: {} on {}, {text}: {e}", graph.name, base.name);
                            failed = Some(e);
                            continue;
                        }
                        Err(e) => return Err(e.into()),
                    };
                    solved += 1;
                    let seconds = started.elapsed().as_secs_f64();
                    let place =
                        [graph.name.clone(), base.name.clone(), batch.to_string(), dtype.to_string(), text.clone()];
                    record(&mut methods, &mut layers, &place, &found, cost, cut.as_ref().map(|c| &c.0))?;
                    show(out, &place, &found, cost, &proxy, cut.as_ref().map(|c| c.1))?;
                    if let Some((groups, proof, tried)) = cut {
                        show_groups(out, &groups, proof, tried)?;
                    }
                    eprintln!("solved in {seconds:.3} s");
                    let name = format!("rules-{}-{}-{}-{}.txt", base.name, batch, dtype, text).replace('/', "_");
                    let rules: String = rules.iter().map(|r| format!("{r}\n")).collect();
                    write_whole(&args.output.join(name), |w| w.write_all(rules.as_bytes()))?;
                }
            }
        }
    }
    if let Some(e) = failed.filter(|_| solved == 0) {
        return Err(e.into());
    }
    for (name, table) in [("methods.csv", methods), ("layers.csv", layers)] {
        let bytes = table.into_inner().map_err(|e| anyhow::anyhow!("{e}"))?;
        write_whole(&args.output.join(name), |w| w.write_all(&bytes))?;
    }
    writeln!(out, "wrote {}: methods.csv, layers.csv, rules-*.txt", args.output.display())?;
    Ok(())
}

/// A number in its column: latency or energy, the other one empty.
fn pair(cost: Cost, value: f64) -> [String; 2] {
    match cost {
        Cost::Latency => [value.to_string(), String::new()],
        Cost::Energy => [String::new(), value.to_string()],
    }
}

fn minimized(limit: Limit, cost: Cost) -> &'static str {
    match (limit, cost) {
        (Limit::Cost(_), _) => "loss",
        (Limit::Loss(_), Cost::Latency) => "latency",
        (Limit::Loss(_), Cost::Energy) => "energy",
    }
}

type Buffer = csv::Writer<Vec<u8>>;

/// Producers of cut groups, and what cut them.
type Groups = Vec<(Vec<String>, Choice)>;

fn record(
    methods: &mut Buffer,
    layers: &mut Buffer,
    place: &[String; 5],
    found: &Answer,
    cost: Cost,
    groups: Option<&Groups>,
) -> anyhow::Result<()> {
    for (i, method) in found.methods.iter().enumerate() {
        let mut row: Vec<String> = place.to_vec();
        row.extend([minimized(found.limit, cost).to_owned(), method.name.to_owned()]);
        match &method.outcome {
            Some(o) => {
                row.push(o.loss.to_string());
                row.extend(pair(cost, o.whole));
                row.extend(pair(cost, o.separable));
                row.extend(pair(cost, found.dense));
                row.extend([(found.dense / o.whole).to_string(), o.within.to_string()]);
            }
            None => row.extend((0..9).map(|_| String::new())),
        }
        row.extend(if i == 0 {
            [found.bound.to_string(), found.gap.to_string()]
        } else {
            [String::new(), String::new()]
        });
        methods.write_record(row)?;
    }
    let Some(best) = found.optimal() else { return Ok(()) };
    for ((layer, &j), figures) in found.layers.iter().zip(&best.choice).zip(&found.table) {
        let mut row: Vec<String> = place.to_vec();
        let cut = groups.and_then(|g| g.iter().find(|(names, _)| names.contains(layer)));
        let pattern = cut.map_or(found.patterns[j], |(_, choice)| *choice);
        row.extend([layer.clone(), pattern.to_string(), figures[j].0.to_string()]);
        row.extend(pair(cost, figures[j].1));
        row.extend(pair(cost, figures[0].1));
        layers.write_record(row)?;
    }
    Ok(())
}

fn show(
    out: &mut dyn Write,
    place: &[String; 5],
    found: &Answer,
    cost: Cost,
    proxy: &Proxy,
    cut: Option<Proof>,
) -> anyhow::Result<()> {
    let [workload, profile, batch, dtype, budget] = place;
    let quantity = |v: f64| match cost {
        Cost::Latency => format!("{}", Seconds(v)),
        Cost::Energy => format!("{}", Joules(v)),
    };
    writeln!(
        out,
        "{workload} on {profile}, batch {batch}, {dtype}: least {} within {budget}",
        minimized(found.limit, cost)
    )?;
    writeln!(out, "loss: {}", proxy.name())?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["method", "loss", "whole network", "sum of the table", "over dense", "within"]);
    for method in &found.methods {
        match &method.outcome {
            Some(o) => table.add_row([
                method.name.to_owned(),
                format!("{:.5}", o.loss),
                quantity(o.whole),
                quantity(o.separable),
                format!("{:.3}×", found.dense / o.whole),
                if o.within { "yes".into() } else { "no".into() },
            ]),
            None => table.add_row([method.name, "", "", "", "", "cannot"]),
        };
    }
    writeln!(out, "{table}")?;
    let spelled = match found.limit {
        Limit::Loss(_) => quantity(found.bound),
        Limit::Cost(_) => format!("loss {:.6}", found.bound),
    };
    let proof = match (cut, found.gap == 0.0) {
        (Some(Proof::Bound { .. }), _) => format!("gap {:.4} % over all groups and masks", found.gap * 100.0),
        (Some(Proof::None), _) => format!("gap {:.4} % for the masks of these groups alone", found.gap * 100.0),
        (Some(Proof::All) | None, true) => "proved optimal for the table".to_owned(),
        (Some(Proof::All) | None, false) => format!("gap {:.4} %", found.gap * 100.0),
    };
    writeln!(out, "{proof}: no choice has less than {spelled} ({} partial assignments)\n", found.states)?;
    Ok(())
}

fn show_groups(out: &mut dyn Write, groups: &[(Vec<String>, Choice)], proof: Proof, tried: u64) -> anyhow::Result<()> {
    let how = match proof {
        Proof::All => "all",
        Proof::Bound { .. } => "what the relaxation found, and single changes;",
        Proof::None => "one group after another, a local optimum without a bound;",
    };
    writeln!(out, "{} dependency groups cut ({how} {tried} combinations of groups tried):", groups.len())?;
    for (names, choice) in groups {
        writeln!(out, "  {choice}: {}", names.join(", "))?;
    }
    Ok(writeln!(out)?)
}
