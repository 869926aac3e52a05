"""The commit that is checked out: what a figure or a run that is kept is of."""

from __future__ import annotations

import subprocess

from tests.support.paths import ROOT


def running_commit() -> str:
    """Return the short id of the commit that is checked out, with `+` where files differ; empty = no repository."""
    git = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    return subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
