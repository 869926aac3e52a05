"""Logging of the command line, to standard error: one line of text, or one JSON object, per entry.

Facts that a reader may search for go into an entry's `fields`: `log.info("text", extra={"fields": {"name": value}})`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import Any, Final, Literal

from rillcast.errors import RillcastError

log = logging.getLogger(__name__)

FIELDS: Final = "fields"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, its fields and, for an error, its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry as one line."""
        entry: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, FIELDS, {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class ConsoleFormatter(logging.Formatter):
    """One line of text: time (UTC), level, logger, message, and its fields as JSON."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is logging's
        """Return the line without a traceback."""
        line = super().formatMessage(record)
        fields = getattr(record, FIELDS, None)
        return f"{line} {json.dumps(fields)}" if fields else line


def configure(level: str, form: Literal["console", "json"]) -> None:
    """Send everything from `level` on to standard error in the given form."""
    formatter = JsonFormatter() if form == "json" else ConsoleFormatter()
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("kafka").setLevel(logging.WARNING)  # INFO there is one line per connection and rebalance step


def report(error: RillcastError) -> None:
    """Say why a command ends: in the form of the log if that is JSON, else as one line of text.

    A command may end before it knows its settings; the environment decides then, as in the container image.
    """
    root = logging.getLogger()
    if not root.handlers and os.environ.get("RILLCAST_LOG__FORMAT") == "json":
        configure("info", "json")
    if any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        facts = {"error": type(error).__name__, "exit_code": error.exit_code}
        log.critical("%s", error, extra={FIELDS: facts})
    else:
        print(f"rillcast: error: {error}", file=sys.stderr)
