"""The control plane of the tests in this folder, which are skipped where its programs are not built."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import build
from tests.cluster.control_plane import ControlPlane
from tests.support.long_tests import runs_with
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a running control plane that knows the custom resources which the manifests use."""
    runs_with("test-cluster")
    if missing := build.PROGRAMS.missing():
        pytest.fail(f"{', '.join(missing)} are not built; `make test-cluster` builds them before, with Go")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    plane = ControlPlane(tmp_path_factory.mktemp("cluster"))
    try:
        plane.start()
        for crd in sorted((ROOT / "tests" / "support" / "crds").glob("*.json")):
            plane.kubectl("apply", "--server-side", "--filename", str(crd))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        yield plane
    finally:
        plane.close()


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    """Return a copy of the Kustomize manifests that a test may change."""
    return Path(shutil.copytree(ROOT / "deploy" / "kubernetes", tmp_path / "kubernetes"))
