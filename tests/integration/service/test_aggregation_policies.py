"""Each cell of the table of aggregation in `docs/data.md`, by its name, through the whole worker."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.codecs.observations.decoder import DecodeLimits, ObservationDecoder
from rillcast.engine.late import AllowedLateness
from rillcast.engine.periods import Aggregation
from rillcast.engine.residents import Limits
from rillcast.publishing.dead_letters import DeadLetter
from rillcast.transports.base import Channel
from tests.support.forecasters import HOUR_MS, write_network
from tests.support.memory import Log
from tests.support.policy_tables import assert_settings_exist, codes, rows, statuses
from tests.support.workers import build, observation

pytestmark = pytest.mark.usefixtures("brief_parity")

START_MS = 1_714_564_800_000
HOURLY = Frequency(HOUR_MS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path: Path = tmp_path_factory.mktemp("bundle") / "m.onnx"
    write_network(path)
    return Bundle.load(path)


@dataclass
class Cell:
    """One row of the table: raw events, and stream, hour, status and offset of what is published."""

    values: Sequence[bytes]
    published: list[tuple[str, int, str, int]]
    aggregation: Aggregation
    dead: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    timestamp_ms: int = -1


def event(hour: float, y: Any = 1.0, unique_id: str = "a") -> bytes:
    return observation(unique_id, y, START_MS + round(hour * HOUR_MS))


SUM, MEAN, COUNT = (Aggregation(kind, HOURLY, empty=0.0) for kind in ("sum", "mean", "count"))
BY_PARTITION = Aggregation("sum", HOURLY, "partition", grace_ms=HOUR_MS // 2, empty=0.0)
CORRECTED = Aggregation("sum", HOURLY, empty=0.0, correctable=2)
LATENESS = {"lateness": AllowedLateness(2, HOURLY, last_wins=True)}
GAP = [event(0), event(2), event(3)]
WARM = [event(hour) for hour in range(13)]
WARMED = [("a", hour, "warming_up" if hour < 11 else "ok", hour + 1) for hour in range(13)]
CELLS = {
    "joins": Cell([event(0.5), event(0.1), event(0.9)], [], SUM, counted={"joined": 3}),
    "closes-stream": Cell([event(0), event(0.5), event(1)], [("a", 0, "warming_up", 2)], SUM),
    "closes-partition": Cell(
        [event(0), event(0.5, unique_id="b"), event(1.2), event(1.5, unique_id="b")],
        [("a", 0, "warming_up", 3), ("b", 0, "warming_up", 3)],
        BY_PARTITION,
    ),
    "raw-late": Cell(
        [event(0), event(1), event(0.5)], [("a", 0, "warming_up", 1)], SUM, ["late"], {"late": 1, "joined": 2}
    ),
    "raw-corrected": Cell(
        [event(0), event(1), event(0.5), event(2)],
        [("a", 0, "warming_up", 1), ("a", 0, "warming_up", 2), ("a", 1, "warming_up", 3)],
        CORRECTED,
        [],
        {"corrected": 1, "joined": 3},
        LATENESS,
    ),
    "raw-corrected-later": Cell(
        [event(0), event(1), event(2), event(0.5)],
        [("a", 0, "warming_up", 1), ("a", 1, "warming_up", 2), ("a", 0, "warming_up", 3), ("a", 1, "warming_up", 3)],
        CORRECTED,
        [],
        {"corrected": 1, "joined": 3},
        LATENESS,
    ),
    "raw-uncorrected": Cell(
        [event(0), event(1, 5.0), event(0.5, 1.0), event(2)],
        [("a", 0, "warming_up", 1), ("a", 1, "warming_up", 3)],
        Aggregation("max", HOURLY, correctable=2),
        [],
        {"corrected": 1, "joined": 3},
        LATENESS,
    ),
    "raw-fills": Cell(
        [event(1), event(4), event(3), event(5)],
        [("a", 1, "warming_up", 1), ("a", 2, "warming_up", 1), ("a", 3, "warming_up", 2), ("a", 4, "warming_up", 3)],
        Aggregation("sum", HOURLY, empty=0.0, silent_after=1, correctable=2),
        [],
        {"corrected": 1, "joined": 3},
        LATENESS,
    ),
    "raw-beyond-lateness": Cell(
        [event(0), event(3), event(0.5)],
        [("a", 0, "warming_up", 1), ("a", 1, "warming_up", 1), ("a", 2, "warming_up", 1)],
        CORRECTED,
        ["late"],
        {"late": 1, "corrected": 0, "joined": 2},
        LATENESS,
    ),
    "raw-late-dropped": Cell(
        [event(0), event(1), event(0.5)],
        [("a", 0, "warming_up", 1)],
        SUM,
        [],
        {"late": 1, "joined": 2},
        {"late": "drop"},
    ),
    "raw-future": Cell(
        [event(0), event(900, unique_id="b"), event(0.9), event(2)],
        [("a", 0, "warming_up", 3), ("a", 1, "warming_up", 3)],
        Aggregation("sum", HOURLY, "partition", empty=0.0),
        ["from_the_future"],
        {"joined": 3},
        {"decoder": ObservationDecoder(DecodeLimits(max_future_ms=24 * HOUR_MS))},
        START_MS,
    ),
    "raw-missing": Cell(
        [*WARM, event(13, None), event(14)],
        [*WARMED, ("a", 13, "missing", 14)],
        Aggregation("mean", HOURLY),
        counted={"joined": 15},
    ),
    "raw-counted": Cell([event(0, None), event(1)], [("a", 0, "warming_up", 1)], COUNT, counted={"joined": 2}),
    "raw-text": Cell(
        [event(0), event(0.5, "on"), event(1)], [("a", 0, "warming_up", 2)], MEAN, ["wrong_type"], {"joined": 2}
    ),
    "empty-missing": Cell(
        [*WARM, event(14), event(15)],
        [*WARMED[:-1], ("a", 12, "ok", 13), ("a", 13, "missing", 13), ("a", 14, "ok", 14)],
        Aggregation("mean", HOURLY, empty=math.nan),
    ),
    "empty-zero": Cell(GAP, [("a", hour, "warming_up", max(1, hour)) for hour in (0, 1, 2)], COUNT),
    "sleeps": Cell(
        [event(0), event(5), event(6)],
        [("a", 0, "warming_up", 1), ("a", 1, "warming_up", 1), ("a", 5, "warming_up", 2)],
        Aggregation("count", HOURLY, empty=0.0, silent_after=1),
    ),
    "raw-too-many": Cell(
        [event(0), event(0, unique_id="b"), event(1)],
        [("a", 0, "warming_up", 2)],
        SUM,
        ["too_many_streams"],
        {"joined": 2, "too_many_streams": 1},
        {"limits": Limits(max_streams_per_partition=1)},
    ),
}


def hour_of(ds: str) -> float:
    return (datetime.fromisoformat(ds).timestamp() * 1000 - START_MS) / HOUR_MS


@pytest.mark.parametrize("per_poll", [1, 1000], ids=["one-by-one", "in-one-poll"])
@pytest.mark.parametrize("name", CELLS)
def test_cell(bundle: Bundle, name: str, per_poll: int) -> None:
    cell = CELLS[name]
    log = Log({0: []}, timestamp_ms=cell.timestamp_ms)
    for value in cell.values:
        log.append(0, value)
    harness = build(log, bundle=bundle, per_poll=lambda: per_poll, aggregation=cell.aggregation, **cell.options)
    harness.worker.run()
    records = [json.loads(value) for _, value, _ in log.published[Channel.FORECASTS]]
    found = [(each["unique_id"], hour_of(each["ds"]), each["status"], each["source"]["offset"]) for each in records]
    assert found == cell.published
    assert [DeadLetter.read(*record).reason for record in log.published[Channel.DEAD_LETTERS]] == cell.dead
    for outcome, count in cell.counted.items():
        assert harness.metric("rillcast_raw_events_total", outcome=outcome) == count
    assert log.committed == {0: len(cell.values)}, "nothing stops the partition"


def test_the_table_and_the_cells_are_the_same() -> None:
    assert sorted(row[5] for row in rows("Aggregation")) == sorted(f"`{name}`" for name in CELLS)


@pytest.mark.parametrize("row", rows("Aggregation"), ids=lambda row: row[5].strip("`"))
def test_a_row_says_what_its_cell_expects(row: list[str]) -> None:
    _, setting, _, published, dead, name = row
    cell = CELLS[name.strip("`")]
    assert codes(dead) == set(cell.dead)
    assert statuses(published) <= {status for _, _, status, _ in cell.published}
    assert_settings_exist(codes(setting) - {"auto"})
