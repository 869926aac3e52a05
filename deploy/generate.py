"""Writes the generated files of `deploy/` and `docs/`: `python -m deploy.generate`.

    prometheus/rules/*.yml   ->  kubernetes/components/monitoring/prometheusrule.yaml
    grafana/*.py             ->  grafana/json/*.json, docs/dashboards.md
    rillcast.settings        ->  docs/settings.md

The alerts link to their runbooks on the documentation site that pyproject.toml names.
`--docs-url URL` lets them link to a site of your own.

Owns: which file is made from which. `tests/unit/deploy/test_generated.py` compares them with their sources.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.grafana.dashboards import DASHBOARDS
from deploy.settings_page import settings_page

HERE: Final = Path(__file__).parent
ALERTS: Final = (
    HERE / "prometheus" / "rules" / "alerts.yml",
    *sorted((HERE / "prometheus" / "tests").glob("*_test.yml")),
)
_RUNBOOK: Final = re.compile(r"(?P<key>runbook_url: )\S+/runbooks/")
_DASHBOARDS_PAGE: Final = """\
# Dashboards

*For operators.*

`deploy/grafana` has the Grafana dashboards as code, one module each; `deploy/grafana/json` is for import.
`deploy/compose` and `deploy/kubernetes/components/monitoring` set up Prometheus with the rules that they need.
`$job` is the scrape job of the service; with several chosen, each has rows of its own.
`python -m deploy.generate` makes this page from the same code.
`tests/integration/http/test_prometheus_live.py` asks every query of a running service through a real Prometheus, and
writes pages that show the dashboards into `build/dashboards/`.
`tests/unit/deploy/test_dashboards.py` compares the JSON with Grafana's own types, its foundation SDK.

A panel of members has five curves, however many there are: three that stand out over the time that is shown, the
median of all, and the other end.
"""
_MADE: Final = "# Made by `python -m deploy.generate` from deploy/prometheus/rules; do not edit.\n"


def prometheus_rule() -> str:
    """Return the rules as a PrometheusRule of the Prometheus operator."""
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


def dashboards_page() -> str:
    """Return the page of the documentation with the meaning and the query of each panel."""
    parts = [_DASHBOARDS_PAGE]
    for dashboard in DASHBOARDS:
        parts += [f"## {dashboard.title.removeprefix('Rillcast: ').capitalize()}\n", f"{dashboard.description}\n"]
        if dashboard.annotations:
            parts += ["### Spans over the curves\n", "| span | meaning | query |", "| --- | --- | --- |"]
            for span in dashboard.annotations:
                parts.append(f"| {span.name} | {span.help} | `{span.query.expr}` |")
            parts.append("")
        for row in dashboard.rows:
            parts += [f"### {row.title}\n", "| panel | meaning | query |", "| --- | --- | --- |"]
            for panel in row.panels:
                queries = "<br>".join(f"`{query.expr}`".replace("|", "\\|") for query in panel.queries)
                parts.append(f"| {panel.title} | {panel.help} | {queries} |")
            parts.append("")
    return "\n".join(parts)


def files() -> dict[Path, str]:
    """Return the content of every generated file."""
    made = {HERE / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml": prometheus_rule()}
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard.as_json(), indent=1)
        made[HERE / "grafana" / "json" / f"{dashboard.uid}.json"] = text + "\n"
    made[HERE.parent / "docs" / "dashboards.md"] = dashboards_page()
    made[HERE.parent / "docs" / "settings.md"] = settings_page()
    return made


def linked_to(rules: str, docs_url: str) -> str:
    """Return alerting rules, or their tests, with runbooks on another site."""
    return _RUNBOOK.sub(lambda found: f"{found['key']}{docs_url.rstrip('/')}/runbooks/", rules)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the generated files."""
    parser = argparse.ArgumentParser(prog="python -m deploy.generate")
    parser.add_argument("--docs-url", metavar="URL", help="address of the documentation site that the alerts link to")
    docs_url = parser.parse_args(argv).docs_url
    if docs_url is not None:
        for path in ALERTS:
            path.write_text(linked_to(path.read_text(), docs_url))
    for path, content in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(path.relative_to(HERE.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
