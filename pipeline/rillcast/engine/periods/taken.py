"""What became of raw events, for those who count and report it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from rillcast.arrays import StatusArray
from rillcast.events import EventBatch


class RawOutcome(enum.IntEnum):
    """What became of a raw event."""

    JOINED = 0
    ALREADY_APPLIED = 1  # the stream's restored state already contains the event
    LATE = 2  # its period is closed
    TOO_MANY_STREAMS = 3  # the stream is new, and its partition has reached the limit on streams
    TOO_MANY_NEW_STREAMS = 4  # the stream is new, and its partition has reached the limit on new streams a second
    CORRECTED = 5  # its period is closed, and its aggregate was corrected


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of some raw events.

    Attributes:
        events: The events.
        outcome: `(n,)` int8, `RawOutcome`.
    """

    events: EventBatch
    outcome: StatusArray
