"""Where periods of a smooth series are missing, the medians of the next forecasts are about as smooth as the series."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rillcast.bundle.bundle import Bundle
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig
from rillcast_training.model.lags import MEDIAN
from tests.support.forecasters import HOUR_MS

HOURS = np.arange(360)
# Air pressure: a small daily wave over a slow one that takes it far away from where it was a day ago.
SERIES = 1000 + 3 * np.sin(HOURS * 2 * np.pi / 24) + 12 * np.sin(HOURS * 2 * np.pi / 170)
COMES = {
    "every second": HOURS % 2 == 0,
    "two of three": HOURS % 3 != 2,
    "every third": HOURS % 3 == 0,
    "every fifth": HOURS % 5 == 0,
    "runs": HOURS // 7 % 3 != 1,
}
FROM = 200
Median = Callable[[int, np.ndarray, np.ndarray], np.ndarray]  # hour, rows and their values -> their next medians


def network() -> Median:
    """Return a forecaster that follows the newest value, as one does that is trained on such series."""
    torch.manual_seed(0)
    forecaster = Forecaster(
        ForecasterConfig("1h", 4, (0.1, 0.5, 0.9), (24,), context=48, max_gap=48, hidden=4, fill=MEDIAN)
    ).eval()
    with torch.no_grad():
        forecaster.head.out.bias[4:8] = 0.95  # its share of the direction from the seasonal value to the newest one
    state = forecaster.initial_rows(len(COMES) * 2)

    def median(hour: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(rows)
        before = state.from_flat(tuple(part[at] for part in state.flat()))
        with torch.no_grad():
            outputs, after = forecaster.step(torch.full((len(rows),), hour * HOUR_MS), torch.from_numpy(values), before)
        for part, new in zip(state.flat(), after.flat(), strict=True):
            part[at] = new
        return outputs.forecast[:, 0, 1].numpy()

    return median


def experts() -> Median:
    engine = StepEngine(Bundle.load("universal:1h"), Device("cpu"))

    def median(hour: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        ids, ds = [str(row) for row in rows], np.full(len(rows), hour * HOUR_MS)
        forecast = engine.step(EventBatch.of(ids, ds, values, first_offset=hour * len(COMES) * 2)).forecast
        return np.asarray(forecast[:, 0, forecast.shape[2] // 2])

    return median


@pytest.mark.parametrize("forecaster", [network, experts])
def test_medians_do_not_jump_where_values_are_missing(forecaster: Callable[[], Median]) -> None:
    median = forecaster()
    comes = np.stack([*COMES.values(), *COMES.values()])
    silent = np.arange(len(comes)) >= len(COMES)  # these have no event at all where the others have one without a value
    found = np.full(comes.shape, np.nan)
    for hour in HOURS:
        rows = np.flatnonzero(comes[:, hour] | ~silent)
        values = np.where(comes[rows, hour], SERIES[hour], np.nan).astype(np.float32)
        found[rows, hour] = median(int(hour), rows, values)
    for row, name in enumerate([*COMES, *COMES]):
        events = np.flatnonzero(np.isfinite(found[row]) & (HOURS >= FROM))
        moves = np.abs(np.diff(found[row, events]))
        gap = np.diff(np.flatnonzero(comes[row])).max()
        largest = np.abs(SERIES[gap:] - SERIES[:-gap]).max()
        assert moves.max() <= 1.5 * largest, (name, bool(silent[row]))
        assert moves.sum() <= 2 * np.abs(np.diff(SERIES[events])).sum(), (name, bool(silent[row]))
