"""The forecaster of experts alone: the step of a stream, without a network.

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
from rillcast_training.model.experts.bounds import ValueBounds
from rillcast_training.model.experts.clock import Time
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import Layout, stamp
from rillcast_training.model.experts.levels import Levels, row_of
from rillcast_training.model.experts.scoring import Judgement, Said
from rillcast_training.model.experts.season_entries import SeasonEntries, Visit
from rillcast_training.model.experts.seasons import SeasonMemory, SeasonView
from rillcast_training.model.experts.weights import Errors, ExpertWeights
from rillcast_training.model.experts.widths import UNITS, Misses, Widths
from rillcast_training.model.features import MAX_ABS_Y

_LEAST_SCALE: Final = 1e-6  # of the size, for the scores of a constant stream
_LARGEST_MISS: Final = 100.0  # in units of what was trusted to be missed, next to nothing on a stream without noise
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


class _Seasons(NamedTuple):
    """The memories of the seasons before and after an event.

    Attributes:
        entries: `[n, width, B]` places around the period's bins, of each season.
        own: `[width, B]` the period's own bins.
        old: `[width, B]` the bins that may be written.
        at: `[B, 1, 2]` where those are.
        bins: `[1, B]` the own bin and the one that may be written.
        known: `[S, B]` bool, whether the own bins have a value.
        ages: `[S, B]` number of whole cycles that the stream has had before this period.
    """

    entries: list[Tensor]
    own: list[Tensor]
    old: list[Tensor]
    at: list[Tensor]
    bins: list[tuple[Tensor, Tensor]]
    known: Tensor
    ages: Tensor


class ExpertForecaster(nn.Module):
    """No parameters; see the module's docstring."""

    between: Tensor
    periods: Tensor
    mask: Tensor
    kept: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.horizons = anchor_horizons(config.horizon)
        groups, group_of = groups_of(config)
        self.layout = Layout(config, len(groups), away_from(config), self.horizons)
        self._memories = [
            SeasonMemory(number, places, config.horizon) for number, places in enumerate(self.layout.seasons)
        ]
        self.memories = nn.ModuleList(self._memories)
        self.entries = SeasonEntries(config, self.layout.seasons)
        self.levels = Levels(config.constants)
        self.bases = Bases(config, self.layout.seasons)
        self.weights = ExpertWeights(config, group_of)
        self.widths = Widths(config)
        self.bounds = ValueBounds(config.quantiles)
        self.judgement = Judgement(config, self.horizons)
        forget, kept = config.constants.forget, self.widths.kept()
        shares = [(len(config.experts) + len(groups), forget), *kept]
        good = len(
            groups
        )  # of the masks: the groups that were awake, and whether the miss counts for loss and quantile
        self.sums = sum(count for count, _ in shares)
        mask = [*group_of, *range(len(groups)), *([0] * 6), *([good] * (len(config.quantiles) + UNITS))]
        tables = {
            "between": _lines_between(config.anchors, config.horizon),
            "periods": torch.tensor([[season.periods] for season in config.memories]),
            "mask": torch.tensor(mask),
            "kept": torch.tensor([share for count, share in shares for _ in range(count)]).unsqueeze(1),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

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
        row = (torch.arange(len(ds)) if row is None else row).unsqueeze(1)
        y = y.unsqueeze(0)
        observed = y.abs() <= MAX_ABS_Y  # False for NaN
        time, status = clock.read(ds, observed, rows.clock, self.config.freq, self.context)
        f = self.layout.core.unpack(rows.core)
        f["offset"] = torch.where(time.new, y, f["offset"])
        value = torch.where(time.on, y - f["offset"], f["last"])

        seasons = self._read(rows.seasons, row, time)
        phase = self.layout.pending.phase(time.period)
        notes = self.layout.pending.read(rows.pending, row, phase)
        width, has_width = self._learn(f, y, value, time, notes, seasons)
        cycles = (time.known - self.config.seasons[0]).clamp(min=1).to(torch.float32)
        own = seasons.own[0]
        f["levels"] = self.levels(
            f["levels"], value, f["last"], f["offset"], f["count"], cycles, own[:1], own[1:2], time.on,
            seasons.known[:1],
        )  # fmt: skip
        f["count"] = f["count"] + time.on.to(torch.float32)
        f["last"] = value
        views, tables = self._remember(f, seasons, rows.seasons, width, has_width, time)
        if self.bases.away:
            slow = f["levels"][row_of("slow") : row_of("slow") + 1]
            now = self.bases.at_period(slow, value, seasons.own, seasons.known, views)
            f["away"] = torch.where(time.on, value - now, f["away"])
        note = torch.cat([stamp(time.period, self.config.horizon), value, f["levels"][2:], f["away"]])
        pending = self.layout.pending.write(rows.pending, row, phase, time.newest_value == time.period, note)
        quantiles, scale = self._forecast(f, views, time, calibrate, bounds)
        if alarm_interval is None:
            alarm_interval = torch.tensor(slots_per_alarm(ONE_A_WEEK, parse(self.config.freq)))
        said = Said(quantiles, scale, torch.where(time.on, y, f["offset"] + value), own[:1] + f["offset"])
        score, anomaly, alarm = self.judgement(f, said, time, alarm_interval)
        forecast = quantiles.reshape(-1, quantiles.shape[2]).t()
        forecast = forecast.reshape(-1, self.config.horizon, len(self.config.quantiles))
        following = torch.cat([time.period, time.known + 1, time.newest_value]).t()
        state = ExpertRows(following, self.layout.core.pack(f), tuple(tables), pending)
        return ExpertOutputs(forecast, status, score, anomaly, alarm.t()), state

    # The seasons' memories.

    def _read(self, tables: tuple[Tensor, ...], row: Tensor, time: Time) -> _Seasons:
        """Read the bins around the period."""
        entries, own, old, places, bins = [], [], [], [], []
        for memory, table in zip(self._memories, tables, strict=True):
            at = memory.places.bin_of(time.period)
            written = at if memory.season.exact else memory.places.bin_of(time.value_before)
            around, before, place = memory.places.read(table, row, at, written)
            entries.append(around)
            old.append(before)
            own.append(before if memory.season.exact else around[memory.places.first])
            places.append(place)
            bins.append((at, written))
        known = torch.cat([e[m.columns.width_column :][:1] for e, m in zip(own, self._memories, strict=True)]) > 0
        cycles = torch.div((time.known - 1).clamp(min=0), self.periods, rounding_mode="trunc").to(torch.float32)
        return _Seasons(entries, own, old, places, bins, known, cycles)

    def _remember(
        self, f: Figures, seasons: _Seasons, tables: tuple[Tensor, ...], width: Tensor, has_width: Tensor, time: Time
    ) -> tuple[list[SeasonView], list[Tensor]]:
        """Write the value into the seasons' memories; return what they say since, and the tables."""
        value, both = f["last"], len(self._memories) == 2
        rest = value - f["levels"][row_of("slow") : row_of("slow") + 1]
        visits = []
        for number, memory in enumerate(self._memories):
            if memory.season.exact:
                part = rest - seasons.own[1][2:3] if both and not number else None
                visits.append(Visit(value, part, width, has_width, time.on))
            else:
                visits.append(self._left(f[f"visit{number}"], memory, time))
        written = self.entries(seasons.old, visits, seasons.ages, rest)
        views, following = [], []
        others = [seasons.own[1 - number][2:3] if both else None for number in range(len(self._memories))]
        for number, (memory, table) in enumerate(zip(self._memories, tables, strict=True)):
            entries = memory.replaced(seasons.entries[number], *seasons.bins[number], written[number])
            if not memory.season.exact:
                other = others[number]
                part = 0 * value if other is None else rest - other
                f[f"visit{number}"] = self._visited(
                    f[f"visit{number}"], visits[number], value, part, width, has_width, time
                )
            if both and not number:
                others[1] = entries[memory.places.first, 2:3]
            views.append(memory.ahead(entries, time.period, value))
            following.append(memory.places.write(table, seasons.at[number], written[number]))
        return views, following

    def _left(self, sums: Tensor, memory: SeasonMemory, time: Time) -> Visit:
        """Return the means of the newest visit of a bin, to be written if the stream has left it."""
        visits = memory.places.visit
        left = time.on & time.had & (visits(time.value_before) != visits(time.period))
        value, part, width, widths, count = torch.split(sums, 1)
        done = count.clamp(min=1)
        of_part = None if memory.columns.part is None else part / done
        return Visit(value / done, of_part, width / widths.clamp(min=1), widths > 0, left)

    def _visited(
        self, sums: Tensor, visit: Visit, value: Tensor, part: Tensor, width: Tensor, has_width: Tensor, time: Time
    ) -> Tensor:
        """Return the sums over the visit of a bin, `[5, B]`: value, part, width, number of widths, number of values."""
        known = has_width.to(torch.float32)
        newest = torch.cat([value, part, width * known, known, time.on.to(torch.float32)])
        return torch.where(time.on, torch.where(visit.on | time.new, newest, sums + newest), sums)

    # Errors of what was said of this period.

    def _learn(
        self, f: Figures, y: Tensor, value: Tensor, time: Time, notes: Tensor, seasons: _Seasons
    ) -> tuple[Tensor, Tensor]:
        """Learn from forecasts of this period; return the mean relative miss, `[1, B]`, and whether there is one."""
        experts, groups, levels = len(self.config.experts), len(self._memories) + 1, len(self.config.quantiles)
        sizes = [self.sums, 1, 1, experts, UNITS, UNITS]
        sums, plain, judged, weight, ratio, share = torch.split(f["anchors"], sizes, dim=1)
        distance = stamp(time.period, self.config.horizon) - notes[:, :1]
        due = (distance == self.bases.anchors) & time.on
        awake = self.bases.awake_then(due, time.known, time.on, seasons.known)
        valid = awake[:, :1]
        earlier = self.bases.means_before(seasons.own, self.layout.seasons, seasons.ages)
        parts = (
            [memory.part(one) for memory, one in zip(self._memories, seasons.entries, strict=True)]
            if groups == 3
            else []
        )
        said = self.bases.said(
            notes, torch.cat([*seasons.own, *earlier]), parts[0] + parts[1] if parts else None, awake
        )
        point = (weight * said).sum(dim=1, keepdim=True)
        f["bounds"] = self.bounds.learn(f["bounds"], y, time.on, point[0], valid[0])
        missed = (value - said).abs()
        errors = Errors(sums, sums, plain, judged)
        f["plain"], reference = self.weights.learn(errors, missed, valid)
        misses = Misses(*torch.split(sums[:, experts + groups :], [2, 4, 5, levels], dim=1))
        miss = torch.where(valid, value - point, 0.0)
        size = self.widths.usual_size(point, f["offset"], f["levels"][1:2])
        last = self._memories[-1].columns.width_column
        phase = torch.where(seasons.known[-1:], seasons.own[-1][last : last + 1], 1.0)
        learnt = self.widths.learn(misses, ratio, share, judged, size, miss, valid, phase)
        added = torch.cat([missed, *([reference] * groups), *learnt.added], dim=1)
        mask = torch.cat([awake, learnt.good], dim=1)[:, self.mask]
        f["sums"] = torch.where(mask, self.kept * sums + added, sums)
        trusted = ratio[:, :1]
        counts = valid & (trusted > 0)
        relative = (miss.abs() / trusted.clamp(min=1e-30)).clamp(max=_LARGEST_MISS)
        relative = torch.where(counts, relative, 0.0).sum(dim=0)
        number = counts.to(torch.float32).sum(dim=0)
        return relative / number.clamp(min=1), number > 0

    # The forecast.

    def _forecast(
        self, f: Figures, views: list[SeasonView], time: Time, calibrate: Tensor | float, bounds: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """Return the quantiles of the H periods that follow, `[H, Q, B]`, and the error one ahead, `[1, B]`."""
        c, last, offset = self.config.constants, f["last"], f["offset"]
        sizes = [len(self.config.experts), len(self._memories) + 1, 2, 4, 5, len(self.config.quantiles)]
        error, reference, *missed = torch.split(f["sums"], sizes, dim=1)
        plain, judged = torch.split(f["plain"], 1, dim=1)
        errors, misses = Errors(error, reference, plain, judged), Misses(*missed)
        mean_size = f["levels"][1:2]
        size = self.widths.usual_size(last, offset, mean_size)
        plain_error = self.weights.scale(errors, c.prior * size, _LEAST_SCALE * mean_size)
        scale = (1 + c.reference) * plain_error
        relative = self.weights.relative(errors, scale)
        weights = self.weights(relative, self.bases.awake_ahead(f["count"], views), f["count"])
        trusted = scale * (weights * relative).sum(dim=1, keepdim=True)
        ratio, share = self.widths.ratios(misses, trusted, size), self.widths.shares(misses, judged)
        f["anchors"] = torch.cat([f["sums"], f["plain"], weights, ratio, share], dim=1)

        idle = (time.period - time.newest_value).clamp(0, LONGEST_IDLE)[0]
        rest = (weights * self.bases.without_shape(f["levels"], last, f["away"], idle)).sum(dim=1, keepdim=True)
        shaped, shares = self.bases.shapes(weights, views)
        lines = self._lines(torch.cat([rest, self.widths.at_anchors(ratio, share), *shares], dim=1))
        point, *parts, weight = torch.split(lines, [1, 1, 1, 1, 1, len(shares)], dim=1)
        point = point + offset
        if shaped:
            point = point + (weight * torch.cat(shaped, dim=1)).sum(dim=1, keepdim=True)
        spread = self.widths.width(parts, point, mean_size, views[-1].width)
        kept = self.bounds(f["bounds"], f["count"], bounds)
        quantiles = kept.at_anchors(self.widths.quantiles(misses, calibrate))
        return kept.keep(point + spread * self._lines(quantiles)), plain_error[0]

    def _lines(self, at_anchors: Tensor) -> Tensor:
        """Return `[H, n, B]`, figures `[A, n, B]` on lines between the anchors.

        A product with a single column may round differently, so n is never 1.
        """
        lines = torch.matmul(self.between, at_anchors.flatten(1))
        return lines.reshape(self.config.horizon, at_anchors.shape[1], -1)


def _lines_between(anchors: tuple[int, ...], horizon: int) -> Tensor:
    """Return `[H, A]`: figures at the anchors times this lie on lines between them."""
    between = torch.zeros(horizon, len(anchors))
    for h in range(1, horizon + 1):
        right = next(n for n, anchor in enumerate(anchors) if anchor >= h)
        left = max(0, right - 1)
        share = (h - anchors[left]) / (anchors[right] - anchors[left]) if right else 1.0
        between[h - 1, left] += 1 - share
        between[h - 1, right] += share
    return between
