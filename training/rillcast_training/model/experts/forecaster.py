"""The forecaster of experts alone: the step of a stream, without a network.

Owns: the semantics of an event, the bases, and how their mixture becomes a forecast. Does not know: how weights and
widths are learnt (`weights`, `widths`), or how a season is remembered (`seasons`).

An expert is a base and a decay: it says `base(t + h) + decay^h * (y_t - base(t))`. Decay 0 returns to the base at once,
1 never does. Bases are the level, and of each season the newest value and the running mean of the phase,
 the sum of two seasons, and a few trends. The mixture is taken by bases and not by experts: with w the weights at
the anchors, W_b their sum over the experts of base b, and both on lines between the anchors,

    median(h) = sum_b W_b(h) base_b(t + h) + sum_b sum_k-of-b w_k decay_k^h (y_t - base_b(t)) + trends

so there is no array of experts by periods.

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

from rillcast.bundle.alarms import LONGEST_SILENCE, ONE_A_WEEK, slots_per_alarm
from rillcast.bundle.bundle import StateSpec, Status
from rillcast.bundle.frequency import parse
from rillcast_training.model.alarms import AlarmModel, Observed
from rillcast_training.model.calibration import anchor_horizons
from rillcast_training.model.experts.bases import LONGEST_IDLE, Bases, Figures, away_from, groups_of
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import NOTE, Layout, stamp
from rillcast_training.model.experts.seasons import SeasonMemory, SeasonView, Visit
from rillcast_training.model.experts.weights import Errors, ExpertWeights
from rillcast_training.model.experts.widths import Misses, Widths
from rillcast_training.model.features import MAX_ABS_Y
from rillcast_training.model.periods import periods_of
from rillcast_training.model.scores import ForecastScores
from rillcast_training.model.tails import TailModel, miss_of

_LEAST_SCALE: Final = 1e-6  # of the size, for the scores of a constant stream
_ABSOLUTE_FLOOR: Final = 1e-20
_LARGEST_MISS: Final = 100.0  # in units of what was trusted to be missed, next to nothing on a stream without noise


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


class _Time(NamedTuple):
    """When an event is, `[B]` each.

    Attributes:
        period: The newest period, this event's included.
        known: Periods since the stream's first value, that one included; 0 = no value yet.
        newest_value: Period of the newest value, this event's included.
        value_before: Period of the newest value before.
        on: Whether the event advances its stream with a value.
        new: Whether that is the stream's first one.
    """

    period: Tensor
    known: Tensor
    newest_value: Tensor
    value_before: Tensor
    on: Tensor
    new: Tensor


class ExpertForecaster(nn.Module):
    """No parameters; see the module's docstring."""

    between: Tensor
    decay: Tensor
    idle_decay: Tensor
    base_of: Tensor
    away_of: Tensor
    scored: Tensor
    scored_steps: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        self.horizons = anchor_horizons(config.horizon)
        groups, group_of = groups_of(config)
        self.away = away_from(config)
        self.layout = Layout(config, len(groups), self.away, self.horizons)
        self._memories = [
            SeasonMemory(number, config.memories, places, config.horizon)
            for number, places in enumerate(self.layout.seasons)
        ]
        self.memories = nn.ModuleList(self._memories)
        self.bases = Bases(config, tuple(places.first for places in self.layout.seasons))
        self.weights = ExpertWeights(config, group_of)
        self.widths = Widths(config)
        self.forecast_scores = ForecastScores(config.quantiles, self.horizons)
        self.tails = TailModel(config.quantiles)
        self.alarms = AlarmModel()
        names, away = self.bases.names, ("level", *self.away)
        decays = torch.tensor([decay for _, decay in config.experts], dtype=torch.float64)
        idle = torch.arange(LONGEST_IDLE + 1, dtype=torch.float64)
        tables = {
            "between": _lines_between(config.anchors, config.horizon),
            "decay": (decays ** torch.tensor(config.anchors).unsqueeze(1)).unsqueeze(2).float(),
            "idle_decay": (decays ** idle.unsqueeze(1)).float(),
            "base_of": torch.tensor([names.index(base) for base, _ in config.experts]),
            "away_of": torch.tensor([away.index(base) if base in away else 0 for base, _ in config.experts]),
            "scored": torch.tensor(self.horizons).unsqueeze(1),
            "scored_steps": torch.tensor(self.horizons) - 1,
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def state_specs(self) -> tuple[StateSpec, ...]:
        """Return the kinds of state of a stream, in the order of `ExpertRows.flat`."""
        return self.layout.specs()

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of the columns of `score`."""
        return self.forecast_scores.names

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

        Returns:
            Outputs for the events, and the next state.
        """
        row = torch.arange(len(ds)) if row is None else row
        observed = y.abs() <= MAX_ABS_Y  # False for NaN
        time, status = self._time(ds, observed, rows.clock)
        f = self.layout.core.unpack(rows.core)
        f["offset"] = torch.where(time.new, y, f["offset"])
        value = torch.where(time.on, y - f["offset"], f["last"])

        entries, written, own = [], [], []
        for memory, table in zip(self._memories, rows.seasons, strict=True):
            at = memory.places.bin_of(time.period)
            before = at if memory.season.exact else memory.places.bin_of(time.value_before)
            around, old = memory.places.read(table, row, at, before)
            entries.append(around)
            written.append((before, old))
            own.append(memory.own(around))
        notes = self.layout.pending.read(rows.pending, row, time.period)
        ages = [self._age(time, memory) for memory in self._memories]
        means = [
            memory.means_before(around, age, self.config.constants)
            for memory, around, age in zip(self._memories, entries, ages, strict=True)
        ]
        width, has_width = self._learn(f, value, time, notes, own, entries, means)
        self._follow(f, value, time, own[0])
        ahead, tables = [], []
        for number, (memory, table) in enumerate(zip(self._memories, rows.seasons, strict=True)):
            at, old = written[number]
            other = [self._part(n, entries[n]) for n in range(len(entries))]
            part = value - f["slow"] - other[1 - number] if len(other) == 2 else value * 0
            entry = self._visit(f, number, Visit(value, part, width, has_width), old, time, ages[number])
            entries[number] = memory.replaced(entries[number], memory.places.bin_of(time.period), at, entry)
            tables.append(memory.places.write(table, row, at, entry))
        for memory, around in zip(self._memories, entries, strict=True):
            ahead.append(memory.ahead(around, time.period))
        f["last"] = value
        f["count"] = f["count"] + time.on.to(torch.float32)
        now = self.bases.at_period(f, own, ahead)
        f["away"] = torch.where(time.on, value - now, f["away"]) if self.away else f["away"]
        note = torch.stack([stamp(time.period, self.config.horizon), *(f[name] for name in NOTE[1:])])
        note = torch.cat([note, f["away"]])
        pending = self.layout.pending.write(rows.pending, row, time.period, time.newest_value == time.period, note)
        quantiles = self._forecast(f, ahead, time, calibrate)
        value = torch.where(time.on, y, f["offset"] + f["last"])
        score, anomaly, tail, resolved = self._score(f, value, own[0].newest[0], quantiles, time)
        if alarm_interval is None:
            alarm_interval = torch.tensor(slots_per_alarm(ONE_A_WEEK, parse(self.config.freq)))
        alarm = self._alarm(f, value, tail, resolved, rows.clock, time, alarm_interval)
        forecast = quantiles.reshape(-1, quantiles.shape[2]).t()
        forecast = forecast.reshape(-1, self.config.horizon, len(self.config.quantiles))
        clock = torch.stack([time.period, time.known + 1, time.newest_value], dim=1)
        following = ExpertRows(clock, self.layout.core.pack(f), tuple(tables), pending)
        return ExpertOutputs(forecast, status, score, anomaly, alarm.t()), following

    def _time(self, ds: Tensor, observed: Tensor, clock: Tensor) -> tuple[_Time, Tensor]:
        """Return when the events are, and their status."""
        period = periods_of(ds, parse(self.config.freq))
        newest, age, before = clock.unbind(1)
        seen = age > 0
        gap = period - newest
        advances = ~seen | (gap > 0)
        on = advances & observed
        had = (age - 1).clamp(min=0)
        known = torch.where(had > 0, had + torch.where(advances, gap, 0), on.to(torch.int64))
        period = torch.where(advances, period, newest)
        status = torch.where(observed, int(Status.OK), int(Status.MISSING))
        status = torch.where(seen & (gap > 1), int(Status.GAP), status)
        status = torch.where(known < self.context, int(Status.WARMING_UP), status)
        status = torch.where(advances, status, torch.where(gap < 0, int(Status.LATE), int(Status.DUPLICATE)))
        newest_value = torch.where(on, period, before)
        time = _Time(period, known, newest_value, before, on, on & (had == 0))
        return time, status.to(torch.int8)

    # Errors of what was said of this period.

    def _learn(
        self,
        f: Figures,
        value: Tensor,
        time: _Time,
        notes: Tensor,
        own: list[SeasonView],
        entries: list[Tensor],
        means: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Learn from the forecasts of this period; return the mean relative miss, `[B]`, and whether there is one."""
        then = dict(zip(NOTE, torch.split(notes[:, : len(NOTE)], 1, dim=1), strict=True))
        away = torch.cat([then["last"] - then["level"], notes[:, len(NOTE) :]], dim=1)
        distance = stamp(time.period, self.config.horizon) - then["stamp"]
        valid = time.on & (distance == self.bases.anchors)
        awake, by_group = self.bases.awake_then(valid, time.known, own)
        bases = [self.bases.said(base, then, own, entries, means, by_group) for base in self.bases.names]
        said = torch.cat(bases, dim=1)[:, self.base_of] + self.decay * away[:, self.away_of]
        errors = Errors(*(f[name] for name in Errors._fields))
        trusted = f["trusted"]
        point = (f["weight"] * said).sum(dim=1, keepdim=True)
        misses = Misses(*(f[name] for name in Misses._fields))
        unit = self.widths.units(point, f["offset"], f["size"], own[-1].width.unsqueeze(1) + 0 * point)
        miss = torch.where(valid, value - point, 0.0)
        size = self.widths.usual_size(f["last"], f["offset"], f["size"])
        f.update(self.widths.learn(misses, miss, unit, trusted, errors.judged, size, valid)._asdict())
        f.update(self.weights.learn(errors, (value - said).abs(), awake, valid)._asdict())
        counts = valid & (trusted > 0)
        relative = (miss.abs() / trusted.clamp(min=1e-30)).clamp(max=_LARGEST_MISS)
        relative = torch.where(counts, relative, 0.0).sum(dim=0)[0]
        number = counts.to(torch.float32).sum(dim=0)[0]
        return relative / number.clamp(min=1), number > 0

    # What follows the values.

    def _follow(self, f: Figures, value: Tensor, time: _Time, own: SeasonView) -> None:
        """Update the levels and trends with the value."""
        c, on = self.config.constants, time.on
        more = on & ~time.new
        one = torch.ones(1)
        age = f["count"].clamp(min=1)
        newest, older = one / age, one / (age + 1)

        def towards(name: str, least: float, weight: Tensor, target: Tensor) -> None:
            moved = f[name] + weight.clamp(min=least) * (target - f[name])
            f[name] = torch.where(more, moved, f[name])

        towards("drift", c.drift, newest, value - f["last"])
        towards("level", c.level, older, value)
        towards("slow", c.slow, older, value)
        towards("spread", c.spread, newest, (value - f["median"]).abs())
        limit = c.median * f["spread"]
        median = f["median"] + torch.maximum(torch.minimum(value - f["median"], limit), -limit)
        f["median"] = torch.where(more, median, f["median"])
        moved = f["holt"] + c.damping * f["trend"]
        holt = moved + c.holt * (value - moved)
        trend = c.trend * (holt - f["holt"]) + (1 - c.trend) * c.damping * f["trend"]
        f["holt"], f["trend"] = torch.where(more, holt, f["holt"]), torch.where(more, trend, f["trend"])
        size = (value + f["offset"]).abs()
        moved = torch.where(time.new, size, f["size"] + c.size * (size - f["size"]))
        f["size"] = torch.where(on, moved, f["size"])
        known = on & own.known[0]
        cycles = (time.known - self.config.seasons[0]).clamp(min=1).to(torch.float32)
        moved = f["season_drift"] + (one / cycles).clamp(min=c.season_drift) * (
            value - own.newest[0] - f["season_drift"]
        )
        f["season_drift"] = torch.where(known, moved, f["season_drift"])
        moved = f["phase_anomaly"] + c.anomaly * (value - own.mean[0] - f["phase_anomaly"])
        f["phase_anomaly"] = torch.where(known, moved, f["phase_anomaly"])

    def _part(self, number: int, entries: Tensor) -> Tensor:
        """Return a season's part of this period, `[B]`."""
        memory = self._memories[number]
        return entries[memory.places.first, memory.season.kept + 1] if memory.both else entries[0, 0] * 0

    def _age(self, time: _Time, memory: SeasonMemory) -> Tensor:
        """Return the number of whole cycles that the stream has had before this period, `[B]`."""
        before = (time.known - 1).clamp(min=0)
        return torch.div(before, memory.season.periods, rounding_mode="floor").to(torch.float32)

    def _visit(self, f: Figures, number: int, visit: Visit, old: Tensor, time: _Time, age: Tensor) -> Tensor:
        """Return the entry of the bin that is written: the period's own, or the one that the stream has left."""
        memory, c = self._memories[number], self.config.constants
        if memory.season.exact:
            return torch.where(time.on, memory.entry(old, visit, age, c), old)
        visits = memory.places.visit
        sums, had = f[f"visit{number}"], f["count"] > 0
        left = time.on & had & (visits(time.value_before) != visits(time.period))
        value, part, width, widths, count = sums.unbind(0)
        done = count.clamp(min=1)
        whole = Visit(value / done, part / done, width / widths.clamp(min=1), widths > 0)
        has_width = visit.has_width.to(torch.float32)
        newest = torch.stack([visit.value, visit.part, visit.width * has_width, has_width, torch.ones_like(value)])
        kept = torch.where(left | time.new, newest, sums + newest)
        f[f"visit{number}"] = torch.where(time.on, kept, sums)
        return torch.where(left, memory.entry(old, whole, age, c), old)

    # The forecast.

    def _forecast(self, f: Figures, ahead: list[SeasonView], time: _Time, calibrate: Tensor | float) -> Tensor:
        """Return the quantiles of the H periods that follow, `[H, Q, B]`."""
        c, last = self.config.constants, f["last"]
        size = self.widths.usual_size(last, f["offset"], f["size"])
        errors = Errors(*(f[name] for name in Errors._fields))
        scale = self.weights.scale(errors, c.prior * size, _LEAST_SCALE * f["size"])
        relative = self.weights.relative(errors, scale)
        weights = self.weights(relative, self.bases.awake_ahead(f, ahead), f["count"])
        trusted = scale * (weights * relative).sum(dim=1, keepdim=True)
        idle = (time.period - time.newest_value).clamp(0, LONGEST_IDLE)
        away = torch.cat([(last - f["level"]).unsqueeze(0), f["away"]])[self.away_of] * self.idle_decay[idle].t()
        rest = (weights * (self.decay * away)).sum(dim=1, keepdim=True)
        by_base = dict(zip(self.bases.names, self.bases.by_base(weights), strict=True))
        for base, weight in by_base.items():
            rest = rest + weight * value if (value := self.bases.without_shape(base, f, idle)) is not None else rest
        shaped, shares = self.bases.shapes(by_base, ahead, last)
        misses = Misses(*(f[name] for name in Misses._fields))
        f["weight"], f["trusted"] = weights, trusted
        width, quantile = self.widths.at_anchors(misses, trusted, errors.judged, size, calibrate)
        lines = self._lines(torch.cat([rest, width], dim=1))
        point = lines[:, :1]
        if shaped:
            weighted = self._lines(torch.cat(shares, dim=1)) * torch.stack(shaped, dim=1)
            point = point + weighted.sum(dim=1, keepdim=True)
        unit = self.widths.units(point, f["offset"], f["size"], ahead[-1].width[1:].unsqueeze(1))
        spread = self.widths.width(lines[:, 1:], unit)
        return (point + f["offset"]) + spread * self._lines(quantile)

    def _lines(self, at_anchors: Tensor) -> Tensor:
        """Return `[H, n, B]`, figures `[A, n, B]` on lines between the anchors.

        A product with a single column may round differently, so n is never 1.
        """
        lines = torch.matmul(self.between, at_anchors.reshape(len(self.config.anchors), -1))
        return lines.reshape(self.config.horizon, at_anchors.shape[1], -1)

    # How well earlier forecasts did.

    def _score(
        self, f: Figures, value: Tensor, naive: Tensor, quantiles: Tensor, time: _Time
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score the forecasts of this period, and keep today's: one of each horizon at a time, until it is due.

        Returns:
            Scores, anomaly, the return period of the observation beyond the quantiles, and whether there was a
            forecast of it.
        """
        now = stamp(time.period, self.config.horizon)
        kept = f["published"]
        resolved = time.on & (now - kept[-1] == self.scored.to(torch.float32))
        scale = f["plain"][0, 0] / f["judged"][0, 0].clamp(min=1e-9)
        scale = torch.maximum(scale, _LEAST_SCALE * f["size"]).clamp(min=_ABSOLUTE_FLOOR)
        published = kept[:-1].reshape(-1, kept.shape[2]).t()
        low, middle, high = kept[0, 0], kept[self.forecast_scores.middle, 0], kept[-2, 0]
        f["tails"], periods = self.tails(f["tails"], miss_of(value, low, middle, high), resolved[0])
        score, anomaly = self.forecast_scores(value, published, scale, resolved.t(), naive + f["offset"], periods)
        tail = torch.where(value < low, periods[0], torch.where(value > high, periods[1], 0.0))
        tail = torch.where(resolved[0], tail / 2, 0.0)
        f["said"] = torch.where(resolved[0], middle, value)
        new = torch.cat([quantiles[self.scored_steps].transpose(0, 1), (now + 0 * kept[-1]).unsqueeze(0)])
        begins = torch.remainder(time.period, self.scored) == 0
        f["published"] = torch.where(begins, new, kept)
        return score, anomaly, tail, resolved[0]

    def _alarm(
        self, f: Figures, value: Tensor, tail: Tensor, resolved: Tensor, clock: Tensor, time: _Time, interval: Tensor
    ) -> Tensor:
        """Take the event in as evidence that something is wrong; return what there is of an alarm, `[8, B]`."""
        newest, age, newest_value = clock.unbind(1)
        had, passed = age > 1, (time.period - newest).clamp(max=LONGEST_SILENCE)
        idle = (time.period - newest_value).clamp(max=LONGEST_SILENCE)
        now = Observed(
            y=value,
            expected=f["said"],
            valid=resolved,
            has=time.on,
            advances=time.on | (had & (passed > 0)),
            idle=torch.where(had, idle, 0).to(torch.float32),
            passed=torch.where(had, passed, 0).to(torch.float32),
            tail=tail,
        )
        alarm: Tensor
        f["alarms"], alarm = self.alarms(f["alarms"], now, interval)
        return alarm


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
