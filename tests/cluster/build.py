"""Builds a Kubernetes control plane and an OCI registry from pinned Go modules: `python -m tests.cluster.build`.

Takes Go 1.25 or newer, about 20 minutes of two cores once, and 8 GiB of disk.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.support.go_programs import GoPrograms

_KUBERNETES: Final = "v1.34.2"
_VERSION: Final = "k8s.io/component-base/version"
_MAJOR, _MINOR, _ = _KUBERNETES.removeprefix("v").split(".")

PROGRAMS: Final = GoPrograms(
    "cluster",
    Path(__file__).parent / "tools",
    {
        "helm": "helm.sh/helm/v3/cmd/helm",
        "etcd": "go.etcd.io/etcd/server/v3",
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    },
    f"-s -w -X {_VERSION}.gitVersion={_KUBERNETES} -X {_VERSION}.gitMajor={_MAJOR} -X {_VERSION}.gitMinor={_MINOR}",
)

# Of its own, so that another version of it does not build the control plane again.
REGISTRY: Final = GoPrograms(
    "registry", Path(__file__).parent / "registry", {"registry": "github.com/google/go-containerregistry/cmd/registry"}
)

if __name__ == "__main__":
    sys.exit(PROGRAMS.build() or REGISTRY.build())
