"""Settings of the dead letters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rillcast.settings.section import Section


class DeadLetterSettings(Section):
    """Where records go that cannot be used. They go where the forecasts go: to a topic or to a file."""

    topic: str = "dead-letters"
    """Kafka topic of the dead letters."""
    path: str = "dead-letters.jsonl"
    """File of the dead letters, if `output.path` is set."""
    max_bytes: Annotated[int, Field(gt=0)] = 900_000
    """A longer original is cut to this length; the header `rillcast-original-bytes` says how long it was."""
