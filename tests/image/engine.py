"""Builds images with buildah and runs them with runc: no daemon, and nothing is installed.

Owns: both programs with their folders and options. Does not know: what is in an image.
Invariant: a container sees this machine's network, a read-only root, and no capability.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support import debian

_BUILD_TIMEOUT_S: Final = 1800.0
_POLICY: Final = {"default": [{"type": "insecureAcceptAnything"}]}


def _storage_driver(folder: Path) -> str:
    """Return `overlay` where the kernel mounts one over this folder, else `vfs`, which copies every layer whole."""
    layers = {name: folder / "probe" / name for name in ("lowerdir", "upperdir", "workdir")}
    merged = folder / "probe" / "merged"
    for path in (*layers.values(), merged):
        path.mkdir(parents=True)
    options = ",".join(f"{name}={path}" for name, path in layers.items())
    mount = ["mount", "--types", "overlay", "overlay", "--options", options, str(merged)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        return "vfs"
    subprocess.run(["umount", str(merged)], check=True)
    return "overlay"


class Engine:
    """Images and containers in a folder, which is given back by `close`.

    Raises:
        DebianError: buildah or runc is neither installed nor can it be fetched.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self._folder, self._log = folder, log
        self._environment = dict(os.environ)
        self._buildah, self._runc = self._program("buildah"), self._program("runc")
        policy, registries = folder / "policy.json", folder / "registries.conf"
        policy.write_text(json.dumps(_POLICY))
        registries.write_text("")
        self._environment |= {
            "CONTAINERS_REGISTRIES_CONF": str(registries),
            "CONTAINERS_CONF": "/dev/null",
            "TMPDIR": str(folder),
        }
        stores = {"root": folder / "store", "runroot": folder / "run", "storage-driver": _storage_driver(folder)}
        self._stores = [part for name, value in stores.items() for part in (f"--{name}", str(value))]
        self._policy = ["--signature-policy", str(policy)]
        self._containers: list[str] = []

    def _program(self, name: str) -> str:
        if found := shutil.which(name):
            return found
        unpacked = debian.unpacked(name, needs=True)
        libraries = debian.libraries(unpacked)
        self._environment["LD_LIBRARY_PATH"] = f"{libraries}:{self._environment.get('LD_LIBRARY_PATH', '')}"
        return str(sorted(unpacked.glob(f"usr/*bin/{name}"))[0])

    def buildah(self, command: str, *arguments: str) -> str:
        """Run a command of buildah and return what it printed.

        Raises:
            AssertionError: It failed; the message is its own. The log has everything.
        """
        done = subprocess.run(
            [self._buildah, *self._stores, command, *arguments],
            env=self._environment, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S,
        )  # fmt: skip
        with self._log.open("a") as log:
            log.write(f"$ buildah {command} {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, f"buildah {command}: {done.stderr[-4000:]}"
        return done.stdout.strip()

    def build(self, tag: str, context: Path, *, target: str = "", arguments: Mapping[str, str] | None = None) -> None:
        """Build a Dockerfile as `docker build` would."""
        more = [f"--build-arg={name}={value}" for name, value in (arguments or {}).items()]
        if target:
            more += ["--target", target]
        isolation = ["--isolation", "oci", "--runtime", self._runc, "--network", "host"]
        options = [*isolation, "--format", "docker", "--pull-never", *self._policy, "--tag", tag]
        self.buildah("bud", *options, "--file", str(context / "Dockerfile"), *more, str(context))

    def push(self, tag: str, folder: Path) -> str:
        """Write an image as an OCI layout, and return its digest."""
        digest = self._folder / "digest"
        self.buildah("push", *self._policy, "--digestfile", str(digest), tag, f"oci:{folder}")
        return digest.read_text().strip()

    def config(self, tag: str) -> Any:
        """Return the configuration of an image, as OCI has it."""
        return json.loads(self.buildah("inspect", "--type", "image", tag))["OCIv1"]["config"]

    def root(self, tag: str) -> Path:
        """Return the root file system of a new container."""
        container = self.buildah("from", "--pull-never", *self._policy, tag)
        self._containers.append(container)
        return Path(self.buildah("mount", container))

    def command(
        self, root: Path, config: Any, bundle: Path, *, arguments: Sequence[str], environment: Mapping[str, str],
        mounts: Mapping[str, Path],
    ) -> list[str]:  # fmt: skip
        """Return the command that runs an image's process in the foreground, as a restricted pod would.

        Args:
            root: Root file system of the image.
            config: Its configuration.
            bundle: Folder for the runtime's own files; its name is the container's.
            arguments: In place of the image's command.
            environment: Besides the image's variables.
            mounts: Folders or files of this machine by their paths in the container.
        """
        bundle.mkdir(parents=True)
        user, group = map(int, config["User"].split(":"))
        variables = dict(each.split("=", 1) for each in config["Env"]) | dict(environment)
        bound = [
            {"destination": to, "source": str(source), "type": "bind", "options": ["rbind", "nosuid", "nodev"]}
            for to, source in mounts.items()
        ]
        spec = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": user, "gid": group},
                "args": [*config["Entrypoint"], *arguments],
                "env": [f"{name}={value}" for name, value in variables.items()],
                "cwd": config["WorkingDir"] or "/",
                "noNewPrivileges": True,
                "capabilities": {
                    name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
                },
            },
            "root": {"path": str(root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777"]},  # noqa: S108  the container's
                *bound,
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }  # fmt: skip
        (bundle / "config.json").write_text(json.dumps(spec))
        state = self._folder / "runc"
        return [self._runc, "--root", str(state), "run", "--bundle", str(bundle), bundle.name]

    def delete(self, name: str) -> None:
        """Kill a container, if it still runs, and wait for its end."""
        command = [self._runc, "--root", str(self._folder / "runc"), "delete", "--force", name]
        subprocess.run(command, capture_output=True, check=False, env=self._environment)

    def close(self) -> None:
        """Give the folder back."""
        for container in self._containers:
            self.buildah("umount", container)
        # The driver has mounted its folder onto itself.
        subprocess.run(["umount", str(self._folder / "store" / "overlay")], capture_output=True, check=False)
        shutil.rmtree(self._folder / "store", ignore_errors=True)
