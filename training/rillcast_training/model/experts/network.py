"""The network on top of the mixture: what many streams have in common, where an expert knows its own stream alone.

Owns: what the network sees, its weights, and the correction that it says. Does not know: how experts, weights and
widths are learnt; a stream's state.

At each anchor the network sees the mixture from inside, without a unit: how far each expert is from the mixture, in
widths of the forecast; what was missed lately; how the widths relate to each other. It says a correction of the middle,
in widths, and a factor of the width. Part of the correction is a sum over the experts' distances, so that it can trust
an expert more than its errors do, or go beyond all of them. So ES-RNN, the winner of the M4 competition, combined
exponential smoothing of each series with one network for all (Smyl 2020, A hybrid method of exponential smoothing and
recurrent neural networks for time series forecasting); here the smoothing is a mixture with weights.

The mixture learns from its own errors alone, never from the corrected ones. So what the network sees does not depend on
what it says, and it is trained on traces of the mixture (`rillcast_training.data.traces`), made once.

Invariants: the state of a stream's cell moves with each value and with nothing else; a repeated event brings the same
correction; a network whose last weights are zero leaves the forecast as it is.

Shapes: `[F, B]` in the step, with the batch last as in all of the layer; `[S, T, F]` in training.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.cells import CELLS, Cell, make_cell
from rillcast_training.model.experts.config import ExpertsConfig, NetworkShape
from rillcast_training.model.experts.weights import power
from rillcast_training.model.forecaster import Forecast
from rillcast_training.model.precision import mixed, widened

_FARTHEST: Final = 6.0  # largest distance of an expert from the mixture that the network can see, in widths
_LARGEST_DISTANCE: Final = 60.0  # largest one that is kept, so that traces fit half precision
_LARGEST_MISS: Final = 8.0  # largest miss that the network can see, in widths
_WIDEST: Final = 2.0  # logarithm of the largest factor of the width, up and down
_TINY: Final = 1e-20
_RATIOS: Final = 5  # by anchor: how the widths relate to each other
_OF_STREAM: Final = 2  # figures of the stream that are the same at all anchors
_HALF_AT: Final = 1.1  # ratio of the misses of network and mixture at which half of the correction is published
_DISTRUST: Final = 16  # power of that ratio
_MISSES: Final = torch.tensor([[5.0], [6.5]])  # sums that mixture and network start from, in widths
_JUDGED: Final = 20.0  # number of errors whose figure is a half
_FOLLOWED: Final = 100.0  # number of values whose figure is a half


class Mixed(NamedTuple):
    """The mixture's forecast at the anchors, before a correction.

    Attributes:
        weights: `[A, K, B]` of the experts.
        away: `[A, K, B]` how far they are from the middle, in widths; 0 of those that sleep.
        ratios: `[A, 5, B]` figures between 0 and 1.
        stream: `[2, B]` figures between 0 and 1 that are the same at all anchors.
    """

    weights: Tensor
    away: Tensor
    ratios: Tensor
    stream: Tensor

    def seen(self) -> Tensor:
        """Return what the network sees of it, `[F, B]`: distances and ratios anchor by anchor, then the stream's."""
        by_anchor = torch.cat([self.away, self.ratios], dim=1)
        return torch.cat([by_anchor.flatten(0, 1), self.stream])


class Correction(NamedTuple):
    """What the network says, `[A, 1, B]` each.

    Attributes:
        middle: Correction of the middle, in widths.
        factor: Logarithm of the factor of the width.
    """

    middle: Tensor
    factor: Tensor

    def times(self, share: Tensor) -> Correction:
        """Return a share of it."""
        return Correction(share * self.middle, share * self.factor)


class Advice(NamedTuple):
    """A correction as it is applied at all horizons.

    Attributes:
        correction: The whole of it, at the anchors.
        shares: `[A, K, B]` what is added to the weights of the experts; it sums to 0. So the part of the correction
            that is a sum over distances follows the experts from hour to hour between two anchors.
        offset: `[A, 1, B]` the rest of the correction of the middle, in widths.
    """

    correction: Correction
    shares: Tensor
    offset: Tensor


class Told(NamedTuple):
    """What the network's forecasts missed by.

    Attributes:
        missed: `[A, 2, B]` sums of what the mixture and the network, each alone, missed by, in widths.
        quantile: `[A, Q, B]` quantiles of what was published, minus those of a normal distribution, in its widths.
    """

    missed: Tensor
    quantile: Tensor


class Trust(nn.Module):
    """How far the network is believed, by what it and the mixture would have missed by, each alone.

    The share of the correction that is published falls to a half where the network's misses are a tenth larger than the
    mixture's, and is next to nothing at a horizon that has not been judged on the stream. So a network that was trained
    on other streams, or long ago, leaves its place to what the stream itself has shown.
    """

    def forward(self, missed: Tensor) -> Tensor:
        """Return the share, `[A, 1, B]`; `missed` is `[A, 2, B]`, sums of `misses`."""
        mixture, network = torch.split(missed + _MISSES, 1, dim=1)
        return 1 / (1 + power(network / (_HALF_AT * mixture), _DISTRUST))

    def misses(self, relative: Tensor, correction: Correction) -> Tensor:
        """Return what the mixture and the network alone missed by, `[A, 2, B]`, in widths.

        Args:
            relative: `[A, 1, B]` of the mixture, in widths.
            correction: What the network had said, in full.
        """
        both = torch.cat([relative, relative - correction.middle], dim=1)
        return both.abs().clamp(max=_LARGEST_MISS)


class Sizes(NamedTuple):
    """Widths and counts that the network sees in relation to each other.

    Attributes:
        width: `[A, 1, B]` of the forecast, in the stream's unit.
        trusted: `[A, 1, B]` what the trusted experts missed by.
        plain: `[A, 1, B]` what the plain ones missed by.
        phase: `[A, 1, B]` relative width of the periods ahead.
        judged: `[A, 1, B]` number of errors.
        values: `[1, B]` number of values.
        size: `[1, B]` mean size of the values.
    """

    width: Tensor
    trusted: Tensor
    plain: Tensor
    phase: Tensor
    judged: Tensor
    values: Tensor
    size: Tensor


def compare(experts: Tensor, middle: Tensor, weights: Tensor, sizes: Sizes) -> Mixed:
    """Return the mixture as the network sees it.

    Args:
        experts: `[A, K, B]` forecasts, in the stream's unit; any number where the weight is 0.
        middle: `[A, 1, B]` their mean by weights.
        weights: `[A, K, B]`.
        sizes: Widths and counts.
    """
    width, first = sizes.width, sizes.width[:1]
    away = (experts - middle) / width.clamp(min=_TINY)
    others = torch.cat([first + 0 * width, sizes.trusted, sizes.plain], dim=1)
    counts = torch.cat([sizes.phase, sizes.judged / _JUDGED], dim=1)
    ratios = torch.cat([others / (others + width).clamp(min=_TINY), counts / (counts + 1)], dim=1)
    stream = torch.cat([first[0] / (first[0] + sizes.size).clamp(min=_TINY), sizes.values / (sizes.values + _FOLLOWED)])
    return Mixed(
        weights, torch.where(weights > 0, away, 0.0).clamp(-_LARGEST_DISTANCE, _LARGEST_DISTANCE), ratios, stream
    )


class Traces(NamedTuple):
    """Windows of traces, for training, at T horizons.

    Attributes:
        seen: `[S, N, F]` what the network sees of N events.
        missed: `[S, N, A]` what the mixture missed by when the event came, in widths; 0 = nothing was due.
        weights: `[S, N, A K]` of the experts.
        rest: `[S, N, A K]` what they say apart from the places of the seasons, less the newest value, in first widths.
        shaped: `[S, N, T R]` the places of the seasons less the newest value, in first widths.
        quantile: `[S, N, A Q]` of the errors, in widths.
        middle: `[S, N, T]` of the mixture, in the stream's unit.
        width: `[S, N, T]` of the mixture's forecast, in the stream's unit; the first is the unit of the others.
    """

    seen: Tensor
    missed: Tensor
    weights: Tensor
    rest: Tensor
    shaped: Tensor
    quantile: Tensor
    middle: Tensor
    width: Tensor


def trained_horizons(anchors: tuple[int, ...]) -> tuple[int, ...]:
    """Return the horizons that a network is trained at: the anchors, and two between each pair that has room.

    Between anchors weights lie on lines, and what they weigh changes from hour to hour.
    """
    between = {a + (b - a) * part // 3 for a, b in itertools.pairwise(anchors) for part in (1, 2)}
    return tuple(sorted({*anchors, *between}))


def lines_between(anchors: tuple[int, ...], horizons: Sequence[int]) -> Tensor:
    """Return `[T, A]`: figures at the anchors times this lie on lines between them."""
    between = torch.zeros(len(horizons), len(anchors))
    for row, h in enumerate(horizons):
        right = next(n for n, anchor in enumerate(anchors) if anchor >= h)
        left = max(0, right - 1)
        share = (h - anchors[left]) / (anchors[right] - anchors[left]) if right else 1.0
        between[row, left] += 1 - share
        between[row, right] += share
    return between


class Telling(nn.Module):
    """What the network's last layer comes to. A module, so that an explanation can listen (a forward hook)."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, said: Tensor, away: Tensor, weights: Tensor, axis: int) -> Advice:
        """Return what the network says, along an axis of experts."""
        shares, offset, factor = torch.split(said, [self.experts, 1, 1], dim=axis)
        # Of a distance beyond what it can see, only a share counts.
        shares = shares * (_FARTHEST / away.abs().clamp(min=_FARTHEST))
        middle = (shares * away).sum(dim=axis, keepdim=True) + offset
        added = shares - shares.sum(dim=axis, keepdim=True) * weights
        return Advice(Correction(middle, factor.clamp(-_WIDEST, _WIDEST)), added, offset)


class Network(nn.Module):
    """A recurrent cell between two layers that see the mixture, and a head for all anchors.

    Args:
        config: Shape of the mixture and of the network.
        rows: `[K, R]` which experts have which places of the seasons.
    """

    lines: Tensor
    rows: Tensor

    def __init__(self, config: ExpertsConfig, rows: Tensor) -> None:
        super().__init__()
        self.anchors, self.experts = len(config.anchors), len(config.experts)
        self.centre = min(range(len(config.quantiles)), key=lambda i: abs(config.quantiles[i] - 0.5))
        shape = config.network
        assert shape is not None  # the caller has asked for a network
        features = self.anchors * (self.experts + _RATIOS) + _OF_STREAM
        self.dropout = nn.Dropout(shape.dropout)
        self.seen = nn.Linear(features, 2 * shape.hidden)
        self.cell: Cell = make_cell(shape.cell, 2 * shape.hidden + self.anchors, shape.hidden, shape.layers)
        self.trunk = nn.Linear(3 * shape.hidden, 2 * shape.hidden)
        self.head = nn.Linear(2 * shape.hidden, self.anchors * (self.experts + 2))
        self.telling = Telling(self.experts)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        lines = lines_between(config.anchors, trained_horizons(config.anchors))
        self.register_buffer("lines", lines, persistent=False)
        self.register_buffer("rows", rows, persistent=False)

    @staticmethod
    def states_of(shape: NetworkShape) -> dict[str, int]:
        """Return the width of each of the cell's states."""
        return {f"network_{name}": shape.layers * shape.hidden for name in CELLS[shape.cell].states}

    @torch.no_grad()
    def widen(self, factors: Tensor) -> None:
        """Add to the logarithm of the factor of the width at each anchor, `[A]`."""
        self.head.bias.reshape(self.anchors, self.experts + 2)[:, -1] += factors

    def step(
        self, mixed: Mixed, missed: Tensor, state: tuple[Tensor, ...], on: Tensor
    ) -> tuple[Advice, tuple[Tensor, ...]]:
        """Advance by one event.

        Args:
            mixed: The mixture after the event.
            missed: `[A, 1, B]` what the mixture missed by, in widths.
            state: `[n, B]` of each of the cell's states.
            on: `[1, B]` bool, whether the event brought a value.

        Returns:
            What it says, and the next state.
        """
        seen = torch.relu(self.seen(_within_reach(mixed.seen().t())))
        rows = tuple(part.t() for part in state)
        after = self.cell.step(torch.cat([seen, bounded(missed)[:, 0].t()], dim=1), rows)
        after = tuple(torch.where(on.t(), new, old) for new, old in zip(after, rows, strict=True))
        said = self.head(torch.relu(self.trunk(torch.cat([seen, self.cell.output(after)], dim=1)))).t()
        by_anchor = said.reshape(self.anchors, self.experts + 2, -1)
        return self.telling(by_anchor, mixed.away, mixed.weights, axis=1), tuple(part.t() for part in after)

    def forward(self, traces: Traces, origins: Tensor, products: torch.dtype = torch.float32) -> Forecast:
        """Return corrected forecasts at the trained horizons, with leading dimensions `[S, K]`.

        Args:
            traces: Windows of N events.
            origins: `[S, K]` int64, events to forecast from.
            products: Precision of the products.
        """
        with mixed(traces.seen.device, products):
            seen = torch.relu(self.seen(self.dropout(_within_reach(traces.seen))))
            hidden = self.cell.sequence(torch.cat([seen, bounded(traces.missed)], dim=-1))
            both = _at(torch.cat([seen, hidden], dim=-1), origins)
            said = widened(self.head(torch.relu(self.trunk(both))))
        return self._corrected(Traces(*(_at(part, origins) for part in traces)), said)

    def mixture(self, traces: Traces, origins: Tensor) -> Forecast:
        """Return the mixture's own forecasts, as `forward` does."""
        chosen = Traces(*(_at(part, origins) for part in traces))
        nothing = torch.zeros(*chosen.middle.shape[:2], self.head.out_features, device=chosen.middle.device)
        return self._corrected(chosen, nothing)

    def _corrected(self, chosen: Traces, said: Tensor) -> Forecast:
        """Return forecasts from what the network says, `[S, K, A (K + 2)]`: as the step applies it, fully believed."""
        away = self._by_anchor(chosen.seen[..., :-_OF_STREAM])[..., : self.experts]
        told: Advice = self.telling(self._by_anchor(said), away, self._by_anchor(chosen.weights), axis=-1)
        rest = (told.shares * self._by_anchor(chosen.rest)).sum(dim=-1)
        shares = torch.matmul(self.lines, torch.matmul(told.shares, self.rows))
        shaped = chosen.shaped.reshape(*shares.shape)
        moved = torch.matmul(rest, self.lines.t()) + (shares * shaped).sum(dim=-1)
        own = told.offset + torch.exp(told.correction.factor) * self._by_anchor(chosen.quantile)
        quantiles = torch.matmul(self.lines, own)
        centre = quantiles[..., self.centre : self.centre + 1]
        unit = chosen.width[..., :1].clamp(min=_TINY)
        relative = (chosen.width / unit).unsqueeze(-1)
        outwards = (relative * (quantiles - centre)).transpose(-1, -2)
        outwards = torch.cat([-outwards[..., : self.centre, :], outwards[..., self.centre + 1 :, :]], dim=-2)
        return Forecast(
            middle=moved + (relative * centre)[..., 0],
            distances=outwards.flatten(-2),
            base=chosen.middle,
            scale=unit,
            centre=self.centre,
        )

    def _by_anchor(self, figures: Tensor) -> Tensor:
        """Return `[S, K, A, n]` from `[S, K, A n]`."""
        return figures.reshape(*figures.shape[:2], self.anchors, -1)


def _within_reach(seen: Tensor) -> Tensor:
    """Return what is seen without what lies beyond reach; only distances can."""
    return seen.clamp(-_FARTHEST, _FARTHEST)


def bounded(missed: Tensor) -> Tensor:
    """Return misses as the network sees them."""
    return missed.clamp(-_LARGEST_MISS, _LARGEST_MISS)


def _at(values: Tensor, origins: Tensor) -> Tensor:
    """Return `[S, K, ...]`, rows `origins` of `[S, T, ...]`."""
    return values.gather(1, origins.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
