"""The bases of the experts: what each of them said of a period, and says of those ahead.

Owns: the names of the bases, which of them wake together, and the parts of the mixture that a base gives. Does not
know: errors, weights, widths, or how a season is remembered.

A base says nothing of a phase that has no value yet: its experts sleep. Where such an expert still has a weight,
between two anchors or since the newest forecast, the last value stands for the base.

Shapes: `[A, ..., B]`, anchors and batch; `[H, B]`, periods ahead.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.seasons import SeasonView

LONGEST_IDLE: Final = 1023  # periods without a value until a decaying distance no longer changes
Figures = dict[str, Tensor]
_TRENDS: Final = ("holt", "drift", "median")
_OF_SEASON: Final = {"naive": "newest", "phase": "mean"}
_WITH_TREND: Final = {"naive_drift0": ("naive", "season_drift"), "phase_anomaly0": ("phase", "phase_anomaly")}


class Bases(nn.Module):
    """No parameters.

    Attributes:
        names: Names of the bases.
        away: Those whose distance from the newest value is kept.
        groups: Groups of experts that wake together, the plain ones first.
        group_of: Group of each expert.
    """

    damped: Tensor
    anchors: Tensor
    anchors_ahead: Tensor
    idle_damping: Tensor

    def __init__(self, config: ExpertsConfig, own_places: tuple[int, ...]) -> None:
        super().__init__()
        self.config, self.own_places = config, own_places
        self.names = tuple(dict.fromkeys(base for base, _ in config.experts))
        self.away = away_from(config)
        self.groups, self.group_of = groups_of(config)
        d = config.constants.damping
        anchors = torch.tensor(config.anchors, dtype=torch.float64)
        idle = torch.arange(LONGEST_IDLE + 1, dtype=torch.float64)

        def damped(periods: Tensor) -> Tensor:
            return d * (1 - d**periods) / (1 - d)

        tables = {
            "damped": damped(anchors).reshape(-1, 1, 1).float(),
            "anchors": anchors.reshape(-1, 1, 1).float(),
            "anchors_ahead": torch.tensor(config.anchors),
            "idle_damping": torch.stack([d**idle, damped(idle)], dim=1).float(),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        for number, season in enumerate(config.memories):
            back = torch.div(torch.tensor(config.anchors) - 1, season.periods, rounding_mode="floor")
            self.register_buffer(f"back{number}", back, persistent=False)
            self.register_buffer(f"needed{number}", ((back + 1) * season.periods).unsqueeze(1), persistent=False)

    def said(
        self,
        base: str,
        then: Figures,
        own: list[SeasonView],
        entries: list[Tensor],
        means: list[Tensor],
        awake: dict[str, Tensor],
    ) -> Tensor:
        """Return what a base said of this period at each anchor, `[A, 1, B]`; the last value then, where it slept.

        Args:
            base: Its name.
            then: Figures at the periods when it was said.
            own: What the seasons say of this period before they learn it.
            entries: Entries of the seasons' memories.
            means: `[kept, B]` of each season, `SeasonMemory.means_before`.
            awake: `awake_then` by group.
        """
        if base == "level":
            return then["level"]
        if base == "holt":
            return then["holt"] + then["trend"] * self.damped
        if base == "drift":
            return then["last"] + then["drift"] * self.anchors
        if base == "median":
            return then["median"]
        if base == "double":
            return then["slow"] + (own[0].part + own[1].part)
        kind, trend = _WITH_TREND.get(base, (base[:-1], ""))
        number = int(base[-1])
        value = self.newest(number, entries) if kind == "naive" else self._then(number, means[number])
        value = value + then[trend] if trend else value
        return torch.where(awake[f"season{number}"], value, then["last"])

    def newest(self, number: int, entries: list[Tensor]) -> Tensor:
        """Return the newest values of this phase that there were at each anchor, `[A, 1, B]`."""
        return self._then(number, entries[number][self.own_places[number]])

    def _then(self, number: int, by_visit: Tensor) -> Tensor:
        """Return of figures before each of the newest visits those that there were at each anchor, `[A, 1, B]`."""
        return by_visit[self.get_buffer(f"back{number}")].unsqueeze(1)

    def awake_then(
        self, valid: Tensor, known_periods: Tensor, own: list[SeasonView]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return which groups had something to say of this period, `[A, G, B]` bool and `[A, 1, B]` by group."""
        states = {"plain": valid}
        for number, view in enumerate(own):
            known = view.known & (known_periods > self.get_buffer(f"needed{number}"))
            states[f"season{number}"] = valid & known.unsqueeze(1)
        return torch.cat(list(states.values()), dim=1), states

    def at_period(self, f: Figures, own: list[SeasonView], ahead: list[SeasonView]) -> Tensor:
        """Return what each base with a decay says of the newest period itself, `[n, B]`.

        Args:
            f: Figures after the period's value.
            own: What the seasons said of it before they learnt it.
            ahead: What they say since.
        """
        figures = []
        for base in self.away:
            if base == "double":
                figures.append(f["slow"] + ahead[0].part[0] + ahead[1].part[0])
                continue
            number = int(base[-1])
            # The newest value of a phase is the period's own by now; that of a bin of several periods is not.
            before = base.startswith("naive") and self.config.memories[number].exact
            view = own[number] if before else ahead[number]
            figures.append(torch.where(view.known[0], getattr(view, _OF_SEASON[base[:-1]])[0], f["last"]))
        return torch.stack(figures)

    def awake_ahead(self, f: Figures, ahead: list[SeasonView]) -> Tensor:
        """Return which groups have something to say of the periods at the anchors, `[A, G, B]` bool."""
        any_value = (f["count"] > 0).reshape(1, 1, -1)
        plain = any_value & torch.ones(len(self.config.anchors), 1, 1, dtype=torch.bool)
        known = [view.known[self.anchors_ahead].unsqueeze(1) & any_value for view in ahead]
        return torch.cat([plain, *known], dim=1)

    def by_base(self, weights: Tensor) -> list[Tensor]:
        """Return the sums of the weights of each base's experts, `[A, 1, B]` each."""
        sizes = [sum(base == one for one, _ in self.config.experts) for base in self.names]
        return [
            part if size == 1 else part.sum(dim=1, keepdim=True)
            for part, size in zip(torch.split(weights, sizes, dim=1), sizes, strict=True)
        ]

    def without_shape(self, base: str, f: Figures, idle: Tensor) -> Tensor | None:
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

    def shapes(
        self, by_base: dict[str, Tensor], ahead: list[SeasonView], last: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return what the seasons say of the H periods, `[H, B]` each, and the weights `[A, 1, B]` of each."""
        shaped, shares = [], []
        for base, weight in by_base.items():
            if base[:-1] not in _OF_SEASON:
                continue
            view = ahead[int(base[-1])]
            shaped.append(torch.where(view.known[1:], getattr(view, _OF_SEASON[base[:-1]])[1:], last))
            companion = {"naive0": "naive_drift0", "phase0": "phase_anomaly0"}.get(base)
            shares.append(weight + by_base[companion] if companion in by_base else weight)
        if "double" in by_base:
            shaped.append(ahead[0].part[1:] + ahead[1].part[1:])
            shares.append(by_base["double"])
        return shaped, shares


def away_from(config: ExpertsConfig) -> tuple[str, ...]:
    """Return the bases whose distance from the newest value is kept; that from the level follows from both."""
    named = dict.fromkeys(base for base, decay in config.experts if decay)
    return tuple(base for base in named if base != "level")


def groups_of(config: ExpertsConfig) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the groups of experts that wake together, the plain ones first, and the group of each expert."""
    names = ("plain", *(f"season{number}" for number in range(len(config.seasons))))
    return names, tuple(1 + int(base[-1]) if base[-1].isdigit() else 0 for base, _ in config.experts)
