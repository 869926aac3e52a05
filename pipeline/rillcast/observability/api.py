"""The read API: the answers of a service to programs under `/api/v1`.

Owns: the query parameters, paging, and the values of the answers. Does not know: their forms
(`rillcast.observability.api_forms`), sockets, tokens, headers (`rillcast.observability.server`), who published the
forecasts.

Invariants: an answer has the form that the description gives it; a request changes nothing. Paging is by stream id,
not by number: streams that come and go between two pages neither repeat nor hide the others.
"""

from __future__ import annotations

import datetime as dt
from http import HTTPStatus
from importlib.metadata import version
from typing import Final, NamedTuple
from urllib.parse import parse_qs

import orjson
from pydantic import BaseModel

from rillcast.codecs.forecasts.columns import level_name
from rillcast.codecs.forecasts.reader import Forecast as Record
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.observability.api_forms import (
    Conditions,
    Forecast,
    Model,
    Problem,
    Source,
    Status,
    StreamEntry,
    StreamList,
)
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.live_view import LiveView
from rillcast.observability.openapi import DEFAULT_LIMIT, MAX_LIMIT, openapi

_MEMBERS: Final = (
    "events",
    "events_per_second",
    "streams",
    "overdue_streams",
    "sleeping_streams",
    "coverage",
    "latency_s",
)


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
