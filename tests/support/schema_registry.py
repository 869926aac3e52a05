"""A real schema registry for tests: Apicurio Registry, in memory, on a free loopback port, by its Confluent API.

Owns: fetching the archive once per machine, and the server process. Does not know: schemas.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.fetched import fetched
from tests.support.kafka_broker import free_ports

_ARTIFACT: Final = "io.apicurio:apicurio-registry-app:3.0.9:tar.gz:all"  # pinned; the last release for Java 17
_FETCH_TIMEOUT_S: Final = 300.0
_START_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.1
_JVM: Final = ("-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


class RegistryError(Exception):
    """The registry could not be fetched or started; the message carries the tail of its log."""


def fetch_registry() -> Path:
    """Return the folder with the registry, fetching it through Maven if this machine does not have it yet.

    Raises:
        RegistryError: Maven failed; the message has its output.
    """
    return fetched(f"registry-{hashlib.sha256(_ARTIFACT.encode()).hexdigest()[:12]}", _unpack)


def _unpack(scratch: Path) -> Path:
    folder = scratch / "registry"
    options = [f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={folder}", "-Dmdep.useBaseVersion=true"]
    command = ["mvn", "-q", "-B", "dependency:unpack", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False, cwd=scratch)
    if run.returncode != 0 or not any(folder.glob("*-runner.jar")):
        raise RegistryError(f"maven could not fetch the registry (exit {run.returncode}):\n{run.stdout}{run.stderr}")
    return folder


@contextlib.contextmanager
def running_registry() -> Iterator[str]:
    """Start a registry, yield the address of its Confluent API, and stop it."""
    (jar,) = fetch_registry().glob("*-runner.jar")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    with tempfile.TemporaryDirectory(prefix="rillcast-registry-") as folder:
        log = Path(folder) / "log"
        options = [*_JVM, "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={port}"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["java", *options, "-jar", str(jar)], stdout=output, stderr=subprocess.STDOUT, cwd=folder
            )
        try:
            _wait_until_it_serves(process, url, log)
            yield url
        finally:
            process.kill()
            process.wait()


def _wait_until_it_serves(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/subjects", timeout=5):  # noqa: S310
            return
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
            raise RegistryError(f"the registry does not serve (exit {process.returncode}):\n{tail}")
        time.sleep(_POLL_S)
