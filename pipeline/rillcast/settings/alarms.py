"""Settings of the alarms."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rillcast.rate import days_between
from rillcast.settings.section import FileText, Section


def _rate(value: str) -> str:
    days_between(value)
    return value


class AlarmSettings(Section):
    """Alarms of streams: how many are wanted, and where a record goes when one opens and when it closes."""

    topic: str | None = None
    """Kafka topic of the alarms, keyed by stream id; unset = no such records."""
    path: FileText | None = None
    """File of the alarms (.jsonl), if `output.path` is set; unset = no such records. It is replaced or appended to as
    `output.path`."""
    per_stream: Annotated[str, AfterValidator(_rate)] = "1/week"
    """How many alarms of a stream are wanted, as a number and `hour`, `day`, `week`, `month` or `year`. Each stream
    learns the level at which its alarms come so often. At most one in 50 periods."""
    labelled_streams: Annotated[int, Field(ge=0)] = 100
    """Largest number of open alarms that `/metrics` of a member names by stream (`rillcast_stream_alarm`), so that
    Alertmanager can have a notification for each; 0 = none. It bounds the number of series."""
