"""Online calibration: quantile tracking per stream, horizon and level.

Owns: which earlier forecasts a stream remembers until they are settled, what it learns from them, and how that
corrects the next forecast. Does not know: how a forecast is made, or what a score is. Everything is elementwise over
the batch, runs inside the exported step, and is a function of the stream's own events in their order.

Method: each quantile of level tau gets an offset theta, in units of the causal scale, that takes one step of online
quantile regression per settled forecast (the quantile tracker, the 'P' of Angelopoulos, Candes & Tibshirani 2023,
Conformal PID control for time series prediction):

    (1)  covered_t = 1 if y_t <= q_t + scale * theta_t, else 0        q_t the model's own quantile for slot t
    (2)  theta_(t+1) = theta_t + rate * (tau - covered_t)

so the share of covered observations tends to tau whatever the data do, as long as the errors stay bounded. Four
choices differ from the paper's one-step setting:

- *Widths, not places.* The two ends of a central interval take half the difference of their steps (2), so the interval
  widens and narrows around the median, which stays: errors far ahead come in runs to one side, and an offset that
  follows them comes too late (docs/adr/0004-calibration-moves-widths.md).
- *Anchors.* A forecast h slots ahead is settled h slots later, so it has to be remembered. Offsets are kept for at most
  four horizons (1, H/4, H/2, H), linear in between; a longer one is remembered at every few slots only, at most
  `_PROBES` at once. Memory is then O(1) in H.
- *Today's offset is judged on an old quantile* in (1), not the offset that was issued with it. Feedback without a delay
  cannot swing, and what is learnt does not depend on whether corrections are published (`calibrate` may be switched at
  any time, and finds the offsets ready).
- *The step in (1) is a ramp* of `_RAMP` scales. Two runs that differ by a float32 rounding (another batch size, another
  device) then stay that close, instead of parting where an observation hits the edge of an interval.

Events: a late or repeated one settles and remembers nothing. A missing observation settles nothing; the forecasts for
its slot, and those for slots that never came, are dropped when their place is taken. A restart drops all.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

_PROBES: Final = 8  # forecasts of one horizon that wait at once
_RATE: Final = 0.03  # of a scale, for a forecast that is remembered at every slot
_SHIFT: Final = 0.0  # share of the steps that moves a whole interval rather than its width
_SAME_LEVEL: Final = 1e-6
_RAMP: Final = 0.1  # of a scale
_LIMIT: Final = 16.0  # scales; a stream that leaves its forecasts for good must not take as long to come back


class Tracks(NamedTuple):
    """State of the calibrator, one row per stream; zeros are a stream never seen. E places, K anchors, Q levels.

    Attributes:
        issued: `[B, E]` int64, when each place was filled, in slots known by then; 0 = empty.
        probes: `[B, E, 2 Q + 1]` what was forecast then: the model's quantiles, the published ones, the scale.
        offsets: `[B, K, Q]` theta, in scales.
    """

    issued: Tensor
    probes: Tensor
    offsets: Tensor


class Settled(NamedTuple):
    """Forecasts that an observation settles.

    Attributes:
        there: `[B, K]` bool, whether there is one; the rest means nothing where there is none.
        published: `[B, K, Q]` quantiles as they were published, in the stream's own unit.
    """

    there: Tensor
    published: Tensor


def anchor_horizons(horizon: int) -> tuple[int, ...]:
    """Return the horizons that are tracked, in slots: 1, a quarter, a half and all of H, without repeats."""
    return tuple(sorted({1, max(1, round(horizon / 4)), max(1, round(horizon / 2)), horizon}))


class QuantileTracker(nn.Module):
    """Learns and applies the offsets; see the module's docstring. No parameters."""

    anchors: Tensor
    strides: Tensor
    counts: Tensor
    starts: Tensor
    rates: Tensor
    levels: Tensor
    mixing: Tensor
    interpolation: Tensor
    at_anchors: Tensor

    def __init__(self, horizon: int, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.horizons = anchor_horizons(horizon)
        strides = [math.ceil(h / _PROBES) for h in self.horizons]
        counts = [math.ceil(h / stride) for h, stride in zip(self.horizons, strides, strict=True)]
        self.places = sum(counts)
        self.width = 2 * len(levels) + 1
        self.num_levels = len(levels)
        self.middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))
        for name, values in {
            "anchors": torch.tensor(self.horizons),
            "strides": torch.tensor(strides),
            "counts": torch.tensor(counts),
            "starts": torch.tensor([sum(counts[:k]) for k in range(len(counts))]),
            "rates": _RATE * torch.tensor(strides, dtype=torch.float32).sqrt().unsqueeze(1),
            "levels": torch.tensor(levels),
            "mixing": _mixing(levels),
            "interpolation": _interpolation(self.horizons, horizon),
            "at_anchors": torch.eye(len(self.horizons)),
        }.items():
            self.register_buffer(name, values, persistent=False)

    @property
    def sensitivity(self) -> float:
        """How far an offset moves, at most, for an observation that is one scale further away."""
        return float(self.rates.max()) / _RAMP

    def clear(self, tracks: Tracks, restarts: Tensor) -> Tracks:
        """Forget everything of the streams that start anew, `restarts` `[B]` bool."""
        return Tracks(
            torch.where(restarts.unsqueeze(1), 0, tracks.issued),
            tracks.probes,  # unreachable without their entry in `issued`
            torch.where(restarts[:, None, None], 0.0, tracks.offsets),
        )

    def settle(self, tracks: Tracks, y: Tensor, known: Tensor, observed: Tensor) -> tuple[Settled, Tracks]:
        """Learn from the forecasts for this slot.

        Args:
            tracks: the state before the event.
            y: `[B]` observations.
            known: `[B]` int64, slots known, this one included.
            observed: `[B]` bool, whether the event advances its stream with an observation.
        """
        due = known.unsqueeze(1) - self.anchors
        place = self._place(due)
        there = (tracks.issued.gather(1, place) == due) & (due > 0) & observed.unsqueeze(1)
        probes = self._rows(tracks.probes)[self._row_numbers(place)].reshape(-1, len(self.horizons), self.width)
        own, published, scale = torch.split(probes, [self.num_levels, self.num_levels, 1], dim=2)
        above = (own + scale * tracks.offsets - y[:, None, None]) / scale
        covered = (0.5 + above * (1 / _RAMP)).clamp(0, 1)
        step = torch.matmul(self.levels - covered, self.mixing)
        moved = (tracks.offsets + self.rates * step).clamp(-_LIMIT, _LIMIT)
        offsets = torch.where(there.unsqueeze(2), moved, tracks.offsets)
        return Settled(there, published), tracks._replace(offsets=offsets)

    def correct(self, spread: Tensor, offsets: Tensor, interpolation: Tensor | None = None) -> Tensor:
        """Move quantiles by the offsets; none passes its neighbour, which it then equals, on the way outwards.

        Args:
            spread: `[B, Q, H]` distances from the middle quantile, in scales, not decreasing along Q.
            offsets: `[B, K, Q]`, in scales.
            interpolation: `[K, H]` of the spread's horizons; None = all of them, `at_anchors` = the anchors alone.

        Returns:
            `[B, Q, H]`, not decreasing along Q.
        """
        moved = spread + torch.matmul(
            offsets.transpose(1, 2), self.interpolation if interpolation is None else interpolation
        )
        rows = list(moved.unbind(1))
        for q in range(self.middle + 1, self.num_levels):
            rows[q] = torch.maximum(rows[q], rows[q - 1])
        for q in reversed(range(self.middle)):
            rows[q] = torch.minimum(rows[q], rows[q + 1])
        return torch.stack(rows, dim=1)

    def remember(
        self, tracks: Tracks, own: Tensor, published: Tensor, scale: Tensor, known: Tensor, advances: Tensor
    ) -> Tracks:
        """Keep a new forecast until it is settled, for the anchors whose turn it is.

        Args:
            tracks: the state.
            own: `[B, K, Q]` the model's quantiles at the anchors, in the stream's own unit.
            published: `[B, K, Q]` the corrected ones.
            scale: `[B, 1]`.
            known: `[B]` int64, slots known.
            advances: `[B]` bool, whether the event moves its stream.
        """
        issued = known.unsqueeze(1).expand(-1, len(self.horizons))
        turn = (issued % self.strides == 0) & (issued > 0) & advances.unsqueeze(1)
        place = self._place(issued)
        rows, numbers = self._rows(tracks.probes), self._row_numbers(place)
        scales = scale.unsqueeze(2).expand(-1, len(self.horizons), -1)
        new = torch.cat([own, published, scales], dim=2).reshape(-1, self.width)
        kept = torch.where(turn.reshape(-1, 1), new, rows[numbers])
        return Tracks(
            tracks.issued.scatter(1, place, torch.where(turn, issued, tracks.issued.gather(1, place))),
            rows.index_put((numbers,), kept).reshape(-1, self.places, self.width),
            tracks.offsets,
        )

    def _place(self, issued: Tensor) -> Tensor:
        """Return `[B, K]`, where forecasts issued at `issued` (slots known) are kept, each anchor in its own ring."""
        turn = torch.div(issued.clamp(min=0), self.strides, rounding_mode="trunc")
        return self.starts + turn % self.counts

    def _rows(self, probes: Tensor) -> Tensor:
        """Return `[B * E, 2 Q + 1]`: whole rows are what ONNX Runtime gathers and scatters fast."""
        return probes.reshape(-1, self.width)

    def _row_numbers(self, place: Tensor) -> Tensor:
        """Return `[B * K]`, rows of `_rows` at `place` `[B, K]`."""
        streams = torch.arange(place.shape[0]).unsqueeze(1)
        return (streams * self.places + place).reshape(-1)


def _mixing(levels: tuple[float, ...]) -> Tensor:
    """Return `[Q, Q]`: the steps of all levels times this are the steps that are taken.

    The two ends of a central interval move apart or together by half the difference of their steps, and side by side by
    `_SHIFT` times half the sum. A level without a counterpart goes its own way.
    """
    matrix = torch.eye(len(levels))
    for i, level in enumerate(levels):
        for j, other in enumerate(levels):
            if abs(level + other - 1) < _SAME_LEVEL:
                matrix[i, i] = (1 + _SHIFT) / 2 if i != j else _SHIFT
                matrix[j, i] = (_SHIFT - 1) / 2 if i != j else _SHIFT
    return matrix


def _interpolation(anchors: tuple[int, ...], horizon: int) -> Tensor:
    """Return `[K, H]`: offsets at the anchors times this are those of every horizon."""
    matrix = torch.zeros(len(anchors), horizon)
    for h in range(1, horizon + 1):
        right = next(k for k, anchor in enumerate(anchors) if anchor >= h)
        if anchors[right] == h:
            matrix[right, h - 1] = 1.0
            continue
        share = (h - anchors[right - 1]) / (anchors[right] - anchors[right - 1])
        matrix[right - 1, h - 1], matrix[right, h - 1] = 1 - share, share
    return matrix
