"""Large polls are stepped beside the caller, small ones at once, and always in order."""

from __future__ import annotations

import threading
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


def poll(offset: int, size: int) -> EventBatch:
    """Return a poll of one event each for `size` streams."""
    ids, ds, y = [f"s{i}" for i in range(size)], np.zeros(size, np.int64), np.full(size, 3, np.float32)
    return EventBatch.of(ids, ds, y, first_offset=offset)


@pytest.mark.parametrize("beside_from", [0, 1, 3])
def test_every_poll_comes_back_once_in_order_with_its_own_result(beside_from: int) -> None:
    stepper, came = Stepper[int, StepResult](engine(), beside_from=beside_from), []
    sizes = [5, 1, 2, 7, 7, 1]
    for number, size in enumerate(sizes):
        came += stepper.step(number, poll(10 * number, size))
    came += stepper.finish()
    stepper.close()
    assert [number for number, _ in came] == list(range(len(sizes)))
    # The first stream is in every poll.
    assert [int(result.forecast[0, 0, 0]) % MODULUS for _, result in came] == unroll([3] * len(sizes))


def test_a_large_poll_is_in_flight_until_it_is_asked_for() -> None:
    stepper = Stepper[str, StepResult](engine(), beside_from=2)
    assert stepper.step("large", poll(0, 2)) == []
    states = [stepper.busy]
    assert [name for name, _ in stepper.finish()] == ["large"]
    states.append(stepper.busy)
    assert states == [True, False]
    assert stepper.finish() == []
    stepper.close()


def test_a_small_poll_comes_after_the_large_one_before_it() -> None:
    stepper = Stepper[str, StepResult](engine(), beside_from=2)
    stepper.step("large", poll(0, 2))
    assert [name for name, _ in stepper.step("small", poll(10, 1))] == ["large", "small"]
    stepper.close()


def test_an_error_of_the_engine_comes_out_where_its_result_would() -> None:
    stepper = Stepper[str, StepResult](engine(), beside_from=1)
    bad = poll(0, 2)
    stepper.step("bad", replace(bad, y=np.full(1, 3, np.float32)))
    with pytest.raises(Exception, match=r".+"):
        stepper.finish()
    assert stepper.finish() == []
    stepper.close()


def test_close_ends_the_thread() -> None:
    stepper = Stepper[str, StepResult](engine(), beside_from=1)
    stepper.step("large", poll(0, 2))
    stepper.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rillcast-step")]
