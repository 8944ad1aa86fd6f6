//! OPT: learned positions from the third row of their table, layer norms before each half, tied output.

use super::{Config, Net, Tokens, refuse};
use crate::error::Result;
use crate::workload::layer::Attention;

/// Rows of the position table before the first position (the library's `OPTLearnedPositionalEmbedding`).
const OFFSET: u64 = 2;

pub(super) fn net(name: &str, c: &Config, t: &Tokens) -> Result<Net> {
    let hidden = c.hidden_size.unwrap_or(768);
    let heads = c.num_attention_heads.unwrap_or(12);
    let blocks = super::blocks(name, c.num_hidden_layers.unwrap_or(12))?;
    let positions = c.max_position_embeddings.unwrap_or(2048);
    let vocab = c.vocab_size.unwrap_or(50_272);
    let inner = c.ffn_dim.unwrap_or(3072);
    let act = super::activation(name, c.activation_function.as_deref().unwrap_or("relu"))?;
    let head_dim = super::head_dim(name, hidden, heads)?;
    t.within(name, positions)?;
    if c.word_embed_proj_dim.is_some_and(|dim| dim != hidden) {
        return Err(refuse(name, "OPT with embeddings narrower than its blocks (opt-350m) cannot be generated"));
    }
    if c.do_layer_norm_before == Some(false) {
        return Err(refuse(name, "OPT with norms behind its blocks (opt-350m) cannot be generated"));
    }

    let mut net = Net::default();
    let ids = net.input("input_ids", &[t.batch, t.new]);
    let places = net.input("position_ids", &[1, t.new]);
    let words = net.embedding("model.decoder.embed_tokens", vocab, hidden, &ids);
    let places = net.embedding("model.decoder.embed_positions", positions.saturating_add(OFFSET), hidden, &places);
    let mut x = net.add("model.decoder.embeddings", &words, &places);
    for i in 0..blocks {
        let at = format!("model.decoder.layers.{i}");
        let normed = net.layer_norm(format!("{at}.self_attn_layer_norm"), &x);
        let [q, k, v] =
            ["q_proj", "k_proj", "v_proj"].map(|p| net.linear(format!("{at}.self_attn.{p}"), hidden, true, &normed));
        let attention = Attention { heads, kv_heads: heads, head_dim, causal: true, past: t.past, window: None };
        let y = net.attention(format!("{at}.self_attn.attention"), attention, [&q, &k, &v]);
        let y = net.linear(format!("{at}.self_attn.out_proj"), hidden, true, &y);
        let middle = net.add(format!("{at}.self_attn.residual"), &x, &y);
        let normed = net.layer_norm(format!("{at}.final_layer_norm"), &middle);
        let y = net.linear(format!("{at}.fc1"), inner, true, &normed);
        let y = net.pointwise(format!("{at}.activation_fn"), act, &[&y]);
        let y = net.linear(format!("{at}.fc2"), hidden, true, &y);
        x = net.add(format!("{at}.residual"), &middle, &y);
    }
    let x = net.layer_norm("model.decoder.final_layer_norm", &x);
    if c.tie_word_embeddings.unwrap_or(true) {
        net.tied_linear("lm_head", vocab, &x);
    } else {
        net.linear("lm_head", vocab, false, &x);
    }
    Ok(net)
}
