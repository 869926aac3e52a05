"""The wheel, built and installed into an empty environment: what it brings, what it leaves out, and that it serves.

No index is asked: setuptools is the installed one, and the wheel's dependencies are those of this interpreter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SOURCES = ("pyproject.toml", "README.md", "LICENSE", "pipeline", "training")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
FREQUENCIES = ("10s", "1min", "5min", "10min", "15min", "30min", "1h", "1d", "1w", "1mo", "3mo", "12mo")


class Environment:
    """A virtual environment with the wheel in it, and this interpreter's packages behind it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / "bin"
        (self.site,) = folder.glob("lib/python*/site-packages")
        self.before = {path.name for path in self.site.iterdir()}

    def add_dependencies(self) -> None:
        """Put this interpreter's packages at the end of the path. Its `.pth` files are not run: no editable install."""
        (self.site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, program: str, *arguments: str, cwd: Path, path: str = "") -> str:
        """Run a program of the environment, without this checkout on its path, and return what it prints."""
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("RILLCAST_", "PYTHON"))}
        outside |= {"PYTHONPATH": path} if path else {}
        done = subprocess.run(
            [self.bin / program, *arguments], cwd=cwd, env=outside, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def python(*arguments: str, cwd: Path | None = None) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, folder)
    python("-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "dist", ".", cwd=folder)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    python("-m", "pip", "--python", str(made.bin / "python"), "install", "--no-deps", "--no-index", str(wheel))
    return made


def names(wheel: Path) -> Sequence[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_site_packages_gains_two_packages_and_their_metadata(environment: Environment) -> None:
    gained = {path.name for path in environment.site.iterdir()} - environment.before
    assert gained - {"dependencies.pth"} == {"rillcast", "rillcast_training", f"rillcast-{VERSION}.dist-info"}


def test_the_wheel_has_every_module_and_nothing_that_only_a_checkout_needs(wheel: Path) -> None:
    modules = {name for name in names(wheel) if name.endswith(".py")}
    expected = {
        path.relative_to(ROOT / root).as_posix()
        for root in ("pipeline", "training")
        for path in (ROOT / root).rglob("*.py")
        if "research" not in path.parts
    }
    assert modules == expected
    folders = {folder for name in modules for folder in Path(name).parts[:-1]}
    assert not folders & {"tests", "research", "peers", "deploy"}
    assert "rillcast/benchmarks/kernels.py" not in modules


def test_the_wheel_has_the_files_that_are_no_modules(wheel: Path) -> None:
    files = set(names(wheel))
    assert {"rillcast/py.typed", "rillcast_training/py.typed"} <= files
    assert {f"rillcast/bundle/universal/{freq}.onnx" for freq in FREQUENCIES} <= files
    static = {path.name for path in (ROOT / "pipeline/rillcast/observability/static").iterdir()}
    assert {Path(name).name for name in files if "/static/" in name} == static
    assert f"rillcast-{VERSION}.dist-info/licenses/LICENSE" in files


def test_the_installed_command_serves_a_file(environment: Environment, tmp_path: Path) -> None:
    environment.add_dependencies()
    found = environment.run("python", "-c", "import rillcast; print(rillcast.__file__)", cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(environment.site)
    made = "data synthesize history.csv --freq 1h --series 2 --length 30"
    environment.run("rillcast", *made.split(), cwd=tmp_path)
    served = "run --input.path history.csv --output.path forecasts.jsonl --device cpu --http.enabled false"
    environment.run("rillcast", *served.split(), cwd=tmp_path)
    forecasts = [json.loads(line) for line in (tmp_path / "forecasts.jsonl").read_text().splitlines()]
    assert len(forecasts) == len((tmp_path / "history.csv").read_text().splitlines()) - 1
    assert {forecast["freq"] for forecast in forecasts} == {"1h"}


def test_packages_of_other_projects_do_not_take_over_the_command(environment: Environment, tmp_path: Path) -> None:
    """A project with top-level packages `pipeline` and `training` is installed, or stands in the working directory."""
    environment.add_dependencies()
    for folder in (environment.site, tmp_path):
        for name in ("pipeline", "training"):
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text('raise SystemExit("the other project ran")\n')
    try:
        for path in ("", "."):
            for command in (["rillcast"], ["python", "-m", "rillcast"]):
                assert environment.run(*command, "--version", cwd=tmp_path, path=path) == f"rillcast {VERSION}\n"
            shown = environment.run("rillcast", "inspect", "universal:1h", cwd=tmp_path, path=path)
            assert shown.startswith("universal-1h@")
    finally:
        for name in ("pipeline", "training"):
            shutil.rmtree(environment.site / name)


def test_the_installed_package_has_its_public_names(environment: Environment, tmp_path: Path) -> None:
    environment.add_dependencies()
    code = "import rillcast; print(len([getattr(rillcast, name) for name in rillcast.__all__]), rillcast.__version__)"
    count, version = environment.run("python", "-c", code, cwd=tmp_path).split()
    assert int(count) > 10
    assert version == VERSION
