"""Silences of streams: who falls silent and wakes while the time of a partition goes on.

`watch` decides, `timetable` says which streams to look at, and `changes` is what the engine returns.
"""

from rillcast.engine.overdue.changes import OverdueChange
from rillcast.engine.overdue.watch import HOST_BYTES, OverdueWatch, page_columns

__all__ = ["HOST_BYTES", "OverdueChange", "OverdueWatch", "page_columns"]
