#!/usr/bin/env python3
"""Makes this folder with one command: python3 results/case_study/make.py [--hwsim target/release/hwsim]

ResNet-50, BERT-base and Llama-3-8B (prefill and decode) on an A100, an H100, a CPU and a systolic array: which pattern wins
where, and why (hwsim's own words); and SSL's 5.1x and 3.1x in that light. Needs Python 3.9 and nothing else; takes a minute.
"""

import argparse
import csv
import json
import pathlib
import shutil
import subprocess
import tempfile

DEVICES = [
    ("a100", "A100"),
    ("h100", "H100"),
    ("xeon-platinum-8480", "Xeon 8480+"),
    ("systolic-128x128", "128x128 array"),
]
# stem, title, sizes
NETWORKS = [
    ("resnet50", "ResNet-50, batch 32", ["--workload", "resnet50", "--batch", "32"]),
    ("bert-base", "BERT-base, batch 8, 128 tokens", ["--workload", "bert-base", "--batch", "8", "--seq", "128"]),
    ("llama-3-8b-prefill", "Llama-3-8B, prefill of 2048 tokens", ["--workload", "llama-3-8b", "--seq", "2048"]),
    ("llama-3-8b-decode", "Llama-3-8B, decode at 2048 keys", ["--workload", "llama-3-8b", "--decode", "2048"]),
]
# Each ladder spans the sparsities of --at; 2:4 has one.
LADDERS = ["unstructured@*", "block:32x1@*", "block:128x128@*", "channel@*"]
SINGLE = ["2:4", "64:2:8", "64:2:16"]
AT = "0.5,0.7,0.8,0.9,0.95"
# Patterns at about half and at about nine tenths zeros, which a table sets side by side.
HALF = ["2:4", "unstructured@0.5", "block:32x1@0.5", "block:128x128@0.5", "channel@0.5"]
NINE = ["64:2:16", "unstructured@0.9", "block:32x1@0.9", "block:128x128@0.9", "channel@0.9"]

# Wen et al., Learning Structured Sparsity in Deep Neural Networks, NIPS 2016, table 4 (2 % loss), conv1 to conv5 of AlexNet:
# MMACs, share of zero columns, share of zero rows, measured speedup of the GEMM on a CPU and on a GPU.
SSL = [
    ("conv1", 105.4, 0.0, 0.094, 1.05, 1.00),
    ("conv2", 223.9, 0.632, 0.129, 3.37, 2.37),
    ("conv3", 149.5, 0.769, 0.406, 6.27, 4.94),
    ("conv4", 112.1, 0.847, 0.469, 9.73, 4.03),
    ("conv5", 74.8, 0.807, 0.0, 4.93, 3.05),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hwsim", default="target/release/hwsim")
    hwsim = pathlib.Path(parser.parse_args().hwsim).resolve()
    here = pathlib.Path(__file__).resolve().parent

    def run(*arguments, folder=here):
        # What is made names its command: as anyone would type it, whatever the folders are called here.
        command = ["hwsim", *map(str, arguments)]
        answer = subprocess.run(command, executable=hwsim, cwd=folder, capture_output=True, text=True)
        if answer.returncode:
            raise SystemExit(f"hwsim {' '.join(map(str, arguments))}\n{answer.stderr}")
        return answer.stdout

    version = run("--version").strip()
    with tempfile.TemporaryDirectory() as name:
        scratch = pathlib.Path(name)
        text = [HEAD.format(version=version)]
        csvs = []
        for stem, title, sizes in NETWORKS:
            csvs.append(sweep(run, here, stem, sizes))
            text.append(network(run, csvs[-1], stem, title, sizes))
        estimates = []
        for stem, pattern in [("resnet50 2-4 on A100", "2:4"), ("resnet50 channel on A100", "channel@0.5")]:
            estimates.append(f"{stem}.json")
            run("estimate", "--profile", "a100", "--workload", "resnet50", "--batch", 32, "-s", pattern, "--format", "json",
                "-o", estimates[-1], folder=scratch)
        estimates.append("llama-3-8b decode 2-4 on A100.json")
        run("estimate", "--profile", "a100", "--workload", "llama-3-8b", "--decode", 2048, "-s", "2:4", "--format", "json",
            "-o", estimates[-1], folder=scratch)
        for path in csvs:
            shutil.copy(path, scratch)
        figures = scratch / "figures"
        run("report", *estimates, *(path.name for path in csvs), "-o", "report.html", "--svg", "figures", "--title",
            "hwsim: which pattern wins where", folder=scratch)
        shutil.copy(scratch / "report.html", here)
        for old in here.glob("*.svg"):
            old.unlink()
        for figure in sorted(figures.glob("*.svg")):
            # The graph of a whole network is for the page; here stand the figures that the text speaks of.
            if not figure.stem.startswith(("network", "roofline-resnet50-channel")):
                shutil.copy(figure, here / figure.name)
        text.append(ssl(run))
    (here / "README.md").write_text("\n".join(text))


def sweep(run, here, stem, sizes):
    path = here / f"{stem}.csv"
    patterns = [word for p in SINGLE + LADDERS for word in ("-s", p)]
    profiles = ",".join(p for p, _ in DEVICES)
    run("sweep", *sizes, "--profile", profiles, *patterns, "--at", AT, "--per", "network", "-o", path.name)
    return path


def network(run, path, stem, title, sizes):
    records = list(csv.DictReader(path.open()))
    names = []
    for r in records:
        if r["device"] not in names:
            names.append(r["device"])
    labels = dict(zip(names, (label for _, label in DEVICES)))
    of = {(r["device"], r["pattern"]): r for r in records}
    lines = [f"\n## {title}\n"]
    lines.append("| pattern | MACs kept | " + " | ".join(labels[n] for n in names) + " |")
    lines.append("| --- | ---: |" + " ---: |" * len(names))
    dense = [ms(of[n, "dense"]) for n in names]
    lines.append("| dense | 100 % | " + " | ".join(dense) + " |")
    for heading, group in [("half zeros", HALF), ("nine tenths zeros", NINE)]:
        lines.append(f"| *{heading}* | |" + " |" * len(names))
        best = {n: min((float(of[n, p]["latency_s"]), p) for p in group if (n, p) in of)[1] for n in names}
        for pattern in group:
            cells = []
            for n in names:
                r = of.get((n, pattern))
                cell = f"{float(r['speedup']):.2f}× ({float(r['speedup_low']):.2f}–{float(r['speedup_high']):.2f})" if r else "–"
                cells.append(f"**{cell}**" if r and best[n] == pattern and float(r["speedup"]) > 1.01 else cell)
            some = next(of[n, pattern] for n in names if (n, pattern) in of)
            kept = float(some["macs_effectual"]) / float(some["macs_dense"])
            lines.append(f"| {pattern} | {100 * kept:.1f} % | " + " | ".join(cells) + " |")
    lines.append("\nWhy, of 2:4 and of the fastest at half zeros:\n")
    for profile, label in DEVICES:
        full = names[[p for p, _ in DEVICES].index(profile)]
        best = min((float(of[full, p]["latency_s"]), p) for p in HALF if (full, p) in of)[1]
        for pattern in dict.fromkeys(["2:4", best]):
            lines.append(f"- **{label}, {pattern}.** " + why(run, profile, sizes, pattern))
    return "\n".join(lines)


def ms(record):
    seconds = float(record["latency_s"])
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def why(run, profile, sizes, pattern):
    """hwsim's closing paragraph: what stands between the table and the footer."""
    if pattern == "dense":
        return "Nothing beats dense."
    answer = run("estimate", "--profile", profile, *sizes, "-s", pattern, "--top", 1)
    return " ".join(answer.strip().split("\n\n")[-2].split())


def ssl(run):
    unweighted = [sum(row[i] for row in SSL) / len(SSL) for i in (4, 5)]
    total = sum(row[1] for row in SSL)
    weighted = [total / sum(row[1] / row[i] for row in SSL) for i in (4, 5)]
    lines = [SSL_HEAD.format(u=unweighted, w=weighted)]
    machines = [("xeon-gold-6148", ["--threads", "1"], "one core of a Xeon Gold 6148"), ("titan-x-maxwell", [], "TITAN X (Maxwell)")]
    lines.append("| layer | zero columns | zero rows | measured CPU | measured GPU | MACs promise | " + " | ".join(f"hwsim, {m[2]}" for m in machines) + " |")
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: |" + " ---: |" * len(machines))
    totals = [[0.0, 0.0] for _ in machines]
    rows = []
    estimates = []
    for profile, more, _ in machines:
        # What SSL times is the product that is left: whole rows and columns are removed, so the product is smaller.
        per_layer = {}
        for layer, _, columns, zero_rows, _, _ in SSL:
            m, n, k, groups = SHAPES[layer]
            left = (m, max(1, round(n * (1 - zero_rows))), max(1, round(k * (1 - columns))))
            before, after = (gemm(run, profile, more, s, groups) for s in ((m, n, k), left))
            per_layer[layer] = (before, after)
        estimates.append(per_layer)
    for layer, macs, columns, zero_rows, cpu, gpu in SSL:
        promise = 1 / ((1 - columns) * (1 - zero_rows))
        predicted = []
        for i, per_layer in enumerate(estimates):
            before, after = per_layer[layer]
            totals[i][0] += before
            totals[i][1] += after
            predicted.append(f"{before / after:.2f}×")
        rows.append(predicted)
        lines.append(f"| {layer} | {columns:.1%} | {zero_rows:.1%} | {cpu:.2f}× | {gpu:.2f}× | {promise:.2f}× | " + " | ".join(predicted) + " |")
    plain = [sum(e[l][0] / e[l][1] for l in e) / len(e) for e in estimates]
    lines.append(f"| mean of the five | | | {unweighted[0]:.2f}× | {unweighted[1]:.2f}× | | " + " | ".join(f"{p:.2f}×" for p in plain) + " |")
    lines.append(f"| five together | | | {weighted[0]:.2f}× | {weighted[1]:.2f}× | | " + " | ".join(f"{a / b:.2f}×" for a, b in totals) + " |")
    rule = [f"{layer}=column@{columns}" for layer, _, columns, _, _, _ in SSL if columns]
    lines.append(SSL_TAIL)
    for profile, more, label in machines:
        words = [w for r in rule for w in ("-s", r)]
        answer = json.loads(run("estimate", "--profile", profile, *more, "--workload", "alexnet-caffe", *words, "--format", "json"))
        dense = sum(l["dense_latency_s"] or 0 for l in answer["layers"] if l["op"] == "conv2d")
        share = dense / answer["total"]["dense_latency_s"]
        lines.append(f"- {label}: convolutions are {share:.0%} of the dense network's {answer['total']['dense_latency_s'] * 1e3:.3g} ms; "
                     f"with SSL's zero columns the network takes {answer['total']['latency_s'] * 1e3:.3g} ms, {answer['total']['speedup']:.2f}×.")
    return "\n".join(lines) + "\n"


# The products of Caffe's AlexNet, one image: output pixels, filters and taps of a group, groups.
SHAPES = {
    "conv1": (55 * 55, 96, 363, 1),
    "conv2": (27 * 27, 128, 1200, 2),
    "conv3": (13 * 13, 384, 2304, 1),
    "conv4": (13 * 13, 192, 1728, 2),
    "conv5": (13 * 13, 128, 1728, 2),
}


def gemm(run, profile, more, shape, groups):
    answer = run("estimate", "--profile", profile, *more, "--gemm", "x".join(map(str, shape)), "--groups", groups, "--timing", "warm",
                 "--format", "json")
    return json.loads(answer)["total"]["latency_s"]


HEAD = """# Which pattern wins where, and why

Made by `python3 results/case_study/make.py` with {version}; every figure is a prediction. `report.html` is the same as one page
with rooflines, layers and graphs; the CSV files hold every pattern and sparsity with intervals and, beside them, how they were made.

Tables show the speedup over the same machine's dense network with its 90 % interval ([what it assumes](../../src/report/ratio.rs));
the fastest of a group is bold. Every layer that can be pruned gets the pattern; fp16 on GPUs, fp32 on the CPU, int8 on the
array. Zeros say nothing of accuracy: the patterns of a group cost different amounts of it, and removing half the channels of every
layer removes three quarters of the MACs (a neighbour's inputs go too), so read across a row first. The array multiplies zeros; the
CPU could instead compute in bf16 or int8 on its matrix unit, which gains more than most of these patterns (`--dtype bf16`).

The CPU's predictions have not been compared with measurements. Masks lose there on all 56 cores because the sparse kernels that
hwsim has share rows alone among threads, and a convolution has few rows and many columns; on one thread (`--threads 1`) the same
patterns are predicted faster than dense, unstructured@0.9 by 2.1 and 16x16 blocks by 2.8.
"""

SSL_HEAD = """
## SSL's 5.1× and 3.1×

Wen et al. (NIPS 2016) report that AlexNet's convolutions run {u[0]:.1f}× faster on a CPU and {u[1]:.1f}× on a GPU at 2 % loss. That is the
unweighted mean over five layers, of the matrix products alone: conv1, which hardly gains, counts as much as conv2, which takes
more than twice its MACs. If every dense MAC took the same time, the five together would gain {w[0]:.2f}× and {w[1]:.2f}×. What remains of a product
whose zero rows and columns are removed is a smaller dense product, and that is what hwsim is asked here; the machines are
stand-ins (the paper's CPU and GPU have no profile), so compare the trend and not the digits.
"""

SSL_TAIL = """
"Five together" adds times: for the measurements, MAC-weighted as above. In a network the rest stays: pooling, the fully connected
layers, im2col, launches. With the columns pruned where they lie (a mask, Caffe's AlexNet, batch 1):
"""

if __name__ == "__main__":
    main()
