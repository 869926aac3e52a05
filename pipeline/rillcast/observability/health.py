"""The conditions of the probes: the process has started, it can serve, its loop still runs.

Owns: the conditions and how they add up. Does not know: HTTP, Kafka, or what the loop does.

Invariant: liveness depends on the loop's own iterations and on nothing outside the process. A broker that is
unavailable makes a member unready, never dead: a restart would cost its state and repair nothing.

Conditions are single booleans and one float that one thread writes and others read, so that no lock is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

LIVENESS_TIMEOUT_S: Final = 60.0


@dataclass(slots=True)
class Health:
    """The conditions of one worker.

    Attributes:
        liveness_timeout_s: Seconds without an iteration after which the loop counts as stuck.
        clock: Monotonic seconds.
        started: The bundle is loaded and the source is open.
        assigned: The source has assigned this member its partitions (perhaps none).
        restored: The state of every assigned partition is as of its committed offset.
    """

    liveness_timeout_s: float = LIVENESS_TIMEOUT_S
    clock: Callable[[], float] = time.monotonic
    started: bool = False
    assigned: bool = False
    restored: bool = False
    _last_beat: float = field(init=False)

    def __post_init__(self) -> None:
        if self.liveness_timeout_s <= 0:
            raise ValueError(f"liveness_timeout_s must be positive, got {self.liveness_timeout_s}")
        self._last_beat = self.clock()

    def beat(self) -> None:
        """Note an iteration of the loop."""
        self._last_beat = self.clock()

    @property
    def beat_age_s(self) -> float:
        """Seconds since the last iteration of the loop."""
        return max(0.0, self.clock() - self._last_beat)

    @property
    def live(self) -> bool:
        """Whether the loop still runs."""
        return self.beat_age_s < self.liveness_timeout_s

    @property
    def ready(self) -> bool:
        """Whether events are being served."""
        return all(self.readiness().values())

    def startup(self) -> Mapping[str, bool]:
        """Conditions of `/startupz`."""
        return {"started": self.started}

    def readiness(self) -> Mapping[str, bool]:
        """Conditions of `/readyz`."""
        return {"started": self.started, "assigned": self.assigned, "restored": self.restored, "live": self.live}

    def liveness(self) -> Mapping[str, bool]:
        """Conditions of `/livez`."""
        return {"live": self.live}
