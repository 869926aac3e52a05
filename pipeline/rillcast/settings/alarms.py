"""Settings of the alarms."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from rillcast.rate import days_between
from rillcast.settings.section import FileText, Section


def _rate(value: str) -> str:
    days_between(value)
    return value


class AlarmSettings(Section):
    """Records where an alarm of a stream opens and closes, in the same commits as the forecasts."""

    topic: str | None = None
    """Kafka topic of the alarms, keyed by stream id; unset = no such records."""
    path: FileText | None = None
    """File of the alarms (.jsonl), if `output.path` is set; unset = no such records. It is replaced or appended to as
    `output.path`."""
    per_stream: Annotated[str, AfterValidator(_rate)] = "1/week"
    """How many alarms of a stream are wanted, as a number and `hour`, `day`, `week`, `month` or `year`. Each stream
    learns the level at which its alarms come so often. At most one in 50 periods."""
