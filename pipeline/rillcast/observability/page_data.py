"""What the live page asks for, as plain JSON values: the charted streams with their alarms.

Owns: the documents of `/api/streams` and `/api/summary`, which are the page's own and change with it. Does not know:
HTTP, how the page draws.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from rillcast.observability.live_view import LiveView
from rillcast.observability.stream_alarms import SEVERITIES, StreamAlarm, StreamAlarms

_LISTED_ALARMS: Final = 50


class PageData:
    """May be asked from any thread."""

    def __init__(self, live_view: LiveView, alarms: StreamAlarms) -> None:
        """Begin.

        Args:
            live_view: The charted streams, and the figures over all streams.
            alarms: The alarms.
        """
        self._live_view = live_view
        self._alarms = alarms

    def summary(self) -> dict[str, Any]:
        """Return the figures over all streams."""
        by_severity = self._alarms.severities()
        return self._live_view.summary() | {"open_alarms": {name: by_severity[name] for name in SEVERITIES}}

    def streams(self) -> dict[str, Any]:
        """Return the summary, a short form of every charted stream, and the alarms that opened last."""
        streams = self._live_view.streams()
        alarms = self._alarms.of(stream["unique_id"] for stream in streams)
        for stream in streams:
            stream["alarms"] = [_span(alarm) for alarm in alarms.get(stream["unique_id"], ())]
        newest = self._alarms.open()[: -_LISTED_ALARMS - 1 : -1]
        return {"summary": self.summary(), "streams": streams, "open_alarms": [_span(alarm) for alarm in newest]}

    def stream(self, unique_id: str) -> dict[str, Any]:
        """Return everything that is kept of a stream.

        Raises:
            KeyError: It is not charted, or has had no event.
        """
        shown = self._live_view.stream(unique_id)
        alarms = self._alarms.of([unique_id]).get(unique_id, ())
        return shown | {"alarms": [_span(alarm) for alarm in alarms]}

    def follow(self, unique_id: str) -> None:
        """Chart a stream from its next event on."""
        self._live_view.follow(unique_id)


def _span(alarm: StreamAlarm) -> dict[str, Any]:
    return asdict(alarm)
