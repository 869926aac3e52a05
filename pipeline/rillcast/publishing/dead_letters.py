"""Dead letters: records that cannot be used, kept with all that is needed to understand and replay them.

Owns: their form, written and read. Key and value are the original bytes. The original headers come first, then headers
whose names begin with `rillcast-`. What does not fit is cut, and headers say what; the position leads to the whole
record. So every record has a dead letter, however large it is. Does not know: where dead letters are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from rillcast.codecs.observations.rejections import Rejection
from rillcast.transports.base import Channel, Headers, Polled, Records, Sink, record_bytes

_VALUE_CUT: Final = "rillcast-original-bytes"
_KEY_CUT: Final = "rillcast-original-key-bytes"
_HEADERS_CUT: Final = "rillcast-original-headers"
_OWN_HEADERS: Final = frozenset(
    [f"rillcast-{name}" for name in ("reason", "detail", "source", "partition", "offset", "timestamp-ms", "model")]
) | {_VALUE_CUT, _KEY_CUT, _HEADERS_CUT}
_MARK_BYTES: Final = 20  # of a number in a header
_MOST_DETAIL: Final = 4_096  # a validator's message may contain the whole record and its schema


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
        cut: Names of the parts that are not whole: `key`, `value`, `headers`.
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
    cut: Sequence[str] = ()

    @property
    def is_whole(self) -> bool:
        """Whether key, value and headers are complete."""
        return not self.cut

    @classmethod
    def read(cls, key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter:
        """Read a record of a dead-letter topic.

        The original may have headers with the names of Rillcast's: of each name, the last one is Rillcast's.
        """
        last = {name: index for index, (name, _) in enumerate(headers) if name in _OWN_HEADERS}
        own = {name: (headers[index][1] or b"").decode(errors="replace") for name, index in last.items()}
        value_bytes = own.get(_VALUE_CUT)
        marks = {"key": _KEY_CUT, "value": _VALUE_CUT, "headers": _HEADERS_CUT}
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
            original_bytes=None if value_bytes is None else _number(value_bytes),
            cut=[part for part, mark in marks.items() if mark in own],
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
        limit = sink.largest_record(Channel.DEAD_LETTERS)
        letters = [self._letter(polled, rejection, model, limit) for rejection in sorted(rejections)]
        keys, values, headers = zip(*letters, strict=True)
        sink.publish(Channel.DEAD_LETTERS, Records(keys, values, headers))

    def _letter(self, polled: Polled, rejection: Rejection, model: str, limit: int | None) -> _Letter:
        row, reason, detail = rejection
        key, value, originals = polled.keys[row], polled.values[row], polled.headers(row)
        about = detail.encode(errors="replace")[:_MOST_DETAIL]
        own = [
            ("rillcast-reason", reason.value.encode()),
            ("rillcast-detail", about),
            ("rillcast-source", self._source_name.encode()),
            ("rillcast-partition", str(polled.partitions[row]).encode()),
            ("rillcast-offset", str(polled.offsets[row]).encode()),
            ("rillcast-timestamp-ms", str(polled.timestamps_ms[row]).encode()),
            ("rillcast-model", model.encode()),
        ]
        if value is not None and len(value) > self._max_bytes:
            own.append((_VALUE_CUT, str(len(value)).encode()))
            value = value[: self._max_bytes]
        letter = _Letter(key, value, [*originals, *own])
        if limit is None or record_bytes(*letter) <= limit:
            return letter
        return _fitted(polled, row, value, own, limit)


class _Letter(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Headers


def _fitted(polled: Polled, row: int, value: bytes | None, own: list[tuple[str, bytes]], limit: int) -> _Letter:
    """Return a dead letter of at most `limit` bytes.

    The particulars come first, the key next, then the original headers, all of them or none; the value has the rest.
    Each of them takes at most half of what is left, so that something of each is there.
    """
    key, originals, whole = polled.keys[row], polled.headers(row), polled.values[row]
    marks = [(_VALUE_CUT, b""), (_KEY_CUT, b""), (_HEADERS_CUT, b"")]
    room = limit - record_bytes(None, None, [*own, *marks]) - len(marks) * _MARK_BYTES
    cuts: list[tuple[str, bytes]] = []
    if room < (least := limit // 4):
        name, about = own[1]
        own[1] = name, about[: max(0, len(about) - (least - room))]
        room += len(about) - len(own[1][1])
    if key is not None and len(key) > room // 2:
        cuts.append((_KEY_CUT, str(len(key)).encode()))
        key = key[: max(0, room // 2)]
    room -= len(key or b"")
    if (size := record_bytes(None, None, originals) - record_bytes(None, None)) > room // 2:
        cuts.append((_HEADERS_CUT, str(len(originals)).encode()))
        originals, size = (), 0
    room = max(0, room - size)
    own = [header for header in own if header[0] != _VALUE_CUT]
    if whole is not None and value is not None and min(len(value), room) < len(whole):
        cuts.append((_VALUE_CUT, str(len(whole)).encode()))
        value = value[:room]
    return _Letter(key, value, [*originals, *own, *cuts])


def _number(text: str | None) -> int:
    """Return the number in a header, which another program may have written; -1 where it is none."""
    try:
        return int(text or "")
    except ValueError:
        return -1
