"""Fetches programs for tests once per machine, into folders of the user's cache that are complete or absent.

Owns: the folders, and the lock. Test processes fetch one at a time, because Maven and apt share folders of their own
that two of them would damage. Does not know: how anything is fetched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def fetched(name: str, fetch: Callable[[Path], Path]) -> Path:
    """Return the folder `name` of the cache, made by `fetch` if this machine does not have it yet.

    Args:
        name: Name of the folder; it has to contain everything that the content depends on.
        fetch: Takes an empty scratch folder and returns the folder in it to keep. If it raises, nothing is kept.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rillcast-test"
    target = root / name
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / "fetching.lock"):
        if not target.is_dir():  # another process may have made it
            with tempfile.TemporaryDirectory(dir=root, prefix="fetching-") as scratch:
                fetch(Path(scratch)).rename(target)
    return target


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is inside; the system releases the lock of a process that ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
