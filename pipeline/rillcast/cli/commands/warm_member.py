"""The only member of a stopped group, by which `rillcast warm` reads history and commits the service's positions.

Owns: the group's partitions, that nobody else takes them meanwhile, and the positions at which the service begins.
Does not know: states, models.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from rillcast.cli.signals import raise_if_interrupted
from rillcast.durability.warming import Warming
from rillcast.errors import TransportError
from rillcast.settings import Settings
from rillcast.transports.base import Assignment, Source
from rillcast.transports.connect import open_source

_JOIN_TIMEOUT_S: Final = 120.0


class OnlyMember:
    """The group's only member, with all of its partitions paused until history is read from them."""

    def __init__(self, settings: Settings, partitions: Sequence[int]) -> None:
        """Take the partitions of the input; nothing is joined yet."""
        self._settings = settings
        self._partitions = set(partitions)
        self._assigned: dict[int, Assignment] = {}
        self._source: Source = open_source(settings)

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        """Note the partitions, and pause them."""
        self._assigned |= {assignment.partition: assignment for assignment in assignments}
        return dict.fromkeys((assignment.partition for assignment in assignments), None)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Refuse to go on.

        Raises:
            TransportError: Another member took partitions.
        """
        raise TransportError(
            f"group {self._settings.kafka.group_id}: another member took partitions {sorted(partitions)} during the "
            f"warm-up; no state was stored. Stop the service and try again"
        )

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Refuse to go on, as in `on_revoked`."""
        self.on_revoked(partitions)

    def join(self) -> None:
        """Join, and wait for every partition.

        Raises:
            TransportError: Some were not assigned in time.
        """
        self._source.open(self)
        deadline = time.monotonic() + _JOIN_TIMEOUT_S
        while self._assigned.keys() != self._partitions:
            self._source.poll(1, self._settings.worker.poll_timeout_s)
            raise_if_interrupted()
            if time.monotonic() > deadline:
                missing = sorted(self._partitions - self._assigned.keys())
                raise TransportError(
                    f"group {self._settings.kafka.group_id}: partitions {missing} were not assigned within "
                    f"{_JOIN_TIMEOUT_S:g} s; no state was stored. Stop other members and try again"
                )

    def positions(self, *, at_end: bool) -> dict[int, int]:
        """Return the positions of the service: the group's own, or else the end or `kafka.auto_offset_reset`."""
        latest = at_end or self._settings.kafka.auto_offset_reset == "latest"
        return {
            number: one.committed if one.committed is not None else (one.end if latest else one.beginning)
            for number, one in sorted(self._assigned.items())
        }

    def take(self, warming: Warming, positions: Mapping[int, int], events: int | None) -> None:
        """Step the events of the topic before the positions."""
        for number, position in positions.items():
            beginning = self._assigned[number].beginning
            self._source.resume_from(number, beginning if events is None else max(beginning, position - events))
        waiting = set(positions)
        while waiting:
            polled = self._source.poll(self._settings.worker.max_poll_records, self._settings.worker.poll_timeout_s)
            raise_if_interrupted()
            ends = np.array([positions.get(number, 0) for number in polled.partitions.tolist()], np.int64)
            warming.take(polled.take(np.flatnonzero(polled.offsets < ends)))
            at = self._source.positions()
            done = {number for number in waiting if at.get(number, 0) >= positions[number]}
            if done:
                self._source.pause(sorted(done))
                waiting -= done

    def commit(self, positions: Mapping[int, int]) -> None:
        """Commit the positions at which the service begins."""
        self._source.commit(positions)

    def close(self) -> None:
        """Leave the group."""
        self._source.close()
