"""What the silence of a stream is as an alarm: its words and figures, for records and for people.

Does not know: how a silence is found (`rillcast.engine.overdue`), or where its alarm goes.
"""

from __future__ import annotations

from typing import Final

from rillcast.bundle.alarms import time_text
from rillcast.engine.overdue import OverdueChange

KIND: Final = "silence"
_CRITICAL: Final = 10  # times the level


def described(change: OverdueChange) -> dict[str, object]:
    """Return what `rillcast.bundle.alarms.described` returns of an alarm that the model finds.

    A silence as long as is allowed comes once in an interval, which is its strength; a longer one has more by its
    length. Nothing was observed, so there is nothing to compare with a forecast.
    """
    strength = change.interval * change.behind / max(1, change.allowed)
    return {
        "kind": KIND,
        "direction": None,
        "severity": "critical" if change.behind >= _CRITICAL * change.allowed else "warning",
        "strength": strength,
        "first": time_text(change.first),
        "last": time_text(change.last),
        "expected": None,
        "observed": None,
    }
