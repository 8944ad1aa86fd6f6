//! Small networks that train: the data, gradients against differences, every method, removal that changes nothing.

use crate::executor::{Array, execute};
use hwsim::lower::Assignment;
use hwsim::prune::onnx::Source;
use hwsim::prune::{Magnitude, Request};
use hwsim::sparsity::regularize::dynamic::best_of;
use hwsim::train::data::Split;
use hwsim::train::method::METHODS;
use hwsim::train::{Dataset, Method, Network, Settings, audit, autodiff, compact, export, fit};
use hwsim::workload::Options;
use hwsim::workload::weights::decode;
use std::collections::HashMap;
use std::path::Path;

fn gratings() -> Split {
    Dataset::gratings(400, 1).split(0.25, 0).unwrap()
}

fn settings(method: Method, strength: f64, epochs: u64) -> Settings {
    Settings { method, strength, epochs, batch: 25, rate: 0.2, seed: 3 }
}

fn trained(text: &str, method: Method, strength: f64, epochs: u64) -> Network {
    let mut network = Network::parse(text, 3).unwrap();
    fit(&mut network, &gratings(), &settings(method, strength, epochs), 0, &mut |_| true).unwrap();
    network
}

/// Logits by the f64 executor of the ONNX file, which shares nothing with training.
fn executed(network: &Network, inputs: &[f32], features: &[u64]) -> Vec<f64> {
    let batch = inputs.len() as u64 / features.iter().product::<u64>();
    // The executor has no Gather: a network that reads some features alone is handed those.
    let bytes = export::onnx(network, "test", false);
    let (inputs, read) = (network.select(inputs), [network.input[0] as u64]);
    let features = if features.len() == 1 { &read } else { features };
    let options = Options { batch: Some(batch), ..Default::default() };
    let source = Source::from_bytes(Path::new("test.onnx"), bytes.into(), &options).unwrap();
    let graph = &source.model.graph;
    let params: Vec<Vec<Array>> = graph
        .layers()
        .map(|layer| {
            let one = |p: &hwsim::workload::layer::Param| {
                let stored = source.model.weights.get(&p.name).unwrap();
                let mut values = vec![0f32; p.shape.iter().product::<u64>() as usize];
                decode(stored.elem, &stored.raw().unwrap(), &mut values);
                Array { shape: p.shape.clone(), data: values.into_iter().map(f64::from).collect() }
            };
            layer.params.iter().map(one).collect()
        })
        .collect();
    let mut extents = vec![batch];
    extents.extend(features);
    let at = |i: &[u64]| f64::from(inputs[i.iter().zip(&extents).fold(0, |p, (i, d)| p * d + i) as usize]);
    let values = execute(graph, &params, at);
    let last = graph.layers().position(|l| l.outputs.iter().any(|o| o.name == "logits")).unwrap();
    values[last][0].data.clone()
}

#[test]
fn gradients_are_differences() {
    for text in ["6-5-4-3", "1x6x6-3c3-4c2-p2-5-3"] {
        let mut network = Network::parse(text, 7).unwrap();
        let inputs: Vec<f32> = (0..4 * network.features()).map(|i| ((i * 37 % 23) as f32 - 11.0) / 11.0).collect();
        let labels = [0, 2, 1, 2];
        let mut gradient = vec![0f32; network.parameters.len()];
        autodiff::loss(&network, &inputs, &labels, &mut gradient).unwrap();
        assert!(gradient.iter().any(|g| g.abs() > 1e-2));
        let mut ignored = gradient.clone();
        for (i, gradient) in gradient.into_iter().enumerate() {
            let (own, step) = (network.parameters[i], 1e-2f32);
            let mut at = |w: f32| {
                network.parameters[i] = w;
                autodiff::loss(&network, &inputs, &labels, &mut ignored).unwrap()
            };
            let difference = (at(own + step) - at(own - step)) / (2.0 * f64::from(step));
            network.parameters[i] = own;
            assert!((difference - f64::from(gradient)).abs() < 0.02, "{text} {i}: {difference} {gradient}");
        }
    }
}

#[test]
fn a_network_learns_and_says_the_same_twice() {
    let data = Dataset::gratings(1000, 1).split(0.25, 0).unwrap();
    let run = |threads: usize| {
        let mut network = Network::parse("64-48-10", 0).unwrap();
        let mut last = None;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let watch = &mut |p: hwsim::train::Progress| {
            last = Some(p.accuracy);
            true
        };
        pool.install(|| {
            let settings =
                Settings { method: Method::Group, strength: 3e-4, epochs: 30, batch: 20, rate: 0.1, seed: 1 };
            fit(&mut network, &data, &settings, 0, &mut |p| watch(p)).unwrap();
        });
        (export::onnx(&network, "n", true), export::safetensors(&network).unwrap(), last.unwrap())
    };
    let (one, two) = (run(1), run(3));
    assert!(one.2 > 0.8, "{}", one.2);
    assert_eq!(one, two);
}

#[test]
fn every_method_trains_and_leaves_what_it_says() {
    for (i, (method, name, share, _)) in METHODS.iter().enumerate() {
        assert_eq!(*method as usize, i);
        assert_eq!(name.parse::<Method>().unwrap(), *method);
        let strength = if *share { 0.75 } else { 4e-3 };
        let network = trained("64-24-16-10", *method, strength, 60);
        assert!(network.parameters.iter().all(|w| w.is_finite()), "{name}");
        let s = audit::Structure::of(&network);
        match method {
            Method::None | Method::L2 | Method::Elimination | Method::Adaptive | Method::SmoothGroup => {
                assert_eq!(s.zeros, 0, "{name}");
            }
            Method::L1 | Method::SparseGroup => assert!(s.zeros > 0, "{name} {s:?}"),
            Method::GroupJoint => assert!(s.zeros > 0, "{name} {s:?}"),
            Method::StraightThrough | Method::ProxSparse => {
                for l in &network.layers {
                    let w = &network.parameters[l.weights()];
                    assert!(w.iter().zip(best_of(w, l.inputs, 2, 4)).all(|(w, kept)| kept || *w == 0.0), "{name}");
                }
            }
            Method::Spartan | Method::Obd | Method::Gradual => {
                assert!((s.zero_share() - 0.75).abs() < 1e-3, "{name} {}", s.zero_share());
            }
            Method::RigL | Method::SRigL => {
                let hidden: u64 = network.layers[..2].iter().map(|l| l.weights().len() as u64).sum();
                let gone = s.zeros as f64 / hidden as f64;
                assert!((gone - 0.75).abs() < 0.1, "{name} {gone}");
            }
            // Budgets count whole rows, of which these layers have 40.
            Method::SpartanUnits => assert!((20..40).contains(&s.zero_units.iter().sum::<u64>()), "{name} {s:?}"),
            Method::Selective
            | Method::L1Subgradient
            | Method::GroupSubgradient
            | Method::Group
            | Method::GroupIncoming
            | Method::Ssl
            | Method::NoisyGroup => {}
        }
    }
}

#[test]
fn what_goes_changes_no_output() {
    let data = gratings();
    let inputs = &data.test.inputs[..20 * 64];
    let cases = [
        ("64-40-24-10", Method::Group, 5e-3),
        ("64-40-24-10", Method::GroupIncoming, 4e-3),
        ("64-40-24-10", Method::GroupJoint, 3e-3),
        ("1x8x8-8c3-8c3-20-10", Method::Ssl, 2e-3),
        ("1x8x8-8c3-8c3-20-10", Method::GroupIncoming, 4e-3),
    ];
    for (text, method, strength) in cases {
        let network = trained(text, method, strength, 100);
        let small = compact::compact(&network).unwrap();
        assert!(small.macs() < network.macs(), "{text} {method}: {}", small.describe());
        let shape: &[u64] = if text.starts_with("64") { &[64] } else { &[1, 8, 8] };
        let (before, after) = (executed(&network, inputs, shape), executed(&small, inputs, shape));
        for (a, b) in before.iter().zip(&after) {
            assert!((a - b).abs() < 1e-5, "{text} {method}: {a} {b}");
        }
        let ours = autodiff::logits(&network, inputs).unwrap();
        assert!(ours.iter().zip(&before).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4), "{text}");
        assert_eq!(audit::Structure::of(&compact::compact(&small).unwrap()).units, audit::Structure::of(&small).units);
    }
}

#[test]
fn constants_fold_into_biases() {
    let mut network = Network::parse("2-3-2", 0).unwrap();
    let (first, second) = (network.layers[0], network.layers[1]);
    // Unit 0 reads nothing and is the constant 0.5; unit 2 is read by nobody.
    first.row(0).for_each(|i| network.parameters[i] = 0.0);
    second.column(2).into_iter().for_each(|i| network.parameters[i] = 0.0);
    let bias = |l: &hwsim::sparsity::regularize::structure::Layer| l.bias.unwrap();
    network.parameters[bias(&first)] = 0.5;
    let small = compact::compact(&network).unwrap();
    assert_eq!(small.describe(), "2-1-2");
    for o in 0..2 {
        let read = network.parameters[second.row(o).start];
        let (before, after) = (network.parameters[bias(&second) + o], small.parameters[bias(&small.layers[1]) + o]);
        assert_eq!(after, before + 0.5 * read);
    }
}

#[test]
fn removal_is_what_prune_does_with_the_same_units() {
    let network = trained("64-40-24-10", Method::GroupJoint, 3e-3, 100);
    let small = compact::compact(&network).unwrap();
    // Joint groups zero all of a unit, so that the least channels by magnitude are the dead ones. Inputs are frozen there.
    let rules: Vec<String> = network
        .layers
        .iter()
        .zip(&small.layers)
        .zip(export::names(&network))
        .take(2)
        .map(|((a, b), name)| format!("{name}=channel@{}", 1.0 - b.outputs as f64 / a.outputs as f64))
        .collect();
    let source =
        Source::from_bytes(Path::new("n.onnx"), export::onnx(&network, "n", true).into(), &Options::default()).unwrap();
    let request = Request {
        assignment: &Assignment::parse(&rules).unwrap(),
        choose: &Magnitude,
        zero_in_place: false,
        strict: true,
        zeros: HashMap::new(),
        permute: None,
        round_to: 1,
        global: false,
    };
    let rewrite = source.plan(&request).unwrap();
    let pieces = rewrite.splice(Some("n.data")).unwrap().model;
    let mut bytes = Vec::new();
    rewrite.write(&pieces, &Magnitude, &mut bytes).unwrap();
    let pruned = Source::from_bytes(Path::new("p.onnx"), bytes.into(), &Options::default()).unwrap();
    let second = pruned.model.weights.get("fc2.weight").unwrap();
    let mut values = vec![0f32; second.shape.iter().product::<u64>() as usize];
    decode(second.elem, &second.raw().unwrap(), &mut values);
    assert!(small.layers[1].outputs < 24);
    assert_eq!(values, small.parameters[small.layers[1].weights()]);
}

#[test]
fn files_of_examples_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let good = Dataset::from_file(&file("a.csv", "x,y,class\n1,2,0\n3,4,1\n")).unwrap();
    assert_eq!((good.features, good.classes, good.len()), (2, 2, 2));
    assert_eq!(good.inputs, [1.0, 2.0, 3.0, 4.0]);
    for (name, text) in
        [("b.csv", "1,2,0\n3,x,1\n"), ("c.csv", "1,2,0.5\n"), ("d.csv", ""), ("e.csv", "1,inf,0\n"), ("f.txt", "1,0\n")]
    {
        assert!(Dataset::from_file(&file(name, text)).is_err(), "{name}");
    }
    assert!(good.split(0.0, 0).is_err());
    for text in ["", "64", "64-x", "1x4x4-8c5-10", "64-10-p2", "0-10", "1x8x8-8c3"] {
        assert!(Network::parse(text, 0).is_err(), "{text}");
    }
    let mut network = Network::parse("64-8-10", 0).unwrap();
    let far = Settings { rate: f64::INFINITY, ..settings(Method::None, 0.0, 1) };
    assert!(fit(&mut network, &gratings(), &far, 0, &mut |_| true).is_err());
    assert!(fit(&mut network, &gratings(), &settings(Method::Gradual, 1.5, 1), 0, &mut |_| true).is_err());
}
