"""The memories of all seasons of a stream: what they knew before an event, and how they take it in.

Owns: the order in which the seasons read, learn and write, and the sums over a visit of a bin. Does not know: what a
memory says of periods ahead (`seasons`), how an entry moves (`season_entries`), or experts.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.clock import Time
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import SeasonPlaces
from rillcast_training.model.experts.levels import row_of
from rillcast_training.model.experts.season_entries import SeasonEntries, Visit
from rillcast_training.model.experts.seasons import SeasonMemory, SeasonView


class SeasonsBefore(NamedTuple):
    """The memories of the seasons before an event, and where they stand.

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


class MeanMiss(NamedTuple):
    """What a period has been missed by, for the width of its phase, `[1, B]` each.

    Attributes:
        width: Mean relative miss.
        has_width: bool, whether there is one.
    """

    width: Tensor
    has_width: Tensor


class SeasonMemories(nn.Module):
    """No parameters."""

    periods: Tensor

    def __init__(self, config: ExpertsConfig, places: list[SeasonPlaces]) -> None:
        super().__init__()
        self.each = [SeasonMemory(number, one, config.horizon) for number, one in enumerate(places)]
        self.memories = nn.ModuleList(self.each)
        self.entries = SeasonEntries(config, places)
        periods = torch.tensor([[season.periods] for season in config.memories])
        self.register_buffer("periods", periods, persistent=False)

    def read(self, tables: tuple[Tensor, ...], row: Tensor, time: Time) -> SeasonsBefore:
        """Read the bins around the period; `row` is `[B, 1]`, rows of the tables."""
        entries, own, old, places, bins = [], [], [], [], []
        for memory, table in zip(self.each, tables, strict=True):
            at = memory.places.bin_of(time.period)
            written = at if memory.season.exact else memory.places.bin_of(time.value_before)
            around, before, place = memory.places.read(table, row, at, written)
            entries.append(around)
            old.append(before)
            own.append(before if memory.season.exact else around[memory.places.first])
            places.append(place)
            bins.append((at, written))
        known = torch.cat([e[m.columns.width_column :][:1] for e, m in zip(own, self.each, strict=True)]) > 0
        cycles = torch.div(time.known - 1, self.periods, rounding_mode="trunc").to(torch.float32).clamp(min=0)
        return SeasonsBefore(entries, own, old, places, bins, known, cycles)

    def remember(
        self, f: dict[str, Tensor], before: SeasonsBefore, tables: tuple[Tensor, ...], miss: MeanMiss, time: Time
    ) -> tuple[list[SeasonView], list[Tensor]]:
        """Write the value into the memories; return what they say since, and the tables.

        Args:
            f: Figures of the streams; the sums over visits are set.
            before: Of `read`.
            tables: Memories before.
            miss: Of the period.
            time: When the event is.
        """
        value, both = f["last"], self.each[0].columns.part is not None
        rest = value - f["levels"][row_of("slow") : row_of("slow") + 1]
        visits = []
        for number, memory in enumerate(self.each):
            if memory.season.exact:
                part = rest - before.own[1][2:3] if both and not number else None
                visits.append(Visit(value, part, miss.width, miss.has_width, time.on))
            else:
                visits.append(_left(f[f"visit{number}"], memory, time))
        written = self.entries(before.old, visits, before.ages, rest)
        views, following = [], []
        others = [before.own[1 - number][2:3] if both else None for number in range(len(self.each))]
        for number, (memory, table) in enumerate(zip(self.each, tables, strict=True)):
            entries = memory.replaced(before.entries[number], *before.bins[number], written[number])
            if not memory.season.exact:
                other = others[number]
                part = 0 * value if other is None else rest - other
                f[f"visit{number}"] = _visited(f[f"visit{number}"], visits[number], value, part, miss, time)
            if both and not number:
                others[1] = entries[memory.places.first, 2:3]
            views.append(memory.ahead(entries, written[number], time.period, value))
            following.append(memory.places.write(table, before.at[number], written[number]))
        return views, following


def _left(sums: Tensor, memory: SeasonMemory, time: Time) -> Visit:
    """Return the means of the newest visit of a bin, to be written if the stream has left it."""
    visits = memory.places.visit
    left = time.on & time.had & (visits(time.value_before) != visits(time.period))
    value, part, width, widths, count = torch.split(sums, 1)
    done = count.clamp(min=1)
    of_part = None if memory.columns.part is None else part / done
    return Visit(value / done, of_part, width / widths.clamp(min=1), widths > 0, left)


def _visited(sums: Tensor, visit: Visit, value: Tensor, part: Tensor, miss: MeanMiss, time: Time) -> Tensor:
    """Return the sums over the visit of a bin, `[5, B]`: value, part, width, number of widths, number of values."""
    known = miss.has_width.to(torch.float32)
    newest = torch.cat([value, part, miss.width * known, known, time.on.to(torch.float32)])
    return torch.where(time.on, torch.where(visit.on, newest, sums + newest), sums)
