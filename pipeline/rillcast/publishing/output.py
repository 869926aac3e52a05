"""Hands forecasts to the sink: as encoded records, with the trace headers of their observations.

Owns: the size of the parts in which forecasts are encoded and handed over. Does not know: which forecasts are
published, codecs' bytes, commits.
"""

from __future__ import annotations

from typing import Final

from rillcast.arrays import IntArray
from rillcast.codecs.forecasts.columns import ForecastColumns, ForecastEncoder
from rillcast.observability.stages import StageClock
from rillcast.publishing.trace_context import TraceContext
from rillcast.transports.base import Channel, Polled, Records, Sink

# The encoder holds the interpreter. Larger parts keep the engine, which steps in another thread, waiting for it
# (`rillcast.service.stepper`), and the brokers for the first record.
_PART_ROWS: Final = 256


class ForecastOutput:
    """The way of one model's forecasts to the sink. Used from one thread."""

    def __init__(
        self,
        sink: Sink,
        encoder: ForecastEncoder,
        trace: TraceContext | None = None,
        stages: StageClock | None = None,
    ) -> None:
        """Begin with nothing published.

        Args:
            sink: Takes the records, as `Channel.FORECASTS`.
            encoder: Turns forecasts into keys and values.
            trace: Gives each forecast the trace headers of its observation; None = forecasts have no headers.
            stages: The stop-watch of the loop, for the stages `encode` and `produce`.
        """
        self._sink = sink
        self._encoder = encoder
        self._trace = trace
        self._stages = stages or StageClock()

    def write(self, polled: Polled, records: IntArray, forecasts: ForecastColumns, seconds: float) -> list[bytes]:
        """Encode forecasts, hand them to the sink, and return the encoded values.

        Args:
            polled: The poll of their events.
            records: `(m,)` int64, the record of the poll that caused each forecast.
            forecasts: The `m` forecasts.
            seconds: Seconds that their step took, up to now.

        Raises:
            TransportError: The sink is broken.
        """
        headers = None if self._trace is None else self._trace.headers(polled, records, forecasts, seconds)
        written: list[bytes] = []
        for part in forecasts.parts(_PART_ROWS):
            keys, values = self._encoder.encode(part)
            self._stages.lap("encode")
            first = len(written)
            written += values
            part_headers = None if headers is None else headers[first : first + len(values)]
            self._sink.publish(Channel.FORECASTS, Records(keys, values, part_headers))
            self._stages.lap("produce")
        return written
