"""The needs of a GPU, checked on any machine: few shapes, fixed buffers, state that stays on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.engine.batcher import Batching, Runs
from rillcast.engine.device import Device
from rillcast.engine.executor import KEPT_ROWS
from rillcast.engine.slab import Slab
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.events import EventBatch
from tests.support.toy import HOUR_MS, toy_bundle, unroll

BUCKETS = (2, 8)


def step(engine: StepEngine, streams: list[int], y: int, offset: int) -> list[int]:
    n, ids = len(streams), [f"s{s}" for s in streams]
    events = EventBatch.of(ids, np.zeros(n, np.int64), np.full(n, y, np.float32), first_offset=offset)
    result = engine.step(events)
    assert (result.outcome == Outcome.STEPPED).all()
    return [int(state) for state in result.forecast[:, 0, 0]]


def returned(bucket: Any) -> dict[str, ort.OrtValue]:
    """Return the buffers on the host to which outputs are copied."""
    return {f"returned {name}": value for name, value in bucket.returned.items()}


def addresses(engine: StepEngine) -> dict[tuple[int, str], int]:
    return {
        (size, name): value.data_ptr()
        for size, bucket in engine._runner._step._buckets.items()
        for name, value in [*bucket.inputs.items(), *bucket.outputs.items(), *returned(bucket).items()]
    }


def test_buffers_of_a_bucket_stay_where_they_are() -> None:
    engine = StepEngine(toy_bundle(), Device("cpu"), batching=Batching(8, BUCKETS))
    for first, streams in enumerate(([1, 2], [1, 2, 3, 4, 5])):
        step(engine, streams, 1, first * 10)
    before = addresses(engine)
    assert {size for size, _ in before} == set(BUCKETS)
    for number, streams in enumerate(([3], [1, 2, 3], [1, 2, 3, 4, 5, 6, 7, 8], [2, 5]), start=2):
        step(engine, streams, 1, number * 10)
    assert addresses(engine) == before


def test_padding_does_not_change_results() -> None:
    padded = StepEngine(toy_bundle(), Device("cpu"), batching=Batching(8, BUCKETS))
    plain = StepEngine(toy_bundle(), Device("cpu"), batching=Batching(8))
    seen: dict[int, list[int]] = {}
    for number, streams in enumerate(([1, 2, 3], [4], [2, 3, 4, 5, 1], [9, 8, 7, 6, 5, 4, 3, 2, 1, 10])):
        found = step(padded, streams, number + 1, number * 10)
        assert found == step(plain, streams, number + 1, number * 10)
        for stream, state in zip(streams, found, strict=True):
            seen.setdefault(stream, []).append(number + 1)
            assert state == unroll(seen[stream])[-1], "no pad has touched a stream"


@pytest.mark.parametrize("buckets", [(), BUCKETS])
def test_results_kept_by_a_caller_do_not_change(buckets: tuple[int, ...]) -> None:
    """Buffers stay from call to call; what a caller has is not in them."""
    engine = StepEngine(toy_bundle(), Device("cpu"), batching=Batching(8, buckets))
    kept = []
    for number in range(3):  # streams repeat, so that the rows of a call are not consecutive
        ids = [f"s{row % 3}" for row in range(7)]
        events = EventBatch.of(ids, np.zeros(7, np.int64), np.full(7, number + 1, np.float32), first_offset=10 * number)
        result = engine.step(events)
        kept.append((result.forecast, result.forecast.copy()))
    for found, then in kept:
        np.testing.assert_array_equal(found, then)
    assert len({then.tobytes() for _, then in kept}) == len(kept)


@pytest.mark.parametrize("buckets", [(), BUCKETS])
def test_buffers_survive_growth_of_the_state(buckets: tuple[int, ...]) -> None:
    engine = StepEngine(toy_bundle(), Device("cpu"), batching=Batching(8, buckets))
    for first in range(0, 2000, 8):
        assert step(engine, list(range(first, first + 8)), 5, first) == [5] * 8
    assert step(engine, [0, 1999], 6, 5000) == [unroll([5, 6])[-1]] * 2


def test_small_calls_on_a_cpu_bind_their_arrays_once_and_give_what_large_ones_give(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound: list[str] = []

    def counted(bind: Callable[..., None]) -> Callable[..., None]:
        def count(binding: ort.IOBinding, name: str, *rest: object) -> None:
            bound.append(name)
            bind(binding, name, *rest)

        return count

    for name in ("bind_cpu_input", "bind_output", "bind_ortvalue_input", "bind_ortvalue_output"):
        monkeypatch.setattr(ort.IOBinding, name, counted(getattr(ort.IOBinding, name)))
    engine = StepEngine(toy_bundle(), Device("cpu"), batching=Batching(KEPT_ROWS + 1))
    sizes = 1, 3, KEPT_ROWS, KEPT_ROWS + 1
    for size in sizes:
        assert step(engine, list(range(size)), 1, size)[-1] == unroll([1])[0]
    first = len(bound)
    assert step(engine, list(range(KEPT_ROWS)), 2, 100) == [
        *[unroll([1, 1, 1, 1, 2])[-1]],
        *[unroll([1, 1, 1, 2])[-1]] * 2,
        *[unroll([1, 1, 2])[-1]] * (KEPT_ROWS - 3),
    ]
    assert len(bound) == first, "a size that was seen binds nothing"
    step(engine, list(range(KEPT_ROWS + 1)), 2, 200)
    assert len(bound) > first, "a larger call reads and fills the caller's arrays"


def test_steps_move_no_state_between_host_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = StepEngine(toy_bundle(), Device("cpu"), batching=Batching(8, BUCKETS))
    step(engine, [1, 2, 3], 1, 0)
    moved: list[str] = []
    for name in ("gather", "scatter"):
        monkeypatch.setattr(Slab, name, lambda *_, name=name: moved.append(name))
    for number in range(1, 20):
        step(engine, [1, 2, 3], 1, 10 * number)
    assert moved == []


def test_only_a_gpu_pads_to_a_few_sizes() -> None:
    assert Device("cpu").row_buckets(256) == ()
    assert Device("cuda").row_buckets(256) == (16, 32, 64, 128, 256)
    assert Device("cuda").row_buckets(100) == (16, 32, 64, 100)
    assert Device("cuda").row_buckets(8) == (8,)


def test_nothing_that_stays_is_in_the_arena_of_a_session_that_may_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bind_cpu_input` allocates in the session's arena, where the replays of another size's graph write."""
    bound: list[str] = []
    monkeypatch.setattr(ort.IOBinding, "bind_cpu_input", lambda _, name, __: bound.append(name))
    engine = StepEngine(Bundle.load("universal:1h"), Device("cpu"), batching=Batching(8, BUCKETS, Runs()))
    assert engine.bundle.has_calibrate
    for number, streams in enumerate(([1, 2], [1, 2, 3, 4, 5])):
        n, ids = len(streams), [f"s{s}" for s in streams]
        engine.step(EventBatch.of(ids, np.full(n, number * HOUR_MS), np.ones(n, np.float32), first_offset=10 * number))
    assert set(bound) <= {"rows", "slots", "from", "to"}, "only the slab's own sessions, which capture nothing"
