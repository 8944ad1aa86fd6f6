//! Saliency against values that `scripts/saliency_reference.py` computed by definition with numpy, and by hand.

use hwsim::pattern::SparsityPattern;
use hwsim::prune::npz;
use hwsim::sparsity::saliency::{Criterion, Matrix, SparseGpt, Statistics, magnitude};
use hwsim::sparsity::{Mask, Quality, select};
use serde_json::Value;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/saliency.json")).unwrap()
}

fn floats(v: &Value) -> Vec<f32> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn close(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{what}[{i}]: {a} and not {b}");
    }
}

fn same_mask(what: &str, mask: &Mask, rows: &Value) {
    for (r, row) in rows.as_array().unwrap().iter().enumerate() {
        let ours: String = (0..mask.cols()).map(|c| if mask.get(r as u64, c) { '1' } else { '0' }).collect();
        assert_eq!(ours, row.as_str().unwrap(), "{what}, row {r}");
    }
}

struct Case {
    f: Value,
    weights: Vec<f32>,
    n: usize,
    k: usize,
}

impl Case {
    fn new() -> Self {
        let f = fixture();
        let (n, k) = (f["n"].as_u64().unwrap() as usize, f["k"].as_u64().unwrap() as usize);
        Self { weights: floats(&f["weights"]), f, n, k }
    }
    fn matrix(&self) -> Matrix<'_> {
        Matrix { weights: &self.weights, n: self.n, k: self.k }
    }
    fn inputs(&self) -> Statistics {
        Statistics::of_inputs(floats(&self.f["inputs"]))
    }
}

#[test]
fn scores_are_those_of_the_definitions() {
    let c = Case::new();
    let gradients = Statistics::none().with_gradients(floats(&c.f["gradients"]), 3);
    for (criterion, statistics, key) in [
        (Criterion::Wanda, c.inputs(), "wanda"),
        (Criterion::Obd, c.inputs(), "obd_inputs"),
        (Criterion::SparseGpt, c.inputs(), "obs"),
        (Criterion::Obd, gradients.clone(), "obd_fisher"),
        (Criterion::Taylor, gradients, "taylor"),
    ] {
        close(key, &criterion.scores(c.matrix(), &statistics, 0).unwrap(), &floats(&c.f[key]), 1e-5);
    }
}

#[test]
fn wanda_compares_within_each_output() {
    let c = Case::new();
    let s = Criterion::Wanda.select(c.matrix(), &c.inputs(), &SparsityPattern::Unstructured(0.5), 0).unwrap();
    same_mask("wanda", &s.mask, &c.f["wanda_mask_50"]);
    assert!((0..c.n as u64).all(|r| s.mask.row_count(r) == 8));
}

#[test]
fn sparsegpt_is_optimal_brain_surgeon_column_by_column() {
    let c = Case::new();
    let products = c.inputs().products(c.k, Criterion::SparseGpt).unwrap();
    for (key, pattern) in [("sparsegpt_nm", "2:4"), ("sparsegpt_60", "unstructured@0.6")] {
        let pattern: SparsityPattern = pattern.parse().unwrap();
        let mut w = c.weights.clone();
        let gpt = SparseGpt { block: 8, ..SparseGpt::default() };
        let mask = gpt.prune(&mut w, c.n, c.k, &products, &pattern).unwrap();
        same_mask(key, &mask, &c.f[key]["mask"]);
        close(key, &w, &floats(&c.f[key]["weights"]), 1e-4);
        let q = Quality::of(c.matrix(), &mask, Some(&w), &c.inputs()).unwrap();
        let wanted = c.f[key]["output_error"].as_f64().unwrap();
        assert!((q.output_error.unwrap() - wanted).abs() < 1e-4, "{:?} and not {wanted}", q.output_error);
    }
}

#[test]
fn the_update_of_sparsegpt_pays() {
    let c = Case::new();
    let pattern = SparsityPattern::Nm { n: 2, m: 4 };
    let error = |criterion: Criterion| {
        hwsim::sparsity::quality::quality(c.matrix(), &pattern, criterion, &c.inputs(), 1)
            .unwrap()
            .output_error
            .unwrap()
    };
    let (gpt, plain) = (error(Criterion::SparseGpt), error(Criterion::Magnitude));
    assert!(gpt < plain, "{gpt} {plain}");
}

#[test]
fn products_and_rows_say_the_same() {
    let c = Case::new();
    let rows = c.inputs();
    let products = Statistics::of_products(rows.products(c.k, Criterion::SparseGpt).unwrap());
    let pattern = SparsityPattern::Unstructured(0.7);
    let s = Criterion::Magnitude.select(c.matrix(), &rows, &pattern, 0).unwrap();
    let a = Quality::of(c.matrix(), &s.mask, None, &rows).unwrap();
    let b = Quality::of(c.matrix(), &s.mask, None, &products).unwrap();
    assert!((a.output_error.unwrap() - b.output_error.unwrap()).abs() < 1e-9);
    assert!((a.obd_increase.unwrap() / b.obd_increase.unwrap() - 1.0).abs() < 1e-6);
}

#[test]
fn quality_by_hand() {
    // |w| = 1 2 3 4: the two largest keep 7 of 10 of the magnitude and 25 of 30 of the energy.
    let w = [1.0, -2.0, 3.0, -4.0];
    let m = Matrix { weights: &w, n: 1, k: 4 };
    let mask = select::mask(&magnitude::l1(&w), 1, 4, &SparsityPattern::Nm { n: 2, m: 4 }).unwrap();
    let q = Quality::of(m, &mask, None, &Statistics::of_inputs(vec![1.0, 1.0, 0.0, 0.0])).unwrap();
    assert_eq!((q.weights, q.kept, q.kept_l1, q.kept_energy), (4, 2, 0.7, 25.0 / 30.0));
    // x = (1, 1, 0, 0): h = 2, so ½·2·1 + ½·2·4; the output −1 becomes 0.
    assert_eq!((q.obd_increase, q.output_error, q.kept_wanda), (Some(5.0), Some(1.0), Some(0.0)));
}

#[test]
fn missing_statistics_are_named() {
    let m = Matrix { weights: &[1.0, 2.0], n: 1, k: 2 };
    for criterion in Criterion::ALL.into_iter().filter(|c| c.needs_statistics()) {
        let e = criterion.scores(m, &Statistics::none(), 0).unwrap_err().to_string();
        assert!(e.contains(criterion.name()) && e.contains("needs"), "{criterion}: {e}");
    }
    let e = Criterion::Wanda.scores(m, &Statistics::of_inputs(vec![1.0; 3]), 0).unwrap_err().to_string();
    assert!(e.contains("rows of 2"), "{e}");
    let e = "wnda".parse::<Criterion>().unwrap_err().to_string();
    assert!(e.contains("did you mean `wanda`"), "{e}");
}

#[test]
fn numpy_arrays_are_read() {
    let npy = |descr: &str, fortran: &str, shape: &str, data: &[u8]| {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    };
    let data: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let array = npz::parse(&npy("<f8", "False", "(2, 1)", &data)).unwrap();
    assert_eq!((array.shape, array.values), (vec![2, 1], vec![1.5, -2.0]));
    assert_eq!(npz::parse(&npy("<f8", "False", "()", &data[..8])).unwrap().shape, Vec::<u64>::new());
    let whole: Vec<u8> = [1i64 << 40, -3].iter().flat_map(|x| x.to_le_bytes()).collect();
    let array = npz::parse(&npy("<i8", "False", "(2,)", &whole)).unwrap();
    assert_eq!((array.rows(1, 1).values, array.integers), (vec![-3.0], Some(vec![1 << 40, -3])));
    for (bytes, complaint) in [
        (npy("<f8", "True", "(2,)", &data), "column-major"),
        (npy("<c8", "False", "(2,)", &data), "<c8"),
        (npy("<f8", "False", "(3,)", &data), "claims 3"),
        (b"PK".to_vec(), "begin"),
        (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "ends"),
    ] {
        let e = npz::parse(&bytes).unwrap_err();
        assert!(e.contains(complaint), "{e}");
    }
}
