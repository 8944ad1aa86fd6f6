#!/usr/bin/env python3
"""SCALE-Sim 3.0.0 and hwsim side by side: the same layers, the same answers, the time of each.

    python3 benches/scale_sim.py [--hwsim target/release/hwsim] [--python PYTHON] [-o results/systolic/scale_sim.csv]

Installs scalesim==3.0.0 (with numpy < 2.3) from PyPI into a temporary virtual environment, unless PYTHON already has it.
Each layer of a quarter-size ResNet-50, BERT and a few edge cases runs under every dataflow on its array. Exits with 1
where cycles, utilizations or SRAM counts differ.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import time

# kind, name, array, layer fields (conv: H W R S C K stride; gemm: M N K)
LAYERS = [
    ("conv", "resnet_conv1", (32, 32), (58, 58, 7, 7, 3, 64, 2)),
    ("conv", "resnet_3x3", (32, 32), (30, 30, 3, 3, 32, 32, 1)),
    ("conv", "resnet_1x1", (32, 32), (28, 28, 1, 1, 64, 128, 1)),
    ("conv", "resnet_stride2", (16, 16), (29, 29, 3, 3, 32, 64, 2)),
    ("conv", "resnet_late", (32, 32), (9, 9, 3, 3, 128, 128, 1)),
    ("conv", "alexnet_conv2", (12, 14), (17, 17, 5, 5, 12, 32, 1)),
    ("gemm", "bert_qkv", (32, 32), (64, 192, 192)),
    ("gemm", "bert_ffn", (32, 32), (64, 768, 192)),
    ("gemm", "decode", (32, 32), (1, 512, 512)),
    ("gemm", "square", (16, 16), (100, 100, 100)),
    ("gemm", "ragged", (8, 8), (33, 17, 129)),
]
CONFIG = """[general]
run_name = side_by_side
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {cols}
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth : 10
Dataflow : {dataflow}
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""
HEADER = {"conv": "Layer,H,W,R,S,C,K,stride,", "gemm": "Layer,M,N,K,"}
# Runs inside SCALE-Sim's Python: one layer, its report items and the seconds it took, as JSON on the last line.
DRIVER = """
import json, sys, time
from scalesim.scale_config import scale_config
from scalesim.topology_utils import topologies
from scalesim.layout_utils import layouts
from scalesim.single_layer_sim import single_layer_sim
config = scale_config(); config.read_conf_file(sys.argv[1])
topology = topologies(); topology.load_arrays(sys.argv[2], mnk_inputs=sys.argv[3] == "gemm")
start = time.perf_counter()
layer = single_layer_sim()
layer.set_params(layer_id=0, config_obj=config, topology_obj=topology, layout_obj=layouts(), verbose=False)
layer.run()
compute = layer.get_compute_report_items(); detail = layer.get_detail_report_items()
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "cycles": compute[1], "overall": compute[3], "mapping": compute[4], "compute": compute[5],
  "sram_inputs": detail[2], "sram_weights": detail[5], "sram_outputs": detail[8], "dram_inputs": detail[11], "dram_weights": detail[14]},
  default=float))
"""


def interpreter(given, folder):
    """A Python that has SCALE-Sim 3.0.0."""
    if given:
        return given
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "scalesim==3.0.0", "numpy<2.3"], check=True)
    return python


def flat(layer):
    return {
        "cycles": layer["cycles"],
        "overall": layer["overall_utilization"],
        "mapping": layer["mapping_efficiency"],
        "compute": layer["compute_utilization"],
        "sram_inputs": layer["sram_reads"]["inputs"],
        "sram_weights": layer["sram_reads"]["weights"],
        "sram_outputs": layer["sram_writes"]["outputs"],
        "dram_inputs": layer["dram_reads"]["inputs"],
        "dram_weights": layer["dram_reads"]["weights"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hwsim", default="target/release/hwsim")
    parser.add_argument("--python", help="an interpreter that has scalesim 3.0.0")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    arguments = parser.parse_args()
    rows, differ = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        python = interpreter(arguments.python, folder)
        driver = folder / "driver.py"
        driver.write_text(DRIVER)
        for kind, layer, (height, width), fields in LAYERS:
            for dataflow in ("os", "ws", "is"):
                config, topology = folder / "a.cfg", folder / f"{layer}.csv"
                config.write_text(CONFIG.format(rows=height, cols=width, dataflow=dataflow))
                topology.write_text(f"{HEADER[kind]}\n{layer},{','.join(map(str, fields))},\n")
                out = subprocess.run([python, driver, config, topology, kind], capture_output=True, text=True, check=True).stdout
                theirs = json.loads(out.splitlines()[-1])
                told = subprocess.run([arguments.hwsim, "import", "scale-sim", config, topology, "-o", folder], capture_output=True, text=True, check=True)
                profile, network = told.stdout.splitlines()[:2]
                start = time.perf_counter()
                answer = subprocess.run([arguments.hwsim, "estimate", "--profile", profile, "--workload", network, "--format", "json"], capture_output=True, text=True, check=True)
                seconds = time.perf_counter() - start
                ours = flat(json.loads(answer.stdout)["layers"][0])
                same = all(abs(ours[k] - theirs[k]) <= 1e-9 * max(1, abs(theirs[k])) for k in ours)
                differ += not same
                rows.append({"layer": layer, "dataflow": dataflow, "array": f"{height}x{width}", "cycles": theirs["cycles"], "equal": same,
                             "scale_sim_s": round(theirs["seconds"], 4), "hwsim_process_s": round(seconds, 4)})
                print(f"{layer:16} {dataflow} {height}x{width}: {theirs['cycles']:>9} cycles, SCALE-Sim {theirs['seconds']:8.3f} s, "
                      f"hwsim {seconds * 1e3:6.1f} ms with its start, {'equal' if same else f'DIFFERENT {ours} {theirs}'}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with arguments.output.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    theirs, ours = sum(r["scale_sim_s"] for r in rows), sum(r["hwsim_process_s"] for r in rows)
    print(f"{len(rows)} runs, {differ} differ; SCALE-Sim {theirs:.1f} s, hwsim {ours:.2f} s (processes started included)")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
