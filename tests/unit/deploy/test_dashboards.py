"""What Grafana makes of several chosen services: rows for each, annotations for all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.grafana.dashboards import DASHBOARDS
from deploy.grafana.model import Dashboard


@pytest.fixture(params=DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def dashboard(request: pytest.FixtureRequest) -> Dashboard:
    found: Dashboard = request.param
    return found


def test_each_of_several_services_has_rows_of_its_own(dashboard: Dashboard) -> None:
    document: dict[str, Any] = json.loads(json.dumps(dashboard.as_json()))
    (job,) = (each for each in document["templating"]["list"] if each["name"] == "job")
    assert job["multi"] is True
    assert job["includeAll"] is True
    rows = [panel for panel in document["panels"] if panel["type"] == "row"]
    assert rows
    assert all(row["repeat"] == "job" and "$job" in row["title"] for row in rows)
    assert document["panels"][0]["type"] == "row", "every panel stands in a row"


def test_a_panel_asks_for_one_service_and_an_annotation_for_all(dashboard: Dashboard) -> None:
    for place in dashboard.places():
        for query in place.panel.queries:
            assert 'job=~"$job"' not in query.expr, place.panel.title
    for annotation in dashboard.annotations:
        assert 'job="$job"' not in annotation.query.expr, annotation.name
        assert 'job=~"$job"' in annotation.query.expr, annotation.name


def test_starts_and_roll_outs_are_on_every_dashboard(dashboard: Dashboard) -> None:
    assert {"Starts", "Roll-outs"} <= {annotation.name for annotation in dashboard.annotations}
