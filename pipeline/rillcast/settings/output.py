"""Settings of the output: where forecasts go, and in which form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rillcast.settings.section import FileText, Section


class OutputSettings(Section):
    """The destination of forecasts."""

    topic: str = "forecasts"
    """Kafka topic of the forecasts, keyed by stream id. Written unless `output.path` is set."""
    path: FileText | None = None
    """File of the forecasts (.jsonl or .parquet); `-` is standard output. A run over a file replaces an existing one
    when it ends well, a run over a topic appends to it, see [delivery.md](delivery.md)."""
    codec: Literal["json", "msgpack", "float32", "avro"] = "json"
    """Format of a forecast record, see [records.md](records.md). Files take json only; `avro` needs `registry.url`."""
    decimals: Annotated[int, Field(ge=0, le=20)] | None = None
    """Decimal places of each number in a JSON forecast; by default as many as float32 has. Set it to make records
    smaller."""
