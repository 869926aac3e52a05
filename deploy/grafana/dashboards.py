"""The three dashboards, one for each kind of reader: is it healthy, are the forecasts good, where does the time go.

`python -m deploy.generate` writes them as JSON; `tests/integration/http/test_prometheus_live.py` asks every query of a
running service.
"""

from __future__ import annotations

from typing import Final

from deploy.grafana.health import HEALTH
from deploy.grafana.performance import PERFORMANCE
from deploy.grafana.quality import QUALITY

DASHBOARDS: Final = (HEALTH, QUALITY, PERFORMANCE)
