"""Settings of the log."""

from __future__ import annotations

from typing import Literal

from rillcast.settings.section import Section


class LogSettings(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important level that is written."""
    format: Literal["console", "json"] = "console"
    """Form of an entry: a line of text or a JSON object."""
