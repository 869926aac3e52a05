"""The table of streams: static covariates and categories for events without them (`input.streams_path`).

The service reads the file once, at its start, and a replay uses the file as it is then. So a value that changes belongs
in the events.

Owns: how the file is read.
Does not know: the forms of a value (`rillcast.reading`), the meaning of the values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rillcast.bundle.covariates import Covariate
from rillcast.codecs.observations.covariates import reader_of
from rillcast.errors import DataError, SettingsError
from rillcast.reading import files
from rillcast.reading.files import TextForm, UnreadableError
from rillcast.reading.refusals import RefusedValueError, listed
from rillcast.reading.values import read_id

Table = dict[str, dict[str, float | str | None]]
_ID: Final = "unique_id"


def read(path: Path, covariates: Sequence[Covariate], form: TextForm | None = None) -> Table:
    """Read a `.csv`, `.jsonl` or `.parquet` file with a column `unique_id` and a column for each covariate.

    Raises:
        DataError: The file cannot be read, lacks such columns, names a stream twice, or has text for a number.
        SettingsError: The bundle has no covariate that a table may bring, or Parquet cannot be read here.
    """
    wanted = {one.name: reader_of(one) for one in covariates if one.of_the_stream}
    if not wanted:
        raise SettingsError("input.streams_path is set, but the model takes no static covariate and no category")
    table: Table = {}
    try:
        for place, row in _rows(path, form or TextForm()):
            if _ID not in row or not wanted.keys() & row.keys():
                raise DataError(
                    f"{path}: found columns {listed(sorted(row))}, expected unique_id and some of {sorted(wanted)}"
                )
            column = _ID
            try:
                unique_id = read_id(row[_ID])
                values = {}
                for column, read_value in wanted.items():
                    values[column] = read_value(row.get(column))
            except RefusedValueError as error:
                raise DataError(f"{path}, {place}: column {column!r}: {error.detail}") from error
            if unique_id in table:
                raise DataError(f"{path}, {place}: stream {unique_id!r} appears twice")
            table[unique_id] = values
    except OSError as error:
        raise DataError(f"input.streams_path {path}: {error.strerror or error}") from error
    except (msgspec.MsgspecError, UnicodeError, EOFError, UnreadableError) as error:
        raise DataError(f"input.streams_path {path} cannot be read: {error}") from error
    return table


def _rows(path: Path, form: TextForm) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where a row stands, and its cells by column."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".csv"):
        with files.open_bytes(path) as stream:
            rows = files.CsvRows(stream, form)
            for line, cells, fault in rows:
                if fault:
                    raise DataError(f"{path}, line {line}: {fault}")
                yield f"line {line}", dict(zip(rows.header, cells, strict=True))
    elif name.endswith((".jsonl", ".ndjson")):
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        with files.open_bytes(path) as stream:
            for line, record in files.lines(stream, form.encoding):
                yield f"line {line}", decode(record)
    elif name.endswith(".parquet"):
        try:
            import polars
        except ImportError as error:
            raise SettingsError("Parquet needs polars: install the extra rillcast[parquet]") from error
        for number, row in enumerate(polars.read_parquet(path).iter_rows(named=True), start=1):
            yield f"row {number}", row
    else:
        raise DataError(f"input.streams_path {path}: unknown format, expected .csv, .jsonl or .parquet")
