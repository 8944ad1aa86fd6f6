//! The sample file: one measured kernel a row, and the operation that it stands for.
//!
//! `source,device,op,dtype,batch,m,n,k,pattern,kernel,timing,latency_us,attrs`; readers ignore columns that they do not
//! know. `attrs` is JSON with what an operation needs beyond its shape.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::lower::{Attention, ConvShape, Gemm, Lowered, Source, SparseGemm, Stream, StreamKind};
use crate::pattern::SparsityPattern;
use crate::units::Bytes;
use serde_json::Value;
use std::path::Path;
use std::str::FromStr;

/// What a row measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SampleOp {
    /// Weights times activations.
    Gemm,
    /// Both operands are activations.
    Bmm,
    /// A convolution.
    Conv2d,
    /// Scaled dot-product attention.
    Attention,
    /// Softmax of each row.
    Softmax,
    /// Layer or RMS norm of each row.
    Layernorm,
    /// Element by element.
    Elementwise,
    /// A whole network.
    Network,
}

impl SampleOp {
    const NAMES: [(Self, &'static str); 8] = [
        (Self::Gemm, "gemm"),
        (Self::Bmm, "bmm"),
        (Self::Conv2d, "conv2d"),
        (Self::Attention, "attention"),
        (Self::Softmax, "softmax"),
        (Self::Layernorm, "layernorm"),
        (Self::Elementwise, "elementwise"),
        (Self::Network, "network"),
    ];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }
}

impl FromStr for SampleOp {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(op, _)| *op)
            .ok_or_else(|| Error::unknown("operation", text, Self::NAMES.iter().map(|(_, n)| *n)))
    }
}

/// How a row was timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timing {
    /// Back-to-back loop: operands may stay in cache.
    Warm,
    /// Operands cycled past the last cache.
    Cold,
    /// Each call with its framework's launch.
    Host,
}

impl Timing {
    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Host => "host",
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Who measured.
    pub source: String,
    /// On which device.
    pub device: String,
    /// What.
    pub op: SampleOp,
    /// Operand format, as spelled in the file.
    pub dtype: String,
    /// Repetitions (independent products; sequences of attention).
    pub batch: u64,
    /// Rows of activations; query length.
    pub m: u64,
    /// Outputs; key length.
    pub n: u64,
    /// Dense reduction; head dimension.
    pub k: u64,
    /// Pattern of the weights, as spelled in the file.
    pub pattern: String,
    /// The library's kernel, where it is known.
    pub kernel: String,
    /// How the call was timed.
    pub timing: Timing,
    /// Measured time in microseconds.
    pub latency_us: f64,
    /// Further facts.
    pub attrs: Value,
}

/// Why a row stands for no operation of the model.
pub type Skip = &'static str;

/// Columns, in the order in which they are written.
pub const COLUMNS: [&str; 13] =
    ["source", "device", "op", "dtype", "batch", "m", "n", "k", "pattern", "kernel", "timing", "latency_us", "attrs"];

impl Sample {
    /// Reads a sample file.
    ///
    /// # Errors
    /// The file cannot be read, lacks a column, or a field cannot be understood; the message names the line.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads sample rows from text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`Sample::read`].
    pub fn parse(text: &[u8], origin: &str) -> Result<Vec<Self>> {
        let refuse = |message: String| Error::Parse { origin: origin.to_owned(), message };
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text);
        let headers = reader.headers().map_err(|e| refuse(e.to_string()))?.clone();
        let mut at = [usize::MAX; COLUMNS.len()];
        for (slot, column) in at.iter_mut().zip(COLUMNS) {
            match headers.iter().position(|h| h.trim() == column) {
                Some(i) => *slot = i,
                // `kernel` and `attrs` say more, but a row stands without them.
                None if matches!(column, "kernel" | "attrs") => {}
                None => {
                    return Err(refuse(format!(
                        "the column `{column}` is missing; a sample file begins {}",
                        COLUMNS.join(",")
                    )));
                }
            }
        }
        let mut samples = Vec::new();
        for (i, record) in reader.records().enumerate() {
            let line = i + 2;
            let record = record.map_err(|e| refuse(e.to_string()))?;
            let field = |c: usize| record.get(at[c]).unwrap_or("").trim();
            let bad = |c: usize| refuse(format!("line {line}: `{}` is not a valid {}", field(c), COLUMNS[c]));
            let count = |c: usize| match field(c) {
                "" => Ok(0),
                text => text.parse::<u64>().map_err(|_| bad(c)),
            };
            let latency_us: f64 = field(11).parse().map_err(|_| bad(11))?;
            if !(latency_us.is_finite() && latency_us > 0.0) {
                return Err(bad(11));
            }
            samples.push(Self {
                source: field(0).into(),
                device: field(1).into(),
                op: field(2).parse().map_err(|_| bad(2))?,
                dtype: field(3).into(),
                batch: count(4)?.max(1),
                m: count(5)?,
                n: count(6)?,
                k: count(7)?,
                pattern: if field(8).is_empty() { "dense".into() } else { field(8).into() },
                kernel: field(9).into(),
                timing: match field(10) {
                    "warm" => Timing::Warm,
                    "cold" => Timing::Cold,
                    "host" => Timing::Host,
                    _ => return Err(bad(10)),
                },
                latency_us,
                attrs: if field(12).is_empty() {
                    Value::Null
                } else {
                    serde_json::from_str(field(12)).map_err(|_| bad(12))?
                },
            });
        }
        Ok(samples)
    }

    /// Writes rows as a sample file.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(rows: &[Self], out: impl std::io::Write) -> Result<()> {
        let io = |e: csv::Error| Error::Parse { origin: "samples".into(), message: e.to_string() };
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(COLUMNS).map_err(io)?;
        for r in rows {
            writer.write_record(r.fields()).map_err(io)?;
        }
        writer.flush().map_err(|e| Error::io("samples", e))
    }

    fn fields(&self) -> [String; COLUMNS.len()] {
        let attrs = if self.attrs.is_null() { String::new() } else { self.attrs.to_string() };
        [
            self.source.clone(),
            self.device.clone(),
            self.op.name().to_owned(),
            self.dtype.clone(),
            self.batch.to_string(),
            self.m.to_string(),
            self.n.to_string(),
            self.k.to_string(),
            self.pattern.clone(),
            self.kernel.clone(),
            self.timing.name().to_owned(),
            self.latency_us.to_string(),
            attrs,
        ]
    }

    /// The measured time in seconds.
    pub fn seconds(&self) -> f64 {
        self.latency_us * 1e-6
    }

    /// Name of the framework setting: `source/timing`, with the serving stack where the source has several.
    pub fn setting(&self) -> String {
        let stack = if self.kernel == "vllm" { "/vllm" } else { "" };
        format!("{}/{}{stack}", self.source, self.timing.name())
    }

    /// The operation that the row measured.
    ///
    /// # Errors
    /// The reason why the row stands for no forward operation.
    pub fn lowered(&self) -> Result<Lowered, Skip> {
        let dtype: DType = self.dtype.parse().map_err(|_| "unknown dtype")?;
        let text = |key: &str| self.attrs.get(key).and_then(Value::as_str);
        let number = |key: &str| self.attrs.get(key).and_then(Value::as_u64);
        if text("pass").is_some_and(|p| p != "fwd") || text("mode") == Some("train") {
            return Err("backward pass or training");
        }
        match self.op {
            SampleOp::Gemm | SampleOp::Bmm => {
                let pattern: SparsityPattern = self.pattern.parse().map_err(|_| "unknown pattern")?;
                let gemm = Gemm { groups: self.batch, m: self.m, n: self.n, k: self.k };
                check(&[self.m, self.n, self.k])?;
                let mut op = SparseGemm::with_pattern(gemm, dtype, pattern);
                if self.op == SampleOp::Bmm {
                    op.source = Source::Activations;
                }
                op.out_dtype = match text("out") {
                    Some("fp32" | "int32") => DType::Fp32,
                    Some(other) => other.parse().unwrap_or(op.out_dtype),
                    None => op.out_dtype,
                };
                // The kernel that was measured is what is asked for, faster or not.
                op.format_free = false;
                Ok(Lowered::Gemm(op))
            }
            SampleOp::Conv2d => {
                let pair = |key: &str| -> Option<[u64; 2]> {
                    let v = self.attrs.get(key)?;
                    match v.as_array() {
                        Some(a) => Some([a.first()?.as_u64()?, a.get(1)?.as_u64()?]),
                        None => v.as_u64().map(|x| [x, x]),
                    }
                };
                let need = |key: &str| number(key).ok_or("conv2d without its geometry");
                let (h, w, r, s) = (need("h")?, need("w")?, need("r")?, need("s")?);
                let stride = pair("stride").ok_or("conv2d without its geometry")?;
                let pad = pair("pad").unwrap_or([0, 0]);
                let out = |x: u64, pad: u64, k: u64, stride: u64| {
                    (x + 2 * pad).checked_sub(k).map(|v| v / stride.max(1) + 1).ok_or("kernel larger than its image")
                };
                let (batch, channels, features) = (need("n")?, need("c")?, need("k")?);
                let output = [out(h, pad[0], r, stride[0])?, out(w, pad[1], s, stride[1])?];
                let gemm = Gemm { groups: 1, m: batch * output[0] * output[1], n: features, k: channels * r * s };
                check(&[gemm.m, gemm.n, gemm.k])?;
                let shape = ConvShape {
                    batch,
                    channels,
                    input: [h, w],
                    output,
                    kernel: [r, s],
                    stride,
                    dilation: [1, 1],
                    transposed: false,
                };
                let mut op =
                    SparseGemm::with_pattern(gemm, dtype, self.pattern.parse().map_err(|_| "unknown pattern")?);
                op.source = Source::Conv(shape);
                op.format_free = false;
                Ok(Lowered::Gemm(op))
            }
            SampleOp::Attention => {
                check(&[self.m, self.n, self.k])?;
                let heads = number("heads").ok_or("attention without heads")?;
                Ok(Lowered::Attention(Attention {
                    batch: self.batch,
                    heads,
                    kv_heads: number("kv_heads").unwrap_or(heads),
                    queries: self.m,
                    keys: self.n,
                    // Both products of unequal heads: the mean keeps operations and bytes exact.
                    head_dim: number("head_dim_vo").map_or(self.k, |v| (self.k + v) / 2),
                    causal: self.attrs.get("causal").and_then(Value::as_bool).unwrap_or(false),
                    window: number("window").filter(|w| *w > 0),
                    dtype,
                    resident: Bytes::ZERO,
                }))
            }
            SampleOp::Softmax | SampleOp::Layernorm | SampleOp::Elementwise => {
                check(&[self.m, self.n])?;
                let kind = match self.op {
                    SampleOp::Softmax => StreamKind::Softmax,
                    SampleOp::Layernorm => StreamKind::Norm,
                    _ => StreamKind::Pointwise,
                };
                let elements = (self.batch * self.m) as f64 * self.n as f64;
                let operands = match text("fn") {
                    Some("add" | "mul" | "sub" | "div" | "pow") => 2.0,
                    _ => 1.0,
                };
                let bytes = Bytes(elements * dtype.bytes());
                let parameters = if kind == StreamKind::Norm { 2.0 * self.n as f64 * dtype.bytes() } else { 0.0 };
                Ok(Lowered::Stream(Stream {
                    kind,
                    rows: self.batch * self.m,
                    cols: self.n,
                    input: bytes * operands,
                    parameters: Bytes(parameters),
                    output: bytes,
                    operations: elements,
                    dtype,
                    resident: Bytes::ZERO,
                }))
            }
            SampleOp::Network => Err("a whole network"),
        }
    }

    /// Whether two rows differ in nothing but pattern and kernel.
    pub fn same_question(&self, other: &Self) -> bool {
        self.source == other.source
            && self.device == other.device
            && self.op == other.op
            && self.dtype == other.dtype
            && self.timing == other.timing
            && (self.batch, self.m, self.n, self.k) == (other.batch, other.m, other.n, other.k)
    }
}

/// A row that this machine measured, with how.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The row; its latency is the fastest round's.
    pub sample: Sample,
    /// Threads.
    pub threads: u64,
    /// Rounds.
    pub rounds: u64,
    /// Calls in a round.
    pub calls: u64,
    /// Median of the rounds, in microseconds.
    pub median_us: f64,
    /// The slowest round, in microseconds.
    pub max_us: f64,
    /// The clock: `thread` (processor time of the one thread) or `wall`.
    pub clock: String,
    /// Instruction set of the kernels.
    pub isa: String,
}

impl Measured {
    /// Writes rows as a sample file with the columns `threads,rounds,calls,median_us,max_us,clock,isa` after its own.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(rows: &[Self], out: impl std::io::Write) -> std::io::Result<()> {
        let mut writer = csv::Writer::from_writer(out);
        let more = ["threads", "rounds", "calls", "median_us", "max_us", "clock", "isa"];
        writer.write_record(COLUMNS.into_iter().chain(more))?;
        for r in rows {
            let more = [
                r.threads.to_string(),
                r.rounds.to_string(),
                r.calls.to_string(),
                r.median_us.to_string(),
                r.max_us.to_string(),
                r.clock.clone(),
                r.isa.clone(),
            ];
            writer.write_record(r.sample.fields().into_iter().chain(more))?;
        }
        writer.flush()
    }
}

/// Extents must be there, and their products must be counts.
fn check(extents: &[u64]) -> Result<(), Skip> {
    if extents.contains(&0) {
        return Err("an extent is zero");
    }
    extents.iter().try_fold(1u64, |all, &e| all.checked_mul(e)).map(|_| ()).ok_or("extents overflow")
}
