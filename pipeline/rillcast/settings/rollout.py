"""Settings of a rollout: another model takes over while the service runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rillcast.settings.section import FileText, Positive, Section


class RolloutSettings(Section):
    """The change to another model without a stop, see [rollout.md](rollout.md)."""

    poll_interval_s: Positive = 30.0
    """Time between look-ups of the registry's aliases, in seconds. For `model` and `rollout.shadow`."""
    shadow: FileText | None = None
    """Second model (`s3://bucket/models@shadow`) that steps every event too and publishes nothing. Its scores become
    metrics, to compare with those of the serving model."""
    warm_up: Literal["context", "retained"] = "context"
    """Events from which a model without stored state warms up. `context` = twice as many periods as it needs,
    `retained` = all that the topic retains."""
    events_per_iteration: Annotated[int, Field(gt=0)] = 4_000
    """Limits the events by which a model that does not serve yet is stepped in one iteration of the loop. Raise it to
    warm the model sooner; forecasts of the serving model are later meanwhile."""
    retry_s: Positive = 300.0
    """Time before a failed opening or warm-up of a model is tried again, in seconds."""
