"""The table of first forecasts: a bundle sees the newest periods alone, beside the seasonal naive of the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rillcast.bundle.bundle import Bundle
from rillcast_training.data.series import Series
from rillcast_training.export.experts import export_experts
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.research import cold_start
from rillcast_training.research.cold_start import measure, seasonal_naive

FIRST = 400_000
HORIZON = 4


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cold") / "m.onnx"
    export_experts(ExpertsConfig("1h", HORIZON, (6,)), out, name="m")
    return out


def series(length: int, first: int = FIRST, *, seed: int = 0) -> list[Series]:
    rng = np.random.default_rng(seed)
    periods = np.arange(first, first + length)
    return [
        Series(name, periods, (10 + np.sin(periods + n) + 0.1 * rng.normal(size=length)).astype(np.float32))
        for n, name in enumerate("abc")
    ]


def test_nothing_before_the_newest_periods_is_seen(path: Path) -> None:
    bundle, train, test = Bundle.load(path), series(40), series(HORIZON, FIRST + 40)
    earlier = [Series(s.unique_id, s.periods, np.where(np.arange(40) < 30, 1e6, s.y).astype(np.float32)) for s in train]
    found = measure(bundle, train, test, 10, 6)
    assert found == measure(bundle, earlier, test, 10, 6)
    assert found != measure(bundle, earlier, test, 12, 6)
    assert found.last == 10
    assert 0 < found.wql < 3
    assert 0 <= found.coverage <= 1


def test_the_seasonal_naive_repeats_a_season_with_the_width_of_its_differences() -> None:
    past = np.array([1.0, 2.0, 3.0, 3.0, np.nan, 5.0])  # the missing value is the one before
    found = seasonal_naive(past, 3, 4, (0.1, 0.5, 0.9))
    sigma = np.sqrt(np.mean(np.array([2.0, 1.0, 2.0]) ** 2))
    np.testing.assert_allclose(found[:, 1], [3, 3, 5, 3])
    np.testing.assert_allclose(found[:, 2] - found[:, 1], 1.2815516 * sigma * np.sqrt([1, 1, 1, 2]), rtol=1e-6)
    np.testing.assert_allclose(seasonal_naive(past[:2], 3, 2, (0.5,)), [[2], [2]])


def test_the_command_prints_a_row_for_each_length(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, made in (("train", series(40)), ("test", series(HORIZON, FIRST + 40))):
        rows = [f"{s.unique_id},{p * 3_600_000},{y}" for s in made for p, y in zip(s.periods, s.y, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    flags = [str(path), str(tmp_path / "train.csv"), str(tmp_path / "test.csv"), "--last", "5,20", "--season", "6"]
    assert cold_start.main(flags) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["periods", "WQL", "/", "naive", "error", "/", "naive", "coverage"]
    assert [row.split()[0] for row in rows] == ["5", "20"]
    assert cold_start.main([str(tmp_path / "absent.onnx"), *flags[1:]]) != 0
