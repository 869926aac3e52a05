from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch

from rillcast.arrays import AnyArray
from rillcast_training.model.alarms import OUTPUTS, WIDTH, AlarmModel, Observed
from tests.support.alarms_oracle import AlarmsOracle

INTERVAL = 500.0


def noisy(length: int, seed: int = 0) -> AnyArray:
    return 10 + np.random.default_rng(seed).normal(size=length).astype(np.float32)


def alarms(y: AnyArray, *, tail: AnyArray | None = None, interval: float = INTERVAL) -> AnyArray:
    """Return the outputs `[T, 8]` for values that were expected to be 10; NaN = missing."""
    model, state, found = AlarmModel(), torch.zeros(WIDTH, 1), []
    for number, value in enumerate(y.tolist()):
        has = bool(np.isfinite(value))
        event = Observed(
            y=torch.tensor([value if has else 0.0]),
            expected=torch.tensor([10.0]),
            valid=torch.tensor([has]),
            has=torch.tensor([has]),
            advances=torch.tensor([True]),
            passed=torch.tensor([1.0 if number else 0.0]),
            tail=torch.tensor([0.0 if tail is None else float(tail[number])]),
        )
        state, outputs = model(state, event, torch.tensor(interval))
        found.append(outputs[:, 0].numpy())
    return np.stack(found)


def opened(found: AnyArray) -> list[int]:
    return np.flatnonzero(found[:, 0] == 1).tolist()


def test_alarms_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(4)
    y = noisy(1_800, 4)
    y[700:] += 6
    y[900] = 60
    y[1_200:1_280] = y[1_200]
    y[1_500:1_530] = np.nan
    tail = np.where(rng.random(y.size) < 0.01, 10 ** rng.uniform(1, 5, y.size), 0).astype(np.float32)
    tail[np.isnan(y)] = 0
    found = alarms(y, tail=tail)
    oracle, expected = AlarmsOracle(INTERVAL), []
    for number, value in enumerate(y.tolist()):
        has = np.isfinite(value)
        expected.append(oracle.step(value if has else None, 10.0, float(tail[number]), int(number > 0)))
    np.testing.assert_array_equal(found[:, 0], np.array(expected)[:, 0])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)
    assert set(found[:, 0]) == {0, 1, 2, 3}
    assert {1, 2, 5} <= set(np.abs(found[:, 1]))


AT, END = 700, 760  # a trouble's first period, and the one after its last

TROUBLES: Mapping[str, tuple[set[int], Callable[[AnyArray, AnyArray], AnyArray], int, int]] = {
    "spike up": ({1}, lambda y, t: np.where(t == AT, 60, y), 0, AT),
    "spike down": ({-1}, lambda y, t: np.where(t == AT, -60, y), 0, AT),
    # The figure that shows a slow change first names it: a value, the fast mean or the slow one.
    "level shift": ({1, 2}, lambda y, t: y + 8 * ((t >= AT) & (t < END)), 3, END),
    "drift down": ({-1, -2, -3}, lambda y, t: y - np.clip(t - AT, 0, 60) * 0.15, 40, END + 250),
    "variance": ({4}, lambda y, t: np.where((t >= AT) & (t < END), 10 + 2.4 * np.sign(y - 10), y), 40, END),
    "flat line": ({5}, lambda y, t: np.where((t >= AT) & (t < END), y[AT], y), 30, END),
}


@pytest.fixture(scope="module")
def of_troubles() -> AnyArray:
    """The outputs `[T, 8, B]` for one stream of each trouble; forecasts follow the drift, which otherwise is a miss."""
    y = noisy(1_200)
    changed = {name: change(y, np.arange(y.size)).astype(np.float32) for name, (_, change, _, _) in TROUBLES.items()}
    values = torch.from_numpy(np.stack([*changed.values()], axis=1))
    follows = [
        values[:, n] - torch.from_numpy(y) if "drift" in name else 0 * values[:, n] for n, name in enumerate(changed)
    ]
    expected = 10 + torch.stack(follows, dim=1)
    model, state, found = AlarmModel(), torch.zeros(WIDTH, len(changed)), []
    one, yes = torch.ones(len(changed)), torch.ones(len(changed), dtype=torch.bool)
    for now, said in zip(values, expected, strict=True):
        state, outputs = model(state, Observed(now, said, yes, yes, yes, one, 0 * one), torch.tensor(2_000.0))
        found.append(outputs.numpy())
    return np.stack(found)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_each_trouble_is_found_once_and_named_with_its_direction_and_its_periods(
    trouble: str, of_troubles: AnyArray
) -> None:
    kinds, _, delay, lasts = TROUBLES[trouble]
    found = of_troubles[:, :, list(TROUBLES).index(trouble)]
    (at,) = (first for first in opened(found) if first >= AT)
    assert AT <= at <= AT + delay
    (end,) = (last for last in np.flatnonzero(found[:, 0] == 3).tolist() if last > at)
    assert found[end, 1] in kinds
    assert end - int(found[end, 3]) == at, "the first period is that in which it opened"
    assert at <= end - int(found[end, 4]) <= lasts, "the last one is that of the last evidence"


def test_one_trouble_is_one_alarm_and_it_closes_after_it() -> None:
    y = noisy(1_000)
    y[500:600] += 50 * np.random.default_rng(1).normal(size=100).astype(np.float32)
    found = alarms(y, interval=5_000.0)
    (at,) = opened(found)
    assert 500 <= at < 505
    (end,) = np.flatnonzero(found[:, 0] == 3).tolist()
    assert 600 + 100 < end <= 600 + 250


@pytest.mark.parametrize(
    "draw", [lambda rng, shape: rng.normal(size=shape), lambda rng, shape: rng.standard_t(1.5, shape)]
)
def test_alarms_come_as_often_as_they_are_wanted(draw: object) -> None:
    """Without any trouble, and whatever the distribution: 20 streams over 15 intervals of 100 slots."""
    y = torch.from_numpy(draw(np.random.default_rng(2), (1_500, 20)).astype(np.float32))  # type: ignore[operator]
    model, state, opens = AlarmModel(), torch.zeros(WIDTH, 20), torch.zeros(20)
    one, yes = torch.ones(20), torch.ones(20, dtype=torch.bool)
    for values in y:
        state, outputs = model(state, Observed(values, 0 * one, yes, yes, yes, one, 0 * one), torch.tensor(100.0))
        opens += (outputs[0] == 1).to(torch.float32)
    assert 0.3 * 15 < float(opens.mean()) < 3 * 15


def test_a_stream_without_an_alarm_says_nothing() -> None:
    found = alarms(noisy(140))
    assert found.shape == (140, OUTPUTS)
    assert not found.any()


def test_a_repeated_event_changes_nothing() -> None:
    model = AlarmModel()
    state = torch.rand(WIDTH, 3)
    one, off = torch.ones(3), torch.zeros(3, dtype=torch.bool)
    following, outputs = model(state, Observed(one, one, off, off, off, one, one), torch.tensor(500.0))
    assert torch.equal(following, state)
    assert not outputs.any()


def test_without_a_budget_no_alarm_opens_and_an_open_one_closes() -> None:
    y = noisy(420)
    y[200:] += 60
    assert not (alarms(y, interval=0.0)[:, 0] == 1).any()
    model, state = AlarmModel(), torch.zeros(WIDTH, 1)
    phases = []
    for number, value in enumerate(y[:210].tolist()):
        event = [torch.tensor([part]) for part in (value, 10.0, True, True, True, 1.0, 0.0)]
        interval = torch.tensor([INTERVAL if number < 205 else 0.0])
        state, outputs = model(state, Observed(*event), interval)
        phases.append(int(outputs[0]))
    assert phases[200:] == [1, 2, 2, 2, 2, 3, 0, 0, 0, 0]
