"""How well earlier forecasts did, and whether something is wrong with a stream.

Owns: the published forecasts that are kept until they are due: one of each horizon at a time. Does not know: how a
forecast is made.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from rillcast.bundle.alarms import LONGEST_SILENCE
from rillcast_training.model.alarms import AlarmModel, Observed
from rillcast_training.model.experts.clock import Time
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.layout import stamp
from rillcast_training.model.scores import ForecastScores
from rillcast_training.model.tails import TailModel, miss_of, of_both_sides, outside

_ABSOLUTE_FLOOR: Final = 1e-20


class Said(NamedTuple):
    """What there is to judge and to keep.

    Attributes:
        quantiles: `[H, Q, B]` of the periods that follow.
        scale: `[1, B]` scale of the stream.
        value: `[1, B]` observation; any number where there is none.
        naive: `[1, B]` value a season ago.
    """

    quantiles: Tensor
    scale: Tensor
    value: Tensor
    naive: Tensor


class Judgement(nn.Module):
    """No parameters."""

    scored: Tensor
    scored_steps: Tensor
    outermost: Tensor

    def __init__(self, config: ExpertsConfig, horizons: tuple[int, ...]) -> None:
        super().__init__()
        self.horizon, self.scored_count = config.horizon, len(horizons)
        self.scores = ForecastScores(config.quantiles, horizons)
        self.tails = TailModel(config.quantiles)
        outermost = torch.tensor([0, self.scores.middle, len(config.quantiles) - 1])
        self.register_buffer("outermost", outermost, persistent=False)
        self.alarms = AlarmModel()
        self.register_buffer("scored", torch.tensor(horizons).unsqueeze(1), persistent=False)
        self.register_buffer("scored_steps", torch.tensor(horizons) - 1, persistent=False)

    def forward(self, f: dict[str, Tensor], said: Said, time: Time, interval: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Judge the forecasts of this period, and keep today's.

        Args:
            f: Figures of the streams; `published`, `tails` and `alarms` move.
            said: What there is to judge and to keep.
            time: When the event is.
            interval: `[]` or `[B]`, slots in which one alarm a stream is wanted.

        Returns:
            `[B, 3 S + 1]` scores, `[B]` anomaly, and `[8, B]` of `AlarmModel`.
        """
        now, kept = stamp(time.period, self.horizon), f["published"]
        value, on = said.value[0], time.on[0]
        resolved = time.on & (now - kept[-1] == self.scored)
        first = resolved[0]
        ends = kept[:, 0][self.outermost]
        miss = miss_of(value, ends)
        f["tails"], periods = self.tails(f["tails"], miss, first)
        beyond = outside(miss, periods)
        published = kept[:-1].reshape(-1, kept.shape[2]).t()
        scale, naive = said.scale.clamp(min=_ABSOLUTE_FLOOR)[0], said.naive[0]
        score, anomaly = self.scores(value, published, scale, resolved.t(), naive, beyond)
        stamps = torch.cat([now] * self.scored_count).unsqueeze(0)
        new = torch.cat([said.quantiles[self.scored_steps].transpose(0, 1), stamps])
        f["published"] = torch.where(torch.remainder(time.period, self.scored) == 0, new, kept)
        passed = torch.where(time.had, time.passed, 0).to(torch.float32).clamp(max=LONGEST_SILENCE)
        event = Observed(
            y=value,
            expected=torch.where(first, ends[1], value),
            valid=first,
            has=on,
            advances=(time.advances & (time.known > 0))[0],
            passed=passed[0],
            tail=of_both_sides(beyond, first),
        )
        f["alarms"], alarm = self.alarms(f["alarms"], event, interval)
        return score, anomaly, alarm
