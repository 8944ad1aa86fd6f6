//! What the indices of a tensor axis mean: a tree of dimension classes, and the unification of such trees.
//!
//! Two axes that must lose the same indices are *unified*. A class starts as one indivisible run of indices; when one
//! use cuts it (a split, a concatenation next to it, a reshape into heads) it is bound to the finer tree, so that
//! every other tensor that shares the class sees the cut as well. This is term unification (Robinson, JACM 1965) with
//! two constructors; the classes that stay free are the dependency groups of DepGraph (Fang et al., CVPR 2023).

/// Number of a dimension class.
pub type ClassId = u32;

/// The structure of the indices along one axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Indices that mean nothing to channel removal: batch, tokens, pixels.
    Fixed(u64),
    /// All indices of a dimension class, in order.
    Class(ClassId, u64),
    /// Row-major product, outermost factor first: `c·HW` after a flatten, `heads·head_dim`.
    Product(Vec<Axis>),
    /// One range after another: a concatenation.
    Concat(Vec<Axis>),
}

impl Axis {
    /// Number of indices.
    pub fn extent(&self) -> u64 {
        self.extent_with(&|_, n| n)
    }

    /// Number of indices when each class has the extent that `size(class, extent now)` says.
    pub fn extent_with(&self, size: &impl Fn(ClassId, u64) -> u64) -> u64 {
        match self {
            Self::Fixed(n) => *n,
            Self::Class(c, n) => size(*c, *n),
            Self::Product(f) => f.iter().fold(1, |a, x| a.saturating_mul(x.extent_with(size))),
            Self::Concat(p) => p.iter().fold(0, |a, x| a.saturating_add(x.extent_with(size))),
        }
    }

    /// Calls `f` with every class in it, in order of position, repetitions included.
    pub fn each_class(&self, f: &mut impl FnMut(ClassId, u64)) {
        match self {
            Self::Fixed(_) => {}
            Self::Class(c, n) => f(*c, *n),
            Self::Product(all) | Self::Concat(all) => all.iter().for_each(|a| a.each_class(f)),
        }
    }

    /// For each index, whether it stays when `keep(class, unit)` says which units of each class stay.
    pub fn mask(&self, keep: &impl Fn(ClassId, u64) -> bool) -> Vec<bool> {
        match self {
            Self::Fixed(n) => vec![true; *n as usize],
            Self::Class(c, n) => (0..*n).map(|i| keep(*c, i)).collect(),
            Self::Concat(parts) => parts.iter().flat_map(|p| p.mask(keep)).collect(),
            Self::Product(factors) => factors.iter().fold(vec![true], |outer, f| {
                let inner = f.mask(keep);
                outer.iter().flat_map(|&o| inner.iter().map(move |&i| o && i)).collect()
            }),
        }
    }

    /// For each place, the index that comes there when `order(class)` says which unit comes where; classes without an
    /// order stay as they are.
    pub fn reordered<'o>(&self, order: &impl Fn(ClassId) -> Option<&'o [usize]>) -> Vec<usize> {
        match self {
            Self::Fixed(n) => (0..*n as usize).collect(),
            Self::Class(c, n) => order(*c).map_or_else(|| (0..*n as usize).collect(), <[usize]>::to_vec),
            Self::Concat(parts) => {
                let mut all = Vec::with_capacity(self.extent() as usize);
                for part in parts {
                    let before = all.len();
                    all.extend(part.reordered(order).into_iter().map(|i| before + i));
                }
                all
            }
            Self::Product(factors) => factors.iter().fold(vec![0], |outer, f| {
                let inner = f.reordered(order);
                outer
                    .iter()
                    .flat_map(|&o| inner.iter().map(move |&i| (o, i)))
                    .map(|(o, i)| o * inner.len() + i)
                    .collect()
            }),
        }
    }

    /// For each index, the unit of a class that it belongs to.
    pub fn units(&self, class: ClassId) -> Vec<Option<u64>> {
        match self {
            Self::Class(c, n) if *c == class => (0..*n).map(Some).collect(),
            Self::Fixed(n) | Self::Class(_, n) => vec![None; *n as usize],
            Self::Concat(parts) => parts.iter().flat_map(|p| p.units(class)).collect(),
            Self::Product(factors) => factors.iter().fold(vec![None], |outer, f| {
                let inner = f.units(class);
                outer.iter().flat_map(|&o| inner.iter().map(move |&i| o.or(i))).collect()
            }),
        }
    }

    /// Indices that one unit of a class stands for on this axis.
    pub fn width(&self, class: ClassId) -> u64 {
        match self {
            Self::Fixed(_) => 0,
            Self::Class(c, _) => u64::from(*c == class),
            Self::Concat(parts) => parts.iter().map(|p| p.width(class)).sum(),
            Self::Product(factors) => {
                let total = self.extent();
                factors.iter().map(|f| f.width(class) * (total / f.extent().max(1))).sum()
            }
        }
    }

    fn product(factors: Vec<Self>) -> Self {
        let mut flat: Vec<Self> = Vec::with_capacity(factors.len());
        for f in factors {
            let list = if let Self::Product(inner) = f { inner } else { vec![f] };
            for x in list {
                match (flat.last_mut(), x) {
                    (_, Self::Fixed(1)) => {}
                    (Some(Self::Fixed(a)), Self::Fixed(b)) => *a = a.saturating_mul(b),
                    (_, x) => flat.push(x),
                }
            }
        }
        match flat.len() {
            0 => Self::Fixed(1),
            1 => flat.swap_remove(0),
            _ => Self::Product(flat),
        }
    }

    fn concat(parts: Vec<Self>) -> Self {
        let mut flat: Vec<Self> = Vec::with_capacity(parts.len());
        for p in parts {
            let list = if let Self::Concat(inner) = p { inner } else { vec![p] };
            for x in list {
                match (flat.last_mut(), x) {
                    (_, Self::Fixed(0)) => {}
                    (Some(Self::Fixed(a)), Self::Fixed(b)) => *a = a.saturating_add(b),
                    (_, x) => flat.push(x),
                }
            }
        }
        match flat.len() {
            0 => Self::Fixed(0),
            1 => flat.swap_remove(0),
            _ => Self::Concat(flat),
        }
    }

    /// The ranges that it is made of, one after another.
    fn parts(self) -> Vec<Self> {
        match self {
            Self::Concat(parts) => parts,
            Self::Product(mut factors) if matches!(factors[0], Self::Concat(_)) => {
                let rest = factors.split_off(1);
                let parts = factors.swap_remove(0).parts().into_iter();
                parts.map(|p| Self::product([vec![p], rest.clone()].concat())).collect()
            }
            other => vec![other],
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    Free,
    Frozen(usize),
    Bound(Axis),
}

/// All classes with what is known of them.
#[derive(Clone, Debug, Default)]
pub struct Space {
    states: Vec<State>,
    reasons: Vec<String>,
}

impl Space {
    /// A new class, or a fixed axis where there is nothing to choose from.
    pub fn class(&mut self, extent: u64) -> Axis {
        if extent <= 1 {
            return Axis::Fixed(extent);
        }
        self.states.push(State::Free);
        Axis::Class((self.states.len() - 1) as ClassId, extent)
    }

    /// Follows bindings to the classes that are still whole; Concat and Product come flattened.
    pub fn resolve(&mut self, axis: &Axis) -> Axis {
        match axis {
            Axis::Fixed(n) => Axis::Fixed(*n),
            Axis::Class(c, n) => {
                let mut path = Vec::new();
                let mut at = *c;
                let end = loop {
                    match &self.states[at as usize] {
                        State::Bound(Axis::Class(next, _)) => {
                            path.push(at);
                            at = *next;
                        }
                        State::Bound(tree) => {
                            let tree = tree.clone();
                            path.push(at);
                            break self.resolve(&tree);
                        }
                        State::Free | State::Frozen(_) => break Axis::Class(at, *n),
                    }
                };
                for p in path {
                    self.states[p as usize] = State::Bound(end.clone());
                }
                end
            }
            Axis::Product(f) => Axis::product(f.iter().map(|x| self.resolve(x)).collect()),
            Axis::Concat(p) => Axis::concat(p.iter().map(|x| self.resolve(x)).collect()),
        }
    }

    /// Why a class must stay whole; `None` for a free one.
    pub fn reason(&self, class: ClassId) -> Option<&str> {
        match self.states.get(class as usize) {
            Some(State::Frozen(r)) => Some(&self.reasons[*r]),
            _ => None,
        }
    }

    /// Whether a resolved class may lose units.
    pub fn is_free(&self, class: ClassId) -> bool {
        matches!(self.states.get(class as usize), Some(State::Free))
    }

    fn has_free(&self, axis: &Axis) -> bool {
        let mut found = false;
        axis.each_class(&mut |c, _| found |= self.is_free(c));
        found
    }

    /// The first reason in a resolved axis for which one of its classes stays whole.
    pub fn first_reason(&self, axis: &Axis) -> Option<String> {
        let mut found = None;
        axis.each_class(&mut |c, _| {
            if found.is_none() {
                found = self.reason(c).map(str::to_owned);
            }
        });
        found
    }

    /// Every class in the axis must stay whole.
    pub fn freeze(&mut self, axis: &Axis, reason: &str) {
        let axis = self.resolve(axis);
        let mut free = Vec::new();
        axis.each_class(&mut |c, _| free.push(c));
        free.retain(|&c| self.is_free(c));
        if free.is_empty() {
            return;
        }
        self.reasons.push(reason.to_owned());
        for c in free {
            self.states[c as usize] = State::Frozen(self.reasons.len() - 1);
        }
    }

    /// Both axes lose the same indices from now on. What cannot be aligned is frozen on both sides: always sound.
    pub fn unify(&mut self, x: &Axis, y: &Axis, place: &str) {
        let (x, y) = (self.resolve(x), self.resolve(y));
        if x == y {
            return;
        }
        if x.extent() != y.extent() {
            return self.freeze_both(&x, &y, place);
        }
        let (free_x, free_y) = (self.has_free(&x), self.has_free(&y));
        match (&x, &y) {
            (Axis::Class(a, _), Axis::Class(b, _)) if free_x && free_y => {
                // The older class stays, so that a residual stream keeps one root.
                let (root, leaf) = if a < b { (&x, *b) } else { (&y, *a) };
                self.states[leaf as usize] = State::Bound(root.clone());
            }
            _ if !free_x && !free_y => {}
            _ if !free_x || !free_y => {
                let (whole, open) = if free_x { (&y, &x) } else { (&x, &y) };
                let reason = self
                    .first_reason(whole)
                    .unwrap_or_else(|| format!("{place} ties it to an axis that is not made of channels"));
                self.freeze(open, &reason);
            }
            (Axis::Class(c, _), tree) | (tree, Axis::Class(c, _)) => {
                let mut inside = false;
                tree.each_class(&mut |d, _| inside |= d == *c);
                if inside {
                    return self.freeze_both(&x, &y, place);
                }
                self.states[*c as usize] = State::Bound(tree.clone());
            }
            _ => self.unify_trees(x, y, place),
        }
    }

    fn freeze_both(&mut self, x: &Axis, y: &Axis, place: &str) {
        let reason = format!("{place} arranges its channels in a way that cannot be followed");
        self.freeze(x, &reason);
        self.freeze(y, &reason);
    }

    fn unify_trees(&mut self, x: Axis, y: Axis, place: &str) {
        let (px, py) = (x.clone().parts(), y.clone().parts());
        if px.len() > 1 || py.len() > 1 {
            let cut = px[0].extent().min(py[0].extent());
            let (Some((x0, x1)), Some((y0, y1))) = (self.split_at(&x, cut), self.split_at(&y, cut)) else {
                return self.freeze_both(&x, &y, place);
            };
            self.unify(&x0, &y0, place);
            return self.unify(&x1, &y1, place);
        }
        let (Axis::Product(fx), Axis::Product(fy)) = (&x, &y) else {
            return self.freeze_both(&x, &y, place);
        };
        let outer = fx[0].extent().min(fy[0].extent());
        match (self.split_outer(&x, outer), self.split_outer(&y, outer)) {
            (Some((x0, x1)), Some((y0, y1))) if outer > 1 && x1.extent() > 1 => {
                self.unify(&x0, &y0, place);
                self.unify(&x1, &y1, place);
            }
            _ => self.freeze_both(&x, &y, place),
        }
    }

    /// The axis as its first `cut` indices and the rest, refining classes that are cut; `None` where a unit would be
    /// torn apart.
    pub fn split_at(&mut self, axis: &Axis, cut: u64) -> Option<(Axis, Axis)> {
        let axis = self.resolve(axis);
        let extent = axis.extent();
        if cut == 0 {
            return Some((Axis::Fixed(0), axis));
        }
        if cut == extent {
            return Some((axis, Axis::Fixed(0)));
        }
        if cut > extent {
            return None;
        }
        match axis {
            Axis::Fixed(n) => Some((Axis::Fixed(cut), Axis::Fixed(n - cut))),
            Axis::Class(c, n) => {
                let (front, back) = self.refine(c, cut, n - cut);
                self.states[c as usize] = State::Bound(Axis::Concat(vec![front.clone(), back.clone()]));
                Some((front, back))
            }
            Axis::Concat(parts) => {
                let mut before = 0;
                let at = parts.iter().position(|p| {
                    before += p.extent();
                    before >= cut
                })?;
                let inside = parts[at].extent() - (before - cut);
                let (front, back) = self.split_at(&parts[at], inside)?;
                let head = [&parts[..at], &[front]].concat();
                let tail = [&[back], &parts[at + 1..]].concat();
                Some((Axis::concat(head), Axis::concat(tail)))
            }
            Axis::Product(factors) => {
                let inner = extent / factors[0].extent();
                if !cut.is_multiple_of(inner) {
                    return None;
                }
                let (front, back) = self.split_at(&factors[0], cut / inner)?;
                let with = |f: Axis| Axis::product([&[f], &factors[1..]].concat());
                Some((with(front), with(back)))
            }
        }
    }

    /// The axis as a row-major product whose outer factor has `outer` indices, refining classes; `None` where the
    /// structure has no such factor.
    pub fn split_outer(&mut self, axis: &Axis, outer: u64) -> Option<(Axis, Axis)> {
        let axis = self.resolve(axis);
        let extent = axis.extent();
        if outer == 0 || !extent.is_multiple_of(outer) {
            return None;
        }
        let inner = extent / outer;
        if outer == 1 {
            return Some((Axis::Fixed(1), axis));
        }
        if inner == 1 {
            return Some((axis, Axis::Fixed(1)));
        }
        match axis {
            Axis::Fixed(_) => Some((Axis::Fixed(outer), Axis::Fixed(inner))),
            Axis::Class(c, _) => {
                let (o, i) = self.refine(c, outer, inner);
                self.states[c as usize] = State::Bound(Axis::Product(vec![o.clone(), i.clone()]));
                Some((o, i))
            }
            Axis::Product(factors) => {
                let (mut front, mut left) = (Vec::new(), outer);
                let mut rest = factors.into_iter();
                while left > 1 {
                    let f = rest.next()?;
                    let n = f.extent();
                    if left % n == 0 {
                        left /= n;
                        front.push(f);
                    } else {
                        let (a, b) = self.split_outer(&f, left)?;
                        front.push(a);
                        let back = Axis::product(std::iter::once(b).chain(rest).collect());
                        return Some((Axis::product(front), back));
                    }
                }
                Some((Axis::product(front), Axis::product(rest.collect())))
            }
            Axis::Concat(parts) => {
                if parts.iter().any(|p| p.extent() % inner != 0) {
                    return None;
                }
                let mut outers = Vec::with_capacity(parts.len());
                let mut shared: Option<Axis> = None;
                for p in parts {
                    let (o, i) = self.split_outer(&p, p.extent() / inner)?;
                    outers.push(o);
                    match &shared {
                        Some(s) => self.unify(&s.clone(), &i, "a reshape of joined tensors"),
                        None => shared = Some(i),
                    }
                }
                Some((Axis::concat(outers), shared?))
            }
        }
    }

    /// Two new classes that share the state of `class`.
    fn refine(&mut self, class: ClassId, first: u64, second: u64) -> (Axis, Axis) {
        let state = self.states[class as usize].clone();
        let mut new = |n: u64| {
            let axis = self.class(n);
            if let Axis::Class(c, _) = axis {
                self.states[c as usize] = state.clone();
            }
            axis
        };
        (new(first), new(second))
    }
}
