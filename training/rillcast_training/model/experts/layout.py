"""The state of a stream in the experts' layer: which figures there are, and where they stand.

Owns: the shapes of the state rows, packing and unpacking, and the places of a period in the seasons' memories and among
the pending forecasts. Does not know: what the figures mean.

A row of zeros is a stream never seen. In the layer the batch comes last (`rillcast_training.model.layout` says why), so
a row is turned once when it is read and once when it is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from rillcast.bundle.bundle import StateSpec
from rillcast_training.model.alarms import WIDTH as ALARMS
from rillcast_training.model.experts.config import ExpertsConfig, Season
from rillcast_training.model.indexed_state import put, take
from rillcast_training.model.tails import WIDTH as TAILS

STAMPS: Final = 1 << 22  # periods until stamps repeat; float32 knows all integers below 2^24
NOTE: Final = ("stamp", "last", "level", "slow", "drift", "holt", "trend", "median", "season_drift", "phase_anomaly")
"""Figures of a period from which the forecasts made at it follow, before the distances from the bases."""


class Packed:
    """Named figures in one row.

    Args:
        shapes: Shape of each; `()` for a single number.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.width = sum(self.sizes)

    def unpack(self, row: Tensor) -> dict[str, Tensor]:
        """Split `[B, width]` into figures `[*shape, B]`."""
        parts = torch.split(row.t(), self.sizes, dim=0)
        return {name: part.reshape(*shape, -1) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def pack(self, figures: Mapping[str, Tensor]) -> Tensor:
        """Undo `unpack`."""
        return torch.cat(
            [figures[name].reshape(size, -1) for name, size in zip(self.shapes, self.sizes, strict=True)], dim=0
        ).t()


class SeasonPlaces(nn.Module):
    """Places of a season's memory that an event reads: the period's own bin, and ahead over the horizon.

    A season that is shorter than that is read once, and unrolled.

    Attributes:
        own: Index of the period's own bin among the places when they are unrolled.
        count: Number of places when they are unrolled.
        first: Index of the own bin among the places that are read.
    """

    table: Tensor
    row_selector: Tensor
    order: Tensor

    def __init__(self, season: Season, horizon: int) -> None:
        super().__init__()
        self.season = season
        lead = 0 if season.exact else 1  # between two bins, the one before may count
        ahead = horizon if season.exact else math.ceil(horizon * season.bins / season.periods) + 1
        self.own = lead
        self.count = self.own + ahead + season.reach + 1
        self.repeats = self.count > season.bins
        self.first = 0 if self.repeats else self.own
        self.taken = min(self.count, season.bins)
        places = (torch.arange(season.bins).unsqueeze(1) + torch.arange(self.taken) - self.first) % season.bins
        order = (torch.arange(self.count) - self.own + self.first) % season.bins
        self.register_buffer("table", _with_row_zeros(places), persistent=False)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("row_selector", torch.tensor([1, 0]).repeat(self.taken), persistent=False)

    def unrolled(self, entries: Tensor) -> Tensor:
        """Return all places in the order of time, `[count, width, B]`."""
        return entries[self.order] if self.repeats else entries

    def around(self, entries: Tensor) -> Tensor:
        """Return the own bin and those after it, `[reach + 1, width, B]`."""
        near = slice(self.own, self.own + self.season.reach + 1)
        return entries[self.order[near]] if self.repeats else entries[near]

    def visit(self, period: Tensor) -> Tensor:
        """Return the number of a bin's visit, counted from the epoch: it grows by one from bin to bin."""
        if self.season.exact:
            return period
        return torch.div(period * self.season.bins, self.season.periods, rounding_mode="floor")

    def bin_of(self, period: Tensor) -> Tensor:
        """Return the bin of a period."""
        return torch.remainder(self.visit(period), self.season.bins)

    def read(self, memory: Tensor, row: Tensor, own: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places around the bin `own`, `[n, width, B]`, and the bin to be written, `[width, B]`."""
        width = memory.shape[2]
        places = (self.table[own] + row.unsqueeze(1) * self.row_selector).reshape(-1, self.taken, 2)
        if self.season.exact:
            taken = take(memory, places).reshape(-1, self.taken * width).t().reshape(self.taken, width, -1)
            return taken, taken[self.first]
        places = torch.cat([places, _place(row, written)], dim=1)
        taken = take(memory, places).reshape(-1, (self.taken + 1) * width).t().reshape(self.taken + 1, width, -1)
        return taken[: self.taken], taken[self.taken]

    def write(self, memory: Tensor, row: Tensor, at: Tensor, entry: Tensor) -> Tensor:
        """Return the memory with `entry`, `[width, B]`, at a bin."""
        return put(memory, _place(row, at), entry.t().unsqueeze(1))


class PendingPlaces(nn.Module):
    """Places of the periods whose forecasts are still to be judged: rings of periods, and one place that nobody reads.

    An anchor's ring keeps each period that is a multiple of its stride.
    """

    due: Tensor
    made: Tensor
    row_selector: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        rings: dict[tuple[int, int], list[int]] = {}
        for number, (stride, group) in enumerate(zip(config.strides, config.rings, strict=True)):
            rings.setdefault((stride, group), []).append(number)
        sizes = [math.ceil(max(config.anchors[n] for n in members) / stride) for (stride, _), members in rings.items()]
        self.entries = sum(sizes) + 1
        self.repeat = math.lcm(*(size * stride for size, (stride, _) in zip(sizes, rings, strict=True)))
        period = torch.arange(self.repeat)
        due = torch.zeros(self.repeat, len(config.anchors), dtype=torch.int64)
        made = torch.zeros(self.repeat, len(sizes), dtype=torch.int64)
        start = 0
        for ring, (size, ((stride, _), members)) in enumerate(zip(sizes, rings.items(), strict=True)):
            made[:, ring] = self._entry(period, stride, size, start)
            for number in members:
                due[:, number] = self._entry((period - config.anchors[number]) % self.repeat, stride, size, start)
            start += size
        self.register_buffer("due", _with_row_zeros(due), persistent=False)
        self.register_buffer("row_selector", torch.tensor([1, 0]).repeat(len(config.anchors)), persistent=False)
        self.register_buffer("made", made, persistent=False)

    def _entry(self, period: Tensor, stride: int, size: int, start: int) -> Tensor:
        entry = start + torch.div(period, stride, rounding_mode="floor") % size
        return torch.where(period % stride == 0, entry, self.entries - 1)

    def read(self, pending: Tensor, row: Tensor, period: Tensor) -> Tensor:
        """Return what was noted at the periods whose forecasts are due, `[A, width, B]`."""
        anchors, width = self.due.shape[1] // 2, pending.shape[2]
        places = self.due[torch.remainder(period, self.repeat)] + row.unsqueeze(1) * self.row_selector
        taken = take(pending, places.reshape(-1, anchors, 2))
        return taken.reshape(-1, anchors * width).t().reshape(anchors, width, -1)

    def write(self, pending: Tensor, row: Tensor, period: Tensor, valid: Tensor, note: Tensor) -> Tensor:
        """Return the pending periods with the note `[width, B]` of one more, where it is valid."""
        places = torch.where(valid.unsqueeze(1), self.made[torch.remainder(period, self.repeat)], self.entries - 1)
        indices = [_place(row, place.squeeze(1)) for place in torch.split(places, 1, dim=1)]
        return put(pending, torch.cat(indices, dim=1), torch.stack([note.t()] * len(indices), dim=1))


class Layout(nn.Module):
    """All states of a stream."""

    def __init__(self, config: ExpertsConfig, groups: int, away: tuple[str, ...], scored: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        anchors, levels, experts = len(config.anchors), len(config.quantiles), len(config.experts)
        scalars = ("offset", "count", "last", "level", "slow", "drift", "spread", "holt", "trend", "median", "size")
        figures: dict[str, tuple[int, ...]] = dict.fromkeys((*scalars, "season_drift", "phase_anomaly"), ())
        figures |= {
            "away": (len(away),),
            "error": (anchors, experts),
            "reference": (anchors, groups),
            "plain": (anchors, 1),
            "judged": (anchors, 1),
            "miss": (anchors, 1),
            "unit": (anchors, 3),
            "newest": (anchors, 2),
            "loss": (anchors, 5),
            "quantile": (anchors, levels),
            "weight": (anchors, experts),
            "trusted": (anchors, 1),
            "published": (levels + 1, len(scored)),
            "tails": (TAILS,),
            "alarms": (ALARMS,),
        }
        figures |= {f"visit{n}": (5,) for n, season in enumerate(config.memories) if not season.exact}
        self.core = Packed(figures)
        self.note_width = len(NOTE) + len(away)
        self.seasons = [SeasonPlaces(season, config.horizon) for season in config.memories]
        self.places = nn.ModuleList(self.seasons)
        self.pending = PendingPlaces(config)

    def specs(self) -> tuple[StateSpec, ...]:
        """Return the kinds of state. The clock: newest period, periods known plus one, period of the newest value."""
        both = len(self.config.seasons) == 2
        return (
            StateSpec(name="clock", dtype="int64", row_shape=(3,)),
            StateSpec(name="core", dtype="float32", row_shape=(self.core.width,)),
            *(
                StateSpec(name=f"season{n}", dtype="float32", row_shape=(season.bins, season.kept + 2 + both))
                for n, season in enumerate(self.config.memories)
            ),
            StateSpec(name="pending", dtype="float32", row_shape=(self.pending.entries, self.note_width)),
        )


def stamp(period: Tensor, horizon: int) -> Tensor:
    """Return `[B]` float32: the period modulo `STAMPS`, so far from 0 that an empty place is never due."""
    return (torch.remainder(period, STAMPS) + (horizon + 1)).to(torch.float32)


def _with_row_zeros(places: Tensor) -> Tensor:
    """Return `[R, 2 K]`, a zero before each place of `[R, K]`."""
    return torch.stack([torch.zeros_like(places), places], dim=2).flatten(1)


def _place(row: Tensor, place: Tensor) -> Tensor:
    """Return `[B, 1, 2]`, a place of each row."""
    return torch.stack([row, place], dim=1).unsqueeze(1)
