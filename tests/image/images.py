"""Builds the images of the Dockerfile on a base of Debian's packages, because no registry of images is asked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.image.engine import Engine
from tests.support.paths import ROOT

BASE: Final = "localhost/python"
OUT: Final = ROOT / "build" / "test-image"


@dataclass
class Image:
    """A built image.

    Attributes:
        engine: What built it.
        root: Root file system of a container of it.
        config: Its configuration, as OCI has it.
        digest: Its digest; empty if it was not pushed.
    """

    engine: Engine
    root: Path
    config: Any
    digest: str


def built(engine: Engine, target: str, *, push: bool = False, arguments: Mapping[str, str] | None = None) -> Image:
    """Build a target of the Dockerfile; leave its configuration in `OUT`, and its OCI layout if it is pushed."""
    tag = f"localhost/rillcast:{target}"
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    labels = {"PYTHON_IMAGE": BASE, "VERSION": "0.1.0", "REVISION": revision.stdout.strip()}
    engine.build(tag, ROOT, target=target, arguments=labels | dict(arguments or {}))
    config = engine.config(tag)
    digest = engine.push(tag, OUT / "oci") if push else ""
    folder = OUT / target
    folder.mkdir()
    if push:
        (folder / "digest").write_text(f"{digest}\n")
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return Image(engine, engine.root(tag), config, digest)
