"""The control plane of the tests in this folder, which are skipped where its programs are not built."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import build
from tests.cluster.control_plane import ControlPlane
from tests.support.kafka_broker import free_ports
from tests.support.long_tests import runs_with
from tests.support.paths import ROOT

KEPT: Final = ROOT / "build" / "test-cluster"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a running control plane that knows the custom resources which the manifests use."""
    runs_with("test-cluster")
    if missing := [*build.PROGRAMS.missing(), *build.REGISTRY.missing()]:
        pytest.fail(f"{', '.join(missing)} are not built; `make test-cluster` builds them before, with Go")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    work = tmp_path_factory.mktemp("cluster")
    plane = ControlPlane(work)
    try:
        plane.start()
        for crd in sorted((ROOT / "tests" / "support" / "crds").glob("*.json")):
            plane.kubectl("apply", "--server-side", "--filename", str(crd))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield plane
    finally:
        plane.close()
        KEPT.mkdir(parents=True, exist_ok=True)
        for log in work.glob("*.log"):
            shutil.copy(log, KEPT)


@pytest.fixture
def registry(cluster: ControlPlane) -> Iterator[str]:
    """Return the address of a running OCI registry, which has no TLS."""
    (port,) = free_ports(1)
    command = [str(build.REGISTRY.folder() / "registry"), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        cluster.wait("the registry", lambda: listens(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def listens(port: int) -> bool:
    """Return whether something answers at a port of this machine."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """Return a copy of the Kustomize manifests that a test may change."""
    return Path(shutil.copytree(ROOT / "deploy" / "kubernetes", tmp_path / "kubernetes"))
