"""The bases of the experts: what each of them said of a period, and says of those ahead.

Owns: the names of the bases, which of them wake together, and the parts of the mixture that a base gives. Does not
know: errors, weights, widths, or how a season is remembered.

A base says nothing of a phase that has no value yet: its experts sleep. Where such an expert still has a weight,
between two anchors or since the newest forecast, the last value stands for the base.

What an expert says at an anchor is a figure plus a factor times another figure: a base and its distance from the last
value times the decay, a level and its trend times the periods, a season's value and its change. So all experts at all
anchors are two selections of rows, a product with a constant, and a sum.

Shapes: `[A, ..., B]`, anchors and batch; `[H, ..., B]`, periods ahead.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import NOTE, SeasonPlaces
from rillcast_training.model.experts.levels import LEVELS
from rillcast_training.model.experts.seasons import SeasonView

LONGEST_IDLE: Final = 1023  # periods without a value until a decaying distance no longer changes
_OF_SEASON: Final = {"naive": 0, "phase": 1}
_COMPANIONS: Final = {"naive_drift0": "naive0", "phase_anomaly0": "phase0"}
_PLAIN: Final = {"holt": "holt", "drift": "last", "median": "median"}
_FACTOR: Final = {"holt": "trend", "drift": "drift", "naive_drift0": "season_drift", "phase_anomaly0": "phase_anomaly"}
"""The figure that grows with the horizon, or is added to a season's value."""


class Noted(NamedTuple):
    """Figures of the periods when something was said.

    Attributes:
        all: `[A, n, B]` of `NOTE`, and the distances from the bases.
        last: `[A, 1, B]` newest value.
        level: `[A, 1, B]`.
        slow: `[A, 1, B]` slow level.
    """

    all: Tensor
    last: Tensor
    level: Tensor
    slow: Tensor


class Bases(nn.Module):
    """No parameters.

    Attributes:
        names: Names of the bases.
        away: Those whose distance from the newest value is kept.
    """

    anchors: Tensor
    anchors_ahead: Tensor
    factor: Tensor
    change_rows: Tensor
    said_rows: Tensor
    said_factors: Tensor
    then_rows: Tensor
    then_groups: Tensor
    needed: Tensor
    ahead_rows: Tensor
    ahead_factors: Tensor
    shape_rows: Tensor
    idle_table: Tensor
    members: Tensor
    is_member: Tensor

    def __init__(self, config: ExpertsConfig, places: list[SeasonPlaces]) -> None:
        super().__init__()
        self.config, self.seasons = config, len(places)
        self.names = tuple(dict.fromkeys(base for base, _ in config.experts))
        self.away = away_from(config)
        self.rows = self._rows()
        d = config.constants.damping
        anchors = torch.tensor(config.anchors, dtype=torch.float64).unsqueeze(1)
        idle = torch.arange(LONGEST_IDLE + 1, dtype=torch.float64)

        def damped(periods: Tensor) -> Tensor:
            return d * (1 - d**periods) / (1 - d)

        decays = torch.tensor([decay for _, decay in config.experts], dtype=torch.float64)
        factor, idle_table = decays**anchors, decays.unsqueeze(1) ** idle
        for expert, (base, _) in enumerate(config.experts):
            if base in _FACTOR:
                factor[:, expert] = damped(anchors[:, 0]) if base == "holt" else anchors[:, 0] if base == "drift" else 1
                idle_table[expert] = d**idle if base == "holt" else 1
        idle_table = torch.cat([idle_table, damped(idle).unsqueeze(0), idle.unsqueeze(0)])
        tables = {
            "anchors": anchors.reshape(-1, 1, 1).float(),
            "anchors_ahead": torch.tensor(config.anchors) - 1,
            "factor": factor.unsqueeze(2).float(),
            "idle_table": idle_table.float(),
            **self._said_tables(places),
            **self._ahead_tables(),
            **self._member_tables(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def rows_of_experts(self) -> Tensor:
        """Return `[K, R]`: which experts have which of the rows that `shapes` returns."""
        return torch.tensor([[float(base in row) for row in self.rows.values()] for base, _ in self.config.experts])

    def _rows(self) -> dict[str, set[str]]:
        """Return the bases that have each of the rows that `shapes` returns."""
        named = [*(f"{kind}{number}" for number in range(self.seasons) for kind in _OF_SEASON), "double"]
        rows = {row: {row, *_with(row)} & set(self.names) for row in named}
        return {row: bases for row, bases in rows.items() if bases}

    def _member_tables(self) -> dict[str, Tensor]:
        """Return the experts of each row, as many for all, and which of them count."""
        experts = [
            [k for k, (base, _) in enumerate(self.config.experts) if base in bases] for bases in self.rows.values()
        ]
        most = max(map(len, experts), default=0)
        filled = [own + [own[0]] * (most - len(own)) for own in experts]
        is_one = [[1.0] * len(own) + [0.0] * (most - len(own)) for own in experts]
        shape = (len(experts), most)
        return {
            "members": torch.tensor(filled, dtype=torch.int64).reshape(shape),
            "is_member": torch.tensor(is_one).reshape(-1, 1),
        }

    def _said_tables(self, places: list[SeasonPlaces]) -> dict[str, Tensor]:
        """Return which rows of which array `said` takes."""
        then, needed = [], [torch.full((len(self.config.anchors),), -1)]
        count = sum(one.columns.width for one in places)  # rows of the bins' entries; earlier means follow
        start = 0
        for one in places:
            back = [(anchor - 1) // one.season.periods for anchor in self.config.anchors]
            needed.append(torch.tensor([(visits + 1) * one.season.periods for visits in back]))
            older = one.columns.width_column
            then.append(torch.tensor([start if not visits else start + older + visits for visits in back]))
            then.append(torch.tensor([start + 1 if not visits else count + visits - 1 for visits in back]))
            start += one.columns.width
            count += one.season.kept - 1
        rows = {name: row for row, name in enumerate((*NOTE, *self.away))}  # of the notes; away from a base by its name
        seasonal = {f"{kind} {n}": len(rows) + 2 * n + k for n in range(len(places)) for kind, k in _OF_SEASON.items()}
        away_from_level = len(rows) + len(seasonal)
        base, factor = [], []
        for name, decay in self.config.experts:
            companion = _COMPANIONS.get(name, name)
            if name == "double":
                base.append(away_from_level + 1 + len(_COMPANIONS))
            elif companion[:-1] in _OF_SEASON:
                base.append(seasonal[f"{companion[:-1]} {companion[-1]}"])
            else:
                base.append(NOTE.index(_PLAIN.get(name, name)))
            if name in _COMPANIONS:
                factor.append(away_from_level + 1 + list(_COMPANIONS).index(name))
            elif name in _FACTOR:
                factor.append(NOTE.index(_FACTOR[name]))
            else:
                factor.append(away_from_level if name == "level" or not decay or name == "median" else rows[name])
        return {
            "then_rows": torch.stack(then, dim=1),
            "then_groups": torch.tensor([1 + n for n in range(len(places)) for _ in _OF_SEASON]),
            "needed": torch.stack(needed, dim=1).unsqueeze(2),
            "change_rows": torch.tensor([NOTE.index(_FACTOR[name]) for name in _COMPANIONS]),
            "said_rows": torch.tensor(base),
            "said_factors": torch.tensor(factor),
        }

    def _ahead_tables(self) -> dict[str, Tensor]:
        """Return which rows `without_shape` takes of the levels and the last value, away, and some more."""
        away = len(LEVELS) + 1
        more = away + len(self.away)  # away from the level, holt and drift after the idle periods, zero
        own = {"level": LEVELS.index("level"), "double": LEVELS.index("slow"), "median": LEVELS.index("median")}
        own |= {"holt": more + 1, "drift": more + 2}
        base, factor = [], []
        for name, _ in self.config.experts:
            base.append(own.get(name, more + 3))
            if name in _FACTOR:
                factor.append(LEVELS.index(_FACTOR[name]))
            else:
                factor.append(away + self.away.index(name) if name in self.away else more)
        seasonal = [f"{kind}{n}" for n in range(self.seasons) for kind in _OF_SEASON]
        places = {name: row for row, name in enumerate([*seasonal, *(["double"] if self.config.has_parts else [])])}
        shape = [places.get(_COMPANIONS.get(name, name), len(places)) for name, _ in self.config.experts]
        return {
            "ahead_rows": torch.tensor(base),
            "ahead_factors": torch.tensor(factor),
            "shape_rows": torch.tensor(shape),
        }

    # What was said of a period that has come.

    def means_before(self, entries: list[Tensor], places: list[SeasonPlaces], ages: Tensor) -> list[Tensor]:
        """Return the running means of the period's bins before each of the newest visits but the first, `[1, B]` each.

        Args:
            entries: Own entries, `[width, B]` each.
            places: Of the seasons.
            ages: `[S, B]` number of cycles before.
        """
        means = []
        for number, (entry, one) in enumerate(zip(entries, places, strict=True)):
            mean, older = entry[1:2], one.columns.width_column
            for visit in range(1, one.season.kept):
                newest = entry[:1] if visit == 1 else entry[older + visit - 1 : older + visit]
                age = ages[number : number + 1]
                age = (age if visit == 1 else age - (visit - 1)).clamp(2, 1 / self.config.constants.phase)
                mean = (mean * age - newest) / (age - 1)
                means.append(mean)
        return means

    def awake_then(self, due: Tensor, known_periods: Tensor, on: Tensor, known: Tensor) -> Tensor:
        """Return which groups had something to say of this period, `[A, G, B]` bool, the plain ones first.

        Args:
            due: `[A, 1, B]` bool, whether there is a note of the period at which it was said.
            known_periods: `[1, B]` periods since the stream's first value.
            on: `[1, B]` bool, whether the period has a value.
            known: `[S, B]` bool, whether the seasons know the phase.
        """
        return (known_periods > self.needed) & torch.cat([on, known]) & due

    def said(self, noted: Noted, entries: Tensor, parts: Tensor | None, awake: Tensor, awake_season: Tensor) -> Tensor:
        """Return what every expert said of this period at each anchor, `[A, K, B]`.

        Args:
            noted: Of the periods when it was said.
            entries: `[n, B]` own entries of the seasons before they learn it, then `means_before`.
            parts: `[1, B]` sum of the seasons' parts of it.
            awake: `[A, G, B]`, `awake_then`.
            awake_season: `[A, 1, B]`, that of the first season.
        """
        notes, last, level, slow = noted
        of_seasons = torch.where(awake[:, self.then_groups], entries[self.then_rows], last)
        changes = torch.where(awake_season, notes[:, self.change_rows], 0.0)  # that of a value which is not there is 0
        figures = [notes, of_seasons, last - level, changes, *([] if parts is None else [slow + parts])]
        rows = torch.cat(figures, dim=1)
        return rows[:, self.said_rows] + self.factor * rows[:, self.said_factors]

    # What is said of the periods ahead.

    def at_period(
        self, slow: Tensor, value: Tensor, entries: list[Tensor], known: Tensor, views: list[SeasonView]
    ) -> Tensor:
        """Return what each base with a decay says of the newest period itself, `[n, B]`.

        Args:
            slow: `[1, B]` slow level after the period's value.
            value: `[1, B]`.
            entries: Own entries before they learnt it.
            known: `[S, B]` bool, which of them knew the phase.
            views: What the seasons say since.
        """
        figures = []
        for base in self.away:
            if base == "double":
                figures.append(slow + self.parts_now(views))
                continue
            number, view = int(base[-1]), views[int(base[-1])]
            # The newest value of a phase is the period's own by now; that of a bin of several periods is not.
            if base.startswith("naive") and self.config.memories[number].exact:
                figures.append(torch.where(known[number : number + 1], entries[number][:1], value))
            else:
                row = _OF_SEASON[base[:-1]]
                figures.append(view.values_now[row : row + 1])
        return torch.cat(figures)

    def parts_now(self, views: list[SeasonView]) -> Tensor:
        """Return the sum of the seasons' parts of the newest period, `[1, B]`."""
        short, long = (view.part_now for view in views)
        assert short is not None  # there are two seasons
        assert long is not None
        return short + long

    def awake_ahead(self, count: Tensor, views: list[SeasonView]) -> Tensor:
        """Return which groups have something to say of the periods at the anchors, `[A, G, B]` bool."""
        known = torch.cat([views[0].width > 0, *(view.known for view in views)], dim=1)
        return known[self.anchors_ahead] & (count > 0)

    def without_shape(self, levels: Tensor, value: Tensor, away: Tensor, idle: Tensor) -> Tensor:
        """Return the part of every expert's forecast that needs no place of a season, `[A, K, B]`.

        Args:
            levels: Of `Levels`.
            value: `[1, B]` newest value.
            away: `[n, B]` distances from the bases with a decay.
            idle: `[B]` periods since the newest value.
        """
        decayed, passed = torch.split(self.idle_table[:, idle], [len(self.config.experts), 2])
        level = LEVELS.index("level")
        trends = torch.cat([levels[LEVELS.index("trend") :], levels[LEVELS.index("drift") : LEVELS.index("drift") + 1]])
        trends = torch.cat([levels[LEVELS.index("holt") : LEVELS.index("holt") + 1], value]) + trends * passed
        rows = torch.cat([levels, value, away, value - levels[level : level + 1], trends, 0 * value])
        return rows[self.ahead_rows] + self.factor * (rows[self.ahead_factors] * decayed)

    def at_anchors(self, without_shape: Tensor, views: list[SeasonView]) -> Tensor:
        """Return what every expert says at the anchors, `[A, K, B]`, from its part without a place of a season."""
        ahead = self.anchors_ahead
        figures = [view.values[ahead] for view in views]
        if self.config.has_parts:
            figures.append(self.parts_ahead(views)[ahead])
        rows = torch.cat([*figures, torch.zeros_like(figures[0][:, :1])], dim=1)
        return without_shape + rows[:, self.shape_rows]

    def parts_ahead(self, views: list[SeasonView]) -> Tensor:
        """Return the sum of the seasons' parts over the horizon, `[H, 1, B]`."""
        short, long = (view.part for view in views)
        assert short is not None  # there are two seasons
        assert long is not None
        return short + long

    def shapes(self, weights: Tensor, views: list[SeasonView]) -> tuple[list[Tensor], list[Tensor]]:
        """Return what the seasons say of the H periods, `[H, n, B]` each, and the weights of their rows, `[A, R, B]`.

        Args:
            weights: `[A, K, B]` of the experts.
            views: What the seasons say.
        """
        shaped = []
        for number, view in enumerate(views):
            rows = [row for row, kind in enumerate(_OF_SEASON) if f"{kind}{number}" in self.rows]
            if len(rows) == len(_OF_SEASON):
                shaped.append(view.values)
            else:
                shaped += [view.values[:, row : row + 1] for row in rows]
        if "double" in self.rows:
            shaped.append(self.parts_ahead(views))
        if not shaped:
            return [], []
        members = weights[:, self.members.flatten()] * self.is_member
        return shaped, [members.reshape(weights.shape[0], *self.members.shape, -1).sum(dim=2)]


def _with(base: str) -> list[str]:
    """Return the bases that are another one plus a figure of the stream."""
    return [name for name, of in _COMPANIONS.items() if of == base]


def away_from(config: ExpertsConfig) -> tuple[str, ...]:
    """Return the bases whose distance from the newest value is kept; that from the level follows from both."""
    named = dict.fromkeys(base for base, decay in config.experts if decay)
    return tuple(base for base in named if base != "level")


def groups_of(config: ExpertsConfig) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the groups of experts that wake together, the plain ones first, and the group of each expert."""
    names = ("plain", *(f"season{number}" for number in range(len(config.seasons))))
    return names, tuple(1 + int(base[-1]) if base[-1].isdigit() else 0 for base, _ in config.experts)
