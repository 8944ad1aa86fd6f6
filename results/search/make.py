#!/usr/bin/env python3
"""Makes this folder's table: python3 results/search/make.py [--hwsim target/release/hwsim]

Four networks x four devices x budgets of loss: the latency of the optimal assignment, and how much longer what people do
today takes on the same table of patterns and losses.
"""

import argparse
import csv
import pathlib
import subprocess
import tempfile

NETWORKS = [
    ("resnet50", ["--batch", "1"]),
    ("mobilenetv2", ["--batch", "1"]),
    ("bert-base", ["--seq", "128"]),
    ("vgg16", ["--batch", "8"]),
]
DEVICES = ["a100", "rtx3090", "xeon-platinum-8380", "array.toml"]
PATTERNS = (
    "dense,2:4,1:4,unstructured@0.5,unstructured@0.8,unstructured@0.9,block:16x16@0.5,block:16x16@0.8,block:32x32@0.9,"
    "row@0.25,row@0.5,64:2:8"
)
BUDGETS = "loss=0.05,loss=0.1,loss=0.2"
# An array that makes use of N:M weights; the others are the profiles of their names.
ARRAY = """name = "32x32 array with compressed N:M weights"
clock = "1 GHz"
[memory]
bandwidth = "50 GB/s"
[device.systolic]
rows = 32
cols = 32
dataflow = "weight-stationary"
folds = "overlapped"
sparsity = "nm"
technology_nm = 16
sram = { inputs = "512 KiB", weights = "512 KiB", outputs = "512 KiB" }
"""
HEURISTICS = ["uniform", "MACs-greedy", "cost-greedy", "discretised knapsack (HALP)"]


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hwsim", type=pathlib.Path, default=here.parents[1] / "target/release/hwsim")
    hwsim = parser.parse_args().hwsim.resolve()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "array.toml").write_text(ARRAY)
        for network, sizes in NETWORKS:
            out = folder / network
            subprocess.run(
                [hwsim, "search", "--workload", network, *sizes, "--profile", ",".join(DEVICES), "--patterns", PATTERNS,
                 "--budget", BUDGETS, "-o", out],
                cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            answers = {}
            for row in csv.DictReader((out / "methods.csv").open()):
                answers.setdefault((row["profile"], row["dtype"], row["budget"]), {})[row["method"]] = row
            for (profile, dtype, budget), methods in answers.items():
                best = methods["optimal"]
                least = float(best["latency_s"])
                row = {
                    "workload": network,
                    "sizes": " ".join(sizes),
                    "profile": profile,
                    "dtype": dtype,
                    "budget": budget,
                    "dense_latency_s": best["dense_latency_s"],
                    "optimal_latency_s": best["latency_s"],
                    "speedup": f"{float(best['speedup']):.3f}",
                    "gap_percent": f"{100 * float(best['gap']):.4f}",
                }
                for name in HEURISTICS:
                    latency = methods[name]["latency_s"]
                    longer = f"{100 * (float(latency) / least - 1):.2f}" if latency else ""
                    row[f"{name.split()[0].lower()}_longer_percent"] = longer
                rows.append(row)
    with (here / "assignment.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
