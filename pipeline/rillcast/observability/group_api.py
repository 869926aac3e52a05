"""The read API for all members together: lists are merged, a forecast comes from the member that has it.

Owns: how the answers of members become one, and the parameter `scope`. Does not know: what a member knows
(`rillcast.observability.api`), HTTP (`rillcast.observability.peers`).
Invariants: a list names the members that it lacks. Other members are asked with `scope=member`, which none passes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

import orjson

from rillcast.observability.api import ReadApi, Reply
from rillcast.observability.openapi import DEFAULT_LIMIT, ROOT, SCOPES
from rillcast.observability.peers import Peers

_LISTS: Final = {"/streams": "streams", "/alarms": "alarms", "/silent": "streams"}


class GroupApi:
    """See `ReadApi`. May be asked from any thread."""

    def __init__(self, own: ReadApi, peers: Peers) -> None:
        self._own, self._peers = own, peers

    def answer(self, path: str, query: str) -> Reply | None:
        """Answer a request; see `ReadApi.answer`."""
        given = parse_qsl(query, keep_blank_values=True)
        scope, rest = dict(given).get("scope", SCOPES[0]), [each for each in given if each[0] != "scope"]
        if scope not in SCOPES:
            problem = {"error": f"scope is {scope[:20]!r}, expected {', '.join(SCOPES)}"}
            return Reply(HTTPStatus.BAD_REQUEST, orjson.dumps(problem))
        one = path.startswith("/streams/")
        reply = self._own.answer(path, urlencode(rest) if "scope" in dict(given) else query)
        if reply is None or not self._peers or scope == "member" or not (one or path in _LISTS):
            return reply
        asked = f"{ROOT}{quote(path)}?{urlencode([*rest, ('scope', 'member')])}"
        if one:
            return reply if reply.status == HTTPStatus.OK else self._elsewhere(asked) or reply
        if reply.status != HTTPStatus.OK:
            return reply
        answers = [each.document for each in self._peers.ask(asked) if each.status == HTTPStatus.OK]
        documents = [orjson.loads(reply.body), *answers]
        limit = int(dict(rest).get("limit", DEFAULT_LIMIT))
        merged = _merged(path, documents, limit) | {"away": [each.address for each in self._peers.away()]}
        return Reply(HTTPStatus.OK, orjson.dumps(merged))

    def _elsewhere(self, asked: str) -> Reply | None:
        found = [each.document for each in self._peers.ask(asked) if each.status == HTTPStatus.OK]
        if not found:
            return None
        # After a rebalance the member before may still keep an older one.
        newest = max(found, key=lambda document: str(document.get("ds", "")))
        return Reply(HTTPStatus.OK, orjson.dumps(newest))


def _merged(path: str, documents: Sequence[Mapping[str, Any]], limit: int) -> dict[str, Any]:
    name = _LISTS[path]
    entries = [entry for each in documents for entry in each[name]]
    counts = {one: _sum(documents, one) for one in ("total", "open", "overdue", "sleeping") if one in documents[0]}
    match path:
        case "/streams":
            entries.sort(key=lambda entry: entry["unique_id"])
            more = len(entries) > limit or any(each["next"] is not None for each in documents)
            entries = entries[:limit]
            return {name: entries, **counts, "next": entries[-1]["unique_id"] if more and entries else None}
        case "/silent":
            entries.sort(key=lambda entry: entry["since"], reverse=True)
        case _:
            closed = [entry for entry in entries if entry["closed"] is not None]
            opened = [entry for entry in entries if entry["closed"] is None]
            opened.sort(key=lambda entry: entry["first"], reverse=True)
            closed.sort(key=lambda entry: entry["closed"], reverse=True)
            entries = opened + closed
    return {name: entries[:limit], **counts}


def _sum(documents: Sequence[Mapping[str, Any]], name: str) -> int | None:
    known = [each[name] for each in documents if each[name] is not None]
    return sum(known) if known else None
