"""Where the time of the loop goes: seconds by stage, of every so many polls.

Owns: the stop-watch that the worker's loop carries and what it added up. Does not know: what happens in a stage, or who
asks. A stage ends where the next begins, so the stages of a poll add up to the whole of it; but for `step`, which may
run beside the loop: `wait` is how long the loop waited for it. Reading the clock at each stage of each poll would cost
a service at a low rate, with one event per poll, more than a hundredth of its time; so only every `every`-th is timed.
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
            observe: is told a stage and its seconds, at the end of each poll that was timed.
            every: how many polls one is timed of; the first is. An odd number: where a poll that brings something and
                one that brings nothing, in which the loop publishes, take turns, both are seen.
            clock: monotonic seconds.
        """
        if every < 1:
            raise ValueError(f"every is {every}, expected at least 1")
        self._observe = observe
        self._every = every
        self._clock = clock
        self._polls = 0
        self._timed = False
        self._at = 0.0
        self._poll = dict.fromkeys(STAGES, 0.0)
        self._totals = dict.fromkeys(STAGES, 0.0)

    def begin(self) -> None:
        """Begin a poll."""
        self._timed = self._polls % self._every == 0
        self._polls += 1
        if self._timed:
            self._poll = dict.fromkeys(STAGES, 0.0)
            self._at = self._clock()

    def lap(self, stage: str) -> None:
        """Note that `stage` ends here and the next one begins; a stage may come more than once in a poll."""
        if self._timed:
            now = self._clock()
            self._poll[stage] += now - self._at
            self._at = now

    def add(self, stage: str, seconds: float) -> None:
        """Take in what a stage took that runs beside the others."""
        if self._timed:
            self._poll[stage] += seconds

    def end(self) -> None:
        """End a poll that brought something."""
        if self._timed:
            for stage, seconds in self._poll.items():
                self._totals[stage] += seconds
                if self._observe is not None:
                    self._observe(stage, seconds)

    def totals(self) -> Mapping[str, float]:
        """Return seconds by stage over all polls that were timed."""
        return dict(self._totals)
