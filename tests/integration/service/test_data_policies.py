"""Each cell of the table in `docs/data.md`, by its name, through the whole worker with a real forecaster."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.codecs.observations.decoder import DecodeLimits, ObservationDecoder
from rillcast.codecs.observations.expansion import Expansion
from rillcast.codecs.observations.influx import InfluxFormat
from rillcast.codecs.observations.matching import Matching, Rule
from rillcast.codecs.observations.msgpack import MessagePackFormat
from rillcast.codecs.observations.rejections import Reason
from rillcast.engine.late import AllowedLateness
from rillcast.engine.residents import Limits
from rillcast.publishing.dead_letters import DeadLetter
from rillcast.publishing.filters import Policy
from rillcast.transports.base import Channel
from tests.support.forecasters import HOUR_MS, write_network
from tests.support.formats import format_of, mock_registry, writer_of
from tests.support.memory import Log
from tests.support.policy_tables import assert_settings_exist, codes, rows, statuses
from tests.support.workers import Harness, build, observation

pytestmark = pytest.mark.usefixtures("brief_parity")

START_MS = 1_714_564_800_000
CONTEXT = 12


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundle") / "m.onnx"
    write_network(path)
    return Bundle.load(path)


@dataclass
class Cell:
    """One row of the table: an input, and the outcome that the page promises."""

    values: Sequence[bytes | None]
    published: list[str]
    dead: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    check: Callable[[list[dict[str, Any]]], None] = lambda _records: None


def events(*slots: float, y: float | None = 1.0, unique_id: str = "a") -> list[bytes]:
    return [observation(unique_id, y, START_MS + round(slot * HOUR_MS)) for slot in slots]


def wide(slot: int, **members: object) -> bytes:
    return json.dumps({"host": "a", "at": START_MS + slot * HOUR_MS} | members).encode()


WIDE = ObservationDecoder(expansion=Expansion("host", "at", "cpu,mem"))
READINGS = ObservationDecoder(expansion=Expansion("host", "r[].t", "r[].v"))


def finite(records: list[dict[str, Any]]) -> None:
    """No forecast has anything in it but numbers."""
    for record in records:
        for values in record["quantiles"].values():
            assert all(isinstance(value, float | int) for value in values)


def revised(expected: list[tuple[int, int]]) -> Callable[[list[dict[str, Any]]], None]:
    """Return a check of slot and revision of the last records."""

    def check(records: list[dict[str, Any]]) -> None:
        last = records[-len(expected) :]
        starts = [datetime.fromisoformat(record["ds"]).timestamp() * 1000 - START_MS for record in last]
        assert [(start // HOUR_MS, record["revision"]) for start, record in zip(starts, last, strict=True)] == expected

    return check


def packed(slot: int, y: float = 1.0) -> bytes:
    return msgspec.msgpack.encode({"unique_id": "a", "ds": START_MS + slot * HOUR_MS, "y": y})


def as_written(form: str) -> Callable[[bytes], bytes]:
    """Return what makes a record in a format of the registry of an observation in JSON."""
    write = writer_of(form, REGISTRY)
    return lambda value: write(json.loads(value))


REGISTRY = mock_registry()
AVRO, PROTOBUF, JSON_SCHEMA = (as_written(form) for form in ("avro", "protobuf", "json_schema"))
FRAME = JSON_SCHEMA(events(0)[0])[:5]
# One that keeps the schema, and one that does not, in a member that a model without covariates has no use for.
BESIDE_THE_SCHEMA = [JSON_SCHEMA(events(0)[0]), FRAME + b'{"unique_id": "b", "ds": 0, "y": 1, "x": {"temp": [1]}}']
LATENESS = {"lateness": AllowedLateness(3, Frequency(HOUR_MS))}
LAST_WINS = {"lateness": AllowedLateness(3, Frequency(HOUR_MS), last_wins=True)}
ONLY_A = Matching([Rule("a")])
WARM = events(*range(CONTEXT))
WARMED = ["warming_up"] * (CONTEXT - 1) + ["ok"]
CELLS = {
    "in-order": Cell(events(*range(CONTEXT + 2)), [*WARMED, "ok", "ok"], counted={"ok": 3}),
    "duplicate": Cell([*WARM, *events(11, 11.5)], WARMED, counted={"duplicate": 2}),
    "late-dead_letter": Cell([*WARM, *events(3)], WARMED, ["late"], {"late": 1}),
    "late-drop": Cell([*WARM, *events(3)], WARMED, [], {"late": 1}, {"late": "drop"}),
    "late-within-allowance": Cell(
        [*WARM, *events(12, 14, 13, y=2.0)],
        [*WARMED, "ok", "gap", "ok", "ok"],
        counted={"ok": 3, "gap": 1, "late": 0},
        options=LATENESS,
        check=revised([(13, 0), (14, 1)]),
    ),
    "late-beyond-allowance": Cell([*WARM, *events(7)], WARMED, ["late"], {"late": 1}, LATENESS),
    "late-beyond-allowance-drop": Cell(
        [*WARM, *events(7)], WARMED, [], {"late": 1}, LATENESS | {"late": "drop"}
    ),
    "late-at-allowance": Cell(
        [*WARM, *events(12, 14, 15, 16, 13)],
        [*WARMED, "ok", "gap", "ok", "ok", "ok", "ok", "ok", "ok"],
        options=LATENESS,
        check=revised([(13, 0), (14, 1), (15, 1), (16, 1)]),
    ),
    "late-known": Cell([*WARM, *events(9, y=5.0)], WARMED, [], {"duplicate": 1, "late": 0}, LATENESS),
    "duplicate-last-wins": Cell(
        [*WARM, *events(10, y=5.0), *events(11, y=5.0), *events(11, y=5.0)],
        [*WARMED, "warming_up", "ok", "ok"],
        counted={"duplicate": 1},
        options=LAST_WINS,
        check=revised([(10, 1), (11, 1), (11, 2)]),
    ),
    "missing-known": Cell(
        [*WARM, *events(12, y=None), *events(13, 12, y=5.0)],
        [*WARMED, "missing", "ok"],
        counted={"duplicate": 1},
        options=LATENESS,
    ),
    "missing-filled": Cell(
        [*WARM, *events(12, y=None), *events(13, 12, y=5.0)],
        [*WARMED, "missing", "ok", "ok", "ok"],
        counted={"duplicate": 0, "missing": 1},
        options=LAST_WINS,
        check=revised([(12, 1), (13, 1)]),
    ),
    "gap": Cell([*WARM, *events(14)], [*WARMED, "gap"], counted={"gap": 1}, check=finite),
    "gap-too-long": Cell([*WARM, *events(100, 101)], [*WARMED, "warming_up", "warming_up"], check=finite),
    "missing-null": Cell([*WARM, *events(12, y=None)], [*WARMED, "missing"], counted={"missing": 1}, check=finite),
    "missing-absent": Cell(
        [*WARM, json.dumps({"unique_id": "a", "ds": START_MS + 12 * HOUR_MS}).encode()], [*WARMED, "missing"],
        check=finite
    ),
    "missing-word": Cell(
        [*WARM, json.dumps({"unique_id": "a", "ds": START_MS + 12 * HOUR_MS, "y": "N/A"}).encode()],
        [*WARMED, "missing"],
        counted={"missing": 1},
        check=finite,
    ),
    "other-forms": Cell(
        [
            b'{"unique_id": 7, "ds": " 2024-05-01 12:00 +02:00", "y": "1.5"}',
            b'{"unique_id": "7", "ds": "1714561200000", "y": 2}',
        ],
        ["warming_up"] * 2,
    ),
    "two-meanings": Cell(
        [
            *WARM,
            b'{"unique_id": "a", "ds": "05/01/2024", "y": 1}',
            b'{"unique_id": "a", "ds": 20240501, "y": 1}',
            b'{"unique_id": "a", "ds": "2024-05-01", "y": "1,5"}',
            *events(12),
        ],
        [*WARMED, "ok"],
        ["ds_out_of_range", "ds_out_of_range", "wrong_type"],
    ),
    "nan": Cell([*WARM, observation("a", float("nan"), START_MS)], WARMED, ["not_json"]),
    "nan-msgpack": Cell(
        [packed(slot) for slot in range(CONTEXT)] + [packed(12, float("nan"))],
        [*WARMED, "missing"],
        counted={"missing": 1},
        options={"decoder": ObservationDecoder(form=MessagePackFormat())},
        check=finite,
    ),
    "future-limit": Cell(
        [*WARM, *events(36, 12)],
        [*WARMED, "ok"],
        ["from_the_future"],
        options={"decoder": ObservationDecoder(DecodeLimits(max_future_ms=86_400_000)), "timestamp_ms": START_MS},
    ),
    "future-any": Cell(
        [*WARM, *events(36, 12)],
        [*WARMED, "warming_up"],
        ["late"],
        options={"timestamp_ms": START_MS},
    ),
    "cold-start-published": Cell(events(0), ["warming_up"], counted={"warming_up": 1}, check=finite),
    "cold-start-kept-back": Cell(
        WARM, ["ok"], counted={"warming_up": CONTEXT - 1, "ok": 1}, options={"policy": Policy(warming_up=False)}
    ),
    "malformed": Cell([*WARM, b"{", None, b"\xff", *events(12)], [*WARMED, "ok"], ["not_json", "empty", "not_utf8"]),
    "not-msgpack": Cell(
        [*(packed(slot) for slot in range(CONTEXT)), b"\xc1", packed(12)],
        [*WARMED, "ok"],
        ["not_msgpack"],
        options={"decoder": ObservationDecoder(form=MessagePackFormat())},
    ),
    "not-of-the-registry": Cell(
        [*events(0), b"\0\x7f\xff\xff\xff{}", *map(AVRO, events(0)), AVRO(events(1)[0])[:6]],
        ["warming_up"],
        ["not_framed", "unknown_schema", "not_avro"],
        options={"decoder": ObservationDecoder(form=format_of("avro", REGISTRY))},
    ),
    "not-protobuf": Cell(
        [PROTOBUF(events(0)[0])[:6] + b"\xff" * 9, *map(PROTOBUF, events(0))],
        ["warming_up"],
        ["not_protobuf"],
        options={"decoder": ObservationDecoder(form=format_of("protobuf", REGISTRY))},
    ),
    "schema-checked": Cell(
        BESIDE_THE_SCHEMA,
        ["warming_up"],
        ["schema_violation"],
        options={"decoder": ObservationDecoder(form=format_of("json_schema", REGISTRY, validate=True))},
    ),
    "schema-unchecked": Cell(
        BESIDE_THE_SCHEMA,
        ["warming_up"] * 2,
        options={"decoder": ObservationDecoder(form=format_of("json_schema", REGISTRY))},
    ),
    "not-cloudevent": Cell(
        events(0, 1), [], ["not_cloudevent"] * 2, options={"decoder": ObservationDecoder(cloudevents=True)}
    ),
    "not-influx": Cell(
        [b"m v=1 %d" % START_MS, b"m"],
        ["warming_up"],
        ["not_influx"],
        options={
            "decoder": ObservationDecoder(
                form=InfluxFormat(), expansion=Expansion("name", "timestamp", "fields.v", in_array=True)
            )
        },
    ),
    "wide-some": Cell(
        [wide(0, cpu=1, mem=2), wide(1, mem=None), wide(1, cpu=3)],
        ["warming_up"] * 4,
        options={"decoder": WIDE},
    ),
    "wide-none": Cell([wide(0, disk=1), wide(0, cpu=1)], ["warming_up"], ["missing_field"], options={"decoder": WIDE}),
    "wide-wrong-type": Cell(
        [wide(0, cpu="high", mem=2), wide(0, cpu=1)], ["warming_up"] * 2, ["wrong_type"], options={"decoder": WIDE}
    ),
    "wide-late": Cell(
        [wide(1, cpu=1, mem=2), wide(0, cpu=1, mem=2)],
        ["warming_up"] * 2,
        ["late"],
        counted={"late": 2},
        options={"decoder": WIDE},
    ),
    "joined-id-absent": Cell(
        [wide(0, cpu=1), wide(0, cpu=1, rack="r")],
        ["warming_up"],
        ["missing_field"],
        options={"decoder": ObservationDecoder(expansion=Expansion("host,rack", "at", "cpu"))},
    ),
    "joined-id-nothing": Cell(
        [wide(0, cpu=1, tags={}), wide(0, cpu=1, tags={"dc": "eu"})],
        ["warming_up"],
        ["bad_id"],
        options={"decoder": ObservationDecoder(expansion=Expansion("tags.*", "at", "cpu"))},
    ),
    "array-element": Cell(
        [wide(0, r=[{"t": START_MS, "v": 1}, {"v": 2}, {"t": START_MS + HOUR_MS, "v": 3}])],
        ["warming_up"] * 2,
        ["missing_field"],
        options={"decoder": READINGS},
    ),
    "array-absent": Cell(
        [wide(0), wide(0, r={}), wide(0, r=[{"t": START_MS, "v": 1}])],
        ["warming_up"],
        ["missing_field", "wrong_type"],
        options={"decoder": READINGS},
    ),
    "left-out": Cell(
        [wide(0, cpu=1, kind="a"), wide(1, cpu=1, kind="b"), None],
        ["warming_up"],
        options={"decoder": ObservationDecoder(expansion=Expansion("host", "at", "cpu", only="kind=a"))},
    ),
    "unmatched-dropped": Cell([*events(0), *events(0, unique_id="b")], ["warming_up"], options={"matching": ONLY_A}),
    "unmatched-dead": Cell(
        [*events(0), *events(0, unique_id="b")],
        ["warming_up"],
        ["unmatched"],
        options={"matching": Matching([Rule("a")], unmatched_are_dead=True)},
    ),
    "member-absent": Cell(
        [*WARM, b'{"ds": 0, "y": 1}', b'{"unique_id": "a", "y": 1}', *events(12)],
        [*WARMED, "ok"],
        ["missing_field"] * 2,
    ),
    "wrong-type": Cell([*WARM, observation("a", "one", START_MS), *events(12)], [*WARMED, "ok"], ["wrong_type"]),  # type: ignore[arg-type]
    "too-large": Cell(
        [*WARM, b" " * 2_000_000, *events(12)], [*WARMED, "ok"], ["too_large"]
    ),
    "id-empty": Cell([*events(0, unique_id=""), *events(0)], ["warming_up"], ["bad_id"]),
    "id-too-long": Cell([*events(0, unique_id="x" * 600), *events(0)], ["warming_up"], ["bad_id"]),
    "y-too-large": Cell([*WARM, *events(12, y=1e16), *events(12)], [*WARMED, "ok"], ["y_out_of_range"]),
    "y-infinite": Cell(
        [*WARM, events(12, y=7.0)[0].replace(b"7.0", b"1e400"), *events(12)],
        [*WARMED, "ok"],
        ["y_out_of_range"],
    ),
    "quarantined": Cell(
        [*WARM, *events(12, y=1e30), *events(13)],
        [*WARMED, "gap"],
        ["quarantined"],
        options={"decoder": ObservationDecoder(DecodeLimits(max_abs_y=1e35))},
        check=finite,
    ),
    "date-out-of-range": Cell([observation("a", 1.0, 10**15), *events(0)], ["warming_up"], ["ds_out_of_range"]),
    "date-that-is-none": Cell(
        [b'{"unique_id": "a", "ds": "2024-02-30T00:00:00Z"}', *events(0)], ["warming_up"], ["ds_out_of_range"]
    ),
    "idle-kept": Cell(
        [*WARM, *events(20, unique_id="b"), *events(20)], [*WARMED, "warming_up", "gap"], counted={"gap": 1}
    ),
    "idle-evicted": Cell(
        [*WARM, *events(20, unique_id="b"), *events(20)],
        [*WARMED, "warming_up", "warming_up"],
        options={"limits": Limits(idle_ttl_ms=5 * HOUR_MS)},
    ),
    "too-many-new-streams": Cell(
        [*events(0), *events(0, unique_id="b"), *events(1), *events(1, unique_id="b")],
        ["warming_up"] * 2,
        ["too_many_new_streams"] * 2,
        options={"limits": Limits(max_new_streams_per_s=1), "timestamp_ms": START_MS},
    ),
    "too-many-streams": Cell(
        [*events(0), *events(0, unique_id="b"), *events(1)],
        ["warming_up"] * 2,
        ["too_many_streams"],
        options={"limits": Limits(max_streams_per_partition=1)},
    ),
}  # fmt: skip


def run(bundle: Bundle, cell: Cell, **extra: Any) -> tuple[Log, Harness]:
    options = dict(cell.options)
    log = Log(timestamp_ms=options.pop("timestamp_ms", -1))
    for value in cell.values:
        log.append(0, value)
    harness = build(log, bundle=bundle, **options, **extra)
    harness.worker.run()
    return log, harness


@pytest.mark.parametrize("per_poll", [1, 1000], ids=["one-by-one", "in-one-poll"])
@pytest.mark.parametrize("name", CELLS)
def test_cell(bundle: Bundle, name: str, per_poll: int) -> None:
    cell = CELLS[name]
    log, harness = run(bundle, cell, per_poll=lambda: per_poll)
    records = [json.loads(value) for _, value, _ in log.published[Channel.FORECASTS]]
    assert [record["status"] for record in records] == cell.published
    reasons = [DeadLetter.read(*record).reason for record in log.published[Channel.DEAD_LETTERS]]
    assert reasons == cell.dead
    for status, count in cell.counted.items():
        assert harness.metric("rillcast_events_total", status=status) == count
    for reason in set(cell.dead):
        assert harness.metric("rillcast_dead_letters_total", reason=reason) == cell.dead.count(reason)
    cell.check(records)
    assert log.committed == {0: len(cell.values)}, "nothing stops the partition"


def test_the_table_and_the_cells_are_the_same() -> None:
    assert sorted(row[5] for row in rows()) == sorted(f"`{name}`" for name in CELLS)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[5].strip("`"))
def test_a_row_says_what_its_cell_expects(row: list[str]) -> None:
    _, setting, _, published, dead, name = row
    cell = CELLS[name.strip("`")]
    assert codes(dead) == set(cell.dead)
    assert statuses(published) <= set(cell.published)
    assert_settings_exist(codes(setting))


def test_every_reason_of_a_dead_letter_stands_in_a_row() -> None:
    of_covariates = {Reason.COVARIATE_MISSING, Reason.COVARIATE_OUT_OF_RANGE}
    of_outputs = {
        Reason.FORECAST_TOO_LARGE,
        Reason.ANOMALY_TOO_LARGE,
        Reason.ALARM_TOO_LARGE,
    }  # tests/integration/kafka/test_too_large.py
    said = set[str]().union(*(codes(row[4]) for row in rows()))
    assert said == {str(reason) for reason in Reason} - of_covariates - of_outputs
