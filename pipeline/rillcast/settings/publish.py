"""Settings of publishing: which forecasts are published."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rillcast.settings.section import Section, require_no_user


class PublishSettings(Section):
    """Which forecasts are published. Whatever is kept back, every event moves its stream's state and is counted."""

    warming_up: bool = True
    """Whether a stream's first forecasts are published, while it knows fewer slots than the model's context."""
    every: Annotated[int, Field(ge=1)] = 1
    """Only forecasts from every so-manieth slot, counted from the epoch, whatever stream: with hours and 24, those that
    are made at midnight UTC. So a replay publishes the same ones."""
    on_change: Annotated[float, Field(ge=0)] = 0.0
    """Only forecasts that have moved since the stream's last published one: by more than this share of the width of the
    interval that was published for the same slot. At the latest, one is published when half of the last one's horizon
    has passed. After a restart, or when its partition moves, a stream's first forecast is always published. 0 = all."""
    trace_context: bool = False
    """Whether a forecast gets the W3C trace context (headers `traceparent`, `tracestate`) of its observation. Looking
    for it costs a little for each event, hence off."""
    otlp_endpoint: str | None = None
    """Where a span of each traced and sampled observation is posted to (OTLP over HTTP:
    `http://localhost:4318/v1/traces`); its forecast then names that span as its parent. Needs `publish.trace_context`
    and the extra `rillcast[otel]`."""

    @model_validator(mode="after")
    def _spans_have_a_context(self) -> PublishSettings:
        if self.otlp_endpoint is not None and not self.trace_context:
            raise ValueError("publish.otlp_endpoint is set, which needs publish.trace_context = true")
        if self.otlp_endpoint is not None and urlsplit(self.otlp_endpoint).scheme not in ("http", "https"):
            raise ValueError("publish.otlp_endpoint has to begin with http:// or https://")
        require_no_user(self.otlp_endpoint or "", "leave it to OTEL_EXPORTER_OTLP_HEADERS")
        return self
