"""Several members behind one page and one API: real servers on the loopback address, with streams of their own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from pydantic import ValidationError

from rillcast.observability.peers import PATIENCE_S, Peers
from rillcast.settings import HttpSettings
from tests.support.kafka_broker import free_ports
from tests.support.live_views import publish, put
from tests.support.members import Member, member

ONE, OTHER = "one", "other"


@pytest.fixture
def group() -> Iterator[list[Member]]:
    """Three members that know of each other and of themselves; the last stream of each is uncovered."""
    ports = free_ports(3)
    peers = ",".join(f"127.0.0.1:{port}" for port in ports)
    with ExitStack() as stack:
        members = [stack.enter_context(member(port, peers)) for port in ports]
        for number, each in enumerate(members):
            for stream in range(2):
                missed = [float(stream == 0)] * 60
                name = f"s-{2 * number + stream}"
                put(each.live_view, [name] * 60, range(60), [1.0] * 60, covered=missed, num_streams=2)
        yield members


def test_one_member_shows_the_streams_of_all_in_the_order_of_trouble(group: list[Member]) -> None:
    for each in group:
        document = each.ask("/api/streams")
        assert [one["unique_id"] for one in document["streams"]] == ["s-1", "s-3", "s-5", "s-0", "s-2", "s-4"]
        assert document["counts"] == {"all": 6, "alarm": 0, "silence": 0, "uncovered": 3}
        summary = document["summary"]
        assert (summary["events"], summary["streams"]) == (360, 6)
        assert summary["coverage"]["observed"] == pytest.approx(0.5)
        assert [(one["lag"], one["dead_letters"]) for one in document["members"]] == [
            (member.server.port, member.server.port) for member in sorted(group, key=lambda one: str(one.server.port))
        ]
        assert all(one["ready"] and one["away"] is None for one in document["members"])
    assert group[0].ask("/api/summary")["events"] == 360
    found = group[1].ask("/api/streams?find=s-4")
    assert ([one["unique_id"] for one in found["streams"]], found["total"]) == (["s-4"], 1)
    assert [one["unique_id"] for one in group[1].ask("/api/member/streams")["streams"]] == ["s-3", "s-2"]


def test_a_stream_is_opened_on_every_member(group: list[Member]) -> None:
    for each in group:
        assert each.ask("/api/streams/s-4")["unique_id"] == "s-4"
    missing = group[0].ask("/api/streams/nobody")
    assert "is not charted" in missing["error"]
    put(group[2].live_view, ["nobody"], [1], [1.0])
    assert group[0].ask("/api/streams/nobody")["unique_id"] == "nobody", "every member follows it from then on"


def test_pages_go_over_all_members() -> None:
    ports = free_ports(2)
    peers = ",".join(f"127.0.0.1:{port}" for port in ports)
    with member(ports[0], peers) as first, member(ports[1], peers) as second:
        names = [f"n{number}" for number in range(40)]
        for each, mine in ((first, names[::2]), (second, names[1::2])):
            put(each.live_view, mine, [1] * 20, [1.0] * 20)
        before, after = (first.ask(f"/api/streams?from={start}") for start in (0, 24))
        shown = [one["unique_id"] for document in (before, after) for one in document["streams"]]
        assert shown == names
        assert (before["total"], after["from"], len(after["streams"])) == (40, 24, 16)


def test_a_member_that_is_away_is_shown_as_such_and_holds_up_one_answer_only(group: list[Member]) -> None:
    first, _, last = group
    first.ask("/api/streams")
    address = f"127.0.0.1:{last.server.port}"
    last.server.stop()
    with silent_server(int(address.rpartition(":")[2])):  # it takes connections and says nothing
        started = time.monotonic()
        document = first.ask("/api/streams")
        assert time.monotonic() - started < PATIENCE_S + 5
        assert document["members"][0]["name"] == address
        assert document["members"][0]["away"] == f"no answer within {PATIENCE_S:g} s"
        assert [one["unique_id"] for one in document["streams"]] == ["s-1", "s-3", "s-0", "s-2"]
        started = time.monotonic()
        first.ask("/api/streams")
        assert time.monotonic() - started < PATIENCE_S, "nobody waits for it any more"
    with member(int(address.rpartition(":")[2])) as back:
        put(back.live_view, ["new"], [1], [1.0])
        deadline = time.monotonic() + 30
        while "new" not in [one["unique_id"] for one in first.ask("/api/streams")["streams"]]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [one["away"] for one in first.ask("/api/streams")["members"]] == [None] * 3


def test_the_token_goes_to_the_members_and_a_wrong_one_is_named() -> None:
    ports = free_ports(2)
    peers = f"127.0.0.1:{ports[1]}"
    with member(ports[0], peers, token=ONE) as first:
        with member(ports[1], token=ONE) as second:
            put(second.live_view, ["theirs"], [1], [1.0])
            assert [one["unique_id"] for one in first.ask("/api/streams", ONE)["streams"]] == ["theirs"]
        with member(ports[1], token=OTHER):
            deadline = time.monotonic() + 30
            while first.ask("/api/streams", ONE)["members"][0]["away"] != "it wants another http.token":
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_the_lists_of_the_api_are_those_of_all_members_unless_one_is_asked_for(group: list[Member]) -> None:
    for number, each in enumerate(group):
        publish(each.forecasts, [f"s-{number}", f"s-{number + 3}"])
    listed = group[0].ask("/api/v1/streams?limit=4")
    assert [one["unique_id"] for one in listed["streams"]] == ["s-0", "s-1", "s-2", "s-3"]
    assert (listed["total"], listed["next"], listed["away"]) == (6, "s-3", [])
    rest = group[0].ask("/api/v1/streams?limit=4&after=s-3")
    assert ([one["unique_id"] for one in rest["streams"]], rest["next"]) == (["s-4", "s-5"], None)
    assert [one["unique_id"] for one in group[0].ask("/api/v1/streams?scope=member")["streams"]] == ["s-0", "s-3"]
    assert group[0].ask("/api/v1/streams/s-5")["unique_id"] == "s-5"
    assert "keeps no forecast" in group[0].ask("/api/v1/streams/s-5?scope=member")["error"]
    assert "keeps no forecast" in group[0].ask("/api/v1/streams/nobody")["error"]
    assert group[0].ask("/api/v1/silent") == {"streams": [], "overdue": None, "sleeping": None, "away": []}
    assert group[0].ask("/api/v1/streams?scope=all")["error"] == "scope is 'all', expected group, member"
    assert group[0].ask("/api/v1/status")["listed"] == 2, "a status is that of one member"
    gone = f"127.0.0.1:{group[2].server.port}"
    group[2].server.stop()
    assert group[0].ask("/api/v1/alarms") == {"alarms": [], "open": 0, "away": [gone]}


def test_a_name_is_looked_up_again_and_a_member_that_it_lost_is_forgotten() -> None:
    ports = free_ports(2)
    clock = [0.0]
    known = [["127.0.0.1"], ["127.0.0.1"], []]

    def look_up(host: str, port: int) -> list[str]:
        if host == "gone":
            raise OSError(0, "no such name")
        return known[0]

    with member(ports[0]) as one:
        put(one.live_view, ["s"], [1], [1.0])
        peers = Peers([("members", ports[0])], look_up=look_up, clock=lambda: clock[0])
        assert [answer.status for answer in peers.ask("/api/member/streams")] == [200]
        known[0] = []
        assert len(peers.ask("/api/member/streams")) == 1, "it is looked up every few seconds"
        clock[0] = 60.0
        deadline = time.monotonic() + 10
        while peers.ask("/api/member/streams"):
            assert time.monotonic() < deadline
        assert peers.away() == []
        peers.close()
    lost = Peers([("gone", 1)], look_up=look_up)
    assert lost.ask("/api/member/streams") == []
    assert [each[:2] for each in lost.away()] == [("gone:1", "cannot be looked up: no such name")]
    lost.close()


@pytest.mark.parametrize("address", ["host", "host:port", "http://host:1", "a:1/x", "me@host:1", "a:1,"])
def test_a_peer_that_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="is not the address of a member; expected host:port"):
        HttpSettings(peers=address)


@contextmanager
def silent_server(port: int) -> Iterator[None]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        stopped = threading.Event()
        yield
        stopped.set()
