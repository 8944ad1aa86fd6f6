//! Small configurations as the transformers library writes them, counted by hand.

use hwsim::workload::{Graph, Op, Options, huggingface};
use std::path::Path;

fn read(text: &str) -> Result<Graph, String> {
    read_with(text, &Options { seq: Some(6), ..Options::default() })
}

fn read_with(text: &str, options: &Options) -> Result<Graph, String> {
    huggingface::parse(text, Path::new("tiny/config.json"), "tiny", options).map_err(|e| e.to_string())
}

fn parameters(graph: &Graph) -> u64 {
    graph.total_parameters().unwrap()
}

fn has(graph: &Graph, name: &str) -> bool {
    graph.layers().any(|l| l.name == name)
}

/// hidden 8, 4 heads of 2, feed-forward 12, 10 words, 3 blocks.
const LLAMA: &str = r#"{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 4, "intermediate_size": 12,
    "vocab_size": 10, "num_hidden_layers": 3, "torch_dtype": "bfloat16", "rope_theta": 10000.0, "pad_token_id": null"#;

fn llama(more: &str) -> String {
    format!("{LLAMA}{more}}}")
}

#[test]
fn key_value_heads_default_to_the_heads() {
    let graph = read(&llama("")).unwrap();
    // table + blocks · (4 projections, 3 feed-forward matrices, 2 norms) + norm + head
    assert_eq!(parameters(&graph), 80 + 3 * (4 * 64 + 3 * 96 + 16) + 8 + 80);
    // tokens · weights + 2 · blocks · tokens² · hidden
    assert_eq!(graph.total_macs().unwrap(), 6 * (3 * (4 * 64 + 3 * 96) + 80) + 2 * 3 * 36 * 8);
    let grouped = read(&llama(r#", "num_key_value_heads": 2"#)).unwrap();
    assert_eq!(parameters(&graph) - parameters(&grouped), 3 * 2 * 8 * 4);
}

#[test]
fn a_tied_head_is_counted_once_but_computed() {
    let (free, tied) = (read(&llama("")).unwrap(), read(&llama(r#", "tie_word_embeddings": true"#)).unwrap());
    assert_eq!(parameters(&free) - parameters(&tied), 80);
    assert_eq!(free.total_macs().unwrap(), tied.total_macs().unwrap());
}

#[test]
fn biases_where_the_configuration_asks_for_them() {
    let plain = parameters(&read(&llama("")).unwrap());
    let attention = parameters(&read(&llama(r#", "attention_bias": true"#)).unwrap());
    assert_eq!(attention - plain, 3 * 4 * 8);
    let mlp = parameters(&read(&llama(r#", "mlp_bias": true"#)).unwrap());
    assert_eq!(mlp - plain, 3 * (12 + 12 + 8));
}

#[test]
fn head_dim_may_differ_from_the_quotient() {
    let graph = read(&llama(r#", "head_dim": 5"#)).unwrap();
    assert_eq!(parameters(&graph), 80 + 3 * (4 * 8 * 20 + 3 * 96 + 16) + 8 + 80);
}

#[test]
fn layers_are_called_as_in_the_checkpoint() {
    let graph = read(&llama("")).unwrap();
    for name in ["model.embed_tokens", "model.layers.2.self_attn.q_proj", "model.layers.0.mlp.down_proj", "lm_head"] {
        assert!(has(&graph, name), "{name}");
    }
    let count = |wanted: &str| graph.layers().filter(|l| l.spelled == wanted).count();
    assert_eq!((count("rotary"), count("rms_norm"), count("add"), count("silu"), count("mul")), (6, 7, 6, 3, 3));
}

#[test]
fn decoding_reads_the_cache() {
    let options = Options { context: Some(100), batch: Some(2), ..Options::default() };
    let graph = read_with(&llama(""), &options).unwrap();
    let past: Vec<u64> = graph
        .layers()
        .filter_map(|l| match &l.op {
            Op::Attention(a) => Some(a.past),
            _ => None,
        })
        .collect();
    assert_eq!(past, [99, 99, 99]);
    assert_eq!(graph.total_macs().unwrap(), 2 * (3 * (4 * 64 + 3 * 96) + 80) + 2 * 2 * 3 * 100 * 8);
    let options = Options { context: Some(4), seq: Some(5), ..Options::default() };
    let error = read_with(&llama(""), &options).unwrap_err();
    assert_eq!(error, "context: 5 new tokens do not fit in a context of 4; it includes them");
}

#[test]
fn mistral_limits_the_keys_unless_null() {
    let window = |more: &str| {
        let graph = read(&llama(&format!(r#", "num_key_value_heads": 2{more}"#)).replace("llama", "mistral")).unwrap();
        let windows: Vec<_> = graph
            .layers()
            .filter_map(|l| match &l.op {
                Op::Attention(a) => Some(a.window),
                _ => None,
            })
            .collect();
        (windows[0], graph.total_macs().unwrap())
    };
    let full = window("").1;
    assert_eq!(window("").0, Some(4096));
    assert_eq!(window(r#", "sliding_window": null"#).0, None);
    // Six queries see four keys instead of six.
    assert_eq!(window(r#", "sliding_window": 4"#), (Some(4), full - 2 * 3 * 6 * 2 * 8));
}

#[test]
fn qwen2_has_biases_on_q_k_v_only() {
    let plain = parameters(&read(&llama(r#", "num_key_value_heads": 2"#)).unwrap());
    let qwen = parameters(&read(&llama(r#", "num_key_value_heads": 2"#).replace("llama", "qwen2")).unwrap());
    assert_eq!(qwen - plain, 3 * (8 + 4 + 4));
}

#[test]
fn gemma_has_wide_heads_a_tied_table_and_gelu() {
    let graph = read(&llama(r#", "num_key_value_heads": 1"#).replace("llama", "gemma")).unwrap();
    // Heads of 256 unless said: q and o 8 × 1024, k and v 8 × 256; no head of its own.
    assert_eq!(parameters(&graph), 80 + 3 * (2 * 8 * 1024 + 2 * 8 * 256 + 3 * 96 + 16) + 8);
    assert!(graph.layers().any(|l| l.spelled == "gelu") && !graph.layers().any(|l| l.spelled == "silu"));
}

#[test]
fn mixtral_stores_every_expert_and_computes_the_chosen() {
    let text = llama(r#", "num_key_value_heads": 4, "num_local_experts": 5, "num_experts_per_tok": 2"#);
    let graph = read(&text.replace("llama", "mixtral")).unwrap();
    assert_eq!(parameters(&graph), 80 + 3 * (4 * 64 + 5 * 3 * 96 + 5 * 8 + 16) + 8 + 80);
    assert_eq!(graph.total_macs().unwrap(), 6 * (3 * (4 * 64 + 2 * 3 * 96 + 5 * 8) + 80) + 2 * 3 * 36 * 8);
    let error = read(&text.replace("llama", "mixtral").replace(r#"per_tok": 2"#, r#"per_tok": 9"#)).unwrap_err();
    assert_eq!(error, "network `tiny`: a token cannot visit 9 of 5 experts");
}

#[test]
fn bert_counts_encoder_and_pooler_and_says_so() {
    let text = r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 12, "vocab_size": 10, "num_hidden_layers": 2, "max_position_embeddings": 16}"#;
    let graph = read(text).unwrap();
    let block = 4 * (64 + 8) + (96 + 12) + (96 + 8) + 2 * 16;
    assert_eq!(parameters(&graph), 80 + 16 * 8 + 2 * 8 + 16 + 2 * block + 64 + 8);
    assert_eq!(graph.warnings, ["the head of BertForMaskedLM is not counted; the encoder and its pooler are"]);
    let long = read_with(text, &Options { seq: Some(17), ..Options::default() }).unwrap_err();
    assert_eq!(long, "network `tiny`: 17 tokens are asked for, but its position table has 16 rows");
    let decode = read_with(text, &Options { context: Some(9), ..Options::default() }).unwrap_err();
    assert_eq!(decode, "context: `tiny` does not decode; it has no key/value cache");
}

#[test]
fn gpt2_inner_size_defaults_to_four_times() {
    let text = r#"{"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "n_positions": 16, "vocab_size": 10}"#;
    let block = (3 * 64 + 24) + (64 + 8) + (8 * 32 + 32) + (32 * 8 + 8) + 2 * 16;
    assert_eq!(parameters(&read(text).unwrap()), 80 + 16 * 8 + block + 16);
}

#[test]
fn vit_has_a_classifier_or_a_pooler() {
    let text = |more: &str| {
        format!(
            r#"{{"model_type": "vit", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12,
            "num_hidden_layers": 1, "image_size": 12, "patch_size": 4{more}}}"#
        )
    };
    let body = (48 * 8 + 8) + 8 + 10 * 8 + 4 * (64 + 8) + (96 + 12) + (96 + 8) + 2 * 16 + 16;
    let read = |more: &str| read_with(&text(more), &Options::default()).unwrap();
    assert_eq!(parameters(&read("")), body + 64 + 8);
    let labels = r#", "id2label": {"0": "cat", "1": "dog", "2": "owl"}"#;
    assert_eq!(parameters(&read(labels)), body + 24 + 3);
    let bare = r#", "architectures": ["ViTForImageClassification"]"#;
    assert_eq!(parameters(&read(bare)), body + 16 + 2);
}

#[test]
fn what_cannot_be_read_is_refused_with_the_reason() {
    let mamba = read(r#"{"model_type": "mamba"}"#).unwrap_err();
    assert_eq!(
        mamba,
        "network `tiny`: model_type `mamba` cannot be generated; supported: bert, gemma, gpt2, llama, mistral, mixtral, opt, qwen2, switch_transformers, vit"
    );
    assert!(read(r#"{"hidden_size": 8}"#).unwrap_err().contains("no `model_type`"));
    let typed = read("{\"model_type\": \"llama\",\n\"hidden_size\": \"wide\"}").unwrap_err();
    assert!(typed.contains("expected u64") && typed.contains("line 2"), "{typed}");
    assert!(read("{\"model_type\": ").unwrap_err().contains("EOF"));
    let heads = read(&llama("").replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 3")).unwrap_err();
    assert_eq!(heads, "network `tiny`: hidden size 8 does not divide into 3 heads");
    let zero = read(&llama("").replace("\"num_attention_heads\": 4", "\"num_attention_heads\": 0")).unwrap_err();
    assert_eq!(zero, "network `tiny`: hidden size 8 does not divide into 0 heads");
    let act = read(&llama(r#", "hidden_act": "wiggle""#)).unwrap_err();
    assert!(act.contains("activation `wiggle` is not known"), "{act}");
    let huge = read(&llama("").replace("\"hidden_size\": 8", "\"hidden_size\": 9223372036854775808")).unwrap_err();
    assert!(huge.contains("larger than 2^64 − 1") || huge.contains("overflow"), "{huge}");
}
