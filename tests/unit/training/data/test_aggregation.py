"""Tables of raw events: the aggregates are those of polars, and the ones that the service makes of the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rillcast.engine.periods import KINDS, Close, Empty, Kind
from rillcast.errors import DataError
from rillcast.transports.base import Channel
from rillcast_training.data.aggregation import aggregated
from rillcast_training.data.columns import Aggregate, Columns
from rillcast_training.data.series import load
from tests.support import workers
from tests.support.aggregation import BEGIN_MS, MINUTE_MS, Raw, offline, published
from tests.support.memory import Log
from tests.support.toy import HOUR_MS, unroll
from tests.support.workers import observation

drawn = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 1_500), st.one_of(st.integers(1, 1000), st.none())),
    min_size=1,
    max_size=60,
)


@given(
    drawn=drawn,
    kind=st.sampled_from(KINDS),
    close=st.sampled_from(["stream", "partition"]),
    silent_after=st.sampled_from([1, 3, 100]),
)
@settings(max_examples=60)
def test_a_table_is_polars_group_by_and_what_the_service_steps(
    drawn: list[tuple[int, int, int | None]], kind: Kind, close: Close, silent_after: int
) -> None:
    events = [Raw(0, f"s{stream}", BEGIN_MS + minute * MINUTE_MS, y) for stream, minute, y in drawn]
    as_given = Aggregate(kind, close, "zero", silent_after)
    frame = pl.DataFrame(
        [(e.unique_id, e.ds, float("nan") if e.y is None else float(e.y)) for e in events],
        schema={"unique_id": pl.String, "ds": pl.Int64, "y": pl.Float64},
        orient="row",
    )
    found: dict[str, dict[int, float]] = {}
    for unique_id, ds, y in aggregated(frame, "1h", as_given, "events").iter_rows():
        assert found.setdefault(unique_id, {}).setdefault(ds // HOUR_MS, y) is y
    aggregation = as_given.of("1h")
    assert found == offline(events, aggregation, whole=True)
    log = Log({0: []})
    for event in sorted(events, key=lambda event: event.ds):
        log.append(0, observation(event.unique_id, event.y, event.ds))
    workers.build(log, aggregation=aggregation, ends=True).worker.run()
    served = published(value for _, value, _ in log.published[Channel.FORECASTS])
    assert served == {
        name: list(zip(sorted(values), unroll(int(values[p]) for p in sorted(values)), strict=True))
        for name, values in found.items()
    }


@pytest.mark.parametrize(
    ("kind", "empty", "value"), [("mean", "auto", np.nan), ("sum", "auto", 0), ("sum", "missing", np.nan)]
)
def test_empty_periods_are_what_the_setting_says(tmp_path: Path, kind: Kind, empty: Empty, value: float) -> None:
    path = tmp_path / "events.csv"
    path.write_text("unique_id,ds,y\na,2024-01-01T00:10:00,1\na,2024-01-01T00:20:00,3\na,2024-01-01T02:00:00,5\n")
    (series,) = load(path, "1h", Columns(aggregate=Aggregate(kind, empty=empty)))
    first = 2 if kind == "mean" else 4
    np.testing.assert_array_equal(series.y, np.array([first, value, 5], np.float32))


def test_an_event_at_an_outlying_date_closes_no_periods(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.csv"
    rows = [f"a,{BEGIN_MS + minute * MINUTE_MS},1" for minute in range(0, 1_200, 10)] + [f"b,{4 * 10**12},1"]
    rows += [f"b,{BEGIN_MS + minute * MINUTE_MS},1" for minute in range(0, 600, 10)]
    path.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    a, b = load(path, "1h", Columns(aggregate=Aggregate("sum", "partition")))
    assert (a.y.tolist(), b.y.tolist()) == ([6] * 20, [6] * 10 + [0] * 10)
    assert "outlying" in caplog.text


def test_covariates_are_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"unique_id": ["a"], "ds": [0], "y": [1.0], "promo": [1.0]})
    with pytest.raises(DataError, match=r"data\.csv: --aggregate sum with the covariates promo"):
        aggregated(frame, "1h", Aggregate("sum"), tmp_path / "data.csv")
