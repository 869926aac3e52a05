"""Settings of the alarms."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from rillcast.rate import NEVER, days_between
from rillcast.settings.section import FileText, Section


def _budget(value: str | dict[str, str]) -> str | dict[str, str]:
    for rate in [value] if isinstance(value, str) else value.values():
        if rate.strip() not in NEVER:
            days_between(rate)
    return value


class AlarmSettings(Section):
    """Alarms of streams: how many are wanted, and where a record goes when one opens and when it closes."""

    topic: str | None = None
    """Kafka topic of the alarms, keyed by stream id; unset = no such records."""
    path: FileText | None = None
    """File of the alarms (.jsonl), if `output.path` is set; unset = no such records. It is replaced or appended to as
    `output.path`."""
    per_stream: Annotated[str | dict[str, str], AfterValidator(_budget)] = "1/week"
    """How many alarms of a stream are wanted, as a number and `hour`, `day`, `week`, `month` or `year`; `off` = none.
    Each stream learns the level at which its alarms come so often, and after how long a silence it has one. At most one
    in 50 periods. A table gives budgets by
    patterns of stream ids (`{"db-*" = "1/day", "test-*" = "off"}`): the first that fits counts, and a stream that none
    fits has `1/week`. In a flag or the environment the table is a JSON object."""
    labelled_streams: Annotated[int, Field(ge=0)] = 100
    """Largest number of open alarms that `/metrics` of a member names by stream (`rillcast_stream_alarm`), so that
    Alertmanager can have a notification for each; 0 = none. It bounds the number of series."""
