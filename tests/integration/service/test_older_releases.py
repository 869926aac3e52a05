"""What this code writes, older releases go on from with the same forecasts, or refuse with what to do.

The code of the last commits before a form of stored state, a bundle or a setting changed is taken out of the
repository. `docs/how-to/upgrading.md` has the table that these tests hold.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.faults.older import extract
from tests.support import releases
from tests.support.paths import ROOT
from tests.support.stored_forms import BEFORE_LATE_RAW, BEFORE_TABLES, KNOW_NO_SILENCES, READS, alarms_in, forecasts_in

_SCRIPTS: Final = ROOT / "tests" / "fixtures" / "state"


@pytest.fixture(scope="module")
def releases_of(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The code of each older release."""
    folder = tmp_path_factory.mktemp("older")
    try:
        return {commit: extract(commit, folder / commit, "tests/support") for commit in READS}
    except RuntimeError as error:
        pytest.skip(f"a shallow clone, or no clone, has no older releases: {error}")  # in CI too: it may be given one


def run_script(name: str, *arguments: object, code: Path | None = None, refused: str = "") -> None:
    """Run a script of the fixtures on the code of a release; None = this one. It may have to end with a refusal."""
    path = [str(part) for part in ([ROOT, ROOT / "pipeline"] if code is None else [code.parent, code])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, str(_SCRIPTS / name), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=path[0], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode == 0) == (not refused), done.stderr
    assert refused in done.stderr


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a folder with the state that this code writes of a form."""

    @cache
    def of(form: str) -> Path:
        folder = tmp_path_factory.mktemp(form) / "written"
        run_script("make.py", form, folder, releases.STATE / form)
        return folder

    return of


@pytest.mark.parametrize(("commit", "form"), [(commit, form) for commit, forms in READS.items() for form in forms])
def test_an_older_release_goes_on_with_the_same_forecasts(
    commit: str, form: str, written: Callable[[str], Path], releases_of: Mapping[str, Path], tmp_path: Path
) -> None:
    folder = written(form)
    run_script("go_on.py", form, folder, tmp_path / "out", code=releases_of[commit])
    releases.assert_same_forecasts(forecasts_in(tmp_path / "out"), forecasts_in(folder))
    told = [] if commit in KNOW_NO_SILENCES else alarms_in(folder)
    assert alarms_in(tmp_path / "out") == told


def test_the_same_forecasts_need_the_state(
    written: Callable[[str], Path], releases_of: Mapping[str, Path], tmp_path: Path
) -> None:
    """Without stored state the forecasts differ, so the test above shows that it was read."""
    folder, empty = written("raw"), tmp_path / "empty"
    shutil.copytree(folder, empty)
    shutil.rmtree(empty / "state")
    (empty / "state").mkdir()
    (empty / "committed.json").write_text("{}")
    run_script("go_on.py", "raw", empty, tmp_path / "out", code=releases_of["8e2d9f1"])
    with pytest.raises(AssertionError):
        releases.assert_same_forecasts(forecasts_in(tmp_path / "out"), forecasts_in(folder))


def test_an_older_release_refuses_a_bundle_with_alarms_by_its_shapes(
    releases_of: Mapping[str, Path], tmp_path: Path
) -> None:
    folder, says = releases.STATE / "alarms", "bundle refused [shapes]: input 'alarm_interval'"
    run_script("go_on.py", "alarms", folder, tmp_path / "out", code=releases_of[BEFORE_LATE_RAW], refused=says)


@pytest.mark.parametrize(
    ("commit", "given", "says"),
    [
        (BEFORE_TABLES, '[[models]]\nname = "a"\nmodel = "a.onnx"\n', "models: Extra inputs are not permitted"),
        (
            BEFORE_LATE_RAW,
            '[input]\naggregate = "sum"\nallowed_lateness_periods = 2\n',
            "a closed period is not corrected; use input.close = 'partition' with input.grace_s",
        ),
    ],
)
def test_an_older_release_refuses_settings_that_it_does_not_know_by_name(
    commit: str, given: str, says: str, releases_of: Mapping[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "rillcast.toml"
    file.write_text(given)
    done = subprocess.run(
        [sys.executable, "-m", "rillcast", "config", "--config", str(file)],
        env={**os.environ, "PYTHONPATH": str(releases_of[commit])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
