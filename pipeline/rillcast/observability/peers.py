"""The other members of the service, asked over HTTP for what they know: for the page and the API of the whole group.

Every entry of `http.peers` is `host:port`. A host is looked up again every few seconds, and every address that it has
is a member, so that the name of a headless service follows the members that come and go.

Owns: the addresses, the requests, and which members are away. Does not know: what is asked for, how it is merged.
Invariants: a member asks only routes that answer for one member alone, so no question goes in circles. It knows itself
by the id in the answer. A member that is away holds up one answer for `PATIENCE_S`, and those after it not at all: it
is asked again in the background. Redirects are not followed, so that the token goes to no other server.
"""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

log = logging.getLogger(__name__)

MEMBER_HEADER: Final = "X-Rillcast-Member"
PATIENCE_S: Final = 1.0
_TIMEOUT_S: Final = 3.0
_LOOK_UP_S: Final = 5.0
_MOST_AT_ONCE: Final = 16
_MOST_MEMBERS: Final = 256
_MAX_ANSWER_BYTES: Final = 32 * 2**20


class Answer(NamedTuple):
    """An answer of another member."""

    address: str
    status: int
    document: Any


class Away(NamedTuple):
    """A member that does not answer: why, and since when in seconds of the clock."""

    address: str
    reason: str
    since: float


@dataclass(slots=True)
class _Member:
    address: str
    host: str
    port: int
    pending: int = 0
    away: Away | None = None
    is_self: bool = False


def addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host.

    Raises:
        OSError: The host cannot be looked up.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


class Peers:
    """See the module's docstring. May be asked from any thread."""

    def __init__(
        self,
        peers: Sequence[tuple[str, int]],
        token: str | None = None,
        *,
        look_up: Callable[[str, int], list[str]] = addresses,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            peers: Hosts and ports.
            token: Bearer token that the members want, the same for all.
            look_up: Returns the addresses of a host.
            clock: Monotonic seconds.
        """
        self.own_id = uuid.uuid4().hex
        self._peers, self._token, self._look_up, self._clock = list(peers), token, look_up, clock
        self._lock = threading.Lock()
        self._members: dict[str, _Member] = {}
        self._unknown: dict[str, Away] = {}  # hosts that cannot be looked up
        self._looked_at = -float("inf")
        self._looking: Future[None] | None = None
        self._pool: ThreadPoolExecutor | None = None

    def __bool__(self) -> bool:
        """Whether there can be other members."""
        return bool(self._peers)

    def ask(self, path: str) -> list[Answer]:
        """Return the answers of the members that answer; a path with the query string."""
        if not self._peers:
            return []
        self._look()
        asked: dict[Future[Answer | None], _Member] = {}
        with self._lock:
            members = [each for each in self._members.values() if not each.is_self]
            for member in members:
                if member.away is not None and member.pending:
                    continue  # it is being asked already
                member.pending += 1
                future = self._executor().submit(self._fetch, member, path)
                if member.away is None:
                    asked[future] = member
        done, late = wait(asked, PATIENCE_S)
        for future in late:
            self._missed(asked[future], f"no answer within {PATIENCE_S:g} s")
        answers = [future.result() for future in done]
        return sorted(each for each in answers if each is not None)

    def away(self) -> list[Away]:
        """Return the members that did not answer last."""
        with self._lock:
            found = [each.away for each in self._members.values() if each.away is not None]
            return sorted([*found, *self._unknown.values()])

    def close(self) -> None:
        """Ask nobody any more."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_MOST_AT_ONCE, thread_name_prefix="rillcast-peers")
        return self._pool

    def _look(self) -> None:
        """Look the hosts up in the background, and wait a moment for the first time."""
        with self._lock:
            due = self._clock() - self._looked_at >= _LOOK_UP_S
            if due and (self._looking is None or self._looking.done()):
                self._looked_at = self._clock()
                self._looking = self._executor().submit(self._look_up_all)
            looking = self._looking if not self._members else None
        if looking is not None:
            wait([looking], PATIENCE_S)

    def _look_up_all(self) -> None:
        found: dict[str, tuple[str, int]] = {}
        unknown: dict[str, Away] = {}
        for host, port in self._peers:
            try:
                names = self._look_up(host, port)
            except OSError as error:
                before = self._unknown.get(host)
                since = self._clock() if before is None else before.since
                unknown[host] = Away(f"{host}:{port}", f"cannot be looked up: {error.strerror or error}", since)
                continue
            found |= {_joined(name, port): (name, port) for name in names}
        with self._lock:
            failed = {port for host, port in self._peers if host in unknown}
            kept = {name: each for name, each in self._members.items() if name in found or each.port in failed}
            for name, (host, port) in list(found.items())[:_MOST_MEMBERS]:
                kept.setdefault(name, _Member(name, host, port))
            self._members, self._unknown = kept, unknown

    def _fetch(self, member: _Member, path: str) -> Answer | None:
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        connection = http.client.HTTPConnection(member.host, member.port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read(_MAX_ANSWER_BYTES + 1)
            if len(body) > _MAX_ANSWER_BYTES:
                raise ValueError(f"more than {_MAX_ANSWER_BYTES} bytes")
            if answer.status == http.client.UNAUTHORIZED:
                raise ValueError("it wants another http.token")
            who = answer.getheader(MEMBER_HEADER)
            if who is None:
                raise ValueError("no member of Rillcast answers there")
            found = Answer(member.address, answer.status, orjson.loads(body))
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._missed(member, str(getattr(error, "strerror", None) or error) or type(error).__name__)
            return None
        finally:
            connection.close()
            with self._lock:
                member.pending -= 1
        with self._lock:
            member.is_self = who == self.own_id
            came_back, member.away = member.away, None
        if came_back is not None:
            log.info("member %s answers again", member.address)
        return None if member.is_self else found

    def _missed(self, member: _Member, reason: str) -> None:
        with self._lock:
            first = member.away is None
            since = self._clock() if member.away is None else member.away.since
            member.away = Away(member.address, reason, since)
        if first:
            log.warning("member %s does not answer: %s; page and API of the group lack it", member.address, reason)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
