"""How old events are when their forecasts are handed to the sink.

Owns: the sample of a poll's events, and the wall clock. Does not know: what happens to the ages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from rillcast.arrays import FloatArray, IntArray
from rillcast.observability.observer import Observer, Published

_MAX_SAMPLES: Final = 8  # of a poll, of which there may be hundreds a second: enough for a histogram


class Latency(Observer):
    """Hands the ages of some live events of each poll to others."""

    def __init__(self, *record: Callable[[FloatArray], None], wall_clock: Callable[[], float] = time.time) -> None:
        """Begin.

        Args:
            record: Each is called with ages in seconds, `(k,)` float32.
            wall_clock: Seconds since the epoch; never for anything that changes state.
        """
        self._record = record
        self._wall_clock = wall_clock

    def observe(self, published: Published) -> None:
        """Take the ages of live events by the timestamps of their records."""
        if (timestamps_ms := published.events.timestamps_ms) is None:
            return
        ages = sampled_ages(timestamps_ms[published.live], self._wall_clock())
        for record in self._record:
            record(ages)


def sampled_ages(timestamps_ms: IntArray, now_s: float, most: int = _MAX_SAMPLES) -> FloatArray:
    """Return the ages in seconds of about `most` events spread over a poll; unknown timestamps are left out."""
    sample = timestamps_ms[:: max(1, timestamps_ms.size // most)]
    ages: FloatArray = np.maximum(now_s - sample[sample >= 0] / 1000.0, 0.0).astype(np.float32)
    return ages
