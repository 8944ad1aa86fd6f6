//! Energy and area of an array from published tables, scaled to its process.
//!
//! Two nodes are published operation by operation: 45 nm (Horowitz, "Computing's Energy Problem", ISSCC'14, fig. 1.1.9) and
//! 7 nm (Jouppi et al., "Ten Lessons From Three Generations Shaped Google's TPUv4i", ISCA'21, table 2). Between them, and
//! beyond, energies follow the power of the node that joins the two points. Formats that a source lacks are marked.

use crate::dtype::DType;
use crate::profile::systolic::{SparseMode, Systolic};
use crate::units::{Area, JoulesPerByte, JoulesPerMac};

/// A process node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Technology {
    /// Its name in nanometres.
    pub nm: f64,
}

const PICO: f64 = 1e-12;

/// On the power law through (45 nm, `at_45`) and (7 nm, `at_7`).
fn between(nm: f64, at_45: f64, at_7: f64) -> f64 {
    let exponent = (at_45 / at_7).ln() / (45.0f64 / 7.0).ln();
    at_7 * (nm / 7.0).powf(exponent)
}

/// (capacity in bytes, pJ per 64 bits at 45 nm, at 7 nm): Horowitz and Jouppi.
const SRAM: [(f64, f64, f64); 3] = [(8192.0, 10.0, 7.5), (32768.0, 20.0, 8.5), (1048576.0, 100.0, 14.0)];

/// pJ per 64 bits of DDR3/DDR4, either node (Horowitz gives 1.3 to 2.6 nJ, Jouppi 1.3 nJ).
const DRAM: f64 = 1300.0;

impl Technology {
    /// One multiply–accumulate: the product in the format, the sum in 32 bits.
    ///
    /// fp8 and fp4 are not in the tables: a product of 8-bit (4-bit: a quarter of it) integers, summed in fp16. bf16 is
    /// published at 7 nm; at 45 nm it is taken to scale as fp16 does. tf32 multiplies 11-bit significands, as fp16 does.
    pub fn mac(self, dtype: DType) -> JoulesPerMac {
        let (at_45, at_7) = match dtype {
            DType::Fp32 => (3.7 + 0.9, 1.31 + 0.38),
            DType::Tf32 | DType::Fp16 => (1.1 + 0.9, 0.34 + 0.38),
            DType::Bf16 => (0.21 * 1.1 / 0.34 + 0.9, 0.21 + 0.38),
            DType::Int8 => (0.2 + 0.1, 0.07 + 0.03),
            DType::Fp8 => (0.2 + 0.4, 0.07 + 0.16),
            DType::Fp4 => (0.05 + 0.4, 0.0175 + 0.16),
        };
        JoulesPerMac(between(self.nm, at_45, at_7) * PICO)
    }

    /// One byte of an SRAM of `capacity` bytes: piecewise a power of the capacity, through the published sizes.
    pub fn sram(self, capacity: f64) -> JoulesPerByte {
        let point = |i: usize| (SRAM[i].0, between(self.nm, SRAM[i].1, SRAM[i].2));
        let (low, high) = if capacity < SRAM[1].0 { (point(0), point(1)) } else { (point(1), point(2)) };
        let exponent = (high.1 / low.1).ln() / (high.0 / low.0).ln();
        JoulesPerByte(low.1 * (capacity.max(1.0) / low.0).powf(exponent) / 8.0 * PICO)
    }

    /// One byte of a pipeline register: Horowitz's square-root law of capacity from 8 KiB down to one 64-bit word.
    pub fn register(self) -> JoulesPerByte {
        let word = 10.0 * (8.0f64 / 8192.0).sqrt();
        // Registers are logic, so they scale as its adders do.
        JoulesPerByte(between(self.nm, word, word * 0.03 / 0.1) / 8.0 * PICO)
    }

    /// One byte of main memory; the interface, not the array's process, decides.
    pub fn dram(self) -> JoulesPerByte {
        JoulesPerByte(DRAM / 8.0 * PICO)
    }

    /// Silicon of `um2` square micrometres at 45 nm: transistor density grew from 3.3 to 91 million per mm² between
    /// Intel's 45 nm and TSMC's 7 nm.
    fn logic(self, um2: f64) -> Area {
        Area(um2 * 1e-12 * between(self.nm, 1.0, 3.3 / 91.2))
    }

    /// An SRAM of `capacity` bytes: cells of 0.346 µm² (Intel 45 nm) and 0.027 µm² (TSMC 7 nm), which fill half a macro.
    pub fn sram_area(self, capacity: f64) -> Area {
        Area(capacity * 8.0 * between(self.nm, 0.346, 0.027) * 2.0 * 1e-12)
    }

    /// One processing element: multiplier and adder (Horowitz's areas at 45 nm), operand, shadow and sum registers
    /// (4.5 µm² a flip-flop in the Nangate 45 nm library), and what the sparse mode adds.
    pub fn element_area(self, array: &Systolic, dtype: DType) -> Area {
        let arithmetic = match dtype {
            DType::Fp32 => 7700.0 + 4184.0,
            DType::Tf32 | DType::Fp16 | DType::Bf16 => 1640.0 + 4184.0,
            DType::Int8 => 282.0 + 137.0,
            DType::Fp8 => 282.0 + 1360.0,
            DType::Fp4 => 70.0 + 1360.0,
        };
        let bits = dtype.bits() as f64;
        // A multiplexer costs about as much as a flip-flop for every input bit it chooses from.
        let windows = match array.sparsity {
            SparseMode::None | SparseMode::Gate | SparseMode::SkipZeroTiles | SparseMode::NmLayer => 0.0,
            SparseMode::Nm | SparseMode::NmRows => array.skipping.group as f64,
            SparseMode::ColumnCombining => array.skipping.limit as f64,
            SparseMode::SkipUnstructured => 2.0 * array.skipping.depth as f64,
        };
        let flops = 3.0 * bits + 8.0 * array.partial_sum.get() + windows * bits;
        self.logic(arithmetic + 4.522 * flops)
    }

    /// All arrays with their buffers.
    pub fn area(self, array: &Systolic, dtype: DType) -> Area {
        let elements = self.element_area(array, dtype) * (array.rows as f64 * array.cols as f64);
        let sram = array.sram.inputs + array.sram.weights + array.sram.outputs;
        (elements + self.sram_area(sram.get())) * array.arrays as f64
    }
}
