//! Control flow and calls: the bodies that run are inlined, loops turn by turn.

use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use super::scope::{Scope, label};
use super::value::{self, Data, Elem, Info};
use super::walk::{Opsets, Walk, opsets};
use crate::error::Result;
use crate::workload::layer::Op as LayerOp;

/// Turns of a loop that are unrolled at most.
const MAX_TURNS: u64 = 4096;

/// Nodes after which loops are no longer unrolled.
const MAX_UNROLLED: usize = 500_000;

impl Walk<'_> {
    /// Outputs of a node that runs other nodes; `None` for all others.
    pub fn control(
        &mut self,
        node: &NodeProto,
        ids: &[Option<usize>],
        scope: &Scope,
        sets: &Opsets,
    ) -> Result<Option<Vec<usize>>> {
        let domain = if node.domain == "ai.onnx" { "" } else { node.domain.as_str() };
        let body = |name: &str| {
            let found = node.attribute.iter().find(|a| a.name == name).and_then(|a| a.g.as_ref());
            found.ok_or_else(|| self.fault(&label(node), format!("{} has no body `{name}`", node.op_type)))
        };
        Ok(Some(match (domain, node.op_type.as_str()) {
            ("", "If") => {
                let (yes, no) = (body("then_branch")?, body("else_branch")?);
                self.branch(node, ids, yes, no, scope, sets)?
            }
            ("", "Loop") => {
                let body = body("body")?;
                self.repeat(node, ids, body, scope, sets)?
            }
            ("", "Scan") => {
                let body = body("body")?;
                self.scan(node, ids, body, scope, sets)?
            }
            _ => match self.functions.get(&(domain, node.op_type.as_str())).copied() {
                Some(f) => self.call(node, ids, f, scope)?,
                None => return Ok(None),
            },
        }))
    }

    /// Runs a subgraph on already bound inputs and returns what its outputs are.
    fn body(
        &mut self,
        node: &NodeProto,
        g: &GraphProto,
        args: &[usize],
        suffix: String,
        scope: &Scope,
        sets: &Opsets,
    ) -> Result<Vec<usize>> {
        let mut inner = Scope::inner(scope, suffix);
        self.initializers(g, &mut inner)?;
        for (input, &id) in g.input.iter().zip(args) {
            inner.bind(&input.name, id);
        }
        if g.input.len() > args.len() {
            return Err(
                self.fault(&label(node), format!("its body takes {} inputs and gets {}", g.input.len(), args.len()))
            );
        }
        self.run(&g.node, &g.value_info, &g.output, &mut inner, sets)?;
        g.output
            .iter()
            .map(|o| {
                inner
                    .find(&o.name)
                    .ok_or_else(|| self.fault(&label(node), format!("its body never produces `{}`", o.name)))
            })
            .collect()
    }

    fn branch(
        &mut self,
        node: &NodeProto,
        ids: &[Option<usize>],
        yes: &GraphProto,
        no: &GraphProto,
        scope: &Scope,
        sets: &Opsets,
    ) -> Result<Vec<usize>> {
        let suffix = scope.suffix.clone();
        let pick = |t: bool| if t { yes } else { no };
        if let Some(c) = ids.first().copied().flatten().and_then(|i| self.tensors[i].info.int()) {
            return self.body(node, pick(c != 0), &[], suffix, scope, sets);
        }
        let key = format!("{}{}{}/{}", scope.prefix, label(node), scope.suffix, scope.depth);
        if let Some(&choice) = self.choices.get(&key) {
            return self.body(node, pick(choice), &[], suffix, scope, sets);
        }
        // The condition is not known before the network runs, so the branch that costs more is the one to plan for.
        let mark = self.mark();
        let from = mark.layers();
        let first = self.body(node, yes, &[], suffix.clone(), scope, sets);
        let cost_yes = self.macs_since(from);
        self.rollback(mark);
        let mark = self.mark();
        let second = self.body(node, no, &[], suffix.clone(), scope, sets);
        let cost_no = self.macs_since(from);
        let choice = match (&first, &second) {
            (Ok(_), Ok(_)) => cost_yes >= cost_no,
            (Ok(_), Err(_)) => true,
            _ => false,
        };
        self.choices.insert(key, choice);
        let outs = if choice {
            self.rollback(mark);
            self.body(node, yes, &[], suffix, scope, sets)?
        } else {
            second?
        };
        let (name, a, b) = (label(node), if choice { "then" } else { "else" }, cost_yes.abs_diff(cost_no));
        self.warn(format!("`{name}`: which branch of this If runs depends on the data; the {a} branch is counted (the other has {b} MACs less)"));
        Ok(outs)
    }

    fn repeat(
        &mut self,
        node: &NodeProto,
        ids: &[Option<usize>],
        g: &GraphProto,
        scope: &Scope,
        sets: &Opsets,
    ) -> Result<Vec<usize>> {
        let name = label(node);
        let known = |w: &Self, i: usize| ids.get(i).copied().flatten().and_then(|i| w.tensors[i].info.int());
        let given = |i: usize| ids.get(i).copied().flatten();
        let trips = known(self, 0).and_then(|t| u64::try_from(t).ok()).filter(|&t| t < i64::MAX as u64 / 2);
        let first_cond = match given(1) {
            None => Some(1),
            Some(_) => known(self, 1),
        };
        let carried_n = ids.len().saturating_sub(2);
        let mut carried: Vec<usize> = ids
            .iter()
            .skip(2)
            .map(|i| i.ok_or_else(|| self.fault(&name, "carries an input that is left out")))
            .collect::<Result<_>>()?;
        let stacked_n = g.output.len().saturating_sub(1 + carried_n);
        let mut stacks: Vec<Vec<usize>> = vec![Vec::new(); stacked_n];
        let mut cond = first_cond;
        let limit = trips.unwrap_or(MAX_TURNS).min(MAX_TURNS);
        let mut turn = 0;
        while turn < limit && cond != Some(0) && (turn == 0 || self.steps < MAX_UNROLLED) {
            let mut args = Vec::with_capacity(2 + carried_n);
            args.push(self.add("", Info::known(Elem::I64, vec![], Data::Ints(vec![turn as i64])), None, Vec::new()));
            let mut flag = Info::new(Elem::Bool, vec![]);
            if let Some(c) = cond {
                flag = Info::known(Elem::Bool, vec![], Data::Ints(vec![c]));
            }
            flag.constant = true;
            args.push(self.add("", flag, None, Vec::new()));
            args.extend(&carried);
            let outs = self.body(node, g, &args, format!("{}#{turn}", scope.suffix), scope, sets)?;
            if outs.len() < 1 + carried_n {
                return Err(
                    self.fault(&name, format!("its body makes {} outputs for {carried_n} carried values", outs.len()))
                );
            }
            cond = self.tensors[outs[0]].info.int();
            carried = outs[1..=carried_n].to_vec();
            for (stack, &o) in stacks.iter_mut().zip(&outs[1 + carried_n..]) {
                stack.push(o);
            }
            turn += 1;
            // A limit that is only known at run time leaves the count open even where the body always says "go on".
            if trips.is_none() && (cond.is_none() || (given(0).is_some() && known(self, 0).is_none())) {
                self.warn(format!("`{name}`: how often this Loop turns depends on the data; one turn is counted"));
                break;
            }
        }
        if cond != Some(0) && (trips.is_some_and(|t| t > turn) || (trips.is_none() && cond.is_some())) {
            let all = trips.map_or_else(|| "all".to_owned(), |t| t.to_string());
            self.warn(format!("`{name}`: {turn} of {all} turns of this Loop are counted"));
        }
        let mut outs = carried;
        for (i, stack) in stacks.iter().enumerate() {
            outs.push(self.stack(node, stack, 1 + carried_n + i, scope, 0));
        }
        Ok(outs)
    }

    fn scan(
        &mut self,
        node: &NodeProto,
        ids: &[Option<usize>],
        g: &GraphProto,
        scope: &Scope,
        sets: &Opsets,
    ) -> Result<Vec<usize>> {
        let name = label(node);
        let ints = |n: &str| node.attribute.iter().find(|a| a.name == n).map(|a| a.ints.clone()).unwrap_or_default();
        let scans = node.attribute.iter().find(|a| a.name == "num_scan_inputs").map_or(0, |a| a.i);
        let mut ids = ids.to_vec();
        let old = sets.get("").is_some_and(|&v| v < 9);
        if old && !ids.is_empty() {
            // Operator set 8 has a list of lengths first and a batch axis in front; the batch is one more turn to it.
            ids.remove(0);
        }
        let given: Vec<usize> =
            ids.iter().map(|i| i.ok_or_else(|| self.fault(&name, "lacks an input"))).collect::<Result<_>>()?;
        let states = usize::try_from(scans)
            .ok()
            .and_then(|s| given.len().checked_sub(s))
            .ok_or_else(|| self.fault(&name, format!("scans {scans} of {} inputs", given.len())))?;
        let axes = ints("scan_input_axes");
        let mut carried = given[..states].to_vec();
        let scanned = &given[states..];
        let mut along = Vec::new();
        for (i, &t) in scanned.iter().enumerate() {
            let rank = self.tensors[t].info.rank();
            let axis = axes.get(i).copied().unwrap_or(i64::from(old));
            along.push(value::axis(axis, rank).map_err(|e| self.fault(&name, e))?);
        }
        let turns = scanned.first().map_or(0, |&t| self.tensors[t].info.shape[along[0]]);
        let stacked_n = g.output.len().saturating_sub(states);
        let mut stacks: Vec<Vec<usize>> = vec![Vec::new(); stacked_n];
        let mut done = 0;
        while done < turns.min(MAX_TURNS) && (done == 0 || self.steps < MAX_UNROLLED) {
            let turn = done;
            done += 1;
            let suffix = format!("{}#{turn}", scope.suffix);
            let mut args = carried.clone();
            for (&t, &axis) in scanned.iter().zip(&along) {
                let mut info = self.tensors[t].info.clone();
                info.shape.remove(axis);
                info.data = None;
                info.origin = None;
                if info.constant {
                    args.push(self.add("", info, None, vec![t]));
                } else {
                    args.push(self.plain(&format!("{name}/slice"), &suffix, "Scan", LayerOp::Opaque, &[t], info));
                }
            }
            let outs = self.body(node, g, &args, suffix, scope, sets)?;
            if outs.len() < states {
                return Err(self.fault(&name, "its body makes too few outputs"));
            }
            carried = outs[..states].to_vec();
            for (stack, &o) in stacks.iter_mut().zip(&outs[states..]) {
                stack.push(o);
            }
        }
        if turns > done {
            self.warn(format!("`{name}`: {done} of {turns} turns of this Scan are counted"));
        }
        let to = ints("scan_output_axes");
        let mut outs = carried;
        for (i, stack) in stacks.iter().enumerate() {
            let axis = to.get(i).copied().unwrap_or(i64::from(old));
            outs.push(self.stack(node, stack, states + i, scope, axis));
        }
        Ok(outs)
    }

    /// What the turns of a loop made, side by side along a new axis.
    fn stack(&mut self, node: &NodeProto, parts: &[usize], output: usize, scope: &Scope, axis: i64) -> usize {
        let mut info = match parts.first() {
            Some(&p) => self.tensors[p].info.clone(),
            None => Info::new(Elem::Unknown, Vec::new()),
        };
        let axis = value::axis(axis, info.rank() + 1).unwrap_or(0);
        info.shape.insert(axis, parts.len() as u64);
        info.data = None;
        info.origin = None;
        info.constant = !parts.is_empty() && parts.iter().all(|&p| self.tensors[p].info.constant);
        if info.constant {
            return self.add("", info, None, parts.to_vec());
        }
        let name = format!("{}/stack{output}", label(node));
        self.plain(&name, &scope.suffix, &node.op_type, LayerOp::Opaque, parts, info)
    }

    fn call(
        &mut self,
        node: &NodeProto,
        ids: &[Option<usize>],
        f: &FunctionProto,
        scope: &Scope,
    ) -> Result<Vec<usize>> {
        let sets = opsets(&f.opset_import);
        let mut inner = Scope::function(scope, format!("{}{}/", scope.prefix, label(node)));
        for (name, id) in f.input.iter().zip(ids) {
            if let Some(id) = id {
                inner.bind(name, *id);
            }
        }
        let fixed =
            |n: &NodeProto| n.op_type == "Constant" && n.attribute.iter().any(|a| a.name == "value" && a.t.is_some());
        let copies = std::mem::take(&mut self.copies);
        for n in f.node.iter().filter(|n| fixed(n)) {
            if let (Some(name), Some(t)) = (n.output.first(), n.attribute.iter().find_map(|a| a.t.as_ref())) {
                let id = self.constant_node(name, t)?;
                inner.bind(name, id);
            }
        }
        self.copies = copies;
        let nodes: Vec<NodeProto> = f.node.iter().filter(|n| !fixed(n)).map(|n| bound(n, node, f, 0)).collect();
        // An argument that is left out is an empty input of whoever reads it.
        let absent: Vec<&String> = f.input.iter().filter(|i| inner.find(i).is_none()).collect();
        let nodes: Vec<NodeProto> = nodes
            .into_iter()
            .map(|mut n| {
                n.input.iter_mut().filter(|i| absent.contains(&&**i)).for_each(String::clear);
                n
            })
            .collect();
        self.copies += 1;
        let run = self.run(&nodes, &[], &[], &mut inner, &sets);
        self.copies -= 1;
        run?;
        f.output
            .iter()
            .map(|o| {
                inner
                    .find(o)
                    .ok_or_else(|| self.fault(&label(node), format!("function {} never produces `{o}`", f.name)))
            })
            .collect()
    }
}

/// A node of a function with the caller's attributes in place of references.
fn bound(node: &NodeProto, caller: &NodeProto, f: &FunctionProto, depth: usize) -> NodeProto {
    let mut node = node.clone();
    node.attribute = node
        .attribute
        .into_iter()
        .filter_map(|mut a| {
            if !a.ref_attr_name.is_empty() {
                let given = caller.attribute.iter().chain(&f.attribute_proto).find(|c| c.name == a.ref_attr_name)?;
                return Some(AttributeProto { name: a.name, ..given.clone() });
            }
            if let Some(g) = a.g.as_mut().filter(|_| depth < 16) {
                g.node = g.node.iter().map(|n| bound(n, caller, f, depth + 1)).collect();
            }
            Some(a)
        })
        .collect();
    node
}
