"""Writes the files of `deploy/` that are made from others: `python -m deploy.generate`.

    prometheus/rules/*.yml   ->  kubernetes/components/monitoring/prometheusrule.yaml
    grafana/dashboards.py    ->  grafana/dashboards/*.json

Owns: which file is made from which. A test (`tests/unit/test_deploy_generated.py`) holds them equal to their sources.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
_MADE: Final = "# Made by `python -m deploy.generate` from deploy/prometheus/rules; do not edit.\n"


def prometheus_rule() -> str:
    """Return the rules as the Prometheus operator takes them."""
    groups: list[Any] = []
    for path in (HERE / "prometheus" / "rules" / "recording.yml", HERE / "prometheus" / "rules" / "alerts.yml"):
        groups += yaml.safe_load(path.read_text())["groups"]
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "rillcast", "labels": {"app.kubernetes.io/name": "rillcast"}},
        "spec": {"groups": groups},
    }
    return _MADE + yaml.safe_dump(document, sort_keys=False, width=120)


def files() -> dict[Path, str]:
    """Return the content of every made file."""
    return {HERE / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml": prometheus_rule()}


def main() -> int:
    """Write them."""
    for path, content in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(path.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
