//! Patterns, masks, statistics and formats against numbers worked out by hand.

use hwsim::dtype::DType;
use hwsim::lower::{Assignment, Choice};
use hwsim::pattern::SparsityPattern as P;
use hwsim::sparsity::{Mask, StorageFormat, Tile, WeightStats};
use std::sync::Arc;

fn parse(text: &str) -> P {
    text.parse().unwrap()
}

fn refusal(text: &str) -> String {
    text.parse::<P>().unwrap_err().to_string()
}

#[test]
fn patterns_are_refused_with_a_reason() {
    assert_eq!(refusal("3:2"), "pattern `3:2`: N:M keeps N of every M, and 3 is more than 2; did you mean 2:3?");
    assert_eq!(
        refusal("unstructured@90"),
        "pattern `unstructured@90`: the fraction of zeros must lie in [0, 1) (for 90 % write 0.9)"
    );
    assert!(refusal("unstructured@NaN").contains("must lie in [0, 1)"));
    assert!(refusal("unstructured@-0.1").contains("must lie in [0, 1)"));
    assert!(refusal("block:16@0.5").contains("rows x columns"));
    assert!(refusal("block:0x4@0.5").contains("at least 1"));
    assert!(refusal("0:4").contains("at least 1"));
    assert!(refusal("channel").contains("lacks its fraction"));
    assert!(refusal("diagonal@0.5").contains("spellings"));
    assert!(refusal("").contains("spellings"));
}

#[test]
fn nonzeros_are_exact() {
    let nonzeros = |p: &str, rows, cols| WeightStats::expected(parse(p), rows, cols).nonzeros();
    assert_eq!(nonzeros("dense", 6, 10), 60.0);
    // Two of each four, and of the remaining two both.
    assert_eq!(nonzeros("2:4", 6, 10), 6.0 * (2.0 * 2.0 + 2.0));
    assert_eq!(nonzeros("1:4", 6, 10), 6.0 * 3.0);
    assert_eq!(nonzeros("unstructured@0.9", 6, 10), 6.0);
    assert_eq!(nonzeros("row@0.5", 6, 10), 30.0);
    assert_eq!(nonzeros("column@0.25", 6, 8), 36.0);
    // Four blocks of 3×5, half kept.
    assert_eq!(nonzeros("block:3x5@0.5", 6, 10), 30.0);
    assert_eq!(nonzeros("64:2:8", 64, 16), 64.0 * 4.0);
}

#[test]
fn storage_bytes_are_exact() {
    let bytes = |p: &str, f: &str, rows, cols, d: DType| {
        let choice: Choice = format!("{p}{f}").parse().unwrap();
        let stats = WeightStats::expected(choice.pattern, rows, cols);
        let stored = choice.storage().unwrap().bytes(&stats, d);
        (stored.values.get(), stored.metadata.get())
    };
    // 64×64 in 16 bits: half the values, and two bits for each kept one, 12.5 % of their bytes.
    assert_eq!(bytes("2:4", "", 64, 64, DType::Fp16), (4096.0, 512.0));
    assert_eq!(bytes("2:4", "/bitmask", 64, 64, DType::Fp16), (4096.0, 512.0));
    assert_eq!(bytes("2:4", "/dense", 64, 64, DType::Fp16), (8192.0, 0.0));
    // 410 kept of 4096 (round(0.9 · 4096) = 3686 removed), 2-byte columns, 65 row pointers of 4 bytes.
    assert_eq!(bytes("unstructured@0.9", "", 64, 64, DType::Fp32), (410.0 * 4.0, 410.0 * 2.0 + 260.0));
    assert_eq!(bytes("unstructured@0.9", "/coo", 64, 64, DType::Fp32), (410.0 * 4.0, 410.0 * 8.0));
    // Past 65,535 columns an index takes four bytes.
    assert_eq!(bytes("unstructured@0.5", "", 1, 65_536, DType::Fp32), (32768.0 * 4.0, 32768.0 * 4.0 + 8.0));
    // 16 blocks of 16×16, 4 kept, 5 block-row pointers.
    assert_eq!(bytes("block:16x16@0.75", "", 64, 64, DType::Fp16), (4.0 * 512.0, 4.0 * 2.0 + 20.0));
    // A block that does not divide is stored whole: 2×2 blocks cover 20×20.
    assert_eq!(bytes("block:16x16@0", "/bsr", 20, 20, DType::Fp16), (4.0 * 512.0, 4.0 * 2.0 + 12.0));
    // V:N:M: 2 of 8 kept; 2 bits each within four columns; 4 columns of 3 bits for each 64×8 block.
    assert_eq!(bytes("64:2:8", "", 64, 64, DType::Fp16), (64.0 * 16.0 * 2.0, 256.0 + 12.0));
    // Rows and columns are cut out; what is left is dense with an index each.
    assert_eq!(bytes("row@0.5", "", 64, 64, DType::Fp16), (4096.0, 64.0));
    assert_eq!(bytes("dense", "", 64, 64, DType::Fp4), (2048.0, 0.0));
}

#[test]
fn a_format_must_fit_its_pattern() {
    let error = "unstructured@0.5/nm".parse::<Choice>().unwrap_err().to_string();
    assert_eq!(error, "pattern `unstructured@0.5/nm`: format nm needs an N:M pattern, such as 2:4");
    assert!("2:4/csrr".parse::<Choice>().unwrap_err().to_string().contains("did you mean `csr`"));
}

#[test]
fn occupancy_by_hand() {
    let occupied = |p: &str, rows, cols, t: Tile| WeightStats::expected(parse(p), rows, cols).occupied(t);
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} against {b}");
    // One nonzero among four: a 1×2 tile holds it with probability 1/2.
    near(occupied("unstructured@0.75", 2, 2, Tile::new(1, 2)), 0.5);
    // 1:4 over a 1×2 tile: half the time it lies in the other half.
    near(occupied("1:4", 1, 4, Tile::new(1, 2)), 0.5);
    // Two rows are independent: 1 − 1/4.
    near(occupied("1:4", 2, 4, Tile::new(2, 2)), 0.75);
    near(occupied("2:4", 8, 8, Tile::new(1, 4)), 1.0);
    near(occupied("row@0.5", 4, 4, Tile::new(1, 4)), 0.5);
    // Any two of four rows: both kept ones in the other pair with probability 1/6.
    near(occupied("row@0.5", 4, 4, Tile::new(2, 4)), 5.0 / 6.0);
    near(occupied("block:2x2@0.75", 4, 4, Tile::new(2, 2)), 0.25);
    // 128:1:8 keeps four columns of eight for all rows and one of them in each.
    near(occupied("128:1:8", 1, 8, Tile::new(1, 4)), 0.5);
}

#[test]
fn imbalance_as_known() {
    // MODELS: 132 units with tiles of 256 at 10 % pay 1.52×, with tiles of 1024 1.25×, N:M nothing.
    let stats = WeightStats::expected(P::Unstructured(0.9), 1 << 14, 1 << 14);
    assert!((stats.tile_imbalance(256.0, 132.0) - 1.52).abs() < 0.02, "{}", stats.tile_imbalance(256.0, 132.0));
    assert!((stats.tile_imbalance(1024.0, 132.0) - 1.25).abs() < 0.01);
    assert_eq!(WeightStats::expected(parse("2:4"), 1024, 1024).tile_imbalance(256.0, 132.0), 1.0);
    assert_eq!(WeightStats::expected(parse("2:4"), 1024, 1024).imbalance(132), 1.0);
}

#[test]
fn a_mask_is_counted() {
    let mask = Mask::from_fn(4, 70, |r, c| r == 1 && c >= 60);
    assert_eq!(mask.count(), 10);
    assert_eq!(mask.columns(1).collect::<Vec<_>>(), (60..70).collect::<Vec<_>>());
    assert_eq!(mask.occupied_tiles(2, 64), 2);
    let stats = WeightStats::counted(P::Unstructured(0.96), Arc::new(mask));
    assert_eq!(stats.imbalance(2), 2.0);
    assert_eq!(stats.occupied(Tile::new(2, 64)), 0.5);
    let csr = StorageFormat::Csr.bytes(&stats, DType::Fp32);
    assert_eq!((csr.values.get(), csr.metadata.get()), (40.0, 20.0 + 20.0));
}

#[test]
fn the_last_rule_wins_and_idle_rules_are_refused() {
    let rules = Assignment::parse(&["2:4", "conv1=dense", "layer4.*=block:32x1@0.9/bsr"]).unwrap();
    assert_eq!(rules.choice("fc").pattern, parse("2:4"));
    assert_eq!(rules.choice("conv1").pattern, P::Dense);
    assert_eq!(rules.choice("layer4.0.conv1").to_string(), "block:32x1@0.9/bsr");
    let names = ["conv1", "layer4.0.conv1"];
    assert!(rules.check(names.iter().copied()).is_ok());
    let idle = Assignment::parse(&["convv1=2:4"]).unwrap();
    let error = idle.check(names.iter().copied()).unwrap_err().to_string();
    assert_eq!(error, "pattern `convv1=2:4`: no layer with weights matches `convv1`; did you mean `conv1`?");
    // ONNX names contain slashes and brackets: the exact name is tried before the glob.
    let rules = Assignment::parse(&["/a/b[0]/Conv=2:4/nm"]).unwrap();
    assert_eq!(rules.choice("/a/b[0]/Conv").to_string(), "2:4/nm");
}
