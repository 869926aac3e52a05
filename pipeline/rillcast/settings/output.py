"""Settings of the output: where forecasts go, and in which form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

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
    decimals: Annotated[int, Field(ge=0, le=20)] | Literal["auto", "full"] = "full"
    """Decimal places of each number in a JSON forecast. `full`: as many as float32 has. `auto`: as few as keep the unit
    of the last place under a thousandth of the 80 % interval's width, see [records.md](records.md#digits). A number
    such as 3: at most that many. Fewer places make records smaller, not faster to write."""

    @field_validator("decimals", mode="before")
    @classmethod
    def _unset_is_full(cls, given: object) -> object:
        return "full" if given is None else given  # files of settings from before `full` had a name
