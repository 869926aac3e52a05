"""Which alarms a late event opens and closes: the difference between the history before and after it.

Owns: that difference. Does not know: how a history is stepped again (`rillcast.engine.late.replay`), or the records.

Invariant: the records of a stream, read in order, have the alarm open that its state has open. An alarm is known by the
period in which it opened. One that opened and ended in the past of the corrected history is told by nobody.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import FloatArray, IntArray
from rillcast.bundle.alarms import ALARM_COLUMNS, CHANGES, CLOSES, OPENS
from rillcast.bundle.frequency import Frequency

_PHASE, _AGE = ALARM_COLUMNS.index("phase"), ALARM_COLUMNS.index("age")
_NONE: Final = 0  # phase without an alarm


class AlarmChange(NamedTuple):
    """An alarm that opens or closes because the history of its stream was corrected.

    Attributes:
        row: The event that corrected it.
        ds: Time in milliseconds of the event that `alarm` is of, which is not the one that corrected.
        alarm: `(8,)`, a row of the output `alarm` with the change as its phase.
    """

    row: int
    ds: int
    alarm: FloatArray

    @property
    def change(self) -> str:
        """`opened` or `closed`."""
        return CHANGES[int(self.alarm[_PHASE])]


class OpenAlarms(NamedTuple):
    """The alarms that `k` streams have at a point of their histories.

    Attributes:
        known: `(k,)`, whether it is known what a stream has.
        ds: `(k,)`, time in milliseconds of the step that says so.
        alarm: `(k, 8)`, its row of the output `alarm`; of phase 0 where no alarm is open.
    """

    known: npt.NDArray[np.bool_]
    ds: IntArray
    alarm: FloatArray

    @classmethod
    def after(cls, k: int, which: IntArray, ds: IntArray, alarm: FloatArray) -> OpenAlarms:
        """Return the alarms after the last of some steps.

        Args:
            k: Number of streams.
            which: `(n,)`, the stream of each step, increasing; the steps of a stream in the order of time.
            ds: `(n,)`, time of the steps in milliseconds.
            alarm: `(n, 8)`, rows of the output `alarm`.
        """
        last = np.flatnonzero(np.append(which[1:] != which[:-1], True)[: which.size])
        return cls._of(k, which[last], ds[last], alarm[last], none=CLOSES)

    @classmethod
    def before(cls, k: int, which: IntArray, ds: IntArray, alarm: FloatArray) -> OpenAlarms:
        """Return the alarms before the first of some steps; arguments as those of `after`."""
        first = np.flatnonzero(np.append(True, which[1:] != which[:-1])[: which.size])
        return cls._of(k, which[first], ds[first], alarm[first], none=OPENS)

    @classmethod
    def _of(cls, k: int, which: IntArray, ds: IntArray, alarm: FloatArray, *, none: int) -> OpenAlarms:
        found = cls(np.zeros(k, np.bool_), np.zeros(k, np.int64), np.zeros((k, len(ALARM_COLUMNS)), np.float32))
        found.known[which], found.ds[which] = True, ds
        found.alarm[which] = np.where(alarm[:, [_PHASE]] == none, 0, alarm)
        return found

    def or_else(self, other: OpenAlarms) -> OpenAlarms:
        """Return these, and those of `other` where these are not known."""
        known = self.known[:, None]
        alarm = np.where(known, self.alarm, other.alarm)
        return OpenAlarms(self.known | other.known, np.where(self.known, self.ds, other.ds), alarm)

    def opened(self, stream: int, frequency: Frequency) -> int | None:
        """Return the period in which the alarm opened that a stream has; None = it has none."""
        alarm = self.alarm[stream]
        if alarm[_PHASE] == _NONE:
            return None
        return int(frequency.period_of(int(self.ds[stream]))) - round(float(alarm[_AGE]))


def changes(rows: IntArray, before: OpenAlarms, after: OpenAlarms, frequency: Frequency) -> list[AlarmChange]:
    """Return what has to be told after each of `k` streams was corrected; the end of an alarm before a new one.

    Args:
        rows: `(k,)`, the event that corrected each.
        before: The newest alarms of the histories without it.
        after: Those of the histories with it.
        frequency: The bundle's.
    """
    found: list[AlarmChange] = []
    some = (before.alarm[:, _PHASE] != _NONE) | (after.alarm[:, _PHASE] != _NONE)
    for stream in np.flatnonzero(before.known & after.known & some).tolist():
        old, new = before.opened(stream, frequency), after.opened(stream, frequency)
        if old == new:
            continue
        if old is not None:
            found.append(_told(int(rows[stream]), before, stream, CLOSES))
        if new is not None:
            found.append(_told(int(rows[stream]), after, stream, OPENS))
    return found


def _told(row: int, alarms: OpenAlarms, stream: int, phase: int) -> AlarmChange:
    alarm = alarms.alarm[stream].copy()
    alarm[_PHASE] = phase
    return AlarmChange(row, int(alarms.ds[stream]), alarm)
