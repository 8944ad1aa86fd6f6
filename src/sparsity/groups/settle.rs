//! After the walk: what is tied or kept whatever the operations say.

use super::axes::Axis;
use super::follow::Follow;
use crate::workload::layer::Op;
use petgraph::graph::NodeIndex;
use std::collections::HashMap;

impl Follow<'_> {
    /// Layers that read one stored tensor lose the same parts of it.
    pub(super) fn tie_shared_parameters(&mut self) {
        let mut seen: HashMap<&str, (usize, usize)> = HashMap::new();
        for &node in self.graph.order() {
            let layer = self.graph.layer(node);
            for (i, p) in layer.params.iter().enumerate().filter(|(_, p)| !p.name.is_empty()) {
                let Some(&(other, j)) = seen.get(p.name.as_str()) else {
                    seen.insert(&p.name, (node.index(), i));
                    continue;
                };
                let (a, b) = (self.layouts[other].params[j].clone(), self.layouts[node.index()].params[i].clone());
                let place = format!("the shared parameter `{}`", p.name);
                if a.len() == b.len() {
                    a.iter().zip(&b).for_each(|(x, y)| self.space.unify(x, y, &place));
                } else {
                    let reason = format!("{place} is read in two shapes");
                    a.iter().chain(&b).for_each(|x| self.space.freeze(x, &reason));
                }
            }
        }
    }

    /// What the network answers with keeps its shape.
    pub(super) fn freeze_answers(&mut self, node: NodeIndex) {
        let layer = self.graph.layer(node);
        let mut read = vec![false; layer.outputs.len()];
        for (_, edge) in self.graph.consumers(node) {
            read[edge.output as usize] = true;
        }
        // Statistics beside a result that is read are no answer, unless the network names them as one.
        let beside = read.contains(&true) && layer.outputs.len() > 1 && !matches!(layer.op, Op::Split { .. });
        let reason = format!("`{}` is an output of the network", layer.name);
        let mut answers: Vec<Axis> = Vec::new();
        for ((tensor, axes), read) in layer.outputs.iter().zip(&self.layouts[node.index()].outputs).zip(read) {
            if self.graph.answers.contains(&tensor.name) || !read && !beside {
                answers.extend_from_slice(axes);
            }
        }
        for axis in answers {
            self.space.freeze(&axis, &reason);
        }
    }

    /// Of an axis that is a product of several classes only the outermost may lose units: whole heads, not features of
    /// every head.
    pub(super) fn keep_one_factor(&mut self) {
        let axes: Vec<Axis> =
            self.layouts.iter().flat_map(|l| l.outputs.iter().chain(&l.params).flatten()).cloned().collect();
        for axis in axes {
            let axis = self.space.resolve(&axis);
            self.keep_outermost(&axis);
        }
    }

    fn keep_outermost(&mut self, axis: &Axis) {
        match axis {
            Axis::Fixed(_) | Axis::Class(..) => {}
            Axis::Concat(parts) => parts.iter().for_each(|p| self.keep_outermost(p)),
            Axis::Product(factors) => {
                let mut outer = None;
                for f in factors {
                    let mut free = false;
                    f.each_class(&mut |c, _| free |= self.space.is_free(c));
                    if free && outer.is_some() {
                        self.space.freeze(f, "its units are removed whole, not a part of each");
                    } else if free {
                        self.keep_outermost(f);
                        outer = Some(());
                    }
                }
            }
        }
    }
}
