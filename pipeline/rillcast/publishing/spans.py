"""Spans of OpenTelemetry: one for each traced observation, between its producer's and that of its forecast's reader.

Owns: the span, and the trace context that its forecast carries on (https://opentelemetry.io/docs/specs/otel/). Does not
know: which headers a record may carry (`rillcast.publishing.trace_context`), nor who collects spans. Needs the extra
`rillcast[otel]`.

Invariants: an observation without a trace context, or with one that says "not sampled", gets no span, and its context
passes on as it came: Rillcast begins no trace of its own. Spans are sent in the background. While the collector is
unavailable they are dropped, and no forecast waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rillcast.codecs.forecasts.columns import STATUS_NAMES, ForecastColumns
from rillcast.transports.base import Headers

NAME: Final = "forecast"
_SCOPE: Final = "rillcast"


class Spans:
    """Used from one thread; a thread of its own sends the spans."""

    def __init__(self, endpoint: str, *, wall_clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Begin to send.

        Args:
            endpoint: The whole URL that spans are posted to (`http://localhost:4318/v1/traces`).
            wall_clock_ns: Nanoseconds since the epoch.
        """
        self._provider = TracerProvider(
            sampler=ParentBased(root=ALWAYS_OFF),
            resource=Resource.create({"service.name": "rillcast"}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer(_SCOPE)
        self._propagator = TraceContextTextMapPropagator()
        self._wall_clock_ns = wall_clock_ns

    def of_forecasts(
        self, model: str, forecasts: ForecastColumns, headers: Sequence[Headers], seconds: float
    ) -> list[Headers]:
        """Make a span for each sampled forecast; return the headers that the forecasts get, which name it as parent.

        Args:
            model: Name and id of the bundle that made the forecasts, an attribute of every span.
            forecasts: The forecasts.
            headers: The trace context of each one's observation; empty = none.
            seconds: Seconds that their step took, up to now.
        """
        end = self._wall_clock_ns()
        start = end - round(seconds * 1e9)
        contexts: list[Headers] = []
        for row, context in enumerate(headers):
            if not context:
                contexts.append(context)
                continue
            attributes: dict[str, str | int] = {
                "rillcast.stream": forecasts.unique_ids[row],
                "rillcast.status": STATUS_NAMES[forecasts.status[row]],
                "rillcast.model": model,
                "messaging.operation.type": "process",
                "messaging.destination.partition.id": str(forecasts.partitions[row]),
                "messaging.kafka.offset": int(forecasts.offsets[row]),
            }
            contexts.append(self._span(attributes, context, start, end))
        return contexts

    def close(self) -> None:
        """Send the spans that are left; waits for the collector no longer than the exporter's time-out."""
        self._provider.shutdown()

    def _span(self, attributes: dict[str, str | int], context: Headers, start: int, end: int) -> Headers:
        carrier = {name: (value or b"").decode("ascii", errors="replace") for name, value in context}
        parent = self._propagator.extract(carrier)
        if not trace.get_current_span(parent).get_span_context().trace_flags.sampled:
            return context
        span = self._tracer.start_span(
            NAME,
            context=parent,
            kind=SpanKind.CONSUMER,
            start_time=start,
            attributes=attributes,
        )
        span.end(end_time=end)
        onward: dict[str, str] = {}
        self._propagator.inject(onward, trace.set_span_in_context(span, parent))
        return [(name, value.encode()) for name, value in onward.items()]
