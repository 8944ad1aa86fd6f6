//! Any bytes: an error or a network, never a panic; what can be imported can be pruned and imported again.
#![no_main]

use hwsim::lower::Assignment;
use hwsim::prune::onnx::Source;
use hwsim::prune::{Magnitude, Request};
use hwsim::workload::Options;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = Path::new("fuzz.onnx");
    let open = |bytes: Vec<u8>| Source::from_bytes(path, bytes.into(), &Options::default());
    let Ok(source) = open(data.to_vec()) else { return };
    for rule in ["2:4", "channel@0.5"] {
        let assignment = Assignment::parse(&[rule]).expect("a pattern");
        let zeros = source.zero_points();
        let request = Request {
            assignment: &assignment,
            choose: &Magnitude,
            zero_in_place: false,
            strict: false,
            zeros,
            round_to: 1,
            global: false,
            permute: None,
        };
        let Ok(rewrite) = source.plan(&request) else { continue };
        let Ok(output) = rewrite.splice(Some("fuzz.onnx.data")) else { continue };
        let mut bytes = Vec::new();
        if rewrite.write(&output.model, &Magnitude, &mut bytes).is_ok() {
            open(bytes).expect("what was written is a model");
        }
    }
});
