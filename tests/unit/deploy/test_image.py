"""What the Dockerfile promises, read from it."""

from __future__ import annotations

import re

import pytest

from tests.support.dockerfile import Dockerfile
from tests.support.paths import ROOT

IMAGES = ("cpu", "cuda", "training")


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    return Dockerfile(ROOT / "Dockerfile")


@pytest.mark.parametrize("image", IMAGES)
def test_images_run_as_a_user_without_a_name(dockerfile: Dockerfile, image: str) -> None:
    assert dockerfile.last(image, "USER") == "65532:65532"


@pytest.mark.parametrize("image", IMAGES)
def test_only_the_finished_environment_is_copied_into_an_image(dockerfile: Dockerfile, image: str) -> None:
    copies = [text for name, text in dockerfile.stage(image) if name == "COPY"]
    assert copies == [f"--from=build-{image} /opt/rillcast /opt/rillcast"]


@pytest.mark.parametrize("image", IMAGES)
def test_images_get_nothing_but_the_environment(dockerfile: Dockerfile, image: str) -> None:
    for name, text in dockerfile.stage(image):
        if name == "RUN":
            assert not re.search(r"apt|curl|wget|\binstall\b", text), text


@pytest.mark.parametrize("image", IMAGES)
def test_what_a_build_copies_is_let_through_by_dockerignore(dockerfile: Dockerfile, image: str) -> None:
    allowed = {x[1:] for x in (ROOT / ".dockerignore").read_text().splitlines() if x.startswith("!")}
    wanted = {
        path
        for name, text in dockerfile.stage(f"build-{image}")
        if name == "COPY"
        for path in text.split()[:-1]
    }  # fmt: skip
    assert wanted == allowed
    assert all((ROOT / path).exists() for path in wanted)


def test_one_version_of_uv_builds_everything(dockerfile: Dockerfile) -> None:
    in_makefile = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert in_makefile
    assert dockerfile.arguments("build-cpu")["UV_VERSION"] == in_makefile[1]


def test_the_cpu_image_takes_the_onnxruntime_that_the_tests_run() -> None:
    pinned = re.search(r"^onnxruntime-gpu==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    taken = re.search(r"^onnxruntime==(\S+)$", (ROOT / "deploy/container/cpu-overrides.txt").read_text(), re.MULTILINE)
    assert pinned
    assert taken
    assert taken[1] == pinned[1]


def test_the_cuda_image_finds_its_libraries_in_its_own_python(dockerfile: Dockerfile) -> None:
    version = re.match(r"python:(\d+\.\d+)-", dockerfile.arguments("build-cuda")["PYTHON_IMAGE"])
    assert version
    driver, *paths = dockerfile.environment("cuda")["LD_LIBRARY_PATH"].split(":")
    assert driver == "/usr/local/nvidia/lib64", "GKE mounts the driver here"
    assert paths
    assert all(path.startswith(f"/opt/rillcast/lib/python{version[1]}/site-packages/nvidia/") for path in paths)
    assert dockerfile.environment("cuda")["RILLCAST_DEVICE"] == "cuda"


def test_the_training_image_takes_pytorch_for_cpus_unless_asked_otherwise(dockerfile: Dockerfile) -> None:
    """PyPI's PyTorch for Linux brings 5 GB of CUDA, which a Job on CPUs never calls."""
    assert dockerfile.arguments("build-training")["TORCH_BACKEND"] == "cpu"
    script = (ROOT / "deploy/container/install.sh").read_text()
    assert '--torch-backend "${TORCH_BACKEND:-cpu}"' in script
    assert "TORCH_BACKEND" not in dockerfile.arguments("build-cpu"), "the images that serve have no PyTorch"


@pytest.mark.parametrize("image", IMAGES)
def test_images_say_what_they_are_and_what_is_in_them(dockerfile: Dockerfile, image: str) -> None:
    labels = " ".join(text for name, text in dockerfile.stage(image) if name == "LABEL")
    arguments = dockerfile.arguments(image)
    for label, argument in (("version", "VERSION"), ("revision", "REVISION"), ("created", "CREATED")):
        assert f"org.opencontainers.image.{label}=${{{argument}}}" in labels
        assert argument in arguments
        assert f"--build-arg {argument}=" in (ROOT / "Makefile").read_text()
    builds = [text for name, text in dockerfile.stage(f"build-{image}") if name == "RUN"]
    assert builds[-1].endswith("install.sh sbom /opt/rillcast")
