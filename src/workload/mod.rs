//! Networks: a DAG of layers with inferred shapes, and the importers that make one.

pub mod graph;
pub mod layer;
pub mod shape;

pub use graph::{Edge, Graph, LayerSpec};
pub use layer::{Layer, Op, Param, Role, Shape, Tensor};
