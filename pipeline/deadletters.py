"""Dead letters: records that cannot be used, kept with all that is needed to understand and replay them.

Key and value are the original bytes and the original headers come along; what is added are headers that begin with
`rillcast-`. A value beyond the limit is cut, and a header says how long it was: the position leads to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.codecs.rejections import Rejection
from pipeline.transports.base import Channel, Headers, Polled, Sink


class DeadLetters:
    """Builds dead letters for one source and one model."""

    def __init__(self, source_name: str, model_id: str, max_bytes: int) -> None:
        self._source_name = source_name
        self._model_id = model_id
        self._max_bytes = max_bytes

    def publish(self, sink: Sink, polled: Polled, rejections: Sequence[Rejection]) -> None:
        """Hand one dead letter per rejection to the sink, in the order of the poll.

        Raises:
            TransportError: the sink is broken.
        """
        ordered = sorted(rejections)
        keys = [polled.keys[rejection.row] for rejection in ordered]
        values = [(polled.values[rejection.row] or b"")[: self._max_bytes] for rejection in ordered]
        headers = [self._headers(polled, rejection) for rejection in ordered]
        sink.publish(Channel.DEAD_LETTERS, keys, values, headers)

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
            ("rillcast-model", self._model_id.encode()),
        ]
        if value is not None and len(value) > self._max_bytes:
            headers.append(("rillcast-original-bytes", str(len(value)).encode()))
        return headers
