//! Fused attention: prefill as tiles of queries that stream over keys, decode as a read of the cache.
//!
//! Prefill follows FlashAttention-2 (Dao, 2023): a block of 128 queries passes over all keys that it may see, and the
//! exponentials of a block's scores run beside its products. Decode splits long caches over multiprocessors
//! (Flash-Decoding); grouped queries share one read of their keys and values.

use super::facts::{Engine, Facts};
use super::memory::{Footprint, Setting, larger, overlapped};
use crate::cost::OperandBytes;
use crate::lower::Attention;
use crate::profile::calibration::AttentionConstants;

/// What an attention costs.
#[derive(Clone, Copy, Debug)]
pub struct AttentionCost {
    /// Seconds of the kernel, launch excluded.
    pub time: f64,
    /// Seconds of arithmetic.
    pub compute: f64,
    /// Seconds of main memory.
    pub memory: f64,
    /// Seconds of start and end.
    pub ramp: f64,
    /// Main-memory bytes.
    pub dram: OperandBytes,
    /// Bytes from L2.
    pub l2: f64,
    /// Whether the decode kernel runs.
    pub decode: bool,
}

/// An attention in base units.
#[derive(Clone, Copy, Debug)]
pub struct AttentionWork {
    /// Sequences times query heads.
    pub heads: f64,
    /// Sequences times key/value heads.
    pub kv_heads: f64,
    /// Queries.
    pub queries: f64,
    /// Keys that a query may see at most.
    pub keys: f64,
    /// Query–key pairs of one head.
    pub pairs: f64,
    /// Features of a head.
    pub width: f64,
    /// Bytes of an element.
    pub element: f64,
    /// Peak multiply–accumulates a second.
    pub rate: f64,
    /// Whether later keys are masked.
    pub causal: bool,
    /// Compulsory bytes.
    pub footprint: Footprint,
}

impl AttentionWork {
    /// From the lowered operation.
    pub fn of(facts: &Facts, a: &Attention) -> Option<Self> {
        let mut peak = facts.peak(a.dtype)?;
        if peak.engine == Engine::Tensor4 {
            peak = facts.peak(crate::dtype::DType::Fp8)?;
        }
        let on_chip = a.resident.get();
        let queries = a.query_bytes().get();
        Some(Self {
            heads: (a.batch * a.heads) as f64,
            kv_heads: (a.batch * a.kv_heads) as f64,
            queries: a.queries as f64,
            keys: a.window.map_or(a.keys, |w| a.keys.min(w.saturating_add(a.queries))) as f64,
            pairs: a.pairs(),
            width: a.head_dim as f64,
            element: a.dtype.bytes(),
            rate: peak.rate,
            causal: a.causal,
            footprint: Footprint {
                weights: (a.kv_bytes().get() - (on_chip - queries).max(0.0)).max(0.0),
                metadata: 0.0,
                inputs: (queries - on_chip).max(0.0),
                outputs: a.output_bytes().get(),
            },
        })
    }
}

/// Queries of a block: 128, fewer where there are not as many.
fn block(queries: f64) -> f64 {
    if queries > 64.0 {
        128.0
    } else if queries > 32.0 {
        64.0
    } else if queries > 16.0 {
        32.0
    } else {
        16.0
    }
}
/// Queries up to which the decode kernel is used.
const DECODE: f64 = 8.0;

/// Prefill or decode, whichever the number of queries asks for.
pub fn attention(facts: &Facts, c: &AttentionConstants, setting: &Setting, w: &AttentionWork) -> AttentionCost {
    let whole = facts.sms * facts.clock;
    let dram = w.footprint.dram(facts.l2, setting, 0.0);
    let memory = dram.total().get() / (facts.bandwidth * c.dram);
    let tokens = if setting.serving { w.heads * w.queries * c.tokens / whole } else { 0.0 };
    if w.queries <= DECODE && w.keys > w.queries {
        let chip = (w.heads * c.decode_head + w.kv_heads * (w.keys / 64.0) * c.decode_step) / whole;
        let macs = 2.0 * w.kv_heads * w.pairs * w.width * 16.0;
        let compute = larger(macs / w.rate, chip);
        let ramp = c.decode_ramp / facts.clock;
        let time = overlapped(compute, memory, 3.0) + ramp;
        return AttentionCost { time, compute, memory, ramp, dram, l2: w.footprint.total(), decode: true };
    }
    let size = block(w.queries);
    let blocks = w.heads * (w.queries / size).ceil();
    let queries = (w.queries / size).ceil() * size;
    // Keys seen by a block, the masked half of its diagonal blocks included.
    let seen = (w.pairs / w.queries + if w.causal { size / 2.0 } else { 0.0 }).min(w.keys.max(16.0)).max(16.0);
    let products = 2.0 * size * seen * w.width / (w.rate / whole * c.issue * setting.pace);
    let exponentials = size * seen / (c.exponential * setting.pace);
    let per_block = larger(products, exponentials) + c.block;
    let load = blocks / facts.sms;
    let waves = if load <= 1.0 { 1.0 } else { load + (load.ceil() - load) * c.tail };
    let watts = facts.watts / (2e-12 * w.rate);
    let floor = 2.0 * w.heads * w.pairs * w.width / (w.rate * (c.power * watts.sqrt()).min(1.0));
    let ramp = c.ramp / facts.clock;
    let compute = (waves * per_block / facts.clock).max(floor);
    let l2 = w.heads * (queries / size) * seen * 2.0 * w.width * w.element;
    let time = overlapped(compute, memory, 3.0) + tokens + ramp;
    AttentionCost { time, compute, memory, ramp, dram, l2, decode: false }
}
