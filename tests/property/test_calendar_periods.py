"""One period for a time, in every implementation: Python's calendar, the host, the tensors, and the exported file."""

from __future__ import annotations

import datetime as dt

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rillcast.bundle.frequency import parse
from rillcast_training.export.bundle import to_onnx
from rillcast_training.export.parity import InPlaceSession
from rillcast_training.model.forecaster import Forecaster
from rillcast_training.model.periods import periods_of
from tests.support.forecasters import random_forecaster, small_config

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MILLISECOND = dt.timedelta(milliseconds=1)
FREQUENCIES = ("1mo", "3mo", "5mo", "12mo", "1w", "1h")
_INT64 = np.iinfo(np.int64)


def milliseconds(moment: dt.datetime) -> int:
    return (moment - EPOCH) // MILLISECOND


def edges() -> list[int]:
    """Return the first and last millisecond of every month in special years and some ordinary ones."""
    years = (2, 4, 100, 400, 1600, 1700, 1899, 1900, 1968, 1969, 1970, 1972, 2000, 2023, 2024, 2100, 2200, 2400, 9999)
    starts = [milliseconds(dt.datetime(year, month, 1, tzinfo=dt.UTC)) for year in years for month in range(1, 13)]
    return [start + off for start in starts for off in (0, -1)] + [
        milliseconds(dt.datetime(year, 2, 29, 23, 59, 59, 999_000, tzinfo=dt.UTC)) for year in (1600, 1968, 2000, 2400)
    ]


moments = st.one_of(st.datetimes(timezones=st.just(dt.UTC)).map(milliseconds), st.sampled_from(edges()))


def by_the_calendar(time: int, freq: str) -> int:
    """Return the period by the standard library's calendar."""
    frequency, moment = parse(freq), EPOCH + time * MILLISECOND
    if not frequency.in_months:
        return (moment - EPOCH) // (frequency.step * MILLISECOND)
    return ((moment.year - 1970) * 12 + moment.month - 1) // frequency.step


@given(times=st.lists(moments, min_size=1, max_size=50), freq=st.sampled_from(FREQUENCIES))
def test_integers_arrays_and_tensors_agree_with_the_calendar(times: list[int], freq: str) -> None:
    frequency = parse(freq)
    expected = [by_the_calendar(time, freq) for time in times]
    assert [frequency.period_of(time) for time in times] == expected
    assert frequency.period_of(np.array(times)).tolist() == expected
    assert periods_of(torch.tensor(times), frequency).tolist() == expected
    starts = frequency.start_of(np.array(expected))
    assert [frequency.start_of(period) for period in expected] == starts.tolist()
    assert (starts <= np.array(times)).all()
    assert (frequency.start_of(np.array(expected) + 1) > np.array(times)).all()
    if frequency.in_months:
        assert all(start.astype("M8[ms]") == start.astype("M8[ms]").astype("M8[M]") for start in starts)


@given(
    times=st.lists(st.integers(int(_INT64.min), int(_INT64.max)), min_size=1, max_size=20),
    freq=st.sampled_from(FREQUENCIES),
)
def test_beyond_the_calendar_all_implementations_agree(times: list[int], freq: str) -> None:
    frequency = parse(freq)
    expected = [frequency.period_of(time) for time in times]
    assert frequency.period_of(np.array(times, np.int64)).tolist() == expected
    assert periods_of(torch.tensor(times), frequency).tolist() == expected
    assert all(
        frequency.start_of(period) <= t < frequency.start_of(period + 1)
        for period, t in zip(expected, times, strict=True)
    )


@pytest.fixture(scope="module", params=["1mo", "3mo", "12mo"])
def exported(request: pytest.FixtureRequest) -> tuple[str, Forecaster, onnx.ModelProto]:
    forecaster = random_forecaster(small_config(freq=request.param, hidden=2, context=10, max_gap=10))
    return request.param, forecaster, to_onnx(forecaster)


def test_the_exported_graph_agrees_with_the_calendar(exported: tuple[str, Forecaster, onnx.ModelProto]) -> None:
    freq, forecaster, model = exported
    file = InPlaceSession(model.SerializeToString(), forecaster, 4_097)
    rng = np.random.default_rng(0)
    first, last = (milliseconds(dt.datetime(year, 12, 31, tzinfo=dt.UTC)) for year in (1, 9998))
    times = np.concatenate([np.array(edges()), rng.integers(first, last, 4_096 - len(edges()))])
    rows = np.arange(1, 4_097)
    file.run(rows, times, np.ones(4_096, np.float32))
    assert file.state("clock")[1:, 0].tolist() == [by_the_calendar(time, freq) for time in times.tolist()]


def test_only_whole_numbers_lead_from_the_time_to_the_clock(exported: tuple[str, Forecaster, onnx.ModelProto]) -> None:
    graph = onnx.shape_inference.infer_shapes(exported[2]).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    after, nodes = {"ds"}, []
    for node in graph.node:  # in topological order
        if after & set(node.input):
            after |= set(node.output)
            nodes.append(node)
    before = {"state.clock.next"}
    for node in reversed(nodes):
        if before & set(node.output):
            before |= set(node.input)
    between = (after & before) - {"ds", "state.clock.next"}
    assert len(between) > 20
    assert {types[name] for name in between} <= {onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
