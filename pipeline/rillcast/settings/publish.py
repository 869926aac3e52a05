"""Settings of publishing: which forecasts are published, and how they are traced."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rillcast.settings.section import Section, require_no_user


class PublishSettings(Section):
    """The selection of forecasts to publish. Every event updates the state of its stream and is counted in any case."""

    warming_up: bool = True
    """Publishes the first forecasts of a stream, while it has fewer periods than the model's context."""
    every: Annotated[int, Field(ge=1)] = 1
    """Publishes only the forecasts of every N-th period, counted from the epoch; 1 = all. With hourly periods and 24,
    those made at midnight UTC. A replay publishes the same ones."""
    on_change: Annotated[float, Field(ge=0)] = 0.0
    """Publishes only forecasts that moved since the last published one of the stream; 0 = all. The unit is the width of
    the interval that was published for the same period. A stream publishes at the latest after half of its horizon,
    and always after a restart or a move of its partition."""
    trace_context: bool = False
    """Copies the W3C trace context (headers `traceparent`, `tracestate`) of an observation to its forecast. The look-up
    costs a little per event."""
    otlp_endpoint: str | None = None
    """Address that receives a span per traced and sampled observation (OTLP over HTTP:
    `http://localhost:4318/v1/traces`). The forecast then names that span as its parent. Needs `publish.trace_context`
    and the extra `rillcast[otel]`."""

    @model_validator(mode="after")
    def _spans_have_a_context(self) -> PublishSettings:
        if self.otlp_endpoint is not None and not self.trace_context:
            raise ValueError("publish.otlp_endpoint is set, which needs publish.trace_context = true")
        if self.otlp_endpoint is not None and urlsplit(self.otlp_endpoint).scheme not in ("http", "https"):
            raise ValueError("publish.otlp_endpoint must begin with http:// or https://")
        require_no_user(self.otlp_endpoint or "", "use OTEL_EXPORTER_OTLP_HEADERS")
        return self
