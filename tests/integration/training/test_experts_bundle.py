"""A bundle of experts alone is exported by one command and runs in the engine like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rillcast import cli
from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.compatibility import require_compatible
from rillcast.bundle.frequency import Frequency
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.late import AllowedLateness
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.events import EventBatch
from rillcast.serving.factory import make_engine
from rillcast.settings import Settings
from rillcast.settings.publish import PublishSettings

MINUTES = 7
STEP_MS = MINUTES * 60_000
START = 3_900_000
STREAMS = ("a", "b", "c")
MANY_LEVELS = ",".join(f"{n / 100}" for n in range(1, 100))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("experts") / "m.onnx"
    flags = ["--season", "6,30", "--horizon", "8", "--set", "power=8", "--set", "parts=0.05,0.2"]
    assert cli.main(["universal", "export", "--freq", "7min", *flags, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def bundle(path: Path) -> Bundle:
    return Bundle.load(path)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory, brief_parity: None) -> Path:
    out = tmp_path_factory.mktemp("light") / "m.onnx"
    assert cli.main(["universal", "export", "--freq", "7min", "--light", "--out", str(out)]) == 0
    return out


def series(length: int) -> AnyArray:
    """Values `[length, streams]`, a few missing."""
    rng = np.random.default_rng(0)
    period = np.arange(length)[:, None]
    y = [10.0, 1e4, -3.0] + np.sin(2 * np.pi * period / 6) * [1.0, 50.0, 0.1] + 0.1 * rng.normal(size=(length, 3))
    return np.where(rng.random((length, 3)) < 0.03, np.nan, y).astype(np.float32)


def feed(engine: StepEngine, y: AnyArray, first: int, order: AnyArray | None = None) -> dict[tuple[str, int], AnyArray]:
    """Step values `[length, streams]` from period `first`; return the last revision of each forecast."""
    found: dict[tuple[str, int], AnyArray] = {}
    for number in range(len(y)) if order is None else order:
        ds = np.full(len(STREAMS), (START + first + number) * STEP_MS, np.int64)
        result = engine.step(EventBatch.of(list(STREAMS), ds, y[number], first_offset=3 * int(first + number)))
        for row, name in enumerate(STREAMS):
            if result.outcome[row] == Outcome.STEPPED:
                found[name, int(ds[row])] = result.forecast[row].copy()
        if (revised := result.revised) is not None:
            for at in range(len(revised.rows)):
                found[STREAMS[revised.rows[at]], int(revised.ds[at])] = revised.forecast[at].copy()
    return found


def engine(bundle: Bundle, reach: int = 0) -> StepEngine:
    lateness = AllowedLateness(reach, Frequency(STEP_MS)) if reach else None
    return StepEngine(bundle, Device("cpu"), lateness=lateness, batching=Batching(256))


def assert_equal(found: dict[tuple[str, int], AnyArray], expected: dict[tuple[str, int], AnyArray]) -> None:
    assert found.keys() == expected.keys()
    for key, forecast in expected.items():
        np.testing.assert_array_equal(found[key], forecast, err_msg=str(key))


def test_the_metadata_hold_every_constant(bundle: Bundle) -> None:
    metadata = bundle.metadata
    assert (metadata.cell, metadata.freq, metadata.horizon, metadata.season) == ("experts", "7min", 8, 6)
    experts = metadata.training["experts"]
    assert experts["seasons"] == [6, 30]
    assert experts["constants"]["power"] == 8
    assert experts["constants"]["parts"] == [0.05, 0.2]
    assert experts["constants"]["forget"] == 0.998
    assert ["level", 1.0] in experts["experts"]


def test_it_may_replace_a_network_of_the_same_shape(bundle: Bundle) -> None:
    """Horizon, levels and scores are what consumers see; all of them have the same names."""
    network = bundle.metadata.model_copy(update={"cell": "gru", "context": 99, "model_id": "0" * 16})
    require_compatible(network, bundle.metadata)


def test_forecasts_learn_the_season(bundle: Bundle) -> None:
    y = series(400)
    forecast = feed(engine(bundle), y, 0)["a", (START + 399) * STEP_MS]
    coming = 10 + np.sin(2 * np.pi * np.arange(400, 408) / 6)
    assert np.abs(forecast[:, 4] - coming).mean() < 0.1
    assert 0.1 < np.diff(forecast[:, [0, 8]]).mean() < 0.5  # 80 % of noise of 0.1 is 0.26 wide


def test_late_events_leave_no_trace(bundle: Bundle) -> None:
    y = series(90)
    order = np.arange(90)
    for first in range(5, 85, 9):
        order[first : first + 3] = order[first : first + 3][::-1]
    assert_equal(feed(engine(bundle, reach=4), y, 0, order), feed(engine(bundle), y, 0))


def test_a_light_bundle_is_small_and_has_states_like_any_other(light: Path) -> None:
    """Late events leave no trace, and a state that moves goes on as it was."""
    bundle, y = Bundle.load(light), series(260)
    assert bundle.metadata.row_bytes <= 2_560
    assert (bundle.metadata.name, bundle.metadata.horizon) == ("experts-light-7min", 48)
    order = np.arange(260)
    for at in range(5, 250, 9):
        order[at : at + 3] = order[at : at + 3][::-1]
    whole = feed(engine(bundle), y, 0)
    assert_equal(feed(engine(bundle, reach=4), y, 0, order), whole)
    first, second = engine(bundle), engine(bundle)
    found = feed(first, y[:120], 0)
    second.residents.load(0, first.residents.export(0, 360), first.residents.watermark(0))
    assert_equal(found | feed(second, y[120:], 120), whole)


@pytest.mark.parametrize(("bounds", "least"), [("auto", 0.0), ("none", -0.1)])
def test_the_setting_decides_whether_counts_may_be_negative(bundle: Bundle, bounds: str, least: float) -> None:
    settings = Settings(publish=PublishSettings.model_validate({"bounds": bounds}))
    y = np.random.default_rng(1).poisson(0.4, (80, len(STREAMS))).astype(np.float32)
    found = np.stack(list(feed(make_engine(settings, bundle, Device("cpu")), y, 0).values()))
    lowest = found[len(STREAMS) * 20 :].min()
    assert lowest == least if bounds == "auto" else lowest < least


def test_a_state_that_moves_goes_on_as_it_was(bundle: Bundle) -> None:
    """As by a rebalance, a restart from a snapshot, or an eviction and the stream's return."""
    y = series(80)
    whole = feed(engine(bundle), y, 0)
    first, second = engine(bundle), engine(bundle)
    found = feed(first, y[:50], 0)
    second.residents.load(0, first.residents.export(0, 150), first.residents.watermark(0))
    first.residents.release(0)
    assert_equal(found | feed(second, y[50:], 50), whole)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--freq", "7"], "frequency '7'"),
        (["--freq", "1h", "--season", "24,x"], "--season '24,x'"),
        (["--freq", "1h", "--season", "168,24"], "the shorter first"),
        (["--freq", "1h", "--horizon", "0"], "horizon 0"),
        (["--freq", "1h", "--quantiles", "0.9,0.1"], "increase strictly"),
        (["--freq", "1h", "--set", "magic=1"], "expected NAME=VALUE with a name of power"),
        (["--freq", "1h", "--set", "unit_power=0"], "unit_power 0"),
        (["--freq", "1h", "--light", "--quantiles", MANY_LEVELS], "2,560 are the most"),
    ],
)
def test_what_cannot_be_is_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    assert cli.main(["universal", "export", *flags, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_inspect_describes_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(path), "--json"]) == 0
    assert "experts" in json.dumps(json.loads(capsys.readouterr().out))


def test_alarms_travel_with_the_state_and_do_not_depend_on_the_batch(bundle: Bundle) -> None:
    """A trouble before the state moves and one after it; each stream alone, all together, and moved."""
    y = series(420)
    y[200:203, 0] += 100
    y[330:340, 1] -= 4_000

    def alarms_of(engine: StepEngine, values: AnyArray, first: int, columns: list[int]) -> AnyArray:
        found = []
        for number, row in enumerate(values):
            ds = np.full(len(columns), (START + first + number) * STEP_MS, np.int64)
            ids = [STREAMS[column] for column in columns]
            result = engine.step(EventBatch.of(ids, ds, row[columns], first_offset=3 * (first + number)))
            assert result.alarm is not None
            found.append(result.alarm)
        return np.stack(found)

    whole = alarms_of(engine(bundle), y, 0, [0, 1, 2])
    assert (whole[200:203, 0, 0] == 1).sum() == 1
    assert (whole[330:340, 1, 0] == 1).sum() == 1
    for column in range(3):
        np.testing.assert_array_equal(alarms_of(engine(bundle), y, 0, [column])[:, 0], whole[:, column])
    first, second = engine(bundle), engine(bundle)
    before = alarms_of(first, y[:202], 0, [0, 1, 2])
    second.residents.load(0, first.residents.export(0, 3 * 202), first.residents.watermark(0))
    after = alarms_of(second, y[202:], 202, [0, 1, 2])
    np.testing.assert_array_equal(np.concatenate([before, after]), whole)


def test_a_service_runs_a_light_bundle(light: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"unique_id": "a", "ds": (START + n) * STEP_MS, "y": float(n % 3)}) for n in range(20)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    where = {"input": "in.jsonl", "output": "out.jsonl", "dead-letters": "dead.jsonl"}
    flags = [flag for name, file in where.items() for flag in (f"--{name}.path", str(tmp_path / file))]
    state = ["--state.path", str(tmp_path / "state"), "--http.port", "0"]
    assert cli.main(["run", "--model", str(light), *flags, *state]) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20


def test_a_service_publishes_alarms_with_the_forecasts(path: Path, tmp_path: Path) -> None:
    y = series(420)
    y[200:203, 0] += 100
    lines = [
        json.dumps({"unique_id": name, "ds": (START + number) * STEP_MS, "y": None if value != value else float(value)})
        for number, row in enumerate(y)
        for name, value in zip(STREAMS, row, strict=True)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    where = {"input": "in.jsonl", "output": "out.jsonl", "dead-letters": "dead.jsonl", "alarms": "alarms.jsonl"}
    flags = [flag for name, file in where.items() for flag in (f"--{name}.path", str(tmp_path / file))]
    state = ["--state.path", str(tmp_path / "state"), "--http.port", "0"]
    assert cli.main(["run", "--model", str(path), *flags, *state, "--alarms.per-stream", "1/month"]) == 0
    records = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    of_a = [record for record in records if record["unique_id"] == "a"]
    opened = [record for record in of_a if record["change"] == "opened"]
    assert [record["source"]["offset"] // 3 for record in opened] == [200]
    assert (opened[0]["direction"], opened[0]["severity"]) == ("up", "critical")
    assert opened[0]["observed"] > 100
