//! How the CPU kernels cut a product into pieces that stay in registers and caches: what a kernel does, a simulator
//! replays and a cost model counts, written once.

/// Vectors of columns in a panel of activations.
pub const PANEL_VECTORS: u64 = 8;

/// Rows whose packed results stay in L2 beside the activations.
pub const TILE_ROWS: u64 = 512;

/// Bytes of activations that a block of K may hold and stay in L1 (32 KiB or more) beside results and values.
const L1_BYTES: f64 = 32.0 * 1024.0;

/// Vector registers of fp32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// Elements of one.
    pub lanes: u64,
    /// Accumulator vectors for each of 8, 4, 2 and 1 rows that the registers hold beside operands.
    pub tiles: [u64; 4],
}

impl Vectors {
    /// Plain code, which compilers turn into 16 registers of four elements.
    pub const PORTABLE: Self = Self { lanes: 8, tiles: [1, 1, 2, 4] };
    /// AVX2: 16 registers of eight.
    pub const AVX2: Self = Self { lanes: 8, tiles: [1, 3, 6, 8] };
    /// AVX-512: 32 registers of sixteen.
    pub const AVX512: Self = Self { lanes: 16, tiles: [3, 6, 8, 8] };

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

/// Length of a block of K for blocks of `rows` × `cols` weights, `density` of them stored, and `m` columns.
///
/// Minimises what a row costs: a load of activations is half a cycle from L1 and a whole one from L2, shared by the rows
/// of a strip; starting a row of a block is about 15 cycles and moves each result vector in and out.
pub fn block_k(k: u64, rows: u64, cols: u64, density: f64, m: u64, vectors: Vectors) -> u64 {
    let most = k.clamp(1, 1 << 16);
    let v = m.div_ceil(vectors.lanes).clamp(1, PANEL_VECTORS) as f64;
    let height = rows.clamp(1, 8) as f64;
    let cost = |kb: u64| {
        let loads = if kb as f64 * v * vectors.lanes as f64 * 4.0 <= L1_BYTES { 0.5 } else { 1.0 };
        k as f64 * density * v * (0.5 * height).max(loads) + (k as f64 / kb as f64).ceil() * (1.5 * v * height + 15.0)
    };
    let best = if m == 1 {
        most
    } else {
        (5..17)
            .map(|e| (1u64 << e).min(most))
            .min_by(|&a, &b| cost(a).total_cmp(&cost(b)).then(a.cmp(&b)))
            .unwrap_or(most)
    };
    (best / cols.max(1)).max(1) * cols.max(1)
}
