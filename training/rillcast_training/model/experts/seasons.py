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
    """What a memory says of some periods, `[n, B]` each; `known` is bool.

    Attributes:
        newest: Value of the newest visit.
        mean: Running mean.
        part: The season's part of the sum of two seasons; zeros for a single one. Of the longer season it is the
            mean over the period's bin and some after it.
        width: Relative width; 1 where unknown.
        known: Whether there is a value.
    """

    newest: Tensor
    mean: Tensor
    part: Tensor
    width: Tensor
    known: Tensor


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
        entry = entries[self.places.first : self.places.first + 1]
        known = entry[:, -1] > 0
        return SeasonView(
            newest=entry[:, 0],
            mean=entry[:, self.season.kept],
            part=self._smoothed(self.places.around(entries))[0] if self.number else self._part(entry),
            width=torch.where(known, entry[:, -1], 1.0),
            known=known,
        )

    def means_before(self, entries: Tensor, age: Tensor, constants: Constants) -> Tensor:
        """Return the running mean of the period's bin `[kept, B]`: today's, and before each of its newest visits.

        Args:
            entries: Entries.
            age: `[B]` number of cycles before.
            constants: Rates.
        """
        entry, kept = entries[self.places.first], self.season.kept
        means = [entry[kept]]
        for visit in range(1, kept):
            rate = _rate(constants.phase, (age - visit + 1).clamp(min=2))
            means.append((means[-1] - rate * entry[visit - 1]) / (1 - rate))
        return torch.stack(means)

    def ahead(self, entries: Tensor, period: Tensor) -> SeasonView:
        """Return what the memory says of the newest period and the H periods that follow, `[H + 1, B]` each."""
        entries = self.places.unrolled(entries)
        own, kept = self.places.own, self.season.kept
        known = entries[:, -1] > 0
        width = torch.where(known, entries[:, -1], 1.0)
        if self.season.exact:
            here = slice(own, own + self.horizon + 1)
            return SeasonView(
                newest=entries[here, 0],
                mean=entries[here, kept],
                part=self._smoothed(entries)[0] if self.number else self._part(entries)[here],
                width=width[here],
                known=known[here],
            )
        place, share = self._between(period)

        def line(values: Tensor) -> Tensor:
            return (1 - share) * values.gather(0, place) + share * values.gather(0, place + 1)

        weight = line(known.to(torch.float32))  # unknown values are zeros
        divisor, known = weight.clamp(min=_LEAST_SHARE), weight > _LEAST_SHARE
        if self.number:
            part, number = self._smoothed(entries)
            some = line((number > 0).to(torch.float32))
            part = torch.where(some > _LEAST_SHARE, line(part) / some.clamp(min=_LEAST_SHARE), 0.0)
        else:
            part = torch.where(known, line(self._part(entries)) / divisor, 0.0)
        return SeasonView(
            newest=line(entries[:, 0]) / divisor,
            mean=line(entries[:, kept]) / divisor,
            part=part,
            width=line(width),
            known=known,
        )

    def _part(self, entries: Tensor) -> Tensor:
        column = entries[:, self.season.kept + 1]
        return column if self.both else column * 0

    def _smoothed(self, entries: Tensor) -> tuple[Tensor, Tensor]:
        """Return means of the parts of each bin and those after it, `[n - reach, B]`, and how many are known."""
        column, count = self.season.kept + 1, entries.shape[0] - self.season.reach
        values = torch.stack([entries[:, column], (entries[:, -1] > 0).to(torch.float32)], dim=1)
        total = values[:count]
        for shift in range(1, self.season.reach + 1):
            total = total + values[shift : shift + count]
        return total[:, 0] / total[:, 1].clamp(min=1), total[:, 1]

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
