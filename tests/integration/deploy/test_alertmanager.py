"""The example for Alertmanager, by its own tool: it is well-formed, tells the right people, and names real alerts."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.support.ci import cannot_run
from tests.support.paths import ROOT
from tests.support.prometheus import PrometheusError, amtool

CONFIG = ROOT / "deploy" / "prometheus" / "alertmanager.yml"
RULES = ROOT / "deploy" / "prometheus" / "rules" / "alerts.yml"
SEVERITY = {
    rule["alert"]: rule["labels"]["severity"]
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
}


def run_amtool(*arguments: str) -> str:
    try:
        program = amtool()
    except PrometheusError as error:
        cannot_run(str(error))
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_is_well_formed() -> None:
    assert "5 inhibit rules" in run_amtool("check-config", str(CONFIG))


@pytest.mark.parametrize(("alert", "receiver"), [("RillcastKafkaAway", "pager"), ("RillcastDrift", "tickets")])
def test_critical_alerts_page_and_others_make_a_ticket(alert: str, receiver: str) -> None:
    labels = [f"alertname={alert}", f"severity={SEVERITY[alert]}", "job=rillcast"]
    assert run_amtool("config", "routes", "test", f"--config.file={CONFIG}", *labels).strip() == receiver


@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_an_alarm_of_a_stream_wakes_nobody_and_has_a_group_of_its_own(severity: str) -> None:
    labels = ["alertname=RillcastStreamAlarm", f"severity={severity}", "job=rillcast", "unique_id=web-17/cpu"]
    assert run_amtool("config", "routes", "test", f"--config.file={CONFIG}", *labels).strip() == "streams"
    (route,) = (one for one in yaml.safe_load(CONFIG.read_text())["route"]["routes"] if one["receiver"] == "streams")
    assert route["group_by"] == ["job", "unique_id"]


def test_causes_and_consequences_are_alerts_that_exist_and_of_one_service() -> None:
    for rule in yaml.safe_load(CONFIG.read_text())["inhibit_rules"]:
        named = set(re.findall(r"Rillcast\w+", str(rule)))
        assert named <= SEVERITY.keys()
        assert rule["equal"] == ["job"]
