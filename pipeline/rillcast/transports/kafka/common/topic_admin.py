"""Topics as an outsider sees them, and their creation.

Owns: the questions that a client library is asked. Does not know: either library (each brings a `TopicAdmin`), or what
a topic is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class TopicAdmin(Protocol):
    """Every method raises `TransportError` if the cluster does not answer or refuses."""

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions; None = there is no such topic."""
        ...

    def config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's configuration, defaults included."""
        ...

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create the topic with the brokers' replication factor and wait until it is listed; it may exist already."""
        ...

    def close(self) -> None:
        """Release resources."""
        ...
