"""ResNet-50 with a share of every convolution's channels removed, as PyTorch runs it, against Torch-Pruning's curve.

Writes results/gpu/resnet50-channels.csv and .svg. Needs a built hwsim and, for the figure, matplotlib; the measured curve
(channel_pruning_resnet50_latency.csv: ratio,GMACs,latency_ms) is not part of the repository: name it, or put it under
shared/reference/ beside the checkout.

    python3 scripts/resnet50_channels.py [--hwsim target/release/hwsim] [--profile rtxa6000] [--measured FILE.csv]
"""

import argparse
import csv
import json
import math
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def shrunk(text, ratio):
    """Every convolution keeps floor(channels * (1 - ratio)), at least one: Torch-Pruning without rounding."""
    kept = lambda m: m[1] + str(max(1, math.floor(int(m[2]) * (1 - ratio) + 1e-9)))
    return re.sub(r"(op\.conv2d = \{ out = )(\d+)", kept, text)


def estimate(hwsim, profile, network):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(network)
        file.flush()
        command = [hwsim, "estimate", "-p", profile, "-w", file.name, "--batch", "64", "--dtype", "tf32",
                   "--timing", "warm", "--framework", "eager", "--format", "json"]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return 1e3 * answer["total"]["latency_s"], answer["total"]["macs_dense"] / 64e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hwsim", default=ROOT / "target/release/hwsim")
    parser.add_argument("--profile", default="rtxa6000")
    parser.add_argument("--measured", default=ROOT / "../shared/reference/channel_pruning_resnet50_latency.csv")
    parser.add_argument("--out", default=ROOT / "results/gpu")
    args = parser.parse_args()
    lines = [line for line in open(args.measured) if not line.startswith("#")]
    measured = [(float(r["ratio"]), float(r["GMACs"]), float(r["latency_ms"])) for r in csv.DictReader(lines)]
    text = (ROOT / "workloads/resnet50.toml").read_text()
    rows = [(ratio, macs, ms, *estimate(args.hwsim, args.profile, shrunk(text, ratio))) for ratio, macs, ms in measured]
    # The GPU is not named: one factor for the whole curve, the one that centres the logarithms of the ratios.
    scale = math.exp(sum(math.log(ms / predicted) for _, _, ms, predicted, _ in rows) / len(rows))
    out = pathlib.Path(args.out)
    with open(out / "resnet50-channels.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["pruned", "measured_gmacs", "gmacs", "measured_ms", "predicted_ms", "scaled_ms"])
        for ratio, macs, ms, predicted, own in rows:
            writer.writerow([ratio, macs, f"{own:.2f}", ms, f"{predicted:.2f}", f"{predicted * scale:.2f}"])
    errors = [abs(predicted * scale / ms - 1) for _, _, ms, predicted, _ in rows]
    print(f"{args.profile}: factor {scale:.2f}, mean error {100 * sum(errors) / len(errors):.1f} %")
    for ratio, _, ms, predicted, own in rows:
        print(f"{ratio:.2f} {own:5.2f} GMACs  measured {ms:6.2f} ms  predicted {predicted * scale:6.2f} ms")
    try:
        import matplotlib
    except ImportError:
        print("no figure: matplotlib is not installed")
        return
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "hwsim"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    axes.plot([r[0] for r in rows], [r[2] for r in rows], "o-", color="black", label="measured (Torch-Pruning)")
    axes.plot([r[0] for r in rows], [r[3] * scale for r in rows], "s-", color="tab:blue",
              label=f"hwsim, {args.profile} × {scale:.2f}")
    dense = rows[0]
    axes.plot([r[0] for r in rows], [dense[2] * r[1] / dense[1] for r in rows], ":", color="grey", label="by MACs")
    axes.set(xlabel="channels removed", ylabel="ms, batch 64", ylim=(0, None), title="ResNet-50, channels not rounded")
    axes.legend()
    figure.tight_layout()
    figure.savefig(out / "resnet50-channels.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
