"""Streams as they really arrive: shuffled, repeated, with holes and garbage; and the forecasts that have to come out.

Owns: the disorder, which is drawn from a seed, and the comparison with the streams in order. Does not know: transports,
formats. An arrival is an observation or garbage bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from rillcast.bundle.bundle import Bundle
from rillcast.codecs.forecasts.reader import Forecast
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast.events import EventBatch

Key: TypeAlias = tuple[str, int]  # stream, milliseconds
_EVENTS_AT_ONCE = 2_000


class Event(NamedTuple):
    """One observation."""

    unique_id: str
    ds: int
    y: float


@dataclass(frozen=True)
class Arrivals:
    """Arrivals, and the observations among them that count.

    Attributes:
        given: Observations and garbage in the order in which they arrive.
        kept: Each stream's observations in the order of time, each once.
    """

    given: list[Event | bytes]
    kept: dict[str, list[Event]]

    @property
    def events(self) -> int:
        """Observations that arrive, repeats included."""
        return sum(isinstance(one, Event) for one in self.given)


def disordered(
    streams: Mapping[str, Sequence[Event]],
    garbage: Sequence[bytes],
    *,
    step_ms: int,
    within: int = 6,
    repeated: float = 0.02,
    dropped: float = 0.05,
    spoilt: float = 0.01,
    seed: int = 0,
) -> Arrivals:
    """Shuffle streams so that an event comes after others that are less than `within` slots younger, at most.

    Args:
        streams: events in the order of time.
        garbage: records that are none, to be drawn from.
        step_ms: length of a slot.
        within: how far events move.
        repeated: share of the events that come a second time.
        dropped: share of the events that never come.
        spoilt: garbage, as a share of the events.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    kept: dict[str, list[Event]] = {}
    drawn: list[tuple[float, Event | bytes]] = []
    for unique_id, events in streams.items():
        stays = rng.random(len(events)) >= dropped
        kept[unique_id] = [event for event, stay in zip(events, stays.tolist(), strict=True) if stay]
        for event in kept[unique_id]:
            times = 2 if rng.random() < repeated else 1
            drawn += [(event.ds / step_ms + within * rng.random(), event) for _ in range(times)]
    first, last = min(key for key, _ in drawn), max(key for key, _ in drawn)
    for _ in range(round(spoilt * len(drawn))):
        drawn.append((rng.uniform(first, last), garbage[int(rng.integers(len(garbage)))]))
    drawn.sort(key=lambda pair: pair[0])
    return Arrivals([one for _, one in drawn], kept)


def in_order(bundle: Bundle, kept: Mapping[str, Sequence[Event]]) -> dict[Key, tuple[npt.NDArray[np.float32], int]]:
    """Return forecast and status of each event of the streams, in the order of time, which is all the engine knows."""
    engine = StepEngine(bundle, Device("cpu"))
    events = sorted((event for stream in kept.values() for event in stream), key=lambda event: event.ds)
    seen: dict[Key, tuple[npt.NDArray[np.float32], int]] = {}
    for first in range(0, len(events), _EVENTS_AT_ONCE):
        part = events[first : first + _EVENTS_AT_ONCE]
        ids, ds = [event.unique_id for event in part], np.array([event.ds for event in part], np.int64)
        y = np.array([event.y for event in part], np.float32)
        result = engine.step(EventBatch.of(ids, ds, y, first_offset=first))
        for row, event in enumerate(part):
            seen[event.unique_id, event.ds] = result.forecast[row], int(result.status[row])
    return seen


def last_revisions(forecasts: Iterable[Forecast]) -> dict[Key, Forecast]:
    """Return of each stream and time the forecast with the highest revision; none may be missing in between."""
    by_key: dict[Key, dict[int, Forecast]] = {}
    for forecast in forecasts:
        revisions = by_key.setdefault((forecast.unique_id, forecast.ds), {})
        assert forecast.revision not in revisions, f"revision {forecast.revision} of {forecast.unique_id} twice"
        revisions[forecast.revision] = forecast
    for key, revisions in by_key.items():
        assert sorted(revisions) == list(range(len(revisions))), f"{key}: revisions {sorted(revisions)}"
    return {key: revisions[max(revisions)] for key, revisions in by_key.items()}


def worst_error(
    seen: Mapping[Key, Forecast],
    expected: Mapping[Key, tuple[npt.NDArray[np.float32], int]],
    kept: Mapping[str, Sequence[Event]],
) -> float:
    """Return the largest difference, relative to the value, or to the stream's spread where that is larger."""
    spread = {unique_id: float(np.std([event.y for event in events])) for unique_id, events in kept.items()}
    return max(
        float(np.max(np.abs(seen[key].values - forecast) / np.maximum(np.abs(forecast), max(spread[key[0]], 1e-6))))
        for key, (forecast, _) in expected.items()
    )
