"""What the topic of the Kafka state store has to be, and making it so.

Owns: its configuration, and the reasons to refuse a topic that would lose or mix up state. Does not know: either client
library (each brings a `TopicAdmin`), or what is written.

Invariants: the topic has as many partitions as the input, for its partition `p` holds the state of partition `p` of
the input; it is compacted and nothing else, for retention by time would delete the pages of streams that are quiet.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, Protocol

from rillcast.errors import SettingsError

log = logging.getLogger(__name__)

DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588  # the brokers' own
_BATCH_OVERHEAD_BYTES: Final = 4_096
# The cleaner leaves the newest segment alone and waits until this share of the others is old, and a restore reads it
# all: with the brokers' defaults (1 GiB, a week, half) a partition of 10 MB is read as a gigabyte.
_SEGMENT_BYTES: Final = 64 * 2**20
_SEGMENT_MS: Final = 10 * 60_000
_DIRTY_RATIO: Final = 0.1


class TopicAdmin(Protocol):
    """What is asked of a client. Every method raises `TransportError` where the cluster does not answer or refuses."""

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions; None = there is no such topic."""
        ...

    def config(self, topic: str) -> Mapping[str, str]:
        """Return the topic's configuration, defaults included."""
        ...

    def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Make the topic with the brokers' replication factor, and wait until it is there; it may be there already."""
        ...

    def close(self) -> None:
        """Release resources."""
        ...


def ensure_topic(admin: TopicAdmin, topic: str, partitions: int, max_message_bytes: int) -> None:
    """Make the state topic if it is missing, and check it.

    Args:
        admin: who asks.
        topic: of the state.
        partitions: how many the input has.
        max_message_bytes: largest record that is produced.

    Raises:
        SettingsError: it has another number of partitions, is not compacted, or takes only smaller records.
        TransportError: the cluster does not answer or refuses.
    """
    found = admin.partitions(topic)
    if found is None:
        admin.create(topic, partitions, wanted_config(max_message_bytes))
        log.info("made the state topic %s with %d partitions", topic, partitions)
        found = admin.partitions(topic)
    if found != partitions:
        raise SettingsError(
            f"state topic {topic} has {found} partitions, the input has {partitions}; partition p of the state belongs "
            f"to partition p of the input: name another state.topic, which is made, or set state.store=none"
        )
    config = admin.config(topic)
    if (policy := config.get("cleanup.policy")) != "compact":
        raise SettingsError(
            f"state topic {topic} has cleanup.policy={policy}, expected compact: anything else deletes the state of "
            f"quiet streams; alter the topic, or name another state.topic, which is made"
        )
    if (allowed := int(config["max.message.bytes"])) < max_message_bytes:
        raise SettingsError(
            f"state topic {topic} has max.message.bytes={allowed}, less than kafka.max_message_bytes="
            f"{max_message_bytes}; alter the topic to at least that"
        )


def wanted_config(max_message_bytes: int) -> dict[str, str]:
    """Return the configuration of a state topic that is made here."""
    return {
        "cleanup.policy": "compact",
        "segment.bytes": str(_SEGMENT_BYTES),
        "segment.ms": str(_SEGMENT_MS),
        "min.cleanable.dirty.ratio": str(_DIRTY_RATIO),
        "max.message.bytes": str(max(DEFAULT_MAX_MESSAGE_BYTES, max_message_bytes + _BATCH_OVERHEAD_BYTES)),
    }
