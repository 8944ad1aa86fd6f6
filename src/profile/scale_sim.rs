//! SCALE-Sim's configuration files as profiles with its convention.

use crate::error::{Error, Result};
use std::collections::HashMap;

/// What a configuration says.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// Its run name.
    pub name: String,
    /// Array height and width.
    pub array: [u64; 2],
    /// `os`, `ws` or `is`.
    pub dataflow: String,
    /// KiB of the buffers for inputs, weights, outputs.
    pub sram_kib: [u64; 3],
    /// Words a cycle, where the interface bandwidth is given.
    pub bandwidth: Option<u64>,
    /// Whether the topology's sparsity column is heeded.
    pub sparse: bool,
    /// `OptimizedMapping`: block size and seed.
    pub row_wise: Option<[u64; 2]>,
    /// What it asks for that is not reproduced.
    pub warnings: Vec<String>,
}

/// Words a cycle that SCALE-Sim assumes where no bandwidth is given.
const ASSUMED_BANDWIDTH: u64 = 10;

impl Configuration {
    /// Reads a `.cfg` file.
    ///
    /// # Errors
    /// [`Error::Parse`] with the line or the missing key.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let refuse = |message: String| Error::Parse { origin: origin.into(), message };
        let mut values: HashMap<(String, String), (usize, String)> = HashMap::new();
        let mut section = String::new();
        for (i, row) in text.lines().enumerate() {
            let row = row.trim().trim_start_matches('\u{feff}');
            if row.is_empty() || row.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = row.strip_prefix('[').and_then(|r| r.strip_suffix(']')) {
                section = name.trim().to_lowercase();
                continue;
            }
            let Some((key, value)) = row.split_once(['=', ':']) else {
                return Err(refuse(format!("line {}: `{row}` is neither a [section] nor a key = value", i + 1)));
            };
            values.insert((section.clone(), key.trim().to_lowercase()), (i + 1, value.trim().to_owned()));
        }
        let find = |section: &str, key: &str| values.get(&(section.to_owned(), key.to_lowercase()));
        let need = |section: &str, key: &str| {
            find(section, key).ok_or_else(|| refuse(format!("[{section}] lacks `{key}`; SCALE-Sim needs it too")))
        };
        let number = |section: &str, key: &str| -> Result<u64> {
            let (line, value) = need(section, key)?;
            value
                .parse()
                .ok()
                .filter(|v| *v > 0)
                .ok_or_else(|| refuse(format!("line {line}: {key} is `{value}`, not a whole number from 1 on")))
        };
        let (line, dataflow) = need("architecture_presets", "Dataflow")?;
        let dataflow = dataflow.to_lowercase();
        if !["os", "ws", "is"].contains(&dataflow.as_str()) {
            return Err(refuse(format!("line {line}: the dataflow `{dataflow}` is not os, ws or is")));
        }
        let user = find("run_presets", "InterfaceBandwidth").is_some_and(|(_, v)| v.eq_ignore_ascii_case("user"));
        let bandwidth = match find("architecture_presets", "Bandwidth") {
            Some((line, list)) if user => {
                let first = list.split(',').next().unwrap_or_default().trim();
                let words = first.parse::<u64>().ok().filter(|v| *v > 0);
                Some(words.ok_or_else(|| {
                    refuse(format!("line {line}: the bandwidth `{list}` does not begin with a number"))
                })?)
            }
            _ => None,
        };
        let is_set = |key: &str| find("sparsity", key).is_some_and(|(_, v)| v.eq_ignore_ascii_case("true"));
        let mut warnings = Vec::new();
        let drawn = is_set("SparsitySupport") && is_set("OptimizedMapping");
        let row_wise = if drawn {
            Some([number("sparsity", "BlockSize")?, number("sparsity", "RandomNumberGeneratorSeed")?])
        } else {
            None
        };
        if drawn && dataflow != "ws" {
            return Err(refuse("OptimizedMapping works with the dataflow ws alone".into()));
        }
        if find("run_presets", "UseRamulatorTrace").is_some_and(|(_, v)| v.eq_ignore_ascii_case("true")) {
            warnings.push("Ramulator traces are not read; DRAM has one bandwidth".to_owned());
        }
        if user {
            warnings.push(
                "with InterfaceBandwidth = USER its DRAM reads count whole prefetched lines; here they count words"
                    .to_owned(),
            );
        }
        Ok(Self {
            name: find("general", "run_name")
                .map_or_else(|| "scale-sim".to_owned(), |(_, v)| v.trim_matches('"').to_owned()),
            array: [number("architecture_presets", "ArrayHeight")?, number("architecture_presets", "ArrayWidth")?],
            dataflow,
            sram_kib: [
                number("architecture_presets", "IfmapSramSzkB")?,
                number("architecture_presets", "FilterSramSzkB")?,
                number("architecture_presets", "OfmapSramSzkB")?,
            ],
            bandwidth,
            // A drawn sparsity does not heed the topology's.
            sparse: is_set("SparsitySupport") && !drawn,
            row_wise,
            warnings,
        })
    }

    /// The profile's text. SCALE-Sim counts cycles without a clock, so one of 1 GHz is assumed.
    pub fn to_toml(&self, source: &str) -> String {
        let dataflow = match self.dataflow.as_str() {
            "os" => "output-stationary",
            "ws" => "weight-stationary",
            _ => "input-stationary",
        };
        let [inputs, weights, outputs] = self.sram_kib;
        let [rows, cols] = self.array;
        let row_wise = self
            .row_wise
            .map_or_else(String::new, |[block, seed]| format!("row_wise = {{ block = {block}, seed = {seed} }}\n"));
        let words = self.bandwidth.unwrap_or(ASSUMED_BANDWIDTH);
        let text = |t: &str| toml::Value::String(t.to_owned()).to_string();
        format!(
            "name = {}\nsources = [{}]\nclock = \"1 GHz\"                      # SCALE-Sim has none; cycles do not depend on it\n\
             [memory]\nbandwidth = \"{words} GB/s\"             # {words} words of one byte a cycle\n\
             [device.systolic]\nrows = {rows}\ncols = {cols}\ndataflow = \"{dataflow}\"\n\
             sram = {{ inputs = \"{inputs} KiB\", weights = \"{weights} KiB\", outputs = \"{outputs} KiB\" }}\n\
             convention = \"scale-sim-3\"             # take this line out for hwsim's own model\n{row_wise}",
            text(&self.name),
            text(&format!("SCALE-Sim configuration {source}")),
        )
    }
}
