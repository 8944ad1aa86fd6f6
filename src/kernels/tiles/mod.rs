//! bf16 and int8 on matrix tiles: dense weights, and blocks whose extents tiles divide.
//!
//! Weights are converted when they are packed (int8: one scale a row, ±127) and stored tile by tile, sixteen rows of one
//! step of the reduction: 32 bf16 or 64 int8. Activations are converted in every call (int8: one scale a column), steps of
//! sixteen words deep. Dense weights and stored blocks differ in nothing but the list of steps that a strip has. Loop
//! nest, outermost first:
//!
//! ```text
//! group of columns                  [`tile_columns`]: their activations of a block of K stay in L2
//!   block of K                      [`TILE_STEPS`]: sums wait in the result between two
//!     strip of 32 or 16 rows        shared among threads by stored steps; its weights come from L2 after the first panel
//!       panel of 32 or 16 columns   2 x 2 tiles of sums in registers
//!         step                      2 tiles of weights, 2 of activations, 4 products
//! ```

pub(crate) mod amx;
mod convert;
mod pack;
pub(crate) mod unit;

pub use amx::usable;

use super::balance::scatter;
use super::panel::Scratch;
use super::{Activations, Isa, Kernel, Packed, WeightMatrix};
use crate::dtype::DType;
use crate::error::Result;
use crate::lower::blocking::{TILE_PANEL, TILE_STEPS, tile_columns};
use crate::pattern::SparsityPattern;
use pack::Strips;
use std::ops::Range;
use unit::{Emulated, ROW_BYTES, ROWS, TILE_WORDS, Tiles};

/// Columns of a panel.
const PANEL: usize = TILE_PANEL as usize;
/// Steps in a block of K.
const STEPS: usize = TILE_STEPS as usize;
/// With longer rows, sums of products of bytes could pass 2^31.
const LONGEST_INT8: usize = 65_536;

/// Who multiplies tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The processor's own tiles.
    Amx,
    /// Plain Rust, to check everything else with: thousands of times slower.
    Emulated,
}

impl Unit {
    /// The processor's, where it has one and the kernels are asked for its best instruction set.
    pub fn of(isa: Isa) -> Option<Self> {
        (isa == Isa::Avx512 && amx::usable().is_ok()).then_some(Self::Amx)
    }

    /// Why it cannot be used here.
    pub(super) fn missing(self) -> Option<String> {
        match self {
            Self::Amx => amx::usable().err().map(str::to_owned),
            Self::Emulated => None,
        }
    }
}

/// Formats of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Pairs, sums in fp32.
    Bf16,
    /// Fours, sums in 32 bits.
    Int8,
}

impl Format {
    /// Elements of a word.
    fn per_word(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::Int8 => 4,
        }
    }

    /// Elements of the reduction in a step.
    fn depth(self) -> usize {
        ROWS * self.per_word()
    }

    /// Multiply–accumulates of a product of two tiles.
    pub fn multiplications(self) -> usize {
        ROWS * ROWS * self.depth()
    }

    /// What numbers are rounded to.
    pub fn dtype(self) -> DType {
        match self {
            Self::Bf16 => DType::Bf16,
            Self::Int8 => DType::Int8,
        }
    }
}

/// Every kernel on a unit: dense and blocks, in both formats.
pub fn all(unit: Unit) -> Vec<Box<dyn Kernel>> {
    let isa = Isa::detect();
    vec![
        Box::new(super::dots::Bf16 { isa, tiles: Some(unit) }),
        Box::new(super::dots::Int8 { isa, tiles: Some(unit) }),
        Box::new(TileBlocks { unit: Some(unit), format: Format::Bf16 }),
        Box::new(TileBlocks { unit: Some(unit), format: Format::Int8 }),
    ]
}

/// `block:RxC` with whole tiles in every block.
pub struct TileBlocks {
    /// Who multiplies.
    pub unit: Option<Unit>,
    /// In what.
    pub format: Format,
}

impl Kernel for TileBlocks {
    fn name(&self) -> &'static str {
        match self.format {
            Format::Bf16 => "bsr-bf16",
            Format::Int8 => "bsr-int8",
        }
    }

    fn dtype(&self) -> DType {
        self.format.dtype()
    }

    fn refusal(&self, pattern: &SparsityPattern, n: usize, k: usize) -> Option<String> {
        let (rows, cols) = match *pattern {
            SparsityPattern::Block { rows, cols, .. } => (rows, cols),
            other => return Some(format!("it stores blocks, and {} has none", other.family())),
        };
        let depth = self.format.depth();
        if rows % ROWS as u64 != 0 || cols % depth as u64 != 0 {
            return Some(format!("tiles need blocks of multiples of {ROWS} rows and {depth} columns"));
        }
        let unit = match self.unit {
            Some(unit) => unit.missing(),
            None => Some(amx::usable().err().unwrap_or("AMX tiles go with AVX-512 kernels").to_owned()),
        };
        unit.or_else(|| too_long(self.format, k)).or_else(|| super::too_large(n, k))
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, _: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        let (rows, cols) = match *pattern {
            SparsityPattern::Block { rows, cols, .. } => (rows as usize, cols as usize),
            _ => (ROWS, self.format.depth()),
        };
        let strips = Strips::of_blocks(self.format, weights, (rows, cols));
        Ok(Box::new(OnTiles { unit: self.unit.unwrap_or(Unit::Emulated), strips }))
    }
}

/// Dense weights on tiles.
pub(super) fn dense(unit: Unit, format: Format, weights: WeightMatrix<'_>) -> Box<dyn Packed> {
    Box::new(OnTiles { unit, strips: Strips::dense(format, weights) })
}

/// Why a reduction of this length has no sums.
pub(super) fn too_long(format: Format, k: usize) -> Option<String> {
    (format == Format::Int8 && k > LONGEST_INT8)
        .then(|| format!("a reduction over {k} could overflow 32-bit sums; {LONGEST_INT8} is the most"))
}

struct OnTiles {
    unit: Unit,
    strips: Strips,
}

/// Columns whose activations of one block of K are converted.
struct Group<'a> {
    /// Panel by panel, each `[steps, tiles of columns, 16, 16]` words.
    words: &'a [f32],
    /// Steps of each panel.
    steps: usize,
    /// Of a column; int8 only.
    scales: &'a [f32],
    /// First column and how many.
    first: usize,
    columns: usize,
    /// Which block of K.
    block: usize,
}

impl Packed for OnTiles {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        let s = &self.strips;
        assert!(x.k == s.k && x.values.len() >= x.k * x.m && y.len() >= s.n * x.m, "buffers hold their matrices");
        if x.m == 0 || s.n == 0 {
            return;
        }
        let y = &mut y[..s.n * x.m];
        let most = (tile_columns(s.steps as u64) as usize).min(x.m);
        let mut words = Scratch::take(s.steps.min(STEPS) * ROWS * most.next_multiple_of(ROWS));
        let mut scales = Scratch::take(most.next_multiple_of(PANEL));
        let parts = s.shares(rayon::current_num_threads());
        for first in (0..x.m).step_by(most) {
            let columns = most.min(x.m - first);
            for block in 0..s.blocks() {
                let (words, scales) = (words.slice(), scales.slice());
                let steps = convert::activations(s.format, x, (first, columns), block, words, scales);
                let group = Group { words, steps, scales, first, columns, block };
                let ends = parts.iter().map(|p| s.row(p.end));
                scatter(&parts, ends, y, x.m, |share, y| self.share(&group, share, y, x.m));
            }
        }
    }

    fn bytes(&self) -> (u64, u64) {
        self.strips.bytes()
    }
}

impl OnTiles {
    fn share(&self, group: &Group<'_>, share: Range<usize>, y: &mut [f32], m: usize) {
        // SAFETY: the unit is there: whoever packed for it knew; the emulation needs nothing.
        unsafe {
            match (self.unit, self.strips.format) {
                (Unit::Amx, Format::Bf16) => self.share_on::<amx::Amx, false>(group, share, y, m),
                (Unit::Amx, Format::Int8) => self.share_on::<amx::Amx, true>(group, share, y, m),
                (Unit::Emulated, Format::Bf16) => self.share_on::<Emulated, false>(group, share, y, m),
                (Unit::Emulated, Format::Int8) => self.share_on::<Emulated, true>(group, share, y, m),
            }
        }
    }

    /// Strips of one thread; `y` holds their rows alone.
    ///
    /// # Safety
    /// As [`Tiles`].
    unsafe fn share_on<T: Tiles, const INT8: bool>(
        &self,
        group: &Group<'_>,
        share: Range<usize>,
        y: &mut [f32],
        m: usize,
    ) {
        let s = &self.strips;
        let top = s.row(share.start);
        let (begins, ends) = (group.block == 0, group.block + 1 == s.blocks());
        let mut tile = Scratch::take(4 * TILE_WORDS);
        // SAFETY: the caller's.
        let mut tiles = unsafe { T::take() };
        for strip in share {
            let (rows, tall) = (s.row(strip)..s.row(strip + 1), s.height(strip));
            let (index, values) = s.stored(group.block, strip);
            if index.is_empty() && !begins && !ends {
                continue;
            }
            let mut panels = group.words;
            for left in (0..group.columns).step_by(PANEL) {
                let columns = PANEL.min(group.columns - left);
                let wide = columns.div_ceil(ROWS);
                let (panel, rest) = panels.split_at(group.steps * wide * TILE_WORDS);
                panels = rest;
                let sums = tile.slice();
                let y = &mut y[(rows.start - top) * m + group.first + left..];
                if !begins {
                    for (row, from) in y.chunks(m).take(rows.len()).enumerate() {
                        sums[row * PANEL..][..columns].copy_from_slice(&from[..columns]);
                    }
                }
                debug_assert!(index.iter().all(|&i| usize::from(i) < group.steps));
                debug_assert_eq!(values.len(), index.len() * tall * TILE_WORDS);
                // SAFETY: the caller's; a step has `tall` tiles of values and the panel `wide` for each index.
                unsafe {
                    match (tall, wide) {
                        (2, 2) => step::<T, INT8, 2, 2>(&mut tiles, index, values, panel, sums, begins),
                        (2, _) => step::<T, INT8, 2, 1>(&mut tiles, index, values, panel, sums, begins),
                        (_, 2) => step::<T, INT8, 1, 2>(&mut tiles, index, values, panel, sums, begins),
                        _ => step::<T, INT8, 1, 1>(&mut tiles, index, values, panel, sums, begins),
                    }
                }
                let scales = &group.scales[left..];
                for (row, (from, to)) in rows.clone().zip(sums.chunks(PANEL).zip(y.chunks_mut(m))) {
                    if INT8 && ends {
                        for ((to, from), scale) in to[..columns].iter_mut().zip(from).zip(scales) {
                            *to = from.to_bits() as i32 as f32 * s.scales[row] * scale;
                        }
                    } else {
                        // Sums that wait for the next block are words of whatever kind.
                        to[..columns].copy_from_slice(&from[..columns]);
                    }
                }
            }
        }
    }
}

/// Steps of H × W tiles: sums, in rows of [`PANEL`] words, from zero or from what they are.
///
/// # Safety
/// As [`Tiles`]; for every step there are H tiles of weights, and for its index W of activations; `sums` are four tiles.
#[inline(always)]
unsafe fn step<T: Tiles, const INT8: bool, const H: usize, const W: usize>(
    tiles: &mut T,
    index: &[u16],
    weights: &[f32],
    panel: &[f32],
    sums: &mut [f32],
    begins: bool,
) {
    const WIDE: usize = 2 * ROW_BYTES;
    const BYTES: usize = 4 * TILE_WORDS;
    let corner = sums.as_mut_ptr().cast::<u8>();
    let (mut a, b) = (weights.as_ptr().cast::<u8>(), panel.as_ptr().cast::<u8>());
    macro_rules! dot {
        ($c:literal, $a:literal, $b:literal) => {
            if INT8 { tiles.dot_int8::<$c, $a, $b>() } else { tiles.dot_bf16::<$c, $a, $b>() }
        };
    }
    // SAFETY: the caller's.
    unsafe {
        if begins {
            tiles.zero::<0>();
            tiles.zero::<1>();
            tiles.zero::<2>();
            tiles.zero::<3>();
        } else {
            tiles.load::<0>(corner, WIDE);
            tiles.load::<1>(corner.add(ROW_BYTES), WIDE);
            tiles.load::<2>(corner.add(ROWS * WIDE), WIDE);
            tiles.load::<3>(corner.add(ROWS * WIDE + ROW_BYTES), WIDE);
        }
        for &i in index {
            let b = b.add(usize::from(i) * W * BYTES);
            // Loads between the products: both units work all the time.
            tiles.load::<6>(b, ROW_BYTES);
            tiles.load::<4>(a, ROW_BYTES);
            dot!(0, 4, 6);
            if H == 2 {
                tiles.load::<5>(a.add(BYTES), ROW_BYTES);
                dot!(2, 5, 6);
            }
            if W == 2 {
                tiles.load::<7>(b.add(BYTES), ROW_BYTES);
                dot!(1, 4, 7);
            }
            if H == 2 && W == 2 {
                dot!(3, 5, 7);
            }
            a = a.add(H * BYTES);
        }
        tiles.store::<0>(corner, WIDE);
        if W == 2 {
            tiles.store::<1>(corner.add(ROW_BYTES), WIDE);
        }
        if H == 2 {
            tiles.store::<2>(corner.add(ROWS * WIDE), WIDE);
        }
        if H == 2 && W == 2 {
            tiles.store::<3>(corner.add(ROWS * WIDE + ROW_BYTES), WIDE);
        }
    }
}
