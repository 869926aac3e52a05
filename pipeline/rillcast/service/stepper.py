"""Steps polls in another thread: while the model steps a poll, the loop publishes the one before and reads the next.

Owns: the thread that steps, and the one poll that may be in flight. Does not know: polls, or what happens to results.

ONNX Runtime releases the interpreter while it computes, so loop and model really run at once. They share the
interpreter itself: the shorter its turns, the less they wait for each other (`SWITCH_INTERVAL_S`).

Invariants: one thread at a time uses an engine (callers that touch it, or its residents, have called `finish` or
`discard` before); polls are stepped, and their results handed over, in the order in which they are given. A service
that keeps up has small polls: they are stepped at once, or their results would wait for the next poll.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from rillcast import threads
from rillcast.events import EventBatch

SWITCH_INTERVAL_S: Final = 0.0005  # Python's default, 5 ms, is several calls of the model
R = TypeVar("R")


class Stepper(Generic[R]):
    """Steps polls one after the other. Used from one thread."""

    def __init__(self, step: Callable[[EventBatch], R], *, thread_min_events: int) -> None:
        """Begin with nothing in flight.

        Args:
            step: Steps the events of a poll.
            thread_min_events: Polls of at least this many events are stepped in the other thread; 0 = none.
        """
        self._step = step
        self._thread_min_events = thread_min_events
        self._thread = ThreadPoolExecutor(1, "rillcast-step") if thread_min_events else None
        self._in_flight: tuple[Future[R], Callable[[R], None]] | None = None
        if self._thread is not None:
            threads.require_room()
            self._thread.submit(int).result()  # so that it runs before memory is short
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))

    def step(self, events: EventBatch, hand_over: Callable[[R], None]) -> None:
        """Wait for the poll in flight, step a poll or begin to, and hand over the results that there are.

        Args:
            events: The events of the poll.
            hand_over: Takes their result, now or during a later call.
        """
        earlier = self._wait()
        if self._thread is not None and len(events) >= self._thread_min_events:
            self._in_flight = self._thread.submit(self._step, events), hand_over
            done = [earlier]
        else:
            done = [earlier, (self._step(events), hand_over)]
        for each in done:
            if each is not None:
                result, take = each
                take(result)

    @property
    def busy(self) -> bool:
        """Whether a poll is in flight."""
        return self._in_flight is not None

    def finish(self) -> bool:
        """Wait for the poll in flight and hand over its result; return whether there was one."""
        if (done := self._wait()) is None:
            return False
        result, hand_over = done
        hand_over(result)
        return True

    def discard(self) -> None:
        """Wait for the poll in flight and drop its result."""
        self._wait()

    def close(self) -> None:
        """End the thread after the poll in flight, and drop its result."""
        self._in_flight = None
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def _wait(self) -> tuple[R, Callable[[R], None]] | None:
        if self._in_flight is None:
            return None
        future, hand_over = self._in_flight
        self._in_flight = None
        try:
            return future.result(), hand_over
        finally:
            del future  # it holds an error, which holds this frame: neither would be freed without the collector
