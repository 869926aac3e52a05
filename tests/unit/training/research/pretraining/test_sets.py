"""The pretraining set: a function of its seed, without what is held out, at the same place of the week."""

from __future__ import annotations

import numpy as np
import pytest

from rillcast_training.research.pretraining.sets import SHAPES, is_held_out, training_set, validation_set
from rillcast_training.research.pretraining.sources import Source

KINDS = ("load", "traffic", "weather")


def sources(cycle: int = 168, length: int = 1_500) -> list[Source]:
    """Series that say by each value which series and which place of the cycle it is of."""
    found = []
    for number in range(30):
        period = 1_000 * number + np.arange(length)
        y = 10.0 * number + (period % cycle) / cycle
        found.append(Source(KINDS[number % 3], f"s{number}", 1_000 * number, y))
    return found


def test_a_set_is_a_function_of_its_seed() -> None:
    first, again, other = (training_set("1h", sources(), seed, 12) for seed in (3, 3, 4))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.periods, two.periods)
        np.testing.assert_array_equal(one.y, two.y)
    assert any(len(one.y) != len(two.y) for one, two in zip(first, other, strict=True))


def test_windows_have_the_lengths_of_their_frequency_and_change() -> None:
    shape = SHAPES["1h"]
    for one in training_set("1h", sources(), 0, 40):
        assert shape.shortest <= len(one.y) <= shape.longest
        assert len(one.periods) == len(one.y)
        assert np.nanstd(one.y) > 0


def test_what_is_held_out_is_validated_and_never_trained_on() -> None:
    real = sources()
    held = {one.name for one in real if is_held_out(one)}
    assert 0 < len(held) < len(real) / 3
    for one in validation_set("1h", real, 0, 30):
        assert f"s{int(one.y[0] // 10)}" in held
    drawn = training_set("1h", real, 0, 30)
    without = training_set("1h", [one for one in real if one.name not in held], 0, 30)
    for one, two in zip(drawn, without, strict=True):
        np.testing.assert_array_equal(one.y, two.y)


def test_windows_are_added_at_the_same_hour_of_the_week() -> None:
    real = [Source("load", f"s{n}", 37 * n, ((37 * n + np.arange(2_000)) % 168 == 50).astype(float)) for n in range(20)]
    summed = 0
    for one in training_set("1h", real, 1, 40):
        if not one.unique_id.startswith("real/"):
            continue
        spikes = one.periods[np.abs(one.y - np.median(one.y)) > 4 * one.y.std()]
        summed += len(spikes)
        assert (spikes % 168 == 50).all()
    assert summed > 0


@pytest.mark.parametrize("freq", list(SHAPES))
def test_every_frequency_has_a_set(freq: str) -> None:
    cycle = SHAPES[freq].cycle
    assert len(training_set(freq, sources(max(cycle, 2)), 0, 6)) == 6
