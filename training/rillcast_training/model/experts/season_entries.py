"""How a value is written into the memories of the seasons.

Owns: the entry of a bin after a visit, and the means over a visit of several periods. Does not know: what a memory says
of periods ahead (`seasons`).

All figures of all seasons move at once, but for the longer season's part, which is what the shorter one's leaves.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import SeasonPlaces

LEAST_WIDTH: Final = 0.02
_LEAST: Final = -3e38
_FIRST_WIDTH_AGE: Final = 4


class Visit(NamedTuple):
    """What a bin is written with, `[1, B]` each.

    Attributes:
        value: Mean value.
        part: Mean of the season's part; None = no expert has parts, or it is what the other season's part leaves.
        width: Mean relative width.
        has_width: Whether that is known.
        on: Whether the bin is written.
    """

    value: Tensor
    part: Tensor | None
    width: Tensor
    has_width: Tensor
    on: Tensor


class SeasonEntries(nn.Module):
    """No parameters.

    The rows of the figures that move: mean, width and part of the first season, then of the second.
    """

    old_rows: Tensor
    width_rows: Tensor
    season_of: Tensor
    first: Tensor
    added_age: Tensor
    least_rate: Tensor
    first_rate: Tensor
    is_width: Tensor
    no_width: Tensor
    floor: Tensor

    def __init__(self, config: ExpertsConfig, places: list[SeasonPlaces]) -> None:
        super().__init__()
        self.columns = [one.columns for one in places]
        self.late = config.has_parts and places[1].season.exact
        self.both, c = len(places) == 2, config.constants
        self.rows_of_season = 2 + config.has_parts  # mean, width, part
        self.exact = all(one.season.exact for one in places)
        starts = [0, places[0].columns.width]
        old, season_of, width, least, first_rate = [], [], [], [], []
        for n, (start, one) in enumerate(zip(starts, places, strict=False)):
            columns = one.columns
            chosen = [(columns.mean, c.phase, 1.0), (columns.width_column, c.width, 0.0)]
            if columns.part is not None:
                chosen.append((columns.part, c.parts[n], c.part_start if n else 1.0))
            for column, rate, of_first in chosen:
                old.append(start + column)
                season_of.append(n)
                width.append(column == columns.width_column)
                least.append(rate)
                first_rate.append(of_first)
        is_width = torch.tensor(width).unsqueeze(1)
        tables = {
            "old_rows": torch.tensor(old),
            "season_of": torch.tensor(season_of),
            "width_rows": torch.tensor(
                [[row for row, one in zip(old, width, strict=True) if one][n] for n in season_of]
            ),
            "first": is_width.float(),
            "added_age": torch.where(is_width, float(_FIRST_WIDTH_AGE), 1.0),
            "least_rate": torch.tensor(least).unsqueeze(1),
            "first_rate": torch.tensor(first_rate).unsqueeze(1),
            "is_width": is_width,
            "no_width": ~is_width,
            "floor": torch.where(is_width, LEAST_WIDTH, _LEAST),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, old: list[Tensor], visits: list[Visit], ages: Tensor, rest: Tensor) -> list[Tensor]:
        """Return the entries after the visits, `[width, B]` each.

        Args:
            old: Entries before.
            visits: Of each season.
            ages: `[S, B]` number of cycles before.
            rest: `[1, B]` the value minus the slow level.
        """
        before = torch.cat(old)
        known = before[self.width_rows] > 0
        has = visits[0].has_width
        if self.both:
            ages = ages[self.season_of]
            has = has if self.exact else torch.cat([one.has_width for one in visits])[self.season_of]
        figures = torch.where(known, before[self.old_rows], self.first)
        rate = torch.maximum(torch.ones(1) / (ages + self.added_age), self.least_rate)
        rate = torch.where(known | self.is_width, rate, self.first_rate)
        rate = torch.where(has | self.no_width, rate, 0.0)
        targets = [figure for one in visits for figure in (one.value, one.width, one.part) if figure is not None]
        if self.late:
            short = figures[2:3] + rate[2:3] * (targets[2] - figures[2:3])
            targets.append(rest - short)
        moved = figures + rate * (torch.cat(targets) - figures)
        rows = list(torch.split(torch.maximum(moved, self.floor), 1))
        entries = []
        for number, (entry, visit, columns) in enumerate(zip(old, visits, self.columns, strict=True)):
            mean, width, *part = rows[number * self.rows_of_season : (number + 1) * self.rows_of_season]
            older = entry[columns.newest : columns.newest + 1], entry[columns.older][:-1]
            kept = older[: columns.kept - 1]
            entries.append(torch.where(visit.on, torch.cat([visit.value, mean, *part, width, *kept]), entry))
        return entries
