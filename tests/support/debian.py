"""Programs for tests out of Debian's packages, unpacked into the test cache. Nothing is installed; no root is needed.

Owns: downloading and unpacking. Does not know: which programs, and where they are looked for first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Final

from tests.support.fetched import fetched

_FETCH_TIMEOUT_S: Final = 300.0


class DebianError(Exception):
    """A package is unavailable; the message says why and what to do."""


def unpacked(package: str, *, needs: bool) -> Path:
    """Return the folder in which a package is unpacked, fetching it if this machine does not have it yet.

    Args:
        package: Name of the package.
        needs: Whether to unpack those of the packages that it depends on that are not installed.

    Raises:
        DebianError: This is no Debian, or apt-get cannot download the package.
    """
    return fetched(package, partial(_unpack, package, needs=needs))


def libraries(folder: Path) -> str:
    """Return the `LD_LIBRARY_PATH` of an unpacked package."""
    return ":".join(sorted({str(path.parent) for path in (folder / "usr/lib").rglob("*.so*")}))


def _unpack(package: str, scratch: Path, *, needs: bool) -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise DebianError(f"{package} is not installed, and there is no apt-get to fetch it")
    archives = scratch / "archives"
    (archives / "partial").mkdir(parents=True)
    # Without apt's own user, which may not write into our folder; the archive is checked all the same.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root"]
    if needs:  # nothing is installed and nothing locked: only what would be installed is downloaded
        command += ["-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::Archives={archives}"]
        command += ["-y", "--no-install-recommends", "--download-only", "install", package]
    else:
        command += ["download", package]
    done = _run(command, archives)
    if done.returncode != 0 and os.geteuid() == 0:  # a fresh container has no package lists
        _run(["apt-get", "update", "-q"], archives)
        done = _run(command, archives)
    found = sorted(archives.glob("*.deb"))
    if done.returncode != 0 or not found:
        raise DebianError(
            f"apt-get could not download {package} ({done.stdout}{done.stderr}); install it, or put its programs on "
            "the PATH"
        )
    for archive in found:
        done = _run(["dpkg", "-x", str(archive), str(scratch / "unpacked")], archives)
        if done.returncode != 0:
            raise DebianError(f"dpkg could not unpack {archive.name}: {done.stderr}")
    return scratch / "unpacked"


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False
    )  # fmt: skip
