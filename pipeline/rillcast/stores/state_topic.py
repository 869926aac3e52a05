"""Creates and checks the topic of the Kafka state store.

Owns: its configuration, and the reasons to refuse a topic that would lose or mix up state. Does not know: either client
library, or what is written.

Invariants: the topic has as many partitions as the input, since its partition `p` holds the state of partition `p` of
the input. Where the input has grown, so does the topic; nothing of the partitions before changes. It is compacted and
nothing else, since retention by time would delete the pages of quiet streams.
"""

from __future__ import annotations

import logging
from typing import Final

from rillcast.errors import SettingsError, TransportError
from rillcast.transports.kafka.common.topic_admin import TopicAdmin

log = logging.getLogger(__name__)

DEFAULT_MAX_MESSAGE_BYTES: Final = 1_048_588  # the brokers' default
_BATCH_OVERHEAD_BYTES: Final = 4_096
# The cleaner skips the newest segment and waits until this share of the others is outdated, but a restore reads all of
# it. With the brokers' defaults (1 GiB, one week, 0.5) a restore of 10 MB reads 1 GB.
_SEGMENT_BYTES: Final = 64 * 2**20
_SEGMENT_MS: Final = 10 * 60_000
_DIRTY_RATIO: Final = 0.1


def ensure_topic(admin: TopicAdmin, topic: str, partitions: int, max_message_bytes: int, needed_bytes: int) -> None:
    """Create the state topic if it is missing, and check it.

    Args:
        admin: Administrator of the brokers.
        topic: Name of the state topic.
        partitions: Number of partitions of the input.
        max_message_bytes: Size of the largest record that a new topic takes.
        needed_bytes: Size of the largest record that is produced.

    Raises:
        SettingsError: It has more partitions, cannot be grown, is not compacted, or takes only smaller records.
        TransportError: The cluster does not answer or refuses.
    """
    found = admin.partitions(topic)
    if found is None:
        admin.create(topic, partitions, wanted_config(max_message_bytes))
        log.info("created the state topic %s with %d partitions", topic, partitions)
        found = admin.partitions(topic)
    if found is not None and found < partitions:
        grow(admin, topic, partitions, found)
        found = admin.partitions(topic)
    if found != partitions:
        raise SettingsError(
            f"state topic {topic} has {found} partitions, expected {partitions} like the input; set state.topic to a "
            f"new name (the topic is created), or state.store=none"
        )
    config = admin.config(topic)
    if (policy := config.get("cleanup.policy")) != "compact":
        raise SettingsError(
            f"state topic {topic} has cleanup.policy={policy}, expected compact, since anything else deletes the state "
            f"of quiet streams; alter the topic, or set state.topic to a new name (the topic is created)"
        )
    if (allowed := int(config["max.message.bytes"])) < needed_bytes:
        raise SettingsError(
            f"state topic {topic} has max.message.bytes={allowed}, expected at least {needed_bytes} for a page of "
            f"state; alter the topic, or set state.topic to a new name (the topic is created)"
        )


def grow(admin: TopicAdmin, topic: str, partitions: int, found: int) -> None:
    """Add partitions to the state topic, because the input has more; log what that means.

    Args:
        admin: Administrator of the brokers.
        topic: Name of the state topic.
        partitions: Number of partitions of the input.
        found: Number of partitions of the state topic.

    Raises:
        SettingsError: They cannot be added; the message has the command.
    """
    try:
        admin.grow(topic, partitions)
    except TransportError as error:
        raise SettingsError(
            f"state topic {topic} has {found} partitions, expected {partitions} like the input, and could not be grown "
            f"({error}); its state is kept if you run `kafka-topics.sh --bootstrap-server HOST:9092 --alter --topic "
            f"{topic} --partitions {partitions}`, or grant ALTER on it"
        ) from error
    log.warning(
        "the input has %d partitions, and the state topic %s had %d: it was grown to as many, and its state is kept. "
        "Streams whose records go to another partition now begin there without state",
        partitions,
        topic,
        found,
    )


def wanted_config(max_message_bytes: int) -> dict[str, str]:
    """Return the configuration with which the state topic is created."""
    return {
        "cleanup.policy": "compact",
        "segment.bytes": str(_SEGMENT_BYTES),
        "segment.ms": str(_SEGMENT_MS),
        "min.cleanable.dirty.ratio": str(_DIRTY_RATIO),
        # With the members' own time a broker refuses pages of a member whose clock is an hour ahead.
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(max(DEFAULT_MAX_MESSAGE_BYTES, max_message_bytes + _BATCH_OVERHEAD_BYTES)),
    }
