"""References to a model in a registry, where a file may stand too: `s3://bucket/models@live`, `models@0f3c...`.

Owns: how one is written, and the folder in which pulled bundles wait for the next start. Does not know: settings.
Whoever resolves an alias does it once, at the start: an alias that moves changes nothing that runs.
"""

from __future__ import annotations

import logging
import re
import uuid
from pathlib import Path
from typing import Final, NamedTuple

from rillcast.bundle.registry.model_registry import LIVE, ModelRegistry, check
from rillcast.errors import BundleError, SettingsError

# What follows the last @. A dot would be a file's suffix.
_REFERENCE: Final = re.compile(r"(?P<registry>.+)@(?P<name>[A-Za-z0-9_-]+)")

log = logging.getLogger(__name__)


class Reference(NamedTuple):
    """A model of a registry: its address, and an alias or a model id."""

    registry: str
    name: str


def parse(model: str) -> Reference | None:
    """Return what a setting or an argument refers to; None = a file or a shipped bundle.

    Raises:
        SettingsError: it is the address of a registry that says nothing of which model.
    """
    found = _REFERENCE.fullmatch(model)
    if found is not None and not Path(model).is_file():
        return Reference(found["registry"], found["name"])
    if "://" in model:
        raise SettingsError(f"{model}: which model of the registry? Append an alias or a model id: {model}@{LIVE}")
    return None


def locate(model: str, cache: Path) -> str:
    """Return the file of a referenced model, pulled into `cache` if it is not there; else the text itself.

    Raises:
        RegistryError: the registry does not have it, or does not answer.
        BundleError: it breaks the contract, or the cache cannot be written.
        SettingsError: the address cannot be used.
    """
    reference = parse(model)
    if reference is None:
        return model
    registry = ModelRegistry.at(reference.registry)
    manifest = registry.manifest(registry.resolve(reference.name))
    path = cache.expanduser() / f"{manifest.sha256}.onnx"
    if _is_cached(path, manifest.size_bytes):
        check(path.read_bytes(), manifest, str(path))
    else:
        _write(path, registry.pull(manifest.model_id).data)
    log.info("model %s is %s@%s, in %s", model, manifest.name, manifest.model_id, path)
    return str(path)


def _is_cached(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


def _write(path: Path, data: bytes) -> None:
    """Put a file into the cache, whole; others may start at the same time."""
    written = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            written.write_bytes(data)
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)
    except OSError as error:
        raise BundleError("readable", f"{path}: {error.strerror or error}; name another folder: model_cache") from error
