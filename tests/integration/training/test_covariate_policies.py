"""Each cell of the table of covariates in `docs/data.md`, by its name, through the whole worker."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import Bundle
from rillcast.codecs.observations import stream_table
from rillcast.codecs.observations.covariates import CovariateColumns, CovariateRules
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.fields import Fields
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.errors import DataError, SettingsError
from rillcast.events import EventBatch
from rillcast.publishing.dead_letters import DeadLetter
from rillcast.transports.base import Channel
from rillcast_training.export.bundle import export
from tests.support.covariates import EVERY_KIND, config_with
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster, small_config
from tests.support.memory import Log
from tests.support.paths import ROOT
from tests.support.workers import build

START_MS = 1_714_564_800_000
HORIZON = 5
NAN = float("nan")
X = {"temp": 12.0, "promo": 1.0, "shop": "mall", "price": 99.0, "size": 4.0}
FUTURE = {"promo": [0.0, 1.0, 0.0, 0.0, 1.0], "price": [99.0, 98.0, 97.0, 96.0, 95.0]}
SEEN_X = [12.0, 1.0, 2.0, 99.0, 4.0]  # `mall` is the second of its categories
SEEN_FUTURE = [FUTURE["promo"], FUTURE["price"]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Bundle]:
    folder, made = tmp_path_factory.mktemp("bundles"), {}
    for takes, config in ((True, config_with()), (False, small_config())):
        with brief_parity():
            export(random_forecaster(config), folder / f"{takes}.onnx", name="m")
        made[takes] = Bundle.load(folder / f"{takes}.onnx")
    return made


@dataclass
class Cell:
    """One row of the table: the last event of a stream, the model's inputs from it, and the counters."""

    x: Any = field(default_factory=lambda: X)
    future: Any = field(default_factory=lambda: FUTURE)
    seen_x: list[float] = field(default_factory=lambda: SEEN_X)
    seen_future: list[list[float]] = field(default_factory=lambda: SEEN_FUTURE)
    dead: str | None = None
    counted: dict[str, int] = field(default_factory=dict)
    rules: CovariateRules | None = None
    table: dict[str, dict[str, Any]] | None = None
    takes: bool = True


DEAD_IF_MISSING = CovariateRules(missing="dead_letter")
DEAD_IF_FAR = CovariateRules(out_of_range="dead_letter")
WITHOUT_TEMP = {name: value for name, value in X.items() if name != "temp"}
CELLS = {
    "all-there": Cell(),
    "missing-mask": Cell(x=WITHOUT_TEMP | {"promo": None}, seen_x=[NAN, NAN, *SEEN_X[2:]], counted={"missing": 2}),
    "missing-dead-letter": Cell(x=WITHOUT_TEMP, dead="covariate_missing", rules=DEAD_IF_MISSING),
    "no-x": Cell(x=None, seen_x=[NAN] * 5, counted={"missing": 5}),
    "from-the-table": Cell(
        x={name: X[name] for name in ("temp", "promo", "price")},
        seen_x=[12.0, 1.0, 1.0, 99.0, 7.0],
        table={"a": {"shop": "corner", "size": 7.0}},
    ),
    "event-over-table": Cell(table={"a": {"shop": "corner", "size": 7.0}}),
    "out-of-range-mask": Cell(x=X | {"temp": -1e16}, seen_x=[NAN, *SEEN_X[1:]], counted={"out_of_range": 1}),
    "out-of-range-dead-letter": Cell(x=X | {"temp": 1e16}, dead="covariate_out_of_range", rules=DEAD_IF_FAR),
    "unknown-category": Cell(x=X | {"shop": "ship"}, seen_x=[12.0, 1.0, 0.0, 99.0, 4.0], counted={"unknown": 1}),
    "wrong-type": Cell(x=X | {"temp": "warm"}, dead="wrong_type"),
    "future-wrong-type": Cell(future=FUTURE | {"promo": 1.0}, dead="wrong_type"),
    "future-absent": Cell(
        future={"price": FUTURE["price"]}, seen_future=[[NAN] * 5, FUTURE["price"]], counted={"missing": 5}
    ),
    "future-short": Cell(
        future=FUTURE | {"promo": [0.0, 1.0]},
        seen_future=[[0.0, 1.0, NAN, NAN, NAN], FUTURE["price"]],
        counted={"missing": 3},
    ),
    "future-long": Cell(future=FUTURE | {"promo": [*FUTURE["promo"], 9.0, 9.0]}),
    "future-null": Cell(
        future=FUTURE | {"promo": [0.0, None, 0.0, 0.0, 1.0]},
        seen_future=[[0.0, NAN, 0.0, 0.0, 1.0], FUTURE["price"]],
        counted={"missing": 1},
    ),
    "undeclared": Cell(x=X | {"moon": [1]}, future=FUTURE | {"moon": "full"}),
    "none-declared": Cell(takes=False),
}


def decoder(cell: Cell) -> ObservationDecoder:
    if not cell.takes:
        return ObservationDecoder()
    columns = CovariateColumns(EVERY_KIND, HORIZON, cell.rules, cell.table)
    return ObservationDecoder(fields=Fields(covariates=EVERY_KIND), columns=columns)


def record(period: int, **members: Any) -> bytes:
    return json.dumps({"unique_id": "a", "ds": START_MS + period * HOUR_MS, "y": 5.0 + period % 3} | members).encode()


def expected(bundle: Bundle, cell: Cell, before: int) -> AnyArray:
    """Return the forecast after the last event, from an engine that is fed by hand."""
    engine = StepEngine(bundle, Device("cpu"))
    for period in range(before + 1):
        last = period == before
        covariates = [cell.seen_x if last else SEEN_X], [cell.seen_future if last else SEEN_FUTURE]
        x, future = (np.array(part, np.float32) for part in covariates)
        ds, y = np.array([START_MS + period * HOUR_MS]), np.array([5.0 + period % 3], np.float32)
        result = engine.step(EventBatch.of(["a"], ds, y, x, future, first_offset=period))
    forecast: AnyArray = result.forecast[0]
    return forecast


@pytest.mark.parametrize("per_poll", [1, 1000], ids=["one-by-one", "in-one-poll"])
@pytest.mark.parametrize("name", CELLS)
def test_cell(bundles: dict[bool, Bundle], name: str, per_poll: int) -> None:
    cell, bundle, before = CELLS[name], bundles[CELLS[name].takes], 12
    log = Log()
    for period in range(before):
        log.append(0, record(period, x=X, future=FUTURE))
    log.append(0, record(before, x=cell.x, future=cell.future))
    harness = build(log, bundle=bundle, decoder=decoder(cell), per_poll=lambda: per_poll)
    harness.worker.run()
    reasons = [DeadLetter.read(*record).reason for record in log.published[Channel.DEAD_LETTERS]]
    forecasts = [json.loads(value) for _, value, _ in log.published[Channel.FORECASTS]]
    for reason in ("missing", "out_of_range", "unknown"):
        if cell.dead is None:
            found = harness.metric("rillcast_covariates_masked_total", reason=reason)
            assert found == cell.counted.get(reason, 0), reason
    if cell.dead is not None:
        assert (reasons, len(forecasts)) == ([cell.dead], before)
        return
    assert reasons == []
    assert forecasts[-1]["status"] == "ok"
    found_values = np.array([forecasts[-1]["quantiles"][level] for level in ("0.1", "0.5", "0.9")], np.float32).T
    np.testing.assert_array_equal(found_values, expected(bundle, cell, before))


def test_the_table_names_every_cell() -> None:
    text = (ROOT / "docs" / "data.md").read_text().split("## Covariates")[1]
    rows = re.findall(r"^\|.*\|(.*)\| `([a-z_-]+)` \|$", text, re.MULTILINE)
    assert {name: dead.strip(" `") or None for dead, name in rows} == {name: cell.dead for name, cell in CELLS.items()}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("shops.csv", "unique_id,shop,size,opened\na,corner,7,1990\nb,,,\n"),
        ("shops.jsonl", '{"unique_id": "a", "shop": "corner", "size": 7}\n\n{"unique_id": "b", "size": null}\n'),
    ],
)
def test_a_table_of_streams_is_read(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    table = stream_table.read(tmp_path / file, EVERY_KIND)
    assert table == {"a": {"shop": "corner", "size": 7.0}, "b": {"shop": None, "size": None}}


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("t.csv", "stream,size\na,1\n", "expected unique_id and some of"),
        ("t.csv", "unique_id,temp\na,1\n", "expected unique_id and some of"),
        ("t.csv", "unique_id,size\na,1\na,2\n", "'a' appears twice"),
        ("t.csv", "unique_id,size\na,large\n", "line 2: column 'size': found 'large', expected a number"),
        ("t.jsonl", "[]\n", "cannot be read"),
        ("t.txt", "", "unknown format"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, file: str, text: str, reason: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=re.escape(reason)):
        stream_table.read(tmp_path / file, EVERY_KIND)


def test_a_table_is_of_no_use_to_a_model_without_covariates_of_streams(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="takes no static covariate"):
        stream_table.read(tmp_path / "t.csv", EVERY_KIND[:2])
