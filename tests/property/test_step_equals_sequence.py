"""Forward over a sequence equals step by step, for all events."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rillcast.bundle.bundle import Status
from rillcast_training.data.series import segments
from rillcast_training.data.windows import Window, collate
from rillcast_training.model.cells import CELLS
from rillcast_training.model.forecaster import Forecaster
from rillcast_training.model.rows import Rows, StepOutputs
from tests.support.forecasters import HOUR_MS, random_forecaster, small_config

TOLERANCE = 1e-4  # of |forecast| + scale: float32, two orders of summation

FORECASTERS = {
    (cell, layers): random_forecaster(small_config(cell=cell, layers=layers), seed=layers)
    for cell in CELLS
    for layers in (1, 2)
}

Event = tuple[int, float, int]  # periods since the stream's newest, y, milliseconds into the period
gaps = st.one_of(st.just(1), st.integers(min_value=-4, max_value=16))
values = st.one_of(
    st.just(float("nan")),
    st.just(0.0),
    st.floats(min_value=-50, max_value=50, width=32),
    st.floats(min_value=1e6, max_value=1e6 + 100, width=32),
)
streams = st.lists(
    st.lists(st.tuples(gaps, values, st.integers(0, HOUR_MS - 1)), min_size=1, max_size=45), min_size=1, max_size=3
)
starts = st.sampled_from([0, 474_000, -90_000, -3])


def times(events: list[Event], start: int) -> tuple[np.ndarray, np.ndarray]:
    period, ds = start, []
    for gap, _, within in events:
        ds.append((period + gap) * HOUR_MS + within)
        period = max(period, period + gap)
    return np.array(ds, dtype=np.int64), np.array([y for _, y, _ in events], dtype=np.float32)


def run_steps(forecaster: Forecaster, ds: list[np.ndarray], y: list[np.ndarray]) -> list[list[StepOutputs]]:
    """Step several streams in one batch, uncalibrated; return each stream's outputs, one row each."""
    rows = forecaster.initial_rows(len(ds))
    outputs: list[list[StepOutputs]] = [[] for _ in ds]
    for t in range(max(len(one) for one in ds)):
        active = [i for i, one in enumerate(ds) if t < len(one)]
        before = Rows.from_flat(tuple(part[active] for part in rows.flat()))
        with torch.no_grad():
            found, following = forecaster.step(
                torch.tensor([ds[i][t] for i in active]), torch.tensor([y[i][t] for i in active]), before, 0.0
            )
        for whole, part in zip(rows.flat(), following.flat(), strict=True):
            whole[active] = part
        for position, i in enumerate(active):
            outputs[i].append(StepOutputs(*(tensor[position] for tensor in found.flat())))
    return outputs


@pytest.mark.parametrize(("cell", "layers"), sorted(FORECASTERS))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=streams, start=starts)
def test_forward_over_a_sequence_equals_step_by_step(
    cell: str, layers: int, events: list[list[Event]], start: int
) -> None:
    forecaster = FORECASTERS[cell, layers]
    config = forecaster.config
    ds, y = zip(*(times(one, start) for one in events), strict=True)
    stepped = run_steps(forecaster, list(ds), list(y))
    for stream in range(len(events)):
        advanced = set()
        season, max_gap, rule = config.seasons[0], config.max_gap, config.fill
        for segment in segments(ds[stream] // HOUR_MS, y[stream], season=season, max_gap=max_gap, rule=rule):
            length = len(segment.periods)
            batch = collate([Window(segment, 0, length, None, 1.0, fresh=False)], config, [np.arange(length)])
            with torch.no_grad():
                forecast = forecaster(batch.sequences)
            expected, scale = forecast.quantiles()[0], forecast.scale[0]
            for t, row in enumerate(segment.rows):
                found = stepped[stream][row].forecast
                assert ((found - expected[t]).abs() <= TOLERANCE * (expected[t].abs() + scale[t])).all()
                advanced.add(int(row))
        statuses = [Status(int(outputs.status)) for outputs in stepped[stream]]
        assert {row for row, status in enumerate(statuses) if status.advanced} == advanced


@settings(max_examples=60, deadline=None)
@given(events=st.lists(st.tuples(gaps, values, st.integers(0, HOUR_MS - 1)), min_size=2, max_size=40), start=starts)
def test_an_event_that_does_not_advance_leaves_state_and_forecast_alone(events: list[Event], start: int) -> None:
    forecaster = FORECASTERS["lstm", 2]
    ds, y = times(events, start)
    rows, previous = forecaster.initial_rows(1), None
    for t in range(len(ds)):
        with torch.no_grad():
            outputs, following = forecaster.step(torch.from_numpy(ds[t : t + 1]), torch.from_numpy(y[t : t + 1]), rows)
        if not Status(int(outputs.status)).advanced:
            assert all(torch.equal(a, b) for a, b in zip(rows.flat(), following.flat(), strict=True))
            assert previous is not None
            torch.testing.assert_close(outputs.forecast, previous, rtol=1e-6, atol=0)
            assert outputs.score.isnan().all()
        rows, previous = following, outputs.forecast


@settings(max_examples=60, deadline=None)
@given(
    y=st.lists(
        st.one_of(
            st.just(float("nan")),
            st.sampled_from([0.0, 1e15, -1e15, 1e-20, 3e38, float("inf")]),
            st.floats(width=32, allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=25,
    ),
    run=st.integers(1, 6),
)
def test_no_value_makes_a_forecast_or_a_state_that_is_not_finite_or_crosses(y: list[float], run: int) -> None:
    forecaster = FORECASTERS["gru", 1]
    rows = forecaster.initial_rows(1)
    for t, value in enumerate(v for v in y for _ in range(run)):
        with torch.no_grad():
            outputs, rows = forecaster.step(torch.tensor([t * HOUR_MS]), torch.tensor([value]), rows)
        assert outputs.forecast.isfinite().all()
        assert (outputs.forecast.diff(dim=-1) >= 0).all()
        assert all(part.isfinite().all() for part in rows.flat())
        known = outputs.anomaly[~outputs.anomaly.isnan()]
        assert ((known >= 0) & (known <= 1)).all()
