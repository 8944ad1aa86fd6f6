//! Parameters and multiply–accumulates of the built-in networks, to the digit.

use hwsim::workload::{Options, resolve};

fn counts(name: &str, options: &Options) -> (u64, u64) {
    let graph = resolve(name, options).unwrap();
    (graph.total_parameters().unwrap(), graph.total_macs().unwrap())
}

#[test]
fn convolutional_networks() {
    let expected = [
        // torchvision's published parameters and operations (weights' metadata `num_params`, `_ops`).
        ("resnet18", 11_689_512, 1_814_073_344),
        ("resnet50", 25_557_032, 4_089_184_256),
    ];
    for (name, parameters, macs) in expected {
        assert_eq!(counts(name, &Options::default()), (parameters, macs), "{name}");
    }
}
