"""The alerting rules: right by Prometheus' own tool, each tested both ways, each with a page that says what to do."""

from __future__ import annotations

import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from rillcast.observability.metric_table import TABLE
from tests.support.ci import cannot_run
from tests.support.paths import ROOT
from tests.support.prometheus import PrometheusError, programs

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
# What is no series of ours: Prometheus' own, the Python client's, and kube-state-metrics'.
FOREIGN = {"up", "process_start_time_seconds", "kube_pod_container_resource_limits"}


def rules(name: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "rules" / f"{name}.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


DOCS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Documentation"]
CASES = sorted((FOLDER / "tests").glob("*_test.yml"))
ALERTS = [rule["alert"] for rule in rules("alerts")]


def promtool(*arguments: str) -> None:
    try:
        program = programs().promtool
    except PrometheusError as error:
        cannot_run(str(error))
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def exposed_names() -> set[str]:
    names = set()
    for metric in TABLE:
        if metric.kind == "histogram":
            names |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(f"{metric.name}_info" if metric.kind == "info" else metric.name)
    return names


def test_the_rules_are_well_formed() -> None:
    promtool("check", "rules", *map(str, sorted((FOLDER / "rules").glob("*.yml"))))


def test_the_rules_do_what_their_tests_say() -> None:
    promtool("test", "rules", *map(str, CASES))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tested_to_fire_and_not_to(alert: str) -> None:
    tests = [test for path in CASES for test in yaml.safe_load(path.read_text())["tests"]]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert]
    assert any(case.get("exp_alerts") for case in cases), "no test in which it fires"
    assert any(not case.get("exp_alerts") for case in cases), "no test in which it does not"


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_and_links_to_its_runbook(alert: str) -> None:
    (rule,) = (rule for rule in rules("alerts") if rule["alert"] == alert)
    of_streams = {"{{ $labels.severity }}"} if alert == "RillcastStreamAlarm" else set()
    assert rule["labels"]["severity"] in {"critical", "warning"} | of_streams
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["annotations"]["runbook_url"] == f"{DOCS}/runbooks/{alert}.html"
    page = (RUNBOOKS / f"{alert}.md").read_text()
    assert page.startswith(f"# {alert}\n")
    for section in ("## What it means", "## What to look at", "## What to do"):
        assert section in page, section
    assert f"({alert}.md)" in (RUNBOOKS / "index.md").read_text()


def test_no_runbook_is_left_without_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} == {*ALERTS, "index"}


def test_rules_use_only_series_that_exist() -> None:
    recorded = {rule["record"] for rule in rules("recording")}
    for rule in rules("recording") + rules("alerts"):
        expression = re.sub(r'"[^"]*"', "", rule["expr"])
        used = set(re.findall(r"\b(?:job|job_horizon):[\w:]+|\b(?:rillcast|kube|process)_\w+|\bup\b", expression))
        assert used <= recorded | exposed_names() | FOREIGN, used - recorded - exposed_names() - FOREIGN


def test_runbooks_name_only_series_and_settings_that_exist() -> None:
    for page in RUNBOOKS.glob("*.md"):
        used = set(re.findall(r"\brillcast_\w+", re.sub(r"job\w*:\S+", "", page.read_text())))
        known = exposed_names() | {metric.name for metric in TABLE}
        assert used <= known, f"{page.name}: {used - known}"
