//! Names that a graph can see, and an order in which its nodes can run.

use super::proto::{GraphProto, NodeProto};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Names bound in a graph, on top of those of the graph around it.
#[derive(Default)]
pub struct Scope<'s> {
    names: HashMap<String, usize>,
    parent: Option<&'s Scope<'s>>,
    /// Put before the names of layers: where an inlined body was called.
    pub prefix: String,
    /// Put behind the names of layers: the turn of an unrolled loop.
    pub suffix: String,
    /// Nesting.
    pub depth: usize,
}

impl<'s> Scope<'s> {
    /// The scope of a subgraph, which sees what is around it.
    pub fn inner(parent: &'s Scope<'s>, suffix: String) -> Self {
        Self {
            names: HashMap::new(),
            parent: Some(parent),
            prefix: parent.prefix.clone(),
            suffix,
            depth: parent.depth + 1,
        }
    }

    /// The scope of a function, which sees only its arguments.
    pub fn function(caller: &Scope<'_>, prefix: String) -> Self {
        Self { prefix, suffix: caller.suffix.clone(), depth: caller.depth + 1, ..Self::default() }
    }

    /// Binds a name.
    pub fn bind(&mut self, name: &str, tensor: usize) {
        self.names.insert(name.to_owned(), tensor);
    }

    /// What a name means here.
    pub fn find(&self, name: &str) -> Option<usize> {
        let mut scope = Some(self);
        while let Some(s) = scope {
            if let Some(&t) = s.names.get(name) {
                return Some(t);
            }
            scope = s.parent;
        }
        None
    }
}

/// How a node is called in messages.
pub fn label(node: &NodeProto) -> String {
    match (node.name.as_str(), node.output.iter().find(|o| !o.is_empty())) {
        ("", Some(o)) => o.clone(),
        ("", None) => node.op_type.clone(),
        (name, _) => name.to_owned(),
    }
}

/// A node that cannot run, and why.
pub struct Stuck {
    /// Its label.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// An order of `nodes` in which every input is there before it is read: their own wherever that is one.
///
/// # Errors
/// A cycle, an input that nothing produces, or two nodes that produce one name.
pub fn order(nodes: &[NodeProto], scope: &Scope) -> Result<Vec<usize>, Stuck> {
    let mut producer: HashMap<&str, usize> = HashMap::with_capacity(nodes.len());
    for (i, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|o| !o.is_empty()) {
            if let Some(first) = producer.insert(name, i) {
                let reason = format!("produces `{name}`, which `{}` produces too", label(&nodes[first]));
                return Err(Stuck { node: label(node), reason });
            }
        }
    }
    let mut needs: Vec<Vec<usize>> = Vec::with_capacity(nodes.len());
    let mut sorted = true;
    for (i, node) in nodes.iter().enumerate() {
        let mut own = Vec::new();
        for name in node.input.iter().map(String::as_str).filter(|n| !n.is_empty()) {
            match producer.get(name) {
                Some(&p) => own.push(p),
                None if scope.find(name).is_some() => {}
                None => {
                    let reason = format!("reads `{name}`, which no node, input or initializer produces");
                    return Err(Stuck { node: label(node), reason });
                }
            }
        }
        let mut outer = HashSet::new();
        for body in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
            free_names(body, &mut outer);
        }
        own.extend(outer.iter().filter_map(|n| producer.get(n)));
        sorted &= own.iter().all(|&p| p < i);
        needs.push(own);
    }
    if sorted {
        return Ok((0..nodes.len()).collect());
    }
    let mut waiting: Vec<usize> = Vec::with_capacity(nodes.len());
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (i, own) in needs.iter_mut().enumerate() {
        own.sort_unstable();
        own.dedup();
        waiting.push(own.len());
        own.iter().for_each(|&p| readers[p].push(i));
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..nodes.len()).filter(|&i| waiting[i] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(i)) = ready.pop() {
        order.push(i);
        for &r in &readers[i] {
            waiting[r] -= 1;
            if waiting[r] == 0 {
                ready.push(Reverse(r));
            }
        }
    }
    if order.len() == nodes.len() {
        return Ok(order);
    }
    // Every node that is left waits for another one that is left, so walking back must come round.
    let mut at = (0..nodes.len()).find(|&i| waiting[i] > 0).unwrap_or(0);
    let mut seen = Vec::new();
    while !seen.contains(&at) {
        seen.push(at);
        at = needs[at].iter().copied().find(|&p| waiting[p] > 0).unwrap_or(at);
    }
    let from = seen.iter().position(|&s| s == at).unwrap_or(0);
    let names: Vec<String> = seen[from..].iter().rev().take(6).map(|&i| label(&nodes[i])).collect();
    Err(Stuck {
        node: names[0].clone(),
        reason: format!("nodes form a cycle ({} → …); a network must not feed itself", names.join(" → ")),
    })
}

/// Names that a body reads and does not produce.
fn free_names<'g>(body: &'g GraphProto, free: &mut HashSet<&'g str>) {
    let mut own: HashSet<&str> = body.initializer.iter().map(|t| t.name.as_str()).collect();
    own.extend(body.input.iter().map(|i| i.name.as_str()));
    own.extend(body.node.iter().flat_map(|n| n.output.iter().map(String::as_str)));
    let mut reads: HashSet<&str> = body.node.iter().flat_map(|n| n.input.iter().map(String::as_str)).collect();
    reads.extend(body.output.iter().map(|o| o.name.as_str()));
    for inner in body.node.iter().flat_map(|n| n.attribute.iter().filter_map(|a| a.g.as_ref())) {
        free_names(inner, &mut reads);
    }
    free.extend(reads.into_iter().filter(|n| !own.contains(n)));
}
