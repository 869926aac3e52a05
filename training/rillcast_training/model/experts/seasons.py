"""A season's memory: the newest values, the running mean, the part and the relative width of each bin.

Owns: what a memory says of a period, and how a value is written into it. Does not know: experts, errors, weights.

A bin is a phase of the season, or several neighbouring ones where the season is long. A phase has its value at once. A
bin of several periods is written when the stream has left it, with the means of its visit, so that an expert is not
judged by a bin that has seen the period's neighbours; between the middles of two bins, a period's value lies on a line.

A width of zero marks a bin that was never written.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.config import Constants, Season
from rillcast_training.model.experts.layout import SeasonPlaces

LEAST_WIDTH: Final = 0.02
_LEAST_SHARE: Final = 0.12345  # of a known bin between two; no common fraction, so that no rounding decides


class SeasonView(NamedTuple):
    """What a memory says of some periods, `[n, B]` each; `known` and `smooth_known` are bool.

    Attributes:
        newest: Value of the newest visit.
        mean: Running mean.
        smooth: Mean of the running means around the period.
        part: The season's part of the sum of two seasons; zeros for a single one. Of the longer season it is smoothed.
        width: Relative width; 1 where unknown.
        known: Whether there is a value.
        smooth_known: Whether there is a smoothed one.
    """

    newest: Tensor
    mean: Tensor
    smooth: Tensor
    part: Tensor
    width: Tensor
    known: Tensor
    smooth_known: Tensor


class Visit(NamedTuple):
    """A value for a bin, `[B]` each: the value, its part, its relative width, and whether that is known."""

    value: Tensor
    part: Tensor
    width: Tensor
    has_width: Tensor


class SeasonMemory(nn.Module):
    """Reads and writes the entries of one season; `entries` are `[n, width, B]` of `SeasonPlaces.read`."""

    steps: Tensor
    own_place: Tensor
    number_of_place: Tensor

    def __init__(self, number: int, seasons: tuple[Season, ...], places: SeasonPlaces, horizon: int) -> None:
        super().__init__()
        self.season, self.places, self.number = seasons[number], places, number
        self.both, self.horizon = len(seasons) == 2, horizon
        steps = torch.arange(horizon + 1, dtype=torch.float32).unsqueeze(1)
        self.register_buffer("steps", steps, persistent=False)
        numbers = torch.arange(places.taken)
        self.register_buffer("own_place", (numbers == places.first).reshape(-1, 1, 1), persistent=False)
        number_of_place = numbers.unsqueeze(1)
        self.register_buffer("number_of_place", number_of_place, persistent=False)

    # What it says.

    def own(self, entries: Tensor) -> SeasonView:
        """Return what the period's own bin says, `[1, B]` each."""
        smooth, part, count = self._smoothed(self.places.around(entries))
        entry = entries[self.places.first : self.places.first + 1]
        known = entry[:, -1] > 0
        kept = self.season.kept
        return SeasonView(
            newest=entry[:, 0],
            mean=entry[:, kept],
            smooth=smooth,
            part=part if self.number else self._part(entry),
            width=torch.where(known, entry[:, -1], 1.0),
            known=known,
            smooth_known=count > 0,
        )

    def ahead(self, entries: Tensor, period: Tensor) -> SeasonView:
        """Return what the memory says of the newest period and the H periods that follow, `[H + 1, B]` each."""
        entries = self.places.unrolled(entries)
        smooth, smooth_part, count = self._smoothed(entries)
        own, reach, kept = self.places.own, self.season.reach, self.season.kept
        known = entries[:, -1] > 0
        width = torch.where(known, entries[:, -1], 1.0)
        part = smooth_part if self.number else self._part(entries)
        if self.season.exact:
            here = slice(own, own + self.horizon + 1)
            return SeasonView(
                newest=entries[here, 0],
                mean=entries[here, kept],
                smooth=smooth,
                part=part if self.number else part[here],
                width=width[here],
                known=known[here],
                smooth_known=count > 0,
            )
        place, share = self._between(period)
        is_known, is_smooth = known.to(torch.float32), (count > 0).to(torch.float32)  # unknown values are zeros

        def line(values: Tensor, first: int) -> Tensor:
            left = place - first
            return (1 - share) * values.gather(0, left) + share * values.gather(0, left + 1)

        weight, smooth_weight = line(is_known, 0), line(is_smooth, reach)
        divisor, smooth_divisor = weight.clamp(min=_LEAST_SHARE), smooth_weight.clamp(min=_LEAST_SHARE)
        known, smooth_known = weight > _LEAST_SHARE, smooth_weight > _LEAST_SHARE
        if self.number:
            part = torch.where(smooth_known, line(part, reach) / smooth_divisor, 0.0)
        else:
            part = torch.where(known, line(part, 0) / divisor, 0.0)
        return SeasonView(
            newest=line(entries[:, 0], 0) / divisor,
            mean=line(entries[:, kept], 0) / divisor,
            smooth=line(smooth, reach) / smooth_divisor,
            part=part,
            width=line(width, 0),
            known=known,
            smooth_known=smooth_known,
        )

    def _part(self, entries: Tensor) -> Tensor:
        column = entries[:, self.season.kept + 1]
        return column if self.both else column * 0

    def _smoothed(self, entries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return means over the neighbours of running mean and part, `[n - 2 reach, B]`, and how many are known."""
        kept, count = self.season.kept, entries.shape[0] - 2 * self.season.reach
        known = (entries[:, -1:] > 0).to(torch.float32)
        values = torch.cat([entries[:, kept : kept + 1 + self.both], known], dim=1)
        total = values[:count]
        for shift in range(1, 2 * self.season.reach + 1):
            total = total + values[shift : shift + count]
        number = total[:, -1]
        divisor = number.clamp(min=1)
        return total[:, 0] / divisor, total[:, -2] / divisor, number

    def _between(self, period: Tensor) -> tuple[Tensor, Tensor]:
        """Return the place to the left of each period's position, `[H + 1, B]`, and how far the position is from it."""
        season = self.season
        phase = torch.remainder(period, season.periods)
        own = torch.div(phase * season.bins, season.periods, rounding_mode="floor")
        start = (self.places.own - own).to(torch.float32)
        ratio = season.bins / season.periods
        position = (phase.to(torch.float32) + 0.5) * ratio - 0.5 + start + self.steps * ratio
        left = position.floor()
        return left.to(torch.int32).to(torch.int64), position - left  # the exporter drops the second conversion

    # How a value is written.

    def entry(self, old: Tensor, visit: Visit, age: Tensor, constants: Constants) -> Tensor:
        """Return the entry `[width, B]` after a visit; `age` is the number of cycles before."""
        kept, c = self.season.kept, constants
        known = old[-1] > 0
        mean, width = old[kept], torch.where(known, old[-1], 1.0)
        rate = _rate(c.phase, age + 1)
        columns = [visit.value, *old[: kept - 1].unbind(0)]
        columns.append(torch.where(known, mean + rate * (visit.value - mean), visit.value))
        if self.both:
            part, start = old[kept + 1], c.part_start if self.number else 1.0
            rate = _rate(c.parts[self.number], age + 1)
            columns.append(torch.where(known, part + rate * (visit.part - part), start * visit.part))
        moved = width + _rate(c.width, age + 4) * (visit.width - width)
        columns.append(torch.where(visit.has_width, moved, width).clamp(min=LEAST_WIDTH))
        return torch.stack(columns)

    def replaced(self, entries: Tensor, own: Tensor, written: Tensor, entry: Tensor) -> Tensor:
        """Return the entries with the written one in its place. For an exact season it is always the own one."""
        if self.season.exact:
            return torch.where(self.own_place, entry.unsqueeze(0), entries)
        distance = torch.remainder(written - own + self.places.first, self.season.bins)
        here = self.number_of_place == distance
        return torch.where(here.unsqueeze(1), entry.unsqueeze(0), entries)


def _rate(least: float, age: Tensor) -> Tensor:
    """Return the weight of the newest value."""
    return (torch.ones(1) / age).clamp(min=least)
