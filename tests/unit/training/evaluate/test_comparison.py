"""A candidate is promoted only for forecasts that are as good as the live model's, at the same origins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rillcast import cli
from rillcast.errors import DataError
from rillcast_training.data.series import Series, newest
from rillcast_training.evaluate.backtest import Backtest
from rillcast_training.evaluate.comparison import Comparison, Tolerances, compare
from rillcast_training.evaluate.scored_part import ScoredPart

ORIGINS, STEPS, LEVELS = 6, 4, (0.1, 0.5, 0.9)
ACTUAL = np.random.default_rng(3).normal(50, 1, (ORIGINS, STEPS))


def made(*, off: float = 0.0, width: float = 1.3, levels: tuple[float, ...] = LEVELS, **changes: Any) -> Backtest:
    """Return a backtest whose median is `off` the mean of the observations and whose interval is `2 * width` wide."""
    quantiles = 50 + off + width * np.array([(level - 0.5) / 0.4 for level in levels])
    parts: dict[str, Any] = {
        "unique_ids": [f"s{number % 2}" for number in range(ORIGINS)],
        "origins_ms": np.arange(ORIGINS, dtype=np.int64),
        "series": np.arange(ORIGINS, dtype=np.int64) % 2,
        "history": [],
        "forecast": np.broadcast_to(quantiles.astype(np.float32), (ORIGINS, STEPS, len(levels))),
        "naive": np.zeros((ORIGINS, STEPS, len(levels))),
        "last_value": np.zeros((ORIGINS, STEPS, len(levels))),
        "actual": ACTUAL,
        "scale": np.ones(2),
        "squared_scale": np.ones(2),
        "levels": levels,
        "season": 24,
        "part": ScoredPart(2, 2, 0, 0, ORIGINS, 0, 0),
        "events": 0,
        "seconds": 0.0,
        "tails": None,
    }
    return Backtest(**parts | changes)


def verdict(candidate: Backtest, live: Backtest, wql: float = 0.0, coverage: float = 0.2) -> Comparison:
    return compare(candidate, live, Tolerances(wql, coverage))


def test_the_same_forecasts_may_take_over() -> None:
    assert verdict(made(), made()).may_be_promoted


def test_a_higher_wql_is_refused_unless_it_is_tolerated() -> None:
    candidate, live = made(off=0.5), made()
    found = verdict(candidate, live)
    (reason,) = found.reasons
    assert "WQL" in reason
    more = found.candidate.wql / found.live.wql - 1
    assert verdict(candidate, live, wql=more * 1.001).may_be_promoted
    assert not verdict(candidate, live, wql=more * 0.999).may_be_promoted
    assert verdict(live, candidate).may_be_promoted, "the better one may"


def test_a_coverage_off_nominal_is_refused_even_where_the_live_model_is_no_better() -> None:
    narrow = made(width=0.05)
    (reason,) = verdict(narrow, narrow).reasons
    assert "coverage" in reason
    assert verdict(narrow, narrow, coverage=0.9).may_be_promoted


def test_forecasts_that_cannot_be_scored_are_refused() -> None:
    zero = np.zeros((ORIGINS, STEPS))  # WQL divides by the sum of |y|
    assert not verdict(made(actual=zero), made(actual=zero), coverage=1.0).may_be_promoted


def test_only_levels_of_both_count() -> None:
    found = verdict(made(levels=(0.05, 0.1, 0.5, 0.9, 0.95)), made())
    assert found.levels == LEVELS
    assert found.candidate == found.live


def test_other_origins_or_observations_are_not_compared() -> None:
    with pytest.raises(DataError, match="not of the same origins"):
        verdict(made(), made(origins_ms=np.arange(1, ORIGINS + 1, dtype=np.int64)))
    with pytest.raises(DataError, match="not of the same origins"):
        verdict(made(), made(actual=ACTUAL + 1))


def test_the_newest_periods_are_those_of_the_whole_data_set(caplog: pytest.LogCaptureFixture) -> None:
    def series(name: str, *periods: int) -> Series:
        return Series(name, np.array(periods, np.int64), np.array(periods, np.float32))

    seen, scored = newest([series("ended", 1, 2, 3), series("goes on", 1, 9, 10), series("new", 10)], 2)
    assert [(one.unique_id, one.periods.tolist()) for one in seen] == [("ended", [1, 2, 3]), ("goes on", [1])]
    assert [(one.unique_id, one.periods.tolist()) for one in scored] == [("goes on", [9, 10]), ("new", [10])]
    assert "--hold-out 2: 1 of 3 series begin within these periods" in caplog.text
    with pytest.raises(DataError, match="older than the newest 10 periods; the data span 5 periods"):
        newest([series("short", 1, 5)], 10)


# The command, with real bundles.


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.csv"
    noise = np.random.default_rng(5).normal(0, 0.3, (400, 2))
    lines = [
        f"s{stream},{(475_000 + t) * 3_600_000},{10 + 3 * math.sin(t * math.tau / 24) + noise[t, stream]:.4f}"
        for t in range(400)
        for stream in range(2)
    ]
    path.write_text("\n".join(["unique_id,ds,y", *lines]))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = cli.main(["evaluate", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out or "null")


def test_the_exit_code_says_whether_a_candidate_may_be_promoted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RILLCAST_MODEL_CACHE", str(tmp_path / "cache"))
    assert cli.main(["model", "push", str(tmp_path / "models"), "universal:1h", "--json"]) == 0
    pushed = json.loads(capsys.readouterr().out)
    assert cli.main(["model", "promote", str(tmp_path / "models"), pushed["model_id"]]) == 0
    capsys.readouterr()
    arguments = ["universal:1h", "--against", f"{tmp_path}/models@live", str(data), "--hold-out", "96"]
    code, found = run(capsys, *arguments, "--coverage-tolerance", "0.5")
    assert (code, found["may_be_promoted"], found["reasons"]) == (0, True, [])
    assert found["candidate"] == found["live"]
    assert found["candidate"]["model"].endswith(pushed["model_id"])
    assert found["origins"] == 2 * 2, "96 periods hold two origins of 48 steps in each stream"
    assert cli.main(["evaluate", *arguments[:-1], "360", "--coverage-tolerance", "0.5"]) == 0
    captured = capsys.readouterr()
    assert "leaves at most 40 periods before those that are scored" in captured.err
    assert "nan" not in captured.out
    code, found = run(capsys, *arguments, "--coverage-tolerance", "0")
    assert (code, found["may_be_promoted"], len(found["reasons"])) == (7, False, 1)


def test_models_of_different_frequencies_are_not_compared(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "universal:1h", "--against", "universal:1d", str(data)]) == 2
    assert "compare models of one frequency" in capsys.readouterr().err
