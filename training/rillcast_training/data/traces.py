"""Traces of the mixture: what a network on top of the experts sees at each event, and what came after.

Owns: the run of the experts over series, and the windows of it that training takes. Does not know: the network, the
loss, files.

The mixture learns from each series alone and never from the network, so one run over the data serves all epochs. A
trace has its targets at the anchors, at which the experts are judged, and at some horizons between them.

Invariants: what a trace shows of an event follows from this event and those before it; an observation at or after a
series' cut is no target of training.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.frequency import parse
from rillcast_training.data.split import SplitSeries
from rillcast_training.data.windows import Batch
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.network import Traces, trained_horizons

_TOGETHER: Final = 512  # series that are run at a time
MOST_EVENTS: Final = 600_000
"""Events that are kept, of all series: about 1 GB."""
LONGEST: Final = 20_000
"""Newest events of a series that the experts run over: a run takes as long as the longest series, event by event."""
_ALL: Final = slice(None)
_F16: Final = np.float16
_F32: Final = np.float32


@dataclass(frozen=True, slots=True)
class Trace:
    """The newest events of a series, as the network sees them.

    Attributes:
        events: Columns of `rillcast_training.model.experts.network.Traces`, `[n, ...]` each.
        target: `[n, T]` observations at the trained horizons; NaN = there is none.
        due: `[n, T]` int64, their periods.
        cut: First period of the validation part.
        scale: Unit of the series' losses.
        weight: Weight of its losses.
    """

    events: tuple[npt.NDArray[np.floating], ...]
    target: npt.NDArray[np.float32]
    due: npt.NDArray[np.int64]
    cut: int
    scale: float
    weight: float

    @property
    def trained(self) -> int:
        """Number of events before the cut."""
        return int(np.searchsorted(self.due[:, 0], self.cut, side="right"))

    def whole(self) -> Trace:
        """Return the trace without a validation part."""
        return replace(self, cut=int(self.due[-1, 0]))


class _Run(NamedTuple):
    periods: npt.NDArray[np.int64]
    y: npt.NDArray[np.float32]
    part: SplitSeries


class Stepped(Protocol):
    """A mixture without a network, event by event; `rillcast_training.export.trace_graph` makes one."""

    def initial_rows(self, streams: int) -> list[AnyArray]:
        """Return the state of streams never seen, an array of each kind, `[streams, ...]`."""
        ...

    def step(self, ds: IntArray, y: AnyArray, rows: Sequence[AnyArray]) -> tuple[list[AnyArray], list[AnyArray]]:
        """Advance each stream by one event; return the columns of `Traces`, `[B, ...]` each, and the next state."""
        ...


def trace(
    series: Sequence[SplitSeries], config: ExpertsConfig, mixture: Stepped, *, quiet: bool, most: int = MOST_EVENTS
) -> list[Trace]:
    """Run the mixture over the series.

    Args:
        series: Series that are split.
        config: Shape of the mixture, without a network.
        mixture: The mixture.
        quiet: Whether to show no progress.
        most: Events to keep, of all series; the newest of each.
    """
    runs = sorted((_run(part) for part in series), key=lambda run: -len(run.periods))
    kept = _kept([len(run.periods) for run in runs], most)
    traces: list[Trace] = []
    groups = [runs[start : start + _TOGETHER] for start in range(0, len(runs), _TOGETHER)]
    with tqdm(
        total=sum(len(group[0].periods) for group in groups), disable=quiet or not sys.stderr.isatty(), desc="experts"
    ) as bar:
        for group in groups:
            traces += _traced(group, config, mixture, kept, bar)
    return traces


def taken(lengths: Sequence[int], most: int = MOST_EVENTS) -> int:
    """Return how many events of series of these lengths are kept."""
    run = [min(length, LONGEST) for length in lengths]
    kept = _kept(run, most)
    return sum(min(length, kept) for length in run)


def _run(part: SplitSeries) -> _Run:
    periods = np.concatenate([segment.periods for segment in part.segments])
    y = np.concatenate([segment.truth[segment.periods - segment.periods[0]] for segment in part.segments])
    return _Run(periods[-LONGEST:], y[-LONGEST:].astype(_F32), part)


def _kept(lengths: Sequence[int], most: int) -> int:
    """Return how many of the newest events of each series are kept, so that all are at most `most`."""
    low, high = 1, max(lengths)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(n, middle) for n in lengths) <= most else (low, middle - 1)
    return low


def _traced(group: Sequence[_Run], config: ExpertsConfig, mixture: Stepped, kept: int, bar: tqdm[Any]) -> list[Trace]:
    start_of = parse(config.freq).start_of
    lengths = np.array([len(run.periods) for run in group])
    rows = mixture.initial_rows(len(group))
    found: list[list[list[AnyArray]]] = [[] for _ in group]
    for event in range(lengths[0]):
        active = int((lengths > event).sum())
        if active < len(rows[0]):
            rows = [part[:active] for part in rows]
        ds = start_of(np.array([run.periods[event] for run in group[:active]]))
        y = np.array([run.y[event] for run in group[:active]], _F32)
        seen, rows = mixture.step(ds, y, rows)
        columns = _columns(seen)
        for number in np.flatnonzero(event >= lengths[:active] - kept):
            found[number].append([column[number] for column in columns])
        bar.update()
    return [_trace(run, events, config) for run, events in zip(group, found, strict=True)]


def _columns(traces: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
    """Return the columns as they are kept: what lies within some widths of zero in half precision."""
    types = (*[_F16] * 6, _F32, _F32)
    limit = float(np.finfo(_F16).max)
    return tuple(
        np.clip(part, -limit, limit).astype(kind) if kind is _F16 else part
        for part, kind in zip(traces, types, strict=True)
    )


def _trace(run: _Run, events: list[list[AnyArray]], config: ExpertsConfig) -> Trace:
    columns = tuple(np.stack(column) for column in zip(*events, strict=True))
    periods = run.periods[-len(events) :]
    due = periods[:, None] + np.array(trained_horizons(config.anchors))
    at = np.searchsorted(run.periods, due)
    there = (at < len(run.periods)) & (run.periods[np.minimum(at, len(run.periods) - 1)] == due)
    target = np.where(there, run.y[np.minimum(at, len(run.periods) - 1)], np.nan).astype(_F32)
    known = np.maximum.accumulate(np.isfinite(run.y))[-len(events) :]
    target[~known] = np.nan
    return Trace(columns, target, due, run.part.cut, run.part.scale, run.part.weight)


class TraceSampler:
    """Draws random windows over all traces, as `rillcast_training.data.windows.WindowSampler` does over series."""

    def __init__(self, traces: Sequence[Trace], *, window: int, origins: int, batch: int) -> None:
        self.window, self.origins, self.batch = window, origins, batch
        self._traces = [one for one in traces if one.trained > 1]
        self.events = sum(one.trained for one in self._traces)

    def epoch(self, seed: int, number: int, batches: int, share: slice = _ALL) -> Iterator[Batch]:
        """Yield the batches of epoch `number`; of each, the rows of `share`."""
        rng = np.random.default_rng((seed, number))
        weights = np.array([one.trained for one in self._traces], dtype=np.float64)
        picks = rng.choice(len(self._traces), size=(batches, self.batch), p=weights / weights.sum())
        for row in picks:
            windows, origins = [], []
            for pick in row:
                one = self._traces[pick]
                length = min(self.window, one.trained)
                windows.append((one, int(rng.integers(0, one.trained - length + 1)), length))
                origins.append(np.sort(rng.integers(0, length, size=self.origins)))
            yield _collate(windows[share], origins[share], until_cut=True)


def validation_of(
    traces: Sequence[Trace], *, window: int, origins: int, batch: int, share: slice = _ALL
) -> Iterator[Batch]:
    """Yield the validation part of every trace, with the events before it as run-up; `origins` of it at most."""
    windows, chosen = [], []
    for one in traces:
        first, end = one.trained - 1, len(one.target)
        scored = np.arange(max(first, 0), end)
        scored = scored[np.isfinite(one.target[scored]).any(axis=1)]
        if not scored.size or one.cut > one.due[-1, 0]:
            continue
        start = max(0, first - window)
        at = scored[np.unique(np.linspace(0, scored.size - 1, min(origins, scored.size)).round().astype(np.int64))]
        windows.append((one, start, end - start))
        chosen.append(np.pad(at - start, (0, origins - len(at)), constant_values=-1))
    for begin in range(0, len(windows), batch)[share]:
        yield _collate(windows[begin : begin + batch], chosen[begin : begin + batch], until_cut=False)


def _collate(
    windows: Sequence[tuple[Trace, int, int]], origins: Sequence[npt.NDArray[np.int64]], *, until_cut: bool
) -> Batch:
    """Stack windows of a trace, a start and a length; an origin of -1 is padding without a target."""
    longest = max(length for *_, length in windows)
    columns = [np.zeros((len(windows), longest, column.shape[1]), _F32) for column in windows[0][0].events]
    target = np.full((len(windows), len(origins[0]), windows[0][0].target.shape[1]), np.nan, _F32)
    for row, ((one, start, length), at) in enumerate(zip(windows, origins, strict=True)):
        for column, values in zip(columns, one.events, strict=True):
            column[row, :length] = values[start : start + length]
        rows = np.maximum(at, 0) + start
        target[row] = one.target[rows]
        if until_cut:
            target[row][one.due[rows] >= one.cut] = np.nan
        target[row][at < 0] = np.nan
    return Batch(
        Traces(*(torch.from_numpy(column) for column in columns)),
        torch.from_numpy(np.stack([np.maximum(at, 0) for at in origins])),
        torch.from_numpy(target),
        torch.tensor([one.scale for one, *_ in windows]),
        torch.tensor([one.weight for one, *_ in windows]),
    )
