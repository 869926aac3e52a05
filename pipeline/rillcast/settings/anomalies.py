"""Settings of the anomaly records."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rillcast.settings.section import FileText, Section


class AnomalySettings(Section):
    """Records of observations that their forecasts did not expect, and of silences, in the commits of the forecasts."""

    topic: str | None = None
    """Kafka topic of the anomalous observations, keyed by stream id; unset = no such records."""
    path: FileText | None = None
    """File of the anomalous observations (.jsonl), if `output.path` is set; unset = no such records. It is
    replaced or appended to as `output.path`."""
    tail_probability: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Probability below which an observation is anomalous: that of a value as far out, by the forecast before. If
    forecasts are calibrated, this is the share of anomalous observations. Lower it to get fewer records."""
