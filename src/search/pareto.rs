//! The Pareto front of what was visited: exact, and no larger than itself.

/// Most objectives of a search.
pub const MOST: usize = 5;

/// One visited point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Visited<F> {
    /// Its place in the space.
    pub index: u64,
    /// Its objectives, all minimised; those beyond the search's number are zero.
    pub key: [f64; MOST],
    /// What is known of it.
    pub figures: F,
}

impl<F> Visited<F> {
    /// No worse in any objective and better in one, or equal in all and earlier. A strict partial order, so that the front
    /// is one set whatever the order of visits.
    pub fn dominates(&self, other: &Self) -> bool {
        let mut better = false;
        for (a, b) in self.key.iter().zip(&other.key) {
            if a > b {
                return false;
            }
            better |= a < b;
        }
        better || self.index < other.index
    }
}

/// The points that no visited point dominates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Front<F> {
    points: Vec<Visited<F>>,
}

impl<F: Clone> Front<F> {
    /// Of nothing.
    pub fn new() -> Self {
        Self { points: Vec::new() }
    }

    /// Takes a point unless something dominates it; throws out what it dominates. Says whether it was taken.
    pub fn insert(&mut self, point: Visited<F>) -> bool {
        if let Some(at) = self.points.iter().position(|p| p.dominates(&point) || p.index == point.index) {
            // Neighbours in the space fall to the same points: the last that won is asked first.
            self.points.swap(0, at);
            return false;
        }
        self.points.retain(|p| !point.dominates(p));
        self.points.push(point);
        true
    }

    /// Whether a point would be taken, starting the search at `hint`, which becomes the place of what dominates it.
    pub fn admits(&self, point: &Visited<F>, hint: &mut usize) -> bool {
        if self.points.get(*hint).is_some_and(|p| p.dominates(point)) {
            return false;
        }
        match self.points.iter().position(|p| p.dominates(point)) {
            Some(at) => {
                *hint = at;
                false
            }
            None => true,
        }
    }

    /// Both fronts' front.
    pub fn merge(&mut self, other: Self) {
        for point in other.points {
            self.insert(point);
        }
    }

    /// Points in the order of the space.
    pub fn sorted(&self) -> Vec<Visited<F>> {
        let mut points = self.points.clone();
        points.sort_by_key(|p| p.index);
        points
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}
