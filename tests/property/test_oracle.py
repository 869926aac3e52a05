"""The oracle: for every interleaving, batching and crash point, consumers see one offline unroll of each stream."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rillcast.settings import WorkerSettings
from tests.support import workers
from tests.support.memory import Crash, Log, MemorySource
from tests.support.toy import unroll
from tests.support.workers import forecasts_by_stream, observation

arrivals = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8), st.integers(1, 10**6)), min_size=1, max_size=120)
sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)


def cycle(values: list[int]) -> Iterator[int]:
    while True:
        yield from values


def fill(events: list[tuple[int, int, int]]) -> tuple[Log, dict[str, list[int]]]:
    """Return a log of (partition, stream, y) events and what each stream's consumers must see."""
    log, by_stream = Log({0: [], 1: [], 2: []}), defaultdict(list)
    for partition, stream, y in events:
        unique_id = f"{partition}/{stream}"
        log.append(partition, observation(unique_id, y))
        by_stream[unique_id].append(y)
    return log, {unique_id: unroll(values) for unique_id, values in by_stream.items()}


@given(events=arrivals, polls=sizes, batch_rows=st.integers(1, 9), padded=st.booleans())
def test_forecasts_equal_offline_unroll(
    events: list[tuple[int, int, int]], polls: list[int], batch_rows: int, padded: bool
) -> None:
    log, expected = fill(events)
    sizes_of_polls = cycle(polls)
    harness = workers.build(
        log,
        per_poll=lambda: next(sizes_of_polls),
        batch_rows=batch_rows,
        row_buckets=(2, 4, 16) if padded else (),
    )
    harness.worker.run()
    assert forecasts_by_stream(log) == expected
    assert log.committed == {p: len(r) for p, r in log.partitions.items() if r}


@given(
    events=arrivals,
    polls=sizes,
    crashes=st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from(["before flush", "after flush", "after commit"])), max_size=4
    ),
)
def test_forecasts_equal_offline_unroll_through_crashes(
    events: list[tuple[int, int, int]], polls: list[int], crashes: list[tuple[int, str]]
) -> None:
    log, expected = fill(events)
    for commits, point in crashes:
        harness = workers.build(log, per_poll=cycle(polls).__next__, settings=WorkerSettings(commit_interval_s=1e-9))
        crash_at(harness, commits, point)
        with contextlib.suppress(Crash):
            harness.worker.run()
    harness = workers.build(log, per_poll=cycle(polls).__next__)
    harness.worker.run()
    assert forecasts_by_stream(log) == expected


def crash_at(harness: workers.Harness, commits: int, point: str) -> None:
    """Kill the worker at its `commits`-th commit, at one of the numbered steps of the checkpoint."""
    left = commits

    def crash() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Crash

    if point == "before flush":
        harness.sink.fail_flush = crash
    elif point == "after flush":
        harness.source.fail_commit = crash
    else:
        commit = harness.source.commit

        def commit_then_crash(positions: Mapping[int, int], timeout_s: float | None = None) -> None:
            commit(positions, timeout_s)
            crash()

        harness.source.commit = commit_then_crash  # type: ignore[method-assign]
    # Time passes at every poll, so that each is followed by a commit.
    harness.source.before_poll.extend([_tick(harness)] * 10_000)


def _tick(harness: workers.Harness) -> Callable[[MemorySource], None]:
    def tick(source: MemorySource) -> None:
        harness.clock.now += 1
        if all(lag == 0 for lag in source.lag().values()):
            source.before_poll.clear()

    return tick


@given(
    events=arrivals, polls=sizes, moves=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=8)
)
@settings(max_examples=60)
def test_forecasts_equal_offline_unroll_through_rebalances(
    events: list[tuple[int, int, int]], polls: list[int], moves: list[tuple[int, bool]]
) -> None:
    """Partitions leave in the middle and come back; the ones that stay keep flowing."""
    log, expected = fill(events)
    harness = workers.build(log, per_poll=cycle(polls).__next__)

    def away_or_back(partition: int) -> None:
        def move(source: MemorySource) -> None:
            if partition in source.positions():
                source.revoke([partition])
            else:
                source.assign([partition])

        harness.source.before_poll.append(move)

    for partition, rest in moves:
        away_or_back(partition)
        if rest:
            harness.source.before_poll.append(lambda _source: None)
    harness.source.before_poll.append(
        lambda source: source.assign([p for p in (0, 1, 2) if p not in source.positions()])
    )
    harness.worker.run()
    assert forecasts_by_stream(log) == expected


@pytest.mark.parametrize("change", ["lost", "doubled", "swapped"])
def test_the_oracle_notices_any_change(change: str) -> None:
    """The proof that the tests above can fail."""
    events = [(0, 0, y) for y in (3, 1, 4, 1, 5, 9)]
    _, expected = fill(events)
    changed = {
        "lost": events[:2] + events[3:],
        "doubled": [*events[:3], events[2], *events[3:]],
        "swapped": [*events[:2], events[3], events[2], *events[4:]],
    }[change]
    log, _ = fill(changed)
    workers.build(log).worker.run()
    assert forecasts_by_stream(log)["0/0"][-1] != expected["0/0"][-1]
