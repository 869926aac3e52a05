"""A model that does not serve gets at most half of the loop's time, in slices that take 50 ms at most."""

from __future__ import annotations

from rillcast.rollout.pacing import Pacing
from tests.support.memory import Clock


def take(pacing: Pacing, clock: Clock, seconds: float) -> None:
    started = clock.now
    clock.now += seconds
    pacing.took(pacing.slice_events, started)


def test_it_rests_for_as_long_as_the_slice_took() -> None:
    clock = Clock()
    pacing = Pacing(1000, clock)
    rests = [pacing.resting]
    take(pacing, clock, 0.04)
    for seconds in (0.0, 0.039, 0.0011):
        clock.now += seconds
        rests.append(pacing.resting)
    assert rests == [False, True, True, False]


def test_a_slice_shrinks_to_eight_events_while_it_takes_too_long_and_grows_to_the_setting() -> None:
    clock = Clock()
    pacing = Pacing(1000, clock)
    sizes = [pacing.slice_events]
    for _ in range(7):
        take(pacing, clock, 0.06)
        sizes.append(pacing.slice_events)
    assert sizes == [256, 128, 64, 32, 16, 8, 8, 8]
    take(pacing, clock, 0.03)
    assert pacing.slice_events == 8, "neither too long nor short enough"
    for _ in range(8):
        take(pacing, clock, 0.01)
    assert pacing.slice_events == 1000


def test_a_slice_is_never_larger_than_the_setting_and_starts_again_after_a_failure() -> None:
    clock = Clock()
    pacing = Pacing(4, clock)
    take(pacing, clock, 1.0)
    assert pacing.slice_events == 4
    assert pacing.resting
    pacing.restart()
    assert (pacing.slice_events, pacing.resting) == (4, False)
