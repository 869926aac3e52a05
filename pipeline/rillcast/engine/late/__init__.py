"""Late events: a stream goes back to before the event and is stepped again.

Rule: afterwards the stream's state equals that of a stream that received the events in the order of time.
Does not know: transports, publishing, commits.

The engine, the residents and the stores import from this package only, not from its modules.
"""

from rillcast.engine.late.alarms import AlarmChange
from rillcast.engine.late.replay import LateReplay, LateResults, Revised
from rillcast.engine.late.retained import AllowedLateness, RetainedSteps
from rillcast.engine.late.stored import is_row, page_columns

__all__ = [
    "AlarmChange",
    "AllowedLateness",
    "LateReplay",
    "LateResults",
    "RetainedSteps",
    "Revised",
    "is_row",
    "page_columns",
]
