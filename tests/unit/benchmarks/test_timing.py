"""The stopwatch, and runs in a separate process."""

from __future__ import annotations

import time

import pytest

from rillcast.benchmarks.timing import Measured, Stopwatch, in_process
from rillcast.errors import BundleError, RillcastError


def test_stopwatch_takes_the_first_start_and_the_first_stop() -> None:
    watch = Stopwatch()
    states = [watch.running]
    watch.start()
    watch.start()
    states.append(watch.running)
    watch.stop()
    assert [*states, watch.running] == [False, True, False]
    first = watch.measured(10)
    watch.stop()
    assert watch.measured(10).seconds == first.seconds
    assert first.rate == 10 / first.seconds


def _busy(seconds: float) -> Measured:
    watch = Stopwatch()
    watch.start()
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    watch.stop()
    return watch.measured(1)


def test_a_run_in_a_separate_process_returns_its_processor_time() -> None:
    assert in_process(_busy, 0.05).cpu_seconds >= 0.05


def _fail() -> Measured:
    raise ValueError("this is why")


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RillcastError, match="this is why"):
        in_process(_fail)


def _refuse() -> Measured:
    raise BundleError("runs", "it does not")


def test_an_error_of_ours_keeps_its_message_and_exit_code() -> None:
    with pytest.raises(RillcastError) as refused:
        in_process(_refuse)
    assert (str(refused.value), refused.value.exit_code) == ("bundle refused [runs]: it does not", 3)
