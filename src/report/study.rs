//! What the study of regularizers found: one row a method and strength, its figures, and the answer in one sentence.

use super::grid::Grid;
use super::plot::{Axis, Candidate, Figure, Front, Unit, pareto};
use crate::error::{Error, Result};

/// One method at one strength, averaged over seeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// The method's name.
    pub method: String,
    /// What kind of method it is: the colour in figures.
    pub family: String,
    /// λ, or a share of zeros.
    pub strength: f64,
    /// Number of seeds.
    pub seeds: u64,
    /// Mean share of test examples that are right.
    pub accuracy: f64,
    /// Its standard deviation over seeds.
    pub accuracy_sd: f64,
    /// Share of weights that are exactly zero.
    pub zeros: f64,
    /// Fewest exact zeros over seeds: 0 where a single seed has none.
    pub fewest_zeros: u64,
    /// Most exact zeros over seeds.
    pub most_zeros: u64,
    /// Share of weights within 1e-3 of zero.
    pub small: f64,
    /// Subnormal weights.
    pub subnormals: f64,
    /// Inputs that nobody reads.
    pub zero_inputs: f64,
    /// Share of hidden units that are dead.
    pub zero_units: f64,
    /// The network of the first seed after removal.
    pub compact: String,
    /// MACs left after removal, a share.
    pub macs: f64,
    /// Accuracy after removal.
    pub compact_accuracy: f64,
    /// Largest difference of an output after removal, over seeds and test examples.
    pub difference: f64,
    /// Times on machines, in the order of [`Study::machines`].
    pub times: Vec<Timed>,
}

/// A time, and how the network runs to reach it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timed {
    /// Mean seconds of a batch, the fastest way of each network.
    pub seconds: f64,
    /// The fastest way of most networks: `dense` (after removal), `csr` or `2:4`.
    pub way: String,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Study {
    /// The data's name.
    pub data: String,
    /// The network as it was before.
    pub network: String,
    /// Weights of it.
    pub weights: u64,
    /// Examples of a timed batch.
    pub batch: u64,
    /// Names of the machines; a measured one says so.
    pub machines: Vec<String>,
    /// The cells; the first is the network without a regularizer.
    pub cells: Vec<Cell>,
}

impl Study {
    /// Time without a regularizer over that of a cell; 1 where one is missing.
    pub fn speedup(&self, cell: &Cell, machine: usize) -> f64 {
        let time = |c: &Cell| c.times.get(machine).map(|t| t.seconds);
        match (self.cells.first().and_then(time), time(cell)) {
            (Some(before), Some(after)) if after > 0.0 => before / after,
            _ => 1.0,
        }
    }

    /// Writes one CSV row a cell; times in microseconds.
    ///
    /// # Errors
    /// What the writer says.
    pub fn csv(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let mut rows = csv::Writer::from_writer(out);
        let fixed = [
            "data",
            "network",
            "method",
            "family",
            "strength",
            "seeds",
            "accuracy_pct",
            "accuracy_sd",
            "zeros_pct",
            "zeros_fewest",
            "zeros_most",
            "below_1e3_pct",
            "subnormals",
            "zero_inputs",
            "zero_units_pct",
            "compact_seed0",
            "compact_macs_pct",
            "compact_accuracy_pct",
            "compact_largest_difference",
            "batch",
        ];
        let mut head: Vec<String> = fixed.map(String::from).to_vec();
        for m in &self.machines {
            head.extend([format!("{m}: us"), format!("{m}: runs as"), format!("{m}: speedup")]);
        }
        rows.write_record(&head)?;
        for c in &self.cells {
            let mut row = vec![
                self.data.clone(),
                self.network.clone(),
                c.method.clone(),
                c.family.clone(),
                c.strength.to_string(),
                c.seeds.to_string(),
                format!("{:.2}", 100.0 * c.accuracy),
                format!("{:.2}", 100.0 * c.accuracy_sd),
                format!("{:.2}", 100.0 * c.zeros),
                c.fewest_zeros.to_string(),
                c.most_zeros.to_string(),
                format!("{:.2}", 100.0 * c.small),
                format!("{:.1}", c.subnormals),
                format!("{:.1}", c.zero_inputs),
                format!("{:.2}", 100.0 * c.zero_units),
                c.compact.clone(),
                format!("{:.2}", 100.0 * c.macs),
                format!("{:.2}", 100.0 * c.compact_accuracy),
                format!("{:.1e}", c.difference),
                self.batch.to_string(),
            ];
            for (i, t) in c.times.iter().enumerate() {
                row.extend([format!("{:.3}", 1e6 * t.seconds), t.way.clone(), format!("{:.2}", self.speedup(c, i))]);
            }
            rows.write_record(&row)?;
        }
        rows.flush()
    }

    /// Reads what [`Study::csv`] wrote, to the digits that it wrote.
    ///
    /// # Errors
    /// [`Error::Parse`] for a table with other columns, or fields that are no numbers.
    pub fn read(origin: &str, from: impl std::io::Read) -> Result<Self> {
        let bad = |message: String| Error::Parse { origin: origin.to_owned(), message };
        let mut reader = csv::Reader::from_reader(from);
        let head = reader.headers().map_err(|e| bad(e.to_string()))?.clone();
        let machines: Vec<String> = head.iter().filter_map(|h| h.strip_suffix(": us")).map(str::to_owned).collect();
        let mut study = Self { machines, ..Self::default() };
        for record in reader.records() {
            let record = record.map_err(|e| bad(e.to_string()))?;
            let text = |name: &str| {
                let found = head.iter().position(|h| h == name).and_then(|i| record.get(i));
                found.ok_or_else(|| bad(format!("has no column `{name}`")))
            };
            let number = |name: &str| {
                let value = text(name)?;
                value.parse::<f64>().map_err(|_| bad(format!("column `{name}` holds `{value}`")))
            };
            let share = |name: &str| number(name).map(|v| v / 100.0);
            let mut cell = Cell {
                method: text("method")?.to_owned(),
                family: text("family")?.to_owned(),
                strength: number("strength")?,
                seeds: number("seeds")? as u64,
                accuracy: share("accuracy_pct")?,
                accuracy_sd: share("accuracy_sd")?,
                zeros: share("zeros_pct")?,
                fewest_zeros: number("zeros_fewest")? as u64,
                most_zeros: number("zeros_most")? as u64,
                small: share("below_1e3_pct")?,
                subnormals: number("subnormals")?,
                zero_inputs: number("zero_inputs")?,
                zero_units: share("zero_units_pct")?,
                compact: text("compact_seed0")?.to_owned(),
                macs: share("compact_macs_pct")?,
                compact_accuracy: share("compact_accuracy_pct")?,
                difference: number("compact_largest_difference")?,
                times: Vec::new(),
            };
            for m in &study.machines {
                let way = text(&format!("{m}: runs as"))?.to_owned();
                cell.times.push(Timed { seconds: 1e-6 * number(&format!("{m}: us"))?, way });
            }
            (study.data, study.network) = (text("data")?.to_owned(), text("network")?.to_owned());
            study.batch = number("batch")? as u64;
            study.cells.push(cell);
        }
        Ok(study)
    }

    /// The cells for people.
    pub fn grid(&self) -> Grid {
        let mut head = vec!["method", "#strength", "#accuracy %", "#zeros %", "#dead units %", "#MACs left %"];
        let machines: Vec<String> = self.machines.iter().map(|m| format!("#{m}")).collect();
        head.extend(machines.iter().map(String::as_str));
        let mut grid = Grid::new(&head);
        for c in &self.cells {
            let own = [
                c.method.clone(),
                c.strength.to_string(),
                format!("{:.2} ± {:.2}", 100.0 * c.accuracy, 100.0 * c.accuracy_sd),
                format!("{:.1}", 100.0 * c.zeros),
                format!("{:.1}", 100.0 * c.zero_units),
                format!("{:.1}", 100.0 * c.macs),
            ];
            let times = c.times.iter().enumerate().map(|(i, _)| format!("{:.2}x", self.speedup(c, i)));
            grid.push(own.into_iter().chain(times));
        }
        grid
    }

    /// Accuracy over latency on one machine, a front for each family of methods; cells that lost more than ten points of
    /// accuracy are left out, so that the others can be told apart.
    pub fn figure(&self, machine: usize) -> Figure {
        let name = self.machines.get(machine).map_or("", String::as_str);
        let least = self.cells.first().map_or(0.0, |c| c.accuracy) - 0.1;
        let mut fronts: Vec<Front> = Vec::new();
        for c in &self.cells {
            let Some(time) = c.times.get(machine).filter(|_| c.accuracy >= least) else { continue };
            let candidate = Candidate {
                cost: time.seconds,
                quality: 100.0 * c.accuracy,
                name: format!("{} {}", c.method, c.strength),
                label: format!(
                    "{} {}: {:.2} %, {:.1} % of the MACs, {:.1} us as {}",
                    c.method,
                    c.strength,
                    100.0 * c.accuracy,
                    100.0 * c.macs,
                    1e6 * time.seconds,
                    time.way
                ),
            };
            match fronts.iter_mut().find(|f| f.name == c.family) {
                Some(front) => front.candidates.push(candidate),
                None => fronts.push(Front { name: c.family.clone(), candidates: vec![candidate] }),
            }
        }
        pareto(
            &format!("Accuracy over latency, {name}"),
            &format!(
                "{} on {}, batch {}; means over seeds; more than ten points below no regularizer is left out",
                self.network, self.data, self.batch
            ),
            &Axis::log(format!("latency of a batch of {}", self.batch), Unit::Prefixed("s")),
            &Axis::linear("test accuracy in %", Unit::Plain),
            &fronts,
        )
    }

    /// Whether weight decay makes networks faster, with the numbers; `least` is the accuracy that must stay.
    pub fn sentence(&self, least: f64) -> String {
        let decay: Vec<&Cell> = self.cells.iter().filter(|c| c.method == "l2").collect();
        let (Some(first), Some(last)) = (decay.first(), decay.last()) else { return String::new() };
        let zeros: u64 = decay.iter().map(|c| c.most_zeros).sum();
        let macs = decay.iter().map(|c| c.macs).fold(1.0, f64::min);
        let gained = |cell: &Cell| {
            let each = self.machines.iter().enumerate().map(|(i, m)| format!("{:.2}x on {m}", self.speedup(cell, i)));
            each.collect::<Vec<_>>().join(", ")
        };
        let mut text = format!(
            "Does weight decay make networks faster? No: from λ = {} to {}, L2 decay left {zeros} exact zeros among {} weights \
             and {:.0} % of the MACs at every λ; at λ = {} (accuracy {:.1} %) the speedup is {}.",
            first.strength,
            last.strength,
            self.weights,
            100.0 * macs,
            last.strength,
            100.0 * last.accuracy,
            gained(last)
        );
        let groups = self.cells.iter().filter(|c| c.family == GROUPS && c.accuracy >= least);
        if let Some(best) = groups.min_by(|a, b| a.macs.total_cmp(&b.macs)) {
            text.push_str(&format!(
                " Penalties on groups do: {} at λ = {} leaves {:.1} % of the MACs at {:.1} % accuracy (without a regularizer {:.1} %): {}.",
                best.method,
                best.strength,
                100.0 * best.macs,
                100.0 * best.accuracy,
                100.0 * self.cells.first().map_or(0.0, |c| c.accuracy),
                gained(best)
            ));
        }
        text
    }
}

/// The family of proximal group methods.
pub const GROUPS: &str = "groups by prox";
