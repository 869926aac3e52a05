"""The experts' layer computes what their definition says, and learns nothing of a period before it has come."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import Status
from rillcast_training.export.experts import export_experts
from rillcast_training.export.parity import InPlaceSession
from rillcast_training.model.experts.config import Constants, ExpertsConfig, NetworkShape
from rillcast_training.model.experts.defaults import default_horizon, default_seasons
from rillcast_training.model.experts.forecaster import ExpertForecaster
from rillcast_training.model.experts.layout import PendingPlaces
from rillcast_training.model.experts.light import MAX_BYTES, light
from rillcast_training.model.experts.priors import Prior
from rillcast_training.model.experts.weights import power
from tests.support.experts_oracle import ExpertsOracle

HOUR_MS = 3_600_000
LEVEL = np.array([0.0, 1e3, 1e-2, 1e6, -50.0])
CHANGE = np.array([1.0, 10.0, 1e-2, 1e3, 5.0])
STREAMS = len(LEVEL)
TOLERANCE = 1e-4
SMALL = ExpertsConfig("1h", 7, (5, 11))
HOURS = ExpertsConfig("1h", 48, (24, 168))


def polls(config: ExpertsConfig, steps: int, *, seed: int = 0) -> list[tuple[AnyArray, AnyArray]]:
    """Slots and values of one event of each stream at a time: gaps, repeats, late events, missing values."""
    rng = np.random.default_rng(seed)
    period, noise, events = 400_000 + np.arange(STREAMS), np.zeros(STREAMS), []
    for number in range(steps):
        odd = rng.choice([0, -1, 2, 3, 9, 60, 400], STREAMS)
        now = period + np.where((rng.random(STREAMS) < 0.05) & (number > 0), odd, 1)
        period = np.maximum(period, now)
        noise = 0.9 * noise + 0.2 * rng.normal(size=STREAMS)
        waves = sum(np.sin(2 * np.pi * now / season) for season in config.seasons)
        y = np.where(rng.random(STREAMS) < 0.04, np.nan, LEVEL + CHANGE * (waves + noise))
        events.append((now, y.astype(np.float32)))
    return events


def disagreement(found: AnyArray, expected: AnyArray) -> float:
    """Largest |a - b| in units of a stream's change, less some float32 roundings of its level."""
    rounding = 8 * np.finfo(np.float32).eps * np.abs(LEVEL)
    far = np.abs(found.astype(np.float64) - expected).max(axis=(1, 2))
    return float((np.maximum(far - rounding, 0) / CHANGE).max())


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        pytest.param(SMALL, 200, id="two seasons"),
        pytest.param(HOURS, 40, id="hours"),
        pytest.param(ExpertsConfig("1h", 8, (4,)), 100, id="one season, twice in the horizon"),
        pytest.param(ExpertsConfig("1h", 3, (1,)), 40, id="no season"),
        pytest.param(ExpertsConfig("1h", 6, (4, 173)), 360, id="a long season in bins that no period divides"),
        pytest.param(light(HOURS), 180, id="hours, light"),
    ],
)
def test_the_layer_is_the_float64_oracle(config: ExpertsConfig, steps: int) -> None:
    forecaster, oracle = ExpertForecaster(config), ExpertsOracle(STREAMS, config)
    rows = forecaster.initial_rows(STREAMS)
    worst = 0.0
    for number, (period, y) in enumerate(polls(config, steps)):
        with torch.no_grad():
            outputs, rows = forecaster.step(torch.from_numpy(period * HOUR_MS), torch.from_numpy(y), rows)
        oracle.step(period, y.astype(np.float64))
        if number < 12 or number % 100 == 0 or number == steps - 1:
            worst = max(worst, disagreement(outputs.forecast.numpy(), oracle.forecast()))
            assert worst < TOLERANCE, f"step {number}"
    assert worst > 0  # float32 is not float64


def test_the_exported_graph_is_the_float64_oracle_for_long(tmp_path: Path, brief_parity: None) -> None:
    path, oracle = tmp_path / "experts.onnx", ExpertsOracle(STREAMS, SMALL)
    export_experts(SMALL, path, name="experts")
    session = InPlaceSession(path, ExpertForecaster(SMALL), STREAMS, ["forecast"])
    worst, slots = 0.0, np.arange(STREAMS)
    for number, (period, y) in enumerate(polls(SMALL, 2_000)):
        found = session.run(slots, period * HOUR_MS, y)["forecast"]
        oracle.step(period, y.astype(np.float64))
        if number % 100 == 99:
            worst = max(worst, disagreement(found, oracle.forecast()))
            assert worst < TOLERANCE, f"step {number}"
    assert worst > 0  # float32 is not float64


def test_what_comes_later_changes_nothing_before() -> None:
    """Values, missing ones and silence after a period leave every forecast up to it as it was."""
    config, cut = SMALL, 150
    before = polls(config, cut)
    later = [polls(config, 20, seed=seed)[5:] for seed in (1, 2)]
    found = []
    for end in later:
        forecaster = ExpertForecaster(config)
        rows, forecasts = forecaster.initial_rows(STREAMS), []
        for period, y in [*before, *((period + 1_000, y + 1e3) for period, y in end)]:
            with torch.no_grad():
                outputs, rows = forecaster.step(torch.from_numpy(period * HOUR_MS), torch.from_numpy(y), rows)
            forecasts.append(outputs.forecast.numpy())
        found.append(np.stack(forecasts))
    np.testing.assert_array_equal(found[0][:cut], found[1][:cut])
    assert not np.array_equal(found[0][cut:], found[1][cut:], equal_nan=True)


def test_repeated_and_late_events_leave_the_state_and_bring_the_same_forecast() -> None:
    forecaster = ExpertForecaster(SMALL)
    rows = forecaster.initial_rows(STREAMS)
    for period, y in polls(SMALL, 60):
        with torch.no_grad():
            outputs, rows = forecaster.step(torch.from_numpy(period * HOUR_MS), torch.from_numpy(y), rows)
    newest = rows.clock[:, 0]
    for back, status in ((0, Status.DUPLICATE), (3, Status.LATE)):
        again, after = forecaster.step((newest - back) * HOUR_MS, torch.full((STREAMS,), 7.0), rows)
        assert again.status.tolist() == [status] * STREAMS
        np.testing.assert_array_equal(again.forecast, outputs.forecast)
        for name, old, new in zip(("clock", "core", "first", "second"), rows.flat()[:4], after.flat()[:4], strict=True):
            np.testing.assert_array_equal(old, new, err_msg=name)


def test_the_hourly_default_takes_at_most_8_kib_a_stream_with_its_network() -> None:
    forecaster = ExpertForecaster(ExpertsConfig("1h", 48, (24, 168), network=NetworkShape("gru", 32)))
    assert sum(spec.row_bytes for spec in forecaster.state_specs()) <= 8_192


@pytest.mark.parametrize("freq", ["10s", "1min", "5min", "7min", "15min", "30min", "1h", "1d", "1w", "1mo", "12mo"])
def test_the_light_form_takes_at_most_two_and_a_half_kib_at_any_frequency(freq: str) -> None:
    usual = ExpertsConfig(freq, default_horizon(freq), default_seasons(freq))
    chosen = light(usual)
    assert sum(spec.row_bytes for spec in ExpertForecaster(chosen).state_specs()) <= MAX_BYTES == 2_560
    assert (chosen.horizon, chosen.seasons, chosen.quantiles) == (usual.horizon, usual.seasons, usual.quantiles)
    assert {base for base, _ in chosen.experts} >= {"level", "naive0", "phase0", "median"}


@pytest.mark.parametrize("freq", ["1min", "15min", "1h", "1d"])
def test_the_light_form_judges_forecasts_of_each_phase_in_turn(freq: str) -> None:
    chosen = light(ExpertsConfig(freq, default_horizon(freq), default_seasons(freq)))
    far = chosen.strides[-1]
    assert far > 1
    for season in chosen.seasons:
        assert len({period * far % season for period in range(season)}) == season


def test_what_the_light_form_cannot_hold_is_refused() -> None:
    quantiles = tuple(n / 100 for n in range(1, 100))
    with pytest.raises(ValueError, match=r"would take 4,\d\d\d bytes of state per stream, and 2,560 are the most"):
        light(replace(HOURS, quantiles=quantiles))


def test_a_long_season_is_kept_in_few_bins() -> None:
    _, week = ExpertsConfig("5min", 48, (288, 2016)).memories
    assert (week.periods, week.bins) == (2016, 168)


def test_a_large_level_keeps_its_digits() -> None:
    """The same series a million higher has the same forecasts, up to the roundings of the numbers themselves."""
    forecaster = ExpertForecaster(SMALL)
    rng = np.random.default_rng(3)
    wave = np.round(64 * (np.sin(2 * np.pi * np.arange(200) / 5) + 0.3 * rng.normal(size=200))) / 64
    offsets = np.array([0.0, 1e6])
    rows = forecaster.initial_rows(2)
    for hour, y in enumerate(wave):
        with torch.no_grad():
            values = torch.from_numpy((offsets + y).astype(np.float32))
            outputs, rows = forecaster.step(torch.full((2,), 400_000 + hour) * HOUR_MS, values, rows)
    low, high = (forecast[:, 4] - offset for forecast, offset in zip(outputs.forecast.numpy(), offsets, strict=True))
    assert np.abs(low - high).max() < 0.1  # steps of float32 at a million: 0.06


def test_quantiles_do_not_cross() -> None:
    forecaster = ExpertForecaster(SMALL)
    rows = forecaster.initial_rows(STREAMS)
    for period, y in polls(SMALL, 120, seed=4):
        with torch.no_grad():
            outputs, rows = forecaster.step(torch.from_numpy(period * HOUR_MS), torch.from_numpy(y), rows)
        assert (outputs.forecast.diff(dim=2) >= 0).all()
        assert outputs.forecast.isfinite().all()


@pytest.mark.parametrize("value", [1e30, -1e30, 0.0, 1e-30, float("nan"), float("inf")])
def test_the_state_stays_finite_whatever_the_values(value: float) -> None:
    forecaster = ExpertForecaster(SMALL)
    rows = forecaster.initial_rows(1)
    for hour in range(60):
        y = torch.tensor([value if hour % 7 else (-1.0) ** hour * 1e30])
        with torch.no_grad():
            outputs, rows = forecaster.step(torch.tensor([(400_000 + hour) * HOUR_MS]), y, rows)
        assert outputs.forecast.isfinite().all()
        assert all(part.isfinite().all() for part in rows.flat())


@pytest.mark.parametrize("shape", ["ramp", "constant", "steps"])
def test_a_stream_without_noise_leaves_a_state_of_the_size_of_its_values(shape: str) -> None:
    """The experts miss by nothing until the ramp starts again; the engine quarantines states beyond 1e19."""
    forecaster = ExpertForecaster(ExpertsConfig("1h", 8, (6, 24)))
    rows, values = forecaster.initial_rows(2), {"ramp": 24, "constant": 1, "steps": 2}[shape]
    for hour in range(120):
        y = torch.full((2,), float((hour // 12 if shape == "steps" else hour) % values))
        with torch.no_grad():
            outputs, rows = forecaster.step(torch.full((2,), hour * HOUR_MS), y, rows)
        assert max(float(season.abs().max()) for season in rows.seasons) < 1e3, hour
        assert float(outputs.forecast.abs().max()) < 200, hour


@pytest.mark.parametrize(
    ("freq", "seasons", "horizon"),
    [
        ("10s", (360,), 60),
        ("1min", (60, 1440), 48),
        ("5min", (288, 2016), 48),
        ("7min", (206, 1440), 48),
        ("10min", (144, 1008), 48),
        ("15min", (96, 672), 48),
        ("30min", (48, 336), 48),
        ("1h", (24, 168), 48),
        ("1d", (7, 365), 30),
        ("1w", (52,), 13),
        ("1mo", (12,), 18),
        ("3mo", (4,), 8),
        ("12mo", (1,), 6),
    ],
)
def test_every_frequency_has_usual_seasons_and_a_usual_horizon(
    freq: str, seasons: tuple[int, ...], horizon: int
) -> None:
    assert default_seasons(freq) == seasons
    assert default_horizon(freq) == horizon
    ExpertForecaster(ExpertsConfig(freq, horizon, seasons))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seasons": (168, 24)}, "the shorter first"),
        ({"seasons": (1, 2, 3)}, "one or two"),
        ({"horizon": 0}, "at least 1 period"),
        ({"quantiles": (0.5, 0.1)}, "increase strictly"),
        ({"anchors": (1, 2)}, "from 1 to 48"),
        ({"experts": (("nobody", 1.0),)}, "'nobody'"),
        ({"prior": Prior(((1.0,),), (1.0,))}, "prior: expected 8 anchors of 25 experts"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExpertsConfig(**({"freq": "1h", "horizon": 48, "seasons": (24, 168)} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["power", "unit_power", "prior_errors"])
def test_a_constant_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} 0: expected"):
        Constants(**{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("exponent", [1, 2, 3, 12, 20])
def test_power_by_squaring(exponent: int) -> None:
    x = torch.tensor([0.0, 0.5, 1.0])
    np.testing.assert_allclose(power(x, exponent), x**exponent, rtol=1e-6)


def test_constants_change_the_forecast() -> None:
    """Each constant is in use."""
    base = SMALL.constants
    events = polls(SMALL, 45, seed=5)

    def forecast(constants: Constants) -> AnyArray:
        forecaster = ExpertForecaster(ExpertsConfig("1h", 7, (5, 11), constants=constants))
        rows, found = forecaster.initial_rows(STREAMS), []
        with torch.no_grad():
            for period, y in events:
                outputs, rows = forecaster.step(torch.from_numpy(period * HOUR_MS), torch.from_numpy(y), rows)
                found.append(outputs.forecast.numpy())
        return np.stack([found[0], found[-1]])

    usual = forecast(base)
    unused = []
    for name, value in asdict(base).items():
        other: object = value + 1 if not isinstance(value, tuple) else tuple(4 * part for part in value)
        if isinstance(value, float) and value < 1:
            other = 8 * value if value < 0.1 else 0.9 * value  # rates have a floor that an old stream alone reaches
        if np.array_equal(forecast(Constants(**(asdict(base) | {name: other}))), usual):
            unused.append(name)
    assert unused == []


@pytest.mark.parametrize(
    ("horizon", "stride"), [(1, 1), (8, 1), (20, 1), (30, 4), (48, 2), (48, 3), (48, 4), (60, 4), (50, 7), (48, 9)]
)
def test_a_pending_period_stays_until_all_of_its_forecasts_have_been_judged(horizon: int, stride: int) -> None:
    config = ExpertsConfig("1h", horizon, (24,), stride=stride)
    places = PendingPlaces(config)
    row = torch.zeros(1, 1, dtype=torch.int64)
    table = torch.full((1, places.entries, 1), -1.0)
    for period in range(1000, 1000 + min(2 * places.repeat, 200)):
        phase = places.phase(torch.tensor([[period]]))
        found = places.read(table, row, phase)[:, 0, 0].tolist()
        for anchor, own, value in zip(config.anchors, config.strides, found, strict=True):
            made = period - anchor
            if made % own == 0 and made >= 1000:
                assert value == made
        table = places.write(table, row, phase, torch.tensor([[True]]), torch.tensor([[float(period)]]))
        untouched = places.write(table, row, phase, torch.tensor([[False]]), torch.tensor([[-2.0]]))
        assert torch.equal(untouched[:, :-1], table[:, :-1])
    assert places.entries <= -(-horizon // stride) + 9
