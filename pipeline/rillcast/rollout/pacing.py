"""How much of the loop's time a model gets that does not serve: at most half, in slices of 50 ms at most.

Owns: how many events a slice has, and how long the model rests after it. Does not know: models, partitions, events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_FIRST_SLICE: Final = 256  # events, before it is known how long the model takes for one
_LEAST_SLICE: Final = 8
_SLICE_S: Final = 0.05  # longest slice: the loop does nothing else meanwhile


class Pacing:
    """The pace of one model. Used from one thread."""

    def __init__(self, most_events: int, clock: Callable[[], float]) -> None:
        """Begin without a rest.

        Args:
            most_events: Most events of a slice.
            clock: Monotonic seconds.
        """
        self._most_events = most_events
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Forget how long the model took."""
        self._rests_until = 0.0
        self.slice_events = min(self._most_events, _FIRST_SLICE)

    @property
    def resting(self) -> bool:
        """Whether the loop has the time for itself now."""
        return self._clock() < self._rests_until

    def took(self, stepped: int, started: float) -> None:
        """Adapt the slice to the time that the last one took, and rest for as long.

        Args:
            stepped: Events of that slice.
            started: When it began, in monotonic seconds.
        """
        ended = self._clock()
        seconds = ended - started
        if seconds > _SLICE_S:
            self.slice_events = min(self._most_events, max(_LEAST_SLICE, self.slice_events // 2))
        elif stepped >= self.slice_events // 2 and seconds < _SLICE_S / 2:
            self.slice_events = min(self._most_events, 2 * self.slice_events)
        self._rests_until = ended + seconds
