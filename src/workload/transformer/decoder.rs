//! Llama and its descendants: rotary positions, RMS norms before each half, gated feed-forward, experts.

use super::{Config, Net, Tokens};
use crate::error::Result;
use crate::workload::layer::{Attention, Function};

/// What the architectures differ in.
pub(super) struct Decoder {
    hidden: u64,
    blocks: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    intermediate: u64,
    vocab: u64,
    tied: bool,
    qkv_bias: bool,
    out_bias: bool,
    mlp_bias: bool,
    /// Gemma multiplies the embeddings by √hidden.
    scaled: bool,
    activation: (Function, &'static str),
    /// Keys that a query sees, and the first block that limits them.
    window: Option<(u64, u64)>,
    /// Experts that exist, and those that a token visits.
    experts: Option<(u64, u64)>,
}

/// The library's defaults of an architecture: vocabulary, hidden, intermediate, blocks, heads, key/value heads.
fn defaults(family: &str) -> [u64; 6] {
    match family {
        "mistral" | "mixtral" => [32_000, 4096, 14_336, 32, 32, 8],
        "qwen2" => [151_936, 4096, 22_016, 32, 32, 32],
        "gemma" => [256_000, 3072, 24_576, 28, 16, 16],
        _ => [32_000, 4096, 11_008, 32, 32, 0],
    }
}

impl Decoder {
    pub(super) fn read(name: &str, family: &str, c: &Config) -> Result<Self> {
        let [vocab, hidden, intermediate, blocks, heads, kv_heads] = defaults(family);
        let gemma = family == "gemma";
        let hidden = c.hidden_size.unwrap_or(hidden);
        let heads = c.num_attention_heads.unwrap_or(heads);
        let kv_heads = c.num_key_value_heads.unwrap_or(if kv_heads == 0 { heads } else { kv_heads });
        let head_dim = match c.head_dim {
            Some(d) => d,
            None if gemma => 256,
            None => super::head_dim(name, hidden, heads)?,
        };
        let act = c.hidden_activation.as_deref().filter(|_| gemma).or(c.hidden_act.as_deref());
        let act = act.unwrap_or(if gemma { "gelu_pytorch_tanh" } else { "silu" });
        let window = match family {
            "mistral" => c.sliding_window.unwrap_or(Some(4096)).map(|w| (w, 0)),
            "mixtral" => c.sliding_window.flatten().map(|w| (w, 0)),
            "qwen2" if c.use_sliding_window == Some(true) => {
                c.sliding_window.unwrap_or(Some(4096)).map(|w| (w, c.max_window_layers.unwrap_or(28)))
            }
            _ => None,
        };
        let experts =
            (family == "mixtral").then(|| (c.num_local_experts.unwrap_or(8), c.num_experts_per_tok.unwrap_or(2)));
        if let Some((count, active)) = experts.filter(|&(count, active)| active == 0 || active > count) {
            return Err(super::refuse(name, format!("a token cannot visit {active} of {count} experts")));
        }
        let attention_bias = c.attention_bias.unwrap_or(false) && matches!(family, "llama" | "gemma");
        Ok(Self {
            hidden,
            blocks: super::blocks(name, c.num_hidden_layers.unwrap_or(blocks))?,
            heads,
            kv_heads,
            head_dim,
            intermediate: c.intermediate_size.unwrap_or(intermediate),
            vocab: c.vocab_size.unwrap_or(vocab),
            tied: c.tie_word_embeddings.unwrap_or(gemma),
            qkv_bias: attention_bias || family == "qwen2",
            out_bias: attention_bias,
            mlp_bias: c.mlp_bias.unwrap_or(false) && family == "llama",
            scaled: gemma,
            activation: super::activation(name, act)?,
            window,
            experts,
        })
    }

    pub(super) fn net(&self, t: &Tokens) -> Net {
        let mut net = Net::default();
        let ids = net.input("input_ids", &[t.batch, t.new]);
        let mut x = net.embedding("model.embed_tokens", self.vocab, self.hidden, &ids);
        if self.scaled {
            x = net.pointwise("model.embed_tokens.scale", (Function::Mul, "mul"), &[&x]);
        }
        for i in 0..self.blocks {
            let at = format!("model.layers.{i}");
            let normed = net.rms_norm(format!("{at}.input_layernorm"), &x);
            let attended = self.attention(&mut net, &at, i, t, &normed);
            let middle = net.add(format!("{at}.self_attn.residual"), &x, &attended);
            let normed = net.rms_norm(format!("{at}.post_attention_layernorm"), &middle);
            let (half, fed) = match self.experts {
                Some(experts) => ("block_sparse_moe", self.mixture(&mut net, &at, experts, t, &normed)),
                None => ("mlp", self.feed_forward(&mut net, &at, &normed)),
            };
            x = net.add(format!("{at}.{half}.residual"), &middle, &fed);
        }
        let x = net.rms_norm("model.norm", &x);
        if self.tied {
            net.tied_linear("lm_head", self.vocab, &x);
        } else {
            net.linear("lm_head", self.vocab, false, &x);
        }
        net
    }

    fn attention(&self, net: &mut Net, at: &str, block: u64, t: &Tokens, x: &str) -> String {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        let at = format!("{at}.self_attn");
        // Absurd extents saturate here and are refused when the shapes are inferred.
        let [wide, narrow] = [heads, kv_heads].map(|h| h.saturating_mul(head_dim));
        let q = net.linear(format!("{at}.q_proj"), wide, self.qkv_bias, x);
        let k = net.linear(format!("{at}.k_proj"), narrow, self.qkv_bias, x);
        let v = net.linear(format!("{at}.v_proj"), narrow, self.qkv_bias, x);
        let q = net.rotary(format!("{at}.rotary_q"), &q);
        let k = net.rotary(format!("{at}.rotary_k"), &k);
        let window = self.window.filter(|&(_, first)| block >= first).map(|(keys, _)| keys);
        let attention = Attention { heads, kv_heads, head_dim, causal: true, past: t.past, window };
        let y = net.attention(format!("{at}.attention"), attention, [&q, &k, &v]);
        net.linear(format!("{at}.o_proj"), self.hidden, self.out_bias, &y)
    }

    fn feed_forward(&self, net: &mut Net, at: &str, x: &str) -> String {
        let gate = net.linear(format!("{at}.mlp.gate_proj"), self.intermediate, self.mlp_bias, x);
        let up = net.linear(format!("{at}.mlp.up_proj"), self.intermediate, self.mlp_bias, x);
        let gate = net.pointwise(format!("{at}.mlp.act_fn"), self.activation, &[&gate]);
        let inner = net.mul(format!("{at}.mlp.mul"), &gate, &up);
        net.linear(format!("{at}.mlp.down_proj"), self.hidden, self.mlp_bias, &inner)
    }

    /// Each token is copied to the experts it visits; their answers are weighted and summed (Mixtral, eq. 2).
    fn mixture(&self, net: &mut Net, at: &str, (count, active): (u64, u64), t: &Tokens, x: &str) -> String {
        let at = format!("{at}.block_sparse_moe");
        let scores = net.linear(format!("{at}.gate"), count, false, x);
        let scores = net.softmax(format!("{at}.softmax"), &scores);
        let chosen = net.take(format!("{at}.topk"), "topk", 2, active, &scores);
        let weights = net.reshape(format!("{at}.weights"), &[t.batch, t.new, active, 1], &chosen);
        let visits = t.new.saturating_mul(active);
        let copies = net.expand(format!("{at}.dispatch"), vec![t.batch, visits, self.hidden], x);
        let gate = net.expert(format!("{at}.experts.w1"), self.intermediate, count, &copies);
        let up = net.expert(format!("{at}.experts.w3"), self.intermediate, count, &copies);
        let gate = net.pointwise(format!("{at}.experts.act_fn"), self.activation, &[&gate]);
        let inner = net.mul(format!("{at}.experts.mul"), &gate, &up);
        let y = net.expert(format!("{at}.experts.w2"), self.hidden, count, &inner);
        let y = net.reshape(format!("{at}.answers"), &[t.batch, t.new, active, self.hidden], &y);
        let y = net.mul(format!("{at}.weighted"), &y, &weights);
        net.sum(format!("{at}.combine"), 2, &y)
    }
}
