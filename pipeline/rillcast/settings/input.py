"""Settings of the input: where observations come from, and which records are accepted.

Owns: the sections `input` and `input.fields`. Does not know: how a record is decoded (`rillcast.codecs.observations`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator, model_validator

from rillcast.reading.files import TextForm, stream_of
from rillcast.reading.paths import conditions, is_plain, names
from rillcast.reading.times import Unit
from rillcast.settings.section import MAY_BE_EMPTY, FilePath, FileText, Positive, Section

FILE_FORMATS: Final = ("csv", "parquet")
TOPIC_FORMATS: Final = ("msgpack", "avro", "protobuf", "json_schema")
REGISTRY_FORMATS: Final = TOPIC_FORMATS[1:]
METRIC_FORMATS: Final = ("telegraf", "influx")


class FieldSettings(Section):
    """Names of the members of a record, so that an existing topic works unchanged.

    In CSV and Parquet files they are names of columns; only JSON-like records have paths, keys and headers.
    """

    unique_id: Annotated[str, MAY_BE_EMPTY] = "unique_id"
    """Member with the stream id. A name, a path of names (`tags.host`), `$key`, `$header.NAME`, or `$ce.NAME` (a
    CloudEvents attribute). Several, separated by commas, are joined by `/`; `tags.*` joins all members of an object. Of
    a file it may be empty: the whole file is one stream, called like the file."""
    ds: str = "ds"
    """Member with the event time. A name, a path of names, `$timestamp` (the record's own), `$header.NAME`, or
    `$ce.NAME`."""
    y: str = "y"
    """Member with the observation. A name or a path of names. Several, separated by commas, are streams of their own,
    and so is each number in an object (`fields.*`); the member's name is the last part of their ids. `readings[].v` is
    the member `v` of each element of an array, see [records.md](records.md)."""
    ds_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Unit of a `ds` that is a number. `auto` is ms, with `input.format` telegraf s, and with influx ns."""
    x: Annotated[str, MAY_BE_EMPTY] = "x"
    """Object with the covariates at the event. A name or a path of names; empty = they are members of the record
    itself."""
    future: str = "future"
    """Object with the covariates of the periods ahead, a list for each covariate. A name or a path of names."""

    @property
    def unit(self) -> Unit:
        """Unit of a time that is a number, where the format says nothing else."""
        return "ms" if self.ds_unit == "auto" else self.ds_unit


class InputSettings(Section):
    """The source of observations, and the limits of an acceptable record."""

    topic: str = "observations"
    """Kafka topic of the observations, keyed by stream id. Read unless `input.path` is set."""
    path: FileText | None = None
    """File of the observations (.csv, .jsonl or .parquet; .gz allowed for the first two); `-` is standard input."""
    format: Literal[
        "auto", "json", "csv", "parquet", "msgpack", "avro", "protobuf", "json_schema", "telegraf", "influx"
    ] = "auto"
    """Format of the observations. Of a topic: json (`auto`), msgpack, telegraf (metrics in Telegraf's JSON), influx
    (metrics in InfluxDB's line protocol), or with a schema registry avro, protobuf or json_schema. Of a file: json,
    telegraf, influx, csv or parquet; `auto` takes it from the file's name, and json for standard input."""
    envelope: Literal["none", "cloudevents"] = "none"
    """Envelope of a record. `cloudevents`: each record is a CloudEvent 1.0, in binary or structured mode, and its data
    are the observation."""
    separator: Annotated[str, MAY_BE_EMPTY] = ","
    r"""Separates the cells of a CSV file: one character, such as `;`, or `\t` for a tab."""
    decimal: Literal[".", ","] = "."
    """Stands between the whole part and the fraction of a number in a CSV file."""
    encoding: str = "utf-8"
    """Encoding of a CSV or JSON Lines file, by Python's names (`latin-1`, `cp1252`). UTF-16 is recognised by the mark
    at its beginning."""
    fields: FieldSettings = FieldSettings()
    only: str | None = None
    """Takes only records whose members have these texts, such as `name=cpu,tags.dc=eu|us`; the others are counted and
    left out. In a table the members are columns. Unset = all records."""
    protobuf_descriptors: FilePath | None = None
    """File that `protoc --include_imports --descriptor_set_out` wrote. Needed for any `input.protobuf_message` but the
    default."""
    protobuf_message: str = "rillcast.v1.Observation"
    """Full name of the Protobuf message of an observation."""
    unmatched: Literal["drop", "dead_letter"] = "drop"
    """Handles an event that no table of `models` takes. `drop` only counts it; `dead_letter` rejects its record."""
    rate: Annotated[float, Field(ge=0)] = 0.0
    """Limits how fast a file is read, in events per second; 0 = no limit. Set it for demonstrations."""
    order: Literal["auto", "file"] = "auto"
    """Order in which a file is read. `auto`: where its streams stand one after the other, their records are taken in
    turns, so that the model steps many streams at once; each stream keeps its order. `file`: as they stand. So does a
    pipe, a file with `input.rate`, and a run that limits its streams."""
    max_record_bytes: Annotated[int, Field(gt=0)] = 1_048_576
    """Limits the size of a record, in bytes; a larger record becomes a dead letter."""
    max_id_bytes: Annotated[int, Field(gt=0)] = 512
    """Limits the length of a `unique_id`, in bytes of UTF-8; a record with a longer one becomes a dead letter."""
    max_abs_y: Positive = 1e15
    """Limits the magnitude of `y`; a record with a larger one becomes a dead letter. Beyond the default, float32
    statistics may overflow."""
    max_abs_x: Positive = 1e15
    """Limits the magnitude of a covariate; `input.covariates_out_of_range` handles a larger one."""
    covariates_missing: Literal["mask", "dead_letter"] = "mask"
    """Handles an event that lacks a covariate of the model. `mask` shows the model that the value is missing;
    `dead_letter` rejects the record. Covariates of the periods ahead may always be missing."""
    covariates_out_of_range: Literal["mask", "dead_letter"] = "mask"
    """Handles an event with a covariate beyond `input.max_abs_x`. `mask` treats the value as missing; `dead_letter`
    rejects the record."""
    streams_path: FilePath | None = None
    """Table (.csv, .jsonl, .parquet) with `unique_id` and columns of static covariates and categories, for events that
    bring none. It is read once, at the start."""
    max_future_s: Annotated[float, Field(ge=0)] = 86_400.0
    """Limits how far `ds` may lie after the record's own timestamp, in seconds; 0 = no limit. A later record becomes a
    dead letter, because a wrong clock would make all correct events after it late."""
    late: Literal["dead_letter", "drop"] = "dead_letter"
    """Handles an event that is later than `input.allowed_lateness_periods` allows. `dead_letter` rejects the record;
    `drop` only counts it."""
    allowed_lateness_periods: Annotated[int, Field(ge=0, le=1000)] = 0
    """Accepts an event up to this many periods older than the newest event of its stream; 0 = no late event. The
    forecasts since then are published again as revisions. With `input.aggregate`: lets an event correct the aggregate
    of one of this many closed periods. Costs two more rows of state per stream, see [data.md](data.md)."""
    duplicates: Literal["ignore", "last_wins"] = "ignore"
    """Handles a second value for a period of a stream. `ignore` keeps the first; `last_wins` replaces it, within
    `input.allowed_lateness_periods`. Without effect with `input.aggregate`."""

    aggregate: Literal["none", "last", "first", "mean", "sum", "count", "min", "max"] = "none"
    """Aggregates the events of each stream and period of the model's frequency, by event time, into one observation,
    see [data.md](data.md#aggregation). `none`: every event is an observation. `count` counts events, with or without
    `y`; the others use those that have a `y`."""
    close: Literal["stream", "partition"] = "stream"
    """Closes a period, so that its aggregate is forecast. `stream`: with the stream's first event of a later period.
    `partition`: for all streams of a partition at once, when the partition's newest event time, less `input.grace_s`,
    passes the end of the period."""
    grace_s: Annotated[float, Field(ge=0)] = 0.0
    """Keeps periods open for late events with `input.close = partition`, in seconds of event time. Each period's length
    of it costs 16 bytes of state per stream (24 for `first` and `last`)."""
    idle_s: Annotated[float, Field(ge=0)] = 0.0
    """Lets the event time of a partition without records go on like the clock, after this many seconds, with
    `input.close = partition`; 0 = never: its last periods stay open. Choose it longer than producers and brokers may be
    away: what they send afterwards for closed periods is late."""
    empty: Literal["auto", "missing", "zero"] = "auto"
    """Value of a period without values, of a stream that is not silent: a missing observation, or 0. `auto` is `zero`
    for `sum` and `count`, else `missing`."""
    silent_after: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Lets a stream sleep after this many consecutive periods without events: further ones are not stepped, until its
    next event."""

    overdue_periods: Annotated[int, Field(ge=0)] = 3
    """Counts a stream as overdue (`rillcast_overdue_streams`) when its newest event lies more than this many periods of
    the model's frequency behind the newest event time of its partition; 0 = none is counted. Raise it where streams
    are sparse. With a topic or file of alarms or anomalies, no shorter silence has a record; 0 = none has."""

    @field_validator("separator")
    @classmethod
    def _tab_by_name(cls, value: str) -> str:
        return "\t" if value in ("\\t", "tab") else value

    @model_validator(mode="after")
    def _aggregation_is_possible(self) -> InputSettings:
        if self.idle_s and (self.aggregate == "none" or self.close != "partition"):
            raise ValueError("input.idle_s is set, which needs input.aggregate and input.close = 'partition'")
        if self.idle_s and self.path is not None:
            raise ValueError(
                f"input.idle_s is set, but input.path is {self.path!r}: a file closes its periods at its end"
            )
        if self.grace_s and (self.aggregate == "none" or self.close != "partition"):
            raise ValueError(
                "input.grace_s is set, which needs input.aggregate and input.close = 'partition'; a period that closes "
                "with its stream's next event has no grace"
            )
        return self

    @model_validator(mode="after")
    def _mapping_can_be_read(self) -> InputSettings:
        conditions(self.only)
        return self

    @property
    def time_unit(self) -> Unit:
        """Unit of a time that is a number."""
        own: dict[str, Unit] = {"telegraf": "s", "influx": "ns"}
        return own.get(self.format, "ms") if self.fields.ds_unit == "auto" else self.fields.ds_unit

    @property
    def members(self) -> tuple[str, str, str]:
        """Names of the members of stream, time and observation; metrics have names of their own."""
        given = self.fields.unique_id, self.fields.ds, self.fields.y
        if self.format not in METRIC_FORMATS:
            return given
        own = {"unique_id": "name,tags.*", "ds": "timestamp", "y": "fields.*"}
        return own.get(given[0], given[0]), own.get(given[1], given[1]), own.get(given[2], given[2])

    @property
    def is_expanded(self) -> bool:
        """Whether a record may be several observations, or is left out by its members."""
        plain = all(name.startswith("$") or is_plain(name) for name in self.members)
        return not plain or self.only is not None or self.format in METRIC_FORMATS

    @property
    def has_members(self) -> bool:
        """Whether the last part of a stream's id is the member of its observation."""
        return len(names(self.members[2])) > 1 or self.members[2].endswith("*")

    @model_validator(mode="after")
    def _file_can_be_read(self) -> InputSettings:
        self.form.check()
        return self

    @property
    def form(self) -> TextForm:
        """How a text file is written."""
        return TextForm(self.separator, self.decimal, self.encoding)

    @property
    def stream_of_file(self) -> str:
        """Id of the only stream of a file without ids; empty where the records have ids."""
        return "" if self.path in (None, "-") or self.fields.unique_id else stream_of(Path(str(self.path)))

    @property
    def is_table(self) -> bool:
        """Whether the input is a CSV or Parquet file."""
        if self.path is None or self.format not in ("auto", *FILE_FORMATS):
            return False
        name = self.path.lower().removesuffix(".gz")
        return self.format in FILE_FORMATS or name.endswith((".csv", ".parquet"))
