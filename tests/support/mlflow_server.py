"""A real MLflow server for tests: pinned packages in an environment of its own, in the user's cache.

Owns: the environment, made once per machine, and the server process on a free loopback port. Does not know: models.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.fetched import fetched
from tests.support.kafka_broker import free_ports
from tests.support.mlflow_stand_in import running_stand_in

TARGET: Final = "test-mlflow"
_VERSION: Final = "3.17.2"
_FETCH_TIMEOUT_S: Final = 900.0
_START_TIMEOUT_S: Final = 240.0
_POLL_S: Final = 0.2


class MlflowError(Exception):
    """MLflow could not be installed or started; the message says why."""


def _install(folder: Path) -> None:
    """Install MLflow where it stays: the programs of an environment have its path in them."""
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), f"mlflow=={_VERSION}"],
    ):
        run = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
        if run.returncode != 0:
            raise MlflowError(f"{' '.join(command)} failed (exit {run.returncode}):\n{run.stdout}{run.stderr}")


def _environment() -> Path:
    """Return the folder of the environment, installing it if this machine does not have it yet."""

    def make(scratch: Path) -> Path:
        (kept := scratch / "kept").mkdir()
        (kept / "version").write_text(_VERSION)
        return kept

    folder = fetched(f"mlflow-{_VERSION}-{sys.version_info[0]}{sys.version_info[1]}", make)
    if not (folder / "venv" / "installed").exists():
        shutil.rmtree(folder / "venv", ignore_errors=True)
        _install(folder / "venv")
        (folder / "venv" / "installed").touch()
    return folder / "venv"


@contextlib.contextmanager
def some_mlflow() -> Iterator[str]:
    """Yield the address of a server: a real one with `make test-mlflow`, else one in this process."""
    if os.environ.get("RILLCAST_TEST_LONG") == TARGET:
        with running_mlflow() as address:
            yield address
        return
    with running_stand_in() as (address, _):
        yield address


@contextlib.contextmanager
def running_mlflow() -> Iterator[str]:
    """Start a server with a database of its own, yield its address without a scheme, and stop it."""
    program = _environment() / "bin" / "mlflow"
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="rillcast-mlflow-") as folder:
        log = Path(folder) / "log"
        command = [str(program), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/kept"]
        quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=quiet, start_new_session=True
            )
        try:
            _wait_until_it_serves(process, port, log)
            yield f"127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)  # its workers too
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def _wait_until_it_serves(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise MlflowError(f"mlflow does not serve (exit {process.returncode}):\n{log.read_text()[-4000:]}")
        time.sleep(_POLL_S)
