"""Settings of the rollout of another model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rillcast.settings.section import Positive, Section


class RolloutSettings(Section):
    """Another model in the place of the one that serves, without a stop: see [rollout.md](rollout.md)."""

    poll_interval_s: Positive = 30.0
    """How often the registry is asked which models its aliases name, where `model` or `rollout.shadow` is such a
    reference."""
    shadow: str | None = None
    """A second model (`s3://bucket/models@shadow`) that steps every event too and publishes nothing; its scores become
    metrics beside those of the model that serves."""
    warm_up: Literal["context", "retained"] = "context"
    """How far back a model without kept state begins: `context` = twice as many slots as it needs to be warm,
    `retained` = all that the topic still has."""
    events_per_iteration: Annotated[int, Field(gt=0)] = 4_000
    """Most events that a model which does not serve is stepped by in a turn of the loop; more make it warm sooner, and
    the forecasts of the one that serves later meanwhile."""
    retry_s: Positive = 300.0
    """A model that could not be opened or warmed is tried again after so long."""
