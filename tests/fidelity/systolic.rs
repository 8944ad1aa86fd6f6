//! The `scale-sim-3` convention against SCALE-Sim 3.0.0's own answers, where the reference tables are at hand
//! (`$HWSIM_SHARED/reference` or `../shared/reference`).

use hwsim::cost::systolic::convention::answer;
use hwsim::dtype::DType;
use hwsim::lower::{ConvShape, Gemm, Source, SparseGemm};
use hwsim::pattern::SparsityPattern;
use hwsim::profile::systolic::{Dataflow, RowWise, Systolic};
use std::collections::HashMap;
use std::path::PathBuf;

type Row = HashMap<String, String>;

fn rows(name: &str) -> Option<Vec<Row>> {
    let shared = std::env::var_os("HWSIM_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let path = shared.join("reference").join(name);
    if !path.is_file() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect())
}

fn number(row: &Row, field: &str) -> f64 {
    row[field].parse().unwrap_or_else(|_| panic!("{field} = {:?}", row[field]))
}

fn count(row: &Row, field: &str) -> u64 {
    number(row, field) as u64
}

fn array(row: &Row) -> Systolic {
    let dataflow = Dataflow::ALL.into_iter().find(|d| d.short() == row["dataflow"]).unwrap();
    let text = format!(
        "rows = {}\ncols = {}\ndataflow = \"output-stationary\"\nconvention = \"scale-sim-3\"\n\
         sram = {{ inputs = \"{} KiB\", weights = \"{} KiB\", outputs = \"{} KiB\" }}",
        row["array_h"], row["array_w"], row["ifmap_sram_kb"], row["filter_sram_kb"], row["ofmap_sram_kb"]
    );
    let drawn = row.get("optimized_mapping").is_some_and(|v| v == "1");
    let row_wise = drawn.then(|| RowWise { block: count(row, "block_size"), seed: count(row, "rng_seed") as u32 });
    Systolic { dataflow, row_wise, ..toml::from_str(&text).unwrap() }
}

fn operation(row: &Row, pattern: SparsityPattern) -> SparseGemm {
    let gemm = Gemm { groups: 1, m: count(row, "M"), n: count(row, "N"), k: count(row, "K") };
    let mut op = SparseGemm::with_pattern(gemm, DType::Int8, pattern);
    if row["kind"] == "conv" {
        let (input, kernel, s) = (["ifmap_h", "ifmap_w"], ["filt_h", "filt_w"], count(row, "stride"));
        let (input, kernel) = (input.map(|f| count(row, f)), kernel.map(|f| count(row, f)));
        op.source = Source::Conv(ConvShape {
            batch: 1,
            channels: count(row, "channels"),
            input,
            output: [0, 1].map(|a| (input[a] - kernel[a] + s).div_ceil(s)),
            kernel,
            stride: [s; 2],
            dilation: [1; 2],
            transposed: false,
        });
    }
    op
}

struct Compared {
    rows: usize,
    fits: usize,
    spills: usize,
    spill_error: f64,
}

fn compare(rows: &[Row], pattern: impl Fn(&Row) -> SparsityPattern) -> Compared {
    let mut compared = Compared { rows: 0, fits: 0, spills: 0, spill_error: 0.0 };
    for row in rows {
        let array = array(row);
        let op = operation(row, pattern(row));
        let got = answer(&array, &op).unwrap();
        let d = got.detail;
        let case =
            format!("{} {} {} {}x{}", row["workload"], row["layer"], row["dataflow"], row["array_h"], row["array_w"]);
        assert_eq!(got.cycles, count(row, "compute_cycles"), "{case}");
        // With finite bandwidth it divides by cycles with stalls; here cycles are compute cycles.
        let stalled = number(row, "total_cycles") / number(row, "compute_cycles");
        for (field, value) in [
            ("overall_util_pct", d.overall_utilization / stalled),
            ("mapping_eff_pct", d.mapping_efficiency),
            ("compute_util_pct", d.compute_utilization),
            ("ifmap_sram_reads", d.sram_inputs),
            ("filter_sram_reads", d.sram_weights as f64),
            ("ofmap_sram_writes", d.sram_outputs as f64),
        ] {
            let want = number(row, field);
            assert!((value - want).abs() <= 1e-9 * want.abs().max(1.0), "{case}: {field} is {value}, not {want}");
        }
        compared.rows += 1;
        // With bandwidths given it counts whole prefetched lines, used or not, which nobody wants reproduced.
        if row["bw_mode"] != "CALC" {
            continue;
        }
        for (field, sram, value) in [
            ("ifmap_dram_reads", array.sram.inputs, d.dram_inputs),
            ("filter_dram_reads", array.sram.weights, d.dram_weights),
        ] {
            let want = count(row, field);
            if value == want && want < 50 * (sram.get() as u64 / 100) {
                compared.fits += 1;
            } else {
                compared.spills += 1;
                compared.spill_error += (value as f64 / want as f64 - 1.0).abs();
                assert!(want >= 50 * (sram.get() as u64 / 100), "{case}: {field} is {value}, not {want}, and fits");
            }
        }
    }
    compared
}

#[test]
fn dense_runs_are_reproduced() {
    let Some(rows) = rows("systolic_dense.csv") else { return };
    let seen = compare(&rows, |_| SparsityPattern::Dense);
    println!("{} rows; DRAM: {} fit, {} spill", seen.rows, seen.fits, seen.spills);
    assert_eq!(seen.rows, 521);
    assert!(
        seen.spills > 100 && seen.spill_error / (seen.spills as f64) < 0.01,
        "{}",
        seen.spill_error / seen.spills as f64
    );
}

#[test]
fn sparse_runs_are_reproduced() {
    let Some(rows) = rows("systolic_sparse.csv") else { return };
    let seen = compare(&rows, |r| SparsityPattern::Nm { n: count(r, "sparsity_n"), m: count(r, "sparsity_m") });
    println!("{} rows; DRAM: {} fit, {} spill", seen.rows, seen.fits, seen.spills);
    assert_eq!(seen.rows, 226);
    assert!(seen.spill_error / (seen.spills as f64) < 0.01);
}
