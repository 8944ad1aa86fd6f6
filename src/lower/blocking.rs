//! How the CPU kernels cut a product into pieces that stay in registers and caches: what a kernel does, a simulator
//! replays and a cost model counts, written once.

use std::ops::Range;

/// Vectors of columns in a panel of activations.
pub const PANEL_VECTORS: u64 = 8;

/// Rows whose packed results stay in L2 beside the activations.
pub const TILE_ROWS: u64 = 512;

/// Rows of dense weights that meet a single column together.
pub const COLUMN_ROWS: u64 = 4;

/// Bytes of activations that stay in L1 beside results and values.
const L1_BYTES: f64 = 40.0 * 1024.0;

/// Vector registers of fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// Elements of one.
    pub lanes: u64,
    /// Rows of a register tile at most.
    pub rows: u64,
    /// Accumulator vectors for each of 8, 4, 2 and 1 rows that the registers hold beside operands.
    pub tiles: [u64; 4],
}

impl Vectors {
    /// Plain code, which compilers turn into 16 registers of four elements.
    pub const PORTABLE: Self = Self { lanes: 8, rows: 8, tiles: [1, 1, 2, 4] };
    /// AVX2: 16 registers of eight, of which four rows by three vectors leave the fewest loads a product.
    pub const AVX2: Self = Self { lanes: 8, rows: 4, tiles: [1, 3, 6, 8] };
    /// AVX-512: 32 registers of sixteen.
    pub const AVX512: Self = Self { lanes: 16, rows: 8, tiles: [3, 6, 8, 8] };

    /// Those of a register of so many bytes.
    pub fn of_width(bytes: f64) -> Self {
        if bytes >= 64.0 {
            Self::AVX512
        } else if bytes >= 32.0 {
            Self::AVX2
        } else {
            Self::PORTABLE
        }
    }

    /// Columns in a register tile of the packed dense product.
    pub fn columns(&self) -> u64 {
        if self.lanes == 16 { 4 * self.lanes } else { 2 * self.lanes }
    }

    /// Rows of a strip at most, where `m` columns of activations are expected: one column takes the rows as its vectors.
    pub fn strip(&self, m: u64) -> u64 {
        if m == 1 { 8 } else { self.rows }
    }

    /// Bytes of the stack that a pass over a block row of `rows` touches with so many columns of activations: loop bounds and
    /// pointers that do not fit the registers, and in plain code accumulators that do not (those of a row alone take turns).
    /// Set by cachegrind's D1 misses (results/cpu/cachegrind.csv), in whole lines.
    pub fn frame(&self, rows: u64, columns: u64) -> u64 {
        match (*self == Self::PORTABLE && columns > 1, rows) {
            (false, _) => 320,
            (true, 1) => 1600,
            (true, _) => 1216,
        }
    }

    /// Accumulator vectors of one row of a register tile of `height` rows.
    pub fn tile(&self, height: u64) -> u64 {
        self.tiles[match height {
            8.. => 0,
            4..8 => 1,
            2..4 => 2,
            _ => 3,
        }]
    }
}

/// Heights of the strips that `rows` are cut into: the tallest (8 or 4) as often as they go, then what is left as 4, 2, 1.
pub fn strips(rows: u64, tallest: u64) -> impl Iterator<Item = u64> {
    let low = [4, 2, 1].into_iter().filter(move |&h| h < tallest && rows & h != 0);
    std::iter::repeat_n(tallest, (rows / tallest) as usize).chain(low)
}

/// Rows and columns of the blocks that blocks of a pattern are stored as, where `m` columns of activations are expected: a
/// single column meets one row's narrow blocks value by value, as rows of CSR, since they do not fill a vector.
pub fn stored((rows, cols): (u64, u64), m: u64) -> (u64, u64) {
    if m == 1 && rows == 1 && cols < 8 { (1, 1) } else { (rows, cols) }
}

/// Block rows that are ordered among one another by what they store: enough for long runs of equal counts, few enough
/// that threads find shares (four each) and that their results stay in the caches. A power of two.
pub fn window(block_rows: u64, rows: u64, threads: u64) -> u64 {
    let most = (block_rows / (4 * threads.max(1))).min(TILE_ROWS / 4 / rows.max(1)).max(1);
    1 << most.ilog2()
}

/// Consecutive ranges, one for each of `threads` at most, with about the same work in each: every cut is at the border
/// nearest to where its part of the work is reached, as far as each range keeps an item.
pub fn shares(work: impl Iterator<Item = usize>, threads: usize) -> Vec<Range<usize>> {
    let mut total = 0;
    let ends: Vec<usize> = work
        .map(|w| {
            total += w;
            total
        })
        .collect();
    let items = ends.len();
    let threads = threads.clamp(1, items.max(1));
    let mut shares = Vec::with_capacity(threads);
    let mut start = 0;
    for cut in 1..threads {
        let due = total * cut;
        let item = ends.partition_point(|&end| end * threads < due).min(items - 1);
        let before = item.checked_sub(1).map_or(0, |i| ends[i]) * threads;
        let near = if due.abs_diff(before) <= due.abs_diff(ends[item] * threads) { item } else { item + 1 };
        let end = near.clamp(start + 1, items - (threads - cut));
        shares.push(start..end);
        start = end;
    }
    shares.push(start..items);
    shares
}

/// Kept weights of N:M in a vector of its kernel.
pub const NM_CHUNK: u64 = 16;

/// Whether a single column's activations come to the `n` kept weights of every `m` by permuting registers: where the
/// groups that fill a vector span few enough columns (AVX-512), or fill a register of columns (AVX2). Others are stored as
/// CSR for it.
pub fn permutes(n: u64, m: u64, vectors: Vectors) -> bool {
    if vectors == Vectors::AVX512 {
        n > 0 && n <= NM_CHUNK && NM_CHUNK / n * m <= 64
    } else {
        vectors == Vectors::AVX2 && n > 0 && m > 0 && 8 % m == 0
    }
}

/// Operations that bring a single column's activations to a vector of kept weights, over those where two registers hold
/// the columns: decoding, one permutation and the product are six; four registers take a second permutation, a test and a
/// blend.
pub fn permutations(n: u64, m: u64, vectors: Vectors) -> f64 {
    if vectors == Vectors::AVX512 && NM_CHUNK / n.clamp(1, NM_CHUNK) * m > 2 * vectors.lanes { 1.5 } else { 1.0 }
}

/// Length of a block of K for blocks of `rows` × `cols` weights, `density` of them stored, and `m` columns.
///
/// Minimises what a row costs in cycles, by what was measured on Zen 5 (1024 × 1024 weights at five densities, 32 to 128
/// columns): a vector of activations takes 0.7 from L1 and 0.85 + 2.5 · density from L2 (neighbouring lines that are
/// fetched ahead evict others), shared by the rows of a strip; starting a row of a block takes 8 and moves each result
/// vector in and out in 1.5.
pub fn block_k(k: u64, rows: u64, cols: u64, density: f64, m: u64, vectors: Vectors) -> u64 {
    let most = k.clamp(1, 1 << 16);
    let v = m.div_ceil(vectors.lanes).clamp(1, PANEL_VECTORS) as f64;
    let height = rows.clamp(1, vectors.strip(m)) as f64;
    let panel = |kb: u64| kb as f64 * v * vectors.lanes as f64 * 4.0;
    // By what was measured on Zen 3, 512 KiB of L2: all of K may take half of it; a block of several has results beside it
    // that come again, and what a row touches of it is met with weights.
    let narrow = vectors.lanes < 16;
    let fits = |kb: u64| {
        let most = if kb >= k { 256.0 } else { 32.0 * height.clamp(2.0, 4.0) };
        !narrow || kb == 32 || panel(kb) <= most * 1024.0 && panel(kb) * density <= 64.0 * 1024.0
    };
    // The same measurements: a vector alone takes twice as long from there.
    let far = (0.85 + 2.5 * density) * if narrow && height == 1.0 { 2.0 } else { 1.0 };
    let cost = |kb: u64| {
        let held = (L1_BYTES / panel(kb)).min(1.0);
        let loads = 0.7 * held + far * (1.0 - held);
        k as f64 * density * v * (0.5 * height).max(loads) + (k as f64 / kb as f64).ceil() * (1.5 * v * height + 8.0)
    };
    let best = if m == 1 {
        most
    } else {
        (5..17)
            .map(|e| (1u64 << e).min(most))
            .filter(|&kb| fits(kb))
            .min_by(|&a, &b| cost(a).total_cmp(&cost(b)).then(a.cmp(&b)))
            .unwrap_or(most)
    };
    (best / cols.max(1)).max(1) * cols.max(1)
}

/// Columns in a panel of activations of formats narrower than four bytes: three vectors of sixteen words.
pub const NARROW_PANEL: u64 = 48;

/// Columns whose converted activations, `words` of four bytes each, stay in L2 beside weights and results.
pub fn narrow_columns(words: u64) -> u64 {
    const BYTES: u64 = 512 << 10;
    (BYTES / 4 / words.max(1) / NARROW_PANEL).clamp(1, 16) * NARROW_PANEL
}

/// Columns of activations that meet together on matrix tiles: two tiles of sixteen.
pub const TILE_PANEL: u64 = 32;

/// Steps of the reduction in a block, each a line of bytes of every row: sums wait in the result between two blocks.
pub const TILE_STEPS: u64 = 64;

/// Columns whose converted activations, a block of `steps` lines each, stay in L2 beside weights and results.
pub fn tile_columns(steps: u64) -> u64 {
    const BYTES: u64 = 1 << 20;
    (BYTES / 64 / steps.clamp(1, TILE_STEPS) / TILE_PANEL).clamp(1, 16) * TILE_PANEL
}

/// Blocking of the packed dense product, as the crate `gemm` 0.19 does it (`gemm-common`, `cache.rs`: `kernel_params`),
/// after Goto and van de Geijn (TOMS 2008) and Low et al. (TOMS 2016).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goto {
    /// Columns of activations in a register tile.
    pub mr: u64,
    /// Outputs in a register tile.
    pub nr: u64,
    /// Columns of activations in a packed block.
    pub mc: u64,
    /// Length of the reduction in a block.
    pub kc: u64,
    /// Outputs in a block.
    pub nc: u64,
    /// Activations are packed for a whole block of K at once.
    pub packs_all_inputs: bool,
    /// Weights are packed.
    pub packs_weights: bool,
    lanes: u64,
}

impl Goto {
    /// For m columns, n outputs and k inputs in fp32 on caches of (bytes, ways), innermost first.
    pub fn new(m: u64, n: u64, k: u64, vectors: Vectors, caches: &[(u64, u64)]) -> Self {
        let lanes = vectors.lanes;
        let (mr, nr) = (vectors.columns(), 6);
        let (m, n, k) = (m.max(1), n.max(1), k.max(1));
        let level = |i: usize| caches.get(i).copied();
        let (l1, l1_ways) = level(0).unwrap_or((32 * 1024, 8));
        let (l2, l2_ways) = level(1).unwrap_or((256 * 1024, 8));
        let (l1, l1_ways, l2, l2_ways) = (l1.max(32 * 1024), l1_ways.max(2), l2.max(4096), l2_ways.max(2));
        let (mc, kc, nc);
        if m <= 64 && n <= 64 {
            kc = k.min(512);
            mc = l2 / 4 / kc / mr * mr;
            nc = n.next_multiple_of(nr);
        } else {
            // A micropanel takes whole ways of L1, so that the next one evicts it and nothing else.
            let way = l1 / l1_ways / 64 * 64;
            let common = gcd(mr * 4, way);
            let kc_0 = way / common;
            let multiple = l1_ways / (mr * 4 / common + nr * kc_0 * 4 / way).max(1);
            let most = (kc_0 * multiple.next_power_of_two()).max(512).min(k);
            kc = k.div_ceil(k.div_ceil(most));
            // L2 keeps a block of activations beside a micropanel of weights.
            let taken = (nr * kc * 4).div_ceil(l2 / l2_ways);
            let left = (l2_ways - 1).saturating_sub(taken).max(1);
            let fits = (left * l2 / (l2_ways * 4 * kc) / mr * mr).max(mr);
            mc = (m.div_ceil(m.div_ceil(fits) * mr) * mr).min(8 * mr);
            nc = match level(2) {
                Some((l3, ways)) => {
                    let fits = ((ways.max(2) - 1) * l3 / ways.max(2) / (4 * kc) / nr * nr).max(nr);
                    n.div_ceil(n.div_ceil(fits) * nr) * nr
                }
                None => 128 * nr,
            };
        }
        let mc = mc.max(mr);
        Self { mr, nr, mc, kc, nc, packs_all_inputs: m <= 2 * mc && m % lanes != 0, packs_weights: m > 128 * mr, lanes }
    }

    /// Columns of the block that begins where `left` columns are left.
    pub fn columns(&self, left: u64) -> u64 {
        let columns = self.mc.min(left);
        if columns > self.lanes && !self.packs_all_inputs { columns / self.lanes * self.lanes } else { columns }
    }

    /// Whether a block of `columns` is packed when `outputs` follow it.
    pub fn packs_inputs(&self, columns: u64, outputs: u64) -> bool {
        !self.packs_all_inputs && (columns % self.lanes != 0 || outputs > 8 * self.nr)
    }
}

impl Goto {
    /// Vectors of fp32 in so many bytes.
    pub fn vectors_of(&self, bytes: f64) -> f64 {
        bytes / (4.0 * self.lanes as f64)
    }

    /// Elements of a packed row of `columns`: one and two vectors and whole panels are copied as they are, others are
    /// filled up with zeros.
    pub fn packed_width(&self, columns: u64) -> u64 {
        if columns == self.lanes || columns == 2 * self.lanes { columns } else { self.mr }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn ranges_cover_all_rows_in_order_and_balance() {
        assert_eq!(shares([1usize, 1, 1, 1].into_iter(), 2), [0..2, 2..4]);
        assert_eq!(shares([9usize, 1, 1, 1].into_iter(), 2), [0..1, 1..4]);
        assert_eq!(shares([1usize, 1, 1, 9].into_iter(), 2), [0..3, 3..4]);
        assert_eq!(shares([1usize, 1].into_iter(), 8), [0..1, 1..2]);
        // The half is reached inside the third item, and its beginning is nearer than its end.
        assert_eq!(shares([4usize, 4, 5, 4].into_iter(), 2), [0..2, 2..4]);
        assert_eq!(shares(std::iter::empty(), 3), std::iter::once(0..0).collect::<Vec<_>>());
        for threads in 1..9 {
            let ranges = shares((0..50).map(|i| i * i % 7), threads);
            assert!(ranges.len() <= threads);
            assert_eq!(ranges.iter().flat_map(Clone::clone).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
        }
    }
}
