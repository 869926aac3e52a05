"""What the probes say: has the process started, can it serve, does its loop still turn.

Owns: the conditions and how they add up. Does not know: HTTP, Kafka, or what the loop does.

Invariant: liveness hangs on the loop's own turns and on nothing outside the process. A broker that is away
makes a member unready at most, never dead: starting it again would cost its state and mend nothing.

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
        liveness_timeout_s: a loop that has not turned for this long is taken for stuck.
        clock: monotonic seconds.
        started: the bundle is loaded and the source is open.
        assigned: the source has said which partitions are this member's (perhaps none).
        restored: the state of every assigned partition is as of its committed offset.
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
        """Say that the loop has turned once more."""
        self._last_beat = self.clock()

    @property
    def beat_age_s(self) -> float:
        """Seconds since the loop last turned."""
        return max(0.0, self.clock() - self._last_beat)

    @property
    def live(self) -> bool:
        """Whether the loop still turns."""
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
