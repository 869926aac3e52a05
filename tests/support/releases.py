"""Files that earlier releases wrote, from tests/fixtures.

Owns: their paths and forms, and how forecasts are compared. Does not know: the code under test.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from rillcast.codecs.forecasts.reader import Forecast, decode_forecast
from tests.support.paths import ROOT

V0_1_0: Final = ROOT / "tests" / "fixtures" / "v0.1.0"
STATE: Final = ROOT / "tests" / "fixtures" / "state"  # a folder for each form of stored state that came since
SETTINGS: Final = ROOT / "tests" / "fixtures" / "settings"  # a file and what it meant, by the commit that wrote it


@dataclass(frozen=True, slots=True)
class Stored:
    """A record of a topic."""

    partition: int
    key: bytes | None
    value: bytes | None


def lines(name: str, folder: Path = V0_1_0) -> list[dict[str, Any]]:
    """Return the rows of a compressed file of JSON Lines."""
    return [json.loads(line) for line in gzip.decompress((folder / name).read_bytes()).splitlines()]


def records(name: str) -> list[Stored]:
    """Return the records of a topic, in the order of their partitions and offsets."""

    def decoded(text: str | None) -> bytes | None:
        return None if text is None else b64decode(text)

    return [Stored(row["partition"], decoded(row["key"]), decoded(row["value"])) for row in lines(name)]


def forecasts(name: str) -> list[Forecast]:
    """Return the forecasts that the release published of the events after the stop."""
    return [decode_forecast(record.value or b"", record.key) for record in records(f"forecasts-{name}.jsonl.gz")]


def model() -> Path:
    """Return the release's bundle."""
    (path,) = (V0_1_0 / "registry" / "blobs").iterdir()
    return path


def committed(folder: Path = V0_1_0) -> dict[int, int]:
    """Return the positions that the release had committed when it was stopped."""
    document = json.loads((folder / "committed.json").read_text())
    return {int(partition): position for partition, position in document.items()}


def assert_same_forecasts(seen: Iterable[Forecast], expected: Iterable[Forecast]) -> None:
    """Compare the forecasts of the same events and revisions; the order between partitions does not matter."""
    by_event = {_identity(forecast): forecast for forecast in seen}
    wanted = {_identity(forecast): forecast for forecast in expected}
    assert wanted, "there is nothing to compare"
    assert by_event.keys() == wanted.keys()
    for identity, want in wanted.items():
        have = by_event[identity]
        assert (have.status, have.freq, have.quantiles) == (want.status, want.freq, want.quantiles), identity
        assert have.model.endswith(want.model) or want.model.endswith(have.model), identity
        np.testing.assert_allclose(have.values, want.values, rtol=1e-5, err_msg=str(identity))
        np.testing.assert_allclose(have.anomaly, want.anomaly, rtol=1e-4, atol=1e-6, err_msg=str(identity))


def _identity(forecast: Forecast) -> tuple[object, ...]:
    return forecast.partition, forecast.offset, forecast.unique_id, forecast.ds, forecast.revision
