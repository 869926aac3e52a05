"""The judge of the chaos suite can say no: it counts each kind of fault that a test puts into a clean output."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.faults.load import Load, raw_load, toy_load
from tests.faults.model_loads import experts_load, gru_load
from tests.faults.plan import NETWORK_FAULTS, REPLICA_FAULTS, Fault, Plan
from tests.faults.verdict import judge
from tests.support.toy import HORIZON, QUANTILES

EVENTS = 3_000


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    return toy_load(EVENTS, 7, tmp_path_factory.mktemp("toy"))[0]


def forecast(load: Load, event: int, state: int, **changes: object) -> bytes:
    partition = int(load.home[load.stream[event]])
    offset = load.of_partition(partition).tolist().index(event)
    ds = np.datetime_as_string(load.ds[event : event + 1].astype("datetime64[ms]"))[0]
    document = {
        "unique_id": load.ids[load.stream[event]],
        "ds": f"{ds}Z",
        "status": "ok",
        "quantiles": {f"{q:g}": [float(state)] * HORIZON for q in QUANTILES},
        "source": {"partition": partition, "offset": offset},
    }
    return json.dumps(document | changes).encode()


@pytest.fixture(scope="module")
def clean(load: Load) -> Sequence[bytes]:
    """The output of a run without any fault, reckoned from the events themselves."""
    states: dict[int, int] = {}
    seen: dict[int, int] = {}
    values = []
    for event, (stream, ds, y) in enumerate(zip(load.stream.tolist(), load.ds.tolist(), load.y.tolist(), strict=True)):
        evicted = ds - seen.get(stream, ds) > load.idle_ttl_s * 1000
        states[stream] = (31 * (0 if evicted else states.get(stream, 0)) + int(y)) % 1_000_003
        seen[stream] = ds
        values.append(forecast(load, event, states[stream]))
    return values


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_clean_output_is_clean(delivery: str, load: Load, clean: Sequence[bytes]) -> None:
    verdict = judge(load, delivery, clean, [])
    assert verdict.clean
    assert (verdict.events, verdict.repeats, verdict.cases) == (EVENTS, 0, [])


def alarm_records(load: Load) -> list[bytes]:
    """The alarms of a run without any fault."""
    assert load.alarms is not None
    positions = {int(e): (p, o) for p in range(8) for o, e in enumerate(load.of_partition(p).tolist())}
    return [
        json.dumps(
            {
                "unique_id": load.ids[load.stream[event]],
                "change": {1: "opened", 3: "closed"}[int(load.alarms.phase[event])],
                "strength": float(load.alarms.strength[event]),
                "source": dict(zip(("partition", "offset"), positions[event], strict=True)),
            }
        ).encode()
        for event in np.flatnonzero(np.isin(load.alarms.phase, [1, 3])).tolist()
    ]


def test_alarms_are_judged_like_forecasts(load: Load, clean: Sequence[bytes]) -> None:
    right = alarm_records(load)
    assert len(right) > EVENTS / 8
    assert judge(load, "exactly_once", clean, [], right).clean
    assert judge(load, "exactly_once", clean, [], right[1:]).lost == 1
    again = [*right, right[3]]
    assert judge(load, "exactly_once", clean, [], again).doubled == 1
    assert judge(load, "at_least_once", clean, [], again).clean
    other = right[5].replace(b"opened", b"?").replace(b"closed", b"opened").replace(b"?", b"closed")
    assert judge(load, "exactly_once", clean, [], [*right[:5], other, *right[6:]]).wrong == 1
    assert judge(load, "exactly_once", clean, [], [*right, b"{}"]).wrong == 1


def test_a_missing_forecast_is_lost(load: Load, clean: Sequence[bytes]) -> None:
    verdict = judge(load, "exactly_once", [*clean[:100], *clean[101:]], [])
    assert (verdict.lost, verdict.doubled, verdict.wrong) == (1, 0, 0)
    assert not verdict.clean


def test_an_identical_repeat_is_doubled_only_where_once_was_promised(load: Load, clean: Sequence[bytes]) -> None:
    again = [*clean, clean[5]]
    once, repeated = judge(load, "exactly_once", again, []), judge(load, "at_least_once", again, [])
    assert (once.doubled, once.repeats, repeated.doubled, repeated.repeats) == (1, 0, 0, 1)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_repeat_that_differs_is_doubled(delivery: str, load: Load, clean: Sequence[bytes]) -> None:
    verdict = judge(load, delivery, [*clean, forecast(load, 5, 1)], [])
    assert (verdict.doubled, verdict.repeats) == (1, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"quantiles": {"0.5": [1.0, 2.0]}},
        {"status": "gap"},
        {"unique_id": "s999"},
        {"ds": "1999-01-01T00:00:00.000Z"},
    ],
)
def test_a_forecast_that_differs_from_the_unroll_is_wrong(
    changes: dict[str, object], load: Load, clean: Sequence[bytes]
) -> None:
    values = [*clean]
    values[7] = json.dumps(json.loads(values[7]) | changes).encode()
    assert judge(load, "exactly_once", values, []).wrong == 1


@pytest.mark.parametrize(
    "source", [None, {"partition": 0, "offset": 10**6}, {"partition": 7, "offset": 0}, {"partition": 99, "offset": 0}]
)
def test_a_forecast_of_no_event_is_wrong(source: object, load: Load, clean: Sequence[bytes]) -> None:
    values = [*clean, forecast(load, 7, 1, source=source)]
    assert judge(load, "at_least_once", values, []).wrong == 1


@pytest.mark.parametrize("value", [None, b"", b"rubbish", b'{"unique_id": 1}'])
def test_a_record_that_is_no_forecast_is_wrong(value: bytes | None, load: Load, clean: Sequence[bytes]) -> None:
    assert judge(load, "exactly_once", [*clean, value], []).wrong == 1


def test_forecasts_of_a_stream_out_of_order_are_wrong(load: Load, clean: Sequence[bytes]) -> None:
    first, second = (load.stream == load.stream[0]).nonzero()[0][:2].tolist()
    values = [*clean]
    values[first], values[second] = values[second], values[first]
    assert judge(load, "exactly_once", values, []).wrong == 1


def test_a_dead_letter_is_wrong(load: Load, clean: Sequence[bytes]) -> None:
    assert judge(load, "exactly_once", clean, [b"{}"]).wrong == 1


def test_a_state_that_outlives_its_eviction_is_wrong(load: Load, tmp_path: Path) -> None:
    """The toy's load has streams that are evicted and come back, and a whole page of them at once."""
    long, _ = toy_load(60_000, 7, tmp_path)
    pauses: dict[int, int] = {}
    seen: dict[int, int] = {}
    for stream, ds in zip(long.stream.tolist(), long.ds.tolist(), strict=True):
        if ds - seen.get(stream, ds) > long.idle_ttl_s * 1000:
            pauses[stream] = pauses.get(stream, 0) + 1
        seen[stream] = ds
    assert len(pauses) > 300


@pytest.mark.parametrize("make", [gru_load, experts_load])
def test_a_real_model_is_judged_within_its_tolerance(
    make: Callable[[int, int, Path], tuple[Load, Path]], tmp_path: Path
) -> None:
    load, _ = make(600, 7, tmp_path)
    assert len(load) == 600
    verdict = judge(load, "exactly_once", [], [])
    assert verdict.lost == 600


def test_a_plan_is_the_same_for_a_seed_and_has_what_it_was_asked_for() -> None:
    others = {Fault.BROKER_HARD: 2, Fault.BROKER_CLEAN: 1, Fault.STOP: 4}
    others |= {Fault.STOP_ALL: 2, Fault.CLOCK: 4, Fault.SWAP: 8}
    plan = Plan(7, 50, 1_000_000, others=others)
    steps = plan.steps()
    assert steps == Plan(7, 50, 1_000_000, others=others).steps()
    assert steps != Plan(8, 50, 1_000_000, others=others).steps()
    assert [step.members for step in steps if step.fault is Fault.MEMBERS] == [3, 5, 2, 1]
    assert sum(step.fault is Fault.STOP for step in steps) == 4
    assert all(plan.members_at(step.at) > 1 for step in steps if step.fault is Fault.STOP)
    assert {step.fault for step in steps} == set(Fault) - set(REPLICA_FAULTS) - set(NETWORK_FAULTS)
    assert [step.at for step in steps] == sorted(step.at for step in steps)


def test_of_raw_events_only_those_that_close_a_period_have_a_forecast(tmp_path: Path) -> None:
    load, _ = raw_load(6_500, 7, tmp_path)
    assert load.answered is not None
    answered = np.flatnonzero(load.answered)
    assert 200 * 2 < answered.size <= 200 * 3, "two thousand events are a period of two hundred streams"
    verdict = judge(load, "exactly_once", [], [])
    assert verdict.lost == answered.size
    joins = int(np.flatnonzero(~load.answered)[0])
    assert judge(load, "exactly_once", [forecast(load, joins, 1)], []).wrong == 1
