//! GPT-2: learned positions, layer norms before each half, one matrix for q, k and v, tied output.

use super::{Config, Net, Tokens};
use crate::error::Result;
use crate::workload::layer::Attention;

pub(super) fn net(name: &str, c: &Config, t: &Tokens) -> Result<Net> {
    let hidden = c.n_embd.or(c.hidden_size).unwrap_or(768);
    let heads = c.n_head.or(c.num_attention_heads).unwrap_or(12);
    let blocks = super::blocks(name, c.n_layer.or(c.num_hidden_layers).unwrap_or(12))?;
    let positions = c.n_positions.or(c.max_position_embeddings).unwrap_or(1024);
    let vocab = c.vocab_size.unwrap_or(50_257);
    let inner = c.n_inner.unwrap_or(hidden.saturating_mul(4));
    let act = super::activation(name, c.activation_function.as_deref().unwrap_or("gelu_new"))?;
    let head_dim = super::head_dim(name, hidden, heads)?;
    t.within(name, positions)?;

    let mut net = Net::default();
    let ids = net.input("input_ids", &[t.batch, t.new]);
    let places = net.input("position_ids", &[1, t.new]);
    let words = net.embedding("transformer.wte", vocab, hidden, &ids);
    let places = net.embedding("transformer.wpe", positions, hidden, &places);
    let mut x = net.add("transformer.embeddings", &words, &places);
    for i in 0..blocks {
        let at = format!("transformer.h.{i}");
        let normed = net.layer_norm(format!("{at}.ln_1"), &x);
        let joined = net.linear(format!("{at}.attn.c_attn"), hidden.saturating_mul(3), true, &normed);
        let q = net.split(format!("{at}.attn.split"), vec![hidden; 3], &joined);
        let [k, v] = [1, 2].map(|part| format!("{q}:{part}"));
        let attention = Attention { heads, kv_heads: heads, head_dim, causal: true, past: t.past, window: None };
        let y = net.attention(format!("{at}.attn.attention"), attention, [&q, &k, &v]);
        let y = net.linear(format!("{at}.attn.c_proj"), hidden, true, &y);
        let middle = net.add(format!("{at}.attn.residual"), &x, &y);
        let normed = net.layer_norm(format!("{at}.ln_2"), &middle);
        let y = net.linear(format!("{at}.mlp.c_fc"), inner, true, &normed);
        let y = net.pointwise(format!("{at}.mlp.act"), act, &[&y]);
        let y = net.linear(format!("{at}.mlp.c_proj"), hidden, true, &y);
        x = net.add(format!("{at}.mlp.residual"), &middle, &y);
    }
    let x = net.layer_norm("transformer.ln_f", &x);
    if c.tie_word_embeddings.unwrap_or(true) {
        net.tied_linear("lm_head", vocab, &x);
    } else {
        net.linear("lm_head", vocab, false, &x);
    }
    Ok(net)
}
