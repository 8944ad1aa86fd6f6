#!/usr/bin/env bash
# Measures this machine, fits it, and judges the fit on shapes, sparsities and block sizes that it did not see:
#   results/cpu/fidelity.sh FOLDER [--no-bench]
# A quarter of an hour on an otherwise idle machine, up to an hour on a busy one; FOLDER, one a machine, receives everything.
set -euo pipefail
hwsim=$(realpath "${HWSIM:-$(dirname "$0")/../../target/release/hwsim}")
mkdir -p "$1"
cd "$1"
shapes=()
for nk in 448x896 1280x640 2304x384 160x4000 1920x1920 72x1200; do
    for m in 1 32 80 160 500; do shapes+=(--gemm "${m}x$nk"); done
done
patterns=()
for pattern in unstructured@0.55 unstructured@0.72 unstructured@0.88 unstructured@0.94 unstructured@0.98 block:8x1@0.6 \
    block:8x4@0.7 block:4x2@0.8 block:16x8@0.75 block:24x1@0.85 block:12x12@0.8 block:32x64@0.7 2:4 1:8 2:6 32:2:4 \
    row@0.6 column@0.4; do
    patterns+=(-s "$pattern")
done
if [ "${2:-}" != --no-bench ]; then
    "$hwsim" bench --suite full -o fitted.csv
    "$hwsim" bench "${shapes[@]}" "${patterns[@]}" -o held_out.csv
fi
rm -f host.calib.toml
"$hwsim" calibrate -m fitted.csv -p fitted.profile.toml -o host.calib.toml
"$hwsim" validate -m held_out.csv -p fitted.profile.toml -o uncalibrated.txt
"$hwsim" validate -m held_out.csv -p fitted.profile.toml --calibration host.calib.toml --plot held_out.svg -o held_out.txt
"$hwsim" validate -m fitted.csv -p fitted.profile.toml --calibration host.calib.toml -o fitted.txt
tail -n 4 uncalibrated.txt held_out.txt fitted.txt
