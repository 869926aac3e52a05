"""A base image with Python out of Debian's packages, for machines that reach no registry of images.

It stands in for `PYTHON_IMAGE`: /usr/local/bin/python with pip, and this machine's certificate authorities.
Owns: which packages. Does not know: what is built on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.debian import DebianError
from tests.support.fetched import fetched

_PACKAGES: Final = ("bash", "ca-certificates", "coreutils", "dash", "findutils", "grep", "libc-bin", "libstdc++6",
                    "netbase", "python3", "python3-distutils", "sed", "zlib1g")  # fmt: skip
_DOCKERFILE: Final = "FROM scratch\nCOPY root /\nENV PATH=/usr/local/bin:/usr/bin:/bin\n"
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


def context(folder: Path) -> Path:
    """Write the build's context into a folder, and return it.

    Raises:
        DebianError: This is no Debian, or apt-get cannot download the packages.
    """
    packages = fetched("image-base", _download)
    root = folder / "root"
    for name in ("bin", "sbin", "lib", "lib64"):  # as Debian's installer lays them
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for archive in sorted(packages.glob("*.deb")):
        _run("dpkg", "-x", str(archive), str(root))
    binaries = root / "usr" / "local" / "bin"
    binaries.mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        (binaries / name).symlink_to("/usr/bin/python3")
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    (version,) = (path.name for path in root.glob("usr/lib/python3.*"))
    target = root / "usr" / "local" / "lib" / version / "dist-packages"
    _pip(target)
    if _CERTIFICATES.is_file():
        shutil.copy(_CERTIFICATES, root / "etc" / "ssl" / "certs" / "ca-certificates.crt")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    for name in ("tmp", "root", "proc", "dev", "sys", "run"):
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (folder / "Dockerfile").write_text(_DOCKERFILE)
    return folder


def _pip(target: Path) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        raise DebianError("uv is not installed (`make test` installs it)")
    _run(uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target), "pip")


def _download(scratch: Path) -> Path:
    archives = scratch / "archives"
    (archives / "partial").mkdir(parents=True)
    status = scratch / "status"
    status.write_text("")  # as if nothing were installed, so that everything below the packages comes too
    _run(
        "apt-get", "-q", "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1",
        "-o", f"Dir::State::status={status}", "-o", f"Dir::Cache::Archives={archives}",
        "-y", "--no-install-recommends", "--download-only", "install", *_PACKAGES,
    )  # fmt: skip
    shutil.rmtree(archives / "partial")
    return archives


def _run(*command: str) -> None:
    if shutil.which(command[0]) is None:
        raise DebianError(f"{command[0]} is not installed; the base image is made of Debian's packages")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DebianError(f"{' '.join(command[:2])} failed: {done.stdout}{done.stderr}")
