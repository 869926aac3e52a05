"""The read API: the answers of a service to programs under `/api/v1`, and its OpenAPI description.

Owns: the forms of the answers (pydantic models, from which the description is made), the query parameters, paging.
Does not know: sockets, tokens, headers (`rillcast.observability.server`), who published the forecasts.

Invariants: an answer has the form that the description gives it; a request changes nothing. Paging is by stream id,
not by number: streams that come and go between two pages neither repeat nor hide the others.
"""

from __future__ import annotations

import datetime as dt
from http import HTTPStatus
from importlib.metadata import version
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from rillcast.codecs.forecasts.columns import level_name
from rillcast.codecs.forecasts.reader import Forecast as Record
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.live_view import LiveView

ROOT: Final = "/api/v1"
MAX_LIMIT: Final = 1_000
DEFAULT_LIMIT: Final = 100
_MEMBERS: Final = (
    "events",
    "events_per_second",
    "streams",
    "overdue_streams",
    "sleeping_streams",
    "coverage",
    "latency_s",
)
_REFERENCE: Final = "#/components/schemas/{model}"

Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
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
    model: str
    """Name and id of the bundle."""
    source: Source
    """Position of the event."""


class StreamList(_Form):
    """A page of streams, in the order of their ids."""

    streams: list[StreamEntry]
    """At most `limit`."""
    total: int
    """Number of streams with this prefix, on all pages."""
    next: str | None
    """Value of `after` for the next page; null = this is the last one."""


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


class Status(_Form):
    """The state of this member."""

    version: str
    """Version of Rillcast."""
    model: Model
    """The bundle that serves."""
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
    of the last half minute; null = not counted yet."""
    sleeping_streams: int | None
    """With `input.aggregate`, streams whose empty periods are not stepped any more; null = not counted yet."""
    listed: int
    """Streams that `/streams` lists, at most twice `http.cached_streams`."""
    coverage: Coverage
    """Coverage since the start, over all streams."""
    latency_s: Latency
    """Ages of events."""


class Reply(NamedTuple):
    """An answer without its headers; the body is JSON."""

    status: HTTPStatus
    body: bytes


class ReadApi:
    """May be asked from any thread."""

    def __init__(self, forecast_cache: ForecastCache, live_view: LiveView, health: Health) -> None:
        """Begin.

        Args:
            forecast_cache: The newest forecasts.
            live_view: The figures over all streams.
            health: The conditions.
        """
        self._forecast_cache = forecast_cache
        self._live_view = live_view
        self._health = health
        self._version = version("rillcast")
        self._description = orjson.dumps(openapi())

    def answer(self, path: str, query: str) -> Reply | None:
        """Answer a request; None if `path` names nothing.

        Args:
            path: The decoded path after `ROOT`: `/streams/web-17/cpu`.
            query: The query string, as it came.
        """
        match path:
            case "/openapi.json":
                return Reply(HTTPStatus.OK, self._description)
            case "/status":
                return _reply(self._status())
            case "/streams":
                return self._list(query)
        if path.startswith("/streams/"):
            return self._stream(path.removeprefix("/streams/"))
        return None

    def _status(self) -> Status:
        summary = self._live_view.summary()
        members = {name: summary[name] for name in _MEMBERS}
        newest = summary["newest_ds"]
        return Status(
            version=self._version,
            model=Model(**{name: summary["model"][name] for name in Model.model_fields}),
            conditions=Conditions(**self._health.readiness()),
            newest_ds=None if newest is None else _moment(newest),
            listed=len(self._forecast_cache),
            **members,
        )

    def _list(self, query: str) -> Reply:
        try:
            asked = _parameters(query)
        except ValueError as error:
            return _reply(Problem(error=str(error)), HTTPStatus.BAD_REQUEST)
        page = self._forecast_cache.page(asked.limit, after=asked.after, prefix=asked.prefix)
        entries = [_entry(_decoded(unique_id, value)) for unique_id, value in page.records]
        following = page.records[-1][0] if page.more else None
        return _reply(StreamList(streams=entries, total=page.total, next=following))

    def _stream(self, unique_id: str) -> Reply:
        value = self._forecast_cache.get(unique_id)
        if value is None:
            problem = f"this member keeps no forecast of stream {unique_id!r}; docs/api.md says which are kept"
            return _reply(Problem(error=problem), HTTPStatus.NOT_FOUND)
        if value[:1] == b"{":  # it is JSON already
            return Reply(HTTPStatus.OK, value)
        return _reply(_forecast(_decoded(unique_id, value)))


class _Parameters(NamedTuple):
    limit: int = DEFAULT_LIMIT
    after: str = ""
    prefix: str = ""


def _parameters(query: str) -> _Parameters:
    """Read the parameters of a list.

    Raises:
        ValueError: A parameter is unknown, is given twice, or has an impossible value.
    """
    given = parse_qs(query, keep_blank_values=True, max_num_fields=16)
    if unknown := sorted(set(given) - set(_Parameters._fields)):
        raise ValueError(f"unknown parameter {unknown[0]!r}; expected {', '.join(_Parameters._fields)}")
    if twice := [name for name, values in given.items() if len(values) > 1]:
        raise ValueError(f"parameter {twice[0]!r} is given twice")
    texts = {name: values[0] for name, values in given.items()}
    limit = texts.pop("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_LIMIT):
        raise ValueError(f"limit is {limit[:20]!r}, expected 1 to {MAX_LIMIT}")
    return _Parameters(limit=int(limit), **texts)


def _decoded(unique_id: str, value: bytes) -> Record:
    return decode_forecast(value, unique_id.encode())


def _entry(record: Record) -> StreamEntry:
    common = _forecast(record)
    return StreamEntry(**{name: getattr(common, name) for name in StreamEntry.model_fields})


def _forecast(record: Record) -> Forecast:
    # A float32's shortest digits, as the JSON codec writes them, not those of the float64 that holds it.
    columns = orjson.loads(orjson.dumps(record.values.T.copy(), option=orjson.OPT_SERIALIZE_NUMPY))
    named = {} if record.steps == tuple(range(1, len(record.values) + 1)) else {"steps": list(record.steps)}
    return Forecast(
        unique_id=record.unique_id,
        ds=_moment(record.ds),
        freq=record.freq,
        model=record.model,
        status=record.status,
        quantiles=dict(zip(map(level_name, record.quantiles), columns, strict=True)),
        anomaly=None if record.anomaly != record.anomaly else record.anomaly,
        source=Source(partition=record.partition, offset=record.offset),
        **named,
    )


def _moment(milliseconds: int) -> str:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _reply(form: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> Reply:
    return Reply(status, form.model_dump_json().encode())


def openapi() -> dict[str, Any]:
    """Return the description of the API (OpenAPI 3.1)."""
    forms: list[type[BaseModel]] = [Status, StreamList, Forecast, Problem]
    _, schemas = models_json_schema([(form, "serialization") for form in forms], ref_template=_REFERENCE)
    text = {"schema": {"type": "string"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Rillcast",
            "version": version("rillcast"),
            "description": "The newest forecasts of one member of a Rillcast service. It changes nothing.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": ROOT}],
        "security": [{}, {"token": []}],
        "paths": {
            "/status": {"get": _operation("status", "The state of this member", Status)},
            "/streams": {
                "get": _operation(
                    "listStreams",
                    "Streams with the status of their newest event, by id",
                    StreamList,
                    HTTPStatus.BAD_REQUEST,
                    parameters=[
                        {
                            "name": "limit",
                            "in": "query",
                            "description": "Largest number of streams on a page.",
                            "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                        },
                        {"name": "after", "in": "query", "description": "Only streams after this id."} | text,
                        {"name": "prefix", "in": "query", "description": "Only streams whose id begins like this."}
                        | text,
                    ],
                )
            },
            "/streams/{unique_id}": {
                "get": _operation(
                    "getForecast",
                    "The newest forecast of a stream",
                    Forecast,
                    HTTPStatus.NOT_FOUND,
                    parameters=[
                        {
                            "name": "unique_id",
                            "in": "path",
                            "required": True,
                            "description": "The stream's id, URL-encoded.",
                        }
                        | text
                    ],
                )
            },
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Required if http.token is set."}
            },
        },
    }


def _operation(
    name: str,
    summary: str,
    form: type[BaseModel],
    *problems: HTTPStatus,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    responses = {HTTPStatus.OK: ("The answer.", form)} | {
        status: (status.phrase, Problem) for status in (*problems, HTTPStatus.UNAUTHORIZED)
    }
    described = {
        str(status.value): {
            "description": description,
            "content": {"application/json": {"schema": {"$ref": _REFERENCE.format(model=shown.__name__)}}},
        }
        for status, (description, shown) in responses.items()
    }
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "responses": described}
    return operation | ({"parameters": parameters} if parameters else {})
