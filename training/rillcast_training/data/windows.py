"""Training windows: runs of events within segments, batched for `Forecaster.forward`.

Owns: which part of which series a training batch shows, and the future that it is scored on. Does not know: where a
series is cut (`rillcast_training.data.split`), the model or the loss.

Invariants: an observation at or after a series' cut is never a training target nor a training input. The windows of an
epoch are a function of the seed and the epoch's number alone, so an interrupted run resumes exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rillcast.bundle.covariates import ahead
from rillcast_training.data.series import Segment
from rillcast_training.data.split import SplitSeries
from rillcast_training.model.forecaster import ForecasterConfig, Sequences

_FORGOTTEN_SHARE: Final = 0.05  # share of each covariate's windows in training
_FRESH_SHARE: Final = 0.15  # share of windows that start as an unknown stream
_ALL: Final = slice(None)


class Batch(NamedTuple):
    """Input of one training step.

    Attributes:
        sequences: Events, in the form that the module takes.
        origins: `[S, K]` int64, events to forecast from.
        target: `[S, K, H]` float32, observations after them; NaN = no loss.
        scale: `[S]` float32, scales of the series.
        weight: `[S]` float32, weights of their losses.
    """

    sequences: Any
    origins: Tensor
    target: Tensor
    scale: Tensor
    weight: Tensor


class WindowSampler:
    """Draws random training windows over all series."""

    def __init__(
        self, series: Sequence[SplitSeries], config: ForecasterConfig, *, window: int, origins: int, batch: int
    ) -> None:
        self.config, self.window, self.origins, self.batch = config, window, origins, batch
        self._candidates: list[tuple[SplitSeries, Segment, int]] = []
        for one in series:
            for segment in one.segments:
                events = int(np.searchsorted(segment.periods, one.cut))
                if events > 1:
                    self._candidates.append((one, segment, events))
        self.events = sum(events for *_, events in self._candidates)

    def epoch(self, seed: int, number: int, batches: int, share: slice = _ALL) -> Iterator[Batch]:
        """Yield the batches of epoch `number`. Windows start anywhere; longer series appear in proportion.

        Of each batch only the rows of `share` are made. They are the same whatever the share.
        """
        rng = np.random.default_rng((seed, number))
        weights = np.array([events for *_, events in self._candidates], dtype=np.float64)
        picks = rng.choice(len(self._candidates), size=(batches, self.batch), p=weights / weights.sum())
        for row in picks:
            windows = []
            for pick in row:
                one, segment, events = self._candidates[pick]
                length = min(self.window, events)
                start = int(rng.integers(0, events - length + 1))
                fresh = bool(rng.random() < _FRESH_SHARE)
                windows.append(Window(segment, start, length, one.cut, one.scale, fresh, one.weight))
            origins = [self._origins(rng, w) for w in windows]
            batch = collate(windows[share], self.config, origins[share])
            yield batch._replace(sequences=forget_some(batch.sequences, rng, self.batch, share))

    def _origins(self, rng: np.random.Generator, window: Window) -> npt.NDArray[np.int64]:
        return np.sort(rng.integers(0, window.length, size=self.origins))


def validation_batches(
    series: Sequence[SplitSeries],
    config: ForecasterConfig,
    *,
    window: int,
    origins: int,
    batch: int,
    share: slice = _ALL,
) -> Iterator[Batch]:
    """Yield, for every series that was split, its validation part with the events before it as run-up.

    At most `origins` origins per segment, evenly spread over those with an observation to score, from the last event
    before the cut on. Only the batches of `share` are made.
    """
    windows, chosen = [], []
    for one in series:
        for segment in one.segments:
            end = len(segment.periods)
            first = int(np.searchsorted(segment.periods, one.cut)) - 1
            if end - 1 <= first or end < 2:
                continue
            first = max(first, 0)
            start = max(0, first - window)
            shown = Window(segment, start, end - start, None, one.scale, fresh=False)
            scored = np.arange(first, end - 1) - start
            scored = scored[~np.isnan(_targets(shown, scored, config.horizon)).all(1)]
            if not scored.size:
                continue
            spread = np.linspace(first, first + scored.size - 1, min(origins, scored.size)).round().astype(np.int64)
            at = scored[np.unique(spread) - first]
            windows.append(shown)
            chosen.append(np.pad(at, (0, origins - len(at)), constant_values=-1))
    for begin in range(0, len(windows), batch)[share]:
        yield collate(windows[begin : begin + batch], config, chosen[begin : begin + batch])


class Window(NamedTuple):
    """A run of events within a segment.

    Attributes:
        segment: The segment.
        start: Index of its first event.
        length: Number of events.
        cut: First period that is not shown as a target; None = all are.
        scale: Scale of the series.
        fresh: Whether nothing counts as known before the first event.
        weight: Weight of its losses.
    """

    segment: Segment
    start: int
    length: int
    cut: int | None
    scale: float
    fresh: bool
    weight: float = 1.0


def collate(windows: Sequence[Window], config: ForecasterConfig, origins: Sequence[npt.NDArray[np.int64]]) -> Batch:
    """Stack windows into tensors; an origin of -1 is padding without a target."""
    context_length, horizon = config.context, config.horizon
    length = max(window.length for window in windows)
    periods_spanned = [int(w.segment.periods[w.start + w.length - 1] - w.segment.periods[w.start]) + 1 for w in windows]
    grid = np.zeros((len(windows), context_length - 1 + max(periods_spanned)), dtype=np.float32)
    columns = {name: np.zeros((len(windows), length), np.int64) for name in ("offset", "period", "gap", "known")}
    observed = np.zeros((len(windows), length), dtype=bool)
    target = np.full((len(windows), len(origins[0]), horizon), np.nan, dtype=np.float32)
    for row, (window, span, at) in enumerate(zip(windows, periods_spanned, origins, strict=True)):
        segment, events = window.segment, slice(window.start, window.start + window.length)
        period, before = segment.periods[events], int(segment.periods[window.start] - segment.periods[0])
        past = segment.grid[max(0, before - context_length + 1) : before + span]
        lead = context_length - 1 + span - len(past)
        grid[row, lead : lead + len(past)] = past
        previous = segment.periods[window.start - 1] if window.start and not window.fresh else period[0]
        known = segment.known[events]
        if window.fresh:
            known = np.minimum(known, period - period[0] + 1)
        for name, values in {
            "offset": period - period[0],
            "period": period,
            "gap": np.diff(period, prepend=previous),
            "known": known,
        }.items():
            columns[name][row, : len(period)] = values
            columns[name][row, len(period) :] = values[-1]
        observed[row, : len(period)] = segment.observed[events]
        observed[row, len(period) :] = segment.observed[events][-1]
        target[row] = _targets(window, at, horizon)
    tensors = {name: torch.from_numpy(values) for name, values in columns.items()}
    return Batch(
        Sequences(
            grid=torch.from_numpy(grid),
            observed=torch.from_numpy(observed),
            **tensors,
            **_covariates(windows, config, length),
        ),
        torch.from_numpy(np.stack([np.maximum(at, 0) for at in origins])),
        torch.from_numpy(target),
        torch.tensor([window.scale for window in windows]),
        torch.tensor([window.weight for window in windows]),
    )


def _covariates(windows: Sequence[Window], config: ForecasterConfig, length: int) -> dict[str, Tensor]:
    """Return `x` and `future` of `Sequences`, if the forecaster takes them; padding is missing."""
    declared, known = len(config.covariates), len(ahead(config.covariates))
    if not declared:
        return {}
    x = np.full((len(windows), length, declared), np.nan, np.float32)
    future = np.full((len(windows), length, known, config.horizon), np.nan, np.float32)
    for row, window in enumerate(windows):
        events = slice(window.start, window.start + window.length)
        given = window.segment.covariates
        assert given is not None  # the series were loaded with the forecaster's covariates
        x[row, : window.length] = given.x[events]
        if known:
            future[row, : window.length] = given.future(events, config.horizon)
    return {"x": torch.from_numpy(x)} | ({"future": torch.from_numpy(future)} if known else {})


def forget_some(sequences: Sequences, rng: np.random.Generator, rows: int, share: slice) -> Sequences:
    """Make some covariates of some windows missing, so that the network learns to do without them.

    A missing category is an unknown one: this also trains the bucket of those that were never seen. The windows are the
    `share` of a batch of `rows`.
    """
    changed: dict[str, Tensor] = {}
    for name in ("x", "future"):
        values: Tensor | None = getattr(sequences, name)
        if values is not None:
            forgotten = torch.from_numpy(rng.random((rows, 1, values.shape[2])) < _FORGOTTEN_SHARE)[share]
            changed[name] = values.masked_fill(forgotten.reshape(*forgotten.shape, *[1] * (values.dim() - 3)), math.nan)
    return sequences._replace(**changed)


def _targets(window: Window, origins: npt.NDArray[np.int64], horizon: int) -> npt.NDArray[np.float32]:
    """Return `[K, H]` observations after the origins: none before the first observation, none from the cut on."""
    segment = window.segment
    limit = len(segment.truth) if window.cut is None else min(len(segment.truth), int(window.cut - segment.periods[0]))
    at = np.maximum(origins, 0) + window.start
    future = (segment.periods[at] - segment.periods[0])[:, None] + np.arange(1, horizon + 1)
    values = np.where(future < limit, segment.truth[np.minimum(future, len(segment.truth) - 1)], np.float32(np.nan))
    values[(origins < 0) | (segment.known[at] == 0)] = np.nan
    return values.astype(np.float32)
