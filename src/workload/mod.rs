//! Networks: a DAG of layers with inferred shapes, and the importers that make one.

pub mod graph;
pub mod huggingface;
pub mod layer;
pub mod onnx;
pub mod options;
pub mod resolve;
pub mod safetensors;
pub mod scale_sim;
pub mod shape;
pub mod toml;
pub mod transformer;
pub mod weights;

pub use graph::{Edge, Graph, LayerSpec};
pub use layer::{Layer, Op, Param, Role, Shape, Tensor};
pub use options::Options;
pub use resolve::resolve;
