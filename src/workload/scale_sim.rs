//! SCALE-Sim's topology files: one layer a line, convolutions or matrix products, as networks of layers that stand alone.
//!
//! ```text
//! Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides, [N:M,]
//! Layer, M, N, K, [N:M,]
//! ```
//!
//! Its convolutions pad nothing and round the output up, ⌈(H − R + s)/s⌉: a last window may reach past the image, and reads
//! nothing there. That is padding at the far edges. A layer with `DP` in its name is depthwise.

use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fmt::Write;

/// A topology file.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// Its layers, in order.
    pub layers: Vec<TopologyLayer>,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq)]
pub struct TopologyLayer {
    /// Its name, unique, without characters that mean something in a pattern's glob.
    pub name: String,
    /// What it computes.
    pub kind: Kind,
    /// (N, M) of its sparsity column, where that keeps less than everything.
    pub sparsity: Option<(u64, u64)>,
}

/// What a line computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A convolution without padding.
    Conv {
        /// Image height and width.
        input: [u64; 2],
        /// Kernel height and width.
        kernel: [u64; 2],
        /// Input channels.
        channels: u64,
        /// Filters; of each channel, if depthwise.
        filters: u64,
        /// Strides.
        stride: [u64; 2],
        /// One filter bank a channel.
        depthwise: bool,
    },
    /// M×K times K×N.
    Gemm {
        /// Rows of inputs.
        m: u64,
        /// Outputs.
        n: u64,
        /// The reduction.
        k: u64,
    },
}

/// Fields of a convolution line before strides and sparsity.
const CONV: [&str; 7] =
    ["IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "filters", "stride"];
/// Fields of a matrix product.
const GEMM: [&str; 3] = ["M", "N", "K"];

impl Topology {
    /// Reads a topology; the first line is its header.
    ///
    /// # Errors
    /// [`Error::Parse`] with the line at fault.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let refuse = |line: usize, reason: String| Error::Parse {
            origin: origin.into(),
            message: format!("line {line}: {reason}"),
        };
        let mut layers = Vec::new();
        let mut names = HashSet::new();
        let mut rows = text.lines().enumerate().map(|(i, row)| (i + 1, row.trim().trim_start_matches('\u{feff}')));
        let Some((_, header)) = rows.find(|(_, row)| !row.is_empty()) else {
            return Err(refuse(1, "the file is empty; its first line should name the columns".into()));
        };
        let header_fields = header.split(',').filter(|f| !f.trim().is_empty()).count();
        if header_fields > 1
            && header.split(',').skip(1).filter(|f| !f.trim().is_empty()).all(|f| f.trim().parse::<u64>().is_ok())
        {
            return Err(refuse(
                1,
                "the first line holds numbers; SCALE-Sim skips it as a header, so add one above it".into(),
            ));
        }
        for (line, row) in rows.filter(|(_, row)| !row.is_empty()) {
            let mut fields: Vec<&str> = row.split(',').map(str::trim).collect();
            while fields.last().is_some_and(|f| f.is_empty()) {
                fields.pop();
            }
            let Some((name, fields)) = fields.split_first() else { continue };
            layers.push(layer(name, fields, &mut names).map_err(|reason| refuse(line, reason))?);
        }
        if layers.is_empty() {
            return Err(refuse(1, "the file has a header and no layers".into()));
        }
        Ok(Self { layers })
    }

    /// The same layers as a TOML network, each behind an input of its own.
    pub fn to_toml(&self, name: &str, source: &str) -> String {
        let mut text = format!(
            "# Layers of a SCALE-Sim topology; each stands alone. Far-edge padding is its rounded-up output size.\n\
             name = {}\nsources = [{}]\n\n[input]\n",
            quoted(name),
            quoted(&format!("SCALE-Sim topology {source}"))
        );
        // Writing to a string cannot fail.
        for layer in &self.layers {
            let shape = match layer.kind {
                Kind::Conv { input, channels, .. } => format!("[1, {channels}, {}, {}]", input[0], input[1]),
                Kind::Gemm { m, k, .. } => format!("[{m}, {k}]"),
            };
            let _ = writeln!(text, "{} = {shape}", quoted(&format!("{}.input", layer.name)));
        }
        for layer in &self.layers {
            let input = quoted(&format!("{}.input", layer.name));
            let op = match layer.kind {
                Kind::Gemm { n, .. } => format!("op.linear = {{ out = {n}, bias = false }}"),
                Kind::Conv { input, kernel, channels, filters, stride, depthwise } => {
                    let pad = [0, 1].map(|a| {
                        ((output(input[a], kernel[a], stride[a]) - 1) * stride[a] + kernel[a]).saturating_sub(input[a])
                    });
                    let (out, groups) = if depthwise { (filters * channels, channels) } else { (filters, 1) };
                    format!(
                        "op.conv2d = {{ out = {out}, kernel = [{}, {}], stride = [{}, {}], pad = [[0, {}], [0, {}]], groups = {groups}, bias = false }}",
                        kernel[0], kernel[1], stride[0], stride[1], pad[0], pad[1]
                    )
                }
            };
            let _ = write!(text, "\n[[layer]]\nname = {}\ninputs = [{input}]\n{op}\n", quoted(&layer.name));
        }
        text
    }
}

/// ⌈(H − R + s)/s⌉.
fn output(extent: u64, kernel: u64, stride: u64) -> u64 {
    (extent - kernel + stride).div_ceil(stride)
}

fn layer(name: &str, fields: &[&str], names: &mut HashSet<String>) -> Result<TopologyLayer, String> {
    let (numbers, columns): (usize, &[&str]) = if fields.len() <= GEMM.len() + 1 { (3, &GEMM) } else { (7, &CONV) };
    if fields.len() < numbers {
        return Err(format!(
            "layer `{name}` has {} numbers; a convolution has 7 ({}), a matrix product 3 ({})",
            fields.len(),
            CONV.join(", "),
            GEMM.join(", ")
        ));
    }
    let mut values = [0u64; 7];
    for (i, column) in columns.iter().enumerate() {
        values[i] = match fields[i].parse::<u64>() {
            Ok(v) if v > 0 && v <= 1 << 32 => v,
            _ => return Err(format!("layer `{name}`: {column} is `{}`, not a whole number from 1 to 2^32", fields[i])),
        };
    }
    let mut rest = &fields[numbers..];
    let mut stride = [values[6]; 2];
    if numbers == 7
        && let Some(width) = rest.first().and_then(|f| f.parse::<u64>().ok())
    {
        if width == 0 {
            return Err(format!("layer `{name}`: the stride is 0"));
        }
        stride[1] = width;
        rest = &rest[1..];
    }
    let sparsity = match rest {
        [] => None,
        [ratio] => Some(ratio_of(name, ratio)?).filter(|(n, m)| n < m),
        [.., extra] => return Err(format!("layer `{name}` has a field too many: `{extra}`")),
    };
    let kind = if numbers == 3 {
        Kind::Gemm { m: values[0], n: values[1], k: values[2] }
    } else {
        let (input, kernel) = ([values[0], values[1]], [values[2], values[3]]);
        for (axis, a) in [("height", 0), ("width", 1)] {
            if kernel[a] > input[a] {
                return Err(format!(
                    "layer `{name}`: the filter's {axis} {} is larger than the image's {}",
                    kernel[a], input[a]
                ));
            }
        }
        Kind::Conv { input, kernel, channels: values[4], filters: values[5], stride, depthwise: name.contains("DP") }
    };
    let clean: String =
        name.chars().map(|c| if c.is_alphanumeric() || "._-+/@".contains(c) { c } else { '_' }).collect();
    let clean = if clean.is_empty() { "layer".to_owned() } else { clean };
    let unique =
        (1..).map(|i| if i == 1 { clean.clone() } else { format!("{clean}.{i}") }).find(|n| !names.contains(n));
    let name = unique.unwrap_or(clean);
    names.insert(name.clone());
    Ok(TopologyLayer { name, kind, sparsity })
}

fn ratio_of(name: &str, text: &str) -> Result<(u64, u64), String> {
    let refuse = || format!("layer `{name}`: the sparsity `{text}` is not N:M with 1 ≤ N ≤ M");
    let (n, m) = text.split_once(':').ok_or_else(refuse)?;
    let (n, m) = (n.trim().parse::<u64>().map_err(|_| refuse())?, m.trim().parse::<u64>().map_err(|_| refuse())?);
    if n == 0 || n > m || m > 1 << 32 { Err(refuse()) } else { Ok((n, m)) }
}

fn quoted(text: &str) -> String {
    ::toml::Value::String(text.to_owned()).to_string()
}
