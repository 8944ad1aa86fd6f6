#!/usr/bin/env python3
"""Fetches the digits of scikit-learn (1,797 images of 8×8, from the UCI test set) as CSV or NPZ for `hwsim train`.

The data travels inside scikit-learn's Python package: an installed one is used, else pip fetches its wheel, so pip's
configuration decides where it comes from. The CSV's last column is the class; the NPZ (needs numpy) has the arrays x
[1797, 64] and y [1797].

usage: scripts/fetch_digits.py [digits.csv | digits.npz]
"""

import argparse
import gzip
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MEMBER = "sklearn/datasets/data/digits.csv.gz"


def packed():
    """The compressed file, from the installed package or from a wheel."""
    found = importlib.util.find_spec("sklearn")
    if found and found.submodule_search_locations:
        path = Path(found.submodule_search_locations[0]).parent / MEMBER
        if path.exists():
            return path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        run = subprocess.run([*command, "--dest", folder, "scikit-learn"], capture_output=True, text=True)
        wheels = sorted(Path(folder).glob("*.whl"))
        if run.returncode != 0 or not wheels:
            sys.exit(f"scikit-learn cannot be fetched: {(run.stderr.strip().splitlines() or ['no wheel'])[-1]}")
        return zipfile.ZipFile(wheels[0]).read(MEMBER)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("output", nargs="?", type=Path, default=Path("digits.csv"))
    output = args.parse_args().output
    rows = [[int(float(v)) for v in line.split(",")] for line in gzip.decompress(packed()).decode().split()]
    if len(rows) != 1797 or any(len(row) != 65 for row in rows):
        sys.exit("the package's digits are not the 1,797 rows of 64 pixels and a class that they were")
    if output.suffix == ".npz":
        import numpy

        table = numpy.array(rows, dtype=numpy.float32)
        numpy.savez_compressed(output, x=table[:, :64], y=table[:, 64])
    else:
        output.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    print(f"wrote {output}: {len(rows)} examples")


if __name__ == "__main__":
    main()
