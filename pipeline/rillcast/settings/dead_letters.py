"""Settings of the dead letters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rillcast.settings.section import FileText, Section


class DeadLetterSettings(Section):
    """The destination of rejected records: a topic if forecasts go to a topic, else a file."""

    topic: str = "dead-letters"
    """Kafka topic of the dead letters."""
    path: FileText = "dead-letters.jsonl"
    """File of the dead letters (.jsonl), if `output.path` is set; replaced or appended to as `output.path`."""
    max_bytes: Annotated[int, Field(gt=0)] = 900_000
    """Limits the size of the original in a dead letter, in bytes; a longer one is cut. The header
    `rillcast-original-bytes` has its full size."""
