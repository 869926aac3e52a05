"""A control group of Linux with a limit of memory, of version 1 or 2, as containers have one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

_ROOT: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = ((_ROOT / "memory", "memory.limit_in_bytes"), (_ROOT, "memory.max"))
_USED: Final = ("memory.usage_in_bytes", "memory.current")


class MemoryGroup:
    """See the module's docstring."""

    def __init__(self, folder: Path, limit: str) -> None:
        self._folder = folder
        self._limit = limit

    def take(self, process: int) -> None:
        """Move a process into the group; what it has already counts where it was."""
        (self._folder / "cgroup.procs").write_text(str(process))

    def used_bytes(self) -> int:
        """Return what its processes use."""
        (file,) = (self._folder / name for name in _USED if (self._folder / name).exists())
        return int(file.read_text())

    def limit(self, size: int) -> None:
        """Let its processes have no more than this many bytes; the kernel kills one that asks for more."""
        (self._folder / self._limit).write_text(str(size))


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """Make a group, and remove it in the end; its processes have to have ended by then. It takes root."""
    for parent, limit in _LIMITS:
        folder = parent / f"rillcast-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue  # the other version is in use, or this is not root
        if not (folder / limit).exists():  # a group of another kind, or no group
            folder.rmdir()
            continue
        try:
            yield MemoryGroup(folder, limit)
        finally:
            folder.rmdir()
        return
    # In CI too: a container gives none away, and nothing can be installed for it.
    pytest.skip("a limit of memory takes root, and control groups of memory under /sys/fs/cgroup that may be written")
