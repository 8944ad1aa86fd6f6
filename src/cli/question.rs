//! Several networks, machines, dtypes, batches and patterns at once: what `compare` and `sweep` ask.

use hwsim::cost::Options;
use hwsim::dtype::DType;
use hwsim::error::{Error, Result};
use hwsim::lower::Assignment;
use hwsim::profile::Profile;
use hwsim::report::estimate::default_dtype;
use hwsim::report::{Estimate, Request, Target, estimate};
use hwsim::workload::Graph;
use std::path::Path;

/// A pattern of a whole network: its text and its rules.
pub struct Pattern {
    pub text: String,
    pub rules: Assignment,
}

/// Patterns of a whole network.
#[derive(clap::Args)]
pub struct Patterns {
    /// A pattern of the whole network; rules of one pattern are joined by `;`, as in '2:4;conv1=dense'. `@*` stands for
    /// each value of --at
    #[arg(short, long = "sparsity", value_name = "PATTERN", required = true)]
    sparsity: Vec<String>,
    /// Shares of zeros that `@*` stands for
    #[arg(long, value_delimiter = ',', value_name = "S,…", default_value = "0.5,0.6,0.7,0.8,0.9,0.95")]
    at: Vec<String>,
}

impl Patterns {
    /// The patterns in order, `dense` left out: every answer has it anyway.
    pub fn list(&self) -> Result<Vec<Pattern>> {
        let mut list = Vec::new();
        for text in &self.sparsity {
            let texts: Vec<String> = match text.contains("@*") {
                true => self.at.iter().map(|s| text.replace("@*", &format!("@{s}"))).collect(),
                false => vec![text.clone()],
            };
            for text in texts.into_iter().filter(|t| t != "dense") {
                let rules: Vec<&str> = text.split(';').map(str::trim).filter(|r| !r.is_empty()).collect();
                if rules.is_empty() {
                    return Err(Error::argument("--sparsity", "a pattern without a rule; write 2:4, or dense"));
                }
                list.push(Pattern { rules: Assignment::parse(&rules)?, text });
            }
        }
        Ok(list)
    }
}

/// One machine in one number format.
pub struct Machine {
    pub label: String,
    pub profile: Profile,
    pub dtype: DType,
}

/// How the machines are used.
#[derive(clap::Args)]
pub struct Use {
    /// Hardware profiles: paths or names, joined by commas
    #[arg(long, short, value_delimiter = ',', required = true, value_name = "P,…")]
    profile: Vec<String>,
    /// Number formats, joined by commas [default: fp16 on GPUs with tensor cores, int8 on arrays, fp32 elsewhere]
    #[arg(long, value_delimiter = ',')]
    dtype: Vec<DType>,
    /// CPU threads [default: all cores]
    #[arg(long)]
    threads: Option<u64>,
}

impl Use {
    /// Every profile in every dtype.
    pub fn machines(&self) -> Result<Vec<Machine>> {
        let mut machines = Vec::new();
        for name in &self.profile {
            let profile = super::profile(name)?;
            let own = [default_dtype(&profile)];
            for &dtype in if self.dtype.is_empty() { &own[..] } else { &self.dtype } {
                let stem = Path::new(name).file_name().and_then(|n| n.to_str()).unwrap_or(name);
                let label = format!("{} {dtype}", stem.strip_suffix(".toml").unwrap_or(stem));
                machines.push(Machine { label, profile: profile.clone(), dtype });
            }
        }
        Ok(machines)
    }

    /// Answers one question.
    pub fn ask(&self, graph: &Graph, machine: &Machine, rules: &Assignment) -> Result<Estimate> {
        let options = Options { threads: self.threads, ..Options::default() };
        let Machine { profile, dtype, .. } = machine;
        let request =
            Request { profile, assignment: rules, dtype: *dtype, options, queues: 1, fuse: true, framework: None };
        estimate(&Target::Network(graph), &request)
    }
}
