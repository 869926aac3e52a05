"""Where series are cut for validation, and what is said where none can be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rillcast.errors import DataError
from rillcast_training.data.series import Series
from rillcast_training.data.split import left_out, split, split_to_validate
from rillcast_training.data.windows import validation_batches
from rillcast_training.model.forecaster import ForecasterConfig

CONFIG = ForecasterConfig("1h", 3, (0.1, 0.5, 0.9), seasons=(24,), context=48, max_gap=24, hidden=4)


def waves(length: int = 150, *, at: int = 1_000) -> Series:
    periods = np.arange(at, at + length, dtype=np.int64)
    return Series("a", periods, (10 + np.sin(periods)).astype(np.float32))


def with_event(series: Series, period: int) -> Series:
    order = np.argsort(periods := np.append(series.periods, period))
    return Series(series.unique_id, periods[order], np.append(series.y, np.float32(10))[order])


def targets(series: Series) -> int:
    """Observations that the validation of a series is scored on."""
    parts = split_to_validate([series], CONFIG, 0.1, source="data.csv")
    return sum(
        int(batch.target.isfinite().sum()) for batch in validation_batches(parts, CONFIG, window=48, origins=8, batch=4)
    )


def test_a_series_without_holes_is_cut_at_the_share_of_its_periods() -> None:
    for length, share in ((150, 0.1), (97, 0.25), (20, 0.01)):
        (part,) = split([waves(length)], CONFIG, share)
        assert part.cut == 1_000 + length - max(3, round(share * length))


@pytest.mark.parametrize("period", [1_400, 800_000, 0])
def test_a_lone_event_far_away_leaves_something_to_validate_on(period: int) -> None:
    (part,) = split([with_event(waves(), period)], CONFIG, 0.1)
    assert part.cut in (1_135, 1_136)
    assert targets(with_event(waves(), period)) > 0


def test_the_end_without_observations_does_not_count() -> None:
    one = waves()
    one.y[-60:] = np.nan
    (part,) = split([one], CONFIG, 0.1)
    assert part.cut == 1_000 + 90 - 9
    assert targets(one) > 0


def test_few_observations_among_many_missing_ones_are_found() -> None:
    one = waves(400)
    one.y[np.arange(400) % 40 != 0] = np.nan
    assert targets(one) > 0


@pytest.mark.parametrize(
    ("series", "said"),
    [
        (replace(waves(), y=np.zeros(150, np.float32)), "1 of 1 has no value but 0"),
        (replace(waves(), y=np.full(150, np.nan, np.float32)), "1 of 1 has no observation"),
        (replace(waves(), periods=np.full(150, 1_000, np.int64)), "1 of 1 lies in one period (check --freq and"),
        (waves(8), "1 of 1 is not long enough: one needs three horizons (9 periods)"),
        (
            replace(waves(), periods=np.arange(150, dtype=np.int64) * 24),
            "1 of 1 never has two observations within a horizon (3 periods; check --freq)",
        ),
    ],
)
def test_what_cannot_be_validated_on_is_named(series: Series, said: str) -> None:
    with pytest.raises(DataError) as refused:
        split_to_validate([series], CONFIG, 0.1, source="data.csv")
    assert str(refused.value).startswith("data.csv: no series can be validated on: ")
    assert said in str(refused.value)


def test_series_that_are_left_out_are_counted() -> None:
    empty, zero = (replace(waves(), y=np.full(150, value, np.float32)) for value in (np.nan, 0))
    assert left_out([waves()], CONFIG, 0.1) == ""
    assert left_out([waves(), empty, zero, zero], CONFIG, 0.1) == (
        "of 4 series are left out: 2 has no value but 0, 1 has no observation"
    )
