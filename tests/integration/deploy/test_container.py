"""The CPU image without Docker: the Dockerfile's own steps in a clean directory, and the service started from it.

Not covered without an engine: the base image, layers, and that the kernel enforces user and read-only root.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ci import cannot_run
from tests.support.dockerfile import Dockerfile
from tests.support.paths import ROOT
from tests.support.service_process import ServiceProcess
from tests.support.toy import unroll, write_toy

HOUR_MS = 3_600_000
# Reports the files that Python opens for writing; it does not see writes of librdkafka or ONNX Runtime.
HOOK = """
import os, sys
def hook(event, args):
    if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        os.write(LOG, (os.path.abspath(args[0]) + "\\n").encode())
LOG = os.open(os.environ["WRITES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
sys.addaudithook(hook)
"""


@dataclass
class Image:
    """The environment that `docker build --target cpu` would make."""

    dockerfile: Dockerfile
    environment: Path

    def variables(self, folder: Path) -> dict[str, str]:
        """Return the image's variables, its folders moved below `folder`."""
        set_by_image = self.dockerfile.environment("cpu") | {"PATH": f"{self.environment / 'bin'}:/usr/bin:/bin"}
        moved = {"/models/model.onnx": str(folder / "model.onnx"), "/state": str(folder / "state")}
        return {name: moved.get(value, value) for name, value in set_by_image.items()}

    def python(self, code: str) -> str:
        command = [str(self.environment / "bin" / "python"), "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        cannot_run("uv is not installed (`make test` installs it)")
    dockerfile = Dockerfile(ROOT / "Dockerfile")
    source, target = tmp_path_factory.mktemp("src"), tmp_path_factory.mktemp("opt") / "rillcast"
    # Keep this machine's settings of the package index (proxy, certificates).
    variables = os.environ | {"PATH": f"{Path(uv).parent}:{os.environ['PATH']}", "PYTHON": sys.executable}
    for name, text in dockerfile.stage("build-cpu"):
        if name == "COPY":
            *paths, to = text.split()
            copy([ROOT / path for path in paths], source / to)
        elif name == "RUN" and "uv==" not in text:  # uv itself is here already
            command = [part.replace("/opt/rillcast", str(target)) for part in shlex.split(text)]
            done = subprocess.run(command, cwd=source, env=variables, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"RUN {text}\n{done.stdout}{done.stderr}"
    return Image(dockerfile, target)


def copy(paths: list[Path], to: Path) -> None:
    """Copy as Docker does: a file into a folder, a folder's content to the target."""
    for path in paths:
        if path.is_dir():
            shutil.copytree(path, to, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, to)


def test_the_image_has_no_torch_no_compiler_no_installer_and_the_small_onnxruntime(image: Image) -> None:
    code = "import importlib.metadata as m, json; print(json.dumps(sorted(d.name.lower() for d in m.distributions())))"
    installed = set(json.loads(image.python(code)))
    assert {"rillcast", "onnxruntime", "confluent-kafka", "kafka-python"} <= installed
    assert not installed & {"torch", "onnxruntime-gpu", "polars", "pandas", "matplotlib", "pip", "pytest", "mypy"}
    assert not [name for name in installed if name.startswith("nvidia")]


def test_every_version_in_the_image_is_the_pinned_one(image: Image) -> None:
    code = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    pins = dict[str, set[str]]()
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, version = line.split(";")[0].strip().split("==")
        pins.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(version)
    installed = json.loads(image.python(code))
    installed.pop("rillcast")
    pins["onnxruntime"] = pins["onnxruntime-gpu"]  # the same release, without CUDA
    for name, version in installed.items():
        assert version in pins[re.sub(r"[-_.]+", "-", name).lower()], name


def test_training_in_the_image_says_what_is_missing(image: Image, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("unique_id,ds,y\n")
    rillcast = str(image.environment / "bin" / "rillcast")
    command = [rillcast, "train", str(data), "--freq", "1h", "--horizon", "2", "--out", str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "rillcast[" in done.stderr


@pytest.fixture
def started(image: Image, tmp_path: Path) -> Iterator[tuple[ServiceProcess, Path]]:
    """The image's own command with the toy model, fed through a pipe; writes are reported to `writes`."""
    write_toy(tmp_path / "model.onnx")
    (tmp_path / "state").mkdir()
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    settings = {
        "RILLCAST_HTTP__PORT": "0",
        "RILLCAST_INPUT__PATH": "-",
        "RILLCAST_OUTPUT__PATH": str(tmp_path / "state" / "forecasts.jsonl"),
        "RILLCAST_DEAD_LETTERS__PATH": str(tmp_path / "state" / "dead.jsonl"),
        "RILLCAST_STATE__STORE": "local",
    }
    hooked = {"PYTHONPATH": str(tmp_path / "hook"), "WRITES": str(tmp_path / "writes")}
    command = [
        *json.loads(image.dockerfile.last("cpu", "ENTRYPOINT")),
        *json.loads(image.dockerfile.last("cpu", "CMD")),
    ]
    process = ServiceProcess(
        {}, tmp_path, command=command, environment=image.variables(tmp_path) | settings | hooked, stdin=subprocess.PIPE
    )
    try:
        yield process, tmp_path
    finally:
        process.kill()


def test_the_service_starts_from_the_image_answers_its_health_check_and_stops(
    image: Image, started: tuple[ServiceProcess, Path]
) -> None:
    process, folder = started
    process.wait_until(lambda: process.get("/readyz")[0] == 200, "ready")

    health = json.loads(re.sub(r"^.*?CMD ", "", image.dockerfile.last("cpu", "HEALTHCHECK")))
    port = re.search(r"http://127\.0\.0\.1:(\d+)", process.log)
    assert port
    variables: Mapping[str, str] = image.variables(folder)
    here = [part.replace(":9464", f":{port[1]}") for part in health]
    elsewhere = [part.replace(":9464", ":1") for part in health]
    assert subprocess.run(here, env=variables, check=False).returncode == 0
    assert subprocess.run(elsewhere, env=variables, capture_output=True, check=False).returncode != 0

    process.write(b"".join(event(y) for y in (5, 6, 7)))
    process.wait_until(lambda: process.metric("rillcast_forecasts_total") == 3, "three forecasts")
    assert process.stop() == 0
    lines = (folder / "state" / "forecasts.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["quantiles"]["0.5"][0] for line in lines] == unroll([5, 6, 7])
    written = {Path(line) for line in (folder / "writes").read_text().splitlines()} - {Path(os.devnull)}
    assert written
    assert all(path.is_relative_to(folder / "state") for path in written), written
    assert all(json.loads(line) for line in process.log.splitlines()), "the image's log is JSON"


def event(y: int) -> bytes:
    return json.dumps({"unique_id": "a", "ds": y * HOUR_MS, "y": y}).encode() + b"\n"
