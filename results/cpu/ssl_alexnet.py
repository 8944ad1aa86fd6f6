#!/usr/bin/env python3
"""SSL's AlexNet table (Wen et al., Learning Structured Sparsity in Deep Neural Networks, NIPS 2016, Table 4) on this machine:

    python3 results/cpu/ssl_alexnet.py FOLDER [--hwsim target/release/hwsim]

Each convolution is the product that lowering makes of it (Caffe's AlexNet, one image; two of conv2, 4 and 5, one group
each). SSL's rows (filters) and columns (places in a filter) leave a smaller dense product; l1's zeros are CSR. Dense and
sparse take turns in one `hwsim bench`; `hwsim estimate` predicts them from a fit that saw neither
(fidelity.sh, which made FOLDER). Writes ssl_alexnet.csv there and its provenance. Needs Python 3.9 and nothing else; takes two minutes.
"""

import argparse
import csv
import datetime
import io
import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
# One group's product: positions, filters, places in a filter; and MACs of all groups in millions, as in the paper.
LAYERS = {
    "conv1": (3025, 96, 363, 105.4),
    "conv2": (729, 128, 1200, 223.9),
    "conv3": (169, 384, 2304, 149.5),
    "conv4": (169, 192, 1728, 112.1),
    "conv5": (169, 128, 1728, 74.8),
}
# Zeros, or zero columns and rows; published speedups on a CPU (Xeon E5-2630) and a GPU (GTX Titan Black).
PUBLISHED = {
    "l1, 2 % loss": [(0.676, None, 0.80, 0.25), (0.924, None, 2.91, 0.52), (0.972, None, 4.84, 1.38),
                     (0.966, None, 3.83, 1.04), (0.943, None, 2.76, 1.36)],
    "SSL, 2 % loss": [(0.0, 0.094, 1.05, 1.00), (0.632, 0.129, 3.37, 2.37), (0.769, 0.406, 6.27, 4.94),
                      (0.847, 0.469, 9.73, 4.03), (0.807, 0.0, 4.93, 3.05)],
    "l1, no loss": [(0.147, None, 0.34, 0.08), (0.762, None, 0.99, 0.17), (0.853, None, 1.30, 0.42),
                    (0.815, None, 1.10, 0.30), (0.763, None, 0.93, 0.32)],
    "SSL, no loss": [(0.0, 0.0, 1.00, 1.00), (0.209, 0.0, 1.27, 1.25), (0.397, 0.0, 1.64, 1.63),
                     (0.397, 0.0, 1.68, 1.72), (0.246, 0.0, 1.32, 1.36)],
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hwsim", default=str(HERE.parents[1] / "target/release/hwsim"))
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    hwsim, fit = args.hwsim, args.folder
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for at, (layer, (m, n, k, macs)) in enumerate(LAYERS.items()):
            dense = f"{m}x{n}x{k}"
            asked = {}
            for run, published in PUBLISHED.items():
                column, row, cpu, gpu = published[at]
                if row is None:
                    asked[run] = (dense, f"unstructured@{column}", 1 / (1 - column), cpu, gpu)
                else:
                    left = (n - round(row * n), k - round(column * k))
                    asked[run] = (f"{m}x{left[0]}x{left[1]}", "dense", n * k / (left[0] * left[1]), cpu, gpu)
            shapes = sorted({dense} | {shape for shape, *_ in asked.values()})
            patterns = sorted({"dense"} | {pattern for _, pattern, *_ in asked.values()})
            samples = pathlib.Path(scratch) / f"{layer}.csv"
            command = [hwsim, "bench", "--rounds", "7", "-o", str(samples)]
            subprocess.run(command + [f"--gemm={s}" for s in shapes] + [f"-s={p}" for p in patterns],
                           check=True, capture_output=True)
            measured = {}
            with open(samples) as f:
                for r in csv.DictReader(f):
                    if r["timing"] == "warm" and r["dtype"] == "fp32" and r["kernel"] in ("dense", "csr"):
                        shape = f"{r['m']}x{r['n']}x{r['k']}"
                        measured[shape, r["pattern"]] = float(r["latency_us"])

            def predicted(shape, pattern):
                out = subprocess.run(
                    [hwsim, "estimate", "--gemm", shape, "-s", f"{pattern}", "-p", str(fit / "fitted.profile.toml"),
                     "--calibration", str(fit / "host.calib.toml"), "--dtype", "fp32", "--timing", "warm",
                     "--threads", "1", "--format", "csv"], check=True, capture_output=True, text=True).stdout
                return 1e6 * float(next(csv.DictReader(io.StringIO(out)))["latency_s"])

            whole = predicted(dense, "dense")
            for run, (shape, pattern, ideal, cpu, gpu) in asked.items():
                rows.append({
                    "run": run, "layer": layer, "macs_millions": macs, "product": shape, "pattern": pattern,
                    "ideal_speedup": ideal, "published_cpu_speedup": cpu, "published_gpu_speedup": gpu,
                    "dense_us": measured[dense, "dense"], "measured_us": measured[shape, pattern],
                    "predicted_us": predicted(shape, pattern),
                    "measured_speedup": measured[dense, "dense"] / measured[shape, pattern],
                    "predicted_speedup": whole / predicted(shape, pattern),
                })
    rows.sort(key=lambda r: list(PUBLISHED).index(r["run"]))
    speedups = ["ideal_speedup", "published_cpu_speedup", "published_gpu_speedup", "measured_speedup", "predicted_speedup"]
    for run in PUBLISHED:
        of = [r for r in rows if r["run"] == run]
        macs = sum(r["macs_millions"] for r in of)
        mean = {s: sum(r[s] for r in of) / len(of) for s in speedups}
        # Time of the whole: each layer's share of the MACs over its speedup.
        weighted = {s: macs / sum(r["macs_millions"] / r[s] for r in of) for s in speedups}
        rows.append({"run": run, "layer": "mean of speedups", "macs_millions": macs} | mean)
        rows.append({"run": run, "layer": "MAC-weighted", "macs_millions": macs} | weighted)
    with open(fit / "ssl_alexnet.csv", "w", newline="") as f:
        out = csv.DictWriter(f, fieldnames=list(rows[0]))
        out.writeheader()
        for r in rows:
            out.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in r.items()})
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "unknown CPU")
    (fit / "ssl_alexnet.csv.provenance.toml").write_text(
        f'command = "python3 results/cpu/ssl_alexnet.py FOLDER"\ncommit = "{commit}"\nmachine = "{cpu}, one thread"\n'
        f'date = "{datetime.date.today()}"\n')
    for r in rows[20:]:
        print(f"{r['run']:14} {r['layer']:17}" + "".join(f"{s.split('_')[0] + ' ' + (s.split('_')[1] if s[0] == 'p' and 'published' in s else ''):>16} {r[s]:.2f}" for s in speedups))


main()
