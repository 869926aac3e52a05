"""The progress of a run over a file, as one line on a terminal: records, share, rate and time left.

Owns: the line. Entries of the log clear it first, and the next poll draws it again. Does not know: how a file is read.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO

from rillcast.settings import Settings
from rillcast.transports.base import Source

_REDRAW_S: Final = 0.5
_WINDOW_S: Final = 10.0  # the rate is that of the last seconds
_CLEAR: Final = "\r\x1b[K"


class Progress:
    """The line of one run."""

    def __init__(self, terminal: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Show nothing yet."""
        self._terminal, self._clock = terminal, clock
        self._drawn = False
        self._reached: deque[tuple[float, int]] = deque()

    def watch(self, source: Source) -> Source:
        """Show how far a source on a file is; another one is left alone."""
        from rillcast.transports.file.source import FileSource

        if isinstance(source, FileSource):
            source.on_poll = self.reached
        return source

    def reached(self, records: int, share: float | None) -> None:
        """Draw the line, at most twice a second.

        Args:
            records: Records that were handed out.
            share: Their share of the file, 0 to 1; None = unknown.
        """
        now = self._clock()
        if self._reached and now < self._reached[-1][0] + _REDRAW_S:
            return
        self._reached.append((now, records))
        while now - self._reached[0][0] > _WINDOW_S and len(self._reached) > 2:
            self._reached.popleft()
        since, before = self._reached[0]
        rate = (records - before) / (now - since) if now > since else 0.0
        self._terminal.write(_CLEAR + line(records, share, rate))
        self._terminal.flush()
        self._drawn = True

    def clear(self, _entry: object = None) -> bool:
        """Remove the line; return True, so that it may stand as a filter of the log."""
        if self._drawn:
            self._terminal.write(_CLEAR)
            self._terminal.flush()
            self._drawn = False
        return True


def line(records: int, share: float | None, rate: float) -> str:
    """Return the text: `120,000 of about 480,000 records (25 %), 20,000/s, about 0:18 left`."""
    parts = [f"{records:,} records"]
    expected = round(records / share) if share and records else None
    if expected is not None:
        parts = [f"{records:,} of about {expected:,} records ({100 * records / expected:.0f} %)"]
    if rate > 0:
        parts.append(f"{rate:,.0f}/s")
        if expected is not None:
            parts.append(f"about {_minutes((expected - records) / rate)} left")
    return ", ".join(parts)


def of_run(settings: Settings) -> Progress | None:
    """Return the progress of a run, None where none is shown.

    It is shown where the input is a file, and standard error a terminal that has neither forecasts nor JSON.
    """
    if settings.input.path in (None, "-") or settings.log.format == "json" or not sys.stderr.isatty():
        return None
    if settings.output.path == "-" and sys.stdout.isatty():
        return None
    progress = Progress(sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.addFilter(progress.clear)
    return progress


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
