"""Records that are several observations, joined ids, arrays, metrics, changes: found, and decoded as they are meant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from rillcast.discovery import layout as layouts
from rillcast.discovery.proposal import Proposal, propose
from rillcast.discovery.sample import Sample
from rillcast.errors import DataError, SettingsError
from rillcast.settings import Settings
from rillcast.transports.base import Polled

START_S = 1_764_547_200
STEPS = 60


def polled(values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> Polled:
    n = len(values)
    stamps = START_S * 1_000 + np.arange(n, dtype=np.int64) * 1_000
    return Polled(np.zeros(n, np.int64), np.arange(n, dtype=np.int64), stamps, keys or [None] * n, list(values))


def found(records: Iterable[Any], **changes: Any) -> Proposal:
    """Return the proposal for records, JSON unless they are bytes; every one of them has to be an observation."""
    values = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in records]
    settings, poll = Settings.model_validate(changes), polled(values)
    proposal = propose(settings, layouts.of_topic(settings, poll), lambda _settings: Sample("topic", poll, 1, None))
    assert not proposal.refused, proposal.example
    return proposal


def streams(proposal: Proposal) -> set[str]:
    return set(proposal.events.unique_ids)


def at(step: int) -> int:
    return START_S + step * 60


def test_several_numbers_are_streams_of_their_own() -> None:
    rng = np.random.default_rng(0)
    proposal = found(
        {"host": f"web-{n}", "ts": at(step), "cpu": float(rng.random()), "mem": float(rng.random()), "pid": 17 + n}
        for step in range(STEPS)
        for n in range(3)
    )
    assert proposal.choice.values["input.fields.y"] == "cpu,mem"
    assert streams(proposal) == {f"web-{n}/{name}" for n in range(3) for name in ("cpu", "mem")}
    assert len(proposal.events) == 2 * 3 * STEPS
    assert proposal.choice.values["model"] == "universal:1min"


def test_streams_of_one_time_each_have_no_cadence() -> None:
    proposal = found({"unique_id": f"s{n % 2}", "ds": START_S * 1_000, "y": n} for n in range(6))
    assert proposal.profile.frequency is None
    assert streams(proposal) == {"s0", "s1"}


@pytest.mark.parametrize("per_s", [1_000, 1_000_000])
def test_a_time_without_a_telling_name_is_found_by_its_digits(per_s: int) -> None:
    """A topic that was loaded at once has times far from those of its records; seconds could be other numbers."""
    begin_s = 1_404_172_800
    rides = ({"cab": "yellow", "picked_up": (begin_s + 97 * n) * per_s, "fare": 5.0 + n % 7} for n in range(STEPS))
    assert found(rides).choice.values["input.fields.ds"] == "picked_up"


def test_many_numbers_of_one_object_are_named_together() -> None:
    rng = np.random.default_rng(0)
    proposal = found(
        {"device": f"d{n}", "time": at(step) * 1_000, "m": {f"load{i:02d}": float(rng.random()) for i in range(20)}}
        for step in range(STEPS)
        for n in range(2)
    )
    assert proposal.choice.values["input.fields.y"] == "m.*"
    assert len(streams(proposal)) == 40


def test_an_id_that_has_several_events_at_a_time_gets_further_members() -> None:
    rng = np.random.default_rng(0)
    proposal = found(
        {"host": f"h{n}", "metric": name, "level": "info", "ts": at(step), "value": float(rng.random())}
        for step in range(STEPS)
        for n in range(3)
        for name in ("cpu", "mem", "disk")
    )
    assert set(proposal.choice.values["input.fields.unique_id"].split(",")) == {"host", "metric"}
    assert len(streams(proposal)) == 9
    assert proposal.profile.repeated == 0
    assert proposal.profile.frequencies == {"1min": 1.0}


def test_arrays_of_readings_are_taken_apart() -> None:
    rng = np.random.default_rng(0)
    proposal = found(
        {
            "gateway": "g1",
            "sent": at(step),
            "readings": [{"sensor": f"s{n}", "at": at(step), "value": float(rng.random())} for n in range(4)],
        }
        for step in range(STEPS)
    )
    assert proposal.choice.values["input.fields.y"] == "readings[].value"
    assert streams(proposal) == {f"s{n}" for n in range(4)}
    bare = found(
        [{"sensor": f"s{n}", "at": at(step), "value": float(rng.random())} for n in range(4)] for step in range(STEPS)
    )
    assert bare.choice.values["input.fields.unique_id"] == "[].sensor"
    assert streams(bare) == {f"s{n}" for n in range(4)}


@pytest.mark.parametrize(("per_s", "unit"), [(1, None), (1_000, "ms")])
@pytest.mark.parametrize("batch", [False, True])
def test_metrics_of_telegraf_need_no_names(per_s: int, unit: str | None, batch: bool) -> None:
    rng = np.random.default_rng(0)
    metrics = [
        {
            "name": "cpu",
            "tags": {"host": f"web-{n}"},
            "fields": {"usage_user": float(rng.random()), "usage_idle": float(rng.random())},
            "timestamp": at(step) * per_s,
        }
        for step in range(STEPS)
        for n in range(3)
    ]
    records: list[Any] = [{"metrics": metrics[i : i + 3]} for i in range(0, len(metrics), 3)] if batch else metrics
    proposal = found(records)
    assert proposal.choice.values["input.format"] == "telegraf"
    assert proposal.choice.values.get("input.fields.ds_unit") == unit
    assert "cpu/host=web-1/usage_user" in streams(proposal)
    assert len(proposal.events) == 2 * 3 * STEPS
    assert proposal.profile.frequency == "1min"


@pytest.mark.parametrize("timed", [True, False])
def test_lines_of_influx_need_no_names(timed: bool) -> None:
    lines = [
        f"cpu,host=web-{n} usage={0.5 + step / 100}{f' {at(step)}000000000' if timed else ''}".encode()
        for step in range(STEPS)
        for n in range(3)
    ]
    proposal = found(lines)
    assert proposal.choice.values["input.format"] == "influx"
    assert proposal.choice.values.get("input.fields.ds") == (None if timed else "$timestamp")
    assert streams(proposal) == {f"cpu/host=web-{n}/usage" for n in range(3)}


def test_changes_of_a_database_are_read_by_their_path() -> None:
    proposal = found(
        {
            "payload": {
                "before": None,
                "after": {"meter_id": 17 + n, "read_at": f"2025-12-01T{step % 24:02d}:00:00Z", "kwh": step + n / 2},
                "op": "c",
                "ts_ms": (START_S + step * 3_600 + 5) * 1_000,
            }
        }
        for step in range(24)
        for n in range(3)
    )
    fields = proposal.settings.input.fields
    assert (fields.unique_id, fields.y) == ("payload.after.meter_id", "payload.after.kwh")
    assert fields.ds == "payload.after.read_at"
    assert proposal.choice.values["model"] == "universal:1h"


def test_names_with_signs_of_the_notation_are_escaped() -> None:
    proposal = found({"a,b": f"s{step % 2}", "t[s]": at(step), "x=y": step * 1.5} for step in range(STEPS))
    assert streams(proposal) == {"s0", "s1"}
    assert not np.isnan(proposal.events.y).any()


def test_what_cannot_be_chosen_is_said() -> None:
    with pytest.raises(DataError, match="neither json nor msgpack nor influx"):
        found([b"\x93\x01garbage \xff"] * 30)
    with pytest.raises(DataError, match=r"id of a stream; name it with --input\.fields\.unique-id"):
        found({"ts": at(step), "value": step} for step in range(STEPS))
    with pytest.raises(SettingsError, match=r"schema 7\); name the registry"):
        found([b"\x00\x00\x00\x00\x07data"] * 30)


@pytest.mark.parametrize(
    ("record", "only"),
    [({"meta": {"kind": "sales"}}, "meta.kind=sales"), ({"kind": "sales"}, "kind=sales"), ({}, "$header.kind=sales")],
)
def test_streams_of_two_cadences_are_told_apart_by_a_member_or_header(record: dict[str, Any], only: str) -> None:
    other = {"meta": {"kind": "heat"}} if "meta" in record else dict.fromkeys(record, "heat")
    rows = [(at(step), f"{letter}x", other, b"heat") for step in range(STEPS) for letter in "abcde"]
    rows += [(at(step * 1_440), f"{letter}x", record, b"sales") for step in range(30) for letter in "fghi"]
    values = [
        json.dumps({"id": unique_id, "ts": ts, "v": ts % 7 + 0.5, **more}).encode() for ts, unique_id, more, _ in rows
    ]
    n = len(rows)
    offsets, stamps = np.arange(n, dtype=np.int64), np.array([row[0] * 1_000 for row in rows])
    headers = [[("kind", kind)] if only.startswith("$") else [] for _, _, _, kind in rows]
    poll = Polled(np.zeros(n, np.int64), offsets, stamps, [None] * n, values, lambda row: headers[row])
    sample = Sample("topic", poll, 1, None)
    proposal = propose(Settings(), layouts.of_topic(Settings(), poll), lambda _settings: sample)
    found = [(table.model, table.only) for table in proposal.settings.models]
    assert found == [("universal:1d", only), ("universal:1min", None)]
