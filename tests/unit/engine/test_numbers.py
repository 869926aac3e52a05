"""The table 'Numbers' of docs/data.md, with the shipped hourly model. `-s` prints the figures."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rillcast import Bundle, Device, EventBatch, StepEngine
from rillcast.arrays import FloatArray
from tests.support.paths import ROOT
from tests.support.toy import HOUR_MS

EVENTS, AHEAD = 400, 24
LEVELS = (0.0, 1e2, 1e3, 1e4, 1e5, 3e5, 1e6, 1e7)
UNITS = (1e-15, 1e12)


@pytest.fixture(scope="module")
def forecasts() -> dict[str, FloatArray]:
    """The middle quantiles after every event, `[events, AHEAD]`, in the unit and above the level of the stream."""
    y = wave()
    streams = {f"level {level:g}": (level, 1.0) for level in LEVELS} | {f"unit {u:g}": (0.0, u) for u in UNITS}
    streams["unit 1e-30"] = (0.0, 1e-30)
    engine, found = StepEngine(Bundle.load("universal:1h"), Device("cpu")), []
    levels, units = (np.array(column) for column in zip(*streams.values(), strict=True))
    for at, value in enumerate(y):
        values = (levels + value * units).astype(np.float32)
        ds = np.full(len(streams), at * HOUR_MS)
        result = engine.step(EventBatch.of(list(streams), ds, values, first_offset=at * len(streams)))
        middle = result.forecast[:, :AHEAD, result.forecast.shape[2] // 2].astype(np.float64)
        found.append((middle - levels[:, None]) / units[:, None])
    return dict(zip(streams, np.stack(found, axis=1).astype(np.float32), strict=True))


def wave() -> np.ndarray:
    rng = np.random.default_rng(0)
    daily: np.ndarray = 10 + 3 * np.sin(np.arange(EVENTS) * 2 * np.pi / AHEAD) + rng.normal(0, 0.3, EVENTS)
    return daily


def error(forecast: FloatArray) -> float:
    """Mean absolute error over the last days, in units of the seasonal-naive error."""
    y = wave()
    origins = range(EVENTS - 4 * AHEAD, EVENTS - AHEAD)
    errors = [np.abs(forecast[at] - y[at + 1 : at + 1 + AHEAD]).mean() for at in origins]
    return float(np.mean(errors) / np.abs(y[AHEAD:] - y[:-AHEAD]).mean())


def test_level_against_change(forecasts: dict[str, FloatArray]) -> None:
    errors = {level: error(forecasts[f"level {level:g}"]) for level in LEVELS}
    print(errors)
    assert errors[0.0] < 0.9
    assert errors[1e6] < 1.05 * errors[0.0], "a stream's values are kept minus its first one"
    assert 1.2 * errors[0.0] < errors[1e7] < 1.6, "float32 tells values there apart by 1, a third of the amplitude"


def test_tiny(forecasts: dict[str, FloatArray]) -> None:
    assert error(forecasts["unit 1e-30"]) < 0.9


def test_any_unit(forecasts: dict[str, FloatArray]) -> None:
    for unit in UNITS:
        np.testing.assert_allclose(forecasts[f"unit {unit:g}"], forecasts["level 0"], rtol=1e-3)


def test_the_page_names_these_tests() -> None:
    section = (ROOT / "docs" / "data.md").read_text().split("## Numbers")[1].split("## ")[0]
    names = re.findall(r"\| `([a-z-]+)` \|", section)
    assert names == ["level-against-change", "tiny", "any-unit"]
    assert all(f"test_{name.replace('-', '_')}" in globals() for name in names)
