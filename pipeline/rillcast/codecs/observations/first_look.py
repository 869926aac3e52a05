"""A look at the first events of an input: times of a likely wrong unit, and a `y` that no record has.

Both lose every observation without an error: all events of a stream fall into one period, or all count as missing. A
file with unlikely times is refused, because nothing of it has been stepped; a topic or a pipe is only warned about,
because it goes on.

Owns: what is remembered of the first events, and the verdict. Does not know: which times are unlikely
(`rillcast.reading.units`), formats.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from rillcast.bundle.frequency import Frequency
from rillcast.codecs.observations.fields import Fields, PolledRecords
from rillcast.errors import DataError
from rillcast.events import EventBatch
from rillcast.reading.refusals import listed
from rillcast.reading.units import doubt

log = logging.getLogger(__name__)

_EVENTS: Final = 10
"""Number of events that are looked at, and the rest of their poll."""
_REMEDY: Final = "set input.fields.ds_unit to"
Members = Callable[[PolledRecords, int], Any]


class FirstLook:
    """Collects the first events and judges them."""

    def __init__(
        self, source: str, frequency: Frequency | None, fields: Fields, members: Members | None, *, refuse: bool
    ) -> None:
        """Remember the arguments.

        Args:
            source: Name of the file or topic, for messages.
            frequency: Frequency of the model; None = unknown.
            fields: Where a record has its observation.
            members: Returns the members of record `i` of a poll; None = a record always has a `y`.
            refuse: Whether unlikely times raise an error; otherwise they are logged.
        """
        self._source, self._frequency, self._fields, self._members = source, frequency, fields, members
        self._refuse = refuse
        self._ids: list[str] = []
        self._ds: list[int] = []
        self._seen: set[str] = set()
        self._has_y = members is None

    def done(self, records: PolledRecords, events: EventBatch) -> bool:
        """Take the events of a poll; True = the look is over.

        Raises:
            DataError: The times are unlikely, and the source is a file.
        """
        self._ids += events.unique_ids
        self._ds += events.ds.tolist()
        self._look_for_y(records, events)
        why = self._doubt()
        if why is not None:
            if self._refuse:
                raise DataError(f"{self._source}: {why}")
            log.warning("%s: %s", self._source, why)
        if len(self._ids) < _EVENTS:
            return why is not None
        if not self._has_y:
            log.warning(
                "%s: none of the first %d records has a member %r, so every observation counts as missing; the members "
                "are %s. Name it with input.fields.y",
                self._source, len(self._ids), self._fields.y, listed(sorted(self._seen)),
            )  # fmt: skip
        return True

    def _doubt(self) -> str | None:
        if not self._ids:
            return None
        ds = np.array(self._ds, np.int64)
        periods = None
        if self._frequency is not None:
            periods = len(set(zip(self._ids, self._frequency.period_of(ds).tolist(), strict=True)))
        return doubt(int(ds.min()), int(ds.max()), len(ds), len(set(self._ids)), periods, _REMEDY)

    def _look_for_y(self, records: PolledRecords, events: EventBatch) -> None:
        if self._has_y or self._members is None:
            return
        if not np.isnan(events.y).all():
            self._has_y = True
            return
        for row in events.rows[:_EVENTS].tolist():
            members = self._members(records, row)
            if self._fields.has_y(members):
                self._has_y = True
                return
            if isinstance(members, dict):
                self._seen.update(_names(members))


def _names(members: dict[Any, Any], prefix: str = "") -> list[str]:
    """Return the paths of the members of an object and of the objects within it."""
    found = []
    for name, value in members.items():
        path = f"{prefix}{str(name).replace('.', chr(92) + '.')}"
        found += _names(value, f"{path}.") if isinstance(value, dict) and len(prefix) < 100 else [path]
    return found
