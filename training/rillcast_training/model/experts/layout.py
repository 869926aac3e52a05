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
from rillcast_training.model.experts.bounds import WIDTH as BOUNDS
from rillcast_training.model.experts.config import CORRECTIONS, ExpertsConfig, Season
from rillcast_training.model.experts.levels import LEVELS
from rillcast_training.model.experts.widths import UNITS
from rillcast_training.model.indexed_state import put, take
from rillcast_training.model.periods import floor_div
from rillcast_training.model.tails import WIDTH as TAILS

STAMPS: Final = 1 << 22  # periods until stamps repeat; float32 knows all integers below 2^24
NOTE: Final = ("stamp", "last", *LEVELS[2:])
"""Figures of a period from which the forecasts made at it follow, before the distances from the bases."""


class Packed:
    """Named figures in one row.

    Args:
        shapes: Shape of each; `(1,)` for a single number.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = dict(shapes)
        self.sizes = [math.prod(shape) for shape in self.shapes.values()]
        self.width = sum(self.sizes)

    def unpack(self, row: Tensor) -> dict[str, Tensor]:
        """Split `[B, width]` into figures `[*shape, B]`."""
        parts = torch.split(turned(row, self.width), self.sizes, dim=0)
        named = zip(parts, self.shapes.items(), strict=True)
        return {name: part.reshape(*shape, -1) if len(shape) > 1 else part for part, (name, shape) in named}

    def pack(self, figures: Mapping[str, Tensor]) -> Tensor:
        """Undo `unpack`."""
        return torch.cat(
            [
                figures[name].reshape(size, -1) if len(shape) > 1 else figures[name]
                for (name, shape), size in zip(self.shapes.items(), self.sizes, strict=True)
            ],
            dim=0,
        ).t()


class Columns:
    """Columns of an entry of a season's memory: newest value, mean, part in a sum of seasons, width, older values."""

    def __init__(self, season: Season, has_part: bool) -> None:
        self.kept, self.values = season.kept, slice(0, 2)
        self.newest, self.mean, self.part = 0, 1, 2 if has_part else None
        self.width_column = 2 + has_part
        self.older = slice(self.width_column + 1, None)
        self.width = self.width_column + season.kept


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

    def __init__(self, season: Season, horizon: int, has_part: bool) -> None:
        super().__init__()
        self.season, self.columns = season, Columns(season, has_part)
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
        return floor_div(period * self.season.bins, self.season.periods)

    def bin_of(self, period: Tensor) -> Tensor:
        """Return the bin of a period."""
        return torch.remainder(self.visit(period), self.season.bins)

    def read(self, memory: Tensor, row: Tensor, own: Tensor, written: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the places around the bin `own`, `[n, width, B]`, the one that may be written, and where that is.

        Args:
            memory: `[N, bins, width]`.
            row: `[B, 1]` rows of the memory.
            own: `[1, B]` bin.
            written: `[1, B]` bin; of an exact season it is the own one.
        """
        width = memory.shape[2]
        places = (self.table[own[0]] + row * self.row_selector).reshape(-1, self.taken, 2)
        if self.season.exact:
            entries = turned(take(memory, places), self.taken, width)
            return entries, entries[self.first], places[:, self.first : self.first + 1]
        at = torch.cat([row, written.reshape(-1, 1)], dim=1).unsqueeze(1)
        entries = turned(take(memory, torch.cat([places, at], dim=1)), self.taken + 1, width)
        return entries[: self.taken], entries[self.taken], at

    def write(self, memory: Tensor, at: Tensor, entry: Tensor) -> Tensor:
        """Return the memory with `entry`, `[width, B]`, at a place of `read`."""
        return put(memory, at, entry.t().unsqueeze(1))


class PendingPlaces(nn.Module):
    """Places of the periods whose forecasts are still to be judged.

    Periods that are a multiple of the stride stand in one ring, which reaches back over the horizon. The periods in
    between stand in a second one, as far back as every forecast is judged. A last place is one that nobody reads.
    """

    due: Tensor
    made: Tensor
    row_selector: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        anchors, stride = config.anchors, config.stride
        dense = max(anchor for anchor, own in zip(anchors, config.strides, strict=True) if own == 1)
        main = math.ceil(anchors[-1] / stride)
        between = max(_not_multiples(period, stride, dense) for period in range(stride))
        self.entries = main + between + 1
        # The rings repeat together.
        self.repeat = stride * math.lcm(main, between) if between else stride * main
        period = torch.arange(self.repeat)
        multiples = torch.div(period, stride, rounding_mode="floor")
        others = main + (period - multiples - 1) % max(between, 1)
        entry = torch.where(period % stride == 0, multiples % main, others)
        due = []
        for anchor, own in zip(anchors, config.strides, strict=True):
            made = (period - anchor) % self.repeat
            due.append(torch.where(made % own == 0, entry[made], self.entries - 1))
        made = torch.cat([entry, torch.tensor([self.entries - 1])]).unsqueeze(1)
        self.register_buffer("due", _with_row_zeros(torch.stack(due, dim=1)), persistent=False)
        self.register_buffer("row_selector", torch.tensor([1, 0]).repeat(len(anchors)), persistent=False)
        self.register_buffer("made", made, persistent=False)

    def phase(self, period: Tensor) -> Tensor:
        """Return `[B]`, where a period `[1, B]` lies among those that the tables know."""
        return torch.remainder(period, self.repeat)[0]

    def read(self, pending: Tensor, row: Tensor, phase: Tensor) -> Tensor:
        """Return what was noted at the periods whose forecasts are due, `[A, width, B]`; `row` is `[B, 1]`."""
        anchors = self.due.shape[1] // 2
        places = self.due[phase] + row * self.row_selector
        return turned(take(pending, places.reshape(-1, anchors, 2)), anchors, pending.shape[2])

    def write(self, pending: Tensor, row: Tensor, phase: Tensor, valid: Tensor, note: Tensor) -> Tensor:
        """Return the pending periods with the note `[width, B]` of one more, where it is valid, `[1, B]`."""
        phase = torch.where(valid[0], phase, self.repeat)
        places = torch.cat([row, self.made[phase]], dim=1).unsqueeze(1)
        return put(pending, places, note.t().unsqueeze(1))


class CorrectionPlaces(nn.Module):
    """Which of an anchor's corrections is due in a period, and which ones are made; the last of them is the newest."""

    table: Tensor

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.anchors, self.places = len(config.anchors), CORRECTIONS + 1
        self.repeat = CORRECTIONS * math.lcm(*config.network_strides)
        anchors, period = torch.tensor(config.anchors), torch.arange(self.repeat).unsqueeze(1)
        strides = torch.tensor(config.network_strides)
        due, made = self._mask((period - anchors) % self.repeat, strides), self._mask(period, strides)
        made[:, :, -1] = True
        table = torch.cat([due, due.any(dim=2, keepdim=True), made], dim=2)
        self.register_buffer("table", table.flatten(1), persistent=False)

    def _mask(self, made: Tensor, strides: Tensor) -> Tensor:
        """Return `[R, A, places]`: the place of a correction that was made in a period, if one was."""
        place = torch.where(made % strides == 0, torch.div(made, strides, rounding_mode="floor") % CORRECTIONS, -1)
        return place.unsqueeze(2) == torch.arange(self.places)

    def forward(self, period: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return of a period, `[1, B]`, bool by anchor.

        They are the places that are due, `[A, n, 1, B]`, whether there is one, `[A, 1, B]`, and the places that are
        made, `[A, n, 1, B]`.
        """
        found = turned(self.table[torch.remainder(period, self.repeat)[0]], self.anchors, 2 * self.places + 1, 1)
        due, some, made = torch.split(found, [self.places, 1, self.places], dim=1)
        return due, some[:, 0], made


def _not_multiples(period: int, stride: int, reach: int) -> int:
    """Return how many of the `reach` periods that end with one are no multiple of the stride."""
    return sum((period - back) % stride != 0 for back in range(reach))


class Layout(nn.Module):
    """All states of a stream."""

    def __init__(
        self,
        config: ExpertsConfig,
        groups: int,
        away: tuple[str, ...],
        scored: tuple[int, ...],
        cell: Mapping[str, int],
    ) -> None:
        """Lay out the states.

        Args:
            config: Shape of the layer.
            groups: Number of groups of experts that wake together.
            away: Bases whose distance from the newest value is kept.
            scored: Horizons at which published forecasts are scored.
            cell: Width of each state of the network's cell; empty = there is no network.
        """
        super().__init__()
        self.config = config
        anchors, levels, experts = len(config.anchors), len(config.quantiles), len(config.experts)
        self.by_anchor = {
            "error": experts,
            "reference": groups,
            "missed": 2,
            "unit": 4,
            "loss": UNITS,
            "quantile": levels,
            **({"network": 2 + levels} if cell else {}),
            "plain": 1,
            "judged": 1,
            "weight": experts,
            "ratio": UNITS,
            "share": UNITS,
            **({"said": 2 * (CORRECTIONS + 1)} if cell else {}),
        }
        figures: dict[str, tuple[int, ...]] = {"offset": (1,), "count": (1,), "last": (1,), "levels": (len(LEVELS),)}
        figures |= {"away": (len(away),), "anchors": (anchors, sum(self.by_anchor.values()))}
        figures |= {f"visit{n}": (5,) for n, season in enumerate(config.memories) if not season.exact}
        figures |= {
            "published": (levels + 1, len(scored)),
            "bounds": (BOUNDS,),
            "tails": (TAILS,),
            "alarms": (ALARMS,),
            **{name: (width,) for name, width in cell.items()},
        }
        self.core = Packed(figures)
        self.note_width = len(NOTE) + len(away)
        self.seasons = [SeasonPlaces(season, config.horizon, config.has_parts) for season in config.memories]
        self.places = nn.ModuleList(self.seasons)
        self.pending = PendingPlaces(config)

    def at_anchors(self, core: Tensor) -> dict[str, Tensor]:
        """Return the figures of each anchor by name, `[A, n, B]`, from rows of `core`."""
        block = self.core.unpack(core)["anchors"]
        return dict(zip(self.by_anchor, torch.split(block, list(self.by_anchor.values()), dim=1), strict=True))

    def specs(self) -> tuple[StateSpec, ...]:
        """Return the kinds of state. The clock: newest period, periods known plus one, period of the newest value."""
        return (
            StateSpec(name="clock", dtype="int64", row_shape=(3,)),
            StateSpec(name="core", dtype="float32", row_shape=(self.core.width,)),
            *(
                StateSpec(name=f"season{n}", dtype="float32", row_shape=(places.season.bins, places.columns.width))
                for n, places in enumerate(self.seasons)
            ),
            StateSpec(name="pending", dtype="float32", row_shape=(self.pending.entries, self.note_width)),
        )


def stamp(period: Tensor, horizon: int) -> Tensor:
    """Return `[1, B]` float32: the period modulo `STAMPS`, so far from 0 that an empty place is never due."""
    return (torch.remainder(period, STAMPS) + (horizon + 1)).to(torch.float32)


def _with_row_zeros(places: Tensor) -> Tensor:
    """Return `[R, 2 K]`, a zero before each place of `[R, K]`."""
    return torch.stack([torch.zeros_like(places), places], dim=2).flatten(1)


def turned(taken: Tensor, *shape: int) -> Tensor:
    """Return `[B, ...]` as `[*shape, B]`: as a matrix, for which the kernel is fast at any rank.

    The reshape stays where the shape is that of the matrix: ONNX Runtime would move a transposition alone behind the
    operators that follow, so that they would run over rows of few numbers.
    """
    return taken.reshape(-1, math.prod(shape)).t().reshape(*shape, -1)
