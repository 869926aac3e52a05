"""What the live page asks for, as plain JSON values: the charted streams with their alarms.

Owns: the documents of `/api/streams` and `/api/summary`, which are the page's own and change with it. Does not know:
HTTP, how the page draws.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

from rillcast.observability.expert_weights import ExpertWeights
from rillcast.observability.forecast_cache import ForecastCache
from rillcast.observability.live_views import View
from rillcast.observability.stream_alarms import SEVERITIES, StreamAlarm, StreamAlarms

PAGE: Final = 24
LISTED_ALARMS: Final = 50
LISTED_UNCHARTED: Final = 20
_LEAST_SCORED: Final = 20
_SURE: Final = 3  # standard deviations of a share


class _Troubles(NamedTuple):
    """What is wrong with a charted stream; the first that holds decides on its place."""

    alarm: bool
    silence: bool
    uncovered: bool


class PageData:
    """May be asked from any thread."""

    def __init__(
        self,
        live_view: View,
        alarms: StreamAlarms,
        weights: ExpertWeights,
        forecast_cache: ForecastCache | None = None,
    ) -> None:
        """Begin.

        Args:
            live_view: The charted streams, and the figures over all streams.
            alarms: The alarms.
            weights: The weights of experts.
            forecast_cache: Knows more streams than are charted; None = only these are found.
        """
        self._live_view = live_view
        self._alarms = alarms
        self._weights = weights
        self._forecast_cache = forecast_cache

    def summary(self) -> dict[str, Any]:
        """Return the figures over all streams."""
        by_severity = self._alarms.severities()
        return self._live_view.summary() | {"open_alarms": {name: by_severity[name] for name in SEVERITIES}}

    def streams(self, query: str = "", *, whole: bool = False) -> dict[str, Any]:
        """Return the summary, a page of charted streams in a short form, and the alarms that opened last.

        Streams in trouble come first: those with an open alarm, then silent ones, then those whose observations lie
        outside their intervals too often; then by id.

        Args:
            query: The query string: `find` is a part of an id, `show` one of `_Troubles`, `from` the number of streams
                before the page.
            whole: Return the streams before the page too, and the troubles of each, so that the lists of several
                members can be merged.
        """
        given = {name: values[0] for name, values in parse_qs(query, max_num_fields=16).items()}
        part, show, first = given.get("find", "").strip().casefold(), given.get("show", ""), given.get("from", "0")
        troubles = {one: found for one, found in self._troubles().items() if part in one.casefold()}
        shown = [one for one, found in troubles.items() if show not in _Troubles._fields or getattr(found, show)]
        shown.sort(key=lambda one: in_order(one, troubles[one]))
        start = int(first[:9]) if first.isascii() and first.isdigit() else 0
        start = start if whole or start < len(shown) else 0
        streams = self._live_view.streams(shown[0 if whole else start : start + PAGE])
        alarms = self._alarms.of(stream["unique_id"] for stream in streams)
        silent = self._silence()
        for stream in streams:
            stream["troubles"] = list(troubles[stream["unique_id"]])
            stream["silence"] = silent.get(stream["unique_id"])
            stream["alarms"] = [_span(alarm) for alarm in alarms.get(stream["unique_id"], ())]
        newest = self._alarms.open()[: -LISTED_ALARMS - 1 : -1]
        return {
            "summary": self.summary(),
            "streams": streams,
            "from": start,
            "total": len(shown),
            "counts": {"all": len(troubles)}
            | {name: sum(getattr(found, name) for found in troubles.values()) for name in _Troubles._fields},
            "uncharted": self._uncharted(part) if part else [],
            "open_alarms": [_span(alarm) for alarm in newest],
            "mixture": self._mixture(),
        }

    def is_forecast(self, unique_id: str) -> bool:
        """Return whether the newest forecast of a stream is kept, charted or not."""
        return self._forecast_cache is not None and self._forecast_cache.get(unique_id) is not None

    def _uncharted(self, part: str) -> list[str]:
        """Return some streams that have a part in their id and are not charted."""
        if self._forecast_cache is None:
            return []
        charted = self._live_view.heard()
        page = self._forecast_cache.page(LISTED_UNCHARTED + len(charted), contains=part)
        return [unique_id for unique_id, _ in page.records if unique_id not in charted][:LISTED_UNCHARTED]

    def _troubles(self) -> dict[str, _Troubles]:
        alarmed = {alarm.unique_id for alarm in self._alarms.open()}
        silent, nominal = self._silence(), self._live_view.nominal_coverage
        return {
            unique_id: _Troubles(unique_id in alarmed, unique_id in silent, _too_few(held, scored, nominal))
            for unique_id, (scored, held) in self._live_view.heard().items()
        }

    def stream(self, unique_id: str) -> dict[str, Any]:
        """Return everything that is kept of a stream.

        Raises:
            KeyError: It is not charted, or has had no event.
        """
        shown = self._live_view.stream(unique_id)
        alarms = self._alarms.of([unique_id]).get(unique_id, ())
        return shown | {
            "alarms": [_span(alarm) for alarm in alarms],
            "silence": self._silence().get(unique_id),
            "mixture": self._mixture(unique_id),
        }

    def _mixture(self, unique_id: str | None = None) -> dict[str, Any] | None:
        """Return what forecasts are made of, at the first, a middle and the last horizon; None = it is unknown."""
        sample = self._weights.sample
        if sample is None or (unique_id is not None and unique_id not in sample.by_stream):
            return None
        shares, network = sample.shares(unique_id), sample.network_shares(unique_id)
        places = sorted({0, len(shares) // 2, len(shares) - 1})
        horizons = [
            {
                "step": shares[n].step,
                "shares": list(shares[n].shares.items()),
                "network": None if (one := network[n]) is None else one.sentence(),
            }
            for n in places
        ]
        return {"streams": sample.streams, "horizons": horizons}

    def _silence(self) -> dict[str, dict[str, Any]]:
        """Return since when silent streams have had no event, and whether they are asleep."""
        silent = self._live_view.silent
        named = () if silent is None else silent.named
        return {one.unique_id: {"since": one.newest_ms, "asleep": one.asleep} for one in named}

    def follow(self, unique_id: str) -> None:
        """Chart a stream from its next event on."""
        self._live_view.follow(unique_id)


def _span(alarm: StreamAlarm) -> dict[str, Any]:
    return asdict(alarm)


def _too_few(held: int, scored: int, nominal: float) -> bool:
    """Return whether so few observations lay inside their intervals that chance does not explain it."""
    deviation = (nominal * (1 - nominal) / max(1, scored)) ** 0.5
    return scored >= _LEAST_SCORED and held / scored < nominal - _SURE * deviation


def in_order(unique_id: str, troubles: Sequence[bool]) -> tuple[Any, ...]:
    """Return the key of a stream's place: the worst trouble first, then by id."""
    return (*(not holds for holds in troubles), _natural(unique_id))


def _natural(unique_id: str) -> tuple[tuple[int, str], ...]:
    """Return a key by which `boiler-2` comes before `boiler-10`."""
    parts = re.split(r"([0-9]+)", unique_id.casefold())
    return tuple((int(part[:18]), "") if part.isdecimal() else (-1, part) for part in parts)
