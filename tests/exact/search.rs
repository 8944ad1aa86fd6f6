//! The search's exact parts against brute force: the knapsack, the front, the evaluator, the closed forms of kept energy.

use hwsim::cost::{self, network::network};
use hwsim::dtype::DType;
use hwsim::lower::{Assignment, Choice, steps};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::Profile;
use hwsim::search::assign::{Answer, Budget, Cost, Question, assign};
use hwsim::search::baselines::Limit;
use hwsim::search::channels::{Proof, assign_groups};
use hwsim::search::condition::Condition;
use hwsim::search::evaluate::{Desk, Lean, Operations};
use hwsim::search::knapsack::{Item, solve, solve_within, sums};
use hwsim::search::pareto::{Front, MOST, Visited};
use hwsim::search::quality::{Proxy, kept_energy};
use hwsim::search::vary::Axis;
use hwsim::workload::{self, resolve};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn uniform(rng: &mut impl Rng) -> f64 {
    rng.random::<f64>()
}

fn normal(rng: &mut impl Rng) -> f64 {
    (-2.0 * (1.0 - uniform(rng)).ln()).sqrt() * (std::f64::consts::TAU * uniform(rng)).cos()
}

/// Classes as real ones are: some items dominated, some equal, some cliffs, identical classes.
fn instance(rng: &mut impl Rng) -> (Vec<Vec<Item>>, f64) {
    let count = rng.random_range(1..=6);
    let mut classes: Vec<Vec<Item>> = Vec::new();
    for i in 0..count {
        if i > 0 && uniform(rng) < 0.3 {
            classes.push(classes[i - 1].clone());
            continue;
        }
        let items = rng.random_range(1..=6);
        let coarse = uniform(rng) < 0.3;
        let draw = |rng: &mut _| if coarse { (uniform(rng) * 4.0).floor() } else { uniform(rng) };
        classes.push((0..items).map(|_| Item { cost: draw(rng), weight: draw(rng) }).collect());
    }
    let most: f64 = classes.iter().map(|c| c.iter().map(|i| i.weight).fold(0.0, f64::max)).sum();
    // A budget that some choice meets exactly is the hardest.
    let budget = if uniform(rng) < 0.3 {
        let choice: Vec<usize> = classes.iter().map(|c| rng.random_range(0..c.len())).collect();
        sums(&classes, &choice).1
    } else {
        most * uniform(rng)
    };
    (classes, budget)
}

fn brute_force(classes: &[Vec<Item>], budget: f64) -> Option<f64> {
    let mut choice = vec![0; classes.len()];
    let mut best: Option<f64> = None;
    loop {
        let (cost, weight) = sums(classes, &choice);
        if weight <= budget * (1.0 + 1e-12) {
            best = Some(best.map_or(cost, |b: f64| b.min(cost)));
        }
        let Some(i) = (0..classes.len()).find(|&i| choice[i] + 1 < classes[i].len()) else { return best };
        choice[..i].fill(0);
        choice[i] += 1;
    }
}

#[test]
fn the_knapsack_equals_brute_force_on_600_random_instances() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (mut solved, mut infeasible) = (0, 0);
    for _ in 0..600 {
        let (classes, budget) = instance(&mut rng);
        let (found, expected) = (solve(&classes, budget), brute_force(&classes, budget));
        match (found, expected) {
            (None, None) => infeasible += 1,
            (Some(s), Some(e)) => {
                solved += 1;
                assert!(
                    (s.cost - e).abs() <= 1e-12 * e.max(1.0),
                    "{} against {e}: {classes:?} within {budget}",
                    s.cost
                );
                assert_eq!(s.gap(), 0.0);
                assert_eq!(sums(&classes, &s.choice), (s.cost, s.weight));
                assert!(s.weight <= budget * (1.0 + 1e-11));
            }
            (found, expected) => panic!("{found:?} against {expected:?}: {classes:?} within {budget}"),
        }
    }
    assert!(solved >= 300 && infeasible > 10, "{solved} solved, {infeasible} infeasible");
}

#[test]
fn a_search_cut_short_gives_a_true_bound() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut open = 0;
    for _ in 0..300 {
        let (classes, budget) = instance(&mut rng);
        let (Some(s), Some(e)) = (solve_within(&classes, budget, 1), brute_force(&classes, budget)) else { continue };
        assert!(s.bound <= e * (1.0 + 1e-12) && s.cost >= e * (1.0 - 1e-12), "{} ≤ {e} ≤ {}", s.bound, s.cost);
        open += u32::from(s.gap() > 0.0);
    }
    assert!(open > 0, "some search must have been cut short");
}

#[test]
fn the_front_is_what_brute_force_says_in_any_order() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for objectives in 1..=MOST {
        let mut points: Vec<Visited<()>> = (0..400)
            .map(|index| {
                let mut key = [0.0; MOST];
                key[..objectives].fill_with(|| (uniform(&mut rng) * 6.0).floor());
                Visited { index, key, figures: () }
            })
            .collect();
        let beaten = |p: &Visited<()>| {
            points.iter().any(|q| {
                let no_worse = q.key.iter().zip(&p.key).all(|(a, b)| a <= b);
                no_worse && (q.key != p.key || q.index < p.index)
            })
        };
        let expected: Vec<u64> = points.iter().filter(|p| !beaten(p)).map(|p| p.index).collect();
        for _ in 0..5 {
            for i in (1..points.len()).rev() {
                points.swap(i, rng.random_range(0..=i));
            }
            let (left, right) = points.split_at(150);
            let mut fronts = [Front::new(), Front::new()];
            for (front, half) in fronts.iter_mut().zip([left, right]) {
                half.iter().for_each(|p| {
                    let admitted = front.admits(p, &mut 0);
                    assert_eq!(front.insert(*p), admitted);
                });
            }
            let [mut whole, other] = fronts;
            whole.merge(other);
            assert_eq!(whole.sorted().iter().map(|p| p.index).collect::<Vec<_>>(), expected);
        }
    }
}

/// Keeps what a pattern keeps of one drawn matrix, by energy; the share of energy that stays.
fn sampled(pattern: SparsityPattern, n: usize, k: usize, rng: &mut impl Rng) -> f64 {
    let w: Vec<f64> = (0..n * k).map(|_| normal(rng).powi(2)).collect();
    let total: f64 = w.iter().sum();
    let top = |mut energies: Vec<f64>, keep: usize| -> f64 {
        energies.sort_by(|a, b| b.total_cmp(a));
        energies[..keep].iter().sum()
    };
    let keep = |units: usize, s: f64| units - (s * units as f64).round() as usize;
    let kept = match pattern {
        SparsityPattern::Unstructured(s) => top(w, keep(n * k, s)),
        SparsityPattern::Nm { n: a, m } => w.chunks(m as usize).map(|g| top(g.to_vec(), a as usize)).sum(),
        SparsityPattern::Row(s) => top(w.chunks(k).map(|r| r.iter().sum()).collect(), keep(n, s)),
        SparsityPattern::Block { rows, cols, sparsity } => {
            let (r, c) = (rows as usize, cols as usize);
            let blocks: Vec<f64> = (0..n / r)
                .flat_map(|i| (0..k / c).map(move |j| (i, j)))
                .map(|(i, j)| {
                    (0..r).flat_map(|a| (0..c).map(move |b| (a, b))).map(|(a, b)| w[(i * r + a) * k + j * c + b]).sum()
                })
                .collect();
            let count = blocks.len();
            top(blocks, keep(count, sparsity))
        }
        SparsityPattern::Vnm { v, n: a, m } => {
            let (v, m) = (v as usize, m as usize);
            let mut kept = 0.0;
            for strip in (0..n).step_by(v) {
                for start in (0..k).step_by(m) {
                    let column = |c: usize| (strip..strip + v).map(|r| w[r * k + start + c]).sum::<f64>();
                    let mut order: Vec<usize> = (0..m).collect();
                    order.sort_by(|&x, &y| column(y).total_cmp(&column(x)));
                    for r in strip..strip + v {
                        kept += top(order[..4].iter().map(|&c| w[r * k + start + c]).collect(), a as usize);
                    }
                }
            }
            kept
        }
        _ => unreachable!(),
    };
    kept / total
}

#[test]
fn kept_energy_of_normal_weights_is_what_sampling_finds() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    for (text, n, k, tolerance) in [
        ("unstructured@0.5", 256, 512, 0.004),
        ("unstructured@0.9", 256, 512, 0.004),
        ("2:4", 256, 512, 0.004),
        ("1:4", 256, 512, 0.004),
        ("4:8", 256, 512, 0.004),
        ("2:16", 256, 512, 0.004),
        ("block:4x4@0.5", 256, 512, 0.005),
        ("block:16x16@0.8", 256, 512, 0.005),
        ("block:32x32@0.5", 256, 512, 0.005),
        ("row@0.5", 64, 32, 0.01),
        ("row@0.25", 600, 32, 0.005),
        ("64:2:8", 256, 512, 0.01),
        ("16:2:16", 256, 512, 0.01),
    ] {
        let pattern: SparsityPattern = text.parse().unwrap();
        let expected = kept_energy(pattern, n, k);
        let draws = if n * k < 10_000 { 40 } else { 4 };
        let mean =
            (0..draws).map(|_| sampled(pattern, n as usize, k as usize, &mut rng)).sum::<f64>() / f64::from(draws);
        assert!((expected - mean).abs() < tolerance, "{text}: {expected} by the closed form, {mean} drawn");
    }
    // By hand: half of normal weights by magnitude hold d + 2·t·φ(t) of the energy at t = 0.67449.
    let t: f64 = 0.674_489_750_196_082;
    let by_hand = 0.5 + 2.0 * t * (-t * t / 2.0).exp() / std::f64::consts::TAU.sqrt();
    assert!((kept_energy(SparsityPattern::Unstructured(0.5), 1 << 20, 1 << 20) - by_hand).abs() < 1e-9);
    // The larger of two: E[max(x², y²)] = 1 + 2/π, of 2.
    let of_two = kept_energy(SparsityPattern::Nm { n: 1, m: 2 }, 1, 2);
    assert!((of_two - (1.0 + 2.0 / std::f64::consts::PI) / 2.0).abs() < 1e-9, "{of_two}");
}

#[test]
fn the_evaluator_is_the_network_model_bit_for_bit() {
    for (name, batch) in [("resnet50", 1), ("mobilenetv2", 8), ("bert-base", 1), ("densenet121", 2)] {
        let options = workload::Options { batch: Some(batch), ..Default::default() };
        let graph = resolve(name, &options).unwrap();
        for (profile, dtype) in [("systolic-32x32", DType::Int8), ("a100", DType::Fp16), ("epyc-7763", DType::Fp32)] {
            let profile = Profile::find(profile).unwrap();
            let model = cost::model(&profile, cost::Options::default()).unwrap();
            let mut operations = Operations::default();
            let lowered: Vec<_> = ["dense", "2:4", "unstructured@0.9"]
                .iter()
                .map(|p| steps(&graph, &Assignment::parse(&[p]).unwrap(), dtype, true).unwrap())
                .collect();
            let lean: Vec<Lean> = lowered.iter().map(|s| Lean::of(s, &mut operations)).collect();
            let mut desk = Desk::new(&operations);
            for (steps, lean) in lowered.iter().zip(&lean) {
                let whole = network(steps, &*model, 1).unwrap().total;
                let fast = desk.estimate(lean, &operations, &*model).unwrap();
                assert_eq!(fast.latency, [whole.time.get(), whole.interval.0.get(), whole.interval.1.get()]);
                assert_eq!(fast.energy.is_nan(), whole.energy.is_none());
                assert!(whole.energy.is_none_or(|e| e.get() == fast.energy));
                let dram = whole.traffic.dram().get();
                assert!((fast.dram - dram).abs() <= 1e-12 * dram);
            }
            assert!(desk.asked < desk.answered.max(1) * 3, "equal layers are estimated once");
        }
    }
}

fn question(workload: &str, profile: &str, patterns: &[&str], budget: Budget) -> Answer {
    let graph = resolve(workload, &workload::Options::default()).unwrap();
    let profile = Profile::find(profile).unwrap();
    let patterns: Vec<Choice> = patterns.iter().map(|p| p.parse().unwrap()).collect();
    let dtype = hwsim::report::estimate::default_dtype(&profile);
    let question = Question {
        graph: &graph,
        profile: &profile,
        dtype,
        options: cost::Options::default(),
        patterns: &patterns,
        proxy: &Proxy::GaussianEnergy,
        cost: Cost::Latency,
    };
    assign(&question, budget).unwrap()
}

const TWELVE: [&str; 12] = [
    "dense",
    "2:4",
    "1:4",
    "unstructured@0.5",
    "unstructured@0.8",
    "unstructured@0.9",
    "block:16x16@0.5",
    "block:16x16@0.8",
    "block:32x32@0.9",
    "row@0.25",
    "row@0.5",
    "64:2:8",
];

#[test]
fn resnet50_and_twelve_patterns_are_solved_with_proof_and_no_heuristic_is_better() {
    for profile in ["a100", "systolic-128x128", "epyc-7763", "rtx3090"] {
        // Halfway between dense and the fastest that there is.
        let patterns = ["dense", "row@0.25", "row@0.5", "2:4"];
        let fastest = question("resnet50", profile, &patterns, Budget::Loss(0.999));
        let share = 0.5 + 0.5 * fastest.optimal().unwrap().whole / fastest.dense;
        assert!(share < 1.0, "{profile}");
        let answer = question("resnet50", profile, &patterns, Budget::Share(share));
        assert!(answer.gap <= 1e-3);
        let best = answer.optimal().unwrap();
        assert!(best.within && best.whole <= share * answer.dense * (1.0 + 1e-9), "{profile}");
        for loss in [0.02, 0.1, 0.3] {
            let answer = question("resnet50", profile, &TWELVE, Budget::Loss(loss));
            assert_eq!(answer.gap, 0.0, "{profile} {loss}");
            assert_eq!(answer.limit, Limit::Loss(loss));
            let best = answer.optimal().unwrap();
            assert!(best.within && best.loss <= loss * (1.0 + 1e-9));
            assert!(best.separable >= answer.bound * (1.0 - 1e-12) || best.whole <= answer.bound);
            for method in &answer.methods {
                if let Some(o) = method.outcome.as_ref().filter(|o| o.within) {
                    assert!(
                        best.whole <= o.whole,
                        "{profile}, {loss}: {} has {} < {}",
                        method.name,
                        o.whole,
                        best.whole
                    );
                }
            }
        }
    }
}

#[test]
fn the_rules_of_an_answer_estimate_to_its_figure() {
    let answer = question("resnet50", "systolic-128x128", &TWELVE, Budget::Loss(0.1));
    let best = answer.optimal().unwrap();
    let rules = Assignment::parse(&answer.rules(best)).unwrap();
    let graph = resolve("resnet50", &workload::Options::default()).unwrap();
    let profile = Profile::find("systolic-128x128").unwrap();
    let model = cost::model(&profile, cost::Options::default()).unwrap();
    let steps = steps(&graph, &rules, DType::Int8, true).unwrap();
    assert_eq!(network(&steps, &*model, 1).unwrap().total.time.get(), best.whole);
    assert!(!rules.rules.is_empty(), "a tenth of the energy buys something on this array");
}

#[test]
fn channels_of_groups_are_chosen_like_brute_force_and_estimate_to_their_figure() {
    let text = "name = \"chain\"\ninput = [1, 16, 14, 14]\n\
        [[layer]]\nname = \"a\"\nop.conv2d = { out = 48, kernel = [3, 3], pad = 1 }\n\
        [[layer]]\nname = \"b\"\nop.conv2d = { out = 80, kernel = [3, 3], pad = 1 }\n\
        [[layer]]\nname = \"c\"\nop.conv2d = { out = 40, kernel = [1, 1] }\n\
        [[layer]]\nname = \"d\"\nop.conv2d = { out = 10, kernel = [1, 1] }\n";
    let graph = workload::toml::parse(text, "chain.toml", &workload::Options::default()).unwrap();
    let profile = Profile::find("systolic-32x32").unwrap();
    let model = cost::model(&profile, cost::Options::default()).unwrap();
    let patterns: Vec<Choice> = ["channel@0.25", "channel@0.5"].iter().map(|p| p.parse().unwrap()).collect();
    let question = Question {
        graph: &graph,
        profile: &profile,
        dtype: DType::Int8,
        options: cost::Options::default(),
        patterns: &patterns,
        proxy: &Proxy::GaussianEnergy,
        cost: Cost::Latency,
    };
    let whole = |rules: &[String]| {
        let rules = Assignment::parse(rules).unwrap();
        let small = hwsim::lower::shrink(&graph, |l| Some(rules.choice(&l.name).pattern)).unwrap();
        let steps = steps(&small.graph, &Assignment::dense(), DType::Int8, true).unwrap();
        network(&steps, &*model, 1).unwrap().total.time.get()
    };
    // Removed energy over output features, by hand: a, b and c may lose channels, d answers.
    let (names, features, reduction) = (["a", "b", "c"], [48u64, 80, 40], [16 * 9u64, 48 * 9, 80]);
    let all = 48.0 + 80.0 + 40.0 + 10.0;
    for limit in [0.02, 0.1, 0.2, 0.4] {
        let mut best = f64::INFINITY;
        for code in 0..27usize {
            let places = [code % 3, code / 3 % 3, code / 9];
            let mut loss = 0.0;
            let mut rules = Vec::new();
            for i in 0..3 {
                if places[i] > 0 {
                    let pattern = SparsityPattern::Channel([0.25, 0.5][places[i] - 1]);
                    loss += features[i] as f64 * (1.0 - kept_energy(pattern, features[i], reduction[i])) / all;
                    rules.push(format!("{}={pattern}", names[i]));
                }
            }
            if loss <= limit {
                best = best.min(whole(&rules));
            }
        }
        let found = assign_groups(&question, Budget::Loss(limit)).unwrap();
        assert!(found.proof == Proof::All && found.tried == 27);
        let outcome = found.answer.optimal().unwrap();
        assert_eq!(outcome.whole, best, "within {limit}");
        assert!(outcome.loss <= limit * (1.0 + 1e-9));
        assert_eq!(whole(&found.rules()), best, "its rules say the same");
    }
}

#[test]
fn the_bound_over_groups_is_below_brute_force_and_close_to_the_answer() {
    // Two branches meet in a sum: five groups of four places each, more combinations than are all tried.
    let text = "name = \"meet\"\ninput = [1, 16, 14, 14]\n\
        [[layer]]\nname = \"a\"\nop.conv2d = { out = 48, kernel = [3, 3], pad = 1 }\n\
        [[layer]]\nname = \"b\"\nop.conv2d = { out = 80, kernel = [3, 3], pad = 1 }\n\
        [[layer]]\nname = \"c\"\ninputs = [\"a\"]\nop.conv2d = { out = 80, kernel = [1, 1] }\n\
        [[layer]]\nname = \"s\"\ninputs = [\"b\", \"c\"]\nop.add = {}\n\
        [[layer]]\nname = \"d\"\nop.conv2d = { out = 56, kernel = [3, 3], pad = 1 }\n\
        [[layer]]\nname = \"e\"\nop.conv2d = { out = 40, kernel = [1, 1] }\n\
        [[layer]]\nname = \"f\"\nop.conv2d = { out = 72, kernel = [1, 1] }\n\
        [[layer]]\nname = \"g\"\nop.conv2d = { out = 10, kernel = [1, 1] }\n";
    let graph = workload::toml::parse(text, "meet.toml", &workload::Options::default()).unwrap();
    let fractions = [0.25, 0.5, 0.75];
    let patterns: Vec<Choice> = fractions.iter().map(|s| format!("channel@{s}").parse().unwrap()).collect();
    // Output features and reduction of every layer; b and c make one group.
    let layers = [("a", 48, 144), ("b", 80, 432), ("c", 80, 48), ("d", 56, 720), ("e", 40, 56), ("f", 72, 40)];
    let all = layers.iter().map(|l| l.1 as f64).sum::<f64>() + 10.0;
    for (name, dtype) in [("systolic-32x32", DType::Int8), ("a100", DType::Fp16), ("epyc-7763", DType::Fp32)] {
        let profile = Profile::find(name).unwrap();
        let model = cost::model(&profile, cost::Options::default()).unwrap();
        let mut points = Vec::new();
        for code in 0..1024usize {
            let place = |group: usize| code >> (2 * group) & 3;
            let places = [place(0), place(1), place(1), place(2), place(3), place(4)];
            let (mut rules, mut loss) = (Vec::new(), 0.0);
            for (&(layer, n, k), place) in layers.iter().zip(places).filter(|(_, p)| *p > 0) {
                let pattern = SparsityPattern::Channel(fractions[place - 1]);
                rules.push(format!("{layer}={pattern}"));
                loss += n as f64 * (1.0 - kept_energy(pattern, n, k)) / all;
            }
            let rules = Assignment::parse(&rules).unwrap();
            let small = hwsim::lower::shrink(&graph, |l| Some(rules.choice(&l.name).pattern)).unwrap();
            let steps = steps(&small.graph, &Assignment::dense(), dtype, true).unwrap();
            points.push((loss, network(&steps, &*model, 1).unwrap().total.time.get()));
        }
        let question = Question {
            graph: &graph,
            profile: &profile,
            dtype,
            options: cost::Options::default(),
            patterns: &patterns,
            proxy: &Proxy::GaussianEnergy,
            cost: Cost::Latency,
        };
        for budget in [Budget::Loss(0.1), Budget::Loss(0.3), Budget::Share(0.8)] {
            let best = match budget {
                Budget::Loss(l) => points.iter().filter(|p| p.0 <= l).map(|p| p.1).fold(f64::INFINITY, f64::min),
                Budget::Cost(c) => points.iter().filter(|p| p.1 <= c).map(|p| p.0).fold(f64::INFINITY, f64::min),
                Budget::Share(s) => {
                    points.iter().filter(|p| p.1 <= s * points[0].1).map(|p| p.0).fold(f64::INFINITY, f64::min)
                }
            };
            if best.is_infinite() {
                assert!(assign_groups(&question, budget).is_err(), "{name} {budget:?}: nothing meets it");
                continue;
            }
            let found = assign_groups(&question, budget).unwrap();
            let Proof::Bound { bound, gap } = found.proof else { panic!("{:?}", found.proof) };
            let answer = found.answer.objective();
            let rounding = 1.0 + 1e-9;
            assert!(bound <= best * rounding, "{name} {budget:?}: bound {bound}, brute force {best}");
            assert!(answer >= best / rounding, "{name} {budget:?}: answer {answer}, brute force {best}");
            assert!(answer <= best * 1.02, "{name} {budget:?}: answer {answer}, brute force {best}");
            assert!(((answer - bound) / answer - gap).abs() < 1e-12);
        }
    }
}

#[test]
fn a_table_of_losses_is_read_and_used_as_it_is() {
    let table = "layer,pattern,loss\nfc1,2:4,0.5\nfc1,1:4,2\n";
    let Proxy::Table(read) = Proxy::table(table.as_bytes(), "t.csv").unwrap() else { panic!() };
    assert_eq!(read[&("fc1".to_owned(), "2:4".to_owned())], 0.5);
    for (text, says) in [
        ("layer,pattern\nfc1,2:4\n", "loss"),
        ("layer,pattern,loss\nfc1,4:2,1\n", "line 2"),
        ("layer,pattern,loss\nfc1,2:4,x\n", "line 2"),
        ("layer,pattern,loss\nfc1,2:4,-1\n", "line 2"),
    ] {
        assert!(Proxy::table(text.as_bytes(), "t.csv").unwrap_err().to_string().contains(says));
    }
}

#[test]
fn axes_are_read_as_they_are_written() {
    let axis = |text: &str| text.parse::<Axis>();
    let texts = |text: &str| {
        let a = axis(text).unwrap();
        (0..a.values.len()).map(|i| a.text(i)).collect::<Vec<_>>()
    };
    assert_eq!(texts("device.systolic.rows=16..256*2"), ["16", "32", "64", "128", "256"]);
    assert_eq!(texts("a=16..64+24"), ["16", "40", "64"]);
    assert_eq!(texts("m.b=100..800 GB/s:8"), [100, 200, 300, 400, 500, 600, 700, 800].map(|v| format!("{v} GB/s")));
    assert_eq!(texts("d=weight-stationary, output-stationary"), ["weight-stationary", "output-stationary"]);
    assert_eq!(texts("x=0.5..2*2"), ["0.5", "1.0", "2.0"]);
    for wrong in
        ["a", "a=", "=1", "a=1..2", "a=2..1*2", "a=0..4*2", "a=1..9*1", "a=1..9+0", "a=1..9:0", "a=1..1000000000000+1"]
    {
        assert!(axis(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn conditions_mean_what_they_say() {
    let names: Vec<String> = ["area_mm2", "power_w", "device.systolic.rows"].map(str::to_owned).into();
    let holds = |text: &str, values: [f64; 3]| Condition::parse(text, &names).unwrap().holds(&values);
    let v = [40.0, 8.0, 64.0];
    assert!(holds("area_mm2 < 50 && power_w < 10", v));
    assert!(!holds("area_mm2 < 50 && power_w < 8", v));
    assert!(holds("area_mm2 > 50 || !(power_w > 10)", v));
    assert!(holds("device.systolic.rows * 2 - 1 == 127", v));
    assert!(holds("-area_mm2 / 4 + 2 * 3 == -4", v));
    assert!(holds("area_mm2 <= 4e1 && power_w >= 8 && power_w != 9", v));
    assert!(!holds("area_mm2 < 50", [f64::NAN, 0.0, 0.0]));
    assert!(!holds("area_mm2 != 50", [f64::NAN, 0.0, 0.0]));
    for wrong in ["", "area_mm2 <", "(area_mm2 < 1", "area < 1", "1 2", "area_mm2 # 1", &"(".repeat(10_000)] {
        assert!(Condition::parse(wrong, &names).is_err(), "{wrong}");
    }
    assert_eq!(Condition::parse("area_mm2 < 1 && power_w < 2 && 1 < 2", &names).unwrap().conjuncts().len(), 3);
}
