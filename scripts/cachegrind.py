#!/usr/bin/env python3
"""Compares `hwsim simulate` with cachegrind on the real kernels' plain code: misses of D1 and LL.

Needs Python 3, valgrind and a Rust toolchain; run it at the root of the repository:

    cargo build --release --bin hwsim --example run_kernel && python3 scripts/cachegrind.py -o results/cpu/cachegrind.csv

Cachegrind counts a whole process, so each case runs twice, with one product and with two, and the difference is one
product: set-up, packing and process start cancel. An optimised build without checks is meant: with them the kernels'
frames are larger. A sweep over an array of four times LL before each product (equally
many in both runs) empties the caches, which is what the simulator begins with.
"""
import argparse, csv, json, pathlib, re, subprocess, tempfile

# kernel, MxNxK, pattern, isa, D1 and LL as (bytes, ways); lines of 64 bytes.
SMALL, XEON, ZEN, MOBILE = ((16384, 4), (131072, 8)), ((32768, 8), (1048576, 16)), ((49152, 12), (1048576, 16)), ((32768, 4), (262144, 8))
CASES = [
    ("csr", "64x256x512", "unstructured@0.9", "portable", SMALL),
    ("csr", "128x512x512", "unstructured@0.7", "portable", ((32768, 8), (524288, 8))),
    ("csr", "100x384x700", "unstructured@0.95", "portable", MOBILE),
    ("csr", "1x1024x1024", "unstructured@0.8", "portable", MOBILE),
    ("csr", "96x512x640", "unstructured@0.5", "avx2", SMALL),
    ("bsr", "64x512x512", "block:16x16@0.8", "portable", XEON),
    ("bsr", "192x512x384", "block:8x1@0.9", "portable", SMALL),
    ("bsr", "60x500x600", "block:4x4@0.7", "portable", ZEN),
    ("bsr", "128x512x1024", "block:32x32@0.5", "avx2", MOBILE),
    ("bsr", "1x1024x1024", "block:16x16@0.5", "portable", SMALL),
]
# Between two panels it touches 1016 KiB of an LL of 1 MiB, 99 %: which sets overflow depends on where arrays happen to lie.
EDGE = [("csr", "128x512x512", "unstructured@0.7", "portable", XEON)]
SEED = 7


def cachegrind(binary, case, runs):
    kernel, gemm, pattern, isa, (d1, ll) = case
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "counts"
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=yes", f"--cachegrind-out-file={out}",
                   "--I1=32768,8,64", f"--D1={d1[0]},{d1[1]},64", f"--LL={ll[0]},{ll[1]},64",
                   binary, kernel, gemm, pattern, str(SEED), str(runs), str(4 * ll[0]), isa]
        subprocess.run(command, check=True, capture_output=True)
        text = out.read_text()
    events = re.search(r"^events: (.*)$", text, re.M)[1].split()
    summary = dict(zip(events, map(int, re.search(r"^summary: (.*)$", text, re.M)[1].split())))
    return summary["D1mr"] + summary["D1mw"], summary["DLmr"] + summary["DLmw"]


def simulate(hwsim, case):
    kernel, gemm, pattern, isa, caches = case
    levels = ",\n".join(f'{{ level = "L{i + 1}", size = "{size} B", line = "64 B", ways = {ways}, bandwidth = "64 B/cy" }}'
                        for i, (size, ways) in enumerate(caches))
    profile = f'name = "two levels"\nclock = "1 GHz"\n[memory]\nbandwidth = "10 GB/s"\n[device.cpu]\ncores = 1\n' \
              f'macs = {{ fp32 = "16 MAC/cy" }}\ncache = [\n{levels}\n]\n'
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(profile)
        file.flush()
        answer = subprocess.run([hwsim, "simulate", "--profile", file.name, "--gemm", gemm, "-s", pattern, "--seed", str(SEED),
                                 "--kernel", kernel, "--isa", isa, "--format", "json"], check=True, capture_output=True)
    return [level["misses"] for level in json.loads(answer.stdout)["levels"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="target/release", help="folder of hwsim and examples/run_kernel, as target/debug")
    parser.add_argument("-o", "--output", help="CSV; stdout without it")
    args = parser.parse_args()
    version = subprocess.run(["valgrind", "--version"], check=True, capture_output=True, text=True).stdout.strip()
    rows, worst = [], 0.0
    for case in CASES + EDGE:
        kernel, gemm, pattern, isa, (d1, ll) = case
        one, two = (cachegrind(f"{args.target}/examples/run_kernel", case, runs) for runs in (1, 2))
        truth = [b - a for a, b in zip(one, two)]
        ours = simulate(f"{args.target}/hwsim", case)
        errors = [100 * (o / t - 1) for o, t in zip(ours, truth)]
        if case in CASES:
            worst = max(worst, *map(abs, errors))
        rows.append([kernel, gemm, pattern, isa, SEED, f"{d1[0]}/{d1[1]}", f"{ll[0]}/{ll[1]}", truth[0], ours[0], f"{errors[0]:.2f}",
                     truth[1], ours[1], f"{errors[1]:.2f}", version,
                     "counted" if case in CASES else "edge of LL"])
        print(*rows[-1], flush=True)
    header = ["kernel", "gemm", "pattern", "isa", "seed", "d1_bytes_ways", "ll_bytes_ways", "d1_misses_cachegrind", "d1_misses_hwsim",
              "d1_error_percent", "ll_misses_cachegrind", "ll_misses_hwsim", "ll_error_percent", "valgrind", "case"]
    if args.output:
        pathlib.Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        with open(args.output, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
    print(f"worst error {worst:.2f} %")
    return worst > 3.0


if __name__ == "__main__":
    raise SystemExit(main())
