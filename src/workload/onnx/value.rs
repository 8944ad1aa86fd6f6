//! What the importer knows about a tensor while it walks the graph: element type, shape, and small constant values.

use crate::dtype::DType;
use std::sync::Arc;

/// A fault inside one operator, in words; the walk adds the file, the node and its name.
pub type Result<T> = std::result::Result<T, String>;

/// Constants with more elements than this are not folded: shape arithmetic never needs them.
pub const FOLD_LIMIT: u64 = 1 << 14;

/// Ranks above this are refused.
pub const MAX_RANK: usize = 64;

/// Element types, numbered as `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    /// Not stated, or a type that is not known.
    Unknown,
    /// IEEE binary32.
    F32,
    /// Unsigned 8-bit.
    U8,
    /// Signed 8-bit.
    I8,
    /// Unsigned 16-bit.
    U16,
    /// Signed 16-bit.
    I16,
    /// Signed 32-bit.
    I32,
    /// Signed 64-bit.
    I64,
    /// Text.
    Text,
    /// Boolean, one byte.
    Bool,
    /// IEEE binary16.
    F16,
    /// IEEE binary64.
    F64,
    /// Unsigned 32-bit.
    U32,
    /// Unsigned 64-bit.
    U64,
    /// Two binary32.
    C64,
    /// Two binary64.
    C128,
    /// bfloat16.
    BF16,
    /// The 8-bit floats.
    F8,
    /// Unsigned 4-bit, two a byte.
    U4,
    /// Signed 4-bit, two a byte.
    I4,
    /// 4-bit float, two a byte.
    F4,
    /// 2-bit integers, four a byte.
    I2,
}

impl Elem {
    /// From `TensorProto.DataType`.
    pub fn from_onnx(code: i32) -> Self {
        match code {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            8 => Self::Text,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            13 => Self::U64,
            14 => Self::C64,
            15 => Self::C128,
            16 => Self::BF16,
            17..=20 | 24 => Self::F8,
            21 => Self::U4,
            22 => Self::I4,
            23 => Self::F4,
            25 | 26 => Self::I2,
            _ => Self::Unknown,
        }
    }

    /// Bits of one element; text counts as a pointer.
    pub fn bits(self) -> u64 {
        match self {
            Self::C128 => 128,
            Self::F64 | Self::I64 | Self::U64 | Self::C64 | Self::Text => 64,
            Self::F32 | Self::I32 | Self::U32 | Self::Unknown => 32,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 16,
            Self::U8 | Self::I8 | Self::Bool | Self::F8 => 8,
            Self::U4 | Self::I4 | Self::F4 => 4,
            Self::I2 => 2,
        }
    }

    /// The format of a product on it, where products run in it; wider floats run as fp32, 4-bit integers as int8.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::F32 | Self::F64 => Some(DType::Fp32),
            Self::F16 => Some(DType::Fp16),
            Self::BF16 => Some(DType::Bf16),
            Self::F8 => Some(DType::Fp8),
            Self::I8 | Self::U8 | Self::I4 | Self::U4 | Self::I2 => Some(DType::Int8),
            Self::F4 => Some(DType::Fp4),
            _ => None,
        }
    }

    /// Whether arithmetic on it is floating-point.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::F64 | Self::BF16 | Self::F8 | Self::F4)
    }
}

/// The elements of a folded constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Integers and booleans.
    Ints(Vec<i64>),
    /// Floating-point numbers, already rounded to the element type.
    Floats(Vec<f64>),
}

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Ints(v) => v.len(),
            Self::Floats(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements at `index`, in that order; `None` takes zero.
    pub fn pick(&self, index: &[Option<usize>]) -> Self {
        match self {
            Self::Ints(v) => Self::Ints(index.iter().map(|i| i.and_then(|i| v.get(i).copied()).unwrap_or(0)).collect()),
            Self::Floats(v) => {
                Self::Floats(index.iter().map(|i| i.and_then(|i| v.get(i).copied()).unwrap_or(0.0)).collect())
            }
        }
    }

    /// As floating-point numbers.
    pub fn floats(&self) -> Vec<f64> {
        match self {
            Self::Ints(v) => v.iter().map(|&x| x as f64).collect(),
            Self::Floats(v) => v.clone(),
        }
    }

    /// As integers, truncated toward zero.
    pub fn ints(&self) -> Vec<i64> {
        match self {
            Self::Ints(v) => v.clone(),
            Self::Floats(v) => v.iter().map(|&x| x as i64).collect(),
        }
    }
}

/// Where the elements of a constant come from, followed through operators that keep its zeros.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The stored or generated tensor, by its number in the walk.
    pub root: usize,
    /// How its elements lie, compared with the stored ones.
    pub order: Order,
}

/// How the elements of a derived constant lie, compared with the stored tensor that they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Row-major in the same sequence, whatever the shape.
    AsStored,
    /// Axis `i` of this tensor is axis `perm[i]` of the stored one.
    Permuted(Vec<usize>),
    /// Not followed.
    Lost,
}

/// One tensor.
#[derive(Clone, Debug)]
pub struct Info {
    /// Element type.
    pub elem: Elem,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// Whether it is the same for every input of the network.
    pub constant: bool,
    /// The elements, when constant and small.
    pub data: Option<Arc<Data>>,
    /// The stored tensor behind a constant.
    pub origin: Option<Origin>,
    /// Members, when this is a sequence and not a tensor.
    pub sequence: Option<Arc<Vec<Info>>>,
}

impl Info {
    /// A tensor whose elements depend on the input.
    pub fn new(elem: Elem, shape: Vec<u64>) -> Self {
        Self { elem, shape, constant: false, data: None, origin: None, sequence: None }
    }

    /// A known constant.
    pub fn known(elem: Elem, shape: Vec<u64>, data: Data) -> Self {
        let mut info = Self::new(elem, shape);
        info.constant = true;
        info.data = Some(Arc::new(data));
        info
    }

    /// The same tensor with known elements when there are any.
    pub fn with_data(mut self, data: Option<Data>) -> Self {
        if let Some(data) = data {
            self.data = Some(Arc::new(data));
            self.constant = true;
        }
        self
    }

    /// A sequence of tensors.
    pub fn list(members: Vec<Info>) -> Self {
        let mut info = Self::new(members.first().map_or(Elem::Unknown, |m| m.elem), Vec::new());
        info.constant = members.iter().all(|m| m.constant);
        info.sequence = Some(Arc::new(members));
        info
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Elements; the walk has checked that the product fits.
    pub fn count(&self) -> u64 {
        self.shape.iter().fold(1u64, |a, &d| a.saturating_mul(d))
    }

    /// Known elements as integers.
    pub fn ints(&self) -> Option<Vec<i64>> {
        self.data.as_ref().map(|d| d.ints())
    }

    /// Known elements as numbers.
    pub fn floats(&self) -> Option<Vec<f64>> {
        self.data.as_ref().map(|d| d.floats())
    }

    /// The one known element.
    pub fn int(&self) -> Option<i64> {
        self.data.as_ref().filter(|d| d.len() == 1).and_then(|d| d.ints().first().copied())
    }
}

/// Product of extents, or a message when it leaves what 60 bits can count.
pub fn count(shape: &[u64]) -> Result<u64> {
    if shape.len() > MAX_RANK {
        return Err(format!("has {} axes; at most {MAX_RANK} are supported", shape.len()));
    }
    // A zero extent makes the tensor empty, yet the other extents still have to be sane.
    let mut product = 1u64;
    for &d in shape {
        product = product
            .checked_mul(d.max(1))
            .filter(|&p| p < 1 << 60)
            .ok_or_else(|| format!("shape {} has more elements than 2^60", show(shape)))?;
    }
    Ok(if shape.contains(&0) { 0 } else { product })
}

/// `1x3x224x224`; a scalar is `scalar`.
pub fn show(shape: &[u64]) -> String {
    if shape.is_empty() {
        return "scalar".to_owned();
    }
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
}

/// Row-major strides.
pub fn strides(shape: &[u64]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1].saturating_mul(shape[i + 1] as usize);
    }
    strides
}

/// NumPy's broadcasting of two shapes.
pub fn broadcast(a: &[u64], b: &[u64]) -> Result<Vec<u64>> {
    let rank = a.len().max(b.len());
    (0..rank)
        .map(|i| {
            let x = (i + a.len()).checked_sub(rank).map_or(1, |j| a[j]);
            let y = (i + b.len()).checked_sub(rank).map_or(1, |j| b[j]);
            match (x, y) {
                (x, y) if x == y => Ok(x),
                (1, y) => Ok(y),
                (x, 1) => Ok(x),
                _ => Err(format!("shapes {} and {} do not broadcast", show(a), show(b))),
            }
        })
        .collect()
}

/// For each element of `out`, the element of a tensor of shape `from` that broadcasting shows there.
pub fn broadcast_index(from: &[u64], out: &[u64]) -> Vec<Option<usize>> {
    let lead = out.len() - from.len().min(out.len());
    let st = strides(from);
    indices(out, |at| Some(from.iter().enumerate().map(|(i, &d)| if d == 1 { 0 } else { at[lead + i] * st[i] }).sum()))
}

/// Calls `source` with every index of `out` in row-major order.
pub fn indices(out: &[u64], mut source: impl FnMut(&[usize]) -> Option<usize>) -> Vec<Option<usize>> {
    let total = out.iter().product::<u64>() as usize;
    let mut at = vec![0usize; out.len()];
    let mut all = Vec::with_capacity(total);
    for _ in 0..total {
        all.push(source(&at));
        for axis in (0..out.len()).rev() {
            at[axis] += 1;
            if (at[axis] as u64) < out[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
    all
}

/// An axis that may count from the end.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let r = rank as i64;
    let a = if axis < 0 { axis.saturating_add(r) } else { axis };
    if (0..r).contains(&a) { Ok(a as usize) } else { Err(format!("axis {axis} is outside a tensor of {rank} axes")) }
}

/// A signed extent as an extent.
pub fn extent(value: i64, what: &str) -> Result<u64> {
    u64::try_from(value).map_err(|_| format!("{what} is {value}; an extent can't be negative"))
}
