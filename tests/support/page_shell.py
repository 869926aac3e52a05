"""Runs shell commands of a page as a reader would, in a folder, with `rillcast` being this checkout's.

Owns: the shell's environment. Does not know: which page the commands come from (`tests.support.pages`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TIMEOUT_S = 60.0


class PageShell:
    """A reader's shell; `variables` are what the page leaves to the reader."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.variables: dict[str, str] = {}
        programs = folder / "bin"
        programs.mkdir()
        (programs / "rillcast").write_text(f'#!/bin/sh\nexec {sys.executable} -m rillcast "$@"\n')
        (programs / "rillcast").chmod(0o755)
        self._path = f"{programs}:{os.environ['PATH']}"

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a block of commands until one fails; return what it said and its exit code."""
        return subprocess.run(
            ["sh", "-ec", command],
            cwd=self._folder, env=os.environ | self.variables | {"PATH": self._path},
            capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip

    def succeeds(self, command: str) -> bool:
        """Return whether each line of a block succeeds, as the page says it will."""
        return all(self.run(line).returncode == 0 for line in command.splitlines())
