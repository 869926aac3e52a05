"""A process that has ended its work keeps its exit code, whatever signal comes while the interpreter shuts down."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rillcast.cli.commands.run import serve_as_member
from rillcast.settings import InputSettings, KafkaSettings, OutputSettings, Settings
from tests.support.kafka_broker import free_ports
from tests.support.toy import write_toy

DEADLINE_S = 60.0
COMMAND = """
import os, signal, sys
from rillcast.cli import console_script

class Late:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.Signals[sys.argv.pop(1)]):
        kill(pid, number)

late = Late()  # its end comes with that of the module, when Python has dropped its signal handlers
sys.exit(console_script())
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_while_the_interpreter_goes_down_does_not_change_the_exit_code(name: str, tmp_path: Path) -> None:
    flags = [
        "--model", str(write_toy(tmp_path / "toy.onnx")),
        "--kafka.bootstrap-servers", f"127.0.0.1:{free_ports(1)[0]}",
        "--kafka.request-timeout-s", "0.5",
        "--http.enabled", "false",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, name, "run", *flags], capture_output=True, timeout=DEADLINE_S, check=False
    )
    assert b"no broker answered" in done.stderr
    assert done.returncode == 5, done.stderr.decode()


class Late:
    """Sends a signal to its process when the module ends."""

    def __init__(self) -> None:
        self._kill, self._pid = os.kill, os.getpid()

    def __del__(self) -> None:
        self._kill(self._pid, 15)


LATE: list[Late] = []  # ends with the module


def serve_and_be_stopped_late(settings: Settings) -> None:
    LATE.append(Late())
    serve_as_member(settings, {})


def test_nor_does_it_change_that_of_a_worker(tmp_path: Path) -> None:
    settings = Settings(
        model=tmp_path / "none.onnx",
        kafka=KafkaSettings(bootstrap_servers="127.0.0.1:9"),
        input=InputSettings(topic="in"),
        output=OutputSettings(topic="out"),
    )
    worker = multiprocessing.get_context("spawn").Process(target=serve_and_be_stopped_late, args=(settings,))
    worker.start()
    worker.join(DEADLINE_S)
    assert worker.exitcode == 3
