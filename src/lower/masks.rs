//! Real masks put into lowered operations, so that costs count them instead of expecting.

use super::{Lowered, Source, Step};
use crate::sparsity::{Mask, WeightStats};
use crate::workload::Graph;
use std::collections::HashMap;
use std::sync::Arc;

/// Masks of layers' weight matrices by the layer's name, one for each of its products in order.
pub type Masks = HashMap<String, Vec<Arc<Mask>>>;

/// Gives every product whose layer has a mask of its shape the mask's statistics. A product of several groups keeps its
/// expectations: one mask cannot speak for all of them.
pub fn count_masks(steps: &mut [Step], graph: &Graph, masks: &Masks) {
    for step in steps.iter_mut().filter(|s| s.prunable) {
        let Some(own) = masks.get(&graph.layer(step.lead).name) else { continue };
        let products = step.ops.iter_mut().filter_map(|op| match op {
            Lowered::Gemm(g) if !matches!(g.source, Source::Activations) => Some(g),
            _ => None,
        });
        for (product, mask) in products.zip(own) {
            let fits = (mask.rows(), mask.cols()) == (product.gemm.n, product.gemm.k);
            let pattern = product.weights.pattern();
            if product.gemm.groups == 1 && fits && !pattern.is_dense() {
                product.weights = WeightStats::counted(pattern, mask.clone());
            }
        }
    }
}
