"""The compose file: every file that it mounts is there, every setting and command is one that the program takes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from rillcast import cli, settings
from rillcast.bundle import shipped
from rillcast.bundle.bundle import Bundle
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "compose"


def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yml").read_text())
    return document


def service(name: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][name]
    return found


def arguments(name: str) -> list[str]:
    """Return what the program is started with: the command, or of a shell's pipe the last one."""
    command: list[str] = service(name)["command"]
    if service(name).get("entrypoint") != ["sh", "-ec"]:
        return command
    (script,) = command
    program, *rest = shlex.split(script.rpartition("|")[2])
    assert program == "rillcast"
    return rest


def test_every_mounted_file_exists() -> None:
    for name, document in compose()["services"].items():
        for volume in document.get("volumes", ()):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                assert (FOLDER / source).exists(), f"{name}: {source}"
            else:
                assert source in compose()["volumes"], f"{name}: {volume}"
            assert target.startswith("/")


def test_dependencies_and_networks_name_services_that_exist() -> None:
    services = compose()["services"]
    for name, document in services.items():
        assert set(document.get("depends_on", {})) <= set(services), name


@pytest.mark.parametrize("name", ["rillcast", "replayer"])
def test_the_commands_are_ones_that_the_program_takes(name: str) -> None:
    # The parser ends the process where it does not know an argument.
    cli.parser().parse_args(arguments(name))


@pytest.mark.parametrize("name", ["rillcast", "replayer"])
def test_ours_run_read_only_without_rights(name: str) -> None:
    document = service(name)
    assert document["read_only"] is True
    assert document["cap_drop"] == ["ALL"]
    assert document["security_opt"] == ["no-new-privileges:true"]


def test_the_settings_are_settings_and_agree_with_the_rest(tmp_path: Path) -> None:
    loaded = settings.load(FOLDER / "rillcast.toml")
    assert loaded.kafka.bootstrap_servers == "kafka:9092"
    replay = arguments("replayer")
    assert loaded.input.topic == replay[replay.index("--topic") + 1]
    assert loaded.kafka.bootstrap_servers == replay[replay.index("--kafka.bootstrap-servers") + 1]
    (script,) = service("topics")["command"]
    for topic in (loaded.input.topic, loaded.output.topic, loaded.dead_letters.topic):
        assert topic in script.split("in ", 1)[1].split(";")[0].split()


def test_the_model_is_one_that_the_package_ships() -> None:
    model = service("rillcast")["environment"]["RILLCAST_MODEL"]
    assert model in shipped.names()
    assert Bundle.load(shipped.locate(model)).metadata.freq == "1h"


def test_the_observations_are_what_a_service_forecasts(tmp_path: Path) -> None:
    """The replayer's own pipe, but into the service's standard input."""
    script = service("replayer")["command"][0].split("|")[0].strip()
    (mounted, target, _) = service("replayer")["volumes"][0].split(":")
    program, path = script.split()
    assert (program, path) == ("python", target)
    made = subprocess.run([sys.executable, str(FOLDER / mounted)], capture_output=True, check=True).stdout
    command = [sys.executable, "-m", "rillcast", "run", "--model", "universal:1h", "--http.enabled", "false"]
    files = {"output": tmp_path / "forecasts.jsonl", "dead-letters": tmp_path / "dead.jsonl"}
    flags = [part for name, file in files.items() for part in (f"--{name}.path", str(file))]
    done = subprocess.run(
        [*command, "--input.path", "-", *flags], input=made, capture_output=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in files["output"].read_text().splitlines()]
    assert len(records) == len(made.splitlines()) > 5_000
    assert not files["dead-letters"].exists() or not files["dead-letters"].read_text()
    assert {"ok", "warming_up", "missing", "gap"} == {record["status"] for record in records}
    assert time.time() - 7_200 < max(json.loads(line)["ds"] for line in made.splitlines()) / 1_000 <= time.time()


def test_prometheus_scrapes_the_service_and_grafana_asks_prometheus() -> None:
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (scrape,) = prometheus["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": ["rillcast:9464"]}]
    (source,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]


def test_grafana_finds_the_dashboards_where_they_are_mounted() -> None:
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/rillcast.yml").read_text())[
        "providers"
    ]
    mounted = dict(reversed(volume.split(":")[:2]) for volume in service("grafana")["volumes"])
    folder = FOLDER / mounted[provider["options"]["path"]]
    dashboards = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert {dashboard["uid"] for dashboard in dashboards} == {
        "rillcast-health",
        "rillcast-quality",
        "rillcast-performance",
    }


def test_ports_are_open_on_this_machine_only() -> None:
    for name, document in compose()["services"].items():
        for port in document.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
