"""Where a registry keeps its records and bundles: objects in a storage, or MLflow's model registry.

    blobs/<sha256>.onnx            the bytes of a bundle
    models/<model id>.json         `Manifest`: facts of the model, and the blob that holds it
    aliases/<alias>/<number>.json  `Promotion`: one for each move of the alias, numbered from 1

Owns: what every catalogue does, and the layout above. Does not know: which models may be pushed or promoted
(`rillcast.bundle.registry.model_registry`), how objects are stored (`rillcast.bundle.registry.storage`).
Invariants: an object never changes. A manifest is written after its blob, so a listed model is complete. One small
write moves an alias, and two concurrent moves cannot take the same number.
"""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from pydantic import BaseModel

from rillcast.bundle.bundle import MAX_BUNDLE_BYTES
from rillcast.bundle.registry.records import Manifest, Promotion, damaged, is_alias, is_model_id, read_record
from rillcast.bundle.registry.storage import Storage, open_storage
from rillcast.errors import RegistryError

_MAX_RECORD_BYTES: Final = 2**20
_DIGITS: Final = 8  # so that names sort as numbers do

_Record = TypeVar("_Record", bound=BaseModel)


class Catalogue(Protocol):
    """Records of models and aliases, and the bundles. `address` is the address as given, for messages.

    Every method raises `RegistryUnreachableError` where nothing answers, and `RegistryError` where a record was
    changed by somebody else.
    """

    address: str

    def manifest(self, model_id: str) -> Manifest | None:
        """Return the manifest of a model; None = there is no such model."""

    def model_ids(self) -> list[str]:
        """Return the ids of the models."""

    def data(self, manifest: Manifest) -> bytes:
        """Return the bytes that are kept for a model, unchecked."""

    def add_model(self, manifest: Manifest, data: bytes, run: str | None) -> bool:
        """Keep a model.

        Args:
            manifest: Its facts.
            data: Its bundle.
            run: The MLflow run that trained it, if it has one.

        Returns:
            Whether it is new; False = another push was first, and its model stays.
        """

    def aliases(self) -> list[str]:
        """Return the names of the aliases, sorted."""

    def history(self, alias: str) -> list[Promotion]:
        """Return the promotions of an alias, oldest first; empty = it has never moved."""

    def current(self, alias: str) -> Promotion | None:
        """Return the newest promotion of an alias; None = it has never moved."""

    def promotion(self, alias: str, number: int) -> Promotion:
        """Return one promotion of an alias."""

    def add_promotion(self, alias: str, made: Promotion) -> bool:
        """Move an alias; False = another writer moved it meanwhile, and nothing was changed."""


class ObjectCatalogue:
    """See the module's docstring."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.address = storage.address

    @classmethod
    def at(cls, address: str) -> ObjectCatalogue:
        """Return the catalogue at a folder or a URL of an object store.

        Raises:
            SettingsError: The address cannot be used.
        """
        return cls(open_storage(address))

    def manifest(self, model_id: str) -> Manifest | None:
        """See `Catalogue.manifest`."""
        found = self._record(_model(model_id), Manifest)
        if found is not None and found.model_id != model_id:
            raise self._damaged(_model(model_id), f"it describes {found.model_id}")
        return found

    def model_ids(self) -> list[str]:
        """See `Catalogue.model_ids`."""
        return [one for name in self._storage.names("models") if is_model_id(one := name.removesuffix(".json"))]

    def data(self, manifest: Manifest) -> bytes:
        """See `Catalogue.data`."""
        data = self._storage.read(_blob(manifest.sha256), MAX_BUNDLE_BYTES)
        if data is None:
            raise self._damaged(_blob(manifest.sha256), "it is missing")
        return data

    def add_model(self, manifest: Manifest, data: bytes, run: str | None) -> bool:  # noqa: ARG002  the protocol's
        """See `Catalogue.add_model`."""
        self._storage.create(_blob(manifest.sha256), data)
        return self._storage.create(_model(manifest.model_id), manifest.model_dump_json().encode())

    def aliases(self) -> list[str]:
        """See `Catalogue.aliases`."""
        return [name for name in self._storage.names("aliases") if is_alias(name)]

    def history(self, alias: str) -> list[Promotion]:
        """See `Catalogue.history`."""
        return [self.promotion(alias, number) for number in self._numbers(alias)]

    def current(self, alias: str) -> Promotion | None:
        """See `Catalogue.current`."""
        numbers = self._numbers(alias)
        return self.promotion(alias, numbers[-1]) if numbers else None

    def promotion(self, alias: str, number: int) -> Promotion:
        """See `Catalogue.promotion`."""
        key = _promotion(alias, number)
        found = self._record(key, Promotion)
        if found is None or found.number != number or (found.back_to or 0) >= number:
            raise self._damaged(key, "it is missing" if found is None else "its numbers do not fit its name")
        return found

    def add_promotion(self, alias: str, made: Promotion) -> bool:
        """See `Catalogue.add_promotion`."""
        return self._storage.create(_promotion(alias, made.number), made.model_dump_json().encode())

    def _numbers(self, alias: str) -> list[int]:
        stems = [name.removesuffix(".json") for name in self._storage.names(f"aliases/{alias}")]
        return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())

    def _record(self, key: str, kind: type[_Record]) -> _Record | None:
        data = self._storage.read(key, _MAX_RECORD_BYTES)
        if data is None:
            return None
        try:
            return read_record(kind, data)
        except ValueError as error:
            raise self._damaged(key, str(error)) from error

    def _damaged(self, key: str, found: str) -> RegistryError:
        return RegistryError(damaged(self.address, key, found))


def _blob(digest: str) -> str:
    return f"blobs/{digest}.onnx"


def _model(model_id: str) -> str:
    return f"models/{model_id}.json"


def _promotion(alias: str, number: int) -> str:
    return f"aliases/{alias}/{number:0{_DIGITS}d}.json"
