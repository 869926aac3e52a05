"""Settings of the log."""

from __future__ import annotations

from typing import Literal

from rillcast.settings.section import Section


class LogSettings(Section):
    """Logging, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important level that is shown."""
    format: Literal["console", "json"] = "console"
    """One line of text or one JSON object per entry."""
