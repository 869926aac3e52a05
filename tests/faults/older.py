"""The code of an earlier commit, with which some members of a run work.

Owns: how it is taken out of the repository, and how a process comes to import it. Does not know: members.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support.paths import ROOT


def extract(commit: str, folder: Path, *more: str) -> Path:
    """Put the service's code of a commit, and more of it, into a folder; return the path to import the service from.

    Raises:
        RuntimeError: The repository does not have the commit.
    """
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit, "pipeline", *more], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        raise RuntimeError(f"no code of {commit}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder / "pipeline"


def environment(code: Path | None) -> Mapping[str, str]:
    """Return the environment of a member that runs this code; None = the working tree's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RILLCAST_")}
    if code is not None:
        inherited["PYTHONPATH"] = os.pathsep.join(filter(None, [str(code), inherited.get("PYTHONPATH")]))
    return inherited
