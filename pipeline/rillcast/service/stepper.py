"""Runs the models beside the loop: while the model steps a poll, the loop publishes the one before and reads the next.

Owns: the thread that steps, and the one poll that may be with it. Does not know: what a poll is, or what becomes of its
results. ONNX Runtime lets go of the interpreter while it computes, so the two really run at once; what they share is
the interpreter itself, and the shorter its turns, the less the one waits for the other (`SWITCH_INTERVAL_S`).

Invariants: an engine is used by one thread at a time (whoever wants it, or its residents, has called `finish` first);
polls are stepped in the order in which they are given; small polls, as a service has them that keeps up, are stepped at
once, for their results would wait for the poll behind them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from rillcast.events import EventBatch

SWITCH_INTERVAL_S: Final = 0.0005  # Python's default, 5 ms, is several calls of the model
T = TypeVar("T")
R = TypeVar("R")


class Stepper(Generic[T, R]):
    """Steps polls one after the other. Used from one thread; `T` is what the caller calls a poll, `R` its result."""

    def __init__(self, step: Callable[[EventBatch], R], *, beside_from: int) -> None:
        """Begin with nothing in flight.

        Args:
            step: what steps a poll.
            beside_from: polls of at least so many events are stepped beside the loop; 0 = none.
        """
        self._step = step
        self._beside_from = beside_from
        self._thread = ThreadPoolExecutor(1, "rillcast-step") if beside_from else None
        self._in_flight: tuple[T, Future[R]] | None = None
        if beside_from:
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))

    def step(self, poll: T, events: EventBatch) -> list[tuple[T, R]]:
        """Step a poll, and return what is done by now, in order: the poll before it, or this one, or both.

        Args:
            poll: comes back with its result.
            events: of the poll, see `StepEngine.step`.
        """
        done = self.finish()
        if self._thread is None or len(events) < self._beside_from:
            return [*done, (poll, self._step(events))]
        self._in_flight = poll, self._thread.submit(self._step, events)
        return done

    @property
    def busy(self) -> bool:
        """Whether a poll is in flight."""
        return self._in_flight is not None

    def finish(self) -> list[tuple[T, R]]:
        """Wait for the poll in flight, if there is one, and return it with its result."""
        if self._in_flight is None:
            return []
        poll, future = self._in_flight
        self._in_flight = None
        return [(poll, future.result())]

    def close(self) -> None:
        """End the thread; what is in flight is stepped to its end and dropped."""
        self._in_flight = None
        if self._thread is not None:
            self._thread.shutdown(wait=True)
