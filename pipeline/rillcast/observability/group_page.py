"""The documents of the live page for all members together: streams, alarms, figures, and the members themselves.

Owns: how the documents of members become one. Does not know: HTTP (`rillcast.observability.peers`), what a member
knows (`rillcast.observability.page_data`).
Invariants: streams are in the order of trouble over all members. A member that is away is listed as such; what the
others know is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from rillcast.observability.member_figures import MemberFigures
from rillcast.observability.page_data import LISTED_ALARMS, LISTED_UNCHARTED, PAGE, PageData, in_order
from rillcast.observability.peers import Answer, Peers

MEMBER_STREAMS: Final = "/api/member/streams"
_ADDED: Final = ("events", "events_per_second", "streams", "overdue_streams", "sleeping_streams", "followed")


class GroupPage:
    """May be asked from any thread."""

    def __init__(
        self, page: PageData, figures: MemberFigures, peers: Peers, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._page, self._figures, self._peers, self._clock = page, figures, peers, clock

    def member(self, query: str, port: int) -> dict[str, Any]:
        """Return what this member knows: the streams up to the end of the page that the query asks for."""
        document = self._page.streams(query, whole=True)
        return document | {"member": self._member(document["summary"], port)}

    def streams(self, query: str, port: int) -> dict[str, Any]:
        """Return a page of streams and the figures of the group."""
        if not self._peers:
            document = self._page.streams(query)
            return document | {"members": [self._member(document["summary"], port)]}
        answers = self._peers.ask(f"{MEMBER_STREAMS}?{query}")
        return self._merged([self.member(query, port), *_documents(answers)])

    def summary(self) -> dict[str, Any]:
        """Return the figures over all streams of the group."""
        if not self._peers:
            return self._page.summary()
        answers = self._peers.ask(f"{MEMBER_STREAMS}?find=&from=0")
        return merged_summaries([self._page.summary(), *(each["summary"] for each in _documents(answers))])

    def stream(self, unique_id: str) -> tuple[bool, dict[str, Any]]:
        """Return whether a member charts a stream, and all that it keeps of it, or why it is not there."""
        found, document = self.member_stream(unique_id)
        if found or not self._peers:
            return found, document
        answers = self._peers.ask(f"{MEMBER_STREAMS}/{quote(unique_id, safe='')}")
        for answer in answers:
            if answer.status == 200:
                return True, answer.document
        forecast = document["forecast"] or any(each.document.get("forecast") for each in answers)
        return False, document | {"forecast": forecast}

    def member_stream(self, unique_id: str) -> tuple[bool, dict[str, Any]]:
        """Return the same of this member alone; a stream that it does not chart is charted from its next event on."""
        try:
            return True, self._page.stream(unique_id)
        except KeyError:
            self._page.follow(unique_id)
            why = f"stream {unique_id!r} is not charted; it is from its next event on"
            return False, {"error": why, "forecast": self._page.is_forecast(unique_id)}

    def _member(self, summary: Mapping[str, Any], port: int) -> dict[str, Any]:
        named = ("events_per_second", "streams", "overdue_streams", "open_alarms")
        model = summary["model"]
        figures = {name: summary[name] for name in named}
        return self._figures.figures(port) | figures | {"model": f"{model['name']}@{model['model_id']}", "away": None}

    def _merged(self, documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        own = documents[0]
        streams = [stream | {"member": each["member"]["name"]} for each in documents for stream in each["streams"]]
        streams.sort(key=lambda stream: in_order(stream["unique_id"], stream["troubles"]))
        total, start = sum(each["total"] for each in documents), own["from"]
        start = start if start < total else 0
        alarms = [alarm for each in documents for alarm in each["open_alarms"]]
        alarms.sort(key=lambda alarm: -alarm["first"])
        uncharted = sorted({one for each in documents for one in each["uncharted"]})
        members = [dict(each["member"]) for each in documents]
        members += [
            {"name": each.address, "away": each.reason, "away_s": round(self._clock() - each.since, 1)}
            for each in self._peers.away()
        ]
        members.sort(key=lambda one: (one["away"] is None, one.get("ready", False), one["name"]))
        return {
            "summary": merged_summaries([each["summary"] for each in documents]),
            "streams": streams[start : start + PAGE],
            "from": start,
            "total": total,
            "counts": {name: sum(each["counts"][name] for each in documents) for name in own["counts"]},
            "uncharted": uncharted[:LISTED_UNCHARTED],
            "open_alarms": alarms[:LISTED_ALARMS],
            "mixture": next((each["mixture"] for each in documents if each["mixture"] is not None), None),
            "members": members,
        }


def merged_summaries(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of several members together.

    Counts are added, coverage is that of all scored forecasts, latency that of the slowest member.
    """
    own = summaries[0]
    merged = dict(own)
    for name in _ADDED:
        known = [each[name] for each in summaries if each[name] is not None]
        merged[name] = sum(known) if known else None
    newest = [each["newest_ds"] for each in summaries if each["newest_ds"] is not None]
    merged["newest_ds"] = max(newest, default=None)
    scored = sum(each["coverage"]["forecasts"] for each in summaries)
    held = sum((each["coverage"]["observed"] or 0.0) * each["coverage"]["forecasts"] for each in summaries)
    merged["coverage"] = own["coverage"] | {"forecasts": scored, "observed": held / scored if scored else None}
    ages = {name: [each["latency_s"][name] for each in summaries] for name in own["latency_s"]}
    merged["latency_s"] = {
        name: max((age for age in found if age is not None), default=None) for name, found in ages.items()
    }
    if "open_alarms" in own:
        merged["open_alarms"] = {
            name: sum(each["open_alarms"][name] for each in summaries) for name in own["open_alarms"]
        }
    if "models" in own:
        tables = dict.fromkeys(name for each in summaries for name in each.get("models", {}))
        merged["models"] = {
            name: merged_summaries([each["models"][name] for each in summaries if name in each.get("models", {})])
            for name in tables
        }
    return merged


def _documents(answers: Sequence[Answer]) -> list[Mapping[str, Any]]:
    return [each.document for each in answers if each.status == 200]
