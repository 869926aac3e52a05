"""A Kubernetes control plane on 127.0.0.1: etcd, API server, controller manager, scheduler, and kwok as the nodes.

What the API server and its controllers decide is real: admission, defaults, validation, PodSecurity, rolling updates,
disruption budgets. Pods are not: kwok reports them as running and ready, and no container starts.

Owns: processes, keys, and kubectl and helm against them. Does not know: what is applied.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.cluster import build

_START_TIMEOUT_S: Final = 120.0
_NODES: Final = 3


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class ControlPlane:
    """Starts the control plane in a folder; `close` ends it."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._programs = build.PROGRAMS.folder()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port = _free_port()
        self._token = secrets.token_hex(16)
        self.kubeconfig = work / "kubeconfig"

    def start(self) -> None:
        """Start every program, and wait until three nodes are ready.

        Raises:
            RuntimeError: A program ended, or the nodes were not ready within two minutes; the message has its log.
        """
        database, peers = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
        self._run(
            "etcd",
            {"data-dir": self._work / "etcd", "listen-client-urls": database, "advertise-client-urls": database}
            | {"listen-peer-urls": peers, "initial-advertise-peer-urls": peers, "initial-cluster": f"default={peers}"}
            | {"unsafe-no-fsync": "true"},
        )
        key = self._work / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        tokens = self._work / "tokens.csv"
        tokens.write_text(f'{self._token},admin,admin,"system:masters"\n')
        self._kubeconfig()
        self._run(
            "kube-apiserver",
            {"etcd-servers": database, "cert-dir": self._work / "certs", "token-auth-file": tokens}
            | {"bind-address": "127.0.0.1", "advertise-address": "127.0.0.1", "secure-port": self._port}
            | {"endpoint-reconciler-type": "none", "service-cluster-ip-range": "10.96.0.0/16"}
            | {"service-account-key-file": key, "service-account-signing-key-file": key}
            | {"service-account-issuer": "https://kubernetes.default.svc", "authorization-mode": "RBAC"},
        )
        self._wait("the API server", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")
        client = {"kubeconfig": self.kubeconfig, "bind-address": "127.0.0.1", "leader-elect": "false"}
        # An HPA has no metrics to ask here; what it does to the number of members is not what is tested.
        # kwok renews no leases of its nodes, which would be taken for lost after a minute.
        controllers = {"service-account-private-key-file": key, "node-monitor-grace-period": "24h"}
        self._run("kube-controller-manager", client | {"secure-port": _free_port()} | controllers)
        self._run("kube-scheduler", client | {"secure-port": _free_port()})
        address = f"127.0.0.1:{_free_port()}"
        nodes: dict[str, object] = {"manage-all-nodes": "true", "node-ip": "127.0.0.1", "server-address": address}
        self._run("kwok", nodes | {"kubeconfig": self.kubeconfig})
        for number in range(_NODES):
            self.apply(_node(f"node-{number}"))
        self._wait("the nodes", lambda: len(self.ready_nodes()) == _NODES)

    def ready_nodes(self) -> list[str]:
        """Return the names of nodes that are ready."""
        nodes = self.get("nodes")["items"]
        conditions = {n["metadata"]["name"]: n["status"].get("conditions", ()) for n in nodes}
        return [
            name for name, of in conditions.items() if any(c["type"] == "Ready" and c["status"] == "True" for c in of)
        ]

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed.

        Raises:
            AssertionError: It failed; the message is its own.
        """
        return self._tool("kubectl", *arguments, check=check, stdin=stdin)

    def helm(self, *arguments: str, check: bool = True) -> str:
        """Run helm and return what it printed."""
        return self._tool(str(self._programs / "helm"), *arguments, check=check)

    def shell(self, command: str) -> str:
        """Run a command of a page, in which `kubectl` and `helm` mean this cluster, and return what it printed."""
        return self._tool("sh", "-ec", command, check=True)

    def get(self, *arguments: str) -> Any:
        """Return what `kubectl get` says, as a document."""
        return json.loads(self.kubectl("get", *arguments, "--output", "json"))

    def apply(self, manifest: dict[str, Any]) -> None:
        """Apply a manifest, with unknown and double members refused."""
        self.kubectl("apply", "--validate=strict", "--filename", "-", stdin=json.dumps(manifest))

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: It is not after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
            time.sleep(0.3)

    def close(self) -> None:
        """End every program."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _tool(self, program: str, *arguments: str, check: bool, stdin: str | None = None) -> str:
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self._work)}
        environment["PATH"] = f"{self._programs}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            [program, *arguments], input=stdin, capture_output=True, text=True, env=environment, check=False
        )
        assert not check or done.returncode == 0, f"{Path(program).name} {' '.join(arguments)}: {done.stderr}"
        return done.stdout if check or done.returncode == 0 else done.stdout + done.stderr

    def _run(self, name: str, options: Mapping[str, object]) -> None:
        log = (self._work / f"{name}.log").open("wb")
        command = [str(self._programs / name), *(f"--{option}={value}" for option, value in options.items())]
        self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self._work))

    def _wait(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            for process in self._processes:
                if process.poll() is not None:
                    raise RuntimeError(f"{process.args!r} ended:\n{self._logs()}")
            if condition():
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what}: not ready within {_START_TIMEOUT_S:g} s\n{self._logs()}")
            time.sleep(0.3)

    def _logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in self._work.glob("*.log"))

    def _kubeconfig(self) -> None:
        cluster = {"server": f"https://127.0.0.1:{self._port}", "insecure-skip-tls-verify": True}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        self.kubeconfig.write_text(json.dumps(document))


def _node(name: str) -> dict[str, Any]:
    resources = {"cpu": "32", "memory": "256Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
        },
        "status": {"allocatable": resources, "capacity": resources},
    }
