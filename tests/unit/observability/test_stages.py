"""The stages of a poll add up to the whole of it, and only a sample of polls is timed."""

from __future__ import annotations

import pytest

from rillcast.observability.stages import STAGES, StageClock


class Ticks:
    """A clock that goes on by one second whenever it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return float(self.reads)


def test_stages_add_up() -> None:
    seen: list[tuple[str, float]] = []
    stages = StageClock(lambda stage, seconds: seen.append((stage, seconds)), every=1, clock=Ticks())
    stages.begin()
    for stage in ("poll", "decode", "wait", "wait"):
        stages.lap(stage)
    stages.end()
    assert dict(seen) == dict.fromkeys(STAGES, 0.0) | {"poll": 1.0, "decode": 1.0, "wait": 2.0}
    assert sum(stages.totals().values()) == 4.0


def test_only_a_sample_is_timed() -> None:
    clock = Ticks()
    seen: list[str] = []
    stages = StageClock(lambda stage, _: seen.append(stage), every=4, clock=clock)
    for _ in range(8):
        stages.begin()
        stages.lap("poll")
        stages.end()
    assert seen == [*STAGES, *STAGES]
    assert clock.reads == 4


def test_a_poll_that_brought_nothing_is_not_counted_when_the_next_one_is() -> None:
    stages = StageClock(every=1, clock=Ticks())
    stages.begin()
    stages.lap("poll")
    stages.begin()
    stages.lap("poll")
    stages.end()
    assert stages.totals()["poll"] == 1.0


@pytest.mark.parametrize("idle", [1, 3, 4, 10])
def test_iterations_without_work_use_up_no_turn_of_the_sample(idle: int) -> None:
    seen: list[str] = []
    stages = StageClock(lambda stage, _: seen.append(stage), every=4, clock=Ticks())
    for _ in range(8):
        for _ in range(idle):
            stages.begin()
            stages.lap("poll")
        stages.begin()
        stages.lap("poll")
        stages.end()
    assert seen == [*STAGES, *STAGES], "two of eight iterations that did something"


def test_a_sample_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="every"):
        StageClock(every=0)
