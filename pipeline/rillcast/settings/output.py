"""Settings of the output: where forecasts go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rillcast.settings.section import Section


class OutputSettings(Section):
    """Where forecasts go."""

    topic: str = "forecasts"
    """Kafka topic of the forecasts, keyed by stream id. Written unless `output.path` is set."""
    path: str | None = None
    """File of the forecasts (.jsonl or .parquet); `-` is standard output."""
    codec: Literal["json", "msgpack", "float32", "avro"] = "json"
    """Form of a forecast record; the binary ones are for topics only, see [records.md](records.md). `avro` needs
    `registry.url`."""
    decimals: Annotated[int, Field(ge=0, le=20)] | None = None
    """Places after the point that a JSON forecast keeps of each number; by default as many as float32 has."""
