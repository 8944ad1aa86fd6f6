//! Where a kernel's arrays lie, and what it does to them.

use super::cache::{Hierarchy, Operand};

/// Arrays begin on pages, as large allocations do; no two share a line.
const PAGE: u64 = 4096;

/// An array of one operand.
#[derive(Clone, Copy, Debug)]
pub struct Array {
    operand: Operand,
    base: u64,
}

/// A core that runs a kernel: its caches and its address space.
pub struct Core {
    /// What it reads through.
    pub caches: Hierarchy,
    next: u64,
}

impl Core {
    /// Nothing allocated, nothing cached.
    pub fn new(caches: Hierarchy) -> Self {
        Self { caches, next: PAGE }
    }

    /// A new array of so many bytes.
    pub fn array(&mut self, operand: Operand, bytes: u64) -> Array {
        let base = self.next;
        self.next += bytes.max(1).next_multiple_of(PAGE);
        Array { operand, base }
    }

    /// Reads `bytes` from byte `at` of an array on.
    #[inline]
    pub fn read(&mut self, array: Array, at: u64, bytes: u64) {
        self.caches.access(array.operand, array.base + at, bytes, false);
    }

    /// Writes `bytes` from byte `at` of an array on.
    #[inline]
    pub fn write(&mut self, array: Array, at: u64, bytes: u64) {
        self.caches.access(array.operand, array.base + at, bytes, true);
    }
}
