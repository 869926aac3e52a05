"""Are alarms right? Openings of alarms against labelled windows.

Owns: NAB's measure, and precision, recall, delay and rate beside it. Does not know: how alarms are found, files.

NAB's measure is that of Lavin & Ahmad (2015), Evaluating real-time anomaly detection algorithms: the Numenta Anomaly
Benchmark. The first 15 % of a series (at most 750 rows) count nothing. Of the detections within a window the first
counts, up to 1 at the window's start and less towards its end; a window without one costs the weight of a miss. A
detection outside costs up to the weight of a false one, and less right behind a window. 100 is every window at its
first row and nothing else, 0 is silence. A threshold on the strength may be chosen for the whole set, as NAB does; the
other figures are those of all alarms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

import numpy as np

from rillcast.arrays import AnyArray, IntArray
from rillcast.figures import Undefined, reasons_of, shown

WEEK_MS: Final = 604_800_000
_PROBATION_SHARE: Final = 0.15
_LONGEST_PROBATION: Final = 750


class Profile(NamedTuple):
    """Weights of NAB: of a detected window, a false detection, and a window without detection."""

    detected: float
    false: float
    missed: float


PROFILES: Final[Mapping[str, Profile]] = {
    "standard": Profile(1.0, 0.11, 1.0),
    "low_fp": Profile(1.0, 0.22, 1.0),
    "low_fn": Profile(1.0, 0.11, 2.0),
}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A series, its labelled windows, and the alarms that opened.

    Attributes:
        times: `[n]` times of all rows in milliseconds since the epoch, increasing.
        windows: First and last time of each window.
        opened: `[k]` times at which alarms opened.
        strengths: `[k]` their strength at that moment.
    """

    times: IntArray
    windows: Sequence[tuple[int, int]]
    opened: IntArray
    strengths: AnyArray


class _Detections(NamedTuple):
    """Of each alarm that counts: strength, window or -1, row, and its worth within or outside."""

    strength: AnyArray
    window: IntArray
    row: IntArray
    worth: AnyArray


def sigmoid(x: AnyArray) -> AnyArray:
    """Return NAB's scaled sigmoid, from 1 far before a window's end to -1 behind it."""
    return np.where(x > 3, -1.0, 2 / (1 + np.exp(np.minimum(5 * x, 500))) - 1)


def nab_score(series: Mapping[str, Labelled], profile: Profile, threshold: float | None = None) -> tuple[float, float]:
    """Return NAB's score and the threshold on the strength.

    Args:
        series: All series by name.
        profile: Weights.
        threshold: Least strength of a detection; None = the one with the best score.
    """
    count = sum(len(one.windows) for one in series.values())
    if not count:
        return Undefined("no window is labelled"), 0.0
    parts = [_detections(one) for one in series.values()]
    firsts = np.cumsum([0, *(len(one.windows) for one in series.values())])[:-1]
    strength = np.concatenate([part.strength for part in parts])
    window = np.concatenate([np.where(p.window >= 0, p.window + f, -1) for p, f in zip(parts, firsts, strict=True)])
    row, worth = (np.concatenate([getattr(part, name) for part in parts]) for name in ("row", "worth"))
    order = np.argsort(-strength, kind="stable")
    total = best = -profile.missed * count
    chosen, seen = np.inf, dict[int, tuple[int, float]]()
    for position, index in enumerate(order.tolist()):
        if threshold is not None and strength[index] < threshold:
            break
        of, at = int(window[index]), int(row[index])
        if of < 0:
            total += profile.false * worth[index]
        elif of not in seen or at < seen[of][0]:
            value = profile.detected * worth[index]
            total += value + (profile.missed if of not in seen else -seen[of][1])
            seen[of] = at, value
        last = position + 1 == order.size or strength[order[position + 1]] < strength[index]
        if last and (total > best or threshold is not None):
            best, chosen = total, float(strength[index])
    score = 100 * (best + profile.missed * count) / (count * (profile.detected + profile.missed))
    return float(score), chosen if threshold is None else threshold


def _detections(series: Labelled) -> _Detections:
    """Return the alarms after the probation."""
    times, n = series.times, series.times.size
    row = np.searchsorted(times, series.opened, side="right") - 1
    counts = row >= min(int(_PROBATION_SHARE * n), _LONGEST_PROBATION)
    row, strength = row[counts], series.strengths[counts]
    window, worth = np.full(row.size, -1), np.full(row.size, -1.0)
    spans = [
        (int(np.searchsorted(times, first)), int(np.searchsorted(times, last, side="right")) - 1)
        for first, last in series.windows
    ]
    for number, (first, last) in enumerate(spans):
        inside = (row >= first) & (row <= last)
        window[inside] = number
        worth[inside] = (sigmoid(-(last - row + 1) / (last - first + 1)) / sigmoid(np.array(-1.0)))[inside]
        end = spans[number + 1][0] if number + 1 < len(spans) else n
        behind = (row > last) & (row < end)
        worth[behind] = sigmoid((row - last) / max(last - first, 1))[behind]
    return _Detections(strength, window, row, worth)


@dataclass(frozen=True, slots=True)
class AlarmScores:
    """Figures of all alarms.

    Attributes:
        windows: Labelled windows.
        alarms: Alarms after the probation.
        precision: Share of the alarms that opened within a window.
        recall: Share of the windows in which an alarm opened.
        delay: Mean place of the first alarm in a window with one, from 0 at its start to 1 at its end.
        per_week: Alarms a stream and week, the probation included.
        nab: NAB's score by profile, each with its best threshold.
    """

    windows: int
    alarms: int
    precision: float
    recall: float
    delay: float
    per_week: float
    nab: dict[str, float]

    def table(self) -> str:
        """Return the figures for people."""
        lines = [
            f"windows          {self.windows:,}",
            f"alarms           {self.alarms:,}",
            f"precision        {shown(self.precision, '6.3f')}",
            f"recall           {shown(self.recall, '6.3f')}",
            f"delay            {shown(self.delay, '6.3f')}  of a window",
            f"alarms per week  {shown(self.per_week, '6.2f')}  of a stream",
        ]
        lines += [f"{'NAB ' + name:<16} {shown(score, '6.1f')}  of 100" for name, score in self.nab.items()]
        return "\n".join([*lines, *(f"({name} -: {reason})" for name, reason in reasons_of(asdict(self)))])


def score_alarms(series: Mapping[str, Labelled]) -> AlarmScores:
    """Score the alarms of some series."""
    windows = sum(len(one.windows) for one in series.values())
    weeks = sum(float(one.times[-1] - one.times[0]) for one in series.values()) / WEEK_MS
    opened = sum(one.opened.size for one in series.values())
    alarms = inside = found = 0
    delays: list[float] = []
    for one in series.values():
        taken = _detections(one)
        alarms += taken.row.size
        inside += int((taken.window >= 0).sum())
        for number, (first, last) in enumerate(one.windows):
            if (of := one.times[taken.row[taken.window == number]]).size:
                found += 1
                delays.append((int(of[0]) - first) / max(last - first, 1))
    return AlarmScores(
        windows,
        alarms,
        inside / alarms if alarms else Undefined("no alarm opened"),
        found / windows if windows else Undefined("no window is labelled"),
        float(np.mean(delays)) if delays else Undefined("no alarm opened within a window"),
        opened / weeks if weeks else Undefined("the series have no length"),
        {name: nab_score(series, profile)[0] for name, profile in PROFILES.items()},
    )
