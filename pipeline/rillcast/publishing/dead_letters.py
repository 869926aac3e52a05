"""Dead letters: records that cannot be used, kept with all that is needed to understand and replay them.

Owns: their form, written and read. Key and value are the original bytes and the original headers come along; what is
added, after them, are headers that begin with `rillcast-`. A value beyond the limit is cut, and a header says how long
it was: the position leads to the whole. Does not know: where dead letters are kept.
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
        key: of the original.
        value: of the original, cut if `original_bytes` says so; empty if the original had none.
        headers: of the original.
        reason: code; "" if the record is none of our dead letters.
        detail: the particulars, for people.
        source: topic or file that the original stands in.
        partition: of the original; -1 = unknown.
        offset: of the original; -1 = unknown.
        timestamp_ms: of the original, -1 = unknown.
        model: name and id of the bundle that was being served.
        original_bytes: length of the original value if it was cut.
    """

    key: bytes | None
    value: bytes
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
        """Whether the value is all there."""
        return self.original_bytes is None

    @classmethod
    def read(cls, key: bytes | None, value: bytes | None, headers: Headers) -> DeadLetter:
        """Take a record of a dead-letter topic apart.

        The original may have had headers with our names: of each name, the last one is ours.
        """
        last = {name: index for index, (name, _) in enumerate(headers) if name in _OWN_HEADERS}
        own = {name: headers[index][1].decode(errors="replace") for name, index in last.items()}
        cut = own.get("rillcast-original-bytes")
        return cls(
            key=key,
            value=value or b"",
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
    """Builds dead letters for one source and one model."""

    def __init__(self, source_name: str, model: str, max_bytes: int) -> None:
        self._source_name = source_name
        self._model = model
        self._max_bytes = max_bytes

    def serve(self, model: str) -> None:
        """Say which model is served from now on, by name and id."""
        self._model = model

    def publish(self, sink: Sink, polled: Polled, rejections: Sequence[Rejection]) -> None:
        """Hand one dead letter per rejection to the sink, in the order of the poll.

        Raises:
            TransportError: the sink is broken.
        """
        ordered = sorted(rejections)
        keys = [polled.keys[rejection.row] for rejection in ordered]
        values = [(polled.values[rejection.row] or b"")[: self._max_bytes] for rejection in ordered]
        headers = [self._headers(polled, rejection) for rejection in ordered]
        sink.publish(Channel.DEAD_LETTERS, Records(keys, values, headers))

    def _headers(self, polled: Polled, rejection: Rejection) -> Headers:
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
            ("rillcast-model", self._model.encode()),
        ]
        if value is not None and len(value) > self._max_bytes:
            headers.append(("rillcast-original-bytes", str(len(value)).encode()))
        return headers


def _number(text: str | None) -> int:
    """Return a number of a header that another hand may have written."""
    try:
        return int(text or "")
    except ValueError:
        return -1
