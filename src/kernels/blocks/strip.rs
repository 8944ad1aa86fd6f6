//! The innermost loops of stored blocks: a few rows × the vectors that fit the registers.

use crate::kernels::lanes::{Lanes, unrolled};

/// A few rows of a block row in one block of K.
pub(super) struct Strip<'a> {
    pub index: &'a [u16],
    /// Of every block, column-major.
    pub values: &'a [f32],
    pub cols: usize,
    pub x: &'a [f32],
    pub x_stride: usize,
    /// Whether results of earlier blocks of K are there.
    pub add: bool,
}

impl Strip<'_> {
    /// All vectors of a strip, as many at a time as the registers hold.
    #[inline(always)]
    pub unsafe fn run<V: Lanes>(&self, height: usize, vectors: usize, y: &mut [f32], stride: usize) {
        let most = V::TILE[match height {
            8 => 0,
            4 => 1,
            2 => 2,
            _ => 3,
        }];
        let passes = vectors.div_ceil(most);
        let mut first = 0;
        for pass in 0..passes {
            let width = (vectors - first).div_ceil(passes - pass);
            // SAFETY: the caller's.
            unsafe {
                match (height, width) {
                    (8, 1) => self.tile::<V, 8, 1>(y, stride, first),
                    (8, 2) => self.tile::<V, 8, 2>(y, stride, first),
                    (8, _) => self.tile::<V, 8, 3>(y, stride, first),
                    (4, 1) => self.tile::<V, 4, 1>(y, stride, first),
                    (4, 2) => self.tile::<V, 4, 2>(y, stride, first),
                    (4, 3) => self.tile::<V, 4, 3>(y, stride, first),
                    (4, 4) => self.tile::<V, 4, 4>(y, stride, first),
                    (4, 5) => self.tile::<V, 4, 5>(y, stride, first),
                    (4, _) => self.tile::<V, 4, 6>(y, stride, first),
                    (2, 1) => self.tile::<V, 2, 1>(y, stride, first),
                    (2, 2) => self.tile::<V, 2, 2>(y, stride, first),
                    (2, 3) => self.tile::<V, 2, 3>(y, stride, first),
                    (2, 4) => self.tile::<V, 2, 4>(y, stride, first),
                    (2, 5) => self.tile::<V, 2, 5>(y, stride, first),
                    (2, 6) => self.tile::<V, 2, 6>(y, stride, first),
                    (2, 7) => self.tile::<V, 2, 7>(y, stride, first),
                    (2, _) => self.tile::<V, 2, 8>(y, stride, first),
                    (_, 1) => self.row::<V, 1, 8>(y, first),
                    (_, 2) => self.row::<V, 2, 4>(y, first),
                    (_, 3) => self.row::<V, 3, 2>(y, first),
                    (_, 4) => self.row::<V, 4, 2>(y, first),
                    (_, 5) => self.row::<V, 5, 1>(y, first),
                    (_, 6) => self.row::<V, 6, 1>(y, first),
                    (_, 7) => self.row::<V, 7, 1>(y, first),
                    (_, _) => self.row::<V, 8, 1>(y, first),
                }
            }
            first += width;
        }
    }

    /// H rows × W vectors: a vector of activations is loaded once and meets H broadcast values.
    #[inline(always)]
    unsafe fn tile<V: Lanes, const H: usize, const W: usize>(&self, y: &mut [f32], stride: usize, first: usize) {
        debug_assert!(y.len() >= (H - 1) * stride + (first + W) * V::COUNT);
        unsafe {
            let y = y.as_mut_ptr().add(first * V::COUNT);
            let mut sums = [[V::zero(); W]; H];
            if self.add {
                unrolled!(H, h, unrolled!(W, w, sums[h][w] = V::load(y.add(h * stride + w * V::COUNT))));
            }
            let (mut value, x) = (self.values.as_ptr(), self.x.as_ptr().add(first * V::COUNT));
            if self.cols == 1 {
                for &start in self.index {
                    V::add_products(&mut sums, value, x.add(start as usize * self.x_stride));
                    value = value.add(H);
                }
            } else {
                for &start in self.index {
                    let mut x = x.add(start as usize * self.x_stride);
                    for _ in 0..self.cols {
                        V::add_products(&mut sums, value, x);
                        value = value.add(H);
                        x = x.wrapping_add(self.x_stride);
                    }
                }
            }
            unrolled!(H, h, unrolled!(W, w, sums[h][w].store(y.add(h * stride + w * V::COUNT))));
        }
    }

    /// One row × W vectors: activations are memory operands; U values at a time where few vectors would leave the adders
    /// waiting for one another.
    #[inline(always)]
    pub unsafe fn row<V: Lanes, const W: usize, const U: usize>(&self, y: &mut [f32], first: usize) {
        debug_assert!(y.len() >= (first + W) * V::COUNT);
        unsafe {
            let y = y.as_mut_ptr().add(first * V::COUNT);
            let mut sums = [[V::zero(); W]; U];
            if self.add {
                unrolled!(W, w, sums[0][w] = V::load(y.add(w * V::COUNT)));
            }
            let x = self.x.as_ptr().add(first * V::COUNT);
            if self.cols == 1 {
                let (values, index) = (self.values.as_ptr(), self.index.as_ptr());
                let count = self.index.len();
                let mut i = 0;
                while i + U <= count {
                    unrolled!(U, u, {
                        let value = V::splat(*values.add(i + u));
                        let x = x.add(*index.add(i + u) as usize * self.x_stride);
                        unrolled!(W, w, sums[u][w] = sums[u][w].add_product(value, V::load(x.add(w * V::COUNT))));
                    });
                    i += U;
                }
                while i < count {
                    let value = V::splat(*values.add(i));
                    let x = x.add(*index.add(i) as usize * self.x_stride);
                    unrolled!(W, w, sums[0][w] = sums[0][w].add_product(value, V::load(x.add(w * V::COUNT))));
                    i += 1;
                }
            } else {
                let mut value = self.values.as_ptr();
                for &start in self.index {
                    let mut x = x.add(start as usize * self.x_stride);
                    for _ in 0..self.cols / U {
                        unrolled!(U, u, {
                            let factor = V::splat(*value.add(u));
                            unrolled!(W, w, sums[u][w] = sums[u][w].add_product(factor, V::load(x.add(w * V::COUNT))));
                            x = x.wrapping_add(self.x_stride);
                        });
                        value = value.add(U);
                    }
                    for _ in 0..self.cols % U {
                        let factor = V::splat(*value);
                        unrolled!(W, w, sums[0][w] = sums[0][w].add_product(factor, V::load(x.add(w * V::COUNT))));
                        x = x.wrapping_add(self.x_stride);
                        value = value.add(1);
                    }
                }
            }
            unrolled!(W, w, {
                let mut sum = sums[0][w];
                unrolled!(U, u, {
                    if u > 0 {
                        sum = sum.add(sums[u][w]);
                    }
                });
                sum.store(y.add(w * V::COUNT));
            });
        }
    }
}
