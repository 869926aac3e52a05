"""Forecasts are published when they have moved, judged slot by slot in units of their own interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rillcast.bundle.bundle import BundleMetadata, StateSpec
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.publishing.changes import Changes

STEP_MS = 3_600_000
HORIZON = 4


def metadata(quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)) -> BundleMetadata:
    states = (StateSpec(name="h", dtype="float32", row_shape=(1,)),)
    return BundleMetadata(name="m", cell="c", freq="1h", horizon=HORIZON, quantiles=quantiles, states=states)


def columns(
    *given: tuple[str, int, list[float]],
    width: float = 10.0,
    partition: int = 0,
    revision: list[int] | None = None,
) -> ForecastColumns:
    """Return forecasts from (stream, slot, medians), all with intervals of one width."""
    n = len(given)
    medians = np.array([values for _, _, values in given], np.float32).reshape(n, HORIZON)
    return ForecastColumns(
        unique_ids=[unique_id for unique_id, _, _ in given],
        ds=np.array([slot * STEP_MS + 17 for _, slot, _ in given], np.int64),
        status=np.zeros(n, np.int8),
        forecast=np.stack([medians - width / 2, medians, medians + width / 2], axis=2).astype(np.float32),
        anomaly=None,
        partitions=np.full(n, partition),
        offsets=np.arange(n),
        revision=None if revision is None else np.array(revision, np.int32),
    )


def moved(changes: Changes, *given: tuple[str, int, list[float]], **options: Any) -> list[bool]:
    found: list[bool] = changes.keep(columns(*given, **options)).tolist()
    return found


def test_the_first_of_every_stream_has_moved_and_the_same_again_has_not() -> None:
    changes = Changes(metadata(), 0.1)
    assert moved(changes, ("a", 0, [1, 2, 3, 4]), ("b", 0, [1, 2, 3, 4])) == [True, True]
    assert moved(changes, ("a", 0, [1, 2, 3, 4]), ("b", 0, [1, 2, 3, 9])) == [False, True]


def test_a_slot_is_compared_with_what_was_said_of_the_same_slot() -> None:
    changes = Changes(metadata(), 0.1)
    assert moved(changes, ("a", 10, [50, 0, 50, 0])) == [True]
    # One slot later the same wave begins one step further on; step by step everything would differ.
    assert moved(changes, ("a", 11, [0, 50, 0, 50])) == [False]
    assert moved(changes, ("a", 11, [0, 52, 0, 50])) == [True]


def test_what_only_the_new_forecast_covers_does_not_count() -> None:
    changes = Changes(metadata(), 0.1)
    moved(changes, ("a", 0, [1, 1, 1, 1]))
    assert moved(changes, ("a", 1, [1, 1, 1, 99])) == [False]


@pytest.mark.parametrize(("by", "expected"), [(0.9, False), (1.1, True), (-0.9, False), (-1.1, True)])
def test_the_yardstick_is_the_interval_that_was_published(by: float, expected: bool) -> None:
    changes = Changes(metadata(), 0.1)
    moved(changes, ("a", 0, [1000, 1000, 1000, 1000]), width=10.0)
    assert moved(changes, ("a", 0, [1000, 1000, 1000 + by, 1000]), width=1e6) == [expected]


def test_small_moves_add_up_for_they_are_measured_from_what_was_published() -> None:
    changes = Changes(metadata(), 0.1)
    flags = [moved(changes, ("a", 0, [0.4 * step] * 4))[0] for step in range(7)]
    assert flags == [True, False, False, True, False, False, True]


def test_when_half_of_the_horizon_has_passed_the_next_one_has_moved() -> None:
    changes = Changes(metadata(), 0.1)
    flags = [moved(changes, ("a", slot, [1, 1, 1, 1]))[0] for slot in range(7)]
    assert flags == [True, False, False, True, False, False, True]


def test_several_forecasts_of_a_stream_in_one_batch_are_judged_one_after_the_other() -> None:
    one, other = Changes(metadata(), 0.1), Changes(metadata(), 0.1)
    given = [("a", 0, [0.4 * step] * 4) for step in range(7)] + [("b", 0, [5.0] * 4)] * 3
    together = moved(one, *given)
    assert together == [moved(other, each)[0] for each in given]
    assert together[7:] == [True, False, False]


def test_a_revision_is_always_published_and_measured_from() -> None:
    changes = Changes(metadata(), 0.1)
    assert moved(changes, ("a", 0, [1] * 4), revision=[0]) == [True]
    assert moved(changes, ("a", 0, [1.5] * 4), ("a", 0, [1.5] * 4), revision=[1, 0]) == [True, False]


def test_equal_ids_in_two_partitions_are_two_streams_and_one_is_forgotten_with_its_partition() -> None:
    changes = Changes(metadata(), 0.1)
    assert moved(changes, ("a", 0, [1] * 4)) == [True]
    assert moved(changes, ("a", 0, [1] * 4), partition=1) == [True]
    changes.forget(0)
    changes.forget(7)
    assert moved(changes, ("a", 0, [1] * 4)) == [True]
    assert moved(changes, ("a", 0, [1] * 4), partition=1) == [False]


def test_with_one_level_any_difference_counts() -> None:
    changes = Changes(metadata((0.5,)), 0.5)
    one = columns(("a", 0, [1.0] * 4))
    flat = ForecastColumns(
        one.unique_ids, one.ds, one.status, one.forecast[:, :, 1:2], None, one.partitions, one.offsets
    )
    assert changes.keep(flat).tolist() == [True]
    assert changes.keep(flat).tolist() == [False]
    flat.forecast[0, 2, 0] += 1e-3
    assert changes.keep(flat).tolist() == [True]


def test_streams_that_come_and_go_do_not_fill_the_memory() -> None:
    changes = Changes(metadata(), 0.1)
    for day in range(200):
        moved(changes, *[(f"{day}-{number}", 24 * day, [1.0] * 4) for number in range(50)])
    assert len(changes) < 1_000
    assert moved(changes, ("199-7", 24 * 199, [1.0] * 4)) == [False], "what is recent is not forgotten"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=60),
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
)
def test_how_forecasts_are_batched_does_not_matter(events: list[tuple[str, int, int]], sizes: list[int]) -> None:
    slots = dict.fromkeys("abc", 0)
    given = []
    for unique_id, gap, value in events:
        slots[unique_id] += gap
        given.append((unique_id, slots[unique_id], [value / 10] * 4))
    one, other = Changes(metadata(), 0.1), Changes(metadata(), 0.1)
    batched: list[bool] = []
    while len(batched) < len(given):
        size = sizes[len(batched) % len(sizes)]
        batched += moved(one, *given[len(batched) : len(batched) + size])
    assert batched == [moved(other, each)[0] for each in given]


def test_nothing_to_judge_is_nothing() -> None:
    assert Changes(metadata(), 0.1).keep(columns()).tolist() == []
    with pytest.raises(ValueError, match="above 0"):
        Changes(metadata(), 0.0)


def test_steps_that_are_not_published_do_not_count() -> None:
    changes = Changes(metadata().model_copy(update={"horizon": 2}), 0.1)  # only two of the four steps are published
    assert moved(changes, ("a", 0, [1, 1, 1, 1])) == [True]
    assert moved(changes, ("a", 0, [1, 1, 99, 99])) == [False]
    assert moved(changes, ("a", 0, [1, 9, 1, 1])) == [True]
    assert moved(changes, ("a", 2, [1, 9, 1, 1])) == [True], "half of what readers have has passed"
