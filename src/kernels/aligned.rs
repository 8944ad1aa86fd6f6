//! Buffers that begin at a cache line: a vector load that straddles two lines costs two.

use std::ops::{Deref, DerefMut};

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; Line::LENGTH]);

impl Line {
    const LENGTH: usize = 16;
}

/// fp32 numbers that begin at a cache line (64 bytes). Where activations come in one, a kernel need not copy them.
#[derive(Clone, Default)]
pub struct Buffer {
    lines: Vec<Line>,
    length: usize,
}

impl Buffer {
    /// `length` zeros.
    pub fn zeros(length: usize) -> Self {
        Self { lines: vec![Line([0.0; Line::LENGTH]); length.div_ceil(Line::LENGTH)], length }
    }

    /// Whether values begin at a cache line.
    pub fn is_aligned(values: &[f32]) -> bool {
        values.as_ptr().align_offset(align_of::<Line>()) == 0
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Self {
        let mut buffer = Self::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is sixteen numbers without padding, and `zeros` made enough of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::Buffer;

    #[test]
    fn buffers_begin_at_a_line_and_hold_what_was_copied() {
        let buffer = Buffer::from([1.0f32, 2.0, 3.0].as_slice());
        assert_eq!(*buffer, [1.0, 2.0, 3.0]);
        assert!(Buffer::is_aligned(&buffer) && !Buffer::is_aligned(&buffer[1..]));
        assert!(Buffer::zeros(0).is_empty());
    }
}
