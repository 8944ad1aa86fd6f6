//! Any bytes: an error, or tensors whose elements are where the header says.
#![no_main]

use hwsim::workload::safetensors::parse;
use hwsim::workload::weights::{decode, width};
use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok((tensors, _)) = parse(Path::new("fuzz.safetensors"), bytes::Bytes::copy_from_slice(data)) else { return };
    for tensor in tensors {
        if let (Ok(raw), Some(_)) = (tensor.raw(), width(tensor.elem)) {
            let mut into = vec![0f32; tensor.elements() as usize];
            decode(tensor.elem, &raw, &mut into);
        }
    }
});
