"""A season's memory: the newest values, the running mean, the part and the relative width of each bin.

Owns: what a memory says of the periods ahead. Does not know: experts, errors, weights, or how a value is written
(`season_entries`).

A bin is a phase of the season, or several neighbouring ones where the season is long. A phase has its value at once. A
bin of several periods is written when the stream has left it, with the means of its visit, so that an expert is not
judged by a bin that has seen the period's neighbours; between the middles of two bins, a period's value lies on a line.

A width of zero marks a bin that was never written.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.layout import SeasonPlaces

_LEAST_SHARE: Final = 0.12345  # of a known bin between two; no common fraction, so that no rounding decides


class SeasonView(NamedTuple):
    """What a memory says of the H periods ahead.

    Attributes:
        values: `[H, 2, B]` newest value and running mean; the last value where there is none.
        part: `[H, 1, B]` the season's part of the sum of two seasons; None where no expert is that sum. Of the
            longer season it is the mean over the period's bin and some after it.
        width: `[H, 1, B]` relative width; 1 where unknown.
        known: `[H, 1, B]` bool, whether there is a value.
        values_now: `[2, B]` of the newest period itself, the last value where there is none.
        part_now: `[1, B]`.
    """

    values: Tensor
    part: Tensor | None
    width: Tensor
    known: Tensor
    values_now: Tensor
    part_now: Tensor | None


class SeasonMemory(nn.Module):
    """Reads the entries of one season, `[n, width, B]` of `SeasonPlaces.read`."""

    steps: Tensor
    own_place: Tensor
    number_of_place: Tensor
    following: Tensor

    def __init__(self, number: int, places: SeasonPlaces, horizon: int) -> None:
        super().__init__()
        self.season, self.places, self.number, self.horizon = places.season, places, number, horizon
        self.columns = places.columns
        self.smooths = bool(number) and self.columns.part is not None  # the longer season's part
        steps = torch.arange(horizon + 1, dtype=torch.float32).unsqueeze(1)
        self.register_buffer("steps", steps, persistent=False)
        number_of_place = torch.arange(places.taken).reshape(-1, 1, 1)
        self.register_buffer("number_of_place", number_of_place, persistent=False)
        after = torch.arange(places.count) - torch.arange(places.count).unsqueeze(1)
        following = ((after >= 0) & (after <= self.season.reach)).float()
        self.register_buffer("following", following, persistent=False)

    def part(self, entries: Tensor) -> Tensor:
        """Return the part of the period's own bin as `ahead` has it, `[1, B]`; there are two seasons."""
        if self.smooths:
            total, number = self._smoothed(self.places.around(entries), 1)
            return (total / number.clamp(min=1))[0]
        first = self.places.first
        assert self.columns.part is not None  # there are two seasons
        return entries[first, self.columns.part : self.columns.part + 1]

    def replaced(self, entries: Tensor, own: Tensor, written: Tensor, entry: Tensor) -> Tensor:
        """Return the entries with the written one in its place. For an exact season it is the own one, the first."""
        if self.season.exact:
            return torch.cat([entry.unsqueeze(0), entries[1:]])
        distance = torch.remainder(written - own + self.places.first, self.season.bins)
        return torch.where(self.number_of_place == distance, entry.unsqueeze(0), entries)

    def ahead(self, entries: Tensor, written: Tensor, period: Tensor, last: Tensor) -> SeasonView:
        """Return what the memory says of the periods after `period`, `[1, B]`, and of itself.

        Args:
            entries: After the event.
            written: `[width, B]` the one that was written; of an exact season the period's own.
            period: `[1, B]`.
            last: `[1, B]` newest value.
        """
        entries = self.places.unrolled(entries)
        return self._of_phases(entries, written, last) if self.season.exact else self._of_bins(entries, period, last)

    def _of_phases(self, entries: Tensor, own: Tensor, last: Tensor) -> SeasonView:
        columns, until = self.columns, self.horizon + 1
        values, *part, width, _ = torch.split(entries[1:until], self._sizes(), dim=1)
        known = width > 0
        smooth, part_now = part[0] if part else None, own[2:3] if part else None
        if self.smooths:
            total, number = self._smoothed(entries, until)
            part_now, smooth = torch.split(total / number.clamp(min=1), [1, until - 1])
            part_now = part_now[0]
        return SeasonView(
            values=torch.where(known, values, last),
            part=smooth,
            width=torch.where(known, width, 1.0),
            known=known,
            values_now=own[columns.values],
            part_now=part_now,
        )

    def _of_bins(self, entries: Tensor, period: Tensor, last: Tensor) -> SeasonView:
        values, *part, width, _ = torch.split(entries, self._sizes(), dim=1)
        known = width > 0
        figures = [values, *part, torch.where(known, width, 1.0), known.to(torch.float32)]  # unknown values are zeros
        if self.smooths:
            total, number = self._smoothed(entries, self.places.count - self.season.reach)
            short = [figure[: self.places.count - self.season.reach] for figure in figures]
            smooth = torch.cat([total / number.clamp(min=1), number.clamp(max=1)], dim=1)
            figures = [short[0], smooth, *short[2:]]
        block = torch.cat(figures, dim=1)
        place, share = self._between(period)
        place = place.unsqueeze(1).expand(-1, block.shape[1], -1)
        share = share.unsqueeze(1)
        lines = (1 - share) * block.gather(0, place) + share * block.gather(0, place + 1)
        values, *part, width, weight = torch.split(lines, [2, *([1 + self.number] if part else []), 1, 1], dim=1)
        known, divisor = weight > _LEAST_SHARE, weight.clamp(min=_LEAST_SHARE)
        values = torch.where(known, values / divisor, last)
        of_part: Tensor | None = None
        if part and self.smooths:
            some = part[0][:, 1:]
            of_part = torch.where(some > _LEAST_SHARE, part[0][:, :1] / some.clamp(min=_LEAST_SHARE), 0.0)
        elif part:
            of_part = torch.where(known, part[0] / divisor, 0.0)
        return SeasonView(
            values=values[1:],
            part=None if of_part is None else of_part[1:],
            width=width[1:],
            known=known[1:],
            values_now=values[0],
            part_now=None if of_part is None else of_part[0],
        )

    def _sizes(self) -> list[int]:
        """Return the numbers of columns: values, part, width, older values."""
        return [2, *([] if self.columns.part is None else [1]), 1, self.season.kept - 1]

    def _smoothed(self, entries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return sums of the parts of each bin and those after it, `[count, 1, B]`, and how many are known."""
        entries, part = entries[: count + self.season.reach], self.columns.part
        assert part is not None  # there are two seasons
        parts, widths = torch.split(entries[:, part : part + 2], 1, dim=1)
        values = torch.cat([parts, torch.sign(widths)], dim=1)
        if count == 1:
            total = values.sum(dim=0, keepdim=True)
        else:
            total = torch.matmul(self.following[:count, : count + self.season.reach], values.flatten(1)).reshape(
                count, 2, -1
            )
        total, number = torch.split(total, 1, dim=1)
        return total, number

    def _between(self, period: Tensor) -> tuple[Tensor, Tensor]:
        """Return the place to the left of each period's position, `[H + 1, B]`, and how far the position is from it."""
        season = self.season
        phase = torch.remainder(period, season.periods)
        own = torch.div(phase * season.bins, season.periods, rounding_mode="trunc")  # of a number that is not negative
        start = (self.places.own - own).to(torch.float32)
        ratio = season.bins / season.periods
        position = (phase.to(torch.float32) + 0.5) * ratio - 0.5 + start + self.steps * ratio
        left = position.floor()
        return left.to(torch.int32).to(torch.int64), position - left  # the exporter drops the second conversion
