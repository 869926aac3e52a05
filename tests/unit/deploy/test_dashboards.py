"""What Grafana makes of a dashboard: rows for each of several services, annotations for all, and few curves a panel."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import Any

import pytest

from deploy.grafana.dashboards import DASHBOARDS
from deploy.grafana.model import Dashboard
from deploy.grafana.queries import OUTSTANDING, spread
from tests.support.ci import cannot_run
from tests.support.paths import ROOT

# The newer classes are for the API of Kubernetes; files for import and provisioning are of this one.
pytestmark = pytest.mark.filterwarnings("ignore:Prefer using dashboardv2:DeprecationWarning")
_ONE_EACH = re.compile(r"{{(instance|partition)}}")
_CHOSEN = re.compile(rf"and on \((?:instance|partition)\) (?:top|bottom)k\({OUTSTANDING}, ")


@pytest.fixture(params=DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def dashboard(request: pytest.FixtureRequest) -> Dashboard:
    found: Dashboard = request.param
    return found


def document_of(dashboard: Dashboard) -> dict[str, Any]:
    """Return what is shipped, as Grafana reads it."""
    document: dict[str, Any] = json.loads((ROOT / f"deploy/grafana/json/{dashboard.uid}.json").read_text())
    return document


def first(document: dict[str, Any], kind: str) -> dict[str, Any]:
    panel: dict[str, Any] = next(each for each in document["panels"] if each["type"] == kind)
    return panel


def test_each_of_several_services_has_rows_of_its_own(dashboard: Dashboard) -> None:
    document = document_of(dashboard)
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


def test_no_panel_has_a_curve_for_every_member_or_partition(dashboard: Dashboard) -> None:
    for place in dashboard.places():
        for query in place.panel.queries:
            by_member = _ONE_EACH.search(query.legend) is not None
            assert by_member == (_CHOSEN.search(query.expr) is not None), f"{place.panel.title}: {query.expr}"


def test_the_lowest_stand_out_where_low_is_bad() -> None:
    one, median, far = spread("age", lowest=True)
    assert one.expr == "age and on (instance) bottomk(3, min_over_time((age)[$__range:] @ end()))"
    assert (median.expr, far.expr, far.legend) == ("quantile(0.5, age)", "max(age)", "highest")


@pytest.fixture(scope="module")
def schema() -> Any:
    """Grafana's schema, as its foundation SDK has it."""
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        cannot_run("grafana-foundation-sdk is not installed; `make test` installs it before")
    return importlib.import_module("tests.support.grafana_schema")


def test_dashboards_follow_the_schema_that_grafana_publishes(dashboard: Dashboard, schema: Any) -> None:
    document = document_of(dashboard)
    assert schema.faults(document) == []
    assert {place.panel.unit for place in dashboard.places()} <= schema.UNITS


@pytest.mark.parametrize(
    ("kind", "path", "value", "fault"),
    [
        ("timeseries", "options/legnd", {}, "options/legnd: no such field"),
        ("timeseries", "options/legend/displayMode", "lst", "'lst' is not LegendDisplayMode"),
        ("timeseries", "fieldConfig/defaults/custom/drawStyle", "curve", "'curve' is not GraphDrawStyle"),
        ("timeseries", "fieldConfig/defaults/custom/lineWith", 1, "custom/lineWith: no such field"),
        ("timeseries", "fieldConfig/defaults/min", "0", "'0' is not"),
        ("stat", "options/colorMode", 3, "3 is not BigValueColorMode"),
        ("stat", "options/reduceOptions/calcs", ["last", 1], "calcs/1: 1 is not str"),
        ("stat", "targets/0/instnt", True, "targets/0/instnt: no such field"),
        ("stat", "targets/0/instant", "yes", "'yes' is not"),
        ("row", "repeet", "job", "repeet: no such field"),
    ],
)
def test_the_schema_names_what_it_does_not_have(schema: Any, kind: str, path: str, value: object, fault: str) -> None:
    document = document_of(DASHBOARDS[0])
    *folders, name = path.split("/")
    inner: Any = first(document, kind)
    for folder in folders:
        inner = inner[int(folder) if folder.isdecimal() else folder]
    inner[name] = value
    (found,) = schema.faults(document)
    assert fault in found
