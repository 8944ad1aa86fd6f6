#!/usr/bin/env python3
"""Makes the tables of this folder with one command: python3 results/systolic/make.py [--hwsim target/release/hwsim]

Networks x arrays from 16x16 to 256x256 x dataflows x sparse hardware: cycles, traffic, energy and utilization, one row a
network. Every array runs overlapped folds at 1 GHz and 16 nm, with 100 GB/s and three buffers of 1 MiB at a side of 32, both
growing with the side; what varies is the array, the dataflow and the sparse hardware.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import tempfile

# network, its sizes, and what stays dense: a pattern on nine weights of a depthwise filter says nothing
NETWORKS = [
    ("resnet50", ["--batch", "1"], []),
    ("mobilenetv2", ["--batch", "1"], ["*.conv.1.0=dense", "features.1.conv.0.0=dense"]),
    ("bert-base", ["--seq", "128"], []),
    ("llama-3-8b", ["--decode", "2048"], []),
]
SIDES = [16, 32, 64, 128, 256]
DATAFLOWS = ["output-stationary", "weight-stationary", "input-stationary"]
# sparse hardware, pattern of the weights
MODES = [
    ("none", "dense"),
    ("none", "column@0.5"),
    ("nm", "2:4"),
    ("nm-layer", "2:4"),
    ("nm-rows", "2:4"),
    ("nm-rows", "unstructured@0.9"),
    ("skip-zero-tiles", "block:32x32@0.8"),
    ("skip-unstructured", "unstructured@0.9"),
    ("gate", "unstructured@0.9"),
]
# Packing sparse columns is a greedy algorithm on drawn masks, so one array stands for all.
SLOW_MODES = [("column-combining", "unstructured@0.9", [32])]

PROFILE = """name = "{side}x{side} {dataflow}"
clock = "1 GHz"
[memory]
bandwidth = "{bandwidth} GB/s"
[device.systolic]
rows = {side}
cols = {side}
dataflow = "{dataflow}"
sram = {{ inputs = "{sram} KiB", weights = "{sram} KiB", outputs = "{sram} KiB" }}
folds = "overlapped"
sparsity = "{mode}"
technology_nm = 16
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hwsim", default="target/release/hwsim")
    arguments = parser.parse_args()
    here = pathlib.Path(__file__).parent
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "array.toml"
        for network, sizes, dense in NETWORKS:
            rows = []
            for side in SIDES:
                modes = MODES + [(m, p) for m, p, sides in SLOW_MODES if side in sides]
                for dataflow in DATAFLOWS:
                    for mode, pattern in modes:
                        path.write_text(PROFILE.format(side=side, dataflow=dataflow, mode=mode, bandwidth=25 * side // 8, sram=32 * side))
                        rules = [part for rule in [pattern, *dense] for part in ("-s", rule)]
                        command = [arguments.hwsim, "estimate", "--profile", path, "--workload", network, *sizes, "--dtype", "int8", *rules, "--format", "json"]
                        answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                        total, layers = answer["total"], answer["layers"]
                        work = sum(l["latency_s"] for l in layers)
                        busy = sum(l["utilization"] * l["latency_s"] for l in layers) / work
                        rows.append({
                            "array": f"{side}x{side}",
                            "dataflow": dataflow,
                            "hardware": mode,
                            "pattern": pattern,
                            "cycles": round(total["cycles"]),
                            "latency_ms": round(total["latency_s"] * 1e3, 5),
                            "dram_mb": round(total["dram_bytes"] / 1e6, 3),
                            "sram_mb": round(sum(l["traffic"]["sram"] for l in layers) / 1e6, 3),
                            "energy_mj": round(total["energy_j"] * 1e3, 5),
                            "utilization": round(busy, 4),
                            "speedup": round(total["speedup"], 3),
                        })
            with (here / f"{network}.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            print(f"{network}: {len(rows)} rows")


if __name__ == "__main__":
    main()
