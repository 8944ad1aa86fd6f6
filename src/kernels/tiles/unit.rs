//! Tile operations, and an emulation that does them everywhere.
//!
//! A tile is 16 rows of 64 bytes: sixteen words of 32 bits, each two bf16 or four int8 of the reduction. A product of tiles
//! adds to word (i, j) of the sums the dot products of the words (i, l) of the one with the words (l, j) of the other
//! (Intel SDM volume 2, TDPBF16PS and TDPBSSD).

/// Rows of a tile, and words of a row.
pub const ROWS: usize = 16;
/// Bytes of a row.
pub const ROW_BYTES: usize = 64;
/// Words of a tile.
pub const TILE_WORDS: usize = ROWS * ROWS;

/// Eight tile registers, which belong to one thread.
///
/// # Safety
/// Where the trait is implemented by hardware, its methods may only be called on the thread that took the registers, on a
/// machine where [`super::amx::usable`] says that it may. Pointers are valid for 16 rows of 64 bytes, `stride` bytes apart;
/// they need no alignment. Registers are numbered below eight, and those of a product differ.
pub trait Tiles: Sized {
    /// Takes the registers, each of 16 rows of 64 bytes and zero.
    unsafe fn take() -> Self;
    unsafe fn zero<const T: usize>(&mut self);
    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize);
    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize);
    /// `C += A · B` of pairs of bf16, sums in fp32.
    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self);
    /// `C += A · B` of fours of signed bytes, sums in 32 bits.
    unsafe fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// The operations in plain Rust, after the SDM's pseudo-code.
pub struct Emulated([[[u32; ROWS]; ROWS]; 8]);

impl Tiles for Emulated {
    unsafe fn take() -> Self {
        Self([[[0; ROWS]; ROWS]; 8])
    }

    unsafe fn zero<const T: usize>(&mut self) {
        self.0[T] = [[0; ROWS]; ROWS];
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u8, stride: usize) {
        for (i, row) in self.0[T].iter_mut().enumerate() {
            // SAFETY: valid for the row by the trait's contract.
            *row = unsafe { from.add(i * stride).cast::<[u32; ROWS]>().read_unaligned() };
        }
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut u8, stride: usize) {
        for (i, row) in self.0[T].iter().enumerate() {
            // SAFETY: as above.
            unsafe { to.add(i * stride).cast::<[u32; ROWS]>().write_unaligned(*row) }
        }
    }

    unsafe fn dot_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        for i in 0..ROWS {
            // Even and odd elements of the reduction are summed apart from one another and from what is there.
            let mut sums = [[0.0f32; ROWS]; 2];
            for (pair, others) in self.0[A][i].iter().zip(&self.0[B]) {
                for (odd, sums) in sums.iter_mut().enumerate() {
                    let a = half(*pair, odd);
                    for (sum, other) in sums.iter_mut().zip(others) {
                        *sum = flushed(a.mul_add(half(*other, odd), *sum));
                    }
                }
            }
            for (j, to) in self.0[C][i].iter_mut().enumerate() {
                let sum = flushed(sums[0][j] + sums[1][j]);
                *to = flushed(flushed(f32::from_bits(*to)) + sum).to_bits();
            }
        }
    }

    unsafe fn dot_int8<const C: usize, const A: usize, const B: usize>(&mut self) {
        for i in 0..ROWS {
            let mut sums = self.0[C][i];
            for (four, others) in self.0[A][i].iter().zip(&self.0[B]) {
                let a = four.to_le_bytes().map(|byte| i32::from(byte as i8));
                for (sum, other) in sums.iter_mut().zip(others) {
                    let products = a.iter().zip(other.to_le_bytes()).map(|(a, b)| a * i32::from(b as i8));
                    *sum = sum.wrapping_add(products.sum::<i32>() as u32);
                }
            }
            self.0[C][i] = sums;
        }
    }
}

/// The even or odd bf16 of a word as fp32, zero where it is subnormal.
fn half(word: u32, odd: usize) -> f32 {
    flushed(f32::from_bits(if odd == 0 { word << 16 } else { word & 0xffff_0000 }))
}

/// Tile products read and write subnormal numbers as zero, whatever the thread's setting. (A result that only rounding
/// lifts to the smallest normal number stays, where hardware may flush it.)
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0f32.copysign(value) } else { value }
}

/// A product of four tiles by two by two with everything that kernels do to tiles; the same words on every unit, because
/// all sums are whole numbers. Takes the registers.
///
/// # Safety
/// As [`Tiles`].
pub unsafe fn exercise<T: Tiles>() -> Vec<u32> {
    // Small whole numbers of both signs, as bf16 and as bytes.
    let number = |i: usize| (i * 37 + i / 7 * 11 + i / 64 * 5) % 17;
    let bf16: Vec<u32> = (0..4 * TILE_WORDS)
        .map(|i| {
            let part = |i| (number(i) as f32 - 8.0).to_bits() >> 16;
            part(2 * i) | part(2 * i + 1) << 16
        })
        .collect();
    let int8: Vec<u32> = (0..4 * TILE_WORDS)
        .map(|i| u32::from_le_bytes(std::array::from_fn(|b| (number(4 * i + b) as i32 * 15 - 120) as u8)))
        .collect();
    let mut all = Vec::new();
    for (operands, is_int8) in [(bf16, false), (int8, true)] {
        // Sums that are there already, in rows that are longer than a tile.
        let mut sums: Vec<u32> = (0..2 * ROWS * 2 * ROWS)
            .map(|i| if is_int8 { (i as u32).wrapping_sub(500) } else { (i as f32 - 500.0).to_bits() })
            .collect();
        let (wide, from) = (2 * ROW_BYTES, operands.as_ptr().cast::<u8>());
        let corner = |sums: &mut [u32], i: usize, j: usize| sums[i * 2 * ROWS * ROWS + j * ROWS..].as_mut_ptr().cast();
        // SAFETY: four tiles of operands, and four of sums in rows of two.
        unsafe {
            let mut tiles = T::take();
            tiles.load::<4>(from, ROW_BYTES);
            tiles.load::<5>(from.add(4 * TILE_WORDS), ROW_BYTES);
            tiles.load::<6>(from.add(8 * TILE_WORDS), ROW_BYTES);
            tiles.load::<7>(from.add(12 * TILE_WORDS), ROW_BYTES);
            tiles.load::<0>(corner(&mut sums, 0, 0), wide);
            tiles.load::<1>(corner(&mut sums, 0, 1), wide);
            tiles.load::<2>(corner(&mut sums, 1, 0), wide);
            tiles.zero::<3>();
            // Twice, so that sums of products are added to as well.
            for _ in 0..2 {
                if is_int8 {
                    tiles.dot_int8::<0, 4, 6>();
                    tiles.dot_int8::<1, 4, 7>();
                    tiles.dot_int8::<2, 5, 6>();
                    tiles.dot_int8::<3, 5, 7>();
                } else {
                    tiles.dot_bf16::<0, 4, 6>();
                    tiles.dot_bf16::<1, 4, 7>();
                    tiles.dot_bf16::<2, 5, 6>();
                    tiles.dot_bf16::<3, 5, 7>();
                }
            }
            tiles.store::<0>(corner(&mut sums, 0, 0), wide);
            tiles.store::<1>(corner(&mut sums, 0, 1), wide);
            tiles.store::<2>(corner(&mut sums, 1, 0), wide);
            tiles.store::<3>(corner(&mut sums, 1, 1), wide);
        }
        all.append(&mut sums);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition of a product, over all elements of the reduction.
    #[test]
    fn the_exercise_is_the_product_by_definition() {
        // SAFETY: the emulation needs nothing.
        let found = unsafe { exercise::<Emulated>() };
        let number = |i: usize| (i * 37 + i / 7 * 11 + i / 64 * 5) % 17;
        for (per_word, is_int8) in [(2usize, false), (4, true)] {
            let value = |tile: usize, row: usize, word: usize, part: usize| {
                let n = number(per_word * (tile * TILE_WORDS + row * ROWS + word) + part) as i64;
                if is_int8 { n * 15 - 120 } else { n - 8 }
            };
            for (i, j) in (0..32).flat_map(|i| (0..32).map(move |j| (i, j))) {
                let mut sum = if i < 16 || j < 16 { i as i64 * 32 + j as i64 - 500 } else { 0 };
                for (word, part) in (0..16).flat_map(|w| (0..per_word).map(move |p| (w, p))) {
                    sum += 2 * value(i / 16, i % 16, word, part) * value(2 + j / 16, word, j % 16, part);
                }
                let bits = found[usize::from(is_int8) * 1024 + i * 32 + j];
                let got = if is_int8 { i64::from(bits as i32) } else { f32::from_bits(bits) as i64 };
                assert_eq!(got, sum, "int8 {is_int8}, row {i}, column {j}");
            }
        }
    }

    #[test]
    fn subnormal_numbers_are_zero_and_infinities_are_not() {
        // SAFETY: the emulation needs nothing, and the arrays are tiles.
        let product = |a: u32, b: u32, c: f32| unsafe {
            let mut tiles = Emulated::take();
            let (a, b) = ([[a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]; ROWS], [[b; ROWS]; ROWS]);
            let mut sums = [[c; ROWS]; ROWS];
            tiles.load::<0>(sums.as_ptr().cast(), ROW_BYTES);
            tiles.load::<1>(a.as_ptr().cast(), ROW_BYTES);
            tiles.load::<2>(b.as_ptr().cast(), ROW_BYTES);
            tiles.dot_bf16::<0, 1, 2>();
            tiles.store::<0>(sums.as_mut_ptr().cast(), ROW_BYTES);
            sums[3][5]
        };
        let bf16 = |v: f32| v.to_bits() >> 16;
        assert_eq!(product(bf16(3.0), bf16(-5.0), 1.0), -14.0);
        assert_eq!(product(bf16(1e-39), bf16(1e30), 0.0), 0.0);
        assert_eq!(product(bf16(1e-20), bf16(1e-20), 0.0), 0.0);
        assert_eq!(product(bf16(1.0), bf16(1.0), 1e-40), 1.0);
        assert_eq!(product(bf16(0.0), bf16(1.0), 1e-40), 0.0);
        assert_eq!(product(bf16(1e30), bf16(1e30), 0.0), f32::INFINITY);
        // The two halves of a word.
        assert_eq!(product(bf16(2.0) | bf16(3.0) << 16, bf16(5.0) | bf16(7.0) << 16, 0.0), 31.0);
    }
}
