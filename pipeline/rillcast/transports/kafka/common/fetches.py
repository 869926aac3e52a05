"""How much of a partition one fetch takes.

Clients hand out one fetch after the other, and in a fetch one partition's records after the other's. With their default
of 1 MB a poll of a backlog holds records of one partition. Few busy streams then stand in it with many events each, of
which the model steps one after the other. Small fetches mix the partitions, and so more streams share a call.

Owns: this number. Does not know: either client library.
"""

from __future__ import annotations

from typing import Final

from rillcast.settings import KafkaSettings

# A poll of small events spans several fetches of it. With a round trip of 20 ms to the brokers it still lets 6 MB/s of
# a partition through.
_BYTES: Final = 131_072


def partition_bytes(settings: KafkaSettings) -> int:
    """Return the most bytes of a partition in a fetch, unless its next batch alone is larger."""
    return min(_BYTES, settings.max_fetch_bytes)
