#!/usr/bin/env python3
"""Reads a CSV of hwsim with pandas, writes it, reads it again: every value must stay.

python3 scripts/check_csv.py FILE.csv…     (needs pandas)
"""

import csv
import io
import sys
import warnings

import pandas


def read(source):
    options = {"keep_default_na": False, "na_values": [""]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Before pandas 3 its fast parser rounds the last digit wrong.
            return pandas.read_csv(source, float_precision="round_trip", **options)
        except (TypeError, ValueError):
            return pandas.read_csv(source, **options)


def main():
    for path in sys.argv[1:]:
        frame = read(path)
        again = io.StringIO(frame.to_csv(index=False))
        pandas.testing.assert_frame_equal(frame, read(again), check_exact=True)
        rows = list(csv.DictReader(open(path, newline="")))
        assert len(rows) == len(frame), path
        cells = 0
        for column in frame.columns:
            numbers = pandas.api.types.is_numeric_dtype(frame[column]) and frame[column].dtype != bool
            for text, value in zip((row[column] for row in rows), frame[column]):
                if text == "":
                    assert pandas.isna(value), (path, column)
                elif numbers:
                    assert float(text) == float(value), (path, column, text, value)
                else:
                    assert text.lower() == str(value).lower(), (path, column, text, value)
                cells += 1
        print(f"{path}: {len(frame)} rows, {len(frame.columns)} columns, {cells} cells keep their values")


if __name__ == "__main__":
    main()
