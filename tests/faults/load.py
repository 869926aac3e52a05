"""The events that are fed, as columns, and the expected forecasts: the uninterrupted offline unroll of every stream.

Owns: the loads of the toy's integers (also as raw events and for two models), their encoding, and their oracle. Those
of real models are in `model_loads`. Does not know: faults, brokers, delivery. An event's offset identifies it, because
nobody else writes to the topic.

The toy's streams are of three kinds, so that state is evicted and pages become empty (tombstones): some always have
events; nomads pause for three times the time to live; and one partition has a crowd, more streams than a page holds,
that comes and leaves as one. Every pause is either one period or far beyond the time to live, so that eviction does
not depend on when exactly the service looks. The last partitions never have an event.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray
from tests.support import unrolls
from tests.support.toy import ALARM_EVERY, HOUR_MS, MODULUS, MULTIPLIER, write_toy

PARTITIONS: Final = 8
EMPTY_PARTITIONS: Final = 2
BUSY: Final = PARTITIONS - EMPTY_PARTITIONS

_START_MS: Final = unrolls.START_MS
_ROUND_MS: Final = 60_000
_TTL_ROUNDS: Final = 50
_CYCLE_ROUNDS: Final = 4 * _TTL_ROUNDS
_ALWAYS, _NOMADS, _CROWD = 180, 40, 320
_CROWD_ROUNDS: Final = 20
_MAX_Y: Final = 1_000

_RAW_STREAMS, _RAW_PER_PERIOD = 200, 10
_OTHER_MULTIPLIER: Final = 37


class Source(msgspec.Struct, gc=False):
    """The event of a forecast."""

    partition: int
    offset: int


class Published(msgspec.Struct, gc=False):
    """The members of a forecast record that are judged."""

    unique_id: str
    ds: str
    status: str
    quantiles: dict[str, list[float]]
    source: Source | None = None


class PublishedAlarm(msgspec.Struct, gc=False):
    """The members of an alarm record that are judged."""

    unique_id: str
    change: str
    strength: float
    source: Source


@dataclass(frozen=True)
class Alarms:
    """The expected alarm records.

    Attributes:
        phase: `(events,)` int64, 1 where an alarm opens, 3 where it closes, as of `rillcast.bundle.alarms.CHANGES`.
        strength: `(events,)` int64, what the record has to say.
    """

    phase: IntArray
    strength: IntArray


class Oracle(Protocol):
    """Knows the right forecast after each event."""

    def fault_of(self, event: int, published: Published) -> str | None:
        """Return what is wrong with the forecast of an event; None = nothing."""
        ...


@dataclass(frozen=True)
class Load:
    """Events in the order in which they are fed.

    Attributes:
        name: of the bundle.
        ids: stream ids, by the number of the stream.
        home: `(streams,)` int64, each stream's partition.
        stream: `(events,)` int64, number of the stream.
        ds: `(events,)` int64, milliseconds since the epoch.
        y: `(events,)` float64, NaN = missing.
        idle_ttl_s: The setting `state.idle_ttl_s` that the oracle assumes.
        oracle: The expected forecasts.
        answered: `(events,)` bool, whether an event has a forecast; None = every event has one.
        settings: Further settings of the service.
        alarms: The expected alarm records; None = the bundle has none.
    """

    name: str
    ids: Sequence[str]
    home: IntArray
    stream: IntArray
    ds: IntArray
    y: FloatArray
    idle_ttl_s: float
    oracle: Oracle
    answered: npt.NDArray[np.bool_] | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    alarms: Alarms | None = None

    def __len__(self) -> int:
        return int(self.stream.size)

    def of_partition(self, partition: int) -> IntArray:
        """Return the events of a partition by their offset."""
        return np.flatnonzero(self.home[self.stream] == partition)

    def records(self) -> Iterator[tuple[int, str, str]]:
        """Yield partition, key and value of each event."""
        columns = self.stream.tolist(), self.ds.tolist(), self.y.tolist()
        for stream, ds, y in zip(*columns, strict=True):
            unique_id = self.ids[stream]
            value = "null" if y != y else f"{y:g}" if y == int(y) else repr(y)
            yield int(self.home[stream]), unique_id, f'{{"unique_id":{json.dumps(unique_id)},"ds":{ds},"y":{value}}}'


class ToyOracle:
    """Exact: every number of the forecast is the state."""

    def __init__(self, names: Sequence[str], stream: IntArray, ds: IntArray, state: IntArray) -> None:
        self._names = names
        self._stream = stream
        self._times = np.datetime_as_string(ds.astype("datetime64[ms]"))
        self._state = state

    def fault_of(self, event: int, published: Published) -> str | None:
        """Return what is wrong."""
        name, state = self._names[self._stream[event]], int(self._state[event])
        if published.unique_id != name or published.ds != f"{self._times[event]}Z":
            return f"it says {published.unique_id!r} at {published.ds}, the event was {name!r} at {self._times[event]}Z"
        if published.status != "ok" or any(y != state for values in published.quantiles.values() for y in values):
            return f"{published.status} {published.quantiles}, the unroll has {state}"
        return None


def toy_load(events: int, seed: int, folder: Path) -> tuple[Load, Path]:
    """Return a load for the toy bundle, and the bundle's file."""
    rng = np.random.default_rng(seed)
    crowd = np.arange(_ALWAYS + _NOMADS, _ALWAYS + _NOMADS + _CROWD)
    ids = [f"s{n}" for n in range(_ALWAYS)] + [f"nomad{n}" for n in range(_NOMADS)] + [f"c{n}" for n in range(_CROWD)]
    home = np.arange(len(ids)) % BUSY
    home[crowd] = BUSY - 1
    rounds: list[IntArray] = []
    fed = number = 0
    while fed < events:
        active = np.ones(len(ids), dtype=bool)
        nomads = np.arange(_NOMADS)
        active[_ALWAYS : _ALWAYS + _NOMADS] = (number // _TTL_ROUNDS + nomads) % (_CYCLE_ROUNDS // _TTL_ROUNDS) == 0
        active[crowd] = number % _CYCLE_ROUNDS < _CROWD_ROUNDS
        rounds.append(rng.permutation(np.flatnonzero(active)))
        fed, number = fed + rounds[-1].size, number + 1
    stream = np.concatenate(rounds)[:events]
    at = np.repeat(np.arange(number), [each.size for each in rounds])[:events]
    ds = _START_MS + at * _ROUND_MS
    y = rng.integers(1, _MAX_Y, events)
    before, state = _unroll_evicting(stream, at, y, len(ids))
    was, is_open = (states % ALARM_EVERY == 1 for states in (before, state))
    alarms = Alarms(np.where(is_open, np.where(was, 2, 1), np.where(was, 3, 0)).astype(np.int64), state)
    load = Load(
        "toy", ids, home, stream, ds, y.astype(np.float64), _TTL_ROUNDS * _ROUND_MS / 1000,
        ToyOracle(ids, stream, ds, state), alarms=alarms,
    )  # fmt: skip
    return load, write_toy(folder / "toy.onnx", alarms=True)


def _unroll_evicting(stream: IntArray, at: IntArray, y: IntArray, streams: int) -> tuple[IntArray, IntArray]:
    """Return the states before and after each event; a stream that paused beyond the time to live starts from zero."""
    states, seen = [0] * streams, [0] * streams
    before_each, after = [], []
    for number, now, value in zip(stream.tolist(), at.tolist(), y.tolist(), strict=True):
        pause = now - seen[number]
        assert pause <= 1 or pause > 1.25 * _TTL_ROUNDS or states[number] == 0, "this pause leaves eviction open"
        before = states[number] if pause <= _TTL_ROUNDS else 0
        states[number] = (MULTIPLIER * before + value) % MODULUS
        seen[number] = now
        before_each.append(before)
        after.append(states[number])
    return np.array(before_each, np.int64), np.array(after, np.int64)


@dataclass(frozen=True)
class _RawEvents:
    """Raw events, ten of each stream in a period in any order, and the forecasts of a toy that steps their sums.

    A stream's first event of a period closes the one before, and has its forecast (`answered`): the `state` after the
    period that began at `closed`.
    """

    stream: IntArray
    ds: IntArray
    y: IntArray
    answered: npt.NDArray[np.bool_]
    closed: IntArray
    state: IntArray

    @classmethod
    def draw(cls, events: int, seed: int) -> _RawEvents:
        rng = np.random.default_rng(seed)
        a_period = _RAW_STREAMS * _RAW_PER_PERIOD
        periods = -(-events // a_period)
        which = np.repeat(np.arange(_RAW_STREAMS), _RAW_PER_PERIOD)
        stream = np.concatenate([rng.permutation(which) for _ in range(periods)])[:events]
        period = np.arange(events) // a_period
        y = rng.integers(1, _MAX_Y, events)
        key = period * _RAW_STREAMS + stream
        sums = np.bincount(key, y, periods * _RAW_STREAMS).astype(np.int64).reshape(periods, _RAW_STREAMS)
        states = np.zeros_like(sums)
        for number in range(periods):
            states[number] = (MULTIPLIER * (states[number - 1] if number else 0) + sums[number]) % MODULUS
        _, first = np.unique(key, return_index=True)
        first = first[period[first] > 0]
        answered = np.zeros(events, np.bool_)
        answered[first] = True
        state, closed = np.zeros(events, np.int64), np.zeros(events, np.int64)
        start_ms = _START_MS // HOUR_MS * HOUR_MS
        state[first] = states[period[first] - 1, stream[first]]
        closed[first] = start_ms + (period[first] - 1) * HOUR_MS
        ds = start_ms + period * HOUR_MS + rng.integers(0, HOUR_MS, events)
        return cls(stream, ds, y, answered, closed, state)


def raw_load(events: int, seed: int, folder: Path) -> tuple[Load, Path]:
    """Return a load of raw events that the service sums, for the toy, and the bundle's file."""
    raw = _RawEvents.draw(events, seed)
    ids = [f"raw-{number}" for number in range(_RAW_STREAMS)]
    load = Load(
        "raw", ids, np.arange(_RAW_STREAMS) % BUSY, raw.stream, raw.ds, raw.y.astype(np.float64), 0.0,
        ToyOracle(ids, raw.stream, raw.closed, raw.state), raw.answered, {"input.aggregate": "sum"},
    )  # fmt: skip
    return load, write_toy(folder / "toy.onnx")


def tables_load(events: int, seed: int, folder: Path) -> tuple[Load, Path]:
    """Return a load for two models in one service, and the first one's file.

    One sums the raw events of the even streams; the other steps each event of the odd ones.
    """
    raw = _RawEvents.draw(events, seed)
    single = raw.stream % 2 == 1
    states, now = raw.state.copy(), [0] * _RAW_STREAMS
    for event in np.flatnonzero(single).tolist():
        stream = int(raw.stream[event])
        now[stream] = (_OTHER_MULTIPLIER * now[stream] + int(raw.y[event])) % MODULUS
        states[event] = now[stream]
    ids = [f"{'one' if number % 2 else 'raw'}-{number}" for number in range(_RAW_STREAMS)]
    sums, ones = write_toy(folder / "toy.onnx"), write_toy(folder / "other.onnx", _OTHER_MULTIPLIER)
    tables = [
        {"name": "sums", "model": str(sums), "match": "raw-*", "aggregate": "sum"},
        {"name": "ones", "model": str(ones)},
    ]
    # Streams of both models are in each partition: those of a pair follow each other.
    load = Load(
        "tables", ids, np.arange(_RAW_STREAMS) // 2 % BUSY, raw.stream, raw.ds, raw.y.astype(np.float64), 0.0,
        ToyOracle(ids, raw.stream, np.where(single, raw.ds, raw.closed), states), raw.answered | single,
        {"models": json.dumps(tables)},
    )  # fmt: skip
    return load, sums
