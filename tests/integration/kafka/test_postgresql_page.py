"""The page on PostgreSQL as it stands: rows through a real Kafka Connect into a real PostgreSQL."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import kafka_connect
from tests.support.ci import cannot_run
from tests.support.kafka_broker import free_ports
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.paths import ROOT
from tests.support.postgres import PostgresError, Server, running_postgres

PAGE: Final = ROOT / "docs" / "how-to" / "postgresql.md"
TIMEOUT_S: Final = 150.0
STREAMS, PERIODS, STEPS = 4, 287, 12  # the last period of the day stays open


def files(page: str) -> dict[str, str]:
    """Return the files of the page: the block after each line that begins with, or ends in, a name in backquotes."""
    found = re.findall(r"^`([\w.]+)`[^\n]*:\n\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return dict(found) | dict(re.findall(r"^`(newest\.sql)`.*?```sql\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


def commands(page: str) -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def query(server: Server, sql: str) -> list[dict[str, str]]:
    """Return the rows of a query as texts by column; no rows while the table is not there."""
    run = subprocess.run(
        [server.programs / "psql", server.url, "--csv", "-c", sql],
        capture_output=True, text=True, check=False, env=server.environment,
    )  # fmt: skip
    return list(csv.DictReader(io.StringIO(run.stdout)))


@pytest.mark.timeout(400)
def test_every_command_of_the_page_runs_and_the_table_has_what_was_published(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """Only what is the reader's own differs: addresses, ports and topics."""
    page = PAGE.read_text()
    topics = {name: kafka.create_topic(name, 2) for name in ("observations", "forecasts", "dead-letters")}
    with contextlib.ExitStack() as opened:
        try:
            server = opened.enter_context(running_postgres())
        except PostgresError as error:
            cannot_run(str(error))
        rest, http = free_ports(2)
        own = {"localhost:9092": kafka.bootstrap_servers, "localhost:5432": f"127.0.0.1:{server.port}"}
        own |= {"127.0.0.1:8083": f"127.0.0.1:{rest}", "topics=forecasts": f"topics={topics['forecasts']}"}
        for name, text in files(page).items():
            for written, here in own.items():
                text = text.replace(written, here)
            (tmp_path / name).write_text(text)
        programs = tmp_path / "bin"
        programs.mkdir()
        (programs / "rillcast").write_text(f'#!/bin/sh\nexec {sys.executable} -m rillcast "$@"\n')
        (programs / "rillcast").chmod(0o755)
        (programs / "python").symlink_to(sys.executable)
        kafka_connect.write_script(programs / "connect-standalone.sh")
        of_server = {name: value for name, value in server.environment.items() if not name.startswith("RILLCAST_")}
        environment = of_server | {
            "PATH": f"{programs}:{server.programs}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "rillcast", "PGDATABASE": "postgres",
            "RILLCAST_INPUT__TOPIC": topics["observations"],
            "RILLCAST_OUTPUT__TOPIC": topics["forecasts"],
            "RILLCAST_DEAD_LETTERS__TOPIC": topics["dead-letters"],
            "RILLCAST_KAFKA__GROUP_ID": unique("page"),
            "RILLCAST_HTTP__PORT": str(http),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        lines = [line.replace("--topic observations", f"--topic {topics['observations']}") for line in commands(page)]
        assert [line.split()[0] for line in lines] == [
            "python", "rillcast", "rillcast", "connect-standalone.sh", "psql", "psql",
        ]  # fmt: skip
        shell = opened.enter_context(_shell(tmp_path, environment))
        for line in lines[:4]:
            shell.run(line)
        expected = STREAMS * PERIODS * STEPS
        deadline = time.monotonic() + TIMEOUT_S
        while (found := query(server, "SELECT count(*) AS n FROM forecasts")) != [{"n": str(expected)}]:
            logs = "".join((tmp_path / name).read_text()[-2000:] for name in ("service.log", "connect.log"))
            assert all(process.poll() is None for process in shell.background), f"a program has ended\n{logs}"
            assert time.monotonic() < deadline, f"the table has {found} of {expected} rows\n{logs}"
            time.sleep(0.5)
        said = [shell.run(line) for line in lines[4:]]
        assert f"{PERIODS * STEPS}" in said[0]
        assert said[1].count("\n") > STREAMS * STEPS
        _table_is_topic(server, kafka, topics["forecasts"])
        panel = files(page)["panel.sql"].replace("$unique_id", "LOW").replace("$__timeFilter(ds)", "ds > '2024-04-30'")
        ids = [row["unique_id"] for row in query(server, "SELECT DISTINCT unique_id FROM forecasts")]
        assert sorted(ids) == [f"web-{host}/usage_{kind}" for host in (1, 2) for kind in ("system", "user")]
        times = [row["time"] for row in query(server, panel.replace("'LOW'", f"'{ids[0]}'"))]
        assert times == sorted(set(times))
        assert len(times) > STEPS


def _table_is_topic(server: Server, kafka: KafkaCluster, topic: str) -> None:
    """Compare the table with the last record of each key, number by number."""
    published: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in kafka.read_all(topic):
        key, row = (json.loads(data or b"")["payload"] for data in (record.key, record.value))
        published[tuple(key.values())] = row
    columns = list(next(iter(published.values())))
    kinds = {"ds": "timestamp", "origin": "timestamp"}
    wanted = ", ".join(f"extract(epoch FROM {c}) * 1000 AS {c}" if c in kinds else c for c in columns)
    table = query(server, f"SELECT {wanted} FROM forecasts")  # noqa: S608  our own names
    assert len(table) == len(published)
    for row in table:
        expected = published[row["unique_id"], int(float(row["origin"])), int(row["step"])]
        assert {name: _as(expected[name], text) for name, text in row.items()} == {
            name: _float32(value) for name, value in expected.items()
        }


def _as(like: object, text: str) -> object:
    """Return a cell with the type of what was published."""
    if like is None or text == "":
        return None if text == "" else text
    return _float32(float(text)) if isinstance(like, float) else int(float(text)) if isinstance(like, int) else text


def _float32(value: object) -> object:
    return struct.unpack("f", struct.pack("f", value))[0] if isinstance(value, float) else value


class _Shell:
    """Runs commands in one folder; those in the background end with it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self.background: list[subprocess.Popen[bytes]] = []

    def run(self, line: str) -> str:
        """Run a line and return what it says; one that ends with & goes on in the background."""
        options: dict[str, Any] = {"cwd": self._folder, "env": self._environment}
        if line.endswith("&"):
            command = ["bash", "-c", f"exec {line.removesuffix('&')}"]
            self.background.append(subprocess.Popen(command, start_new_session=True, **options))
            return ""
        run = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return str(run.stdout)


@contextlib.contextmanager
def _shell(folder: Path, environment: dict[str, str]) -> Any:
    shell = _Shell(folder, environment)
    try:
        yield shell
    finally:
        for process in shell.background:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
