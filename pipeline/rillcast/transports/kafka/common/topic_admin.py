"""Topics as an outsider sees them, and their creation.

Owns: the questions that a client library is asked. Does not know: either library (each brings a `TopicAdmin`), or what
a topic is for.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Final, Protocol

METADATA_AGE_MS: Final = 10_000
"""Partitions that are added to a topic are noticed within this time; the clients' default is five minutes."""


class Brokers(enum.Enum):
    """Which brokers are there."""

    AWAY = enum.auto()
    """None answers."""
    SOME = enum.auto()
    """One answers, and of some partition a copy or the leader is away: what needs it may fail."""
    COMPLETE = enum.auto()
    """They answer, and nothing is away."""


class TopicAdmin(Protocol):
    """Every method raises `TransportError` if the cluster does not answer or refuses."""

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions; None = there is no such topic."""
        ...

    def lacking(self, topics: Collection[str]) -> Collection[str]:
        """Return those topics of which a partition has no leader, or a copy that is not in step with it."""
        ...

    def config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's configuration, defaults included."""
        ...

    def operations(self, topic: str) -> frozenset[str] | None:
        """Return what this client may do with a topic, such as `READ`, `WRITE`; None = the brokers do not say."""
        ...

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create the topic with the brokers' replication factor and wait until it is listed; it may exist already."""
        ...

    def grow(self, topic: str, partitions: int) -> None:
        """Let the topic have at least this many partitions, and wait until they are listed."""
        ...

    def close(self) -> None:
        """Release resources."""
        ...
