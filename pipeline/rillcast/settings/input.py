"""Settings of the input: where observations come from, and which records count as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from rillcast.settings.section import Positive, Section

FILE_FORMATS: Final = ("csv", "parquet")


class FieldSettings(Section):
    """Where stream, time and observation stand in a record, so that a topic that is there already works unchanged.

    In CSV and Parquet files they name columns; there is nothing beside the value.
    """

    unique_id: str = "unique_id"
    """Stream id: a member, a path of members (`tags.host`), `$key`, `$header.NAME`, or `$ce.NAME` (a CloudEvents
    attribute)."""
    ds: str = "ds"
    """Event time: a member, a path, `$timestamp` (the record's own), `$header.NAME`, or `$ce.NAME`."""
    y: str = "y"
    """Observation: a member or a path."""
    ds_unit: Literal["s", "ms", "us", "ns"] = "ms"
    """Unit of a `ds` that is a whole number."""
    x: str = "x"
    """Covariates at the event: a member or a path to an object; empty = they are members of the record itself."""
    future: str = "future"
    """Covariates for the slots ahead: a member or a path to an object with a list of each."""


class InputSettings(Section):
    """Where observations come from, and what is taken for one."""

    topic: str = "observations"
    """Kafka topic of the observations, keyed by stream id. Read unless `input.path` is set."""
    path: str | None = None
    """File of the observations (.csv, .jsonl or .parquet; .gz allowed for the first two); `-` is standard input."""
    format: Literal["auto", "json", "csv", "parquet", "msgpack", "avro", "protobuf", "json_schema"] = "auto"
    """How observations are written. A topic: json (`auto`), msgpack, or with a schema registry avro, protobuf or
    json_schema. A file: json, csv or parquet; `auto` goes by its name, and takes stdin for JSON Lines."""
    envelope: Literal["none", "cloudevents"] = "none"
    """`cloudevents`: each record is a CloudEvent 1.0, in binary or structured mode, with the observation as its
    data."""
    fields: FieldSettings = FieldSettings()
    protobuf_descriptors: Path | None = None
    """What `protoc --include_imports --descriptor_set_out` wrote, for `input.protobuf_message`."""
    protobuf_message: str = "rillcast.v1.Observation"
    """Full name of the Protobuf message; the default needs no descriptors."""
    rate: Annotated[float, Field(ge=0)] = 0.0
    """Events per second at which a file is read; 0 = as fast as it goes."""
    max_record_bytes: Annotated[int, Field(gt=0)] = 1_048_576
    """A larger record is a dead letter."""
    max_id_bytes: Annotated[int, Field(gt=0)] = 512
    """A longer `unique_id` (in UTF-8) makes the record a dead letter."""
    max_abs_y: Positive = 1e15
    """A `y` of larger magnitude makes the record a dead letter: float32 statistics would overflow."""
    max_abs_x: Positive = 1e15
    """A covariate of larger magnitude cannot be used."""
    covariates_missing: Literal["mask", "dead_letter"] = "mask"
    """What becomes of an event that lacks a covariate of the model: the model sees that it is missing, or the record is
    a dead letter. Those for the slots ahead may always be missing."""
    covariates_out_of_range: Literal["mask", "dead_letter"] = "mask"
    """What becomes of an event with a covariate beyond `input.max_abs_x`: it counts as missing, or the record is a dead
    letter."""
    streams_path: Path | None = None
    """Table (.csv, .jsonl, .parquet) with `unique_id` and columns of static covariates and categories, for events that
    bring none. Read once, at the start."""
    max_future_s: Annotated[float, Field(ge=0)] = 86_400.0
    """A `ds` later than the record's own timestamp by more makes the record a dead letter: a clock that is wrong would
    make every right event after it late. 0 = any."""
    late: Literal["dead_letter", "drop"] = "dead_letter"
    """Handling of an event that is older than its stream's newest, and later than `input.allowed_lateness_periods`
    allows: `dead_letter` makes its record a dead letter, `drop` only counts it."""
    allowed_lateness_periods: Annotated[int, Field(ge=0, le=1000)] = 0
    """A late event that lies at most so many slots before its stream's newest is put into place: the stream goes back,
    and the forecasts since then are published again as revisions. Costs two more rows of state for each stream, see
    [data.md](data.md). 0 = no late event is."""
    duplicates: Literal["ignore", "last_wins"] = "ignore"
    """What becomes of another value for a slot that a stream has seen; `last_wins` puts it in the place of the first,
    within `input.allowed_lateness_periods`."""

    @property
    def is_table(self) -> bool:
        """Whether the input is a CSV or Parquet file."""
        if self.path is None or self.format not in ("auto", *FILE_FORMATS):
            return False
        name = self.path.lower().removesuffix(".gz")
        return self.format in FILE_FORMATS or name.endswith((".csv", ".parquet"))
