"""An origin of a backtest is any period, also one without an event: a weekend in a series of business days."""

from __future__ import annotations

import numpy as np

from rillcast.bundle.bundle import Bundle
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast_training.data.series import Series
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.evaluate.scored_part import ScoredPart

MONDAY = 19_723  # 2024-01-01
STRIDE = 4


def business_days(weeks: int) -> Series:
    days = MONDAY + np.arange(7 * weeks)
    days = days[(days - MONDAY) % 7 < 5]
    return Series("shop", days, np.sin(days.astype(np.float32)) + 10)


def test_every_origin_of_business_days_is_scored() -> None:
    whole = business_days(12)
    cut = whole.periods < MONDAY + 5 * 7 - 2  # the first origin is a Friday
    train, test = (Series("shop", whole.periods[rows], whole.y[rows]) for rows in (cut, ~cut))
    bundle = Bundle.load("universal:1d")
    found = backtest(StepEngine(bundle, Device("cpu")), [test], train=[train], stride=STRIDE, steps=STRIDE)
    first, last = int(train.periods[-1]), int(test.periods[-1])
    assert (found.origins_ms // 86_400_000).tolist() == list(range(first, last, STRIDE))
    assert found.part.origins_without_event == 0
    weekend = np.flatnonzero((found.origins_ms // 86_400_000 - MONDAY) % 7 >= 5)
    assert weekend.size > 2
    for origin in weekend.tolist():  # what it has seen ends before the weekend, what it is scored on begins after it
        assert np.isnan(found.history[origin][-1])
        assert np.isfinite(found.forecast[origin]).all()


def test_the_forecast_of_an_origin_is_that_of_its_own_period() -> None:
    """Steps of a forecast made on Saturday count from Saturday, though its values are those of Friday."""
    whole = business_days(12)
    bundle = Bundle.load("universal:1d")
    friday = MONDAY + 5 * 7 - 3
    seen = whole.periods <= friday
    train, test = (Series("shop", whole.periods[rows], whole.y[rows]) for rows in (seen, ~seen))
    every = backtest(StepEngine(bundle, Device("cpu")), [test], train=[train], stride=1, steps=6)
    on_friday, on_saturday = every.forecast[0, :, 4], every.forecast[1, :, 4]
    assert every.origins_ms[1] - every.origins_ms[0] == 86_400_000
    same_day, same_step = np.abs(on_friday[1:] - on_saturday[:-1]), np.abs(on_friday - on_saturday)
    assert same_day.mean() < 0.5 * same_step.mean()


def test_origins_that_are_left_out_are_counted() -> None:
    part = ScoredPart(2, 2, 0, 0, 7, 3, 0)
    assert part.lines() == [
        "scored: 2 of 2 series, 7 origins",
        "left out: 3 origins in periods without an event, whose covariates are unknown",
    ]
