"""The table of streams: static covariates and categories for events without them (`input.streams_path`).

The service reads the file once, at its start, and a replay uses the file as it is then. So a value that changes belongs
in the events.

Owns: how the file is read.
Does not know: the meaning of the values.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rillcast.bundle.covariates import Covariate
from rillcast.errors import DataError, SettingsError

Table = dict[str, dict[str, float | str | None]]


def read(path: Path, covariates: Sequence[Covariate]) -> Table:
    """Read a `.csv`, `.jsonl` or `.parquet` file with a column `unique_id` and a column for each covariate.

    Raises:
        DataError: The file cannot be read, lacks such columns, names a stream twice, or has text for a number.
        SettingsError: The bundle has no covariate that a table may bring, or Parquet cannot be read here.
    """
    wanted = {one.name: one for one in covariates if one.of_the_stream}
    if not wanted:
        raise SettingsError("input.streams_path is set, but the model takes no static covariate and no category")
    table: Table = {}
    try:
        for number, row in enumerate(_rows(path), start=1):
            unique_id = row.get("unique_id")
            if unique_id is None or not wanted.keys() & row.keys():
                raise DataError(f"{path}: found columns {sorted(row)}, expected unique_id and some of {sorted(wanted)}")
            if str(unique_id) in table:
                raise DataError(f"{path}, row {number}: stream {unique_id!r} appears twice")
            table[str(unique_id)] = {name: _value(path, number, row.get(name), one) for name, one in wanted.items()}
    except OSError as error:
        raise DataError(f"input.streams_path {path}: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, csv.Error, AttributeError) as error:
        raise DataError(f"input.streams_path {path} cannot be read: {error}") from error
    return table


def _rows(path: Path) -> Iterable[Mapping[str, Any]]:
    name = path.name.lower()
    if name.endswith(".csv"):
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    elif name.endswith((".jsonl", ".ndjson")):
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        with path.open("rb") as file:
            yield from (decode(line) for line in file if line.strip())
    elif name.endswith(".parquet"):
        try:
            import polars
        except ImportError as error:
            raise SettingsError("Parquet needs polars: install the extra rillcast[parquet]") from error
        yield from polars.read_parquet(path).iter_rows(named=True)
    else:
        raise DataError(f"input.streams_path {path}: unknown format, expected .csv, .jsonl or .parquet")


def _value(path: Path, row: int, value: Any, covariate: Covariate) -> float | str | None:
    if value is None or value == "":
        return None
    if covariate.kind == "category":
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}, row {row}: {covariate.name} is {value!r}, expected a number") from error
    return number if math.isfinite(number) else None
