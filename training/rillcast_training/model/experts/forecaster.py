"""The forecaster of experts, alone or with a network on top: the step of a stream.

Owns: the semantics of an event, and how the mixture of the bases becomes a forecast. Does not know: how weights and
widths are learnt (`weights`, `widths`), or how a season is remembered (`seasons`).

An expert is a base and a decay: it says `base(t + h) + decay^h * (y_t - base(t))`. Decay 0 returns to the base at once,
1 never does. Bases are the level, and of each season the newest value and the running mean of the phase,
the sum of two seasons, and a few trends. The mixture is taken by bases and not by experts: with w the weights at
the anchors, W_b their sum over the experts of base b, and both on lines between the anchors,

    median(h) = sum_b W_b(h) base_b(t + h) + sum_b sum_k-of-b w_k decay_k^h (y_t - base_b(t)) + trends

so there is no array of experts by periods.

The batch comes last in all arrays, and a figure of a stream is `[1, B]`: figures of the same kind are rows of one array
and move at once, for a step of a few streams costs as much as it has operators.

State of a stream: see `rillcast_training.model.experts.layout`. Values are kept minus the stream's first one, so that a
series whose level dwarfs its change keeps that change in float32.

Semantics: a period without an event, or with a missing value, leaves all memories as they are, and forecasts made in it
are not judged. Distances from the bases decay with the periods since the newest value. A repeated or late event leaves
the state unchanged and brings the same forecast. A gap of any length costs one step.

Invariants: nothing is learnt of a period before it has come; rows do not affect each other; quantiles never cross.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast.bundle.alarms import ONE_A_WEEK, slots_per_alarm
from rillcast.bundle.bundle import StateSpec
from rillcast.bundle.frequency import parse
from rillcast_training.model.calibration import anchor_horizons
from rillcast_training.model.experts import clock
from rillcast_training.model.experts.bases import LONGEST_IDLE, Bases, away_from, groups_of
from rillcast_training.model.experts.clock import Time
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import Layout, stamp
from rillcast_training.model.experts.learning import Learning, Sums
from rillcast_training.model.experts.levels import Levels, row_of
from rillcast_training.model.experts.network import (
    Advice,
    Mixed,
    Network,
    Sizes,
    Traces,
    compare,
    lines_between,
    trained_horizons,
)
from rillcast_training.model.experts.scoring import Judgement, Said
from rillcast_training.model.experts.season_memories import SeasonMemories
from rillcast_training.model.experts.seasons import SeasonView
from rillcast_training.model.features import MAX_ABS_Y

_TINY: Final = 1e-20
_LEAST_SCALE: Final = 1e-6  # of the size, for the scores of a constant stream
Figures = dict[str, Tensor]


class ExpertRows(NamedTuple):
    """State rows of a batch, the batch first: `[B, 3]` int64, `[B, F]`, and `[N, E, W]` of each table."""

    clock: Tensor
    core: Tensor
    seasons: tuple[Tensor, ...]
    pending: Tensor

    def flat(self) -> tuple[Tensor, ...]:
        """Return the tensors in the order of `ExpertForecaster.state_specs`."""
        return (self.clock, self.core, *self.seasons, self.pending)

    def head(self, streams: int) -> ExpertRows:
        """Return the rows of the first streams."""
        return ExpertRows.from_flat(tuple(part[:streams] for part in self.flat()))

    @classmethod
    def from_flat(cls, rows: tuple[Tensor, ...]) -> ExpertRows:
        """Undo `flat`."""
        return cls(rows[0], rows[1], tuple(rows[2:-1]), rows[-1])


class ExpertOutputs(NamedTuple):
    """Outputs of a step for each event: those of `StepOutputs`, and `[B, 8]` of `rillcast_training.model.alarms`."""

    forecast: Tensor
    status: Tensor
    score: Tensor
    anomaly: Tensor
    alarm: Tensor


class _Event(NamedTuple):
    """An event that the memories have taken in.

    Attributes:
        f: Figures of the streams after it.
        y: `[1, B]` observation; 0 where there is none.
        naive: `[1, B]` value a season ago, less the offset.
        missed: `[A, 1, B]` what the mixture had missed it by, in widths; 0 where nothing was due.
        time: When it is.
        status: `[B]`.
        row: `[B, 1]` rows of the tables.
        phase: `[B]` where the period lies among the pending ones.
        views: What the seasons say of the periods ahead.
        tables: The seasons' memories after it.
    """

    f: Figures
    y: Tensor
    naive: Tensor
    missed: Tensor
    time: Time
    status: Tensor
    row: Tensor
    phase: Tensor
    views: list[SeasonView]
    tables: list[Tensor]


class _Mixture(NamedTuple):
    """What a forecast follows from, at the anchors.

    Attributes:
        weights: `[A, K, B]` of the experts.
        without_shape: `[A, K, B]` their forecasts without the places of the seasons.
        plain_error: `[1, B]` what the plain experts missed by, one period ahead.
        scale: `[A, 1, B]` the same at each anchor.
        trusted: `[A, 1, B]` what the trusted experts missed by.
        judged: `[A, 1, B]` number of errors.
        sums: Errors and misses so far.
        ratio: `[A, 5, B]` what is missed in each unit of width.
        share: `[A, 5, B]` how much each unit counts.
    """

    weights: Tensor
    without_shape: Tensor
    plain_error: Tensor
    scale: Tensor
    trusted: Tensor
    judged: Tensor
    sums: Sums
    ratio: Tensor
    share: Tensor


class ExpertForecaster(nn.Module):
    """Parameters are those of the network, if there is one; see the module's docstring."""

    between: Tensor
    plain: Tensor
    trained: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.horizons = anchor_horizons(config.horizon)
        groups, group_of = groups_of(config)
        cell = {} if config.network is None else Network.states_of(config.network)
        self.layout = Layout(config, len(groups), away_from(config), self.horizons, cell)
        self.seasons = SeasonMemories(config, self.layout.seasons)
        self.levels = Levels(config.constants)
        self.bases = Bases(config, self.layout.seasons)
        rows = self.bases.rows_of_experts()
        self.network = None if config.network is None else Network(config, rows)
        self.register_buffer("plain", (rows.sum(dim=1) == 0).reshape(1, -1, 1), persistent=False)
        self.register_buffer("trained", torch.tensor(trained_horizons(config.anchors)) - 1, persistent=False)
        self.learning = Learning(config, self.layout, self.bases, self.seasons.each, group_of)
        self.weights, self.widths = self.learning.weights, self.learning.widths
        self.judgement = Judgement(config, self.horizons)
        self.register_buffer("between", lines_between(config.anchors, range(1, config.horizon + 1)), persistent=False)

    def state_specs(self) -> tuple[StateSpec, ...]:
        """Return the kinds of state of a stream, in the order of `ExpertRows.flat`."""
        return self.layout.specs()

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the columns of `score`."""
        return self.judgement.scores.names

    @property
    def context(self) -> int:
        """Slots until a stream counts as warm: two of the main season."""
        return 2 * self.config.seasons[0]

    def initial_rows(self, streams: int) -> ExpertRows:
        """Return the state of streams never seen."""
        rows = (
            torch.zeros((streams, *spec.row_shape), dtype=getattr(torch, spec.dtype)) for spec in self.state_specs()
        )
        return ExpertRows.from_flat(tuple(rows))

    def step(
        self,
        ds: Tensor,
        y: Tensor,
        rows: ExpertRows,
        calibrate: Tensor | float = 1.0,
        row: Tensor | None = None,
        alarm_interval: Tensor | None = None,
        bounds: Tensor | float = 1.0,
    ) -> tuple[ExpertOutputs, ExpertRows]:
        """Advance each stream by one event.

        Args:
            ds: `[B]` int64, milliseconds since the epoch.
            y: `[B]` float32; NaN, or beyond `MAX_ABS_Y`, is missing.
            rows: State of the streams.
            calibrate: `[]`, 1 = quantiles as the stream's own errors have them, 0 = those of a normal distribution.
                What is learnt does not depend on it.
            row: `[B]` int64, row of the tables of each event; None = the order of the events.
            alarm_interval: `[]` or `[B]`, slots in which one alarm a stream is wanted, 0 = none; None = a week's.
            bounds: `[]`, 1 = quantiles keep to the values that the stream can have, 0 = they do not.

        Returns:
            Outputs for the events, and the next state.
        """
        event = self._advance(ds, y, rows, row)
        f, time = event.f, event.time
        mixture = self._mixture(f, event.views, time)
        said = None if self.network is None else self._corrected(f, self._seen(f, event.views, mixture), event)
        quantiles = self._forecast(event, mixture, calibrate, bounds, said)
        if alarm_interval is None:
            alarm_interval = torch.tensor(slots_per_alarm(ONE_A_WEEK, parse(self.config.freq)))
        value = torch.where(time.on, event.y, f["offset"] + f["last"])
        judged = Said(quantiles, mixture.plain_error, value, event.naive + f["offset"])
        score, anomaly, alarm = self.judgement(f, judged, time, alarm_interval)
        forecast = quantiles.reshape(-1, quantiles.shape[2]).t()
        forecast = forecast.reshape(-1, self.config.horizon, len(self.config.quantiles))
        return ExpertOutputs(forecast, event.status, score, anomaly, alarm.t()), self._following(
            event, rows, mixture, said
        )

    def trace(self, ds: Tensor, y: Tensor, rows: ExpertRows, row: Tensor | None = None) -> tuple[Traces, ExpertRows]:
        """Advance each stream by one event, without a forecast; return what a network would see, `[B, ...]` each.

        Arguments are those of `step`.

        Raises:
            ValueError: the layer has a network, which is not what one is trained on.
        """
        if self.network is not None:
            raise ValueError("traces are those of a mixture without a network")
        event = self._advance(ds, y, rows, row)
        mixture = self._mixture(event.f, event.views, event.time)
        seen, f = self._seen(event.f, event.views, mixture), event.f
        at = self.trained
        point, width, _ = self._points(f, event.views, mixture, mixture.weights, [])
        shaped, _ = self.bases.shapes(mixture.weights, event.views)
        places = torch.cat(shaped, dim=1)[at] if shaped else point[at][:, :0]
        unit = width[:1].clamp(min=_TINY)
        figures = (
            event.missed,
            mixture.weights,
            torch.where(self.plain, mixture.without_shape - f["last"], mixture.without_shape) / unit,
            (places - f["last"]) / unit,
            self.widths.quantiles(mixture.sums.misses, 1.0),
            point[at],
            width[at],
        )
        traces = Traces(seen.seen().t(), *(figure.flatten(0, 1).t() for figure in figures))
        return traces, self._following(event, rows, mixture, None)

    def _advance(self, ds: Tensor, y: Tensor, rows: ExpertRows, row: Tensor | None) -> _Event:
        """Learn from the events, and take them into the memories."""
        row = (torch.arange(len(ds)) if row is None else row).unsqueeze(1)
        y = y.unsqueeze(0)
        observed = y.abs() <= MAX_ABS_Y  # False for NaN
        time, status = clock.read(ds, observed, rows.clock, self.config.freq, self.context)
        f = self.layout.core.unpack(rows.core)
        y = torch.where(time.on, y, 0.0)
        f["offset"] = torch.where(time.had, f["offset"], y)
        value = torch.where(time.on, y - f["offset"], f["last"])

        seasons = self.seasons.read(rows.seasons, row, time)
        phase = self.layout.pending.phase(time.period)
        notes = self.layout.pending.read(rows.pending, row, phase)
        learnt = self.learning(f, y, value, time, notes, seasons)
        cycles = (time.known - self.config.seasons[0]).to(torch.float32).clamp(min=1)
        own = seasons.own[0]
        f["levels"] = self.levels(
            f["levels"], y, value, f["last"], f["count"], cycles, own[:2], time.on, seasons.known[:1],
        )  # fmt: skip
        f["count"] = f["count"] + time.on.to(torch.float32)
        f["last"] = value
        views, tables = self.seasons.remember(f, seasons, rows.seasons, learnt.miss, time)
        if self.bases.away:
            slow = f["levels"][row_of("slow") : row_of("slow") + 1]
            now = self.bases.at_period(slow, value, seasons.own, seasons.known, views)
            f["away"] = torch.where(time.on, value - now, f["away"])
        return _Event(f, y, own[:1], learnt.missed, time, status, row, phase, views, tables)

    def _following(self, event: _Event, rows: ExpertRows, mixture: _Mixture, said: Advice | None) -> ExpertRows:
        """Return the state after an event, with a note of what its forecasts follow from."""
        f, time = event.f, event.time
        of_network = [] if said is None else [self.learning.said_since(f, said.correction, time)]
        f["anchors"] = torch.cat([f["sums"], mixture.weights, mixture.ratio, mixture.share, *of_network], dim=1)
        valid = time.newest_value == time.period
        # Without a stamp, so that what is written to no place is never due.
        now = torch.where(valid, stamp(time.period, self.config.horizon), 0.0)
        note = torch.cat([now, f["last"], f["levels"][2:], f["away"]])
        pending = self.layout.pending.write(rows.pending, event.row, event.phase, valid, note)
        following = torch.cat([part.reshape(-1, 1) for part in (time.period, time.known + 1, time.newest_value)], dim=1)
        return ExpertRows(following, self.layout.core.pack(f), tuple(event.tables), pending)

    # The forecast.

    def _mixture(self, f: Figures, views: list[SeasonView], time: Time) -> _Mixture:
        """Weigh the experts and the units of width."""
        c, last, offset = self.config.constants, f["last"], f["offset"]
        sums = self.learning.sums(f["sums"])
        errors, judged = sums.errors, sums.errors.judged
        mean_size = f["levels"][1:2]
        size = self.widths.usual_size(last, offset, mean_size)
        plain_error = self.weights.scale(errors, c.prior * size, _LEAST_SCALE * mean_size)
        scale = (1 + c.reference) * plain_error
        relative = self.weights.relative(errors, scale)
        weights = self.weights(relative, self.bases.awake_ahead(f["count"], views), f["count"])
        trusted = scale * (weights * relative).sum(dim=1, keepdim=True)
        ratio, share = self.widths.ratios(sums.misses, trusted, size), self.widths.shares(sums.misses, judged)
        # As float32, for ONNX Runtime's Clip is wrong for int64 beyond 2^31, a month of milliseconds.
        idle = (time.period - time.newest_value)[0].to(torch.float32).clamp(0, LONGEST_IDLE).to(torch.int64)
        without_shape = self.bases.without_shape(f["levels"], last, f["away"], idle)
        return _Mixture(weights, without_shape, plain_error[0], scale, trusted, judged, sums, ratio, share)

    def _seen(self, f: Figures, views: list[SeasonView], mixture: _Mixture) -> Mixed:
        """Return the mixture as the network sees it."""
        experts = self.bases.at_anchors(mixture.without_shape, views)
        middle = (mixture.weights * experts).sum(dim=1, keepdim=True)
        phase, mean_size = views[-1].width[self.bases.anchors_ahead], f["levels"][1:2]
        parts = list(torch.split(self.widths.at_anchors(mixture.ratio, mixture.share), 1, dim=1))
        width = self.widths.width(parts, middle + f["offset"], mean_size, phase)
        sizes = Sizes(width, mixture.trusted, mixture.scale, phase, mixture.judged, f["count"], mean_size)
        return compare(experts, middle, mixture.weights, sizes)

    def _corrected(self, f: Figures, seen: Mixed, event: _Event) -> Advice:
        """Advance the network; return what it says."""
        assert self.network is not None
        assert self.config.network is not None
        names = list(Network.states_of(self.config.network))
        state = tuple(f[name] for name in names)
        said, following = self.network.step(seen, event.missed, state, event.time.on)
        f |= dict(zip(names, following, strict=True))
        return said

    def _forecast(
        self, event: _Event, mixture: _Mixture, calibrate: Tensor | float, bounds: Tensor | float, said: Advice | None
    ) -> Tensor:
        """Return the quantiles of the H periods that follow, `[H, Q, B]`."""
        f, views = event.f, event.views
        weights, (_, misses, told) = mixture.weights, mixture.sums
        if said is None or told is None:
            quantiles = self.widths.quantiles(misses, calibrate)
        else:
            # What is said in a period without a value is never judged, and does not count.
            judged = event.time.newest_value == event.time.period
            trust = torch.where(judged, self.learning.trust(told.missed), 0.0)
            weights = weights + trust * said.shares
            own = self.widths.quantiles(misses._replace(quantile=told.quantile), calibrate)
            quantiles = trust * said.offset + torch.exp(trust * said.correction.factor) * own
        kept = self.learning.bounds(f["bounds"], f["count"], bounds)
        point, spread, lines = self._points(f, views, mixture, weights, [kept.at_anchors(quantiles)])
        forecast: Tensor = kept.keep(point + spread * lines)
        return forecast

    def _points(
        self, f: Figures, views: list[SeasonView], mixture: _Mixture, weights: Tensor, others: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the middle of the H periods that follow by some weights, its width, and other figures.

        Args:
            f: Figures of the streams.
            views: What the seasons say.
            mixture: Units and errors.
            weights: `[A, K, B]` of the experts.
            others: `[A, n, B]`, at most one, to be taken on lines between the anchors.
        """
        offset, mean_size = f["offset"], f["levels"][1:2]
        rest = (weights * mixture.without_shape).sum(dim=1, keepdim=True)
        shaped, shares = self.bases.shapes(weights, views)
        widths = self.widths.at_anchors(mixture.ratio, mixture.share)
        count, more = len(self.bases.rows), sum(other.shape[1] for other in others)
        lines = self._lines(torch.cat([rest, widths, *shares, *others], dim=1))
        point, *parts, weight, lines = torch.split(lines, [1, 1, 1, 1, 1, count, more], dim=1)
        point = point + offset
        if shaped:
            point = point + (weight * torch.cat(shaped, dim=1)).sum(dim=1, keepdim=True)
        spread = self.widths.width(parts, point, mean_size, views[-1].width)
        return point, spread, lines

    def _lines(self, at_anchors: Tensor) -> Tensor:
        """Return `[H, n, B]`, figures `[A, n, B]` on lines between the anchors.

        A product with a single column may round differently, so n is never 1.
        """
        lines = torch.matmul(self.between, at_anchors.flatten(1))
        return lines.reshape(self.config.horizon, at_anchors.shape[1], -1)
