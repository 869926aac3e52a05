"""Are anomalies as rare as they say? The share of observations beyond levels of `anomaly`.

Owns: which events count, and the table. Does not know: how a bundle makes its anomalies.

Of each stream the first `SETTLED` rated events are left out, in which it learns its tails, and so are events that do
not follow their stream's last one (gaps), or precede a full context.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rillcast.arrays import FloatArray, IntArray, StatusArray
from rillcast.bundle.bundle import Status
from rillcast.figures import Undefined

SETTLED: Final = 500
LEVELS: Final = (0.8, 0.9, 0.99, 0.999, 0.9999)
_NONE: Final = f"no stream has more than {SETTLED} rated events"


@dataclass(slots=True)
class TailShares:
    """Counts of the observations beyond each level.

    Attributes:
        streams: Streams that may come.
        events: Events that count.
        beyond: Of those, by level, the events whose anomaly exceeds it.
    """

    streams: int
    events: int = 0
    beyond: IntArray = field(default_factory=lambda: np.zeros(len(LEVELS), np.int64))
    _rated: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self._rated = np.zeros(self.streams, np.int64)

    def add(self, series: IntArray, status: StatusArray, anomaly: FloatArray) -> None:
        """Count events: `[n]` numbers of their streams, in the order in which they were stepped."""
        rated = np.flatnonzero(~np.isnan(anomaly))
        order = rated[np.argsort(series[rated], kind="stable")]
        of = series[order]
        firsts = np.flatnonzero(np.diff(of, prepend=-1))
        rank = np.arange(of.size) - np.repeat(firsts, np.diff(firsts, append=of.size))
        settled = self._rated[of] + rank >= SETTLED
        np.add.at(self._rated, of, 1)
        counted = anomaly[order][settled & (status[order] == Status.OK)]
        self.events += counted.size
        self.beyond += np.array([(counted > np.float32(level)).sum() for level in LEVELS])

    def shares(self) -> dict[str, float]:
        """Return the share beyond each level; it is right where it equals one minus the level."""
        if not self.events:
            return {f"{level:g}": Undefined(_NONE) for level in LEVELS}
        return {f"{level:g}": int(n) / self.events for level, n in zip(LEVELS, self.beyond, strict=True)}

    def table(self) -> str:
        """Return the table for people."""
        title = f"anomaly, {self.events:,} observations after {SETTLED} of their stream"
        if not self.events:
            return f"{title}: {_NONE}"
        width = len("beyond")
        rows = [
            ("beyond", [f"{level:g}" for level in LEVELS]),
            ("right", [f"{1 - level:.4f}" for level in LEVELS]),
            ("share", [f"{share:.5f}" for share in self.shares().values()]),
        ]
        return "\n".join([title, *(f"{name:<{width}}  " + " ".join(f"{x:>8}" for x in row) for name, row in rows)])
