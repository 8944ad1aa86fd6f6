//! The N largest magnitudes of every M, on elements as they are stored: what magnitude N:M needs, without decoding.
//!
//! Of floats without their sign the bits order as the numbers do, so that an element's rank in its group is a count of
//! integer comparisons, made for many groups at once.

use crate::workload::onnx::value::Elem;

/// Groups that are ranked together: vectors of every width divide it.
const LANES: usize = 32;

/// Elements of a format, as integers that order as magnitudes do.
trait Bits: Copy + Default {
    /// Magnitude, at most [`Bits::INFINITE`] unless the element is not a number. Signed, because the plainest vector
    /// instructions compare signed numbers.
    type Key: Copy + Default + Ord + From<u8>;
    const INFINITE: Self::Key;
    fn key(self) -> Self::Key;
    fn load(bytes: &[u8], into: &mut [Self]);
    fn store(elements: &[Self], bytes: &mut [u8]);
    /// Adds one to the rank of the lesser of two members of each group; of equal ones the later is less.
    fn compare(a: &[Self::Key; LANES], b: &[Self::Key; LANES], ranks: [&mut [Self::Key; LANES]; 2]);
    /// The element, or zero where its rank is not below `n`.
    fn kept(self, rank: Self::Key, n: Self::Key) -> Self;
}

macro_rules! bits {
    ($name:ident, $int:ty, $key:ty, $infinite:expr, $key_of:expr) => {
        #[derive(Clone, Copy, Default)]
        struct $name($int);

        impl Bits for $name {
            type Key = $key;
            const INFINITE: $key = $infinite;
            #[inline(always)]
            fn key(self) -> $key {
                let of: fn($int) -> $key = $key_of;
                of(self.0)
            }
            #[inline(always)]
            fn load(bytes: &[u8], into: &mut [Self]) {
                let elements = bytes.as_chunks::<{ size_of::<$int>() }>().0;
                into.iter_mut().zip(elements).for_each(|(to, from)| *to = Self(<$int>::from_le_bytes(*from)));
            }
            #[inline(always)]
            fn store(elements: &[Self], bytes: &mut [u8]) {
                let to = bytes.as_chunks_mut::<{ size_of::<$int>() }>().0;
                to.iter_mut().zip(elements).for_each(|(to, from)| *to = from.0.to_le_bytes());
            }
            #[inline(always)]
            fn compare(a: &[$key; LANES], b: &[$key; LANES], ranks: [&mut [$key; LANES]; 2]) {
                let [first, second] = ranks;
                for lane in 0..LANES {
                    let later = <$key>::from(b[lane] > a[lane]);
                    first[lane] += later;
                    second[lane] += 1 - later;
                }
            }
            #[inline(always)]
            fn kept(self, rank: $key, n: $key) -> Self {
                Self(self.0 & <$int>::from(rank < n).wrapping_neg())
            }
        }
    };
}

bits!(F32, u32, i32, 0x7f80_0000, |x| (x & 0x7fff_ffff) as i32);
bits!(F16, u16, i16, 0x7c00, |x| (x & 0x7fff) as i16);
bits!(BF16, u16, i16, 0x7f80, |x| (x & 0x7fff) as i16);
bits!(I8, u8, i16, i16::MAX, |x| i16::from(x as i8).abs());

/// Zeroes all but the `n` largest magnitudes of every `m` in rows of `inner` stored elements; of equal ones the first
/// stays. Groups run along the rows, or, of a transposed matrix, down each `m` of them. Returns the zeros that are there
/// now; `None`, with nothing changed, where it cannot be done this way: other formats and groups, or an element that is
/// not a number.
pub fn keep(part: &mut [u8], elem: Elem, inner: usize, transposed: bool, (n, m): (u64, u64)) -> Option<u64> {
    match elem {
        Elem::F32 => sized::<F32>(part, inner, transposed, n, m),
        Elem::F16 => sized::<F16>(part, inner, transposed, n, m),
        Elem::BF16 => sized::<BF16>(part, inner, transposed, n, m),
        Elem::I8 => sized::<I8>(part, inner, transposed, n, m),
        _ => None,
    }
}

fn sized<B: Bits>(part: &mut [u8], inner: usize, transposed: bool, n: u64, m: u64) -> Option<u64> {
    let n = u8::try_from(n.min(m)).ok()?;
    match m {
        2 => rows::<B, 2>(part, inner, transposed, n),
        4 => rows::<B, 4>(part, inner, transposed, n),
        8 => rows::<B, 8>(part, inner, transposed, n),
        16 => rows::<B, 16>(part, inner, transposed, n),
        _ => None,
    }
}

fn rows<B: Bits, const M: usize>(part: &mut [u8], inner: usize, transposed: bool, n: u8) -> Option<u64> {
    let (width, row) = (size_of::<B>(), inner * size_of::<B>());
    if row == 0 || part.len() % row != 0 || !finite::<B>(part) {
        return None;
    }
    let mut zeros = 0;
    if transposed {
        for group in part.chunks_mut(M * row) {
            for first in (0..row).step_by(LANES * width) {
                zeros += down::<B, M>(group, row, first..row.min(first + LANES * width), n);
            }
        }
    } else {
        for line in part.chunks_mut(row) {
            zeros += line.chunks_mut(LANES * M * width).map(|run| along::<B, M>(run, n)).sum::<u64>();
        }
    }
    Some(zeros)
}

/// Whether no element is other than a number.
fn finite<B: Bits>(part: &[u8]) -> bool {
    let mut block = [B::default(); 256];
    part.chunks(size_of_val(&block)).all(|bytes| {
        B::load(bytes, &mut block);
        block.iter().fold(B::Key::default(), |most, e| most.max(e.key())) <= B::INFINITE
    })
}

/// Groups of `M` neighbours; the last one may be short.
fn along<B: Bits, const M: usize>(run: &mut [u8], n: u8) -> u64 {
    let elements = run.len() / size_of::<B>();
    let mut groups = [[B::default(); M]; LANES];
    B::load(run, groups.as_flattened_mut());
    let mut keys = [[B::Key::default(); LANES]; M];
    for (lane, group) in groups.iter().enumerate() {
        for (member, element) in group.iter().enumerate() {
            keys[member][lane] = element.key();
        }
    }
    let ranks = ranks::<B, M>(&keys);
    for (lane, group) in groups.iter_mut().enumerate() {
        for (member, element) in group.iter_mut().enumerate() {
            *element = element.kept(ranks[member][lane], n.into());
        }
    }
    let kept = &groups.as_flattened()[..elements];
    B::store(kept, run);
    zeros(kept)
}

/// Groups of `M` rows of `row` bytes, or as many as there are, in a range of each row's bytes.
fn down<B: Bits, const M: usize>(group: &mut [u8], row: usize, range: std::ops::Range<usize>, n: u8) -> u64 {
    let lanes = range.len() / size_of::<B>();
    let mut elements = [[B::default(); LANES]; M];
    for (line, bytes) in elements.iter_mut().zip(group.chunks(row)) {
        B::load(&bytes[range.clone()], line);
    }
    let keys = elements.each_ref().map(|line| line.map(B::key));
    let ranks = ranks::<B, M>(&keys);
    let mut count = 0;
    for ((line, ranks), bytes) in elements.iter_mut().zip(&ranks).zip(group.chunks_mut(row)) {
        line.iter_mut().zip(ranks).for_each(|(element, rank)| *element = element.kept(*rank, n.into()));
        B::store(line, &mut bytes[range.clone()]);
        count += zeros(&line[..lanes]);
    }
    count
}

/// How many members of its group come before each. Members that a short group lacks are zeros at its end, so they come
/// before nobody.
#[inline(always)]
fn ranks<B: Bits, const M: usize>(keys: &[[B::Key; LANES]; M]) -> [[B::Key; LANES]; M] {
    let mut ranks = [[B::Key::default(); LANES]; M];
    for first in 0..M {
        let (before, after) = ranks.split_at_mut(first + 1);
        for (second, rank) in after.iter_mut().enumerate() {
            B::compare(&keys[first], &keys[first + 1 + second], [&mut before[first], rank]);
        }
    }
    ranks
}

#[inline(always)]
fn zeros<B: Bits>(elements: &[B]) -> u64 {
    let none = B::Key::default();
    elements.iter().map(|e| u32::from(e.key() == none)).sum::<u32>().into()
}

#[cfg(test)]
mod tests {
    use super::keep;
    use crate::pattern::SparsityPattern;
    use crate::prune::{Choose, Magnitude, choose::Tile};
    use crate::workload::onnx::value::Elem;
    use crate::workload::weights::{decode, width};

    /// Elements with many ties, zeros of both signs and infinities.
    fn elements(elem: Elem, count: usize) -> Vec<u8> {
        let value = |i: usize| {
            let x = i.wrapping_mul(2_654_435_761) >> 7;
            let small = (x % 7) as f32 - 3.0;
            let x = if x % 41 == 0 {
                -0.0
            } else if x % 43 == 0 {
                f32::NEG_INFINITY
            } else {
                small
            };
            let mut bytes = vec![0; width(elem).unwrap()];
            if elem == Elem::I8 {
                bytes[0] = (i.wrapping_mul(37) % 256) as u8
            } else {
                crate::workload::weights::encode(elem, x, &mut bytes)
            }
            bytes
        };
        (0..count).flat_map(value).collect()
    }

    #[test]
    fn stored_elements_are_kept_as_decoded_ones() {
        for elem in [Elem::F32, Elem::F16, Elem::BF16, Elem::I8] {
            for (n, m) in [(2, 4), (1, 4), (1, 2), (4, 8), (3, 16), (0, 4), (4, 4)] {
                for (rows, inner) in [(1, 1), (3, 4), (5, 131), (16, 64), (17, 259), (2, 1024)] {
                    for transposed in [false, true] {
                        let stored = elements(elem, rows * inner);
                        let mut kept = stored.clone();
                        let zeros = keep(&mut kept, elem, inner, transposed, (n, m)).unwrap();
                        let mut values = vec![0f32; rows * inner];
                        decode(elem, &stored, &mut values);
                        let at = |r: usize, c: usize| if transposed { c * inner + r } else { r * inner + c };
                        let (outs, ins) = if transposed { (inner, rows) } else { (rows, inner) };
                        let matrix = (0..outs * ins).map(|i| values[at(i / ins, i % ins)]).collect();
                        let tile = Tile { layer: "w", group: 0, row: 0, col: 0, n: outs, k: ins, from: None };
                        let mask = Magnitude.choose(&tile, matrix, SparsityPattern::Nm { n, m }).unwrap().mask;
                        let w = width(elem).unwrap();
                        let mut expected = stored.clone();
                        for (r, c) in (0..outs).flat_map(|r| (0..ins).map(move |c| (r, c))) {
                            if !mask.get(r as u64, c as u64) {
                                expected[at(r, c) * w..][..w].fill(0);
                            }
                        }
                        assert_eq!(kept, expected, "{elem:?} {n}:{m} {rows}×{inner} {transposed}");
                        decode(elem, &kept, &mut values);
                        assert_eq!(zeros, values.iter().filter(|v| **v == 0.0).count() as u64);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_is_left_to_those_who_explain_it() {
        let mut part: Vec<u8> = [1.0f32, f32::NAN, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let before = part.clone();
        assert_eq!(keep(&mut part, Elem::F32, 4, false, (2, 4)), None);
        assert_eq!(part, before);
        assert_eq!(keep(&mut part, Elem::F64, 2, false, (2, 4)), None);
    }
}
