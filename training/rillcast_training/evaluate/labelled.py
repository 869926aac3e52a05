"""Labelled windows, the series that they are of, and the alarms of these series.

Owns: the form of a file of labels, that of the Numenta Anomaly Benchmark, and which alarm belongs to which series. Does
not know: how alarms are scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from rillcast.arrays import IntArray
from rillcast.errors import DataError
from rillcast_training.data.series import table
from rillcast_training.evaluate.alarm_scores import Labelled


class Opened(Protocol):
    """What scoring needs of an alarm record, as `rillcast.publishing.alarms.Alarm` has it."""

    @property
    def unique_id(self) -> str:
        """The stream."""
        ...

    @property
    def change(self) -> str:
        """`opened` or `closed`."""
        ...

    @property
    def ds(self) -> int:
        """Time of the event in milliseconds since the epoch."""
        ...

    @property
    def strength(self) -> float:
        """Return period of the evidence."""
        ...


def labelled(labels: Path, data: Sequence[Path], alarms: Sequence[Opened]) -> dict[str, Labelled]:
    """Return the labelled series by name, with the alarms that opened in them.

    Raises:
        DataError: The labels cannot be read, or name a series that the data lack.
    """
    windows, times = read_windows(labels), _times(data)
    if lacking := sorted(windows.keys() - times.keys()):
        missing = f"{len(lacking)} of {len(windows)} series are not in the data, such as {lacking[0]!r}"
        raise DataError(f"{labels}: {missing}; give all tables to --data")
    opened: dict[str, list[Opened]] = {name: [] for name in windows}
    for alarm in alarms:
        if alarm.change == "opened" and alarm.unique_id in opened:
            opened[alarm.unique_id].append(alarm)
    return {
        name: Labelled(
            times[name],
            spans,
            np.array([one.ds for one in opened[name]], np.int64),
            np.array([one.strength for one in opened[name]], np.float64),
        )
        for name, spans in windows.items()
    }


def read_windows(path: Path) -> Mapping[str, list[tuple[int, int]]]:
    """Return the first and last time of each window, by series, in milliseconds since the epoch.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        document = json.loads(path.read_text())
        return {name: [(milliseconds(a), milliseconds(b)) for a, b in spans] for name, spans in document.items()}
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f'{path}: expected labelled windows, {{"STREAM": [["FIRST", "LAST"], ...]}} with RFC 3339 times; {error}'
        ) from error


def _times(data: Sequence[Path]) -> dict[str, IntArray]:
    found: dict[str, IntArray] = {}
    for path in data:
        for key, part in table(path).group_by("unique_id"):
            found[str(key[0])] = np.sort(part["ds"].to_numpy().astype(np.int64))
    return found


def milliseconds(text: str) -> int:
    """Return an RFC 3339 time in UTC in milliseconds since the epoch."""
    return int(np.datetime64(text.removesuffix("Z"), "ms").astype(np.int64))
