//! BERT: encoder with layer norms after each half, and the pooler over the first token.

use super::{Config, Net, Tokens};
use crate::error::Result;
use crate::workload::layer::{Attention, Function};

pub(super) fn net(name: &str, c: &Config, t: &Tokens) -> Result<Net> {
    let hidden = c.hidden_size.unwrap_or(768);
    let heads = c.num_attention_heads.unwrap_or(12);
    let blocks = super::blocks(name, c.num_hidden_layers.unwrap_or(12))?;
    let intermediate = c.intermediate_size.unwrap_or(3072);
    let positions = c.max_position_embeddings.unwrap_or(512);
    let act = super::activation(name, c.hidden_act.as_deref().unwrap_or("gelu"))?;
    let head_dim = super::head_dim(name, hidden, heads)?;
    t.within(name, positions)?;

    let mut net = Net::default();
    let at = "bert.embeddings";
    let ids = net.input("input_ids", &[t.batch, t.new]);
    let segments = net.input("token_type_ids", &[t.batch, t.new]);
    let places = net.input("position_ids", &[1, t.new]);
    let words = net.embedding(&format!("{at}.word_embeddings"), c.vocab_size.unwrap_or(30_522), hidden, &ids);
    let kinds = c.type_vocab_size.unwrap_or(2);
    let segments = net.embedding(&format!("{at}.token_type_embeddings"), kinds, hidden, &segments);
    let places = net.embedding(&format!("{at}.position_embeddings"), positions, hidden, &places);
    let x = net.add(format!("{at}.add_token_type"), &words, &segments);
    let x = net.add(format!("{at}.add_position"), &x, &places);
    let mut x = net.layer_norm(format!("{at}.LayerNorm"), &x);
    for i in 0..blocks {
        let at = format!("bert.encoder.layer.{i}");
        let [q, k, v] =
            ["query", "key", "value"].map(|part| net.linear(format!("{at}.attention.self.{part}"), hidden, true, &x));
        let attention = Attention { heads, kv_heads: heads, head_dim, causal: false, past: 0, window: None };
        let y = net.attention(format!("{at}.attention.self.attention"), attention, [&q, &k, &v]);
        let y = net.linear(format!("{at}.attention.output.dense"), hidden, true, &y);
        let y = net.add(format!("{at}.attention.output.residual"), &y, &x);
        let middle = net.layer_norm(format!("{at}.attention.output.LayerNorm"), &y);
        let y = net.linear(format!("{at}.intermediate.dense"), intermediate, true, &middle);
        let y = net.pointwise(format!("{at}.intermediate.act"), act, &[&y]);
        let y = net.linear(format!("{at}.output.dense"), hidden, true, &y);
        let y = net.add(format!("{at}.output.residual"), &y, &middle);
        x = net.layer_norm(format!("{at}.output.LayerNorm"), &y);
    }
    let first = net.take("bert.pooler.first_token", "slice", 1, 1, &x);
    let first = net.reshape("bert.pooler.token", &[t.batch, hidden], &first);
    let pooled = net.linear("bert.pooler.dense", hidden, true, &first);
    net.pointwise("bert.pooler.activation", (Function::Tanh, "tanh"), &[&pooled]);
    if let Some(head) = c.architectures.iter().flatten().find(|a| *a != "BertModel") {
        net.warn(format!("the head of {head} is not counted; the encoder and its pooler are"));
    }
    Ok(net)
}
