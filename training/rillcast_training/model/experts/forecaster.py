"""The forecaster of experts alone: the step of a stream, without a network.

Owns: the semantics of an event, the bases, and how their mixture becomes a forecast. Does not know: how weights and
widths are learnt (`weights`, `widths`), or how a season is remembered (`seasons`).

An expert is a base and a decay: it says `base(t + h) + decay^h * (y_t - base(t))`. Decay 0 returns to the base at once,
1 never does. Bases are the level, and of each season the newest value, the running mean and the smoothed mean of the
phase, the sum of two seasons, and a few trends. The mixture is taken by bases and not by experts: with w the weights at
the anchors, W_b their sum over the experts of base b, and both on lines between the anchors,

    median(h) = sum_b W_b(h) base_b(t + h) + sum_b sum_k-of-b w_k decay_k^h (y_t - base_b(t)) + trends

so there is no array of experts by slots.

State of a stream: see `rillcast_training.model.experts.layout`. Values are kept minus the stream's first one, so that a
series whose level dwarfs its change keeps that change in float32.

Semantics: a slot without an event and one with a missing value leave all memories as they are; forecasts made in a slot
without a value are not judged. Distances from the bases decay with the slots since the newest value. A repeated or late
event leaves the state unchanged and brings the same forecast. A gap of any length costs one step.

Invariants: nothing is learnt of a slot before it has come; rows do not affect each other; quantiles never cross.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast.bundle.bundle import StateSpec, Status
from rillcast.bundle.frequency import parse
from rillcast_training.model.calibration import anchor_horizons
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import NOTE, Layout, stamp
from rillcast_training.model.experts.seasons import SeasonMemory, SeasonView, Visit
from rillcast_training.model.experts.weights import Errors, ExpertWeights
from rillcast_training.model.experts.widths import Misses, Widths
from rillcast_training.model.features import MAX_ABS_Y
from rillcast_training.model.forecaster import StepOutputs
from rillcast_training.model.periods import periods_of
from rillcast_training.model.scores import ForecastScores

_LONGEST_IDLE: Final = 1023  # slots without a value until a decaying distance no longer changes
_TRENDS: Final = ("holt", "drift", "median")
_OF_SEASON: Final = {"naive": "newest", "phase": "mean", "smooth": "smooth"}
_LEAST_SCALE: Final = 1e-6  # of the size, for the scores of a constant stream
_ABSOLUTE_FLOOR: Final = 1e-20
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


class _Time(NamedTuple):
    """When an event is, `[B]` each: its slot, slots since the first value, the newest value's slot, and what it does."""

    period: Tensor
    known: Tensor
    newest_value: Tensor
    value_before: Tensor
    on: Tensor
    new: Tensor


class ExpertForecaster(nn.Module):
    """No parameters; see the module's docstring."""

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        seasons = config.memories
        self.bases = tuple(dict.fromkeys(base for base, _ in config.experts))
        self.away = tuple(base for base in self.bases if base != "level" and _decays(config, base))
        self.groups, group_of = _groups(config)
        self.horizons = anchor_horizons(config.horizon)
        self.layout = Layout(config, len(self.groups), self.away, self.horizons)
        self.memories = nn.ModuleList(
            SeasonMemory(number, seasons, places, config.horizon)  # type: ignore[arg-type]
            for number, places in enumerate(self.layout.places)
        )
        self.weights = ExpertWeights(config, self.groups, group_of)
        self.widths = Widths(config)
        self.forecast_scores = ForecastScores(config.quantiles, self.horizons)
        self._tables()

    def _tables(self) -> None:
        config, c = self.config, self.config.constants
        anchors = torch.tensor(config.anchors, dtype=torch.float64)
        decays = torch.tensor([decay for _, decay in config.experts], dtype=torch.float64)
        steps = torch.arange(1, config.horizon + 1, dtype=torch.float64)
        between = torch.zeros(config.horizon, len(anchors))
        for h in range(config.horizon):
            right = next(a for a, anchor in enumerate(config.anchors) if anchor > h)
            left = max(0, right - 1)
            width = config.anchors[right] - config.anchors[left]
            share = (h + 1 - config.anchors[left]) / width if width else 1.0
            between[h, left] += 1 - share
            between[h, right] += share
        idle = torch.arange(_LONGEST_IDLE + 1, dtype=torch.float64)
        damped = (c.damping, c.damping * (1 - c.damping**anchors) / (1 - c.damping))
        tables = {
            "between": between,
            "decay": (decays ** anchors.unsqueeze(1)).unsqueeze(2),
            "anchors_ahead": torch.tensor(config.anchors),
            "anchors": anchors.reshape(-1, 1, 1),
            "damped": damped[1].reshape(-1, 1, 1),
            "idle_decay": decays ** idle.unsqueeze(1),
            "idle_damping": torch.stack([c.damping**idle, c.damping * (1 - c.damping**idle) / (1 - c.damping)], dim=1),
            "base_of": torch.tensor([self.bases.index(base) for base, _ in config.experts]),
            "away_of": torch.tensor([self.away.index(base) + 1 if base in self.away else 0 for base, _ in config.experts]),
            "scored_steps": torch.tensor(self.horizons) - 1,
            "scored": torch.tensor(self.horizons).unsqueeze(1),
        }  # fmt: skip
        for number, season in enumerate(config.memories):
            back = torch.div(torch.tensor(config.anchors) - 1, season.slots, rounding_mode="floor")
            tables[f"back{number}"] = back
            tables[f"needed{number}"] = ((back + 1) * season.slots).unsqueeze(1)
        for name, table in tables.items():
            exact = table.to(torch.float32) if table.dtype == torch.float64 else table
            self.register_buffer(name, exact.contiguous(), persistent=False)
        del steps

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
    ) -> tuple[StepOutputs, ExpertRows]:
        """Advance each stream by one event.

        Args:
            ds: `[B]` int64, milliseconds since the epoch.
            y: `[B]` float32; NaN, or beyond `MAX_ABS_Y`, is missing.
            rows: State of the streams.
            calibrate: `[]`, 1 = quantiles as the stream's own errors have them, 0 = those of a normal distribution. What
                is learnt does not depend on it.
            row: `[B]` int64, row of the tables of each event; None = the order of the events.

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
        for memory, table in zip(self.memories, rows.seasons, strict=True):
            at = memory.places.bin_of(time.period)
            before = at if memory.season.exact else memory.places.bin_of(time.value_before)
            around, old = memory.places.read(table, row, at, before)
            entries.append(around)
            written.append((before, old))
            own.append(memory.own(around))
        notes = self.layout.pending.read(rows.pending, row, time.period)
        width, has_width = self._learn(f, value, time, notes, own, entries)
        self._follow(f, value, time, own[0])
        ahead, tables = [], []
        for number, (memory, table) in enumerate(zip(self.memories, rows.seasons, strict=True)):
            at, old = written[number]
            other = [self._part(n, entries[n]) for n in range(len(entries))]
            part = value - f["slow"] - other[1 - number] if len(other) == 2 else value * 0
            entry = self._visit(f, number, Visit(value, part, width, has_width), old, time)
            entries[number] = memory.replaced(entries[number], memory.places.bin_of(time.period), at, entry)
            tables.append(memory.places.write(table, row, at, entry))
        for memory, around in zip(self.memories, entries, strict=True):
            ahead.append(memory.ahead(around, time.period))
        f["last"] = value
        f["count"] = f["count"] + time.on.to(torch.float32)
        now = self._at_slot(f, ahead)
        f["away"] = torch.where(time.on, value - now, f["away"]) if self.away else f["away"]
        note = torch.stack([stamp(time.period, self.config.horizon), *(f[name] for name in NOTE[1:])])
        note = torch.cat([note, f["away"]])
        pending = self.layout.pending.write(rows.pending, row, time.period, time.newest_value == time.period, note)
        quantiles = self._forecast(f, ahead, time, calibrate)
        score, anomaly = self._score(f, y, own[0].newest[0], quantiles, time)
        forecast = quantiles.reshape(-1, quantiles.shape[2]).t()
        forecast = forecast.reshape(-1, self.config.horizon, len(self.config.quantiles))
        clock = torch.stack([time.period, time.known + 1, time.newest_value], dim=1)
        following = ExpertRows(clock, self.layout.core.pack(f), tuple(tables), pending)
        return StepOutputs(forecast, status, score, anomaly), following

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

    # Errors of what was said of this slot.

    def _learn(
        self, f: Figures, value: Tensor, time: _Time, notes: Tensor, own: list[SeasonView], entries: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Learn from the forecasts of this slot; return the mean relative miss, `[B]`, and whether there is one."""
        then = dict(zip(NOTE, notes[:, : len(NOTE)].split(1, dim=1), strict=True))
        away = torch.cat([then["last"] - then["level"], notes[:, len(NOTE) :]], dim=1)
        distance = stamp(time.period, self.config.horizon) - then["stamp"]
        valid = time.on & (distance == self.anchors)
        awake, by_group = self._awake_then(valid, time, own)
        bases = [self._said(base, f, then, own, entries, by_group) for base in self.bases]
        said = torch.cat(bases, dim=1)[:, self.base_of] + self.decay * away[:, self.away_of]
        errors = Errors(f["error"], f["reference"], f["judged"], f["plain"])
        trusted = f["trusted"]
        point = (f["weight"] * said).sum(dim=1, keepdim=True)
        misses = Misses(f["miss"], f["missed"], f["unit"], f["loss"], f["quantile"])
        unit = self.widths.units(point, f["offset"], f["size"], own[-1].width.unsqueeze(1) + 0 * point)
        miss = torch.where(valid, value - point, 0.0)
        f.update(self.weights.learn(errors, (value - said).abs(), awake, valid)._asdict())
        f.update(self.widths.learn(misses, miss, unit, trusted, valid)._asdict())
        counts = valid & (trusted > 0)
        relative = torch.where(counts, miss.abs() / trusted.clamp(min=1e-30), 0.0).sum(dim=0)[0]
        number = counts.to(torch.float32).sum(dim=0)[0]
        return relative / number.clamp(min=1), number > 0

    def _said(
        self,
        base: str,
        f: Figures,
        then: Figures,
        own: list[SeasonView],
        entries: list[Tensor],
        awake: dict[str, Tensor],
    ) -> Tensor:
        """Return what a base said of this slot at each anchor, `[A, 1, B]`; the last value then, where it slept."""
        if base == "level":
            return then["level"]
        if base == "holt":
            return then["holt"] + then["trend"] * self.damped
        if base == "drift":
            return then["last"] + f["drift"] * self.anchors
        if base == "median":
            return then["median"]
        if base == "double":
            return then["slow"] + (own[0].part + own[1].part)
        trend = {"phase_anomaly0": "phase_anomaly", "naive_drift0": "season_drift"}.get(base)
        kind, number = (base.split("_")[0], 0) if trend else (base[:-1], int(base[-1]))
        value = self._newest(number, entries) if kind == "naive" else getattr(own[number], _OF_SEASON[kind])
        value = value + then[trend] if trend else value
        return torch.where(awake[f"{kind}{number}"], value, then["last"])

    def _newest(self, number: int, entries: list[Tensor]) -> Tensor:
        """Return the newest values of this phase that there were at each anchor, `[A, 1, B]`."""
        entry = entries[number][self.layout.places[number].first]
        return entry[getattr(self, f"back{number}")].unsqueeze(1)

    def _awake_then(
        self, valid: Tensor, time: _Time, own: list[SeasonView]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return which groups had something to say of this slot, `[A, G, B]` bool and `[A, 1, B]` by group."""
        states = {}
        for group in self.groups:
            if group in ("plain", "double"):
                states[group] = valid
                continue
            number = int(group[-1])
            known = own[number].smooth_known if group.startswith("smooth") else own[number].known
            if group.startswith("naive"):
                known = known & (time.known > getattr(self, f"needed{number}"))
            states[group] = valid & known.unsqueeze(1)
        return torch.cat(list(states.values()), dim=1), states

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
        """Return a season's part of this slot, `[B]`."""
        memory = self.memories[number]
        return entries[memory.places.first, memory.season.kept + 1] if memory.both else entries[0, 0] * 0

    def _visit(self, f: Figures, number: int, visit: Visit, old: Tensor, time: _Time) -> Tensor:
        """Return the entry of the bin that is written: the slot's own, or the one that the stream has left."""
        memory, c = self.memories[number], self.config.constants
        age = torch.div((time.known - 1).clamp(min=0), memory.season.slots, rounding_mode="floor").to(torch.float32)
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

    def _at_slot(self, f: Figures, ahead: list[SeasonView]) -> Tensor:
        """Return what each base with a decay says of the newest slot itself, `[n, B]`."""
        figures = []
        for base in self.away:
            if base == "double":
                figures.append(f["slow"] + ahead[0].part[0] + ahead[1].part[0])
                continue
            view = ahead[int(base[-1])]
            known = view.smooth_known[0] if base.startswith("smooth") else view.known[0]
            figures.append(torch.where(known, getattr(view, _OF_SEASON[base[:-1]])[0], f["last"]))
        return torch.stack(figures)

    # The forecast.

    def _forecast(
        self, f: Figures, ahead: list[SeasonView], time: _Time, calibrate: Tensor | float
    ) -> Tensor:
        """Return the quantiles of the H slots that follow, `[H, Q, B]`."""
        config, last = self.config, f["last"]
        errors = Errors(f["error"], f["reference"], f["judged"], f["plain"])
        weights = self.weights(errors, self._awake_ahead(f, ahead))
        trusted = self.weights.missed(errors, weights)
        idle = (time.period - time.newest_value).clamp(0, _LONGEST_IDLE)
        away = torch.cat([(last - f["level"]).unsqueeze(0), f["away"]])[self.away_of] * self.idle_decay[idle].t()
        rest = (weights * (self.decay * away)).sum(dim=1, keepdim=True)
        by_base = dict(zip(self.bases, self._by_base(weights), strict=True))
        for base, weight in by_base.items():
            rest = rest + weight * value if (value := self._without_shape(base, f, idle)) is not None else rest
        shaped, shares = self._shapes(by_base, ahead, last)
        prior = config.constants.prior * ((last + f["offset"]).abs() + 0.1 * f["size"])
        prior = torch.where(f["count"] > 0, prior, 0.0)
        misses = Misses(f["miss"], f["missed"], f["unit"], f["loss"], f["quantile"])
        f["weight"], f["trusted"] = weights, trusted
        width, quantile = self.widths.at_anchors(misses, trusted, prior, calibrate)
        lines = self._lines(torch.cat([rest, width[:, :1], self.widths.shared(misses, width)], dim=1))
        point = lines[:, :1]
        if shaped:
            weighted = self._lines(torch.cat(shares, dim=1)) * torch.stack(shaped, dim=1)
            point = point + weighted.sum(dim=1, keepdim=True)
        unit = self.widths.units(point, f["offset"], f["size"], ahead[-1].width[1:].unsqueeze(1))
        spread = self.widths.width(lines[:, 2:], lines[:, 1:2], unit)
        return (point + f["offset"]) + spread * self._lines(quantile)

    def _lines(self, at_anchors: Tensor) -> Tensor:
        """Return `[H, n, B]`, figures `[A, n, B]` on lines between the anchors.

        There are several columns, as a product with a single one may round differently (`rillcast_training.model.features`).
        """
        lines = torch.matmul(self.between, at_anchors.reshape(len(self.config.anchors), -1))
        return lines.reshape(self.config.horizon, at_anchors.shape[1], -1)

    def _awake_ahead(self, f: Figures, ahead: list[SeasonView]) -> Tensor:
        """Return which groups have something to say of the slots at the anchors, `[A, G, B]` bool."""
        any_value = (f["count"] > 0).reshape(1, 1, -1)
        states = []
        for group in self.groups:
            if group in ("plain", "double"):
                states.append(any_value & torch.ones(len(self.config.anchors), 1, 1, dtype=torch.bool))
                continue
            view = ahead[int(group[-1])]
            known = view.smooth_known if group.startswith("smooth") else view.known
            states.append(known[self.anchors_ahead].unsqueeze(1) & any_value)
        return torch.cat(states, dim=1)

    def _by_base(self, weights: Tensor) -> list[Tensor]:
        """Return the sums of the weights of each base's experts, `[A, 1, B]` each."""
        sizes = [sum(base == one for one, _ in self.config.experts) for base in self.bases]
        return [
            part if part.shape[1] == 1 else part.sum(dim=1, keepdim=True) for part in torch.split(weights, sizes, dim=1)
        ]

    def _without_shape(self, base: str, f: Figures, idle: Tensor) -> Tensor | None:
        """Return the part of a base that needs no place of a season, `[A, 1, B]` or `[B]`; None = there is none."""
        if base == "holt":
            left, passed = self.idle_damping[idle].unbind(1)
            return f["holt"] + f["trend"] * (passed + left * self.damped)
        if base == "drift":
            return f["last"] + f["drift"] * (self.anchors + idle.to(torch.float32))
        if base == "median":
            return f["median"]
        names = {"level": "level", "double": "slow", "naive_drift0": "season_drift", "phase_anomaly0": "phase_anomaly"}
        return f[names[base]] if base in names else None

    def _shapes(
        self, by_base: dict[str, Tensor], ahead: list[SeasonView], last: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return what the seasons say of the H slots, `[H, B]` each, and the weights `[A, 1, B]` of each."""
        shaped, shares = [], []
        for base, weight in by_base.items():
            if base[:-1] not in _OF_SEASON:
                continue
            view = ahead[int(base[-1])]
            known = view.smooth_known if base.startswith("smooth") else view.known
            values = getattr(view, _OF_SEASON[base[:-1]])[1:]
            shaped.append(torch.where(known[1:], values, last))
            companion = {"naive0": "naive_drift0", "phase0": "phase_anomaly0"}.get(base)
            shares.append(weight + by_base[companion] if companion in by_base else weight)
        if "double" in by_base:
            shaped.append(ahead[0].part[1:] + ahead[1].part[1:])
            shares.append(by_base["double"])
        return shaped, shares

    # How well earlier forecasts did.

    def _score(
        self, f: Figures, y: Tensor, naive: Tensor, quantiles: Tensor, time: _Time
    ) -> tuple[Tensor, Tensor]:
        """Score the forecasts of this slot, and keep today's: of each horizon one at a time, until its slot comes."""
        now = stamp(time.period, self.config.horizon)
        kept = f["published"]
        resolved = time.on & (now - kept[-1] == self.scored.to(torch.float32))
        value = torch.where(time.on, y, 0.0)
        scale = f["plain"][0, 0] / f["judged"][0, 0].clamp(min=1e-9)
        scale = torch.maximum(scale, _LEAST_SCALE * f["size"]).clamp(min=_ABSOLUTE_FLOOR)
        published = kept[:-1].reshape(-1, kept.shape[2]).t()
        score, anomaly = self.forecast_scores(value, published, scale, resolved.t(), naive + f["offset"])
        new = torch.cat([quantiles[self.scored_steps].transpose(0, 1), (now + 0 * kept[-1]).unsqueeze(0)])
        begins = torch.remainder(time.period, self.scored) == 0
        f["published"] = torch.where(begins, new, kept)
        return score, anomaly


def _decays(config: ExpertsConfig, base: str) -> bool:
    return any(one == base and decay for one, decay in config.experts)


def _groups(config: ExpertsConfig) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the groups of experts that wake together, the plain ones first, and the group of each expert."""
    of = []
    for base, _ in config.experts:
        if base in ("level", *_TRENDS):
            of.append("plain")
        elif base in ("naive_drift0", "phase_anomaly0"):
            of.append(f"{base.split('_')[0]}0")
        else:
            of.append(base)
    groups = tuple(dict.fromkeys(of))
    return groups, tuple(groups.index(group) for group in of)
