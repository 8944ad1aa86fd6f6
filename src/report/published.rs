//! Accuracies that others published for pruned networks, shown beside the proxies of a mask: what a pattern has cost
//! elsewhere, never what it will cost here.

use crate::pattern::SparsityPattern;
use serde::{Deserialize, Serialize};

/// A published result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The network.
    pub network: String,
    /// The pattern, as it is spelled here.
    pub pattern: String,
    /// How its weights were chosen, and trained where they were.
    pub method: String,
    /// What was measured.
    pub metric: String,
    /// Of the dense network, where it is stated beside.
    pub dense: Option<f64>,
    /// Of the pruned network.
    pub pruned: f64,
    /// Where it stands.
    pub source: String,
}

type Row = (&'static str, &'static str, &'static str, &'static str, Option<f64>, f64, &'static str);

const PPL: &str = "WikiText-2 perplexity";
const MASK_LLM: &str = "MaskLLM's repository, sequences of 4096";
const RERUN: &str = "tweizy/wanda-prunning-experiment, an independent rerun of Wanda";
const WANDA_24: &str = "model card of vuiseng9/Meta-Llama-3.1-8B-wanda-2of4";
const RIGL: &str = "RigL's repository";
const OFA: &str = "Intel's Prune-OFA model cards";

const ROWS: [Row; 18] = [
    ("LLaMA-2-7B", "2:4", "SparseGPT, not trained", PPL, Some(5.12), 10.42, MASK_LLM),
    ("LLaMA-2-7B", "2:4", "MaskLLM, mask trained", PPL, Some(5.12), 6.78, MASK_LLM),
    ("LLaMA-3-8B", "2:4", "SparseGPT, not trained", PPL, Some(5.75), 17.64, MASK_LLM),
    ("LLaMA-3-8B", "2:4", "MaskLLM, mask trained", PPL, Some(5.75), 8.49, MASK_LLM),
    ("LLaMA-3.1-8B", "2:4", "Wanda, not trained", "MMLU, 5-shot %", Some(65.1), 28.7, WANDA_24),
    ("LLaMA-3.1-8B", "4:8", "Wanda, not trained", "MMLU, 5-shot %", Some(65.1), 39.3, WANDA_24),
    ("LLaMA-3.1-8B", "unstructured@0.5", "Wanda, not trained", "MMLU, 5-shot %", Some(65.1), 50.0, WANDA_24),
    ("LLaMA-2-7B", "unstructured@0.3", "magnitude, not trained", PPL, Some(5.114), 5.735, RERUN),
    ("LLaMA-2-7B", "unstructured@0.3", "Wanda, not trained", PPL, Some(5.114), 5.524, RERUN),
    ("LLaMA-2-7B", "unstructured@0.5", "magnitude, not trained", PPL, Some(5.114), 11.832, RERUN),
    ("LLaMA-2-7B", "unstructured@0.5", "Wanda, not trained", PPL, Some(5.114), 6.415, RERUN),
    ("LLaMA-2-7B", "unstructured@0.7", "Wanda, not trained", PPL, Some(5.114), 68.8, RERUN),
    ("ResNet-50", "unstructured@0.8", "RigL, trained sparse", "ImageNet top-1 %", Some(76.8), 75.12, RIGL),
    ("ResNet-50", "unstructured@0.9", "RigL, trained sparse", "ImageNet top-1 %", Some(76.8), 73.07, RIGL),
    ("ResNet-50", "unstructured@0.95", "RigL 5x, trained sparse", "ImageNet top-1 %", Some(76.8), 74.63, RIGL),
    ("BERT-base", "unstructured@0.85", "Prune-OFA, trained", "SQuAD 1.1 F1", None, 88.42, OFA),
    ("BERT-base", "unstructured@0.9", "Prune-OFA, trained", "SQuAD 1.1 F1", None, 87.25, OFA),
    ("BERT-base", "block:1x4@0.8", "Prune-OFA, trained", "SQuAD 1.1 F1", None, 88.47, OFA),
];

/// Published results, a line each, under a heading; empty where there are none.
pub fn beside(published: &[Published]) -> String {
    if published.is_empty() {
        return String::new();
    }
    let lines = published.iter().map(|p| format!("\n  {}", p.line()));
    format!("Published for other networks, no prediction for this one:{}", lines.collect::<String>())
}

/// Fractions of zeros that differ by less are the same question.
const NEAR: f64 = 0.051;

/// What is published of a pattern: the same N:M, or the same kind with about as many zeros.
pub fn of(pattern: SparsityPattern) -> Vec<Published> {
    let alike = |row: &&Row| row.1.parse::<SparsityPattern>().is_ok_and(|p| is_like(p, pattern));
    let owned = |&(network, pattern, method, metric, dense, pruned, source): &Row| Published {
        network: network.to_owned(),
        pattern: pattern.to_owned(),
        method: method.to_owned(),
        metric: metric.to_owned(),
        dense,
        pruned,
        source: source.to_owned(),
    };
    ROWS.iter().filter(alike).map(owned).collect()
}

fn is_like(published: SparsityPattern, asked: SparsityPattern) -> bool {
    match (published, asked) {
        (SparsityPattern::Unstructured(a), SparsityPattern::Unstructured(b)) => (a - b).abs() < NEAR,
        (SparsityPattern::Block { rows, cols, sparsity }, SparsityPattern::Block { rows: r, cols: c, sparsity: s }) => {
            (rows, cols) == (r, c) && (sparsity - s).abs() < NEAR
        }
        (a, b) => a == b,
    }
}

impl Published {
    /// One line for people.
    pub fn line(&self) -> String {
        let Self { network, pattern, method, metric, pruned, source, .. } = self;
        let from = self.dense.map_or_else(String::new, |d| format!("{d} → "));
        format!("{network} {pattern}, {method}: {metric} {from}{pruned} ({source})")
    }
}

#[cfg(test)]
mod tests {
    use super::{ROWS, of};

    #[test]
    fn patterns_find_what_is_published_of_them_alone() {
        for row in ROWS {
            assert!(of(row.1.parse().unwrap()).iter().any(|p| (&p.network[..], p.pruned) == (row.0, row.5)), "{row:?}");
        }
        let found = |text: &str| of(text.parse().unwrap()).len();
        assert_eq!((found("2:4"), found("4:8"), found("1:4"), found("channel@0.5")), (5, 1, 0, 0));
        assert_eq!((found("unstructured@0.52"), found("unstructured@0.4"), found("block:8x1@0.8")), (3, 0, 0));
    }
}
