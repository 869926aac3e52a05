"""What the tests fetch once per machine: a folder in the user's cache that is whole or not there.

Owns: where it lies and who fetches it. Test processes that want it at the same time take turns, for Maven and apt share
folders of their own that two of them would damage. Does not know: how anything is fetched.
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
        name: of the folder; what it depends on belongs into it.
        fetch: is given an empty scratch folder and returns the folder in it that is to be kept. What it raises comes
            out, and nothing is kept.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rillcast-test"
    target = root / name
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / "fetching.lock"):
        if not target.is_dir():  # another process may have been quicker
            with tempfile.TemporaryDirectory(dir=root, prefix="fetching-") as scratch:
                fetch(Path(scratch)).rename(target)
    return target


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process is inside; the lock goes with its process, however that ends."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
