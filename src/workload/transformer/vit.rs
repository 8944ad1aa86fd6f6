//! ViT: patches by a strided convolution, a class token, learned positions, layer norms before each half.

use super::{Config, Net, Options, refuse};
use crate::error::{Error, Result};
use crate::workload::layer::{Attention, Conv, Function, Op};

pub(super) fn net(name: &str, c: &Config, options: &Options) -> Result<Net> {
    let hidden = c.hidden_size.unwrap_or(768);
    let heads = c.num_attention_heads.unwrap_or(12);
    let blocks = super::blocks(name, c.num_hidden_layers.unwrap_or(12))?;
    let intermediate = c.intermediate_size.unwrap_or(3072);
    let (image, patch) = (c.image_size.unwrap_or(224), c.patch_size.unwrap_or(16));
    let qkv_bias = c.qkv_bias.unwrap_or(true);
    let act = super::activation(name, c.hidden_act.as_deref().unwrap_or("gelu"))?;
    let head_dim = super::head_dim(name, hidden, heads)?;
    let side = image.checked_div(patch).filter(|&s| s > 0);
    let side = side.ok_or_else(|| refuse(name, format!("an image of {image} has no patches of {patch}")))?;
    let tokens = side.checked_mul(side).and_then(|n| n.checked_add(1));
    let tokens = tokens.ok_or_else(|| refuse(name, format!("an image of {image} has too many patches of {patch}")))?;

    let mut net = Net::default();
    let shape = image_shape(name, [c.num_channels.unwrap_or(3), image, image], options, &mut net)?;
    let batch = shape[0];
    let pixels = net.input("pixel_values", &shape);
    let conv = Conv {
        out: hidden,
        kernel: vec![patch; 2],
        stride: vec![patch; 2],
        pad: vec![(0, 0); 2],
        dilation: vec![1; 2],
        groups: 1,
        bias: true,
        transposed: false,
        output_pad: Vec::new(),
    };
    let x = net.conv("vit.embeddings.patch_embeddings.projection", conv, &pixels);
    let x = net.reshape("vit.embeddings.flatten", &[0, 0, Op::INFER], &x);
    let x = net.transpose("vit.embeddings.tokens", &[0, 2, 1], &x);
    let class = net.parameter("vit.embeddings.cls_token", &[1, 1, hidden]);
    let class = net.expand("vit.embeddings.cls_tokens", vec![batch, 1, hidden], &class);
    let x = net.concat("vit.embeddings.concat", 1, &[&class, &x]);
    let places = net.parameter("vit.embeddings.position_embeddings", &[1, tokens, hidden]);
    let mut x = net.add("vit.embeddings.add_position", &x, &places);
    for i in 0..blocks {
        let at = format!("vit.encoder.layer.{i}");
        let normed = net.layer_norm(format!("{at}.layernorm_before"), &x);
        let [q, k, v] = ["query", "key", "value"]
            .map(|part| net.linear(format!("{at}.attention.attention.{part}"), hidden, qkv_bias, &normed));
        let attention = Attention { heads, kv_heads: heads, head_dim, causal: false, past: 0, window: None };
        let y = net.attention(format!("{at}.attention.attention.attention"), attention, [&q, &k, &v]);
        let y = net.linear(format!("{at}.attention.output.dense"), hidden, true, &y);
        let middle = net.add(format!("{at}.attention.residual"), &y, &x);
        let normed = net.layer_norm(format!("{at}.layernorm_after"), &middle);
        let y = net.linear(format!("{at}.intermediate.dense"), intermediate, true, &normed);
        let y = net.pointwise(format!("{at}.intermediate.act"), act, &[&y]);
        let y = net.linear(format!("{at}.output.dense"), hidden, true, &y);
        x = net.add(format!("{at}.output.residual"), &y, &middle);
    }
    let x = net.layer_norm("vit.layernorm", &x);
    let first = net.take("vit.class_token", "slice", 1, 1, &x);
    let first = net.reshape("vit.class_features", &[batch, hidden], &first);
    match classes(c) {
        Some(classes) => {
            net.linear("classifier", classes, true, &first);
        }
        None => {
            let pooled = net.linear("vit.pooler.dense", hidden, true, &first);
            net.pointwise("vit.pooler.activation", (Function::Tanh, "tanh"), &[&pooled]);
        }
    }
    Ok(net)
}

/// Classes of the classifier; a bare encoder has a pooler instead.
fn classes(c: &Config) -> Option<u64> {
    let stated = c.num_labels.or(c.id2label.as_ref().map(|names| names.len() as u64));
    let classifies = |a: &String| a.ends_with("ForImageClassification");
    match &c.architectures {
        Some(list) if list.iter().any(classifies) => Some(stated.unwrap_or(2)),
        Some(_) => None,
        None => stated,
    }
}

fn image_shape(name: &str, image: [u64; 3], options: &Options, net: &mut Net) -> Result<[u64; 4]> {
    super::no_context(name, options)?;
    super::known_inputs("pixel_values", options)?;
    if options.seq.is_some() {
        net.warn(format!("`{name}` sees patches of an image; the sequence length changes nothing"));
    }
    let [channels, height, width] = image;
    match options.inputs.get("pixel_values").map(Vec::as_slice) {
        None => Ok([options.batch.or(options.dims.get("batch").copied()).unwrap_or(1), channels, height, width]),
        Some(&[batch, c, h, w]) if [c, h, w] == image => Ok([batch, c, h, w]),
        Some(other) => {
            let reason =
                format!("its position table fits images [batch, {channels}, {height}, {width}], not {other:?}");
            Err(Error::argument("input `pixel_values`", reason))
        }
    }
}
