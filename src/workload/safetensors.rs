//! Checkpoints: the header of safetensors files, and the network whose weights they are.
//!
//! A file begins with the length of its header (eight bytes, little-endian) and the header, JSON with each tensor's type,
//! shape and place; elements follow without gaps. They stay mapped: nothing is read until somebody asks for a tensor.

use super::graph::{Graph, LayerSpec};
use super::layer::{Conv, Linear, Op, Role};
use super::onnx::consts::Payload;
use super::onnx::value::Elem;
use super::onnx::{Model, load};
use super::options::Options;
use super::weights::{Stored, Weights};
use super::{huggingface, resolve};
use crate::error::{Error, Result};
use ::safetensors::SafeTensors;
use ::safetensors::tensor::Dtype;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Names that a folder's checkpoint has, the first that is there.
const FILES: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// What a header says beside the tensors.
pub type Texts = HashMap<String, String>;

/// A checkpoint: its tensors, and what its header says beside them.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// The tensors.
    pub weights: Weights,
    /// Texts of the (first) header.
    pub metadata: Option<Texts>,
}

/// The checkpoint of a path: a `.safetensors` file, an index of several, or a folder with one of them.
///
/// # Errors
/// Files that cannot be read, are damaged, or are not there.
pub fn read(path: &Path) -> Result<Checkpoint> {
    let file = locate(path)?;
    let mut all = Vec::new();
    let mut metadata = None;
    let files = if file.extension().is_some_and(|e| e == "json") { shards(&file)? } else { vec![file] };
    for (i, file) in files.iter().enumerate() {
        let (tensors, texts) = parse(file, load::map(file)?)?;
        all.extend(tensors);
        if i == 0 {
            metadata = texts;
        }
    }
    Ok(Checkpoint { weights: Weights::new(all), metadata })
}

/// The file that a path stands for.
fn locate(path: &Path) -> Result<PathBuf> {
    let folder = match path.file_name() {
        Some(name) if name == "config.json" => path.parent().unwrap_or(Path::new("")),
        _ if path.is_dir() => path,
        _ => return Ok(path.to_path_buf()),
    };
    let found = FILES.iter().map(|f| folder.join(f)).find(|f| f.is_file());
    found.ok_or_else(|| bad(folder, format!("holds no {} and no {}: there are no weights", FILES[0], FILES[1])))
}

/// The files that an index names, each once, in order of their names.
fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|e| Error::io(index, e))?;
    let parsed: Index = serde_json::from_str(&text)
        .map_err(|e| Error::Parse { origin: index.display().to_string(), message: e.to_string() })?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let plain = |n: &String| Path::new(n).components().count() == 1 && !n.starts_with("..");
    if let Some(name) = names.iter().find(|n| !plain(n)) {
        return Err(bad(index, format!("names `{name}`, which is not a file beside it")));
    }
    Ok(names.into_iter().map(|n| index.with_file_name(n)).collect())
}

/// The tensors of one file's bytes, and the texts of its header.
///
/// # Errors
/// [`Error::Model`] where the header or a tensor's place contradicts the file.
pub fn parse(path: &Path, bytes: Bytes) -> Result<(Vec<Stored>, Option<Texts>)> {
    let (header, metadata) = SafeTensors::read_metadata(&bytes)
        .map_err(|e| bad(path, format!("is not a readable safetensors file: {e}; fetch it again")))?;
    let start = header + 8;
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else { continue };
        let (from, to) = info.data_offsets;
        let elem = elem(info.dtype);
        let whole = start.checked_add(to).filter(|&end| from <= to && end <= bytes.len());
        let end = whole.ok_or_else(|| bad(path, format!("tensor `{name}` lies past the end of the file")))?;
        let payload =
            if elem == Elem::Unknown { Payload::Missing } else { Payload::Raw(bytes.slice(start + from..end)) };
        let shape = info.shape.iter().map(|&d| d as u64).collect();
        tensors.push(Stored { name, elem, shape, payload });
    }
    Ok((tensors, metadata.metadata().clone()))
}

fn elem(dtype: Dtype) -> Elem {
    match dtype {
        Dtype::F64 => Elem::F64,
        Dtype::F32 => Elem::F32,
        Dtype::F16 => Elem::F16,
        Dtype::BF16 => Elem::BF16,
        Dtype::I64 => Elem::I64,
        Dtype::I32 => Elem::I32,
        Dtype::I16 => Elem::I16,
        Dtype::I8 => Elem::I8,
        Dtype::U64 => Elem::U64,
        Dtype::U32 => Elem::U32,
        Dtype::U16 => Elem::U16,
        Dtype::U8 => Elem::U8,
        Dtype::BOOL => Elem::Bool,
        Dtype::F8_E4M3 | Dtype::F8_E5M2 => Elem::F8,
        _ => Elem::Unknown,
    }
}

/// The network of a checkpoint: that of the `config.json` beside it, its parameters bound to the tensors; where there is
/// none or its architecture is not known, one unconnected layer a weight, which masks can be put on all the same.
///
/// # Errors
/// What [`read`] and the configuration refuse.
pub fn import(path: &Path, options: &Options) -> Result<(Model, Option<Texts>)> {
    let Checkpoint { weights, metadata } = read(path)?;
    let config = match path {
        p if p.is_dir() => p.join("config.json"),
        p if p.file_name().is_some_and(|n| n == "config.json") => p.to_path_buf(),
        p => p.with_file_name("config.json"),
    };
    let name = resolve::name_of(&config);
    let configured = config.is_file().then(|| {
        let text = std::fs::read_to_string(&config).map_err(|e| Error::io(&config, e))?;
        huggingface::parse(&text, &config, &name, options)
    });
    let graph = match configured {
        Some(Ok(graph)) => bind(graph, &weights),
        Some(Err(e)) => {
            let mut graph = loose(path, &weights)?;
            graph.warnings.push(format!("{e}; its weights are taken as layers of their own"));
            graph
        }
        None => {
            let mut graph = loose(path, &weights)?;
            graph
                .warnings
                .push("there is no config.json beside it: its weights are taken as layers of their own".into());
            graph
        }
    };
    Ok((Model { graph, weights }, metadata))
}

/// Names the parameters of a generated network after the tensors of a checkpoint.
fn bind(mut graph: Graph, weights: &Weights) -> Graph {
    let find = |layer: &str, part: &str| {
        // Checkpoints of a bare encoder leave out the first part of every name, and those of a whole model may add one.
        let short = layer.split_once('.').map_or(layer, |(_, rest)| rest);
        let dot = if part.is_empty() { "" } else { "." };
        [layer.to_owned(), short.to_owned(), format!("model.{layer}")]
            .into_iter()
            .map(|l| format!("{l}{dot}{part}"))
            .find_map(|name| weights.get(&name))
    };
    let tables: Vec<(Vec<u64>, String)> = graph
        .layers()
        .filter(|l| matches!(l.op, Op::Embedding { .. }))
        .filter_map(|l| Some((l.params.first()?.shape.clone(), find(&l.name, "weight")?.name.clone())))
        .collect();
    let mut unbound = 0;
    for i in 0..graph.len() {
        let node = graph.order()[i];
        let layer = graph.layer_mut(node);
        let name = layer.name.clone();
        let parameter = matches!(layer.op, Op::Parameter);
        for (i, p) in layer.params.iter_mut().enumerate() {
            let part = match p.role {
                _ if parameter => "",
                Role::Bias => "bias",
                Role::Scale if i == 1 => "bias",
                _ => "weight",
            };
            let reversed: Vec<u64> = p.shape.iter().rev().copied().collect();
            let tied =
                || tables.iter().find(|(shape, _)| p.shared && *shape == p.shape).and_then(|t| weights.get(&t.1));
            match find(&name, part).or_else(tied) {
                // GPT-2's layers store [in, out]; where both are the same the name tells them.
                Some(s) if p.role == Role::Weight && s.shape == reversed && (s.shape != p.shape || conv1d(&name)) => {
                    p.name.clone_from(&s.name);
                    p.shape = reversed;
                    p.transposed = true;
                }
                Some(s) if s.shape == p.shape => p.name.clone_from(&s.name),
                _ => unbound += 1,
            }
        }
    }
    if unbound > 0 {
        graph.warnings.push(format!("{unbound} parameters of the network have no tensor of their name and shape"));
    }
    graph
}

/// Whether a layer is one of GPT-2's, which are stored `[in, out]`.
fn conv1d(layer: &str) -> bool {
    layer.contains("transformer.h.") && ["c_attn", "c_proj", "c_fc"].iter().any(|p| layer.ends_with(p))
}

/// One layer a weight, unconnected.
fn loose(path: &Path, weights: &Weights) -> Result<Graph> {
    let mut specs = Vec::new();
    let table = |name: &str| ["embed", "wte", "wpe"].iter().any(|part| name.contains(part));
    let mut bound = Vec::new();
    for s in weights.iter().filter(|s| s.elem.dtype().is_some() && !s.shape.contains(&0)) {
        let layer = s.name.strip_suffix(".weight").unwrap_or(&s.name);
        let (op, input) = match s.shape[..] {
            [out, k] if !table(layer) => (Op::Linear(Linear { out, bias: false, experts: None }), vec![1, k]),
            [out, channels, ref kernel @ ..] if !kernel.is_empty() => {
                let d = kernel.len();
                let conv = Conv {
                    out,
                    kernel: kernel.to_vec(),
                    stride: vec![1; d],
                    pad: vec![(0, 0); d],
                    dilation: vec![1; d],
                    groups: 1,
                    bias: false,
                    transposed: false,
                    output_pad: Vec::new(),
                };
                (Op::Conv(conv), [&[1, channels], kernel].concat())
            }
            _ => continue,
        };
        let from = format!("{layer}/input");
        let spec = |name: &str, op, inputs, shape| LayerSpec {
            name: name.to_owned(),
            op,
            inputs,
            shape,
            spelled: "weight".to_owned(),
        };
        specs.push(spec(&from, Op::Input, Vec::new(), Some(input)));
        specs.push(spec(layer, op, vec![from], None));
        bound.push((layer.to_owned(), s.name.clone()));
    }
    if specs.is_empty() {
        return Err(bad(path, "has no tensor that is a weight matrix or a filter"));
    }
    let mut graph = Graph::build(&resolve::name_of(path), specs)?;
    let names: HashMap<String, String> = bound.into_iter().collect();
    for i in 0..graph.len() {
        let layer = graph.layer_mut(petgraph::graph::NodeIndex::new(i));
        if let (Some(name), Some(p)) = (names.get(&layer.name), layer.params.first_mut()) {
            p.name.clone_from(name);
        }
    }
    graph.sources = vec![path.display().to_string()];
    Ok(graph)
}

fn bad(path: &Path, reason: impl Into<String>) -> Error {
    load::bad(path, reason)
}
