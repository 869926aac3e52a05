"""Dead letters: records that cannot be used, kept with all that is needed to understand and replay them.

Owns: their form, written and read. Key and value are the original bytes. The original headers come first, then headers
whose names begin with `rillcast-`. A value beyond the limit is cut, and a header says how long it was; the position
leads to the whole record. Does not know: where dead letters are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rillcast.codecs.observations.rejections import Rejection
from rillcast.transports.base import Channel, Headers, Polled, Records, Sink

_OWN_HEADERS: Final = frozenset(
    f"rillcast-{name}"
    for name in ("reason", "detail", "source", "partition", "offset", "timestamp-ms", "model", "original-bytes")
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter, read back.

    Attributes:
        key: Key of the original record.
        value: Value of the original, cut where `original_bytes` is set; None for a tombstone.
        headers: Headers of the original.
        reason: Code of the reason; "" if the record is no dead letter of Rillcast.
        detail: The particulars, for people.
        source: Topic or file of the original.
        partition: Partition of the original; -1 = unknown.
        offset: Offset of the original; -1 = unknown.
        timestamp_ms: Timestamp of the original; -1 = unknown.
        model: Name and id of the bundle that served.
        original_bytes: Length of the original value, if it was cut.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: str
    detail: str
    source: str
    partition: int
    offset: int
    timestamp_ms: int
    model: str
    original_bytes: int | None

    @property
    def is_whole(self) -> bool:
        """Whether the value is complete."""
        return self.original_bytes is None

    @classmethod
    def read(cls, key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter:
        """Read a record of a dead-letter topic.

        The original may have headers with the names of Rillcast's: of each name, the last one is Rillcast's.
        """
        last = {name: index for index, (name, _) in enumerate(headers) if name in _OWN_HEADERS}
        own = {name: (headers[index][1] or b"").decode(errors="replace") for name, index in last.items()}
        cut = own.get("rillcast-original-bytes")
        return cls(
            key=key,
            value=value,
            headers=[header for index, header in enumerate(headers) if index not in last.values()],
            reason=own.get("rillcast-reason", ""),
            detail=own.get("rillcast-detail", ""),
            source=own.get("rillcast-source", ""),
            partition=_number(own.get("rillcast-partition")),
            offset=_number(own.get("rillcast-offset")),
            timestamp_ms=_number(own.get("rillcast-timestamp-ms")),
            model=own.get("rillcast-model", ""),
            original_bytes=None if cut is None else _number(cut),
        )


class DeadLetters:
    """Makes the dead letters of one source."""

    def __init__(self, source_name: str, max_bytes: int) -> None:
        """Begin.

        Args:
            source_name: Topic or file that the records come from.
            max_bytes: Bytes of a value beyond which it is cut.
        """
        self._source_name = source_name
        self._max_bytes = max_bytes

    def publish(self, sink: Sink, polled: Polled, rejections: Sequence[Rejection], model: str) -> None:
        """Hand one dead letter per rejection to the sink, in the order of the poll.

        Args:
            sink: Takes the records, as `Channel.DEAD_LETTERS`.
            polled: The poll of the rejected records.
            rejections: At least one.
            model: Name and id of the bundle that serves.

        Raises:
            TransportError: The sink is broken.
        """
        ordered = sorted(rejections)
        keys = [polled.keys[rejection.row] for rejection in ordered]
        values = [self._value(polled.values[rejection.row]) for rejection in ordered]
        headers = [self._headers(polled, rejection, model) for rejection in ordered]
        sink.publish(Channel.DEAD_LETTERS, Records(keys, values, headers))

    def _value(self, value: bytes | None) -> bytes | None:
        return None if value is None else value[: self._max_bytes]

    def _headers(self, polled: Polled, rejection: Rejection, model: str) -> Headers:
        row, reason, detail = rejection
        value = polled.values[row]
        headers = [
            *polled.headers(row),
            ("rillcast-reason", reason.value.encode()),
            ("rillcast-detail", detail.encode(errors="replace")),
            ("rillcast-source", self._source_name.encode()),
            ("rillcast-partition", str(polled.partitions[row]).encode()),
            ("rillcast-offset", str(polled.offsets[row]).encode()),
            ("rillcast-timestamp-ms", str(polled.timestamps_ms[row]).encode()),
            ("rillcast-model", model.encode()),
        ]
        if value is not None and len(value) > self._max_bytes:
            headers.append(("rillcast-original-bytes", str(len(value)).encode()))
        return headers


def _number(text: str | None) -> int:
    """Return the number in a header, which another program may have written; -1 where it is none."""
    try:
        return int(text or "")
    except ValueError:
        return -1
