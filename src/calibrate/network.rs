//! Whole networks of sample files: which workload a row names, and how its framework ran it.

use crate::bench::Sample;
use crate::cost::CostModel;
use crate::cost::network::network;
use crate::dtype::DType;
use crate::lower::Assignment;
use crate::lower::eager::{Framework, framework_steps};
use crate::workload::{Options, resolve};
use serde_json::Value;

/// NeuSight's names of networks (its `DLmodel_configs`) and the workloads that describe them.
const NETWORKS: [(&str, &str); 6] = [
    ("bert_large", "bert-large"),
    ("gpt2_large", "gpt2-large"),
    ("gpt3_xl", "gpt3-xl-neusight"),
    ("gpt3_27", "gpt3-2.7b"),
    ("opt_13", "opt-1.3b"),
    ("switchxl4", "switch-xl4"),
];

/// Predicted seconds of a row that timed a whole network, with the interval.
///
/// # Errors
/// Why no workload stands for the row.
pub(super) fn predict(model: &dyn CostModel, sample: &Sample) -> Result<(f64, (f64, f64)), &'static str> {
    let text = |key: &str| sample.attrs.get(key).and_then(Value::as_str);
    if text("mode") == Some("train") {
        return Err("backward pass or training");
    }
    let named = text("model").ok_or("a network without a name")?;
    let (_, workload) =
        NETWORKS.into_iter().find(|(name, _)| *name == named).ok_or("a network that no workload describes")?;
    let framework = match text("option") {
        Some("fusion") => Framework::Compiled,
        Some("eager") | None => Framework::Eager,
        Some(_) => return Err("a network under a framework that is not known"),
    };
    let dtype: DType = sample.dtype.parse().map_err(|_| "unknown dtype")?;
    let options = Options { batch: Some(sample.batch), seq: Some(sample.m), ..Options::default() };
    let graph = resolve(workload, &options).map_err(|_| "the workload refuses the row's sizes")?;
    let steps =
        framework_steps(&graph, &Assignment::dense(), dtype, framework).map_err(|_| "the network cannot be lowered")?;
    let total = network(&steps, model, 1).map_err(|_| "the model refuses the network")?.total;
    Ok((total.time.get(), (total.interval.0.get(), total.interval.1.get())))
}
