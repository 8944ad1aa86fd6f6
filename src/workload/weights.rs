//! Stored tensors of an imported network: where their elements are, without reading them.

use super::onnx::consts::Payload;
use super::onnx::value::Elem;
use std::collections::HashMap;

/// A tensor that is stored with a model.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Name in the model.
    pub name: String,
    /// Element type on disk.
    pub elem: Elem,
    /// Shape on disk.
    pub shape: Vec<u64>,
    /// Where the elements are.
    pub payload: Payload,
}

/// The stored tensors of a network by name; [`super::Param::name`] is the key.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    all: Vec<Stored>,
    index: HashMap<String, usize>,
}

impl Weights {
    /// Takes tensors; of two with one name the first stays.
    pub fn new(all: Vec<Stored>) -> Self {
        let mut index = HashMap::with_capacity(all.len());
        for (i, s) in all.iter().enumerate() {
            index.entry(s.name.clone()).or_insert(i);
        }
        Self { all, index }
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.index.get(name).map(|&i| &self.all[i])
    }

    /// All of them, in the order of the model.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.all.iter()
    }
}
