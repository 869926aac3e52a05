"""Planted signals: forecasters and streams with a known cause of the forecast."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.engine.device import Device
from rillcast.errors import DataError, ParityError
from rillcast_training.data.series import Series, segments
from rillcast_training.data.windows import Window, collate
from rillcast_training.explain.forecast import Explanation, Target, explain, serve
from rillcast_training.explain.history import History, history_of, iso, period_of
from rillcast_training.export.bundle import export
from rillcast_training.model.forecaster import Forecaster
from tests.support.forecasters import HOUR_MS, brief_parity, random_forecaster, small_config, write_network

pytestmark = pytest.mark.usefixtures("brief_parity")

START = 474_000
MEDIAN = 1


def stream(events: int = 60, *, gaps: bool = False) -> Series:
    rng = np.random.default_rng(4)
    periods = START + np.arange(events, dtype=np.int64)
    y = (50 + 5 * np.sin(np.arange(events) * np.pi / 2) + rng.normal(size=events)).astype(np.float32)
    if gaps:
        y[[0, 7, 20, 21, events - 3]] = np.nan
        keep = ~np.isin(np.arange(events), [11, 30, 31, 32, 33, 34, 45])
        periods, y = periods[keep], y[keep]
    return Series("s", periods, y)


def untrained(cell: str = "gru") -> Forecaster:
    torch.manual_seed(0)
    return Forecaster(small_config(cell=cell)).eval()


def explained(
    forecaster: Forecaster, folder: Path, target: Target, *, gaps: bool = False, occlude: int = 20
) -> tuple[Explanation, History]:
    path = folder / "m.onnx"
    with brief_parity():
        export(forecaster, path, name="m")
    history = history_of(stream(gaps=gaps), forecaster.config)
    return explain(forecaster, Bundle.load(path), Device("cpu"), history, target, occlude=occlude), history


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_the_seasonal_naive_forecast_is_moved_by_the_period_a_season_before_and_by_nothing_else(
    step: int, tmp_path: Path
) -> None:
    found, history = explained(untrained(), tmp_path, Target(MEDIAN, step))
    season = 4
    wanted = (season - step) % season  # periods before the origin
    y = {
        int(history.periods[-1] - period): float(value)
        for period, value in zip(history.periods, history.y, strict=True)
    }
    for period in found.periods:
        expected = y[wanted] - found.baseline_y if period.lag == wanted else 0.0
        assert period.attribution == pytest.approx(expected, abs=1e-4)
        assert period.occlusion is None or period.occlusion == pytest.approx(expected, abs=1e-4)
    assert found.parts["seasonal-naive base"] == pytest.approx(y[wanted] - found.baseline_y, abs=1e-4)
    assert found.common is not None
    assert found.correlation == pytest.approx(1.0)


def test_a_forecast_that_repeats_the_newest_value_is_moved_by_it_alone(tmp_path: Path) -> None:
    forecaster = untrained()
    horizon = forecaster.config.horizon
    with torch.no_grad():  # the whole way from the base to the newest value, the first of the head's directions
        forecaster.head.out.bias[horizon : 2 * horizon] = 1.0
    found, history = explained(forecaster, tmp_path, Target(MEDIAN, None))
    newest = found.periods[-1]
    assert newest.lag == 0
    assert newest.attribution == pytest.approx(float(history.y[-1]) - found.baseline_y, rel=1e-3)
    assert sum(abs(period.attribution) for period in found.periods[:-1]) < 0.02 * abs(newest.attribution)
    assert newest.occlusion == pytest.approx(newest.attribution, rel=1e-3)


def test_a_signal_in_the_recurrent_state_alone_is_found_there(tmp_path: Path) -> None:
    forecaster = untrained("elman")
    horizon = forecaster.config.horizon
    change = forecaster.features.names.index("newest change")
    with torch.no_grad():
        for parameter in forecaster.cell.parameters():
            parameter.zero_()
        weights = dict(forecaster.cell.named_parameters())
        weights["fused.weight_ih_l0"][0, change] = (
            0.3  # unit 0 sees the newest change, unit k the change that unit k - 1 saw
        )
        for unit in range(1, forecaster.config.hidden):
            weights["fused.weight_hh_l0"][unit, unit - 1] = 1.0
        forecaster.head.trunk.weight.zero_()
        forecaster.head.trunk.weight[0, forecaster.config.hidden - 1] = 1.0  # the last unit: five events ago
        forecaster.head.trunk.bias.fill_(1.0)
        forecaster.head.out.weight[:horizon, 0] = 2.0
        forecaster.head.out.bias[:horizon] -= 2.0
    found, _ = explained(forecaster, tmp_path, Target(MEDIAN, 1))
    assert abs(found.parts["features, through the recurrent state"]) > 0.1 * found.scale
    assert found.parts["features, directly"] == pytest.approx(0.0, abs=1e-4)
    by_lag = {period.lag: abs(period.attribution) for period in found.periods}
    remembered = forecaster.config.hidden - 1
    # The change between two values; the newer one happens to lie at the stream's mean, so it moves nothing.
    assert by_lag[remembered + 1] > 0.1 * found.scale
    assert found.features["newest change"] == pytest.approx(found.parts["features, through the recurrent state"])


@pytest.mark.parametrize("cell", ["gru", "slstm", "lru"])
def test_attributions_add_up_and_agree_with_the_exported_file(cell: str, tmp_path: Path) -> None:
    forecaster = random_forecaster(small_config(cell=cell))
    found, _ = explained(forecaster, tmp_path, Target(MEDIAN, None), gaps=True)
    for one in (found.by_period, found.by_feature):
        assert one.complete
        assert one.value == pytest.approx(found.value, rel=1e-5)
    total = sum(period.attribution for period in found.periods)
    moved = found.value - found.baseline
    assert total == pytest.approx(moved, abs=0.011 * max(abs(moved), found.scale))
    assert found.served == pytest.approx(found.value, rel=1e-4)
    assert sum(found.parts.values()) == pytest.approx(found.by_feature.value - found.by_feature.baseline, rel=0.02)
    assert found.correlation is not None
    assert found.correlation > 0.7


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    with brief_parity():
        export(random_forecaster(small_config(), seed=1), tmp_path / "m.onnx", name="m")
    history = history_of(stream(), small_config())
    other = random_forecaster(small_config(), seed=2)
    with pytest.raises(ParityError, match=r"the module forecasts .*, the file .*; use a file that was exported"):
        explain(other, Bundle.load(tmp_path / "m.onnx"), Device("cpu"), history, Target(MEDIAN, None), occlude=0)


def test_the_history_equals_the_sequences_of_training() -> None:
    config, series = small_config(), stream(gaps=True)
    history = history_of(series, config)
    found = history.sequences(torch.from_numpy(np.nan_to_num(history.y)).unsqueeze(0))
    season, max_gap = config.seasons[0], config.max_gap
    (segment,) = segments(series.periods, series.y, season=season, max_gap=max_gap, rule=config.fill)
    length = len(segment.periods)
    expected = collate([Window(segment, 0, length, None, 1.0, fresh=False)], config, [np.array([length - 1])]).sequences
    for name, tensor in expected._asdict().items():
        other = getattr(found, name)
        assert other is None if tensor is None else torch.equal(tensor, other), name


def test_a_period_without_an_observation_follows_those_that_fill_it() -> None:
    config, series = small_config(), stream(gaps=True)
    history = history_of(series, config)
    y = torch.from_numpy(np.nan_to_num(history.y)).unsqueeze(0).requires_grad_()
    grid = history.sequences(y).grid[0]
    hole = config.context - 1 + 21  # periods 20 and 21 are missing; a season of 4 before the second lies period 17
    (gradient,) = torch.autograd.grad(grid[hole], y)
    found = {int(history.periods[row]) - START: float(gradient[0, row]) for row in gradient[0].nonzero().flatten()}
    at = {period - START: float(value) for period, value in zip(history.periods, history.y, strict=True)}
    newest, seasonal, continued = at[19], at[17], at[17] + at[19] - at[15]
    expected = {newest: {19: 1.0}, seasonal: {17: 1.0}, continued: {15: -1.0, 17: 1.0, 19: 1.0}}
    assert found == expected[sorted(expected)[1]]


def test_a_past_that_is_cut_short_says_so() -> None:
    history = history_of(stream(), small_config(), limit=25)
    assert (len(history.periods), history.longer) == (25, 35)
    assert history_of(stream(), small_config(), at=START + 30).periods[-1] == START + 30
    with pytest.raises(DataError, match="no observation at or before"):
        history_of(stream(), small_config(), at=START - 1)


@pytest.mark.parametrize(
    "text", ["2024-01-28T00:59:59Z", "2024-01-28T00:30", "1706400000001", "2024-01-28T02:10+02:00"]
)
def test_times_are_read_as_periods(text: str) -> None:
    assert period_of(text, "1h") == START
    assert iso(START, "1h") == "2024-01-28T00:00:00Z"


def test_a_text_without_a_time_is_refused() -> None:
    with pytest.raises(DataError, match="'noon': expected ISO 8601"):
        period_of("noon", "1h")


def test_variants_of_a_history_do_not_meet(tmp_path: Path) -> None:
    write_network(tmp_path / "m.onnx")
    bundle, history = Bundle.load(tmp_path / "m.onnx"), history_of(stream(), small_config())
    variants = np.stack([history.y, history.y + 100, history.y])
    together = serve(bundle, Device("cpu"), history, variants)
    assert np.array_equal(together[0], together[2])
    assert np.array_equal(together[1], serve(bundle, Device("cpu"), history, variants[1:2])[0])


def test_the_command_explains_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = tmp_path / "m.onnx", tmp_path / "d.csv"
    write_network(model)
    series = stream()
    rows = [f"s,{period * HOUR_MS},{value}" for period, value in zip(series.periods, series.y, strict=True)]
    data.write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    command = ["explain", "forecast", str(model), str(data), "--stream", "s", "--at", iso(START + 50, "1h")]
    assert cli.main([*command, "--quantile", "0.9", "--step", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["quantile"], found["step"], found["at"]) == (0.9, 2, iso(START + 50, "1h"))
    assert (found["events"], found["events_left_out"], len(found["slots"])) == (51, 0, 51)
    assert found["completeness"]["slots"]["complete"]
    assert found["occlusion"]["slots"] == 24
    assert Path(found["picture"]).read_bytes().startswith(b"\x89PNG")
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "strongest periods" in printed
    assert "complete" in printed
    assert cli.main([*command, "--quantile", "0.3"]) == 2
    assert cli.main([*command, "--step", "6"]) == 2
    assert cli.main([*command[:5], "nobody"]) == 2
    assert "there are 1, such as 's'" in capsys.readouterr().err
