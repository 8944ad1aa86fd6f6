//! Switch Transformers: T5's encoder and decoder, where every few feed-forward blocks route each token to one expert
//! (Fedus et al., JMLR 2022).

use super::{Config, Net, Tokens, refuse};
use crate::error::Result;
use crate::workload::layer::{Attention, Function};

struct Switch {
    hidden: u64,
    heads: u64,
    head_dim: u64,
    inner: u64,
    experts: u64,
    /// Tokens of a sequence that an expert takes at most; the rest pass by it.
    capacity: u64,
    act: (Function, &'static str),
}

/// Every how many blocks the feed-forward is routed; `None` for never.
fn sparse_step(layers: u64, sparse: u64) -> Option<u64> {
    layers.checked_div(sparse).map(|step| step.max(1))
}

pub(super) fn net(name: &str, c: &Config, t: &Tokens) -> Result<Net> {
    let s = Switch {
        hidden: c.d_model.unwrap_or(768),
        heads: c.num_heads.unwrap_or(12),
        head_dim: c.d_kv.unwrap_or(64),
        inner: c.d_ff.unwrap_or(2048),
        experts: c.num_experts.unwrap_or(8),
        capacity: c.expert_capacity.unwrap_or(64),
        act: super::activation(name, c.dense_act_fn.as_deref().unwrap_or("relu"))?,
    };
    if [s.hidden, s.heads, s.head_dim, s.inner, s.experts, s.capacity].contains(&0) {
        return Err(refuse(name, "a size of 0 leaves nothing to run"));
    }
    let encoders = super::blocks(name, c.num_layers.unwrap_or(12))?;
    let decoders = super::blocks(name, c.num_decoder_layers.unwrap_or(encoders))?;
    let vocab = c.vocab_size.unwrap_or(32_128);

    let mut net = Net::default();
    let ids = net.input("input_ids", &[t.batch, t.new]);
    let targets = net.input("decoder_input_ids", &[t.batch, t.new]);
    let words = net.embedding("encoder.embed_tokens", vocab, s.hidden, &ids);
    let step = sparse_step(encoders, c.num_sparse_encoder_layers.unwrap_or(3));
    let mut x = words;
    for i in 0..encoders {
        let at = format!("encoder.block.{i}");
        x = s.attend(&mut net, &format!("{at}.layer.0"), "SelfAttention", &x, None, false);
        x = s.feed(&mut net, &format!("{at}.layer.1"), step.is_some_and(|e| e == 1 || i % e == 1), t, &x);
    }
    let encoded = net.rms_norm("encoder.final_layer_norm", &x);
    // The decoder looks up the encoder's table.
    let mut y = net.tied_embedding("decoder.embed_tokens", vocab, s.hidden, &targets);
    let step = sparse_step(decoders, c.num_sparse_decoder_layers.unwrap_or(3));
    for i in 0..decoders {
        let at = format!("decoder.block.{i}");
        y = s.attend(&mut net, &format!("{at}.layer.0"), "SelfAttention", &y, None, true);
        y = s.attend(&mut net, &format!("{at}.layer.1"), "EncDecAttention", &y, Some(&encoded), false);
        y = s.feed(&mut net, &format!("{at}.layer.2"), step.is_some_and(|e| e == 1 || i % e == 1), t, &y);
    }
    let y = net.rms_norm("decoder.final_layer_norm", &y);
    if c.tie_word_embeddings.unwrap_or(true) {
        net.tied_linear("lm_head", vocab, &y);
    } else {
        net.linear("lm_head", vocab, false, &y);
    }
    Ok(net)
}

impl Switch {
    /// Attention over the tokens themselves, or over `others`.
    fn attend(&self, net: &mut Net, at: &str, kind: &str, x: &str, others: Option<&str>, causal: bool) -> String {
        let wide = self.heads.saturating_mul(self.head_dim);
        let normed = net.rms_norm(format!("{at}.layer_norm"), x);
        let keys = others.unwrap_or(&normed).to_owned();
        let q = net.linear(format!("{at}.{kind}.q"), wide, false, &normed);
        let k = net.linear(format!("{at}.{kind}.k"), wide, false, &keys);
        let v = net.linear(format!("{at}.{kind}.v"), wide, false, &keys);
        let (heads, head_dim) = (self.heads, self.head_dim);
        let attention = Attention { heads, kv_heads: heads, head_dim, causal, past: 0, window: None };
        let y = net.attention(format!("{at}.{kind}.attention"), attention, [&q, &k, &v]);
        let y = net.linear(format!("{at}.{kind}.o"), self.hidden, false, &y);
        net.add(format!("{at}.residual"), x, &y)
    }

    fn feed(&self, net: &mut Net, at: &str, routed: bool, t: &Tokens, x: &str) -> String {
        let normed = net.rms_norm(format!("{at}.layer_norm"), x);
        let y = if routed {
            self.route(net, &format!("{at}.mlp"), t, &normed)
        } else {
            let y = net.linear(format!("{at}.mlp.wi"), self.inner, false, &normed);
            let y = net.pointwise(format!("{at}.mlp.act"), self.act, &[&y]);
            net.linear(format!("{at}.mlp.wo"), self.hidden, false, &y)
        };
        net.add(format!("{at}.residual"), x, &y)
    }

    /// Each token goes through the expert that its router likes best, as long as that one has room.
    fn route(&self, net: &mut Net, at: &str, t: &Tokens, x: &str) -> String {
        let scores = net.linear(format!("{at}.router.classifier"), self.experts, false, x);
        let scores = net.softmax(format!("{at}.router.softmax"), &scores);
        let chosen = net.take(format!("{at}.router.top1"), "topk", 2, 1, &scores);
        let taken = t.new.min(self.capacity.saturating_mul(self.experts));
        let tokens = net.take(format!("{at}.dispatch"), "slice", 1, taken, x);
        let y = net.expert(format!("{at}.experts.wi"), self.inner, self.experts, &tokens);
        let y = net.pointwise(format!("{at}.experts.act"), self.act, &[&y]);
        let y = net.expert(format!("{at}.experts.wo"), self.hidden, self.experts, &y);
        let y = net.expand(format!("{at}.combine"), vec![t.batch, t.new, self.hidden], &y);
        net.mul(format!("{at}.weighted"), &y, &chosen)
    }
}
