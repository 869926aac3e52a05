"""Online calibration: quantile tracking per stream, horizon and level.

Owns: which forecasts of a stream are pending, what their observations teach, and how that corrects the next forecast.
Does not know: how a forecast is made, or what a score is. Everything is elementwise over the batch, runs inside the
exported step, and is a function of the stream's own events in their order.

Method: each quantile of level tau has an offset theta, in units of the causal scale. Each resolved forecast moves it by
one step of online quantile regression (the quantile tracker, the 'P' of Angelopoulos, Candes & Tibshirani 2023,
Conformal PID control for time series prediction):

    (1)  covered_t = 1 if y_t <= q_t + scale * theta_t, else 0        q_t the model's own quantile for period t
    (2)  theta_(t+1) = theta_t + rate * (tau - covered_t)

So the share of covered observations tends to tau for any data, as long as the errors stay bounded. Four choices differ
from the paper's one-step setting:

- *Widths, not positions.* The two ends of a central interval take half the difference of their steps (2). The interval
  widens and narrows around the median, which stays: errors far ahead come in runs to one side, and an offset that
  follows them comes too late (docs/adr/0004-calibration-moves-widths.md).
- *Anchors.* A forecast h periods ahead is resolved h periods later, so it is stored until then. Offsets are kept for at
  most four horizons (1, H/4, H/2, H), linear in between. Of a longer one at most `_MAX_PENDING` forecasts are pending:
  2^k periods share an entry, which holds the newest forecast made in them. Memory is then O(1) in H.
- *Today's offset is judged on an old quantile* in (1), not on the quantile that it corrected. Feedback without a delay
  cannot swing. The offsets do not depend on whether corrections are published, so `calibrate` may be switched at any
  time.
- *The step in (1) is a ramp* of `_RAMP` scales. Two runs that differ by a float32 rounding (another batch size, another
  device) then stay that close. Without the ramp they part where an observation hits the edge of an interval.

Events: a late or repeated one resolves nothing, and stores the same forecasts again. A missing observation resolves
nothing; the forecasts for its period, and for periods without an event, are dropped when their entry is overwritten. A
restart drops all: a forecast counts only if its period of issue lies in the stream's present segment.

Layout: with K anchors and Q levels a tensor is `[B, Q K]` here, all anchors of a level next to each other. ONNX
Runtime's elementwise operators are several times faster on rows of twelve than on rows of three.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.indexed_state import put, take
from rillcast_training.model.operators import ramp

_MAX_PENDING: Final = 8  # entries for the pending forecasts of one horizon
_RATE: Final = 0.03  # scales, for a forecast that is stored in every period
_SAME_LEVEL: Final = 1e-6
_RAMP: Final = 0.1  # scales
_LIMIT: Final = 16.0  # scales; bounds the time that a stream takes to come back to its forecasts
_LEAST_SCALE: Final = 1e-20  # for an empty entry, whose forecasts are unused but must not become NaN
_STAMPS: Final = 1 << 22  # periods until stamps repeat; float32 knows all integers below 2^24


class Tracks(NamedTuple):
    """State of the calibrator, one row per stream; zeros are a stream never seen. E entries, K anchors, Q levels.

    Attributes:
        pending: `[B, E, 2 Q + 2]` pending forecasts by entry: the model's quantiles, the published ones, the scale, and
            the stamp of the period of issue (0 = empty). Bundles name this state `probes`.
        offsets: `[B, Q, K]` theta, in scales.
    """

    pending: Tensor
    offsets: Tensor


class Resolved(NamedTuple):
    """Forecasts that an observation resolves.

    Attributes:
        valid: `[B, K]` bool, whether there was such a forecast. Other values are undefined where there was none.
        published: `[B, Q K]` quantiles as they were published, in the stream's own unit.
    """

    valid: Tensor
    published: Tensor


class Parts(NamedTuple):
    """Quantile forecasts by their distances from the middle one; P horizons.

    Attributes:
        middle: `[B, P]` the middle quantile, in the stream's own unit.
        distances: `[B, (Q - 1) P]` of the other levels, outwards, >= 0, in units of the scale. The horizons of a level
            stand next to each other.
        scale: `[B, 1]` in the stream's own unit.
    """

    middle: Tensor
    distances: Tensor
    scale: Tensor

    def quantiles(self, levels: int, centre: int) -> Tensor:
        """Return `[B, Q P]` quantiles in the stream's own unit, not decreasing along Q.

        Args:
            levels: Q.
            centre: Index of the middle level.
        """
        return self.middle if levels == 1 else torch.cat(self.by_level(levels, centre), dim=-1)

    def by_level(self, levels: int, centre: int) -> list[Tensor]:
        """Return `quantiles` as a tensor `[B, P]` for each level."""
        if levels == 1:
            return [self.middle]
        rows = torch.chunk(self.scale * self.distances, levels - 1, dim=-1)
        below = [self.middle - row for row in rows[:centre]]
        above = [self.middle + row for row in rows[centre:]]
        return [*below, self.middle, *above]


def anchor_horizons(horizon: int) -> tuple[int, ...]:
    """Return the tracked horizons in periods: 1, a quarter, a half and all of H, without repeats."""
    return tuple(sorted({1, max(1, round(horizon / 4)), max(1, round(horizon / 2)), horizon}))


class QuantileTracker(nn.Module):
    """Learns and applies the offsets; see the module's docstring. No parameters."""

    anchors: Tensor
    issued: Tensor
    due: Tensor
    issued_in_row: Tensor
    due_in_row: Tensor
    row_selector: Tensor
    learning: Tensor
    nominal: Tensor
    outwards: Tensor
    outwards_at_anchors: Tensor
    sideways: Tensor
    sideways_at_anchors: Tensor
    at_anchors: Tensor
    distances_at_anchors: Tensor
    quantiles_at_anchors: Tensor

    def __init__(self, horizon: int, levels: tuple[float, ...]) -> None:
        super().__init__()
        self.horizon, self.horizons, self.levels = horizon, anchor_horizons(horizon), levels
        self.num_levels, self.num_anchors = len(levels), len(self.horizons)
        self.width = 2 * self.num_levels + 2
        self.middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))
        # 2^k periods share an entry, so that the entries repeat after few periods.
        strides = [
            1 << max(0, math.ceil(math.log2((h - 1) / (_MAX_PENDING - 1)))) if h > _MAX_PENDING else 1
            for h in self.horizons
        ]
        counts = [h if stride == 1 else _MAX_PENDING for h, stride in zip(self.horizons, strides, strict=True)]
        self.entries: int = sum(counts)
        rates = _RATE * torch.tensor(strides, dtype=torch.float32).sqrt()
        self.largest_rate = float(rates.max())
        mixing = _mixing(levels)
        self.middle_moves = bool(mixing[:, self.middle].any())
        # Maps the steps of (2) before mixing to those after it, for [B, Q K].
        learning = torch.einsum("pq,ka->pkqa", mixing, torch.diag(rates)).reshape(
            -1, self.num_levels * self.num_anchors
        )
        between = _interpolation(self.horizons, horizon)
        anchors = torch.eye(self.num_anchors)
        outwards, sideways = _signs(self.num_levels, self.middle)
        others = torch.arange(self.num_levels - 1).unsqueeze(1) * horizon
        columns = torch.tensor(self.horizons) - 1
        entries = _ring_entries(strides, counts)
        due = torch.stack([entries[:, k].roll(h) for k, h in enumerate(self.horizons)], dim=1)
        self.repeat = len(entries)
        for name, values in {
            "anchors": torch.tensor(self.horizons),
            "issued": entries,
            "due": due,
            "issued_in_row": _with_row_zeros(entries),
            "due_in_row": _with_row_zeros(due),
            "row_selector": torch.tensor([1, 0]).repeat(self.num_anchors),
            "learning": -learning,
            "nominal": torch.tensor(levels).repeat_interleave(self.num_anchors) @ learning,
            "outwards": torch.kron(outwards, between),
            "outwards_at_anchors": torch.kron(outwards, anchors),
            "sideways": torch.kron(sideways, between),
            "sideways_at_anchors": torch.kron(sideways, anchors),
            "at_anchors": columns,
            "distances_at_anchors": (others + columns).reshape(-1),
            "quantiles_at_anchors": (torch.arange(self.num_levels).unsqueeze(1) * horizon + columns).reshape(-1),
        }.items():
            self.register_buffer(name, values.contiguous(), persistent=False)

    @property
    def sensitivity(self) -> float:
        """Most that an offset moves for an observation that is one scale further away."""
        return self.largest_rate / _RAMP

    def resolve(
        self,
        tracks: Tracks,
        y: Tensor,
        period: Tensor,
        known: Tensor,
        observed: Tensor,
        restarts: Tensor | None = None,
        row: Tensor | None = None,
    ) -> tuple[Resolved, Tracks]:
        """Learn from the forecasts for this period.

        Args:
            tracks: State before the event.
            y: `[B]` observations.
            period: `[B]` int64, the newest period, this event's included.
            known: `[B]` int64, periods known since the segment began, this one included.
            observed: `[B]` bool, whether the event advances its stream with an observation.
            restarts: `[B]` bool, whether the event begins a segment, which resets the offsets.
            row: `[B]` int64, row of `tracks.pending` of each event; None = the order of the events.
        """
        due = self.columns(take(tracks.pending, self._indices(self.due_in_row, row, period)), self.width)
        each = self.num_levels * self.num_anchors
        own, published, scale, stamp = torch.split(due, [each, each, self.num_anchors, self.num_anchors], dim=1)
        valid = self.are_valid(stamp, period, torch.where(observed, known, 0))
        offsets = tracks.offsets.reshape(-1, each)
        if restarts is not None:
            offsets = torch.where(restarts.unsqueeze(1), 0.0, offsets)
        offsets = self.learn(offsets, self.errors(own, scale, y), self.for_each_level(valid))
        return Resolved(valid, published), tracks._replace(
            offsets=offsets.reshape(-1, self.num_levels, self.num_anchors)
        )

    def are_valid(self, stamp: Tensor, period: Tensor, reach: Tensor) -> Tensor:
        """Return `[B, K]` bool, whether an entry holds the forecast for this period, made in this segment.

        Args:
            stamp: `[B, K]` stamps of the entries.
            period: `[B]` int64.
            reach: `[B]` int64, periods known since the segment began; 0 where no forecast is to be resolved.
        """
        return (self._stamp(period) - stamp == self.anchors.to(torch.float32)) & (self.anchors < reach.unsqueeze(1))

    def errors(self, own: Tensor, scale: Tensor, y: Tensor) -> Tensor:
        """Return `[B, Q K]`, by how many of their scales the model's quantiles lay above the observations.

        Args:
            own: `[B, Q K]` in the stream's own unit.
            scale: `[B, K]` in the stream's own unit.
            y: `[B]` in the stream's own unit.
        """
        apart = (own - y.unsqueeze(1)).reshape(-1, self.num_levels, self.num_anchors)
        return (apart / scale.clamp(min=_LEAST_SCALE).unsqueeze(1)).reshape(-1, self.num_levels * self.num_anchors)

    def learn(self, offsets: Tensor, errors: Tensor, valid: Tensor) -> Tensor:
        """Return the offsets after an event. Only this part depends on the event before.

        Args:
            offsets: `[B, Q K]` before the event.
            errors: `[B, Q K]`, see `errors`.
            valid: `[B, Q K]` bool, which forecasts there were.
        """
        covered = ramp(errors + offsets, 1 / _RAMP)  # (1)
        moved = (offsets + torch.addmm(self.nominal, covered, self.learning)).clamp(-_LIMIT, _LIMIT)  # (2)
        return torch.where(valid, moved, offsets)

    def correct(self, own: Parts, offsets: Tensor, *, at_anchors: bool = False) -> Parts:
        """Move quantiles by the offsets. A quantile that would pass its neighbour, on the way outwards, equals it.

        Args:
            own: The model's quantiles.
            offsets: `[B, Q, K]`, in scales.
            at_anchors: Whether `own` holds the anchors alone, not all horizons.
        """
        theta = offsets.reshape(-1, self.num_levels * self.num_anchors)
        distances = own.distances
        if self.num_levels > 1:
            moved = distances + torch.matmul(theta, self.outwards_at_anchors if at_anchors else self.outwards)
            distances = self._in_order(moved.clamp(min=0))
        middle = own.middle
        if self.middle_moves:
            shift = torch.matmul(theta, self.sideways_at_anchors if at_anchors else self.sideways)
            middle = middle + own.scale * shift
        return Parts(middle, distances, own.scale)

    def parts_at_anchors(self, parts: Parts) -> Parts:
        """Return the forecasts of the tracked horizons alone."""
        return Parts(parts.middle[:, self.at_anchors], parts.distances[:, self.distances_at_anchors], parts.scale)

    def quantiles(self, parts: Parts) -> Tensor:
        """Return `[B, Q P]` quantiles in the stream's own unit, not decreasing along Q."""
        return parts.quantiles(self.num_levels, self.middle)

    def by_horizon(self, quantiles: Tensor) -> Tensor:
        """Return quantiles of all horizons, `[B, Q H]`, as `[B, H, Q]`."""
        return quantiles.reshape(-1, self.num_levels, self.horizon).transpose(1, 2)

    def remember(
        self, tracks: Tracks, own: Parts, published: Tensor, period: Tensor, row: Tensor | None = None
    ) -> Tracks:
        """Store a new forecast until it is resolved.

        Args:
            tracks: State before.
            own: The model's forecasts at the anchors.
            published: `[B, Q K]` the corrected quantiles at the anchors, in the stream's own unit.
            period: `[B]` int64, the newest period.
            row: As in `resolve`.
        """
        new = self.records(*own.by_level(self.num_levels, self.middle), published, self.labels(own.scale, period))
        new = new.reshape(-1, self.num_anchors, self.width)
        return tracks._replace(pending=put(tracks.pending, self._indices(self.issued_in_row, row, period), new))

    def labels(self, scale: Tensor, period: Tensor) -> Tensor:
        """Return the last two columns of an entry, `[B, 2 K]`: scale and stamp, the same at all anchors.

        Args:
            scale: `[B, 1]` in the stream's own unit.
            period: `[B]` int64, the period of issue.
        """
        return torch.cat([scale] * self.num_anchors + [self._stamp(period)] * self.num_anchors, dim=1)

    def rows(self, pending: Tensor) -> Tensor:
        """Return `[B * E, 2 Q + 2]`, a row per entry."""
        return pending.reshape(-1, self.width)

    def records(self, *columns: Tensor) -> Tensor:
        """Return columns, `[B, c K]` each, joined as a row per anchor, `[B * K, width]`."""
        flat = torch.cat(columns, dim=1)
        width = flat.shape[1] // self.num_anchors
        return flat.reshape(-1, width, self.num_anchors).transpose(1, 2).reshape(-1, width)

    def columns(self, rows: Tensor, width: int) -> Tensor:
        """Undo `records`: `[B * K, width]` to `[B, width * K]`."""
        return rows.reshape(-1, self.num_anchors, width).transpose(1, 2).reshape(-1, width * self.num_anchors)

    def for_each_level(self, values: Tensor) -> Tensor:
        """Repeat `[B, K]` for all levels, `[B, Q K]`."""
        return torch.cat([values] * self.num_levels, dim=1)

    def _in_order(self, distances: Tensor) -> Tensor:
        """Keep each level at least as far from the middle as the level before it; `distances` is `[B, (Q - 1) P]`."""
        if self.middle <= 1 and self.num_levels - self.middle <= 2:  # one level on either side
            return distances
        rows = list(torch.chunk(distances, self.num_levels - 1, dim=1))
        for q in reversed(range(self.middle - 1)):
            rows[q] = torch.maximum(rows[q], rows[q + 1])
        for q in range(self.middle + 1, self.num_levels - 1):
            rows[q] = torch.maximum(rows[q], rows[q - 1])
        return torch.cat(rows, dim=1)

    def _stamp(self, period: Tensor) -> Tensor:
        """Return `[B, 1]` float32: the period modulo `_STAMPS`, moved so far from 0 that no empty entry is ever due.

        Where the stamps wrap, once in `_STAMPS` periods, a pending forecast counts as lost.
        """
        return (torch.remainder(period, _STAMPS) + (self.horizon + 1)).to(torch.float32).unsqueeze(1)

    def _indices(self, in_row: Tensor, row: Tensor | None, period: Tensor) -> Tensor:
        """Return `[B, K, 2]` int64, row and entry by period modulo R; `in_row` `[R, 2 K]` has a zero for each row."""
        if row is None:
            row = torch.arange(len(period), device=period.device)
        flat = in_row[torch.remainder(period, self.repeat)] + row.unsqueeze(1) * self.row_selector
        return flat.reshape(-1, self.num_anchors, 2)


def _with_row_zeros(entries: Tensor) -> Tensor:
    """Return `[R, 2 K]`, a zero before each entry of `[R, K]`."""
    return torch.stack([torch.zeros_like(entries), entries], dim=2).flatten(1)


def _ring_entries(strides: list[int], counts: list[int]) -> Tensor:
    """Return `[R, K]` int64: the entry of a forecast by its period of issue modulo R, each anchor in its own ring."""
    repeat = math.lcm(*(stride * count for stride, count in zip(strides, counts, strict=True)))
    periods = torch.arange(repeat).unsqueeze(1)
    starts = torch.tensor([sum(counts[:k]) for k in range(len(counts))])
    return starts + torch.div(periods, torch.tensor(strides), rounding_mode="floor") % torch.tensor(counts)


def _signs(levels: int, middle: int) -> tuple[Tensor, Tensor]:
    """Return `[Q, Q - 1]` and `[Q, 1]`, the effect of the levels' offsets on distances and on the middle level."""
    outwards, sideways = torch.zeros(levels, levels - 1), torch.zeros(levels, 1)
    sideways[middle] = 1.0
    for column, q in enumerate(q for q in range(levels) if q != middle):
        sign = 1.0 if q > middle else -1.0
        outwards[q, column], outwards[middle, column] = sign, -sign
    return outwards, sideways


def _mixing(levels: tuple[float, ...]) -> Tensor:
    """Return `[Q, Q]`: the steps of all levels times this are the steps that are taken.

    The two ends of a central interval move apart or together by half the difference of their steps. The median stays. A
    level without a counterpart takes its own step.
    """
    matrix = torch.eye(len(levels))
    for i, level in enumerate(levels):
        for j, other in enumerate(levels):
            if abs(level + other - 1) < _SAME_LEVEL:
                matrix[i, i] = 0.5 if i != j else 0.0
                matrix[j, i] = -0.5 if i != j else 0.0
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
