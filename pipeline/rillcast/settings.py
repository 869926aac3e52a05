"""Every setting of the service: defaults < `rillcast.toml` < environment < command-line flags.

Owns: names, types, defaults and limits of the settings, and their printed form with secrets redacted. Does not
know: who reads them. An unknown key, wherever it stands, is an error. In the environment a setting is
`RILLCAST_` and its path, joined by two underscores: `kafka.bootstrap_servers` is
`RILLCAST_KAFKA__BOOTSTRAP_SERVERS`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rillcast.errors import SettingsError

ENV_PREFIX = "RILLCAST_"
DEFAULT_FILE = Path("rillcast.toml")
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
MAX_SECRET_BYTES: Final = 65_536
_FILE_FORMATS: Final = ("csv", "parquet")
_TOPIC_FORMATS: Final = ("msgpack", "avro", "protobuf", "json_schema")

Positive = Annotated[float, Field(gt=0)]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value  # a path as code has it; files and flags have text


class _Section(BaseModel):
    """A table of settings; an unknown key in it is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FieldSettings(_Section):
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


class InputSettings(_Section):
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
    """What becomes of an event that is older than its stream's newest, and too old for `input.rewind_slots`; `drop`
    only counts it."""
    rewind_slots: Annotated[int, Field(ge=0, le=1000)] = 0
    """A late event that lies at most so many slots before its stream's newest is put into place: the stream goes back,
    and the forecasts since then are published again as revisions. Costs two more rows of state for each stream, see
    [data.md](data.md). 0 = no late event is."""
    duplicates: Literal["ignore", "last_wins"] = "ignore"
    """What becomes of another value for a slot that a stream has seen; `last_wins` puts it in the place of the first,
    within `input.rewind_slots`."""

    @property
    def is_table(self) -> bool:
        """Whether the input is a CSV or Parquet file."""
        if self.path is None or self.format not in ("auto", *_FILE_FORMATS):
            return False
        name = self.path.lower().removesuffix(".gz")
        return self.format in _FILE_FORMATS or name.endswith((".csv", ".parquet"))


def _require_no_user(address: str, instead: str) -> None:
    """Refuse an address that has a user name or a password in it."""
    if "@" in urlsplit(address).netloc:
        raise ValueError(f"a user name within the address would be printed with it; {instead}")


class RegistrySettings(_Section):
    """The schema registry (Confluent API), for the formats that need one."""

    url: str | None = None
    """Base address; of several, separated by commas, the first that answers is taken."""
    username: str | None = None
    """User name for HTTP basic authentication."""
    password: SecretStr | None = None
    """Password for HTTP basic authentication; never printed."""
    token: SecretStr | None = None
    """Bearer token instead of a user name; never printed."""
    logical_cluster: str = ""
    """Sent along with a token (Confluent Cloud)."""
    ssl_ca_file: Path | None = None
    """CA certificates (PEM) that the registry is checked against; the system's when empty."""
    ssl_certificate_file: Path | None = None
    """This client's certificate (PEM), for mutual TLS."""
    ssl_key_file: Path | None = None
    """This client's private key (PEM), for mutual TLS."""
    timeout_s: Positive = 10.0
    """Longest wait for one answer."""
    auto_register: bool = True
    """Whether `output.codec` avro registers the schema of forecasts, under `<output.topic>-value`, if it is not
    there."""
    validate_json: bool = False
    """Whether format json_schema also holds each record against the schema that its writer registered: about ten times
    as slow, and the validator fetches schemas that the schema refers to."""

    @field_validator("url")
    @classmethod
    def _no_password_in_address(cls, value: str | None) -> str | None:
        for address in (value or "").split(","):
            _require_no_user(address.strip(), "use registry.username, .password")
        return value


class OutputSettings(_Section):
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


class PublishSettings(_Section):
    """Which forecasts are published. Whatever is kept back, every event moves its stream's state and is counted."""

    warming_up: bool = True
    """Whether a stream's first forecasts are published, while it knows fewer slots than the model's context."""
    every: Annotated[int, Field(ge=1)] = 1
    """Only forecasts from every so-manieth slot, counted from the epoch, whatever stream: with hours and 24, those that
    are made at midnight UTC. So a replay publishes the same ones."""
    on_change: Annotated[float, Field(ge=0)] = 0.0
    """Only forecasts that have moved since the stream's last published one: by more than this share of the width of the
    interval that was published for the same slot. At the latest, one is published when half of the last one's horizon
    has passed. After a restart, or when its partition moves, a stream's first forecast is always published. 0 = all."""
    trace_context: bool = False
    """Whether a forecast gets the W3C trace context (headers `traceparent`, `tracestate`) of its observation. Looking
    for it costs a little for each event, hence off."""
    otlp_endpoint: str | None = None
    """Where a span of each traced and sampled observation is posted to (OTLP over HTTP:
    `http://localhost:4318/v1/traces`); its forecast then names that span as its parent. Needs `publish.trace_context`
    and the extra `rillcast[otel]`."""

    @model_validator(mode="after")
    def _spans_have_a_context(self) -> PublishSettings:
        if self.otlp_endpoint is not None and not self.trace_context:
            raise ValueError("publish.otlp_endpoint is set, which needs publish.trace_context = true")
        if self.otlp_endpoint is not None and urlsplit(self.otlp_endpoint).scheme not in ("http", "https"):
            raise ValueError("publish.otlp_endpoint has to begin with http:// or https://")
        _require_no_user(self.otlp_endpoint or "", "leave it to OTEL_EXPORTER_OTLP_HEADERS")
        return self


class DeadLetterSettings(_Section):
    """Where records go that cannot be used. They go where the forecasts go: to a topic or to a file."""

    topic: str = "dead-letters"
    """Kafka topic of the dead letters."""
    path: str = "dead-letters.jsonl"
    """File of the dead letters, if `output.path` is set."""
    max_bytes: Annotated[int, Field(gt=0)] = 900_000
    """A longer original is cut to this length; the header `rillcast-original-bytes` says how long it was."""


class AnomalySettings(_Section):
    """Records of the observations that their forecasts did not expect, beside the forecasts and in the same commits."""

    topic: str | None = None
    """Kafka topic of the anomalous observations, keyed by stream id; by default there is none."""
    path: str | None = None
    """File of the anomalous observations (.jsonl), if `output.path` is set; by default there is none."""
    tail_probability: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """An observation is anomalous if the forecast before gave less than this to one as far out; where forecasts are
    calibrated, this is the share of all observations that is."""


class KafkaSettings(_Section):
    """The connection to Kafka and the consumer group."""

    client: Literal["auto", "librdkafka", "kafka-python"] = "auto"
    """Which client library; `auto` takes librdkafka (confluent-kafka) where it is installed, about ten times faster."""
    bootstrap_servers: str = "localhost:9092"
    """Comma-separated host:port list."""
    group_id: str = "rillcast"
    """Consumer group; members of one group share the partitions."""
    group_instance_id: str | None = None
    """Static membership (KIP-345): a name that survives a restart of this member."""
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    """Where a group starts that has never committed."""
    session_timeout_s: Positive = 45.0
    """A member that is silent for longer is taken for dead."""
    max_poll_interval_s: Positive = 300.0
    """A member that does not poll for longer leaves the group."""
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "none"
    """Compression of what is produced."""
    transactional_id: str | None = None
    """Names this member's transactions across restarts, so that a successor ends what a crash left open; by default
    made of `group_id` and `group_instance_id`, and random without the latter."""
    transaction_timeout_s: Positive = 10.0
    """An open transaction of a dead member holds readers back no longer than this."""
    max_message_bytes: Annotated[int, Field(gt=0)] = 1_000_000
    """Largest record that is produced; the topics' `max.message.bytes` has to allow it."""
    max_fetch_bytes: Annotated[int, Field(gt=0)] = 52_428_800
    """Most bytes that one fetch brings."""
    request_timeout_s: Positive = 30.0
    """Longest wait for one answer of the broker."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to talk to the brokers."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    """Used with SASL_PLAINTEXT and SASL_SSL."""
    sasl_username: str | None = None
    """User name for SASL."""
    sasl_password: SecretStr | None = None
    """Password for SASL; never printed."""
    ssl_ca_file: Path | None = None
    """CA certificates (PEM) that the brokers are checked against; the system's when empty."""
    ssl_certificate_file: Path | None = None
    """This client's certificate (PEM), for mutual TLS."""
    ssl_key_file: Path | None = None
    """This client's private key (PEM), for mutual TLS."""
    ssl_key_password: SecretStr | None = None
    """Password of `kafka.ssl_key_file`, if it is encrypted; never printed."""
    oauth_token_url: str | None = None
    """Token endpoint of the identity provider (OAuth 2.0 client credentials), for OAUTHBEARER."""
    oauth_client_id: str | None = None
    """Client id for OAUTHBEARER."""
    oauth_client_secret: SecretStr | None = None
    """Client secret for OAUTHBEARER; never printed."""
    oauth_scope: str | None = None
    """Scope that is asked for, for OAUTHBEARER."""
    oauth_ca_file: Path | None = None
    """CA certificates (PEM) that the token endpoint is checked against; the system's when empty."""

    @field_validator("oauth_token_url")
    @classmethod
    def _secret_is_not_sent_in_the_clear(cls, value: str | None) -> str | None:
        url = urlsplit(value or "https://unset")
        if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
            raise ValueError("the client secret is sent there: it has to begin with https://")
        _require_no_user(value or "", "use kafka.oauth_client_id, .oauth_client_secret")
        return value

    @model_validator(mode="after")
    def _credentials_are_complete(self) -> KafkaSettings:
        if self.security_protocol.startswith("SASL"):
            oauth = self.sasl_mechanism == "OAUTHBEARER"
            needed = (
                ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
                if oauth
                else ("sasl_username", "sasl_password")
            )
            if missing := [name for name in needed if getattr(self, name) is None]:
                raise ValueError(
                    f"security_protocol {self.security_protocol} with {self.sasl_mechanism} needs "
                    f"{', '.join(f'kafka.{name}' for name in missing)}"
                )
        return self


class WorkerSettings(_Section):
    """The loop: how much at once, how often it commits, how it recovers."""

    max_poll_records: Annotated[int, Field(gt=0)] = 4_000
    """Most events taken by one poll."""
    batch_rows: Annotated[int, Field(gt=0)] = 1_000
    """Most streams stepped by one call of the model. From 256 on a CPU computes no faster, but longer calls wait for
    Python's interpreter less often. Powers of two from 512 on are slow: columns so far apart share lines of a cache."""
    step_beside_from: Annotated[int, Field(ge=0)] | None = None
    """Polls of at least so many events are stepped beside the loop, which meanwhile publishes the poll before and reads
    the next one; smaller ones are published at once. 0 = never beside; by default half of `max_poll_records`, for a
    poll that comes so full says that events wait, and never with kafka-python, whose own thread wants the interpreter
    all the time."""
    poll_timeout_s: Positive = 0.1
    """Longest wait for a first event; also how soon an idle worker notices that it should stop."""
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    """`exactly_once` puts forecasts, dead letters, state and offsets into one Kafka transaction; readers have to read
    committed records only, and see a forecast after at most a commit interval."""
    commit_interval_s: Positive = 0.2
    """Forecasts are flushed and offsets committed this often."""
    flush_timeout_s: Positive = 30.0
    """Longest wait for the acknowledgement of what was published, before the worker gives up."""
    revoke_timeout_s: Positive = 30.0
    """Longest time that partitions which go to another member are flushed, committed and stored; then they are given up
    as they are, and their new owner reads again what was not committed. At most half of `kafka.max_poll_interval_s`."""
    recovery: Literal["restore", "rebuild", "cold"] = "restore"
    """How a partition's state comes back: `restore` loads its stored pages and steps the events since then again with
    the output suppressed; `rebuild` ignores stored pages and steps all retained events; `cold` starts every stream anew
    at the committed offset (its forecasts say `warming_up`)."""


class StateSettings(_Section):
    """Where the streams' state is kept, so that it survives this process."""

    store: Literal["auto", "kafka", "local", "none"] = "auto"
    """`kafka` keeps it in the compacted topic `state.topic`, `local` in the directory `state.path`, `none` not at all:
    then a restart replays the whole input. `auto` is `kafka` where input and output are topics, else `none`."""
    topic: str | None = None
    """Compacted topic with as many partitions as the input, made if it is not there; by default
    `<kafka.group_id>-state`. Each group needs its own."""
    path: Path = Path("rillcast-state")
    """Directory of the local store."""
    snapshot_interval_s: Positive = 30.0
    """Changed pages are written at most this often, and on revoke and shutdown."""
    snapshot_events_per_stream: Annotated[float, Field(ge=0)] = 16.0
    """A partition whose stored streams would have had fewer events than this since they were last written, on average,
    waits: to replay so few is quicker than to write and load them. 0 = write at every interval."""
    snapshot_max_interval_s: Positive = 3600.0
    """It waits no longer than this, so that no restart replays more than so much of the input."""
    pages_per_commit: Annotated[int, Field(gt=0)] = 4
    """A commit writes at most so many pages of state (of 256 streams each), but for a partition's last one: the loop
    does nothing else meanwhile. With very many streams a snapshot takes many commits; raise it if that is too long."""
    idle_ttl_s: Annotated[float, Field(ge=0)] = 0.0
    """A stream whose newest event lies further behind its partition's newest event, in event time, is evicted; it
    starts anew when it comes back. 0 = never."""
    max_streams_per_partition: Annotated[int, Field(ge=0)] = 0
    """New streams beyond it become dead letters (reason `too_many_streams`); 0 = no limit."""
    max_new_streams_per_s: Annotated[int, Field(ge=0)] = 0
    """New streams of a partition beyond so many in one second of the records' timestamps become dead letters (reason
    `too_many_new_streams`) until the next second, so that a producer of ever new ids cannot fill the memory at once.
    0 = no limit."""
    superseded_ttl_s: Annotated[float, Field(ge=0)] = 604_800.0
    """The state of a model that serves a partition no more is kept for a [roll-back](rollout.md) for so long, by the
    wall clock since another took over, and then removed; 0 = for ever. It is of use while the input retains the
    events since then: Kafka's default is a week too."""
    rows: Literal["exact", "float16"] = "exact"
    """How float32 rows are stored; `float16` halves them and makes a restored state differ by its rounding."""
    compression: Literal["none", "zlib"] = "zlib"
    """Compression of stored pages."""


class RolloutSettings(_Section):
    """Another model in the place of the one that serves, without a stop: see [rollout.md](rollout.md)."""

    poll_interval_s: Positive = 30.0
    """How often the registry is asked which models its aliases name, where `model` or `rollout.shadow` is such a
    reference."""
    shadow: str | None = None
    """A second model (`s3://bucket/models@shadow`) that steps every event too and publishes nothing; its scores become
    metrics beside those of the model that serves."""
    warm_up: Literal["context", "retained"] = "context"
    """How far back a model without kept state begins: `context` = twice as many slots as it needs to be warm,
    `retained` = all that the topic still has."""
    events_per_turn: Annotated[int, Field(gt=0)] = 4_000
    """Most events that a model which does not serve is stepped by in a turn of the loop; more make it warm sooner, and
    the forecasts of the one that serves later meanwhile."""
    retry_s: Positive = 300.0
    """A model that could not be opened or warmed is tried again after so long."""


class HttpSettings(_Section):
    """The HTTP server: metrics, probes, latest forecasts, live page."""

    enabled: bool = True
    """Whether to serve at all."""
    host: str = "127.0.0.1"
    """Address to bind; `0.0.0.0` in a container."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """Port to bind; 0 takes a free one and logs it."""
    latest_streams: Annotated[int, Field(ge=0)] = 10_000
    """Of so many streams at least, those published last, the newest forecast is kept for the [read API](api.md);
    0 = none."""
    token: SecretStr | None = None
    """Bearer token that every request but the probes' has to carry; never printed. Without one, whoever reaches the
    port can read."""


class LogSettings(_Section):
    """Logging, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important level that is shown."""
    format: Literal["console", "json"] = "console"
    """One line of text or one JSON object per entry."""


class Settings(BaseSettings):
    """All settings of `rillcast run`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
        use_attribute_docstrings=True,
    )

    model: Annotated[str, BeforeValidator(_as_text)] = "universal:1h"
    """The bundle to serve: a file; one that comes with the package, by its frequency (`universal:1h`), which
    forecasts streams that nothing was trained for; or one of a registry, by an alias or a model id
    (`s3://bucket/models@live`). What an alias comes to mean while the service runs takes over without a restart, see
    [rollout.md](rollout.md)."""
    model_cache: Path = Path("~/.cache/rillcast/models")
    """Folder in which bundles from a registry are kept, by the SHA-256 of their bytes; it may be emptied at any
    time."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where state and model live; `auto` takes CUDA where it works, else the CPU."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of ONNX Runtime inside one call."""
    cuda_graphs: bool = False
    """Whether each batch size of the step is captured once as a CUDA graph and replayed, which spares the launch of its
    kernels one by one. An error where the device is not CUDA. Not measured yet: none of it was run on a GPU."""
    calibration: Literal["on", "off"] = "on"
    """Whether forecasts get the correction that each stream's own errors have taught; it is learnt either way."""
    secrets_dir: Path | None = None
    """Directory of files that each hold one setting and are named after it (`kafka.sasl_password`), as Kubernetes and
    Docker mount secrets; they beat the settings file and yield to environment and flags."""
    input: InputSettings = InputSettings()
    registry: RegistrySettings = RegistrySettings()
    output: OutputSettings = OutputSettings()
    publish: PublishSettings = PublishSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    anomalies: AnomalySettings = AnomalySettings()
    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSettings = WorkerSettings()
    state: StateSettings = StateSettings()
    rollout: RolloutSettings = RolloutSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _outputs_differ(self) -> Settings:
        if self.output.path == self.dead_letters.path:
            raise ValueError(f"output.path and dead_letters.path are both {self.output.path!r}")
        if self.output.codec == "avro" and self.registry.url is None:
            raise ValueError("output.codec is 'avro', which needs registry.url")
        if self.output.path is not None and self.output.codec != "json":
            raise ValueError(f"output.codec is {self.output.codec!r}, but output.path is a file, which takes json only")
        if self.input.path is None and self.output.path is None:
            topics = [self.input.topic, self.output.topic, self.dead_letters.topic]
            if len(set(topics)) != len(topics):
                raise ValueError(f"input.topic, output.topic and dead_letters.topic must differ, got {topics}")
            if self.anomalies.topic in topics:
                raise ValueError(f"anomalies.topic is {self.anomalies.topic!r}, which is one of {topics}")
        return self

    @model_validator(mode="after")
    def _anomalies_go_where_the_forecasts_go(self) -> Settings:
        to_file = self.output.path is not None
        if to_file and self.anomalies.topic is not None:
            raise ValueError("anomalies.topic is set, but output.path is a file; use anomalies.path")
        if not to_file and self.anomalies.path is not None:
            raise ValueError("anomalies.path is set, but forecasts go to a topic; use anomalies.topic")
        if to_file and self.anomalies.path in (self.output.path, self.dead_letters.path):
            raise ValueError(f"anomalies.path is {self.anomalies.path!r}, which another output has")
        return self

    @model_validator(mode="after")
    def _revocation_ends_in_time(self) -> Settings:
        if self.worker.revoke_timeout_s > self.kafka.max_poll_interval_s / 2:
            raise ValueError(
                f"worker.revoke_timeout_s is {self.worker.revoke_timeout_s:g}, more than half of "
                f"kafka.max_poll_interval_s ({self.kafka.max_poll_interval_s:g}): the group would go on without this "
                f"member while it still commits; lower the one or raise the other"
            )
        return self

    @field_validator("model")
    @classmethod
    def _no_keys_in_address(cls, value: str) -> str:
        registry, _, _ = value.rpartition("@")
        _require_no_user(registry, "keys of an object store stand in its own variables (AWS_ACCESS_KEY_ID, ...)")
        return value

    @model_validator(mode="after")
    def _duplicates_need_a_way_back(self) -> Settings:
        if self.input.duplicates == "last_wins" and not self.input.rewind_slots:
            raise ValueError(
                "input.duplicates is 'last_wins', which goes back to the slot, but input.rewind_slots is 0; set it to "
                "as many slots as a correction may be late, at least 1"
            )
        return self

    @model_validator(mode="after")
    def _input_can_be_read(self) -> Settings:
        given = self.input
        if given.path is None and given.format in _FILE_FORMATS:
            raise ValueError(f"input.format is {given.format!r}, a format of files, but input.path is not set")
        if given.path is not None and given.format in _TOPIC_FORMATS:
            raise ValueError(f"input.format is {given.format!r}, a format of topics, but input.path is {given.path!r}")
        if given.format in _TOPIC_FORMATS[1:] and self.registry.url is None:
            raise ValueError(f"input.format is {given.format!r}, which needs registry.url")
        if given.envelope == "none" and "$ce." in f"{given.fields.unique_id} {given.fields.ds}":
            raise ValueError("input.fields names a CloudEvents attribute ($ce), but input.envelope is 'none'")
        return self

    @property
    def state_topic(self) -> str:
        """The topic of the Kafka state store."""
        return self.state.topic or f"{self.kafka.group_id}-state"

    def redacted(self) -> dict[str, Any]:
        """Return the effective settings as plain JSON values, secrets as asterisks."""
        return self.model_dump(mode="json")


def load(
    file: Path | None = None,
    flags: PydanticBaseSettingsSource | None = None,
) -> Settings:
    """Read the effective settings.

    Args:
        file: a TOML file that has to exist; None takes `rillcast.toml` of the working directory if it is there.
        flags: the source with what the command line said.

    Raises:
        SettingsError: a key is unknown, a value is wrong, or the file cannot be read.
    """
    if file is not None and not file.is_file():
        raise SettingsError(f"settings file {file} does not exist")
    chosen = file or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is pydantic-settings'
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources = [init_settings, env_settings]
            if flags is not None:
                sources.insert(0, flags)
            toml = [] if chosen is None else [TomlConfigSettingsSource(settings_cls, toml_file=chosen)]
            folder = next((found for source in (*sources, *toml) if (found := source().get("secrets_dir"))), None)
            if folder is not None:
                sources.append(InitSettingsSource(settings_cls, read_secrets(Path(folder))))
            return (*sources, *toml)

    try:
        settings = Loaded()
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors(include_url=False)]
        raise SettingsError("settings cannot be used:\n" + "\n".join(lines)) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"settings file {chosen}: {error}") from error
    if unknown := unknown_environment():
        raise SettingsError(f"unknown settings in the environment: {', '.join(unknown)}")
    return Settings.model_validate(settings.model_dump(mode="python"))


def read_secrets(folder: Path) -> dict[str, Any]:
    """Return the settings that stand in a directory, one in each file: the file's name is the setting's path.

    Dots may be written as two underscores, for Docker and Kubernetes allow few characters in a name. One line end at
    the end of a file does not count. Hidden entries (Kubernetes' `..data`) are passed over.

    Raises:
        SettingsError: the directory or a file cannot be read, or a file is named after no setting.
    """
    known = {spelled: path for path in setting_paths(Settings) for spelled in (path, path.replace(".", "__"))}
    values: dict[str, Any] = {}
    try:
        for file in sorted(folder.iterdir()):
            if file.name.startswith(".") or not file.is_file():
                continue
            if file.name not in known:
                raise SettingsError(f"secrets_dir {folder}: file {file.name!r} is named after no setting")
            if file.stat().st_size > MAX_SECRET_BYTES:
                raise SettingsError(f"secrets_dir {folder}: {file.name} has more than {MAX_SECRET_BYTES} bytes")
            section = values
            *sections, name = known[file.name].split(".")
            for step in sections:
                section = section.setdefault(step, {})
            section[name] = file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"secrets_dir {folder}: {error}") from error
    return values


def unknown_environment() -> list[str]:
    """Return the variables that start with `RILLCAST_` and name no setting (pydantic ignores those silently)."""
    known = {ENV_PREFIX + path.replace(".", "__").upper() for path in setting_paths(Settings)}
    known |= {ENV_PREFIX + name.upper() for name in Settings.model_fields}
    return sorted(
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX) and not name.startswith(ENV_PREFIX + "TEST_") and name.upper() not in known
    )


def setting_paths(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted path of every setting."""
    paths: list[str] = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            paths.extend(setting_paths(field.annotation, f"{prefix}{name}."))
        else:
            paths.append(prefix + name)
    return paths
