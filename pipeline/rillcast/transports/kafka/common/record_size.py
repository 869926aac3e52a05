"""The largest record that a topic takes, and the words for one that is larger.

Owns: the look-up of the limits. Does not know: either client library, what is in a record, or how its bytes are counted
(`rillcast.transports.base.record_bytes`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final, TypeAlias

from rillcast.errors import SettingsError, TransportError
from rillcast.settings import KafkaSettings
from rillcast.transports.base import Channel, Records, record_bytes
from rillcast.transports.kafka.common.topic_admin import TopicAdmin

log = logging.getLogger(__name__)

Limits: TypeAlias = Mapping[Channel, int]
"""Bytes of the largest record of a channel's topic; without an entry it is unknown."""

SETTING: Final = "max.message.bytes"
LEAST_BYTES: Final = 1_000
"""A dead letter without key, value and original headers fits into this."""
_MOST_SHOWN: Final = 100


def limits_of(admin: TopicAdmin, topics: Mapping[Channel, str], settings: KafkaSettings) -> Limits:
    """Return the limits that the topics' configurations say.

    Raises:
        SettingsError: The topic of the dead letters takes hardly any record.
        TransportError: No broker answers.
    """
    found: dict[Channel, int] = {}
    for channel, topic in topics.items():
        if admin.partitions(topic) is None:
            continue  # the sink refuses it
        try:
            found[channel] = min(settings.max_message_bytes, int(admin.config(topic)[SETTING]))
        except (TransportError, KeyError, ValueError) as error:
            log.info(
                "the largest record of topic %s is unknown (%s); it is taken for kafka.max_message_bytes=%d. Grant "
                "DESCRIBE_CONFIGS, or set kafka.max_message_bytes to what the topic takes",
                topic,
                error,
                settings.max_message_bytes,
            )
    if (dead := found.get(Channel.DEAD_LETTERS, LEAST_BYTES)) < LEAST_BYTES:
        raise SettingsError(
            f"topic {topics[Channel.DEAD_LETTERS]} takes records of at most {dead} bytes ({SETTING}, "
            f"kafka.max_message_bytes), expected at least {LEAST_BYTES}, or no dead letter fits; alter it"
        )
    return found


def batch_bytes(limits: Limits, default: int) -> int:
    """Return the most bytes of a batch: a topic that takes it takes every batch, and none has to be split."""
    return min([default, *limits.values()])


class Transaction:
    """What a transaction has published, for a client that does not say which of its records was refused."""

    def __init__(self, topics: Mapping[Channel, str], limits: Limits) -> None:
        self._topics = topics
        self._limits = limits
        self._largest: dict[Channel, tuple[int, bytes | None]] = {}

    def note(self, channel: Channel, records: Records) -> None:
        """Note the largest of some records."""
        if records.most_bytes <= self._largest.get(channel, (0, None))[0]:
            return
        headers = records.headers if records.headers is not None else ((),) * len(records)
        for key, value, fields in zip(records.keys, records.values, headers, strict=True):
            if (size := record_bytes(key, value, fields)) > self._largest.get(channel, (0, None))[0]:
                self._largest[channel] = size, key

    def clear(self) -> None:
        """Begin the next transaction."""
        self._largest.clear()

    @property
    def topics(self) -> list[str]:
        """The topics that it writes to."""
        return [self._topics[channel] for channel in self._largest]

    def described(self, cause: object) -> str:
        """Return the words for a record that was refused for its size, or for each that may have been."""
        beyond = {c: each for c, each in self._largest.items() if c in self._limits and each[0] > self._limits[c]}
        asked = beyond or self._largest
        return " or ".join(
            described(self._topics[channel], key, size, cause, too_large=True) for channel, (size, key) in asked.items()
        )


def described(topic: str, key: bytes | None, size: int | None, cause: object, *, too_large: bool) -> str:
    """Return the words for a record that was refused.

    Args:
        topic: Topic that it was for.
        key: Its key.
        size: Its bytes; None = unknown.
        cause: The client's error.
        too_large: Whether it was refused for its size.
    """
    shown = repr((key or b"")[:_MOST_SHOWN].decode(errors="replace")) if key is not None else "none"
    text = f"{cause} (topic {topic}, key {shown}" + (")" if size is None else f", {size} bytes)")
    if too_large:
        text += f"; raise {SETTING} of topic {topic} and kafka.max_message_bytes to at least the size of the record"
    return text
