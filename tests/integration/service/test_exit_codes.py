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
from tests.support.hostile import NOON_MS
from tests.support.kafka_broker import free_ports
from tests.support.toy import write_toy
from tests.support.workers import observation

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


MEMORY = """
import gc, os, resource, sys
from pathlib import Path
from rillcast import cli

few, many, out, memory = sys.argv[1:]
flags = ["run", "--model", "universal:1h", "--device", "cpu", "--http.enabled", "false", "--output.path", out]
assert cli.main([*flags, "--input.path", few]) == 0  # loads every library
gc.collect()
taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (taken + int(memory), resource.RLIM_INFINITY))
sys.exit(cli.main([*flags, "--input.path", many]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of address space is that of Linux")
def test_a_run_that_may_have_no_more_memory_ends_in_one_line_and_leaves_the_results_of_the_run_before(
    tmp_path: Path,
) -> None:
    few, many, out = (tmp_path / name for name in ("few.jsonl", "many.jsonl", "forecasts.jsonl"))
    for path, streams in ((few, 10), (many, 10_000)):
        path.write_bytes(b"\n".join(observation(f"s{n}", 1.0, ds=NOON_MS) for n in range(streams)))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(few), str(many), str(out), str(24 * 2**20)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 5, done.stderr[-3000:]
    assert done.stderr.splitlines()[-1].startswith("rillcast: error: out of memory: "), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert len(out.read_bytes().splitlines()) == 10
