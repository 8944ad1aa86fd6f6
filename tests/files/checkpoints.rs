//! Safetensors: what is read, what is refused, and the network that a checkpoint belongs to. Structure of real zeros.

use bytes::Bytes;
use half::{bf16, f16};
use hwsim::pattern::SparsityPattern;
use hwsim::sparsity::structure::Structure;
use hwsim::workload::layer::Role;
use hwsim::workload::onnx::value::Elem;
use hwsim::workload::safetensors::{import, parse, read};
use hwsim::workload::weights::decode;
use hwsim::workload::{Options, resolve};
use std::fs;
use std::path::Path;

/// A file of tensors (name, type, shape, bytes).
fn file(tensors: &[(&str, &str, &[u64], Vec<u8>)]) -> Vec<u8> {
    let mut at = 0;
    let entries: Vec<String> = tensors
        .iter()
        .map(|(name, dtype, shape, data)| {
            let end = at + data.len();
            let entry = format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{at},{end}]}}"#);
            at = end;
            entry
        })
        .collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    tensors.iter().for_each(|t| bytes.extend(&t.3));
    bytes
}

fn zeros(n: u64) -> Vec<u8> {
    vec![0; n as usize * 4]
}

#[test]
fn formats_are_read_as_fp32() {
    let x = [1.5f32, -2.0, 0.0, 0.25];
    let bytes = file(&[
        ("a", "F32", &[2, 2], x.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("b", "F16", &[4], x.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
        ("c", "BF16", &[4], x.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
        ("d", "I8", &[4], vec![1, 254, 0, 7]),
    ]);
    let (tensors, _) = parse(Path::new("t.safetensors"), Bytes::from(bytes)).unwrap();
    assert_eq!(tensors.iter().map(|t| t.elem).collect::<Vec<_>>(), [Elem::F32, Elem::F16, Elem::BF16, Elem::I8]);
    for t in &tensors {
        let mut into = [0f32; 4];
        decode(t.elem, &t.raw().unwrap(), &mut into);
        assert_eq!(into, if t.elem == Elem::I8 { [1.0, -2.0, 0.0, 7.0] } else { x }, "{}", t.name);
    }
    // Long runs go through another path than short ones.
    let long: Vec<f32> = (0..1000).map(|i| i as f32 / 8.0).collect();
    let raw: Vec<u8> = long.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
    let mut into = vec![0f32; 1000];
    decode(Elem::F16, &raw, &mut into);
    assert_eq!(into, long);
}

#[test]
fn broken_files_are_refused_in_one_sentence() {
    let good = file(&[("a.weight", "F32", &[2, 2], zeros(4))]);
    let refuse = |bytes: Vec<u8>| {
        let e = parse(Path::new("t.safetensors"), Bytes::from(bytes)).unwrap_err().to_string();
        assert!(e.contains("t.safetensors") && !e.contains('\n'), "{e}");
    };
    for cut in [0, 4, 8, 20, good.len() - 1] {
        refuse(good[..cut].to_vec());
    }
    let mut longer = good.clone();
    longer[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refuse(longer);
    refuse(file(&[("a", "F32", &[2, 3], zeros(4))]));
    refuse(file(&[("a", "F32", &[u64::MAX, 3], zeros(4))]));
    refuse(b"\x08\x00\x00\x00\x00\x00\x00\x00not json".to_vec());
}

/// A tiny Llama, its tensors in two files.
fn llama(folder: &Path) {
    let config = r#"{"model_type":"llama","hidden_size":8,"intermediate_size":12,"num_hidden_layers":1,
        "num_attention_heads":4,"num_key_value_heads":2,"vocab_size":16,"tie_word_embeddings":true}"#;
    fs::write(folder.join("config.json"), config).unwrap();
    let at = "model.layers.0";
    let shapes: Vec<(String, Vec<u64>)> = vec![
        ("model.embed_tokens.weight".into(), vec![16, 8]),
        (format!("{at}.input_layernorm.weight"), vec![8]),
        (format!("{at}.self_attn.q_proj.weight"), vec![8, 8]),
        (format!("{at}.self_attn.k_proj.weight"), vec![4, 8]),
        (format!("{at}.self_attn.v_proj.weight"), vec![4, 8]),
        (format!("{at}.self_attn.o_proj.weight"), vec![8, 8]),
        (format!("{at}.post_attention_layernorm.weight"), vec![8]),
        (format!("{at}.mlp.gate_proj.weight"), vec![12, 8]),
        (format!("{at}.mlp.up_proj.weight"), vec![12, 8]),
        (format!("{at}.mlp.down_proj.weight"), vec![8, 12]),
        ("model.norm.weight".into(), vec![8]),
    ];
    let mut map = Vec::new();
    for (i, half) in shapes.chunks(6).enumerate() {
        let shard = format!("model-{i}.safetensors");
        let tensors: Vec<(&str, &str, &[u64], Vec<u8>)> =
            half.iter().map(|(n, s)| (n.as_str(), "F32", &s[..], zeros(s.iter().product()))).collect();
        fs::write(folder.join(&shard), file(&tensors)).unwrap();
        map.extend(half.iter().map(|(n, _)| format!(r#""{n}":"{shard}""#)));
    }
    fs::write(folder.join("model.safetensors.index.json"), format!(r#"{{"weight_map":{{{}}}}}"#, map.join(",")))
        .unwrap();
}

#[test]
fn a_folder_is_a_network_whose_parameters_have_tensors() {
    let folder = tempfile::tempdir().unwrap();
    llama(folder.path());
    let (model, _) = import(folder.path(), &Options::default()).unwrap();
    assert!(model.graph.warnings.is_empty(), "{:?}", model.graph.warnings);
    let named = model.graph.layers().flat_map(|l| &l.params).filter(|p| p.role == Role::Weight);
    for p in named {
        assert_eq!(model.weights.get(&p.name).map(|s| &s.shape), Some(&p.shape), "{}", p.name);
    }
    // The tied head reads the token table.
    let head = model.graph.layers().find(|l| l.name == "lm_head").unwrap();
    assert_eq!(head.params[0].name, "model.embed_tokens.weight");
    // The same folder is a workload.
    let graph = resolve(&folder.path().to_string_lossy(), &Options::default()).unwrap();
    assert_eq!(graph.total_macs().unwrap(), model.graph.total_macs().unwrap());
    fs::remove_file(folder.path().join("model-1.safetensors")).unwrap();
    assert!(read(folder.path()).unwrap_err().to_string().contains("model-1.safetensors"));
    fs::write(folder.path().join("model.safetensors.index.json"), r#"{"weight_map":{"a":"../secret"}}"#).unwrap();
    assert!(read(folder.path()).unwrap_err().to_string().contains("../secret"));
}

#[test]
fn a_lone_checkpoint_is_a_list_of_layers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vision.safetensors");
    let tensors = [
        ("conv1.weight", "F32", &[4u64, 3, 3, 3][..], zeros(108)),
        ("fc.weight", "F16", &[2, 4][..], vec![0; 16]),
        ("fc.bias", "F16", &[2][..], vec![0; 4]),
    ];
    fs::write(&path, file(&tensors)).unwrap();
    let (model, _) = import(&path, &Options::default()).unwrap();
    let weights: Vec<&str> = model.graph.layers().filter(|l| l.weight().is_some()).map(|l| l.name.as_str()).collect();
    assert_eq!(weights.len(), 2);
    assert!(weights.contains(&"conv1") && weights.contains(&"fc"));
    assert!(model.graph.warnings[0].contains("config.json"));
}

fn structure(n: usize, k: usize, keep: impl Fn(usize, usize) -> bool) -> Structure {
    let weights: Vec<f32> = (0..n * k).map(|i| if keep(i / k, i % k) { 1.0 + i as f32 } else { 0.0 }).collect();
    Structure::of(&weights, n, k)
}

#[test]
fn structure_is_named_by_the_strictest_pattern_that_holds() {
    use SparsityPattern::{Block, Column, Nm, Row, Unstructured};
    let random = |r: usize, c: usize| (r * 7919 + c * 104_729 + r * c * 31) % 101;
    assert_eq!(structure(32, 64, |_, _| true).pattern, None);
    assert_eq!(structure(32, 64, |r, c| c % 4 == r % 4 || c % 4 == (r + c / 4) % 4).pattern, Some(Nm { n: 2, m: 4 }));
    assert_eq!(structure(32, 64, |r, c| c % 4 == (r + c / 4) % 4).pattern, Some(Nm { n: 1, m: 4 }));
    assert_eq!(structure(32, 64, |r, _| r % 4 != 1).pattern, Some(Row(0.25)));
    assert_eq!(structure(32, 64, |_, c| c % 8 > 3).pattern, Some(Column(0.5)));
    let blocks = structure(32, 64, |r, c| (r / 8 + c / 8) % 2 == 0);
    assert_eq!(blocks.pattern, Some(Block { rows: 8, cols: 8, sparsity: 0.5 }));
    assert!(matches!(structure(64, 64, |r, c| random(r, c) > 40).pattern, Some(Unstructured(_))));
}

#[test]
fn dead_duplicate_and_subnormal_weights_are_counted() {
    let mut weights = vec![0f32; 6 * 4];
    (0..4).for_each(|c| {
        weights[c] = 1.0 + c as f32;
        weights[2 * 4 + c] = 1.0 + c as f32;
        weights[3 * 4 + c] = 1e-40;
    });
    weights[5 * 4] = f32::NAN;
    let s = Structure::of(&weights, 6, 4);
    assert_eq!((s.zero_rows, s.duplicate_rows, s.subnormals, s.non_finite), (2, 1, 4, 1));
    assert_eq!(s.zeros, 8 + 3);
}
