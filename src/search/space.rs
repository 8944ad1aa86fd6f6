//! The space of a search: machines (profiles with fields varied) × batch × dtype × pattern, numbered from zero.
//!
//! The pattern changes fastest, then dtype, batch, the last varied field … the profile; so everything that one machine is
//! asked stands together.

use super::condition::Condition;
use super::evaluate::{Desk, Lean, Operations};
use super::quality::{Memo, Proxy};
use super::vary::{self, Axis};
use crate::cost::systolic::energy::Technology;
use crate::cost::{self, CostModel};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::lower::{Choice, Shrunk, Step, layer, shrink, steps};
use crate::pattern::SparsityPattern;
use crate::profile::{Device, Profile};
use crate::search::assign::everywhere;
use crate::search::pareto::{MOST, Visited};
use crate::workload::Graph;
use toml::Value;

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// Seconds.
    Latency,
    /// Joules.
    Energy,
    /// Square millimetres of the array with its buffers.
    Area,
    /// Loss of quality ([`Proxy`]).
    Quality,
    /// Bytes of main memory moved.
    Traffic,
}

impl Objective {
    /// All, with the names under which they are asked for.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("latency", Self::Latency),
        ("energy", Self::Energy),
        ("area", Self::Area),
        ("quality", Self::Quality),
        ("traffic", Self::Traffic),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, o)| *o == self).map_or("", |(n, _)| n)
    }

    fn of(self, f: &Figures) -> f64 {
        match self {
            Self::Latency => f.latency_s,
            Self::Energy => f.energy_j,
            Self::Area => f.area_mm2,
            Self::Quality => f.loss,
            Self::Traffic => f.dram_bytes,
        }
    }
}

/// What is known of one point; an unknown figure is not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Seconds.
    pub latency_s: f64,
    /// Lower end of the 90 % interval in seconds.
    pub latency_low_s: f64,
    /// Upper end.
    pub latency_high_s: f64,
    /// Joules.
    pub energy_j: f64,
    /// Mean watts over the latency.
    pub power_w: f64,
    /// Square millimetres.
    pub area_mm2: f64,
    /// Bytes of main memory moved.
    pub dram_bytes: f64,
    /// Loss of quality, 0 to 1 (a user's table has its own unit).
    pub loss: f64,
    /// Multiply–accumulates whose weight is nonzero.
    pub macs_effectual: f64,
}

impl Figures {
    /// Names, in the order of [`Figures::values`]: columns of results, and what conditions may speak of.
    pub const NAMES: [&'static str; 9] = [
        "latency_s",
        "latency_low_s",
        "latency_high_s",
        "energy_j",
        "power_w",
        "area_mm2",
        "dram_bytes",
        "loss",
        "macs_effectual",
    ];

    /// The figures as a list.
    pub fn values(&self) -> [f64; 9] {
        [
            self.latency_s,
            self.latency_low_s,
            self.latency_high_s,
            self.energy_j,
            self.power_w,
            self.area_mm2,
            self.dram_bytes,
            self.loss,
            self.macs_effectual,
        ]
    }

    /// From the list of [`Figures::values`].
    pub fn from_values(v: [f64; 9]) -> Self {
        Self {
            latency_s: v[0],
            latency_low_s: v[1],
            latency_high_s: v[2],
            energy_j: v[3],
            power_w: v[4],
            area_mm2: v[5],
            dram_bytes: v[6],
            loss: v[7],
            macs_effectual: v[8],
        }
    }
}

/// The objectives of figures, filled up with zeros.
pub fn key(objectives: &[Objective], figures: &Figures) -> [f64; MOST] {
    let mut key = [0.0; MOST];
    key.iter_mut().zip(objectives).for_each(|(slot, o)| *slot = o.of(figures));
    key
}

/// A base machine of the space.
pub struct Base {
    /// As it was named.
    pub name: String,
    /// Its facts.
    pub profile: Profile,
    /// Number formats to try.
    pub dtypes: Vec<DType>,
}

/// What makes a space.
pub struct Description<'a> {
    /// The network's name.
    pub workload: String,
    /// The network at each batch size, with the number that results carry.
    pub graphs: &'a [(u64, Graph)],
    /// Machines; all with the same number of dtypes.
    pub bases: Vec<Base>,
    /// Fields that vary.
    pub axes: Vec<Axis>,
    /// Patterns, each for the whole network.
    pub patterns: Vec<Choice>,
    /// Where losses come from.
    pub proxy: &'a Proxy,
    /// What is minimised; one to five.
    pub objectives: Vec<Objective>,
    /// What must hold, if anything.
    pub condition: Option<String>,
    /// CPU threads and cache state of the estimates.
    pub options: cost::Options,
}

/// Most fields that vary.
const FIELDS: usize = 32;

struct Network {
    lean: Lean,
    loss: f64,
}

/// A space, ready to be visited.
pub struct Space {
    workload: String,
    bases: Vec<(Base, Value)>,
    axes: Vec<Axis>,
    batches: Vec<u64>,
    patterns: Vec<Choice>,
    objectives: Vec<Objective>,
    early: Vec<Condition>,
    late: Vec<Condition>,
    condition: Option<String>,
    options: cost::Options,
    operations: Operations,
    /// By base, batch, dtype, pattern.
    networks: Vec<Network>,
    proxy: &'static str,
    machines: u64,
    inner: u64,
}

/// One machine of the space.
pub struct Machine {
    index: u64,
    base: usize,
    model: Box<dyn CostModel>,
    area: Vec<f64>,
    numbers: Vec<f64>,
}

impl Space {
    /// Lowers the network under every pattern, dtype and batch, and checks that every field exists.
    ///
    /// # Errors
    /// Empty lists, more than 2^53 points, fields or conditions that cannot be read, patterns that cannot be carried out.
    pub fn new(description: Description<'_>) -> Result<Self> {
        let Description { workload, graphs, bases, axes, patterns, proxy, objectives, condition, options } =
            description;
        if objectives.is_empty() || objectives.len() > MOST {
            return Err(Error::argument("--objectives", "give one to five of latency, energy, area, quality, traffic"));
        }
        let dtypes = bases.first().map_or(0, |b| b.dtypes.len());
        if patterns.is_empty() || graphs.is_empty() || dtypes == 0 || bases.iter().any(|b| b.dtypes.len() != dtypes) {
            return Err(Error::argument(
                "search",
                "the space is empty: it needs a profile, a pattern, a batch and a dtype",
            ));
        }
        if axes.len() > FIELDS {
            return Err(Error::argument("--vary", format!("{} fields vary; at most {FIELDS} may", axes.len())));
        }
        let names = names(&axes);
        let conjuncts = match &condition {
            Some(text) => Condition::parse(text, &names)?.conjuncts(),
            None => Vec::new(),
        };
        let area = Figures::NAMES.iter().position(|n| *n == "area_mm2");
        let known = |i: usize| Some(i) == area || i >= Figures::NAMES.len();
        let (early, late) = conjuncts.into_iter().partition(|c| c.speaks_of(&known));
        let too_large = || Error::argument("--vary", "the space has more than 2^53 points");
        let product = |n: u64, by: usize| n.checked_mul(by as u64).filter(|n| *n < 1 << 53).ok_or_else(too_large);
        let machines = axes.iter().try_fold(bases.len() as u64, |n, a| product(n, a.values.len()))?;
        let inner = product(product(graphs.len() as u64, dtypes)?, patterns.len())?;
        product(machines, inner as usize)?;
        let bases: Vec<(Base, Value)> = bases
            .into_iter()
            .map(|b| {
                let value = toml::from_str(&b.profile.to_toml())
                    .map_err(|e: toml::de::Error| Error::Parse { origin: b.name.clone(), message: e.to_string() })?;
                Ok((b, value))
            })
            .collect::<Result<_>>()?;
        let mut operations = Operations::default();
        let mut networks = Vec::new();
        let mut memo = Memo::default();
        for (base, _) in &bases {
            for (_, graph) in graphs {
                for &dtype in &base.dtypes {
                    let dense = steps(graph, &everywhere(Choice::DENSE), dtype, true)?;
                    for &pattern in &patterns {
                        networks.push(prepare(graph, &dense, pattern, dtype, proxy, &mut memo, &mut operations)?);
                    }
                }
            }
        }
        let space = Self {
            workload,
            batches: graphs.iter().map(|(b, _)| *b).collect(),
            bases,
            axes,
            patterns,
            objectives,
            early,
            late,
            condition,
            options,
            operations,
            networks,
            proxy: proxy.name(),
            machines,
            inner,
        };
        space.check()?;
        Ok(space)
    }

    /// A field that no machine takes would otherwise be an empty answer after a long run.
    fn check(&self) -> Result<()> {
        for axis in &self.axes {
            for (base, value) in &self.bases {
                let mut last = String::new();
                let fits = axis.values.iter().any(|v| {
                    let mut value = value.clone();
                    let made = vary::set(&mut value, &axis.path, v.clone()).and_then(|()| vary::profile(value));
                    made.map_err(|e| last = e).is_ok()
                });
                if !fits {
                    let reason = format!("`{}` takes none of the values of {}: {last}", base.name, axis.path);
                    return Err(Error::argument("--vary", reason));
                }
            }
        }
        Ok(())
    }

    /// Points in all.
    pub fn len(&self) -> u64 {
        self.machines * self.inner
    }

    /// Whether there are none; never.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Machines in all.
    pub fn machines(&self) -> u64 {
        self.machines
    }

    /// Steps of the longest network.
    pub fn layers(&self) -> u64 {
        self.networks.iter().map(|n| n.lean.len()).max().unwrap_or(1)
    }

    /// Points of one machine.
    pub fn points_of_a_machine(&self) -> u64 {
        self.inner
    }

    /// How many choices each part of a point has, slowest first: profile, fields, batch, dtype, pattern.
    pub fn radices(&self) -> Vec<u64> {
        let fields = self.axes.iter().map(|a| a.values.len() as u64);
        std::iter::once(self.bases.len() as u64)
            .chain(fields)
            .chain([self.batches.len() as u64, self.dtypes(), self.patterns.len() as u64])
            .collect()
    }

    fn dtypes(&self) -> u64 {
        self.bases[0].0.dtypes.len() as u64
    }

    /// A desk for this space.
    pub fn desk(&self) -> Desk {
        Desk::new(&self.operations)
    }

    /// The machine of a number; `Err` in words where its fields contradict one another or a condition rules it out.
    pub fn machine(&self, index: u64) -> Result<Machine, String> {
        let places = self.fields(index);
        let base = places[0];
        let (origin, value) = &self.bases[base];
        let varied;
        let profile = if self.axes.is_empty() {
            &origin.profile
        } else {
            let mut value = value.clone();
            for (axis, &place) in self.axes.iter().zip(&places[1..]) {
                vary::set(&mut value, &axis.path, axis.values[place].clone())?;
            }
            varied = vary::profile(value)?;
            &varied
        };
        let numbers = self.axes.iter().zip(&places[1..]).map(|(a, &p)| a.number(p)).collect();
        let area = origin.dtypes.iter().map(|&d| area_mm2(profile, d)).collect();
        let model = cost::model(profile, self.options).map_err(|e| e.to_string())?;
        Ok(Machine { index, base, model, area, numbers })
    }

    /// Places of a machine's parts: profile, then each field.
    fn fields(&self, mut index: u64) -> Vec<usize> {
        let mut places = vec![0; self.axes.len() + 1];
        for (place, axis) in places[1..].iter_mut().zip(&self.axes).rev() {
            let count = axis.values.len() as u64;
            (*place, index) = ((index % count) as usize, index / count);
        }
        places[0] = index as usize;
        places
    }

    /// Places of (batch, dtype, pattern) of a point within its machine.
    fn inside(&self, point: u64) -> (usize, usize, usize) {
        let (patterns, dtypes) = (self.patterns.len() as u64, self.dtypes());
        let rest = point / patterns;
        ((rest / dtypes) as usize, (rest % dtypes) as usize, (point % patterns) as usize)
    }

    /// Visits one point of a machine: `Ok(None)` where a condition rules it out, `Err` in words where it cannot run or
    /// lacks an objective.
    pub fn visit(&self, machine: &Machine, point: u64, desk: &mut Desk) -> Result<Option<Visited<Figures>>, String> {
        let (batch, dtype, _) = self.inside(point);
        let area = machine.area[dtype];
        let mut named = [f64::NAN; Figures::NAMES.len() + 1 + FIELDS];
        let wanted = !(self.early.is_empty() && self.late.is_empty());
        if wanted {
            let base = Figures::NAMES.len();
            named[base] = self.batches[batch] as f64;
            named[base + 1..].iter_mut().zip(&machine.numbers).for_each(|(to, from)| *to = *from);
            named[5] = area;
            if !self.early.iter().all(|c| c.holds(&named)) {
                return Ok(None);
            }
        }
        let network = &self.networks[machine.base * self.inner as usize + point as usize];
        let e = desk.estimate(&network.lean, &self.operations, &*machine.model).map_err(|e| e.to_string())?;
        let figures = Figures {
            latency_s: e.latency[0],
            latency_low_s: e.latency[1],
            latency_high_s: e.latency[2],
            energy_j: e.energy,
            power_w: e.energy / e.latency[0],
            area_mm2: area,
            dram_bytes: e.dram,
            loss: network.loss,
            macs_effectual: e.macs,
        };
        if wanted {
            named[..Figures::NAMES.len()].copy_from_slice(&figures.values());
            if !self.late.iter().all(|c| c.holds(&named)) {
                return Ok(None);
            }
        }
        let key = key(&self.objectives, &figures);
        if let Some((objective, _)) = self.objectives.iter().zip(&key).find(|(_, v)| v.is_nan()) {
            let base = &self.bases[machine.base].0.name;
            return Err(format!("`{base}` says nothing of {}; leave that objective out", objective.name()));
        }
        Ok(Some(Visited { index: machine.index * self.inner + point, key, figures }))
    }

    /// What is minimised.
    pub fn objectives(&self) -> &[Objective] {
        &self.objectives
    }

    /// Columns of results.
    pub fn columns(&self) -> Vec<String> {
        let fixed = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut columns = fixed(&["point", "workload", "profile"]);
        columns.extend(self.axes.iter().map(|a| a.path.clone()));
        columns.extend(fixed(&["batch", "dtype", "pattern"]));
        columns.extend(fixed(&Figures::NAMES));
        columns
    }

    /// A point as a row of [`Space::columns`]; an unknown figure is empty.
    pub fn row(&self, index: u64, figures: &Figures) -> Vec<String> {
        let (machine, point) = (index / self.inner, index % self.inner);
        let places = self.fields(machine);
        let (batch, dtype, pattern) = self.inside(point);
        let base = &self.bases[places[0]].0;
        let mut row = vec![index.to_string(), self.workload.clone(), base.name.clone()];
        row.extend(self.axes.iter().zip(&places[1..]).map(|(a, &p)| a.text(p)));
        row.extend([
            self.batches[batch].to_string(),
            base.dtypes[dtype].to_string(),
            self.patterns[pattern].to_string(),
        ]);
        row.extend(figures.values().iter().map(|v| if v.is_nan() { String::new() } else { v.to_string() }));
        row
    }

    /// Everything that decides the answer, for people and for comparison: equal texts give equal fronts.
    pub fn describe(&self) -> serde_json::Value {
        let axes: serde_json::Map<String, serde_json::Value> = self
            .axes
            .iter()
            .map(|a| (a.path.clone(), (0..a.values.len()).map(|i| a.text(i)).collect::<Vec<_>>().into()))
            .collect();
        let mut print = Fingerprint::default();
        self.operations.describe().for_each(|op| print.take(&op));
        self.bases.iter().for_each(|(b, _)| print.take(&b.profile.to_toml()));
        serde_json::json!({
            "hwsim": env!("CARGO_PKG_VERSION"),
            "workload": self.workload,
            "profiles": self.bases.iter().map(|(b, _)| b.name.clone()).collect::<Vec<_>>(),
            "vary": axes,
            "batches": self.batches,
            "dtypes": self.bases.iter().map(|(b, _)| b.dtypes.iter().map(ToString::to_string).collect::<Vec<_>>()).collect::<Vec<_>>(),
            "patterns": self.patterns.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "objectives": self.objectives.iter().map(|o| o.name()).collect::<Vec<_>>(),
            "where": self.condition,
            "quality": self.proxy,
            "losses": self.networks.iter().take(self.inner as usize).map(|n| n.loss.to_string()).collect::<Vec<_>>(),
            "options": format!("{:?}", self.options),
            "points": self.len(),
            "operations": format!("{:016x}", print.0),
        })
    }
}

/// FNV-1a, 64 bits: whether two searches ask the same.
#[derive(Clone, Copy, Debug)]
pub struct Fingerprint(pub u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// Takes a text in.
    pub fn take(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What conditions may speak of: figures, the batch, and varied fields that are bare numbers.
fn names(axes: &[Axis]) -> Vec<String> {
    let figures = Figures::NAMES.iter().map(|s| (*s).to_owned());
    figures.chain(["batch".to_owned()]).chain(axes.iter().map(|a| a.path.clone())).collect()
}

fn area_mm2(profile: &Profile, dtype: DType) -> f64 {
    match &profile.device {
        Device::Systolic(array) => {
            array.technology_nm.map_or(f64::NAN, |nm| Technology { nm }.area(array, dtype).get() * 1e6)
        }
        Device::Cpu(_) | Device::Gpu(_) => f64::NAN,
    }
}

/// A network under one pattern: lowered, and what it loses.
fn prepare(
    graph: &Graph,
    dense: &[Step],
    choice: Choice,
    dtype: DType,
    proxy: &Proxy,
    memo: &mut Memo,
    operations: &mut Operations,
) -> Result<Network> {
    let weighted = || dense.iter().filter(|s| s.prunable);
    let scale = proxy.scale(weighted().map(|s| s.ops.as_slice()));
    let name = |s: &Step| graph.layer(s.lead).name.as_str();
    if choice.pattern.shrinks_graph() {
        let asked = |l: &crate::workload::Layer| layer::takes_rules(l).then_some(choice.pattern);
        let shrunk: Shrunk = shrink(graph, asked)?;
        if shrunk.cuts.is_empty() {
            let none = Error::argument("--patterns", format!("`{choice}` removes nothing from `{}`", graph.name));
            return Err(shrunk.outcomes.first().and_then(|o| o.required().err()).unwrap_or(none));
        }
        let steps = steps(&shrunk.graph, &everywhere(Choice::DENSE), dtype, true)?;
        let mut loss = 0.0;
        for step in weighted() {
            let cut = shrunk.cuts.iter().filter(|c| c.producers.iter().any(|p| p == name(step)));
            let most = cut.map(|c| 1.0 - c.kept as f64 / c.total as f64).fold(0.0, f64::max);
            if most > 0.0 {
                loss += proxy.removed(name(step), choice.pattern, most, &step.ops, memo)?;
            }
        }
        return Ok(Network { lean: Lean::of(&steps, operations), loss: loss / scale });
    }
    let steps = steps(graph, &everywhere(choice), dtype, true)?;
    let mut loss = 0.0;
    for step in steps.iter().filter(|s| s.prunable) {
        loss += proxy.loss(name(step), choice.pattern, &step.ops, memo)?;
    }
    let loss = if choice.pattern == SparsityPattern::Dense { 0.0 } else { loss / scale };
    Ok(Network { lean: Lean::of(&steps, operations), loss })
}
