"""References to a model in a registry instead of a file: `s3://bucket/models@live`, `models@0f3c...`.

An alias is resolved once, at the start of a command: an alias that moves does not change a running service.

Owns: the form of a reference, and the folder that caches pulled bundles.
Does not know: settings.
"""

from __future__ import annotations

import logging
import re
import uuid
from pathlib import Path
from typing import Final, NamedTuple

from rillcast.bundle.registry.model_registry import ModelRegistry, check
from rillcast.bundle.registry.records import LIVE, is_model_id
from rillcast.errors import OutputError, SettingsError

# The name follows the last @. It has no dot, which would begin a file's suffix.
_REFERENCE: Final = re.compile(r"(?P<registry>.+)@(?P<name>[A-Za-z0-9_-]+)")

log = logging.getLogger(__name__)


class Reference(NamedTuple):
    """A model of a registry: its address, and an alias or a model id."""

    registry: str
    name: str

    @property
    def is_alias(self) -> bool:
        """Whether the name may come to mean another model."""
        return not is_model_id(self.name)

    def __str__(self) -> str:
        return f"{self.registry}@{self.name}"


def parse(model: str) -> Reference | None:
    """Return the reference in a setting or an argument; None = it names a file or a shipped bundle.

    Raises:
        SettingsError: The text is the address of a registry without the name of a model.
    """
    found = _REFERENCE.fullmatch(model)
    if found is not None and not Path(model).is_file():
        return Reference(found["registry"], found["name"])
    if "://" in model:
        raise SettingsError(
            f"{model} names a registry, but no model in it; append an alias or a model id: {model}@{LIVE}"
        )
    return None


def locate(model: str, cache: Path) -> str:
    """Return the file of a referenced model, pulled into `cache` if needed; return other texts unchanged.

    Raises:
        RegistryError: The registry does not have the model, or does not answer.
        BundleError: The model breaks the contract.
        OutputError: The cache cannot be written.
        SettingsError: The address cannot be used.
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
    """Write a file into the cache atomically; other processes may write it at the same time."""
    written = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            written.write_bytes(data)
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"model_cache {path}: {error.strerror or error}; free some room, or set model_cache to another folder"
        ) from error
