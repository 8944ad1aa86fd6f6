#!/usr/bin/env python3
"""Proves pruned networks with onnxruntime, which knows nothing of hwsim.

Two questions, over the public models (scripts/fetch_models.py) and over the graphs of the onnx package, whose generated
weights are replaced by random ones (He et al. 2015, so that activations keep their scale):

  masks   every model with weights, pruned to 2:4, unstructured@0.8, block:16x1@0.5 and channel@0.25, loads and runs;
          N:M holds in every group; the file shrinks with what was removed                      -> masks.csv
  groups  for every dependency group of a model: half of its units zeroed in place, and the same units removed;
          both run on the same inputs, and the outputs are equal within 1e-5 of their largest   -> groups.csv
          `effect` is by how much these units change the unpruned network's outputs: equality with none proves nothing
          (within four times what two ways of running the zeroed network differ by, where fp32 itself is no better)

Needs: onnx onnxruntime numpy. Without them, or without models, it says so and exits with 0.

usage: scripts/oracle.py [--hwsim target/release/hwsim] [--models models] [-o results/prune] [--only NAME] [--quick]
"""

import argparse
import csv
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MASKS = ["2:4", "unstructured@0.8", "block:16x1@0.5", "channel@0.25"]
TOLERANCE = 1e-5
# Their weights alone are half a gigabyte; squeezenet, alexnet and inception ask the same of the code.
LARGE = {"light_vgg19", "light_zfnet512"}

try:
    import numpy as np
    import onnx
    import onnxruntime as ort
    from onnx import numpy_helper
except ImportError as missing:
    print(f"skipped: {missing}; pip install onnx onnxruntime numpy")
    sys.exit(0)

SIZES = {"batch": 1, "N": 1, "M1": 64, "M2": 64, "time": 64, "sequence_length": 16, "image_width": 160, "samples": 16000}


def label(path):
    """Package and file; several packages call theirs `model`."""
    name = path.name.removesuffix(".onnx").removesuffix(".stored")
    return name if path.parent.name.startswith("tmp") else f"{path.parent.name}/{name}"


def session(path, plain=False):
    options = ort.SessionOptions()
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs(run, stated, seed):
    """Random inputs; integers are tokens or flags, and a few scalars need a value that means something."""
    rng = np.random.default_rng(seed)
    special = {"sr": 16000, "fmin": 46.875, "fmax": 2093.75}
    made = {}
    for i in run.get_inputs():
        kind = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float16)": np.float16,
                "tensor(double)": np.float64, "tensor(uint8)": np.uint8}.get(i.type, np.float32)
        if i.name in special:
            made[i.name] = np.array(special[i.name], dtype=kind)
            continue
        shape = stated.get(i.name) or [d if isinstance(d, int) and d > 0 else SIZES.get(d, 1) for d in i.shape]
        if kind in (np.int64, np.int32, np.uint8):
            made[i.name] = np.ones(shape, kind) if "mask" in i.name else rng.integers(0, 100, shape).astype(kind)
        else:
            made[i.name] = rng.standard_normal(shape).astype(kind)
    return made


def materialize(path, to, seed=1):
    """The graph with stored random weights where it generates constants."""
    model = onnx.load(path)
    rng = np.random.default_rng(seed)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept, made = [], []
    use = {}
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            use.setdefault(name, (node, i))
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape" or node.input[0] not in stored:
            kept.append(node)
            continue
        shape = [int(d) for d in stored[node.input[0]]]
        reader, place = use[node.output[0]]
        while reader.op_type in ("Unsqueeze", "Reshape"):
            reader, place = use[reader.output[0]]
        if reader.op_type == "BatchNormalization":
            values = rng.uniform(0.5, 1.5, shape) if place in (1, 4) else rng.normal(0, 0.1, shape)
        elif math.prod(shape[1:]) == 1 and reader.op_type == "Mul":
            values = rng.uniform(0.5, 1.5, shape)
        elif math.prod(shape[1:]) > 1:
            fan = math.prod(shape[1:]) if reader.op_type != "MatMul" else shape[0]
            values = rng.normal(0, math.sqrt(2 / fan), shape)
        else:
            values = rng.normal(0, 0.1, shape)
        made.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    # A softmax over random logits saturates and hides differences: the logits are the answer.
    last = kept[-1]
    if last.op_type == "Softmax" and last.output[0] == model.graph.output[0].name:
        kept.pop()
        model.graph.output[0].name = last.input[0]
        model.graph.output[0].type.tensor_type.ClearField("shape")
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(made)
    if model.ir_version < 4:
        model.ir_version = 4
    onnx.save(model, to)


class Prune:
    def __init__(self, binary):
        self.binary = binary

    def __call__(self, model, rules, to, *more):
        command = [str(self.binary), "prune", "--workload", str(model), "-o", str(to), "--format", "json", *more]
        for rule in rules:
            command += ["-s", rule]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or ["no message"]
            raise RuntimeError(lines[-1])
        return json.loads(run.stdout)


def tensors(graph, found):
    for t in graph.initializer:
        found[t.name] = t
    for node in graph.node:
        for a in node.attribute:
            if node.op_type == "Constant" and a.name == "value":
                found[node.output[0]] = a.t
            if a.type == onnx.AttributeProto.GRAPH:
                tensors(a.g, found)
    return found


def readers(graph, found):
    for node in graph.node:
        for i, name in enumerate(node.input):
            found.setdefault(name, (node, i))
        for a in node.attribute:
            if a.type == onnx.AttributeProto.GRAPH:
                readers(a.g, found)
    return found


def matrix(name, array, reads):
    """Outputs by inputs, from the operator that reads the tensor (through a transpose, a cast or a scale)."""
    flip = False
    node, place = reads[name]
    while node.op_type in ("Transpose", "Cast", "DequantizeLinear", "Identity"):
        flip ^= node.op_type == "Transpose"
        node, place = reads[node.output[0]]
    attribute = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    kind = node.op_type
    if kind in ("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"):
        flip = not flip
    if kind == "Gemm" and not attribute.get("transB", 0):
        flip = not flip
    if kind == "ConvTranspose":
        groups = attribute.get("group", 1)
        a = array.reshape(groups, array.shape[0] // groups, -1)
        return [m.T for m in a]
    if kind == "DynamicQuantizeLSTM":
        return [m.T for m in array]
    if kind in ("LSTM", "GRU", "RNN"):
        return [array.reshape(-1, array.shape[-1])]
    if array.ndim > 2 and kind.endswith("MatMul"):
        array = array.reshape(array.shape[-2:])
    a = array.reshape(array.shape[0], -1)
    return [a.T if flip else a]


def holds(report, model, n, m):
    """Whether every aligned group of m inputs of every edited tensor has at most n that are no zero; and how many groups."""
    graph = onnx.load(model).graph
    found, reads = tensors(graph, {}), readers(graph, {})
    groups = 0
    for row in report["tensors"]:
        array = numpy_helper.to_array(found[row["tensor"]])
        if array.dtype in (np.uint8, np.int8):
            continue  # zero is whatever the zero point says; its own count is in the report
        for a in matrix(row["tensor"], array, reads):
            pad = -a.shape[1] % m
            a = np.pad(a, ((0, 0), (0, pad))).reshape(a.shape[0], -1, m)
            if (np.count_nonzero(a, axis=2) > n).any():
                return False, row["tensor"]
            groups += a.shape[0] * a.shape[1]
    return True, groups


def equal(a, b):
    """Largest difference of all outputs, as a part of the largest value there (and 0.1, so that 1e-6 is always equal)."""
    worst = 0.0
    for x, y in zip(a, b):
        if x.shape != y.shape:
            return math.inf
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if not x.size:
            continue
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return math.nan
        worst = max(worst, float(np.abs(x - y).max() / (0.1 + np.abs(x).max())))
    return worst


def shapes(listing):
    """Input shapes that the list of models states, by file name."""
    known = {}
    if listing.exists():
        with listing.open(newline="") as table:
            for row in csv.DictReader(table):
                known[row["file"].rsplit("/", 1)[-1]] = json.loads(row["macs_input_shape"] or "{}")
    return known


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as table:
        writer = csv.DictWriter(table, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")


def masks(prune, models, known, folder):
    rows = []
    for path in models:
        stated = known.get(path.name, {})
        for pattern in MASKS:
            to = folder / "masked.onnx"
            row = {"model": label(path), "pattern": pattern, "loads_and_runs": False, "nm_exact": "", "tensors": 0,
                   "groups": 0, "zeros": 0, "params_before": 0, "params": 0, "bytes_before": path.stat().st_size,
                   "bytes": 0, "note": ""}
            rows.append(row)
            try:
                report = prune(path, [pattern], to)
                total = report["total"]
                row |= {"tensors": len(report["tensors"]), "groups": len(report["groups"]), "zeros": total["zeros"],
                        "params_before": total["params_before"], "params": total["params"], "bytes": to.stat().st_size}
                run = session(to)
                feed = inputs(run, stated, 0)
                before = session(path).run(None, feed)
                after = run.run(None, feed)
                row["loads_and_runs"] = all(a.shape == b.shape for a, b in zip(before, after))
                if pattern == "2:4":
                    good, what = holds(report, to, 2, 4)
                    row["nm_exact"], row["note"] = good, "" if good else what
                if pattern.startswith("channel") and row["groups"]:
                    # What goes are fp32 (or narrower) elements: the file must lose at least half of their bytes.
                    lost = total["params_before"] - total["params"]
                    if row["bytes_before"] - row["bytes"] < 0.5 * lost:
                        row["note"] = "the file did not shrink with its weights"
                if pattern.startswith("channel") and not row["groups"]:
                    row["note"] = "no group that can lose channels"
            except Exception as e:  # every failure is a row
                row["note"] = " ".join(str(e).split())[:200]
            print(f"{path.stem:38} {pattern:18} {'ok' if row['loads_and_runs'] else 'FAILED'} {row['note']}", flush=True)
    bad = [r for r in rows if not r["loads_and_runs"] or r["nm_exact"] is False or "did not" in r["note"]]
    return rows, bad


def groups(prune, binary, models, known, folder, quick):
    rows = []
    for path in models:
        run = subprocess.run([str(binary), "inspect", str(path), "--format", "json"], capture_output=True, text=True)
        if run.returncode:
            continue
        listed = json.loads(run.stdout)["groups"]
        if not listed:
            continue
        stated = known.get(path.name.removesuffix(".stored.onnx") + ".onnx", known.get(path.name, {}))
        feed = inputs(session(path), stated, 0)
        dense = session(path).run(None, feed)
        asked = [[f"{p}={kind}@0.5" for p in [names[0]]] for names in listed for kind in ["channel", "head"]]
        if quick:
            asked = [["channel@0.5"], ["head@0.5"]]
        count = {"equal": 0, "statistic": 0, "refused": 0, "differs": 0}
        worst = 0.0
        seen = set()
        for rules in asked:
            row = {"model": label(path), "rule": " ".join(rules), "units": "", "unit": "", "effect": "", "difference": "",
                   "rounding": "",
                   "outcome": ""}
            try:
                report = prune(path, rules, folder / "zeroed.onnx", "--keep-shapes")
                if not report["groups"]:
                    continue
                key = json.dumps(report["groups"])
                if key in seen:
                    continue
                seen.add(key)
                removed = prune(path, rules, folder / "removed.onnx")
                if not removed["groups"]:
                    row |= {"outcome": "refused", "rule": removed["untouched"][0]["reason"][:160]}
                    count["refused"] += 1
                    rows.append(row)
                    continue
                went = removed["groups"]
                row |= {"unit": went[0]["unit"], "units": sum(g["before"] - g["kept"] for g in went)}
                b = session(folder / "removed.onnx").run(None, feed)
                if any(g["statistic"] for g in went):
                    # A network without channels that a norm averages over is valid, and not the one with zeros there.
                    row["outcome"] = "statistic"
                elif len(went) != len(report["groups"]):
                    row["outcome"] = "refused"
                else:
                    a = session(folder / "zeroed.onnx").run(None, feed)
                    difference = equal(a, b)
                    # What the units do to the answer: where it is nothing, equality proves nothing.
                    row["effect"] = f"{equal(dense, a):.2e}"
                    worst = max(worst, difference)
                    row["difference"] = f"{difference:.2e}"
                    limit = TOLERANCE
                    if not difference <= TOLERANCE:
                        # The order of fp32 sums differs; how much that alone does, the same network says unfused.
                        rounding = equal(a, session(folder / "zeroed.onnx", plain=True).run(None, feed))
                        row["rounding"] = f"{rounding:.2e}"
                        limit = max(limit, 4 * rounding)
                    row["outcome"] = "equal" if difference <= limit else "differs"
            except Exception as e:
                text = " ".join(str(e).split())
                # The rule named a unit that the layer does not make; the other kind is asked next.
                if "ask for head@s" in text or "ask for channel@s" in text:
                    continue
                expected = text.startswith("error: channel") or text.startswith("error: head")
                row |= {"outcome": "refused" if expected else "differs", "rule": f"{rules[0]}: {text[:160]}"}
            count[row["outcome"]] += 1
            rows.append(row)
        print(f"{path.stem:38} {len(listed)} groups: {count}, worst {worst:.1e}", flush=True)
    return rows, [r for r in rows if r["outcome"] == "differs"]


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--hwsim", type=Path, default=ROOT / "target" / "release" / "hwsim")
    args.add_argument("--models", type=Path, default=ROOT / "models")
    args.add_argument("-o", "--output", type=Path, help="folder for masks.csv and groups.csv")
    args.add_argument("--only", help="models whose name contains this")
    args.add_argument("--quick", action="store_true", help="all groups of a model at once instead of one by one")
    args.add_argument("--skip", choices=["masks", "groups"], help="leave one question out")
    args = args.parse_args()
    if not args.hwsim.exists():
        sys.exit(f"{args.hwsim}: no such binary; build it, or name one with --hwsim")
    models = sorted(p for p in args.models.glob("**/*.onnx") if not args.only or args.only in p.name)
    if not models:
        print(f"skipped: no models in {args.models}; scripts/fetch_models.py fetches them")
        return
    prune = Prune(args.hwsim)
    shared = Path(os.environ.get("HWSIM_SHARED", ROOT.parent / "shared"))
    known = shapes(shared / "reference" / "onnx_models.csv")
    bad = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real = [p for p in models if not p.stem.startswith("light_")]
        light = []
        for p in models:
            if p.stem.startswith("light_") and p.stem not in LARGE:
                to = folder / f"{p.stem}.stored.onnx"
                materialize(p, to)
                light.append(to)
        if args.skip != "masks" and real:
            rows, wrong = masks(prune, real, known, folder)
            bad += wrong
            if args.output:
                write(args.output / "masks.csv", rows)
        if args.skip != "groups":
            rows, wrong = groups(prune, args.hwsim, real + light, known, folder, args.quick)
            bad += wrong
            if args.output and rows:
                write(args.output / "groups.csv", rows)
    for row in bad:
        print(f"FAILED {row}", file=sys.stderr)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
