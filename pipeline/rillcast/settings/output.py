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
    shape: Literal["nested", "rows"] = "nested"
    """Shape of the records. `nested`: one record a forecast. `rows`: one flat record a step, which databases and SQL
    engines take as it is, see [records.md](records.md). Rows need the codec json or avro."""
    row_key: Literal["origin", "ds"] = "origin"
    """Key of a row. `origin`: `unique_id`, `origin`, `step`; a table with that key keeps every forecast, and a repeat
    or a revision replaces its row. `ds`: `unique_id`, `ds`; the table keeps the newest forecast of each period."""
    envelope: Literal["none", "connect"] = "none"
    """Envelope of rows in JSON. `connect` puts Kafka Connect's schema into each key and value, for a JsonConverter that
    has `schemas.enable`."""
    decimals: Annotated[int, Field(ge=0, le=20)] | None = None
    """Decimal places of each number in a JSON forecast; by default as many as float32 has. Set it to make records
    smaller."""
