"""The time of the loop by stage: seconds of some of its iterations.

Owns: the stop-watch that the worker's loop carries, and its sums. Does not know: what happens in a stage, or who asks.

A stage ends where the next begins, so the stages of an iteration add up to the whole of it. The exception is `step`,
which may run in another thread: `wait` is the time that the loop waited for it. Reading the clock at each stage of each
iteration would cost more than 1 % of the time of a service with one event per poll, so only some are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

STAGES: Final = ("poll", "decode", "wait", "encode", "produce", "account", "commit", "step")


class StageClock:
    """Used from one thread."""

    def __init__(
        self,
        observe: Callable[[str, float], None] | None = None,
        *,
        every: int = 17,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Begin with nothing timed.

        Args:
            observe: Is called with a stage and its seconds at the end of each iteration that was timed.
            every: One in this many of the iterations that did something is timed, beginning with the first; an
                iteration that found nothing to do uses up no turn, so a quiet topic is seen too. An odd number sees
                both kinds where an iteration with records alternates with one without, in which the loop publishes.
            clock: Monotonic seconds.
        """
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1")
        self._observe = observe
        self._every = every
        self._clock = clock
        self._worked = 0
        self._timed = False
        self._at = 0.0
        self._poll = dict.fromkeys(STAGES, 0.0)
        self._totals = dict.fromkeys(STAGES, 0.0)

    def begin(self) -> None:
        """Begin an iteration."""
        self._timed = self._worked % self._every == 0
        if self._timed:
            self._poll = dict.fromkeys(STAGES, 0.0)
            self._at = self._clock()

    def lap(self, stage: str) -> None:
        """Note that `stage` ends here and the next one begins; a stage may come more than once in an iteration."""
        if self._timed:
            now = self._clock()
            self._poll[stage] += now - self._at
            self._at = now

    def add(self, stage: str, seconds: float) -> None:
        """Add the seconds of a stage that runs in another thread."""
        if self._timed:
            self._poll[stage] += seconds

    def end(self) -> None:
        """End an iteration that did something."""
        self._worked += 1
        if self._timed:
            for stage, seconds in self._poll.items():
                self._totals[stage] += seconds
                if self._observe is not None:
                    self._observe(stage, seconds)

    def totals(self) -> Mapping[str, float]:
        """Return seconds by stage over all iterations that were timed."""
        return dict(self._totals)
