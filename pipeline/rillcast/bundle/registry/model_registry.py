"""A registry of bundles: what was pushed, and which of them each alias means, now and before.

Owns: the layout, the checks on the way in and out, the history of an alias. Does not know: where the objects lie
(`rillcast.bundle.registry.storage`), who serves a model, whether it is any good (`rillcast evaluate`).

    blobs/<sha256>.onnx            the bytes of a bundle
    models/<model id>.json         `Manifest`: what it is, and which blob holds it
    aliases/<alias>/<number>.json  `Promotion`: one each time that the alias moves, numbered from 1

Invariants: an object is never changed. A manifest is written after its blob, so a model that is listed is whole. An
alias means its newest promotion; writing that one small object is what moves it, and two who move it at once cannot
both take the same number. What comes out of `pull` has the digest and the model id that went in and has kept every
clause of the contract again, whoever else may write to the storage.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rillcast.bundle.bundle import MAX_BUNDLE_BYTES, Bundle
from rillcast.bundle.registry.storage import Storage, open_storage
from rillcast.errors import RegistryError

LIVE: Final = "live"
_MODEL_ID: Final = re.compile(r"[0-9a-f]{16}")
_ALIAS: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_MAX_RECORD_BYTES: Final = 2**20
_DIGITS: Final = 8  # so that names sort as numbers do

_ModelId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Record = TypeVar("_Record", bound=BaseModel)


class Manifest(BaseModel):
    """What was pushed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    model_id: _ModelId
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: int
    name: str
    cell: str
    freq: str
    horizon: int
    quantiles: tuple[float, ...]
    pushed_at: dt.datetime


class Promotion(BaseModel):
    """One move of an alias; `back_to` is the number of the one whose model a rollback from here brings back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    number: Annotated[int, Field(ge=1)]
    action: Literal["promote", "rollback"]
    model_id: _ModelId
    back_to: Annotated[int, Field(ge=1)] | None
    at: dt.datetime
    note: str = ""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A bundle out of the registry, checked."""

    manifest: Manifest
    data: bytes


class ModelRegistry:
    """The registry at an address. Holds nothing in memory: every call asks the storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.where = storage.where

    @classmethod
    def at(cls, where: str) -> ModelRegistry:
        """Return the registry at a folder or a URL; it need not exist until the first push.

        Raises:
            SettingsError: the address cannot be used.
        """
        return cls(open_storage(where))

    def push(self, data: bytes, now: dt.datetime) -> tuple[Manifest, bool]:
        """Check a bundle and keep it under its model id.

        Returns:
            Its manifest, and whether it is new. A bundle with the id of one that is there computes the same, so the
            one that is there stays, whatever else the two files say of themselves.

        Raises:
            BundleError: it breaks the contract; nothing was stored.
            RegistryError: the storage fails, or holds something else under that id.
        """
        metadata = Bundle.from_bytes(data).metadata
        digest = hashlib.sha256(data).hexdigest()
        manifest = Manifest(
            model_id=metadata.model_id,
            sha256=digest,
            size_bytes=len(data),
            name=metadata.name,
            cell=metadata.cell,
            freq=metadata.freq,
            horizon=metadata.horizon,
            quantiles=metadata.quantiles,
            pushed_at=now,
        )
        if (there := self._manifest(metadata.model_id)) is not None:
            return there, False
        self._storage.create(_blob(digest), data)
        if self._storage.create(_model(metadata.model_id), manifest.model_dump_json().encode()):
            return manifest, True
        return self.manifest(metadata.model_id), False  # somebody else was first

    def models(self) -> list[Manifest]:
        """Return what was pushed, oldest first."""
        ids = [name.removesuffix(".json") for name in self._storage.names("models")]
        found = [self.manifest(one) for one in ids if _MODEL_ID.fullmatch(one)]
        return sorted(found, key=lambda one: (one.pushed_at, one.model_id))

    def aliases(self) -> dict[str, list[Promotion]]:
        """Return the history of every alias, oldest first."""
        return {name: self.history(name) for name in self._storage.names("aliases") if _ALIAS.fullmatch(name)}

    def history(self, alias: str) -> list[Promotion]:
        """Return how an alias has moved, oldest first; empty = it never has."""
        _require_alias(alias)
        numbers = self._numbers(alias)
        return [self._promotion(alias, number) for number in numbers]

    def meaning(self, alias: str) -> str | None:
        """Return the model id that an alias means now; None = it has never moved."""
        _require_alias(alias)
        numbers = self._numbers(alias)
        return self._promotion(alias, numbers[-1]).model_id if numbers else None

    def manifest(self, model_id: str) -> Manifest:
        """Return what was pushed under an id.

        Raises:
            RegistryError: nothing was, or the storage fails.
        """
        found = self._manifest(model_id)
        if found is None:
            known = [name.removesuffix(".json") for name in self._storage.names("models")]
            raise RegistryError(
                f"registry {self.where} has no model {model_id!r}; it has {', '.join(known) or 'none at all'}: "
                f"`rillcast model push {self.where} MODEL.onnx` adds one"
            )
        return found

    def resolve(self, name: str) -> str:
        """Return the model id that an alias means now, or the id itself.

        Raises:
            RegistryError: there is no such alias or model.
        """
        if _MODEL_ID.fullmatch(name):
            return self.manifest(name).model_id
        return self._current(name).model_id

    def promote(self, name: str, now: dt.datetime, *, alias: str = LIVE, note: str = "") -> Promotion:
        """Let an alias mean a model, given by its id or by another alias.

        Raises:
            RegistryError: there is no such model, the alias means it already, somebody else moved the alias at the same
            time, or the storage fails; the alias stays as it was.
        """
        _require_alias(alias)
        model_id = self.resolve(name)
        self.pull(model_id)  # what an alias means can be served
        numbers = self._numbers(alias)
        before = self._promotion(alias, numbers[-1]) if numbers else None
        if before is not None and before.model_id == model_id:
            raise RegistryError(f"registry {self.where}: {alias} is {model_id} already; nothing was changed")
        back_to = before.number if before is not None else None
        return self._move(alias, "promote", model_id, back_to, (before.number if before else 0) + 1, now, note)

    def rollback(self, now: dt.datetime, *, alias: str = LIVE, note: str = "") -> Promotion:
        """Let an alias mean what it meant before its last promotion that was not rolled back.

        Once more goes back one further, as undo does: it never goes forward again.

        Raises:
            RegistryError: there is nothing before, or as `promote`.
        """
        current = self._current(alias)
        if current.back_to is None:
            raise RegistryError(
                f"registry {self.where}: {alias} is {current.model_id}, and there is nothing before it in the history; "
                f"`rillcast model promote {self.where} MODEL_ID` names another model"
            )
        target = self._promotion(alias, current.back_to)
        self.pull(target.model_id)
        return self._move(alias, "rollback", target.model_id, target.back_to, current.number + 1, now, note)

    def pull(self, name: str) -> Pulled:
        """Return a model, by id or alias, checked again.

        Raises:
            RegistryError: there is none, or what is there is not what was pushed.
            BundleError: this release no longer reads it.
        """
        manifest = self.manifest(self.resolve(name))
        data = self._storage.read(_blob(manifest.sha256), MAX_BUNDLE_BYTES)
        if data is None:
            raise self._damaged(_blob(manifest.sha256), "it is not there")
        check(data, manifest, self.where)
        return Pulled(manifest, data)

    def _move(
        self,
        alias: str,
        action: Literal["promote", "rollback"],
        model_id: str,
        back_to: int | None,
        number: int,
        now: dt.datetime,
        note: str,
    ) -> Promotion:
        made = Promotion(number=number, action=action, model_id=model_id, back_to=back_to, at=now, note=note)
        if not self._storage.create(_promotion(alias, number), made.model_dump_json().encode()):
            raise RegistryError(
                f"registry {self.where}: somebody else moved {alias} at the same time; nothing was changed: "
                f"`rillcast model list {self.where}` shows what it is now"
            )
        return made

    def _current(self, alias: str) -> Promotion:
        _require_alias(alias)
        numbers = self._numbers(alias)
        if not numbers:
            known = self._storage.names("aliases")
            raise RegistryError(
                f"registry {self.where} has no alias {alias!r}; it has {', '.join(known) or 'none at all'}: "
                f"`rillcast model promote {self.where} MODEL_ID --alias {alias}` sets it"
            )
        return self._promotion(alias, numbers[-1])

    def _numbers(self, alias: str) -> list[int]:
        stems = [name.removesuffix(".json") for name in self._storage.names(f"aliases/{alias}")]
        return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())

    def _manifest(self, model_id: str) -> Manifest | None:
        if not _MODEL_ID.fullmatch(model_id):
            raise RegistryError(
                f"{model_id!r} is no model id; expected 16 hex digits, as `rillcast inspect` shows them"
            )
        found = self._record(_model(model_id), Manifest)
        if found is not None and found.model_id != model_id:
            raise self._damaged(_model(model_id), f"it tells of {found.model_id}")
        return found

    def _promotion(self, alias: str, number: int) -> Promotion:
        key = _promotion(alias, number)
        found = self._record(key, Promotion)
        if found is None or found.number != number or (found.back_to or 0) >= number:
            raise self._damaged(key, "it is not there" if found is None else "its numbers do not fit its place")
        return found

    def _record(self, key: str, kind: type[_Record]) -> _Record | None:
        data = self._storage.read(key, _MAX_RECORD_BYTES)
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self._damaged(key, f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}") from error

    def _damaged(self, key: str, found: str) -> RegistryError:
        return RegistryError(
            f"registry {self.where}: {key} was changed or damaged: {found}; nothing of it was used. Restore it from a "
            f"backup of the storage, or name another model"
        )


def check(data: bytes, manifest: Manifest, where: str) -> None:
    """Hold a bundle's bytes to its manifest and to the contract.

    Raises:
        RegistryError: they are not what was pushed.
        BundleError: they break the contract as this release has it.
    """
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.sha256:
        raise RegistryError(
            f"{where}: the file of model {manifest.model_id} was changed or damaged: its SHA-256 is {digest}, pushed "
            f"was {manifest.sha256}; it was not used. `rillcast model rollback` goes back to another model"
        )
    identity = Bundle.from_bytes(data).metadata.model_id
    if identity != manifest.model_id:
        raise RegistryError(
            f"{where}: the manifest of model {manifest.model_id} names the file of {identity}; not used"
        )


def _require_alias(alias: str) -> None:
    if not _ALIAS.fullmatch(alias) or _MODEL_ID.fullmatch(alias):
        raise RegistryError(
            f"{alias!r} cannot be an alias; expected a lower-case letter, then up to 62 of a-z, 0-9, _ and -, and not "
            f"16 hex digits, which is a model id"
        )


def _blob(digest: str) -> str:
    return f"blobs/{digest}.onnx"


def _model(model_id: str) -> str:
    return f"models/{model_id}.json"


def _promotion(alias: str, number: int) -> str:
    return f"aliases/{alias}/{number:0{_DIGITS}d}.json"
