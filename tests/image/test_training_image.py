"""The training image: a training in it, as a Job would run it, and the model that a registry then has.

PyTorch comes from the index of all packages, so that nothing else has to be reached: PyPI's, with the CUDA that a Job
on CPUs does not call. `TORCH_BACKEND=cpu make test-image` takes the one that the Dockerfile takes by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.image.engine import Engine
from tests.image.images import OUT, Image, built
from tests.support.kafka_cluster import unique

_TRAIN = "--synthetic 40 --freq 1h --horizon 24 --hidden 8 --epochs 1 --batches 5 --quiet --json"
_TIMEOUT_S = 600.0  # on a busy machine


@pytest.fixture(scope="module")
def image(engine: Engine) -> Image:
    return built(engine, "training", arguments={"TORCH_BACKEND": os.environ.get("TORCH_BACKEND", "index")})


def run(image: Image, folder: Path, *arguments: str) -> str:
    """Run a command of the image with `/work` and `/registry` as its volumes; return what it prints."""
    name = unique("training")
    for volume in ("work", "registry"):
        (folder / volume).mkdir(exist_ok=True)
        shutil.chown(folder / volume, 65532, 65532)
    command = image.engine.command(
        image.root, image.config, folder / name, arguments=arguments, environment={},
        mounts={"/work": folder / "work", "/registry": folder / "registry"},
    )  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    finally:
        image.engine.delete(name)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_job_trains_on_a_read_only_root_and_promotes_what_it_trained(image: Image, tmp_path: Path) -> None:
    report = json.loads(run(image, tmp_path, "train", *_TRAIN.split(), "--out", "/work/model.onnx"))
    (OUT / "training" / "report.json").write_text(json.dumps(report, indent=1))
    pushed = json.loads(run(image, tmp_path, "model", "push", "/registry", "/work/model.onnx", "--promote", "--json"))
    listed = json.loads(run(image, tmp_path, "model", "list", "/registry", "--json"))
    assert listed["aliases"]["live"]["model_id"] == pushed["model_id"]


def test_the_bill_of_materials_has_what_trains_and_no_installer(image: Image) -> None:
    document = json.loads((image.root / "opt/rillcast/sbom.cdx.json").read_text())
    listed = {each["name"] for each in document["components"]}
    assert {"torch", "polars", "onnxruntime"} <= listed
    assert not listed & {"pip", "uv", "onnxruntime-gpu", "cyclonedx-bom"}  # setuptools is PyTorch's own
    assert image.config["User"] == "65532:65532"
    assert image.config["Labels"]["org.opencontainers.image.base.name"] == "localhost/python"
