//! Dense int8 and bf16 with dot-product instructions: what a CPU user takes before fp32 sparsity.
//!
//! Weights and activations are fp32 in memory. Weights are converted when they are packed (int8: one scale a row, ±127);
//! activations in every call (int8: one scale a column, shifted by 128 to be unsigned; where the engine multiplies them so,
//! the shift times the sum of a row's weights is taken off the result, so zeros stay exact). Loop nest, outermost first:
//!
//! ```text
//! group of columns                  [`group_columns`]: their converted activations stay in L2
//!   strip of 8 rows                 shared among threads; its weights are read once a group, then from L1 or L2
//!     panel of up to 3 vectors      8 x 3 vectors of sums in registers
//!       word of K                   4 int8 or 2 bf16: 3 loads of activations from L2, 8 broadcasts of weights
//! ```
//!
//! One column: sixteen rows are a vector or two, words of weights stream, the word of activations is broadcast. Where the machine
//! has matrix tiles, several columns go there ([`super::tiles`]).

use super::balance::{scatter, shares};
use super::float::bf16;
use super::lanes::unrolled;
use super::words::{PlainInt8, Words};
#[cfg(target_arch = "x86_64")]
use super::words::{YmmInt8, ZmmBf16, ZmmInt8};
use super::{Activations, Isa, Kernel, Packed, WeightMatrix, tiles};
use crate::dtype::DType;
use crate::error::Result;
use crate::lower::blocking::{NARROW_PANEL, narrow_columns};
use crate::pattern::SparsityPattern;
use std::cell::Cell;
use std::ops::Range;

/// Rows that a strip of packed weights interleaves.
const STRIP: usize = 16;
/// Columns of a panel: three vectors of sixteen.
const PANEL: usize = NARROW_PANEL as usize;

/// int8 weights and activations.
pub struct Int8 {
    /// The instruction set to use, which the machine has.
    pub isa: Isa,
    /// Who multiplies tiles, if anyone.
    pub tiles: Option<tiles::Unit>,
}

impl Kernel for Int8 {
    fn name(&self) -> &'static str {
        "int8"
    }

    fn dtype(&self) -> DType {
        DType::Int8
    }

    fn refusal(&self, _: &SparsityPattern, _: usize, k: usize) -> Option<String> {
        tiles::too_long(tiles::Format::Int8, k).or_else(|| self.tiles.and_then(tiles::Unit::missing))
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, columns: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        if let Some(unit) = self.tiles.filter(|_| columns != 1) {
            return Ok(tiles::dense(unit, tiles::Format::Int8, weights));
        }
        let WeightMatrix { n, k, values } = weights;
        let engine = match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => Engine::ZmmInt8,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => Engine::YmmInt8,
            _ => Engine::PlainInt8,
        };
        let mut scales = Vec::with_capacity(n);
        let mut shifts = Vec::with_capacity(n);
        let mut bytes = Vec::with_capacity(n * k);
        for row in (0..n).map(|r| &values[r * k..][..k]) {
            let most = row.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            scales.push(most / 127.0);
            let first = bytes.len();
            bytes.extend(row.iter().map(|v| if most > 0.0 { (v / most * 127.0).round_ties_even() as i8 } else { 0 }));
            shifts.push(bytes[first..].iter().map(|b| i32::from(*b) * engine.shift()).sum());
        }
        let word = |r: usize, w: usize| {
            let byte = |i: usize| if w * 4 + i < k { bytes[r * k + w * 4 + i] as u8 } else { 0 };
            u32::from_le_bytes(std::array::from_fn(byte))
        };
        let words = k.div_ceil(4);
        Ok(Box::new(Dots {
            engine,
            n,
            k,
            words,
            weights: strips(n, words, word),
            scales: Some(Scales { scales, shifts }),
        }))
    }
}

/// bf16 weights and activations, fp32 sums.
pub struct Bf16 {
    /// The instruction set to use, which the machine has.
    pub isa: Isa,
    /// Who multiplies tiles, if anyone.
    pub tiles: Option<tiles::Unit>,
}

impl Bf16 {
    /// Whether this machine has the instruction.
    fn has_instruction(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.isa == Isa::Avx512 && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

impl Kernel for Bf16 {
    fn name(&self) -> &'static str {
        "bf16"
    }

    fn dtype(&self) -> DType {
        DType::Bf16
    }

    fn refusal(&self, _: &SparsityPattern, _: usize, _: usize) -> Option<String> {
        match self.tiles {
            Some(unit) => unit.missing(),
            None => (!self.has_instruction())
                .then(|| "it needs AVX-512 BF16 instructions or AMX tiles, which this CPU lacks".to_owned()),
        }
    }

    fn pack(&self, weights: WeightMatrix<'_>, pattern: &SparsityPattern, columns: usize) -> Result<Box<dyn Packed>> {
        super::check(self, weights, pattern)?;
        if let Some(unit) = self.tiles.filter(|_| columns != 1 || !self.has_instruction()) {
            return Ok(tiles::dense(unit, tiles::Format::Bf16, weights));
        }
        let WeightMatrix { n, k, values } = weights;
        let words = k.div_ceil(2);
        let value = |r: usize, c: usize| if c < k { bf16(values[r * k + c]) } else { 0 };
        let word = |r: usize, w: usize| value(r, 2 * w) | value(r, 2 * w + 1) << 16;
        #[cfg(target_arch = "x86_64")]
        let engine = Engine::ZmmBf16;
        #[cfg(not(target_arch = "x86_64"))]
        let engine = Engine::PlainInt8;
        Ok(Box::new(Dots { engine, n, k, words, weights: strips(n, words, word), scales: None }))
    }
}

/// Sixteen rows interleaved word by word, rows past the last one zero.
fn strips(n: usize, words: usize, word: impl Fn(usize, usize) -> u32) -> Vec<u32> {
    let mut packed = Vec::with_capacity(n.next_multiple_of(STRIP) * words);
    for top in (0..n).step_by(STRIP) {
        for w in 0..words {
            packed.extend((top..top + STRIP).map(|r| if r < n { word(r, w) } else { 0 }));
        }
    }
    packed
}

#[derive(Clone, Copy)]
enum Engine {
    PlainInt8,
    #[cfg(target_arch = "x86_64")]
    YmmInt8,
    #[cfg(target_arch = "x86_64")]
    ZmmInt8,
    #[cfg(target_arch = "x86_64")]
    ZmmBf16,
}

impl Engine {
    /// What its int8 activations are too large by.
    fn shift(self) -> i32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::YmmInt8 => YmmInt8::SHIFT,
            _ => PlainInt8::SHIFT,
        }
    }
}

/// int8 only: per row the scale, and the sum of its weights times what the engine's activations are too large by.
struct Scales {
    scales: Vec<f32>,
    shifts: Vec<i32>,
}

struct Dots {
    engine: Engine,
    n: usize,
    k: usize,
    words: usize,
    weights: Vec<u32>,
    scales: Option<Scales>,
}

/// Converted activations of a group of columns, panel by panel, each `[words, width]`.
struct Group<'a> {
    words: &'a [u32],
    /// Per column, padded to whole panels.
    scales: &'a [f32],
    /// First column and how many.
    first: usize,
    columns: usize,
}

impl Packed for Dots {
    fn run(&self, x: Activations<'_>, y: &mut [f32]) {
        if x.m == 0 || self.n == 0 {
            return;
        }
        let most = if x.m == 1 { 1 } else { (narrow_columns(self.words as u64) as usize).min(x.m) };
        let mut scales = vec![0.0; most.next_multiple_of(PANEL)];
        let mut words = KEPT.take();
        let needed = self.words * if x.m == 1 { 1 } else { most.next_multiple_of(STRIP) };
        if words.len() < needed {
            words.resize(needed, 0);
        }
        let strips = self.n.div_ceil(STRIP);
        let parts = shares((0..strips).map(|_| 1), rayon::current_num_threads());
        for first in (0..x.m).step_by(most) {
            let columns = most.min(x.m - first);
            self.convert(x, first, columns, &mut words, &mut scales);
            let group = Group { words: &words, scales: &scales, first, columns };
            let ends = parts.iter().map(|p| (p.end * STRIP).min(self.n));
            scatter(&parts, ends, y, x.m, |share, y| self.share(&group, share, y, x.m));
        }
        KEPT.set(words);
    }

    fn bytes(&self) -> (u64, u64) {
        (4 * self.weights.len() as u64, self.scales.as_ref().map_or(0, |s| 8 * s.scales.len() as u64))
    }
}

thread_local! {
    /// Converted activations, kept between calls: fresh pages would cost more than converting.
    static KEPT: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

impl Dots {
    /// Converts `columns` columns from `first` on.
    fn convert(&self, x: Activations<'_>, first: usize, columns: usize, words: &mut [u32], scales: &mut [f32]) {
        match self.engine {
            Engine::PlainInt8 => self.convert_with(x, first, columns, words, scales),
            // SAFETY: the engine was chosen because the machine has it.
            #[cfg(target_arch = "x86_64")]
            Engine::YmmInt8 => unsafe { self.convert_ymm(x, first, columns, words, scales) },
            #[cfg(target_arch = "x86_64")]
            Engine::ZmmInt8 | Engine::ZmmBf16 => unsafe { self.convert_zmm(x, first, columns, words, scales) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn convert_ymm(&self, x: Activations<'_>, first: usize, columns: usize, words: &mut [u32], s: &mut [f32]) {
        self.convert_with(x, first, columns, words, s);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn convert_zmm(&self, x: Activations<'_>, first: usize, columns: usize, words: &mut [u32], s: &mut [f32]) {
        self.convert_with(x, first, columns, words, s);
    }

    #[inline(always)]
    fn convert_with(&self, x: Activations<'_>, first: usize, columns: usize, words: &mut [u32], scales: &mut [f32]) {
        if x.m == 1 {
            return self.convert_column(x.values, words, scales);
        }
        let mut words = words;
        for start in (0..columns).step_by(PANEL) {
            let real = PANEL.min(columns - start);
            let width = real.next_multiple_of(STRIP);
            let (panel, rest) = words.split_at_mut(self.words * width);
            words = rest;
            let row = |c: usize| &x.values[c * x.m + first + start..][..real];
            let mut inverse = [0.0f32; PANEL];
            if self.scales.is_some() {
                let mut most = [0.0f32; PANEL];
                for c in 0..self.k {
                    most.iter_mut().zip(row(c)).for_each(|(most, v)| *most = most.max(v.abs()));
                }
                for i in 0..real {
                    scales[start + i] = most[i] / 127.0;
                    inverse[i] = if most[i] > 0.0 { 127.0 / most[i] } else { 0.0 };
                }
            }
            for (w, to) in panel.chunks_exact_mut(width).enumerate() {
                to.fill(0);
                if self.scales.is_some() {
                    for i in 0..4.min(self.k - w * 4) {
                        let from = row(w * 4 + i).iter().zip(&inverse);
                        to.iter_mut().zip(from).for_each(|(to, (v, inv))| *to |= unsigned(v * inv) << (8 * i));
                    }
                } else {
                    for i in 0..2.min(self.k - w * 2) {
                        to.iter_mut().zip(row(w * 2 + i)).for_each(|(to, v)| *to |= bf16(*v) << (16 * i));
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn convert_column(&self, x: &[f32], words: &mut [u32], scales: &mut [f32]) {
        if self.scales.is_some() {
            let most = largest(x);
            scales[0] = most / 127.0;
            let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
            // Bytes first, words from them: the former are made a vector at a time.
            let mut bytes = [0u8; 4 * STRIP];
            for (words, values) in words.chunks_mut(STRIP).zip(x.chunks(4 * STRIP)) {
                bytes.iter_mut().zip(values).for_each(|(byte, v)| *byte = unsigned(v * inverse) as u8);
                let whole = bytes.as_chunks().0;
                words.iter_mut().zip(whole).for_each(|(word, bytes)| *word = u32::from_le_bytes(*bytes));
            }
        } else {
            for (word, values) in words.iter_mut().zip(x.chunks(2)) {
                *word = values.iter().enumerate().fold(0, |word, (i, v)| word | bf16(*v) << (16 * i));
            }
        }
    }

    fn share(&self, group: &Group<'_>, share: Range<usize>, y: &mut [f32], m: usize) {
        match self.engine {
            // SAFETY: plain Rust needs nothing.
            Engine::PlainInt8 => unsafe { self.share_with::<PlainInt8>(group, share, y, m) },
            // SAFETY: the engine was chosen because the machine has it.
            #[cfg(target_arch = "x86_64")]
            Engine::YmmInt8 => unsafe { self.share_ymm(group, share, y, m) },
            #[cfg(target_arch = "x86_64")]
            Engine::ZmmInt8 => unsafe { self.share_zmm(group, share, y, m) },
            #[cfg(target_arch = "x86_64")]
            Engine::ZmmBf16 => unsafe { self.share_bf16(group, share, y, m) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn share_ymm(&self, group: &Group<'_>, share: Range<usize>, y: &mut [f32], m: usize) {
        unsafe { self.share_with::<YmmInt8>(group, share, y, m) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn share_zmm(&self, group: &Group<'_>, share: Range<usize>, y: &mut [f32], m: usize) {
        unsafe { self.share_with::<ZmmInt8>(group, share, y, m) }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn share_bf16(&self, group: &Group<'_>, share: Range<usize>, y: &mut [f32], m: usize) {
        unsafe { self.share_with::<ZmmBf16>(group, share, y, m) }
    }

    /// Strips of one thread; `y` holds their rows alone.
    ///
    /// # Safety
    /// `V`'s instruction set is enabled.
    #[inline(always)]
    unsafe fn share_with<V: Words>(&self, group: &Group<'_>, share: Range<usize>, y: &mut [f32], m: usize) {
        let top = share.start * STRIP;
        for strip in share {
            let weights = &self.weights[strip * STRIP * self.words..][..STRIP * self.words];
            let first = strip * STRIP;
            let rows = STRIP.min(self.n - first);
            let y = &mut y[(first - top) * m..][..rows * m];
            if m == 1 {
                // SAFETY: the caller's.
                let sums = unsafe {
                    let x = &group.words[..self.words];
                    if V::COUNT == STRIP { column::<V, 1, 4>(weights, x) } else { column::<V, 2, 2>(weights, x) }
                };
                for (row, (sum, y)) in sums.iter().zip(y).enumerate() {
                    *y = self.finished(*sum, first + row, group.scales[0]);
                }
                continue;
            }
            for half in (0..rows).step_by(8) {
                let mut panel = group.words;
                for start in (0..group.columns).step_by(PANEL) {
                    let real = PANEL.min(group.columns - start);
                    let width = real.next_multiple_of(STRIP);
                    let mut sums = [0u32; 8 * PANEL];
                    let mut at = 0;
                    while at < width {
                        let vectors = ((width - at) / V::COUNT).min(V::VECTORS);
                        // SAFETY: the caller's; `words` rows of `width` words begin at `panel`, of 16 at `weights`.
                        unsafe {
                            let (weights, x) = (weights.as_ptr().add(half), panel.as_ptr().add(at));
                            let to = sums.as_mut_ptr().add(at);
                            match vectors {
                                3 => tile::<V, 3>(self.words, weights, x, width, to),
                                2 => tile::<V, 2>(self.words, weights, x, width, to),
                                _ => tile::<V, 1>(self.words, weights, x, width, to),
                            }
                        }
                        at += vectors * V::COUNT;
                    }
                    for (row, sums) in (half..rows.min(half + 8)).zip(sums.chunks_exact(PANEL)) {
                        let y = &mut y[row * m + group.first + start..][..real];
                        for ((y, sum), scale) in y.iter_mut().zip(sums).zip(&group.scales[start..]) {
                            *y = self.finished(*sum, first + row, *scale);
                        }
                    }
                    panel = &panel[self.words * width..];
                }
            }
        }
    }

    /// The result of a sum.
    #[inline(always)]
    fn finished(&self, sum: u32, row: usize, scale: f32) -> f32 {
        match &self.scales {
            Some(s) => (sum as i32 - s.shifts[row]) as f32 * s.scales[row] * scale,
            None => f32::from_bits(sum),
        }
    }
}

/// Sums of sixteen rows, `VECTORS` vectors of them, with one column; `TURNS` sums take turns, so that additions need not wait
/// for one another.
///
/// # Safety
/// `V`'s instruction set is enabled; a strip has sixteen words for each word of activations.
#[inline(always)]
unsafe fn column<V: Words, const VECTORS: usize, const TURNS: usize>(weights: &[u32], x: &[u32]) -> [u32; STRIP] {
    debug_assert!(VECTORS * V::COUNT == STRIP && weights.len() >= STRIP * x.len());
    let mut result = [0u32; STRIP];
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[V::zero(); VECTORS]; TURNS];
        let mut weights = weights.as_ptr();
        let (turns, rest) = x.as_chunks::<TURNS>();
        for turn in turns {
            unrolled!(TURNS, t, {
                let word = V::splat(turn[t]);
                unrolled!(VECTORS, v, sums[t][v] = sums[t][v].add_dot(word, V::load(weights.add(v * V::COUNT))));
                weights = weights.add(STRIP);
            });
        }
        for &word in rest {
            unrolled!(VECTORS, v, sums[0][v] = sums[0][v].add_dot(V::splat(word), V::load(weights.add(v * V::COUNT))));
            weights = weights.add(STRIP);
        }
        unrolled!(VECTORS, v, {
            let mut sum = sums[0][v];
            unrolled!(TURNS, t, {
                if t > 0 {
                    sum = sum.add(sums[t][v]);
                }
            });
            sum.store(result.as_mut_ptr().add(v * V::COUNT));
        });
    }
    result
}

/// Eight rows × W vectors.
///
/// # Safety
/// `V`'s instruction set is enabled; `words` rows of 16 words are at `weights`, of `stride` at `x`; eight rows of
/// [`PANEL`] words are at `to`.
#[inline(always)]
unsafe fn tile<V: Words, const W: usize>(
    words: usize,
    mut weights: *const u32,
    mut x: *const u32,
    stride: usize,
    to: *mut u32,
) {
    unsafe {
        let mut sums = [[V::zero(); W]; 8];
        for _ in 0..words {
            let mut vectors = [V::zero(); W];
            unrolled!(W, w, vectors[w] = V::load(x.add(w * V::COUNT)));
            unrolled!(8, h, {
                let weight = V::splat(*weights.add(h));
                unrolled!(W, w, sums[h][w] = sums[h][w].add_dot(vectors[w], weight));
            });
            weights = weights.add(STRIP);
            x = x.add(stride);
        }
        unrolled!(8, h, unrolled!(W, w, sums[h][w].store(to.add(h * PANEL + w * V::COUNT))));
    }
}

/// The largest magnitude.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut most = [0.0f32; STRIP];
    let (whole, rest) = x.as_chunks::<STRIP>();
    for values in whole {
        most.iter_mut().zip(values).for_each(|(most, v)| *most = most.max(v.abs()));
    }
    most.iter().chain(rest).fold(0.0, |most, v| most.max(v.abs()))
}

/// A value scaled to ±127, rounded to nearest, ties to even, and shifted to 1..=255.
#[inline(always)]
fn unsigned(scaled: f32) -> u32 {
    // Adding 1.5 · 2^23 leaves the rounded number in the low bits.
    (scaled + (12_582_912.0 + 128.0)).to_bits() & 0xff
}
