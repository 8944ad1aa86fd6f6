//! Set-associative caches with least-recently-used replacement, one behind the other.
//!
//! Every line that an access touches is looked up in the innermost level, and in each further one when the level inside
//! misses: write-allocate, no inclusion or exclusion enforced, which is also what cachegrind simulates (Nethercote and
//! Seward, PLDI 2007). On top of that, written lines are marked and written back when they are evicted; a write-back
//! changes neither order nor contents of the caches that it passes, so misses stay those of cachegrind.

use crate::error::{Error, Result};
use crate::profile::CacheLevel;
use serde::Serialize;

/// Whose bytes an access touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// Stored values of the weights.
    Weights,
    /// Indices, and where rows begin.
    Metadata,
    /// Activations where they lie.
    Inputs,
    /// Results where they belong.
    Outputs,
    /// Copies that the kernel makes: packed activations, tiles of results.
    Scratch,
}

impl Operand {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Weights, Self::Metadata, Self::Inputs, Self::Outputs, Self::Scratch];

    /// As in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Metadata => "metadata",
            Self::Inputs => "inputs",
            Self::Outputs => "outputs",
            Self::Scratch => "scratch",
        }
    }
}

/// What one operand did in one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Lines looked up.
    pub lookups: u64,
    /// Lines that were not there.
    pub misses: u64,
    /// Written lines that were evicted from here, or left at the end.
    pub write_backs: u64,
}

/// Tag bits below the line's number: three of the operand, one that says "written".
const DIRTY: u64 = 1;
const TAG_BITS: u32 = 4;
const EMPTY: u64 = u64::MAX;

#[derive(Clone, Debug)]
struct Level {
    shift: u32,
    ways: usize,
    sets: u64,
    /// `sets` is a power of two.
    mask: Option<u64>,
    /// Most recently used first, set by set.
    tags: Vec<u64>,
    counts: [Count; Operand::ALL.len()],
}

impl Level {
    #[inline]
    fn place(&self, address: u64, operand: Operand) -> (usize, u64) {
        let line = address >> self.shift;
        let set = match self.mask {
            Some(mask) => line & mask,
            None => line % self.sets,
        };
        (set as usize * self.ways, (line << TAG_BITS) | ((operand as u64) << 1))
    }

    /// Looks a line up and makes it the most recent. Returns whether it was there, and what it pushed out.
    #[inline]
    fn touch(&mut self, address: u64, operand: Operand, dirty: u64) -> (bool, u64) {
        let (base, tag) = self.place(address, operand);
        let set = &mut self.tags[base..base + self.ways];
        let count = &mut self.counts[operand as usize];
        count.lookups += 1;
        if set[0] & !DIRTY == tag {
            set[0] |= dirty;
            return (true, EMPTY);
        }
        let mut carried = set[0];
        for slot in set.iter_mut().skip(1) {
            let here = *slot;
            *slot = carried;
            if here & !DIRTY == tag {
                set[0] = here | dirty;
                return (true, EMPTY);
            }
            carried = here;
        }
        set[0] = tag | dirty;
        count.misses += 1;
        (false, carried)
    }

    /// Marks a line as written where it is present; order stays.
    fn mark(&mut self, address: u64, operand: Operand) -> bool {
        let (base, tag) = self.place(address, operand);
        match self.tags[base..base + self.ways].iter_mut().find(|t| **t & !DIRTY == tag) {
            Some(found) => {
                *found |= DIRTY;
                true
            }
            None => false,
        }
    }
}

fn operand_of(tag: u64) -> Operand {
    Operand::ALL[(tag >> 1 & 7) as usize % Operand::ALL.len()]
}

/// Caches of one core, innermost first.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    levels: Vec<Level>,
    /// Bytes that the core asked for, by operand.
    accessed: [u64; Operand::ALL.len()],
}

impl Hierarchy {
    /// Empty caches of these sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] where a line is no power of two or a level has no whole set or more than 2³² lines.
    pub fn new(caches: &[CacheLevel]) -> Result<Self> {
        let mut levels = Vec::with_capacity(caches.len());
        for cache in caches {
            let (line, size) = (cache.line.get() as u64, cache.size.get() as u64);
            let refuse = |reason: &str| Err(Error::argument("--profile", format!("cache {}: {reason}", cache.level)));
            if !line.is_power_of_two() {
                return refuse("a line must be a power of two bytes to be simulated");
            }
            let sets = (size / line).checked_div(cache.ways).unwrap_or(0);
            if sets == 0 || sets.saturating_mul(cache.ways) > 1 << 32 {
                return refuse("size, line and ways must make at least one set and at most 2^32 lines");
            }
            levels.push(Level {
                shift: line.trailing_zeros(),
                ways: cache.ways as usize,
                sets,
                mask: sets.is_power_of_two().then(|| sets - 1),
                tags: vec![EMPTY; (sets * cache.ways) as usize],
                counts: Default::default(),
            });
        }
        if levels.is_empty() {
            return Err(Error::argument("--profile", "has no caches to simulate; give at least one level"));
        }
        Ok(Self { levels, accessed: [0; Operand::ALL.len()] })
    }

    /// The core reads or writes `bytes` from `address` on, front to back.
    #[inline]
    pub fn access(&mut self, operand: Operand, address: u64, bytes: u64, write: bool) {
        if bytes == 0 {
            return;
        }
        self.accessed[operand as usize] += bytes;
        let shift = self.levels[0].shift;
        let (first, last) = (address >> shift, (address + bytes - 1) >> shift);
        for line in first..=last {
            self.touch(line << shift, operand, u64::from(write));
        }
    }

    #[inline]
    fn touch(&mut self, address: u64, operand: Operand, dirty: u64) {
        let (hit, evicted) = self.levels[0].touch(address, operand, dirty);
        if !hit {
            self.miss(address, operand, evicted);
        }
    }

    fn miss(&mut self, address: u64, operand: Operand, evicted: u64) {
        self.write_back(0, evicted);
        for i in 1..self.levels.len() {
            let (hit, evicted) = self.levels[i].touch(address, operand, 0);
            if hit {
                return;
            }
            self.write_back(i, evicted);
        }
    }

    /// A line leaves level `from`; a written one goes to the first level outside that has it, else to memory.
    fn write_back(&mut self, from: usize, tag: u64) {
        if tag == EMPTY || tag & DIRTY == 0 {
            return;
        }
        let operand = operand_of(tag);
        let address = (tag >> TAG_BITS) << self.levels[from].shift;
        for i in from..self.levels.len() {
            self.levels[i].counts[operand as usize].write_backs += 1;
            if self.levels.get_mut(i + 1).is_some_and(|next| next.mark(address, operand)) {
                return;
            }
        }
    }

    /// Writes back what is still in the caches: every byte written reaches memory once at least.
    pub fn flush(&mut self) {
        for i in 0..self.levels.len() {
            for at in 0..self.levels[i].tags.len() {
                let tag = self.levels[i].tags[at];
                if tag != EMPTY && tag & DIRTY != 0 {
                    self.levels[i].tags[at] &= !DIRTY;
                    self.write_back(i, tag);
                }
            }
        }
    }

    /// Lookups, misses and write-backs of a level by operand; 0 is the innermost.
    pub fn counts(&self, level: usize) -> [(Operand, Count); Operand::ALL.len()] {
        Operand::ALL.map(|operand| (operand, self.levels[level].counts[operand as usize]))
    }

    /// Bytes that the core read or wrote, by operand.
    pub fn accessed(&self) -> [(Operand, u64); Operand::ALL.len()] {
        Operand::ALL.map(|operand| (operand, self.accessed[operand as usize]))
    }

    /// Line length of a level in bytes.
    pub fn line(&self, level: usize) -> u64 {
        1 << self.levels[level].shift
    }

    /// How many levels there are.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }
}
