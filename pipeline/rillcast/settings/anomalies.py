"""Settings of the anomaly records."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rillcast.settings.section import Section


class AnomalySettings(Section):
    """Records of the observations that their forecasts did not expect, beside the forecasts and in the same commits."""

    topic: str | None = None
    """Kafka topic of the anomalous observations, keyed by stream id; by default there is none."""
    path: str | None = None
    """File of the anomalous observations (.jsonl), if `output.path` is set; by default there is none."""
    tail_probability: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """An observation is anomalous if the forecast before gave less than this to one as far out; where forecasts are
    calibrated, this is the share of all observations that is."""
