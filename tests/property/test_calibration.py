"""A stream's calibration equals a plain bookkeeping of its errors, for all events."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.bundle.bundle import Status
from rillcast_training.model import calibration
from rillcast_training.model.calibration import anchor_horizons
from rillcast_training.model.forecaster import Forecaster
from rillcast_training.model.rows import Rows
from tests.support.forecasters import HOUR_MS, random_forecaster, small_config

HORIZON = 20  # long enough that periods share a place for the forecasts of the farther horizons
SHARED = {1: 1, 5: 1, 10: 2, 20: 4}  # how many periods do, by horizon
RATE, RAMP = calibration._RATE, calibration._RAMP
TOLERANCE = 1e-4

FORECASTER = random_forecaster(small_config(horizon=HORIZON), seed=3)
LEVELS = np.array(FORECASTER.config.quantiles)

gaps = st.one_of(st.just(1), st.just(1), st.integers(min_value=-3, max_value=15))
values = st.one_of(
    st.just(float("nan")), st.floats(min_value=-50, max_value=50, width=32), st.sampled_from([0.0, 1e6, -3e4])
)
streams = st.lists(st.tuples(gaps, values), min_size=1, max_size=70)

Floats = npt.NDArray[np.float64]


class Event(NamedTuple):
    """An event as the step took it, and its forecasts without (own) and with calibration (published)."""

    period: int
    y: float
    status: Status
    own: Floats
    published: Floats
    scale: float
    offsets: Floats
    score: Floats
    offsets_uncalibrated: Floats


def run(forecaster: Forecaster, events: list[tuple[int, float]]) -> list[Event]:
    taken, period = [], 480_000
    rows, shadow = forecaster.initial_rows(1), forecaster.initial_rows(1)
    for gap, y in events:
        at = period + gap
        period = max(period, at)
        ds, value = torch.tensor([at * HOUR_MS]), torch.tensor([y])
        with torch.no_grad():
            own, shadow = forecaster.step(ds, value, shadow, 0.0)
            published, rows = forecaster.step(ds, value, rows, 1.0)
        taken.append(
            Event(
                at,
                y,
                Status(int(published.status)),
                own.forecast[0].double().numpy(),
                published.forecast[0].double().numpy(),
                scale_of(forecaster, rows),
                rows.offsets[0].t().double().numpy(),
                published.score[0].double().numpy(),
                shadow.offsets[0].t().double().numpy(),
            )
        )
    return taken


def scale_of(forecaster: Forecaster, rows: Rows) -> float:
    with torch.no_grad():
        view = forecaster.features(rows.lags, (rows.clock[:, 1] - 1).clamp(min=0), rows.clock[:, 0])
    return float(view.scale)


class Bookkeeping:
    """Pending forecasts by horizon and entry: of the periods that share one, it holds the newest."""

    def __init__(self) -> None:
        self.horizons = anchor_horizons(HORIZON)
        self.start()

    def start(self) -> None:
        self.waiting: dict[tuple[int, int], Event] = {}
        self.offsets = np.zeros((len(self.horizons), LEVELS.size))
        self.first: int | None = None

    def take(self, event: Event) -> dict[int, Event]:
        """Learn from an event that advanced its stream, store its forecast; return the resolved ones by horizon."""
        resolved = {}
        if not np.isnan(event.y):
            for k, h in enumerate(self.horizons):
                issued = self.waiting.get((h, (event.period - h) // SHARED[h]))
                if issued is None or issued.period != event.period - h:
                    continue
                resolved[h] = issued
                above = issued.own[h - 1] + issued.scale * self.offsets[k] - event.y
                covered = np.clip(0.5 + above / issued.scale / RAMP, 0, 1)
                low, _, high = LEVELS - covered
                apart = (high - low) / 2  # the interval widens on both sides; it does not move
                self.offsets[k] += RATE * np.sqrt(SHARED[h]) * np.array([-apart, 0.0, apart])
            if self.first is None:
                self.first = event.period
        if self.first is not None:
            for h in self.horizons:
                self.waiting[h, event.period // SHARED[h]] = event
        return resolved

    def corrected(self, event: Event) -> Floats:
        """Move every quantile, then let none pass its inner neighbour."""
        shift = np.stack([np.interp(np.arange(1, HORIZON + 1), self.horizons, column) for column in self.offsets.T], 1)
        moved: Floats = event.own + event.scale * shift
        moved[:, 2] = np.maximum(moved[:, 2], moved[:, 1])
        moved[:, 0] = np.minimum(moved[:, 0], moved[:, 1])
        return moved


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=streams)
def test_offsets_and_corrections_are_those_of_plain_bookkeeping(events: list[tuple[int, float]]) -> None:
    book, newest = Bookkeeping(), None
    for event in run(FORECASTER, events):
        if newest is None or event.period - newest > FORECASTER.config.max_gap:
            book.start()
        resolved = {}
        if event.status.advanced:
            resolved, newest = book.take(event), event.period
            np.testing.assert_allclose(event.offsets, book.offsets, rtol=0, atol=TOLERANCE)
            expected = book.corrected(event)
            allowed = TOLERANCE * (np.abs(expected) + event.scale)
            assert (np.abs(event.published - expected) <= 2 * allowed).all()
        for number, h in enumerate(book.horizons):
            _, covered, bias = event.score[number : 3 * len(book.horizons) : len(book.horizons)]
            assert np.isnan(covered) == (h not in resolved)
            if h in resolved:
                low, middle, high = resolved[h].published[h - 1]
                assert covered == (low <= event.y <= high)
                size = (abs(middle) + abs(event.y)) / event.scale
                assert abs(bias - (middle - event.y) / event.scale) <= TOLERANCE * (1 + size)


@settings(max_examples=25, deadline=None)
@given(events=streams)
def test_what_is_learnt_does_not_depend_on_whether_it_is_applied(events: list[tuple[int, float]]) -> None:
    for event in run(FORECASTER, events):
        assert (event.offsets == event.offsets_uncalibrated).all()
