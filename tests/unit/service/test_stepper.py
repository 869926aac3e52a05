"""Large polls are stepped in another thread, small ones at once, and always in order."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine, StepResult
from rillcast.events import EventBatch
from rillcast.service.stepper import Stepper
from tests.support.toy import MODULUS, toy_bundle, unroll


def engine() -> Callable[[EventBatch], StepResult]:
    return StepEngine(toy_bundle(), Device("cpu")).step


class Came:
    """Takes results, in the order in which they come."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.results: list[StepResult] = []

    def as_(self, name: str) -> Callable[[StepResult], None]:
        def take(result: StepResult) -> None:
            self.names.append(name)
            self.results.append(result)

        return take


def poll(offset: int, size: int) -> EventBatch:
    """Return a poll of one event each for `size` streams."""
    ids, ds, y = [f"s{i}" for i in range(size)], np.zeros(size, np.int64), np.full(size, 3, np.float32)
    return EventBatch.of(ids, ds, y, first_offset=offset)


@pytest.mark.parametrize("thread_min_events", [0, 1, 3])
def test_every_poll_comes_back_once_in_order_with_its_own_result(thread_min_events: int) -> None:
    stepper, came = Stepper(engine(), thread_min_events=thread_min_events), Came()
    sizes = [5, 1, 2, 7, 7, 1]
    for number, size in enumerate(sizes):
        stepper.step(poll(10 * number, size), came.as_(str(number)))
    stepper.finish()
    stepper.close()
    assert came.names == [str(number) for number in range(len(sizes))]
    # The first stream is in every poll.
    assert [int(result.forecast[0, 0, 0]) % MODULUS for result in came.results] == unroll([3] * len(sizes))


def test_a_large_poll_is_in_flight_until_its_result_is_wanted() -> None:
    stepper, came = Stepper(engine(), thread_min_events=2), Came()
    stepper.step(poll(0, 2), came.as_("large"))
    states = [(stepper.busy, list(came.names))]
    assert stepper.finish()
    states.append((stepper.busy, list(came.names)))
    assert states == [(True, []), (False, ["large"])]
    assert not stepper.finish()
    stepper.close()


def test_a_small_poll_comes_after_the_large_one_before_it() -> None:
    stepper, came = Stepper(engine(), thread_min_events=2), Came()
    stepper.step(poll(0, 2), came.as_("large"))
    stepper.step(poll(10, 1), came.as_("small"))
    assert came.names == ["large", "small"]
    stepper.close()


def test_a_result_that_is_discarded_is_not_handed_over() -> None:
    stepper, came = Stepper(engine(), thread_min_events=1), Came()
    stepper.step(poll(0, 2), came.as_("dropped"))
    stepper.discard()
    assert not stepper.busy
    assert not stepper.finish()
    assert came.names == []
    stepper.close()


def test_an_error_of_the_engine_comes_out_where_its_result_would() -> None:
    stepper, came = Stepper(engine(), thread_min_events=1), Came()
    stepper.step(replace(poll(0, 2), y=np.full(1, 3, np.float32)), came.as_("bad"))
    with pytest.raises(Exception, match=r".+"):
        stepper.finish()
    assert not stepper.finish()
    stepper.close()


def test_close_ends_the_thread() -> None:
    stepper = Stepper(engine(), thread_min_events=1)
    stepper.step(poll(0, 2), Came().as_("large"))
    stepper.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rillcast-step")]


class Held:
    """What the loop has at hand when a step fails."""


def test_a_step_that_failed_leaves_with_what_the_loop_had_at_hand_without_the_garbage_collector() -> None:
    def fail(_events: EventBatch) -> StepResult:
        raise ValueError

    def iterate() -> None:
        held = Held()
        alive.append(weakref.ref(held))
        stepper.step(poll(0, 3), came.as_("first"))
        stepper.finish()

    stepper, came = Stepper(fail, thread_min_events=1), Came()
    alive: list[weakref.ref[Held]] = []
    gc.disable()
    try:
        with pytest.raises(ValueError) as raised:  # noqa: PT011  it has no text; what it holds is looked at
            iterate()
        assert alive[0]() is not None, "the error holds the frames that it has passed"
        del raised
        assert alive[0]() is None
    finally:
        gc.enable()
        stepper.close()
