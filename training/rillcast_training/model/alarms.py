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
- A run of equal values, and a silence, count by how far they pass the longest one before.

An alarm opens where the largest evidence exceeds a level, and closes after a twentieth of the interval without; in
between there is no second one. The level begins at the interval in which one alarm is wanted. Feedback holds it, as it
does the knots of the tails: it rises by half a unit of its logarithm when an alarm opens, and falls by as much over an
interval in which none is open. So the alarms of a stream come once in an interval in the long run, whatever it is like,
and nothing is learnt from labels.

There are no logarithms and no powers, so a row's result does not depend on its place in the batch.

State `[WIDTH, B]`, in the order of `FIELDS`; zeros are a stream never seen. Silences count without observations too.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

FIELDS: Final = (
    "seen", "last", "low", "low_fast", "low_slow", "low_miss", "high", "high_fast", "high_slow", "high_miss",
    "fast", "slow", "miss", "run", "longest_run", "longest_gap", "level", "age", "calm", "kind", "strength",
    "expected", "observed",
)  # fmt: skip
WIDTH: Final = len(FIELDS)
OUTPUTS: Final = 8
_TRACKED: Final = FIELDS.index("longest_gap")  # the figures before it change where there is an observation
OPENS, OPEN, CLOSES = 1.0, 2.0, 3.0
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
_LONGEST: Final = 1e7
_MOST_SEEN: Final = 1e6
_LONGER: Final = 1.5
_RUN_MARGIN: Final = 20.0
_GAP_MARGIN: Final = 3.0
_ROUNDING: Final = 1e-6
_TINY: Final = 1e-30


class Observed(NamedTuple):
    """An event of each stream, `[B]` each.

    Attributes:
        y: The observation; any number where there is none.
        expected: The middle quantile that was forecast for it.
        valid: Whether there are an observation and a forecast of it.
        has: Whether there is an observation.
        advances: Whether the event advances its stream.
        idle: Slots since the newest observation before.
        passed: Slots since the event before.
        tail: Return period of the observation by the tails; 0 = it lies within the quantiles, or is not known.
    """

    y: Tensor
    expected: Tensor
    valid: Tensor
    has: Tensor
    advances: Tensor
    idle: Tensor
    passed: Tensor
    tail: Tensor


class AlarmModel(nn.Module):
    """No parameters; see the module's docstring. The batch comes last."""

    least: Tensor
    kinds: Tensor
    two_sided: Tensor
    counts: Tensor
    starts: Tensor

    def __init__(self) -> None:
        super().__init__()
        tables = {
            "kinds": torch.tensor([1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            "two_sided": torch.tensor([1.0, 1.0, 1.0, 0.0]).unsqueeze(1),
            "counts": torch.tensor(_COUNTS).unsqueeze(1),
            "starts": torch.tensor(_STARTS).unsqueeze(1),
            "least": torch.tensor([_FAST, _SLOW, _FAST]).unsqueeze(1),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, state: Tensor, now: Observed, interval: Tensor | float) -> tuple[Tensor, Tensor]:
        """Take in an event of each stream.

        Args:
            state: `[WIDTH, B]`.
            now: The events.
            interval: `[]`, slots in which one alarm a stream is wanted.

        Returns:
            The next state, and `[8, B]`: 0 none, 1 opens, 2 open, 3 closes; kind, with the sign of the direction; the
            strongest evidence; slots since the alarm opened; slots since the last evidence; expected and observed value
            at the strongest evidence; and the level. All are 0 without an alarm.
        """
        f = dict(zip(FIELDS, state.unbind(0), strict=True))
        seen = f["seen"]
        rate = torch.maximum(1 / (seen + 1), self.least)
        means = torch.stack([f["fast"], f["slow"], f["miss"]])
        distance = (now.y - now.expected).abs()
        values = torch.stack([now.y, now.y, torch.where(now.valid, distance, f["miss"])])
        means = torch.where(now.has, means + rate * (values - means), means)
        figures = torch.cat([now.y.unsqueeze(0), means], dim=0)
        low = torch.where(seen >= self.starts, state[2:6], figures)
        high = torch.where(seen >= self.starts, state[6:10], figures)
        upwards, records = self._records(figures, low, high, seen)
        counted = now.has & (seen >= _WARM)
        records = torch.where(now.has & (seen >= self.counts), records, 0.0)
        run = torch.where(now.has, torch.where((now.y == f["last"]) & (seen > 0), f["run"] + 1, 0.0), f["run"])
        flat = self._longer(run, f["longest_run"], _RUN_MARGIN, seen, counted)
        silent = self._longer(now.idle, f["longest_gap"], _GAP_MARGIN, seen, now.advances & (seen >= _WARM))
        evidence = torch.cat([now.tail.unsqueeze(0), records, flat.unsqueeze(0), silent.unsqueeze(0)], dim=0)
        strongest = evidence.amax(dim=0)
        which = evidence.argmax(dim=0)
        shift = torch.where(now.y < now.expected, -1.0, 1.0)
        sides = torch.cat([shift.unsqueeze(0), upwards, torch.ones_like(evidence[:2])], dim=0)
        kind = self.kinds[which] * sides.gather(0, which.unsqueeze(0)).squeeze(0)

        level = torch.where(f["level"] > 0, f["level"], 1.0)
        height = (level * interval).clamp(min=_LOWEST_LEVEL)
        active = now.advances & (seen >= _WARM) & (strongest > height)
        was_open = f["age"] > 0
        opens = active & ~was_open
        calm = torch.where(active, 0.0, f["calm"] + now.passed)
        ends = was_open & ~active & (calm >= _LEAST_CALM) & (calm >= interval * _CALM_SHARE)
        age = torch.where(was_open, f["age"] + now.passed, opens.to(torch.float32))
        stronger = opens | (active & (strongest > f["strength"]))
        told = {
            "kind": torch.where(stronger, kind, f["kind"]),
            "strength": torch.where(stronger, strongest, f["strength"]),
            "expected": torch.where(stronger, now.expected, f["expected"]),
            "observed": torch.where(stronger, torch.where(now.has, now.y, f["last"]), f["observed"]),
        }
        lowered = torch.where(was_open, level, level * (1 - _GAIN / interval))
        phase = torch.where(was_open, torch.where(ends, CLOSES, OPEN), torch.where(opens, OPENS, 0.0))
        outputs = torch.stack([phase, *list(told.values())[:2], age - 1, calm, *list(told.values())[2:], height])
        outputs = torch.where(now.advances & (phase > 0), outputs, 0.0)

        middle = torch.cat([figures[2:3], figures[2:3], figures[2:3], figures[3:4]], dim=0)
        high, low = torch.maximum(high, figures), torch.minimum(low, figures)
        high = high - _FORGETS * (high - middle).clamp(min=0)
        low = low + _FORGETS * (middle - low).clamp(min=0)
        longest_run = torch.maximum(f["longest_run"], torch.where(run > 0, 0.0, f["run"]))
        counts, runs = [(seen + 1).clamp(max=_MOST_SEEN), now.y], [run, longest_run]
        tracked = torch.cat([torch.stack(counts), low, high, means, torch.stack(runs)], dim=0)
        tracked = torch.where(now.has, tracked, state[:_TRACKED])
        gap = torch.where(now.has & (seen > 0), torch.maximum(f["longest_gap"], now.idle), f["longest_gap"])
        level = torch.where(opens, level * _RISE, lowered)
        rest = [torch.where((age > 0) & ~ends, figure, 0.0) for figure in (age, calm, *told.values())]
        following = torch.cat([tracked, torch.stack([gap, level, *rest])], dim=0)
        return torch.where(now.advances, following, state), outputs

    def _records(self, figures: Tensor, low: Tensor, high: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return `[4, B]` the side of each figure beyond its range, 1 or -1, and the return period, 0 within it."""
        width = (high - low) + _ROUNDING * high.abs() + _TINY
        over, under = figures - high, (low - figures) * self.two_sided
        beyond = torch.maximum(over, under)
        period = (seen / 2 * (1 + beyond / (width * _DELTA))).clamp(max=_LONGEST)
        return torch.where(under > over, -1.0, 1.0), torch.where(beyond > 0, period, 0.0)

    def _longer(self, run: Tensor, longest: Tensor, margin: float, seen: Tensor, counted: Tensor) -> Tensor:
        """Return the return period of a run that passes the longest one before, `[B]`, else 0."""
        period = (seen / 2 * (run / (longest + 1))).clamp(max=_LONGEST)
        return torch.where(counted & (run > _LONGER * longest + margin), period, 0.0)
