"""Every command of the tutorial and of the README, as it stands there, one after the other in one shell."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ci import cannot_run
from tests.support.kafka_broker import free_ports
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.paths import ROOT

TIMEOUT_S = 240.0


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+# .*$", "", line) for line in lines]


@pytest.mark.parametrize(("page", "least", "forecasts"), [("docs/tutorial.md", 16, 10_000), ("README.md", 8, 2_500)])
def test_every_command_of_a_page_runs(
    page: str, least: int, forecasts: int, kafka: KafkaCluster, tmp_path: Path
) -> None:
    """Only what is the reader's own differs: broker and topics, through the environment, and the port."""
    if shutil.which("curl") is None:
        cannot_run("curl is not installed, and the tutorial asks for it")
    (port,) = free_ports(1)
    group = unique("tutorial")
    # `rillcast` is this tree's, whether it is installed or not; the reader's shell finds `curl` and the rest by itself.
    program = tmp_path / "bin" / "rillcast"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m rillcast "$@"\n')
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RILLCAST_")} | {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RILLCAST_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "RILLCAST_KAFKA__GROUP_ID": group,
        "RILLCAST_INPUT__TOPIC": kafka.create_topic("observations", 2),
        "RILLCAST_OUTPUT__TOPIC": kafka.create_topic("forecasts", 2),
        "RILLCAST_DEAD_LETTERS__TOPIC": kafka.create_topic("dead-letters", 1),
        "RILLCAST_HTTP__PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    own = {"localhost:9464": f"127.0.0.1:{port}", "localhost:9092": kafka.bootstrap_servers}
    lines = commands(ROOT / page)
    for written, here in own.items():
        lines = [line.replace(written, here) for line in lines]
    assert len(lines) >= least
    # The first command that fails ends it.
    script = ["trap 'kill $(jobs -p) 2>/dev/null' EXIT"]
    for line in lines:
        script += [f"echo '--- {line.split()[0]}'", line if line.endswith("&") else f"{{ {line}; }} || exit 1"]
    said = tmp_path / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", "\n".join(script)],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        with contextlib.suppress(ProcessLookupError):  # the service that the tutorial starts is in the same group
            os.killpg(process.pid, signal.SIGKILL)
    told = said.read_text()
    log = tmp_path / "service.log"
    assert code == 0, told[-4000:] + (log.read_text()[-2000:] if log.exists() else "")
    assert len((tmp_path / "forecasts.jsonl").read_text().splitlines()) > forecasts
    if page == "docs/tutorial.md":
        assert "ds_out_of_range" in told or "wrong_type" in told, told
