"""ONNX Runtime reports its use to nobody: its switch is set before it is loaded, and wherever the project runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.dockerfile import Dockerfile
from tests.support.kustomize import render
from tests.support.paths import ROOT

SWITCH = "ORT_DISABLE_TELEMETRY"
# Prints what the switch is at the moment at which ONNX Runtime is loaded.
WATCHED = """
import importlib, os, sys
class Watch:
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
exec(sys.argv[1])
assert "onnxruntime" in sys.modules
"""


def at_load(code: str, **given: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != SWITCH} | given
    command = [sys.executable, "-c", WATCHED, code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        "import rillcast; rillcast.choose_device",
        "from rillcast import StepEngine",
        "from rillcast.engine import device",
        "from rillcast.engine.slab import Slab",
        "import rillcast.benchmarks.file",
        "import rillcast_training.export.parity",
    ],
)
def test_the_switch_is_set_before_onnx_runtime_is_loaded(code: str) -> None:
    assert at_load(code) == ["1"]


def test_a_value_of_the_user_is_kept() -> None:
    assert at_load("from rillcast.engine import device", **{SWITCH: "0"}) == ["0"]


def test_onnx_runtime_keeps_no_device_id_and_starts_no_thread(tmp_path: Path) -> None:
    """With reports it writes an id of the device and a database below the home, and a thread sends them."""
    code = """
import os
from rillcast import Bundle, StepEngine, choose_device
engine = StepEngine(Bundle.load("universal:1h"), choose_device("cpu"))
threads = os.listdir("/proc/self/task") if os.path.exists("/proc/self/task") else [0]
assert len(threads) == 1, threads
"""
    assert at_load(code, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"), OMP_NUM_THREADS="1") == ["1"]
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("image", ["cpu", "cuda"])
def test_images_set_it(image: str) -> None:
    assert Dockerfile(ROOT / "Dockerfile").environment(image)[SWITCH] == "1"


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "dev"])
def test_manifests_set_it(overlay: str) -> None:
    (member,) = (m for m in render(ROOT / "deploy" / "kubernetes" / "overlays" / overlay) if m["kind"] == "StatefulSet")
    environment = {
        entry["name"]: entry.get("value") for entry in member["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert environment[SWITCH] == "1"


def test_the_retraining_job_sets_it_in_every_step() -> None:
    path = ROOT / "deploy" / "kubernetes" / "components" / "retraining" / "cronjob.yaml"
    pod = yaml.safe_load(path.read_text())["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    steps = [*pod["initContainers"], *pod["containers"]]
    assert len(steps) == 3
    assert all({"name": SWITCH, "value": "1"} in step["env"] for step in steps)


def test_compose_sets_it_for_each_of_our_containers() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yml").read_text())["services"]
    ours = [service for service in services.values() if service["image"].startswith("rillcast")]
    assert len(ours) == 2
    assert all(service["environment"][SWITCH] == "1" for service in ours)
