//! The one error type of the library: each variant carries the file, layer or field at fault.

use std::path::{Path, PathBuf};

/// What can go wrong inside hwsim. Every message says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A text file (TOML, JSON, CSV) does not say what it should; `message` points at the place.
    #[error("{origin}: {message}")]
    Parse {
        /// File or built-in name.
        origin: String,
        /// The parser's message, with line and caret where it has one.
        message: String,
    },
    /// A name that nothing answers to.
    #[error("unknown {kind} `{name}`{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownName {
        /// `profile`, `workload`, `dtype`, …
        kind: &'static str,
        /// The name as it was given.
        name: String,
        /// The nearest name that exists.
        suggestion: Option<String>,
    },
    /// A sparsity pattern that cannot be read or makes no sense.
    #[error("pattern `{text}`: {reason}")]
    Pattern {
        /// The pattern as it was given.
        text: String,
        /// Why it is refused and what would do.
        reason: String,
    },
    /// A network that is not a valid DAG of layers.
    #[error("network `{graph}`{}: {reason}", layer.as_ref().map(|l| format!(", layer `{l}`")).unwrap_or_default())]
    Graph {
        /// The network.
        graph: String,
        /// The layer at fault, if it is one.
        layer: Option<String>,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A model file (ONNX, safetensors, config.json) that is broken or uses what is not supported.
    #[error("{}: {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong, where, and what to do.
        reason: String,
    },
    /// A profile whose values contradict one another or lack what an operation needs.
    #[error("profile `{profile}`, {field}: {reason}")]
    Profile {
        /// The profile's name.
        profile: String,
        /// Path of the field, as in the TOML.
        field: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A count that does not fit in 64 bits.
    #[error("{what} is larger than 2^64 − 1: the shapes are not of this world; check the dimensions")]
    Overflow {
        /// The layer or quantity.
        what: String,
    },
    /// Channel or head removal that cannot be followed through the graph.
    #[error("{pattern} on `{layer}`: {reason}")]
    Shrink {
        /// The pattern asked for.
        pattern: String,
        /// The layer that cannot be shrunk.
        layer: String,
        /// Why, with the operator's name.
        reason: String,
    },
    /// An argument whose value makes no sense.
    #[error("{argument}: {reason}")]
    Argument {
        /// The option or field.
        argument: String,
        /// Why it is refused and what would do.
        reason: String,
    },
}

/// `Result` with hwsim's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An I/O error at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A graph error at a layer.
    pub fn layer(graph: &str, layer: &str, reason: impl Into<String>) -> Self {
        Self::Graph { graph: graph.into(), layer: Some(layer.into()), reason: reason.into() }
    }

    /// A nonsensical argument.
    pub fn argument(argument: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Argument { argument: argument.into(), reason: reason.into() }
    }

    /// A name that nothing answers to, with the nearest of `known` as a suggestion.
    pub fn unknown<'a>(kind: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let lower = name.to_lowercase();
        let suggestion = known
            .into_iter()
            .map(|k| (strsim::jaro_winkler(&lower, &k.to_lowercase()), k))
            .filter(|(score, _)| *score > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, k)| k.to_owned());
        Self::UnknownName { kind, name: name.into(), suggestion }
    }
}
