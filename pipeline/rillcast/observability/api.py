"""The read API: the answers of a service to programs under `/api/v1`.

Owns: the query parameters, paging, and the values of the answers. Does not know: their forms
(`rillcast.observability.api_forms`), sockets, tokens, headers (`rillcast.observability.server`), who published the
forecasts.

Invariants: an answer has the form that the description gives it; a request changes nothing. Paging is by stream id,
not by number: streams that come and go between two pages neither repeat nor hide the others.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import orjson
from pydantic import BaseModel

from rillcast.codecs.forecasts.columns import level_name
from rillcast.codecs.forecasts.reader import Forecast as Record
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.engine.step_engine import SilentStream as Silent
from rillcast.observability.api_forms import (
    AlarmList,
    Conditions,
    ExpertShare,
    Forecast,
    MixtureAt,
    MixtureOf,
    Model,
    NetworkAt,
    Problem,
    Silence,
    SilentList,
    SilentStream,
    Source,
    Status,
    StreamAlarm,
    StreamEntry,
    StreamList,
    Table,
)
from rillcast.observability.expert_weights import ExpertWeights
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.health import Health
from rillcast.observability.live_views import View
from rillcast.observability.openapi import ALARM_STATES, DEFAULT_LIMIT, MAX_LIMIT, TROUBLES, openapi
from rillcast.observability.stream_alarms import StreamAlarm as Alarm
from rillcast.observability.stream_alarms import StreamAlarms

_MEMBERS: Final = (
    "events",
    "events_per_second",
    "streams",
    "overdue_streams",
    "sleeping_streams",
    "coverage",
    "latency_s",
)
_TIMES_OF_ALARM: Final = ("first", "last", "closed")


class Reply(NamedTuple):
    """An answer without its headers; the body is JSON."""

    status: HTTPStatus
    body: bytes


class ReadApi:
    """May be asked from any thread."""

    def __init__(
        self,
        forecast_cache: ForecastCache,
        live_view: View,
        health: Health,
        alarms: StreamAlarms,
        weights: ExpertWeights,
    ) -> None:
        """Begin.

        Args:
            forecast_cache: The newest forecasts.
            live_view: The figures over all streams.
            health: The conditions.
            alarms: The alarms.
            weights: The weights of experts.
        """
        self._weights = weights
        self._alarms = alarms
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
                return self._answered(self._list, query)
            case "/silent":
                return self._answered(self._silent_list, query)
            case "/mixture":
                return self._answered(self._mixture, query)
            case "/alarms":
                return self._answered(self._alarm_list, query)
        if path.startswith("/streams/"):
            return self._stream(path.removeprefix("/streams/"))
        return None

    def _status(self) -> Status:
        summary = self._live_view.summary()
        members = {name: summary[name] for name in _MEMBERS}
        newest = summary["newest_ds"]
        return Status(
            version=self._version,
            model=_model(summary),
            models=[_table(name, each) for name, each in summary.get("models", {}).items()],
            conditions=Conditions(**self._health.readiness()),
            newest_ds=None if newest is None else _moment(newest),
            open_alarms=len(self._alarms.open()),
            listed=len(self._forecast_cache),
            **members,
        )

    @staticmethod
    def _answered(answer: Callable[[str], BaseModel], query: str) -> Reply:
        """Return an answer, or why the parameters of a request make no sense."""
        try:
            return _reply(answer(query))
        except KeyError as error:
            return _reply(Problem(error=str(error.args[0])), HTTPStatus.NOT_FOUND)
        except ValueError as error:
            return _reply(Problem(error=str(error)), HTTPStatus.BAD_REQUEST)

    def _list(self, query: str) -> StreamList:
        asked = _given(query, "limit", "after", "prefix", "contains", "trouble")
        silent = {one.unique_id: one for one in self._silent()}
        page = self._forecast_cache.page(
            _limit(asked),
            after=asked.get("after", ""),
            prefix=asked.get("prefix", ""),
            contains=asked.get("contains", ""),
            among=self._in_trouble(asked.get("trouble"), silent),
        )
        alarms = self._alarms.of(unique_id for unique_id, _ in page.records)
        entries = [
            _entry(_decoded(unique_id, value), alarms.get(unique_id, []), silent.get(unique_id))
            for unique_id, value in page.records
        ]
        following = page.records[-1][0] if page.more else None
        return StreamList(streams=entries, total=page.total, next=following)

    def _mixture(self, query: str) -> MixtureOf:
        unique_id, sample = _given(query, "unique_id").get("unique_id"), self._weights.sample
        if sample is None:
            raise KeyError("no weights are known: the model has no experts, or no stream has had an event yet")
        if unique_id is not None and unique_id not in sample.by_stream:
            self._live_view.follow(unique_id)
            raise KeyError(f"stream {unique_id!r} is not charted; it is from its next event on")
        horizons = [
            MixtureAt(
                step=one.step,
                shares=[ExpertShare(expert=words, share=share) for words, share in one.shares.items()],
                network=network and NetworkAt(share=network.share, median=network.median, width=network.width),
                words="; ".join(part.sentence() for part in (one, network) if part is not None),
            )
            for one, network in zip(sample.shares(unique_id), sample.network_shares(unique_id), strict=True)
        ]
        streams = sample.streams if unique_id is None else 1
        return MixtureOf(unique_id=unique_id, model=sample.model, streams=streams, horizons=horizons)

    def _silent(self) -> Sequence[Silent]:
        silent = self._live_view.silent
        return () if silent is None else silent.named

    def _in_trouble(self, trouble: str | None, silent: Collection[str]) -> set[str] | None:
        """Return the streams in trouble; None = all streams are asked for.

        Raises:
            ValueError: There is no such trouble.
        """
        if trouble is None:
            return None
        if trouble not in TROUBLES:
            raise ValueError(f"trouble is {trouble[:20]!r}, expected {', '.join(TROUBLES)}")
        alarmed = {alarm.unique_id for alarm in self._alarms.open()} if trouble != "silence" else set()
        return alarmed.union(silent if trouble != "alarm" else ())

    def _silent_list(self, query: str) -> SilentList:
        limit, counted = _limit(_given(query, "limit")), self._live_view.silent
        found = sorted(self._silent(), key=lambda one: -one.newest_ms)[:limit]
        entries = [
            SilentStream(unique_id=one.unique_id, silence=_silence(one), since=_moment(one.newest_ms)) for one in found
        ]
        if counted is None:
            return SilentList(streams=entries, overdue=None, sleeping=None)
        return SilentList(streams=entries, overdue=counted.overdue, sleeping=counted.sleeping)

    def _alarm_list(self, query: str) -> AlarmList:
        asked = _given(query, "limit", "state")
        limit, state = _limit(asked), asked.get("state", "all")
        if state not in ALARM_STATES:
            raise ValueError(f"state is {state[:20]!r}, expected {', '.join(ALARM_STATES)}")
        opened = self._alarms.open()
        found = opened[::-1] if state != "closed" else []
        if state != "open" and len(found) < limit:
            found += self._alarms.closed(limit - len(found))
        return AlarmList(alarms=[_alarm(alarm) for alarm in found[:limit]], open=len(opened))

    def _stream(self, unique_id: str) -> Reply:
        value = self._forecast_cache.get(unique_id)
        if value is None:
            problem = f"this member keeps no forecast of stream {unique_id!r}; docs/api.md says which are kept"
            return _reply(Problem(error=problem), HTTPStatus.NOT_FOUND)
        if value[:1] == b"{":  # it is JSON already
            return Reply(HTTPStatus.OK, value)
        return _reply(_forecast(_decoded(unique_id, value)))


def _given(query: str, *known: str) -> dict[str, str]:
    """Read the parameters of a request.

    Raises:
        ValueError: A parameter is unknown, or is given twice.
    """
    given = parse_qs(query, keep_blank_values=True, max_num_fields=16)
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"unknown parameter {unknown[0]!r}; expected {', '.join(known)}")
    if twice := [name for name, values in given.items() if len(values) > 1]:
        raise ValueError(f"parameter {twice[0]!r} is given twice")
    return {name: values[0] for name, values in given.items()}


def _limit(given: dict[str, str]) -> int:
    """Return the largest number of entries.

    Raises:
        ValueError: It is an impossible one.
    """
    limit = given.get("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_LIMIT):
        raise ValueError(f"limit is {limit[:20]!r}, expected 1 to {MAX_LIMIT}")
    return int(limit)


def _model(summary: Mapping[str, Any]) -> Model:
    return Model(**{name: summary["model"][name] for name in Model.model_fields})


def _table(name: str, summary: Mapping[str, Any]) -> Table:
    newest = summary["newest_ds"]
    members = {name: summary[name] for name in _MEMBERS if name in Table.model_fields}
    return Table(
        name=name,
        model=_model(summary),
        shadow=summary["shadow"],
        newest_ds=None if newest is None else _moment(newest),
        **members,
    )


def _decoded(unique_id: str, value: bytes) -> Record:
    return decode_forecast(value, unique_id.encode())


def _silence(silent: Silent) -> Silence:
    return "asleep" if silent.asleep else "overdue"


def _entry(record: Record, alarms: Sequence[Alarm], silent: Silent | None) -> StreamEntry:
    common = _forecast(record)
    kinds = [alarm.kind for alarm in alarms if alarm.closed is None]
    shared = {name: getattr(common, name) for name in StreamEntry.model_fields if name in Forecast.model_fields}
    return StreamEntry(
        **shared,
        alarm=kinds[-1] if kinds else None,
        silence=None if silent is None else _silence(silent),
        silent_since=None if silent is None else _moment(silent.newest_ms),
    )


def _alarm(alarm: Alarm) -> StreamAlarm:
    times = {name: None if (ms := getattr(alarm, name)) is None else _moment(ms) for name in _TIMES_OF_ALARM}
    numbers = {name: _finite(getattr(alarm, name)) for name in ("expected", "observed")}
    return StreamAlarm(**{**asdict(alarm), **times, **numbers})


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


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
