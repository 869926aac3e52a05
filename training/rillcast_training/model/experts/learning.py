"""What a stream learns when a period has come: from what each expert, the mixture and the network had said of it.

Owns: the sums of errors and misses, and how a period's note becomes the forecasts that are judged. Does not know: how a
forecast follows from the sums, or how the seasons' memories are written.

Nothing is learnt where nothing was due, and nothing of the period is in what is judged: the seasons' entries are those
before they took it in.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast_training.model.experts.bases import Bases, Noted
from rillcast_training.model.experts.bounds import ValueBounds
from rillcast_training.model.experts.clock import Time
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import CorrectionPlaces, Layout, stamp
from rillcast_training.model.experts.network import Correction, Told, Trust
from rillcast_training.model.experts.season_memories import MeanMiss, SeasonsBefore
from rillcast_training.model.experts.seasons import SeasonMemory
from rillcast_training.model.experts.weights import Errors, ExpertWeights
from rillcast_training.model.experts.widths import UNITS, Misses, Widths

_LARGEST_MISS: Final = 100.0  # in units of what was trusted to be missed, next to nothing on a stream without noise


class Sums(NamedTuple):
    """Sums at the anchors.

    Attributes:
        errors: Of the experts.
        misses: Of the mixture's misses.
        told: Of the network's; None without one.
    """

    errors: Errors
    misses: Misses
    told: Told | None


class Learnt(NamedTuple):
    """What an event has brought.

    Attributes:
        miss: Of the period at all anchors.
        missed: `[A, 1, B]` what the mixture missed by, in widths; 0 where nothing was due.
    """

    miss: MeanMiss
    missed: Tensor


class Learning(nn.Module):
    """No parameters."""

    mask: Tensor
    kept: Tensor

    def __init__(
        self,
        config: ExpertsConfig,
        layout: Layout,
        bases: Bases,
        memories: list[SeasonMemory],
        group_of: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.config, self.layout, self.bases, self._memories = config, layout, bases, memories
        self.weights, self.widths = ExpertWeights(config, group_of), Widths(config)
        self.bounds, self.trust = ValueBounds(config.quantiles), Trust()
        self.corrections = CorrectionPlaces(config)
        groups, forget, levels = len(memories) + 1, config.constants.forget, len(config.quantiles)
        told = [] if config.network is None else [(2, forget), (levels, 1.0)]
        shares = [(len(config.experts) + groups, forget), *self.widths.kept(), *told, (2, forget)]
        self.count = sum(count for count, _ in shares)
        self._said_sizes = [2 * self.corrections.places] if told else []
        self._sizes = [len(config.experts), groups, 2, 4, UNITS, levels, *(count for count, _ in told), 1, 1]
        # Of the masks: the groups that were awake, whether the miss counts for loss and quantile, and for the network.
        of_network = [groups + 1] * 2 + [groups] * levels if told else []
        mask = [*group_of, *range(groups), *([0] * 6), *([groups] * (UNITS + levels)), *of_network, 0, 0]
        self.register_buffer("mask", torch.tensor(mask), persistent=False)
        kept = torch.tensor([share for count, share in shares for _ in range(count)]).unsqueeze(1)
        self.register_buffer("kept", kept, persistent=False)

    def sums(self, sums: Tensor) -> Sums:
        """Split `[A, n, B]`."""
        error, reference, missed, unit, loss, quantile, *told, plain, judged = torch.split(sums, self._sizes, dim=1)
        misses = Misses(missed, unit, loss, quantile)
        return Sums(Errors(error, reference, plain, judged), misses, Told(*told) if told else None)

    def forward(
        self, f: dict[str, Tensor], y: Tensor, value: Tensor, time: Time, notes: Tensor, seasons: SeasonsBefore
    ) -> Learnt:
        """Learn from the forecasts of a period.

        Args:
            f: Figures of the streams; `bounds` and `sums` are set, and what a network had said.
            y: `[1, B]` observation; 0 where there is none.
            value: `[1, B]` the same less the offset; the newest value where there is none.
            time: When the event is.
            notes: `[A, width, B]` what was noted at the periods whose forecasts are due.
            seasons: The memories before the event.
        """
        sizes = [self.count, len(self.config.experts), UNITS, UNITS]
        sums, weight, ratio, share, *said = torch.split(f["anchors"], [*sizes, *self._said_sizes], dim=1)
        when, last, level, slow = torch.split(notes[:, :4], 1, dim=1)  # the first of `NOTE`
        distance = stamp(time.period, self.config.horizon) - when
        due = (distance == self.bases.anchors) & time.on
        awake = self.bases.awake_then(due, time.known, time.on, seasons.known)
        valid, *awake_seasons = torch.split(awake, 1, dim=1)
        then = self._said(Noted(notes, last, level, slow), seasons, awake, awake_seasons[0])
        point = (weight * then).sum(dim=1, keepdim=True)
        f["bounds"] = self.bounds.learn(f["bounds"], y, point[0], valid[0])
        missed = (value - then).abs()
        before = self.sums(sums)
        plain, reference = self.weights.learn(before.errors, missed)
        judged, one = before.errors.judged, valid.to(torch.float32)
        miss = torch.where(valid, value - point, 0.0)
        size = self.widths.usual_size(point, f["offset"], f["levels"][1:2])
        column = self._memories[-1].columns.width_column
        phase = torch.where(seasons.known[-1:], seasons.own[-1][column : column + 1], 1.0)
        learnt = self.widths.learn(before.misses, ratio, share, judged, size, miss, valid, phase)
        more, counts = [], [awake, learnt.good]
        if before.told is not None:
            places = said[0].reshape(len(self.config.anchors), self.corrections.places, 2, -1)
            judges, judged_now, makes = self.corrections(time.period)
            f |= {"said": places, "makes": makes}
            correction = Correction(*torch.split(torch.where(judges, places, 0.0).sum(dim=1), 1, dim=1))
            more = self._of_network(before.told, correction, learnt.relative, judged)
            counts.append(learnt.good & judged_now)
        references = [reference] * (len(self._memories) + 1)
        added = torch.cat([missed, *references, *learnt.added, *more, plain, one], dim=1)
        mask = torch.cat(counts, dim=1)[:, self.mask]
        f["sums"] = torch.where(mask, self.kept * sums + added, sums)
        return Learnt(self._relative(miss, learnt.trusted, valid), torch.where(learnt.good, learnt.relative, 0.0))

    def _said(self, noted: Noted, seasons: SeasonsBefore, awake: Tensor, awake_season: Tensor) -> Tensor:
        """Return what every expert had said, `[A, K, B]`."""
        earlier = self.bases.means_before(seasons.own, self.layout.seasons, seasons.ages)
        parts = None
        if self.config.has_parts:
            short, long = (memory.part(one) for memory, one in zip(self._memories, seasons.entries, strict=True))
            parts = short + long
        return self.bases.said(noted, torch.cat([*seasons.own, *earlier]), parts, awake, awake_season)

    def _of_network(self, told: Told, correction: Correction, relative: Tensor, judged: Tensor) -> list[Tensor]:
        """Return what a miss of the mixture, `[A, 1, B]` in widths, adds to `told`.

        Where no correction is due it is 0: then the quantiles move by the mixture's miss.
        """
        published = correction.times(self.trust(told.missed))
        own = (relative - published.middle) / torch.exp(published.factor)
        quantile = told.quantile + self.widths.normal
        return [self.trust.misses(relative, correction), self.widths.moved(quantile, own, judged)]

    def _relative(self, miss: Tensor, trusted: Tensor, valid: Tensor) -> MeanMiss:
        """Return the mean of the misses in units of what was trusted to be missed."""
        counts = valid.to(torch.float32) * torch.sign(trusted)
        relative = (miss.abs() / trusted.clamp(min=1e-30)).clamp(max=_LARGEST_MISS)
        relative, number = (relative * counts).sum(dim=0), counts.sum(dim=0)
        return MeanMiss(relative / number.clamp(min=1), number > 0)

    def said_since(self, f: dict[str, Tensor], said: Correction, time: Time) -> Tensor:
        """Return what the network said that is to be judged, and at the newest value, `[A, 2 n, B]`.

        Args:
            f: Figures of the streams, with what it was before the event, and which places are made.
            said: What it says now.
            time: When that is.
        """
        now = torch.cat(said, dim=1)
        return torch.where(f["makes"] & time.on, now.unsqueeze(1), f["said"]).flatten(1, 2)
