"""The forms of the read API's answers, as pydantic models.

Owns: which members an answer has and what they mean. Does not know: where the values come from, routes, parameters.
The description of the API (`rillcast.observability.openapi`) is made from these models and their docstrings.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Silence = Literal["overdue", "asleep"]
State = Literal["ok", "warming_up", "missing", "gap"]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="forbid")


class Problem(_Form):
    """Why a request was not answered."""

    error: str
    """For people."""


class Source(_Form):
    """Position of an event."""

    partition: int
    """Partition of the input."""
    offset: int
    """Offset in the partition."""


class StreamAlarm(_Form):
    """An alarm of a stream, as of the newest event that had it; records of the topic of alarms have the same words."""

    unique_id: str
    """The stream; with `first` it names the alarm."""
    kind: str
    """`spike`, `level shift`, `drift`, `variance`, `flat line` or `silence`."""
    direction: Literal["up", "down"] | None
    """null where the kind has none."""
    severity: Literal["warning", "critical"]
    """`critical` from ten times the stream's level."""
    strength: float
    """How long a stream that is well takes, on average, to something as unusual, in periods."""
    first: Moment
    """The period in which it opened."""
    last: Moment
    """The period of the last evidence."""
    closed: Moment | None
    """Time of the event at which it was over; null = it is open."""
    expected: float | None
    """The median that was forecast where the evidence was strongest."""
    observed: float | None
    """The observation there."""
    model: str
    """Name and id of the bundle."""


class AlarmList(_Form):
    """Alarms of this member's streams."""

    alarms: list[StreamAlarm]
    """At most `limit`: open ones, the newest first, then closed ones, the last closed first."""
    open: int
    """Number of open alarms."""
    away: list[str] = []
    """With `http.peers`: members that did not answer, whose entries are missing."""


class SilentStream(_Form):
    """A stream without events."""

    unique_id: str
    """The stream."""
    silence: Silence
    """`overdue` by the time of its partition, or `asleep`: its empty periods are not stepped any more."""
    since: Moment
    """Time of its newest event."""


class SilentList(_Form):
    """Streams without events, as of the last five seconds."""

    streams: list[SilentStream]
    """At most `limit`, those first that had an event last."""
    overdue: int | None
    """Number of streams that are overdue; null = not counted yet."""
    sleeping: int | None
    """Number of streams that are asleep; null = not counted yet."""
    away: list[str] = []
    """With `http.peers`: members that did not answer, whose entries are missing."""


class ExpertShare(_Form):
    """The weight of experts that say the same, apart from how fast they return to it."""

    expert: str
    """What they say, in words."""
    share: float
    """Their weight, above 0 to 1."""


class NetworkAt(_Form):
    """What a network on top of the experts does at one horizon."""

    share: float
    """Share of its correction that counts, 0 to 1: a half where its misses are a tenth larger than the experts'."""
    median: float | None
    """By how much it moves the median, in widths; of several streams the mean distance. Null = it is not known."""
    width: float | None
    """Factor by which it changes the width; of several streams the geometric mean. Null = it is not known."""


class MixtureAt(_Form):
    """What forecasts at one horizon are made of."""

    step: int
    """Periods ahead."""
    shares: list[ExpertShare]
    """The largest first; they sum to 1, and are empty without any value yet."""
    network: NetworkAt | None
    """What a network on top of the experts does; null = there is none."""
    words: str
    """The shares of at least 5 % in a sentence, and what the network does."""


class MixtureOf(_Form):
    """What forecasts are made of: the weights of a bundle's experts, as of the last five seconds."""

    unique_id: str | None
    """The stream; null = the mean of some streams."""
    model: str
    """Name and id of the bundle."""
    streams: int
    """Number of streams: 1, or that of the mean, at most 500."""
    horizons: list[MixtureAt]
    """The horizons at which experts are judged; between them weights lie on lines."""


class StreamEntry(_Form):
    """A stream in a list."""

    unique_id: str
    """The stream."""
    ds: Moment
    """Time of the event that its newest forecast was made from."""
    status: State
    """Status of that event."""
    anomaly: float | None
    """How unlikely the forecast before made its observation, 0 to 1; null = unknown."""
    alarm: str | None
    """Kind of its open alarm; null = it has none."""
    silence: Silence | None
    """`overdue` while it has no event although the time of its partition goes on, `asleep` when its empty periods are
    not stepped any more; null = it is heard. As of the last five seconds."""
    silent_since: Moment | None
    """Time of its newest event; null = it is heard."""
    model: str
    """Name and id of the bundle."""
    source: Source
    """Position of the event."""


class StreamList(_Form):
    """A page of streams, in the order of their ids."""

    streams: list[StreamEntry]
    """At most `limit`."""
    total: int
    """Number of streams that the parameters choose, on all pages."""
    next: str | None
    """Value of `after` for the next page; null = this is the last one."""
    away: list[str] = []
    """With `http.peers`: members that did not answer, whose entries are missing."""


class Forecast(BaseModel):
    """A forecast: the members of a record of the output topic."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, extra="allow")

    unique_id: str
    """The stream."""
    ds: Moment
    """Time of the event: the origin of the forecast."""
    freq: str
    """Length of a period."""
    model: str
    """Name and id of the bundle."""
    status: State
    """Status of the event."""
    quantiles: dict[str, list[float]]
    """By level; the i-th value (from 0) is for the period i + 1 after that of `ds`."""
    anomaly: float | None
    """How unlikely the forecast before made the observation, 0 to 1; null = unknown."""
    source: Source
    """Position of the event."""


class Model(_Form):
    """The bundle that serves."""

    name: str
    """Name, for people."""
    model_id: str
    """Identity; equal ids compute the same."""
    cell: str | None
    """Kind of the recurrent layers."""
    freq: str
    """Length of a period."""
    horizon: int
    """Periods ahead."""
    quantiles: list[float]
    """Levels of the quantiles."""


class Conditions(_Form):
    """The conditions of `/readyz`."""

    started: bool
    """The bundle is loaded and the source is open."""
    assigned: bool
    """The member knows its partitions."""
    restored: bool
    """Their state is loaded and up to date."""
    live: bool
    """The loop runs."""


class Coverage(_Form):
    """How often observations lay in the outer interval of the forecast one period before."""

    nominal: float
    """Share that the interval is meant to hold."""
    observed: float | None
    """Share that it held; null = no forecast was scored yet."""
    forecasts: int
    """Number of forecasts that were scored."""


class Latency(_Form):
    """Ages of the last few thousand events when their forecasts were handed over, in seconds."""

    p50: float | None
    """Median; null = unknown."""
    p99: float | None
    """99th percentile; null = unknown."""


class Table(_Form):
    """A table of `[[models]]`: a model and what it has done in this member."""

    name: str
    """Name of the table."""
    model: Model
    """The bundle that serves its streams."""
    shadow: str | None
    """Alias of the model that steps its events too and publishes nothing; null = there is none."""
    events: int
    """Events stepped since the start."""
    events_per_second: float
    """Rate over the last 5 seconds."""
    newest_ds: Moment | None
    """Latest event time of its streams."""
    streams: int | None
    """Streams that have state; null = no event yet."""
    overdue_streams: int | None
    """Of those, streams that are overdue; null = not counted yet."""
    sleeping_streams: int | None
    """Streams whose empty periods are not stepped any more; null = not counted yet."""
    coverage: Coverage
    """Coverage since the start, over its streams."""


class Status(_Form):
    """The state of this member."""

    version: str
    """Version of Rillcast."""
    model: Model
    """The bundle that serves; with several models that of the first table."""
    models: list[Table]
    """The tables of `[[models]]`, in their order; empty for a service with one model."""
    conditions: Conditions
    """All true = events are served."""
    events: int
    """Events stepped since the start, without those that a recovery stepped again."""
    events_per_second: float
    """Rate over the last 5 seconds."""
    newest_ds: Moment | None
    """Latest event time of all streams."""
    streams: int | None
    """Streams that have state; null = no event yet."""
    overdue_streams: int | None
    """Of those, streams whose newest event lies more than `input.overdue_periods` behind their partition's newest, as
    of the last five seconds; null = not counted yet."""
    sleeping_streams: int | None
    """With `input.aggregate`, streams whose empty periods are not stepped any more; null = not counted yet."""
    open_alarms: int
    """Streams that have an open alarm."""
    listed: int
    """Streams that `/streams` lists, at most twice `http.cached_streams`."""
    coverage: Coverage
    """Coverage since the start, over all streams; with several models that of the first table."""
    latency_s: Latency
    """Ages of events."""
