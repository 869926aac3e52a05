from __future__ import annotations

import numpy as np
import torch

from rillcast.arrays import AnyArray
from rillcast.engine.overdue import page_columns
from rillcast_training.model.alarms import WIDTH
from rillcast_training.model.forecaster import Forecaster
from rillcast_training.model.network_alarms import Judged, NetworkAlarms
from rillcast_training.model.tails import miss_of, of_both_sides, outside
from tests.support.alarms_oracle import AlarmsOracle
from tests.support.forecasters import HOUR_MS, random_forecaster, small_config

INTERVAL = 500.0


def test_alarms_are_those_of_the_definition_through_gaps_and_missing_values() -> None:
    rng = np.random.default_rng(5)
    y = 10 + rng.normal(size=1_500)
    y[600:605] += 40
    y[900:980] = np.nan
    gap = np.where(rng.random(y.size) < 0.02, 3, 1)
    gap[1_400] = 2_000
    tail = np.where(rng.random(y.size) < 0.01, 10 ** rng.uniform(1, 3, y.size), 0)
    tail[np.isnan(y)] = 0
    alarms, state, oracle = NetworkAlarms(), torch.zeros(WIDTH, 1), AlarmsOracle(INTERVAL)
    found, expected = [], []
    for number, value in enumerate(y.astype(np.float32).tolist()):
        has, passed = bool(np.isfinite(value)), int(gap[number]) if number else 0
        judged = Judged(*(torch.tensor([part]) for part in (value if has else 0.0, 10.0, float(tail[number]), has)))
        yes, now = torch.tensor([True]), torch.tensor([passed])
        state, outputs = alarms(state, judged, torch.tensor([has]), yes, now, torch.tensor([INTERVAL]))
        found.append(outputs[:, 0].numpy())
        of_value = 10.0 if has else None
        expected.append(oracle.step(value if has else None, of_value, float(tail[number]), passed))
    np.testing.assert_array_equal(np.array(found)[:, 0], np.array(expected)[:, 0])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    assert 1.0 in set(np.abs(np.array(found)[:, 1]))


def alarms_of(forecaster: Forecaster, y: AnyArray, hours: AnyArray) -> AnyArray:
    rows, found = forecaster.initial_rows(1), []
    wanted = {"alarm_interval": torch.tensor([1_000.0])}
    with torch.no_grad():
        for hour, value in zip(hours.tolist(), y.tolist(), strict=True):
            outputs, rows = forecaster.step(torch.tensor([hour * HOUR_MS]), torch.tensor([value]), rows, **wanted)
            assert outputs.alarm is not None
            found.append(outputs.alarm[0].numpy())
    return np.stack(found)


def test_a_network_finds_a_spike_leaves_a_silence_to_the_service_and_takes_at_most_128_bytes() -> None:
    forecaster = random_forecaster(small_config(alarms=True))
    sizes = {spec.name: 4 * spec.row_shape[0] for spec in forecaster.state_specs() if len(spec.row_shape) == 1}
    of_silence = sum(spec.row_bytes for spec in page_columns(watched=True))
    assert sizes["tails"] + sizes["alarms"] + of_silence <= 128
    hours = 473_000 + np.arange(400)
    hours[300:] += 60  # longer than the longest gap that keeps the network's state
    y = 100 + 10 * np.sin(np.arange(400) / 3) + np.random.default_rng(0).normal(size=400)
    y[200] += 300
    found = alarms_of(forecaster, y.astype(np.float32), hours)
    opened = np.flatnonzero(found[:, 0] == 1).tolist()
    assert opened == [200]
    assert found[opened, 1].tolist() == [1]
    assert found[200, 6] == np.float32(y[200])


def test_a_network_without_alarms_has_no_state_of_them() -> None:
    forecaster = random_forecaster(small_config())
    assert "alarms" not in [spec.name for spec in forecaster.state_specs()]
    assert forecaster.initial_rows(1).alarms is None


def test_the_tail_of_an_observation_counts_both_sides() -> None:
    y, ends = torch.tensor([0.0, 5.0, 9.0, 9.0]), torch.tensor([[1.0], [4.0], [8.0]]).expand(3, 4)
    periods, valid = torch.tensor([[20.0], [40.0]]).expand(2, 4), torch.tensor([True, True, True, False])
    assert of_both_sides(outside(miss_of(y, ends), periods), valid).tolist() == [10, 0, 20, 0]
