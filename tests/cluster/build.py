"""Builds the programs of a Kubernetes control plane from pinned Go modules: `python -m tests.cluster.build`.

Takes Go 1.25 or newer, about 20 minutes of two cores once, and 8 GiB of disk. The programs are kept outside of the
repository, in a folder per state of `tools/go.sum`, so that a later run starts at once.

Owns: where the programs are. Does not know: how they are started.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

TOOLS: Final = Path(__file__).parent / "tools"
_KUBERNETES: Final = "v1.34.2"
PROGRAMS: Final = {
    "helm": "helm.sh/helm/v3/cmd/helm",
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
}


def folder() -> Path:
    """Return the folder of the programs, which need not exist."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    pinned = hashlib.sha256((TOOLS / "go.sum").read_bytes()).hexdigest()[:12]
    return cache / "rillcast" / "cluster" / pinned


def missing() -> list[str]:
    """Return the names of programs that are not built yet."""
    return [name for name in PROGRAMS if not (folder() / name).is_file()]


def main() -> int:
    """Build what is missing."""
    if (go := shutil.which("go")) is None:
        print("make test-cluster needs Go 1.25 or newer (`go` was not found in PATH)", file=sys.stderr)
        return 2
    folder().mkdir(parents=True, exist_ok=True)
    major, minor, _ = _KUBERNETES.removeprefix("v").split(".")
    version = "k8s.io/component-base/version"
    stamp = f"-s -w -X {version}.gitVersion={_KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    for name in missing():
        print(f"building {name} ...", flush=True)
        command = [go, "build", "-buildvcs=false", "-mod=readonly", "-ldflags", stamp, "-o", str(folder() / name)]
        done = subprocess.run([*command, PROGRAMS[name]], cwd=TOOLS, check=False)
        if done.returncode:
            return done.returncode
    print(folder())
    return 0


if __name__ == "__main__":
    sys.exit(main())
