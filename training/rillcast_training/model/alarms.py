"""When is something wrong with a stream? Evidence gathered over slots, and one alarm for one trouble.

Owns: the evidence, when an alarm opens and closes, and the state from which both follow. Does not know: the model, the
tails (`rillcast_training.model.tails`), or what an alarm looks like as a record (`rillcast.publishing.alarms`).

Evidence is a return period in slots: how long one waits, on average, for something as unusual in a stream that is well.

- Of an observation beyond the outermost quantiles it follows from the learnt tails.
- Of a figure that is tracked it follows from records, once it has been seen often enough. The n-th of n values that are
  alike is the largest or smallest with probability 2/n (Renyi 1962; Arnold, Balakrishnan & Nagaraja 1998, Records), so
  a new record returns after n/2 slots; one that passes the range by the share d of it counts 1 + d/DELTA times as much.
  Tracked are the value itself (a spike), its fast mean (a level shift), its slow mean (a drift), and the mean miss of
  the forecasts (variance). The range forgets: it shrinks slowly towards the mean.
- A run of equal values counts by how far it passes the longest one before.

An alarm opens where the largest evidence exceeds a level, and closes after a twentieth of the interval without; in
between there is no second one. The level begins at the interval in which one alarm is wanted. Feedback holds it, as it
does the knots of the tails: it rises by half a unit of its logarithm when an alarm opens, and falls by as much over an
interval in which none is open. So the alarms of a stream come once in an interval in the long run, whatever it is like,
and nothing is learnt from labels.

There are no logarithms and no powers, so a row's result does not depend on its place in the batch.

State `[WIDTH, B]`, in the order of `FIELDS`; zeros are a stream never seen. A silence is found where the time of the
stream's partition is known (`rillcast.engine.overdue`), and not here: the graph has no clock but its events.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

FIELDS: Final = (
    "low", "low_fast", "low_slow", "low_miss", "high", "high_fast", "high_slow", "high_miss", "fast", "slow", "miss",
    "last", "run", "seen", "longest_run", "level", "age", "calm", "kind", "strength", "expected",
    "observed",
)  # fmt: skip
WIDTH: Final = len(FIELDS)
OUTPUTS: Final = 8
_TRACKED: Final = FIELDS.index("level")  # the figures before it change where there is an observation
_PARTS: Final = (4, 4, 3, 1, 1, 1, 1)  # of the tracked ones: lows, highs, means, and single ones
_SEEN: Final = 5  # among these
OPEN, CLOSES = 2.0, 3.0  # 1 = opens
_WARM: Final = 150  # slots
_STARTS: Final = (1.0, 30.0, 100.0, 30.0)  # observations before which a figure has no range, for it is one of few
_COUNTS: Final = (150.0, 200.0, 600.0, 200.0)  # observations before which its records do not count
_DELTA: Final = 0.01
_FORGETS: Final = 3e-5
_FAST: Final = 0.1
_SLOW: Final = 0.01
_GAIN: Final = 0.5
_RISE: Final = 1.6487213  # e to the gain
_CALM_SHARE: Final = 0.05
_LEAST_CALM: Final = 3.0
_LOWEST_LEVEL: Final = 20.0  # slots
_NEVER: Final = 1e30  # slots
_LONGEST: Final = 1e7
_MOST_SEEN: Final = 1e6
_LONGER: Final = 1.5
_RUN_MARGIN: Final = 20.0
_FLAT: Final = 5.0  # kind of a run
_ROUNDING: Final = 1e-6
_TINY: Final = 1e-30


class Observed(NamedTuple):
    """An event of each stream, `[B]` each.

    Attributes:
        y: The observation; the newest one where there is none.
        expected: The middle quantile that was forecast for it; `y` where there was no forecast.
        valid: Whether there are an observation and a forecast of it.
        has: Whether there is an observation.
        advances: Whether the event advances its stream.
        passed: Slots since the event before.
        tail: Return period of the observation by the tails; 0 = it lies within the quantiles, or is not known.
    """

    y: Tensor
    expected: Tensor
    valid: Tensor
    has: Tensor
    advances: Tensor
    passed: Tensor
    tail: Tensor


class _Evidence(NamedTuple):
    """What an event says of its stream: evidence `[6, B]` with its signed kinds, and the tracked state after it."""

    periods: Tensor
    kinds: Tensor
    tracked: Tensor


class AlarmModel(nn.Module):
    """No parameters; see the module's docstring. The batch comes last.

    Figures of one kind stay rows of one tensor, `[k, B]`, because a step of a small batch costs by its operators.
    """

    one: Tensor
    least: Tensor
    kinds: Tensor
    two_sided: Tensor
    counts: Tensor
    starts: Tensor
    middles: Tensor

    def __init__(self) -> None:
        super().__init__()
        tables = {
            "one": torch.ones(1),
            "kinds": torch.tensor([1.0, 2.0, 3.0, 4.0]).unsqueeze(1),
            "two_sided": torch.tensor([1.0, 1.0, 1.0, 0.0]).unsqueeze(1),
            "counts": torch.tensor(_COUNTS).unsqueeze(1),
            "starts": torch.tensor(_STARTS).unsqueeze(1),
            "least": torch.tensor([_FAST, _SLOW, _FAST]).unsqueeze(1),
            "middles": torch.tensor([2, 2, 2, 3] * 2),  # the slow mean, and the mean miss, among the figures
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, state: Tensor, now: Observed, interval: Tensor) -> tuple[Tensor, Tensor]:
        """Take in an event of each stream.

        Args:
            state: `[WIDTH, B]`.
            now: The events.
            interval: `[]` or `[B]`, slots in which one alarm a stream is wanted; 0 = none is, and one that is open
                closes.

        Returns:
            The next state, and `[8, B]`: 0 none, 1 opens, 2 open, 3 closes; kind, with the sign of the direction; the
            strongest evidence; slots since the alarm opened; slots since the last evidence; expected and observed value
            at the strongest evidence; and the level. All are 0 without an alarm.
        """
        *tracked, level, age, calm, told = torch.split(state, [*_PARTS, 1, 1, 1, 4])
        y, seen = now.y.unsqueeze(0), tracked[_SEEN]
        evidence = self._evidence(tracked, y, now)
        strongest, kind = _strongest(evidence.periods, evidence.kinds)

        wanted = interval > 0
        interval = torch.where(wanted, interval, _NEVER)
        level = torch.where(level > 0, level, self.one)
        height = (level * interval).clamp(min=_LOWEST_LEVEL)
        active = now.has & ((seen >= _WARM) & (strongest > height))  # no evidence without an observation
        was_open = age > 0
        calm = torch.where(active, 0.0, calm + now.passed)
        rests = torch.where(wanted, (interval * _CALM_SHARE).clamp(min=_LEAST_CALM), 0.0)
        ends = was_open & (calm >= rests)  # none is active where no alarm is wanted
        opens = active.to(torch.float32)  # where none was open
        age = torch.where(was_open, age + now.passed, opens)
        stronger = active & (strongest > told[1:2])  # an alarm that opens has nothing stronger yet
        told = torch.where(stronger, torch.cat([kind, strongest, now.expected.unsqueeze(0), y]), told)
        phase = torch.where(was_open, torch.where(ends, CLOSES, OPEN), opens)
        of_kind, of_values = torch.split(told, 2)
        outputs = torch.cat([phase, of_kind, age - 1, calm, of_values, height])
        outputs = torch.where(now.advances & (phase > 0), outputs, 0.0)

        factor = torch.where(active, _RISE, self.one - _GAIN * self.one / interval)
        level = level * torch.where(was_open, self.one, factor)
        rest = torch.where(ends, 0.0, torch.cat([age, calm, told]))
        following = torch.cat([torch.where(now.has, evidence.tracked, state[:_TRACKED]), level, rest])
        return torch.where(now.advances, following, state), outputs

    def _evidence(self, tracked: list[Tensor], y: Tensor, now: Observed) -> _Evidence:
        low, high, means, last, run, seen, longest = tracked
        more = seen + 1
        distance = torch.where(now.valid, (y - now.expected).abs(), means[2:3])
        rate = torch.maximum(self.one / more, self.least)
        means = means + rate * (torch.cat([y, y, distance]) - means)
        figures = torch.cat([y, means])
        started = seen >= self.starts
        low, high = torch.where(started, low, figures), torch.where(started, high, figures)

        half = 0.5 * seen
        over, under = figures - high, (low - figures) * self.two_sided
        beyond = torch.maximum(over, under)
        unit = _DELTA * (high - low) + (_DELTA * _ROUNDING) * high.abs() + _TINY
        records = torch.where((beyond > 0) & (seen >= self.counts), half * (1 + beyond / unit), 0.0)
        sides = torch.where(under > over, -self.kinds, self.kinds)

        goes_on = y == last  # the run of a stream never seen is 0
        now_run = torch.where(goes_on, run + seen.clamp(max=1), 0.0)
        longer = now_run > _LONGER * longest + _RUN_MARGIN
        lasting = torch.where(longer, half * (now_run / (longest + 1)), 0.0)
        side = torch.where(y < now.expected, -self.one, self.one)

        periods = torch.cat([records, lasting, now.tail.unsqueeze(0)]).clamp(max=_LONGEST)
        kinds = torch.cat([sides, torch.where(longer, _FLAT * self.one, 0.0), side])
        ranges = torch.cat([torch.minimum(low, figures), torch.maximum(high, figures)])
        ranges = ranges + _FORGETS * (figures[self.middles] - ranges)
        longest = torch.maximum(longest, torch.where(goes_on, 0.0, run))
        following = torch.cat([ranges, means, y, now_run, more.clamp(max=_MOST_SEEN), longest])
        return _Evidence(periods, kinds, following)


def _strongest(evidence: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    """Return `[1, B]` the largest evidence of `[6, B]`, the first of equal ones, and the kind in its row."""
    largest, row = torch.topk(evidence, 1, dim=0)
    return largest, kinds.gather(0, row)
