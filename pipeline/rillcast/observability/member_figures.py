"""What the page of the group says about this member: conditions, lag, dead letters, restore, roll-out of a model.

Owns: which of the metrics these are. Does not know: who counts them, HTTP.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from prometheus_client import CollectorRegistry

from rillcast.observability.health import Health

_SUMS: Final = {
    "lag": "rillcast_source_lag_records",
    "dead_letters": "rillcast_dead_letters_total",
    "restoring": "rillcast_partitions_restoring",
    "refused_models": "rillcast_model_refused",
    "registry_errors": "rillcast_model_registry_errors_total",
}
_GREATEST: Final = {"swap_pending_s": "rillcast_model_swap_pending_seconds"}


class MemberFigures:
    """May be asked from any thread."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self._metrics = registry.restricted_registry([*_SUMS.values(), *_GREATEST.values()])
        self._health = health
        self._name = socket.gethostname()

    def figures(self, port: int) -> dict[str, Any]:
        """Return the figures as plain JSON values; one that is not counted is null.

        Args:
            port: Port of this member, which tells several on one host apart.
        """
        values: dict[str, list[float]] = {}
        for family in self._metrics.collect():
            for sample in family.samples:
                if sample.value == sample.value:  # NaN: not known yet
                    values.setdefault(sample.name, []).append(sample.value)
        conditions = dict(self._health.readiness())
        return {
            "name": f"{self._name}:{port}",
            "ready": all(conditions.values()),
            "conditions": conditions,
            **{name: sum(values[metric]) if metric in values else None for name, metric in _SUMS.items()},
            **{name: max(values[metric]) if metric in values else None for name, metric in _GREATEST.items()},
        }
