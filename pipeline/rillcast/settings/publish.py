"""Settings of publishing: which forecasts are published, and how they are traced."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from rillcast.settings.section import Section, require_no_user

_STEPS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


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
    bounds: Literal["auto", "none"] = "auto"
    """Keeps forecasts to the values that a stream can have, where the model learns them: none below zero for a stream
    that never was negative, whole numbers for counts, zeros where many values are zero. `none` publishes what the
    model's widths say ([experts.md](experts.md#bounds))."""
    levels: str | None = None
    """Publishes only these quantiles of a forecast, such as `0.1,0.5,0.9`; unset = all levels of the model. Each has to
    be one of the model's. [records.md](records.md) says what they cost in bytes."""
    horizons: str | None = None
    """Publishes only these steps of a forecast, counted from 1: `1-24`, or `1-12,24,48`; unset = the model's whole
    horizon. States, scores, anomalies and the live page see all steps."""
    trace_context: bool = False
    """Copies the W3C trace context (headers `traceparent`, `tracestate`) of an observation to its forecast. The look-up
    costs a little per event."""
    otlp_endpoint: str | None = None
    """Address that receives a span per traced and sampled observation (OTLP over HTTP:
    `http://localhost:4318/v1/traces`). The forecast then names that span as its parent. Needs `publish.trace_context`
    and the extra `rillcast[otel]`."""

    @model_validator(mode="after")
    def _selection_can_be_read(self) -> PublishSettings:
        _ = self.chosen_levels, self.chosen_steps
        return self

    @property
    def chosen_levels(self) -> tuple[float, ...]:
        """The levels of `levels`, increasing; empty = all."""
        try:
            found = [float(part) for part in (self.levels or "").split(",") if self.levels]
        except ValueError:
            found = [0.0]
        if not all(0 < level < 1 for level in found) or len(set(found)) < len(found):
            raise ValueError(f"publish.levels is {self.levels!r}, expected different numbers between 0 and 1: 0.1,0.5")
        return tuple(sorted(found))

    @property
    def chosen_steps(self) -> tuple[int, ...]:
        """The steps of `horizons`, increasing; empty = all."""
        found: set[int] = set()
        for part in self.horizons.split(",") if self.horizons else ():
            match = _STEPS.fullmatch(part.strip())
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 1 <= first <= last:
                raise ValueError(f"publish.horizons is {self.horizons!r}, expected steps from 1: 1-24, or 1-12,24,48")
            found.update(range(first, last + 1))
        return tuple(sorted(found))

    @model_validator(mode="after")
    def _spans_have_a_context(self) -> PublishSettings:
        if self.otlp_endpoint is not None and not self.trace_context:
            raise ValueError("publish.otlp_endpoint is set, which needs publish.trace_context = true")
        if self.otlp_endpoint is not None and urlsplit(self.otlp_endpoint).scheme not in ("http", "https"):
            raise ValueError("publish.otlp_endpoint must begin with http:// or https://")
        require_no_user(self.otlp_endpoint or "", "use OTEL_EXPORTER_OTLP_HEADERS")
        return self
