//! `config.json` of the transformers library: its keys, and the defaults that it gives those left out.
//!
//! The same keys form the `[transformer]` table of a TOML network, so a published configuration can be copied into one.

use super::graph::Graph;
use super::options::Options;
use super::transformer;
use crate::error::{Error, Result};
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::path::Path;

/// Declares the keys once for both readers: JSON skips keys that matter to training or tokenizing only, TOML has none.
macro_rules! keys {
    ($($(#[$meta:meta])* $key:ident: $type:ty,)*) => {
        /// What a configuration says; `None` where it is silent.
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        pub struct Config {
            $($(#[$meta])* pub $key: Option<$type>,)*
        }

        /// A configuration without room for unknown keys.
        #[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct Strict {
            $($(#[$meta])* $key: Option<$type>,)*
        }

        impl From<Strict> for Config {
            fn from(strict: Strict) -> Self {
                Self { $($key: strict.$key,)* }
            }
        }
    };
}

keys! {
    /// Which architecture; one of [`transformer::MODEL_TYPES`].
    model_type: String,
    /// Classes of the library that the checkpoint was saved from (`LlamaForCausalLM`).
    architectures: Vec<String>,
    /// Features of a token.
    hidden_size: u64,
    /// Features inside the feed-forward block.
    intermediate_size: u64,
    /// Blocks.
    num_hidden_layers: u64,
    /// Query heads.
    num_attention_heads: u64,
    /// Key and value heads.
    num_key_value_heads: u64,
    /// Features of one head.
    head_dim: u64,
    /// Rows of the token table.
    vocab_size: u64,
    /// Rows of the position table.
    max_position_embeddings: u64,
    /// Rows of BERT's segment table.
    type_vocab_size: u64,
    /// Activation of the feed-forward block.
    hidden_act: String,
    /// Gemma's newer name of `hidden_act`, which wins.
    hidden_activation: String,
    /// Whether the output projection is the token table again.
    tie_word_embeddings: bool,
    /// Whether q, k, v and o have biases (Llama).
    attention_bias: bool,
    /// Whether the feed-forward projections have biases (Llama).
    mlp_bias: bool,
    /// Keys that a query sees at most; `Some(None)` where `null` says that there is no such limit.
    #[serde(default, deserialize_with = "stated")]
    sliding_window: Option<u64>,
    /// Whether Qwen2 uses `sliding_window` at all.
    use_sliding_window: bool,
    /// Qwen2's first layer with the window.
    max_window_layers: u64,
    /// Experts of a Mixtral layer.
    num_local_experts: u64,
    /// Experts that a token visits.
    num_experts_per_tok: u64,
    /// GPT-2: features of a token.
    n_embd: u64,
    /// GPT-2: blocks.
    n_layer: u64,
    /// GPT-2: heads.
    n_head: u64,
    /// GPT-2: rows of the position table.
    n_positions: u64,
    /// GPT-2: features inside the feed-forward block; four times `n_embd` unless said.
    n_inner: u64,
    /// GPT-2: activation of the feed-forward block.
    activation_function: String,
    /// OPT: features inside the feed-forward block.
    ffn_dim: u64,
    /// OPT: features of the token table.
    word_embed_proj_dim: u64,
    /// OPT: whether norms stand before each half of a block.
    do_layer_norm_before: bool,
    /// Switch Transformers: features of a token.
    d_model: u64,
    /// Switch Transformers: features of a head.
    d_kv: u64,
    /// Switch Transformers: features inside the feed-forward block.
    d_ff: u64,
    /// Switch Transformers: encoder blocks.
    num_layers: u64,
    /// Switch Transformers: decoder blocks; as many as encoder blocks unless said.
    num_decoder_layers: u64,
    /// Switch Transformers: heads.
    num_heads: u64,
    /// Switch Transformers: experts of a routed block.
    num_experts: u64,
    /// Switch Transformers: encoder blocks with experts.
    num_sparse_encoder_layers: u64,
    /// Switch Transformers: decoder blocks with experts.
    num_sparse_decoder_layers: u64,
    /// Switch Transformers: tokens of a sequence that an expert takes at most.
    expert_capacity: u64,
    /// Switch Transformers: activation of the feed-forward block.
    dense_act_fn: String,
    /// ViT: height and width of an image.
    image_size: u64,
    /// ViT: height and width of a patch.
    patch_size: u64,
    /// ViT: colours.
    num_channels: u64,
    /// ViT: whether q, k and v have biases.
    qkv_bias: bool,
    /// Classes of a classifier.
    num_labels: u64,
    /// Names of the classes; their number is `num_labels`.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    id2label: BTreeMap<String, IgnoredAny>,
}

/// Tells `null` from a key that is left out.
fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Reads the text of a `config.json`; the network is named after `name`.
///
/// # Errors
/// Text that is not JSON or has a value of the wrong type (with line and column), an unknown `model_type`, and what
/// [`transformer::build`] refuses.
pub fn parse(text: &str, path: &Path, name: &str, options: &Options) -> Result<Graph> {
    let origin = || path.display().to_string();
    let config: Config =
        serde_json::from_str(text).map_err(|e| Error::Parse { origin: origin(), message: e.to_string() })?;
    if config.model_type.is_none() {
        let supported = transformer::MODEL_TYPES.join(", ");
        let reason = format!("it has no `model_type`, so it is no transformers configuration (supported: {supported})");
        return Err(Error::Model { path: path.into(), reason });
    }
    let mut graph = transformer::build(name, &config, options)?;
    graph.sources.push(origin());
    Ok(graph)
}
