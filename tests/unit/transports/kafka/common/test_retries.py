"""Requests are repeated until the deadline, and only for failures that pass."""

from __future__ import annotations

import time

import pytest

from rillcast.transports.kafka.common.retries import retry_until


class Failing:
    """Fails a number of times, then returns how often it was called."""

    def __init__(self, failures: int, kind: type[Exception] = OSError) -> None:
        self.failures = failures
        self.kind = kind
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.kind(f"failure {self.calls}")
        return self.calls


def passes(error: Exception) -> bool:
    return isinstance(error, OSError)


def test_a_failure_that_passes_is_repeated_after_a_pause() -> None:
    pauses: list[int] = []
    call = Failing(2)
    assert retry_until(time.monotonic() + 1_000, call, passes, lambda: pauses.append(call.calls)) == 3
    assert pauses == [1, 2]


def test_a_failure_that_does_not_pass_is_raised_at_once() -> None:
    call = Failing(2, ValueError)
    with pytest.raises(ValueError, match="failure 1"):
        retry_until(time.monotonic() + 1_000, call, passes)
    assert call.calls == 1


def test_after_the_deadline_the_last_failure_is_raised() -> None:
    with pytest.raises(OSError, match="failure 1"):
        retry_until(time.monotonic() - 1, Failing(2), passes)
