//! Stored blocks against one column of activations: a vector of rows at a time instead of a vector of columns.

use super::Blocks;
use crate::kernels::Isa;
use crate::kernels::lanes::{Lanes, Plain, unrolled};
use std::ops::Range;

impl Blocks {
    /// One column of activations: each strip is a vector of rows, and every index brings one activation.
    pub(super) fn column(&self, x: &[f32], y: &mut [f32]) {
        let shares = self.shares(rayon::current_num_threads());
        self.each_share(&shares, y, 1, |share, part| match self.isa {
            // SAFETY: an Isa beyond Portable is only used where it was detected; plain vectors need nothing.
            Isa::Portable => unsafe { self.column_with::<Plain>(x, share, part) },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::Avx512 => unsafe { self.column_avx2(x, share, part) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => unsafe { self.column_with::<Plain>(x, share, part) },
        });
    }

    /// A strip has eight rows, so vectors of eight serve AVX-512 too.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn column_avx2(&self, x: &[f32], share: Range<usize>, y: &mut [f32]) {
        // SAFETY: the caller's.
        unsafe { self.column_with::<crate::kernels::lanes::Ymm>(x, share, y) }
    }

    /// # Safety
    /// `V`'s instruction set is enabled, and `V` has eight elements.
    #[inline(always)]
    unsafe fn column_with<V: Lanes>(&self, x: &[f32], share: Range<usize>, y: &mut [f32]) {
        y.fill(0.0);
        for (block, first) in (0..self.k).step_by(self.block_k).enumerate() {
            let x = &x[self.base(first)..];
            let places = block * self.block_rows();
            if self.rows * self.cols == 1 {
                for at in places + share.start..places + share.end {
                    let stored = self.range(at);
                    let row = self.order[at] as usize - share.start;
                    // SAFETY: the caller's, and every index is within the activations of the block.
                    y[row] += unsafe { V::sparse(&self.index[stored.clone()], &self.values[stored], x) };
                }
                continue;
            }
            for at in places + share.start..places + share.end {
                let block_row = self.order[at] as usize;
                let row = (block_row - share.start) * self.rows;
                let index = &self.index[self.range(at)];
                let values = &self.values[self.offsets[at]..self.offsets[at + 1]];
                let rows = self.rows.min(self.n - block_row * self.rows);
                let mut inside = 0;
                for height in self.strips(rows) {
                    let values = &values[inside * self.cols * index.len()..];
                    let y = &mut y[row + inside..row + inside + height];
                    match height {
                        // SAFETY: the caller's.
                        8 => unsafe { eight::<V>(index, values, self.cols, x, y) },
                        4 => single::<4>(index, values, self.cols, x, y),
                        2 => single::<2>(index, values, self.cols, x, y),
                        // SAFETY: the caller's.
                        _ if self.cols >= V::COUNT => unsafe { along::<V>(index, values, self.cols, x, &mut y[0]) },
                        _ => single::<1>(index, values, self.cols, x, y),
                    }
                    inside += height;
                }
            }
        }
    }
}

/// Eight rows against one column, a vector of them; four sums take turns, so that additions need not wait for one another.
///
/// # Safety
/// `V`'s instruction set is enabled, and `V` has eight elements.
#[inline(always)]
unsafe fn eight<V: Lanes>(index: &[u16], values: &[f32], cols: usize, x: &[f32], y: &mut [f32]) {
    const U: usize = 4;
    debug_assert!(y.len() >= 8 && values.len() >= index.len() * 8 * cols);
    // SAFETY: the caller's; every block has 8 · cols values, and x is sliced by every index.
    unsafe {
        let mut sums = [V::zero(); U];
        let mut value = values.as_ptr();
        if cols == 1 {
            let (turns, rest) = index.as_chunks::<U>();
            for turn in turns {
                unrolled!(U, u, {
                    sums[u] = sums[u].add_product(V::splat(x[turn[u] as usize]), V::load(value.add(u * 8)));
                });
                value = value.add(U * 8);
            }
            for &start in rest {
                sums[0] = sums[0].add_product(V::splat(x[start as usize]), V::load(value));
                value = value.add(8);
            }
        } else {
            for &start in index {
                let (turns, rest) = x[start as usize..][..cols].as_chunks::<U>();
                for x in turns {
                    unrolled!(U, u, sums[u] = sums[u].add_product(V::splat(x[u]), V::load(value.add(u * 8))));
                    value = value.add(U * 8);
                }
                for &x in rest {
                    sums[0] = sums[0].add_product(V::splat(x), V::load(value));
                    value = value.add(8);
                }
            }
        }
        let sum = sums[0].add(sums[1]).add(sums[2].add(sums[3]));
        V::load(y.as_ptr()).add(sum).store(y.as_mut_ptr());
    }
}

/// One row of wide blocks against one column, vectors along the columns of a block.
///
/// # Safety
/// `V`'s instruction set is enabled, and `V` has eight elements.
#[inline(always)]
unsafe fn along<V: Lanes>(index: &[u16], values: &[f32], cols: usize, x: &[f32], y: &mut f32) {
    const U: usize = 2;
    let mut rest = 0.0;
    // SAFETY: the caller's; vectors are loaded from arrays of eight.
    unsafe {
        let mut sums = [V::zero(); U];
        for (values, &start) in values.chunks_exact(cols).zip(index) {
            let (x, last) = x[start as usize..][..cols].as_chunks::<8>();
            let (values, few) = values.as_chunks::<8>();
            let (turns, odd) = x.as_chunks::<U>();
            for (x, values) in turns.iter().zip(values.as_chunks::<U>().0) {
                unrolled!(U, u, {
                    sums[u] = sums[u].add_product(V::load(x[u].as_ptr()), V::load(values[u].as_ptr()));
                });
            }
            for (x, values) in odd.iter().zip(values.last()) {
                sums[0] = sums[0].add_product(V::load(x.as_ptr()), V::load(values.as_ptr()));
            }
            rest += last.iter().zip(few).map(|(x, v)| x * v).sum::<f32>();
        }
        *y += sums[0].add(sums[1]).total() + rest;
    }
}

/// H rows against one column; four sums a row take turns, so that additions need not wait for one another.
#[inline(always)]
fn single<const H: usize>(index: &[u16], values: &[f32], cols: usize, x: &[f32], y: &mut [f32]) {
    const U: usize = 4;
    let mut sums = [[0.0f32; H]; U];
    let add = |sums: &mut [f32; H], values: &[f32], x: f32| {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += value * x;
        }
    };
    if cols == 1 {
        let (turns, rest) = index.as_chunks::<U>();
        for (turn, starts) in turns.iter().enumerate() {
            for (u, sums) in sums.iter_mut().enumerate() {
                let at = (turn * U + u) * H;
                add(sums, &values[at..at + H], x[starts[u] as usize]);
            }
        }
        for (i, &start) in rest.iter().enumerate() {
            let at = (turns.len() * U + i) * H;
            add(&mut sums[0], &values[at..at + H], x[start as usize]);
        }
    } else {
        for (i, &start) in index.iter().enumerate() {
            let block = &values[i * H * cols..][..H * cols];
            let x = &x[start as usize..][..cols];
            let (turns, rest) = x.as_chunks::<U>();
            for (turn, x) in turns.iter().enumerate() {
                for (u, sums) in sums.iter_mut().enumerate() {
                    add(sums, &block[(turn * U + u) * H..][..H], x[u]);
                }
            }
            for (c, &x) in rest.iter().enumerate() {
                add(&mut sums[0], &block[(turns.len() * U + c) * H..][..H], x);
            }
        }
    }
    for (h, y) in y.iter_mut().enumerate() {
        *y += (sums[0][h] + sums[1][h]) + (sums[2][h] + sums[3][h]);
    }
}
