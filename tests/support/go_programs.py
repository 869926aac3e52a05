"""Programs for tests out of pinned Go modules, built once into a folder of the user's cache.

Owns: where the programs are, and how they are built. Does not know: which ones, and how they are started.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class GoPrograms:
    """A set of programs.

    Attributes:
        name: Name of the set in the cache.
        tools: Folder with go.mod and go.sum. Each state of go.sum has a folder of programs of its own.
        packages: Paths of the main packages by the programs' names.
        flags: Flags for the linker.
    """

    name: str
    tools: Path
    packages: Mapping[str, str]
    flags: str = "-s -w"

    def folder(self) -> Path:
        """Return the folder of the programs, which need not exist."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        pinned = hashlib.sha256((self.tools / "go.sum").read_bytes()).hexdigest()[:12]
        return cache / "rillcast" / self.name / pinned

    def missing(self) -> list[str]:
        """Return the names of programs that are not built yet."""
        return [name for name in self.packages if not (self.folder() / name).is_file()]

    def build(self) -> int:
        """Build what is missing, print the folder, and return an exit code."""
        if (go := shutil.which("go")) is None:
            print(f"make test-{self.name} needs Go 1.25 or newer (`go` was not found in PATH)", file=sys.stderr)
            return 2
        self.folder().mkdir(parents=True, exist_ok=True)
        for name in self.missing():
            print(f"building {name} ...", flush=True)
            command = [go, "build", "-buildvcs=false", "-mod=readonly", "-ldflags", self.flags]
            command += ["-o", str(self.folder() / name), self.packages[name]]
            if code := subprocess.run(command, cwd=self.tools, check=False).returncode:
                return code
        print(self.folder())
        return 0
