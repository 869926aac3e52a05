"""A consumer group seen from outside, by who is no member of it.

Owns: what a client library is asked for that. Does not know: either library; each brings a `GroupView`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rillcast.transports.base import Assignment


class GroupView(Protocol):
    """What a client is asked. Every method raises `TransportError` where the cluster does not answer or refuses."""

    def members(self) -> int:
        """Return how many members the group has; 0 if there is no such group."""
        ...

    def assignments(self, partitions: Sequence[int]) -> Sequence[Assignment]:
        """Return committed position, beginning and end of partitions of the input."""
        ...

    def close(self) -> None:
        """Release resources."""
        ...
