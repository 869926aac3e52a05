"""One partition that this member owns, and the states that it goes through.

                assigned
                    |
             +------v------+
             |   LOADING   |-------------+
             +------+------+             |
                    | the state is in    |
             +------v------+             | revoked, lost, or
             |  REPLAYING  |-------------+ reset to the
             +------+------+             | committed position
                    | committed offset   |
                    | is reached         |
             +------v------+      +------v------+
             |    LIVE     |----->|   LEAVING   |
             +-------------+      +-------------+

    LOADING     Its stored pages are being read; the source hands out none of its records.
    REPLAYING   Events from the pages' offset to the committed one are stepped again and their results suppressed. A
                state is not idempotent: each event is applied exactly once to the state that lacks it.
    LIVE        Results are published and positions committed.
    LEAVING     Its load is cancelled and its states are forgotten; nothing follows.

Without a store there is nothing to load, and the replay begins at the first retained event.

Owns: the states of a partition and their legal transitions. Does not know: what causes a transition.
"""

from __future__ import annotations

import enum
from typing import Final

from rillcast.durability.state_machine import StateMachine
from rillcast.stores.base import Restored
from rillcast.transports.base import Assignment


class PartitionState(enum.Enum):
    """See the module's docstring."""

    LOADING = "loading"
    REPLAYING = "replaying"
    LIVE = "live"
    LEAVING = "leaving"


LEGAL: Final = {
    PartitionState.LOADING: {PartitionState.REPLAYING, PartitionState.LEAVING},
    PartitionState.REPLAYING: {PartitionState.LIVE, PartitionState.LEAVING},
    PartitionState.LIVE: {PartitionState.LEAVING},
    PartitionState.LEAVING: set[PartitionState](),
}


class Partition:
    """A partition from its assignment until it leaves.

    Attributes:
        assignment: As the source announced it.
        since: When it was assigned, in monotonic seconds.
        found: The stored state of the routes that have loaded theirs, by the name of the route, while it is loading.
        live_from: Results of events below this offset are suppressed; known once it replays.
    """

    def __init__(self, assignment: Assignment, since: float) -> None:
        self.assignment = assignment
        self.since = since
        self.found: dict[str, Restored] = {}
        self.live_from = 0
        self._machine = StateMachine(f"partition {assignment.partition}", PartitionState.LOADING, LEGAL)

    @property
    def state(self) -> PartitionState:
        """The current state."""
        return self._machine.state

    def replay(self, live_from: int) -> None:
        """Begin to step the events below `live_from` again.

        Raises:
            IllegalTransitionError: It is not loading.
        """
        self._machine.become(PartitionState.REPLAYING)
        self.found = {}
        self.live_from = live_from

    def go_live(self) -> None:
        """Begin to publish.

        Raises:
            IllegalTransitionError: It is not replaying.
        """
        self._machine.become(PartitionState.LIVE)

    def leave(self) -> None:
        """Begin to forget the partition.

        Raises:
            IllegalTransitionError: It leaves already.
        """
        self._machine.become(PartitionState.LEAVING)
