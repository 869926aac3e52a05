"""A consumer group as an outsider sees it.

Owns: the questions that a client library is asked. Does not know: either library; each brings a `GroupView`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rillcast.transports.base import Assignment


class GroupView(Protocol):
    """Every method raises `TransportError` if the cluster does not answer or refuses."""

    def members(self) -> int:
        """Return the number of members; 0 if there is no such group."""
        ...

    def assignments(self, partitions: Sequence[int]) -> Sequence[Assignment]:
        """Return committed position, beginning and end of partitions of the input."""
        ...

    def close(self) -> None:
        """Release resources."""
        ...
