"""A registry of bundles: the pushed models, and the model that each alias names, now and before.

Owns: the checks at push and pull, and how an alias moves forward and back.
Does not know: where records and bundles are kept (`rillcast.bundle.registry.catalogue`), who serves a model, how
accurate it is (`rillcast evaluate`).
Invariants: an alias names the model of its newest promotion. `pull` returns bytes with the pushed digest and model id
and checks the contract again, even if others can write to the storage.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import logging
from dataclasses import dataclass
from typing import Final, Literal

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.compatibility import require_compatible
from rillcast.bundle.metadata import BundleMetadata
from rillcast.bundle.registry.catalogue import Catalogue, ObjectCatalogue
from rillcast.bundle.registry.mlflow_catalogue import MlflowCatalogue
from rillcast.bundle.registry.mlflow_client import MlflowClient, is_mlflow
from rillcast.bundle.registry.records import LIVE, Manifest, Promotion, is_alias, is_model_id
from rillcast.errors import BundleError, OtherRecordsError, RegistryError

log = logging.getLogger(__name__)

MLFLOW_RUN: Final = "mlflow_run"
"""Member of a bundle's training summary: the MLflow run that `rillcast train --track` made."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A bundle from the registry, checked."""

    manifest: Manifest
    data: bytes


class ModelRegistry:
    """The registry at an address. It caches nothing: every call reads the catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.address = catalogue.address

    @classmethod
    def at(cls, address: str) -> ModelRegistry:
        """Return the registry at a folder, a URL of an object store, or `mlflow://host:port/NAME`.

        The first push creates it.

        Raises:
            SettingsError: The address cannot be used.
        """
        if is_mlflow(address):
            return cls(MlflowCatalogue(MlflowClient(address)))
        return cls(ObjectCatalogue.at(address))

    def push(self, data: bytes, now: dt.datetime) -> tuple[Manifest, bool]:
        """Check a bundle and store it under its model id.

        Returns:
            Its manifest, and whether it is new. Bundles with equal ids compute the same, so a stored bundle stays even
            where other metadata differ.

        Raises:
            BundleError: The bundle breaks the contract; nothing was stored.
            RegistryError: The storage fails, or holds something else under that id.
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
        if (stored := self._manifest(metadata.model_id)) is not None:
            return stored, False
        run = metadata.training.get(MLFLOW_RUN)
        if self._catalogue.add_model(manifest, data, None if run is None else str(run)):
            return manifest, True
        return self.manifest(metadata.model_id), False  # another push was first

    def models(self) -> list[Manifest]:
        """Return the pushed models, oldest first."""
        found = [self.manifest(one) for one in self._catalogue.model_ids()]
        return sorted(found, key=lambda one: (one.pushed_at, one.model_id))

    def aliases(self) -> dict[str, list[Promotion]]:
        """Return the history of every alias, oldest first."""
        return {name: self.history(name) for name in self._catalogue.aliases()}

    def history(self, alias: str) -> list[Promotion]:
        """Return the promotions of an alias, oldest first; empty = it has never moved."""
        _require_alias(alias)
        return self._catalogue.history(alias)

    def target(self, alias: str) -> str | None:
        """Return the model id that an alias names now; None = it has never moved."""
        _require_alias(alias)
        found = self._catalogue.current(alias)
        return None if found is None else found.model_id

    def manifest(self, model_id: str) -> Manifest:
        """Return the manifest of a model.

        Raises:
            RegistryError: There is no such model, or the storage fails.
        """
        found = self._manifest(model_id)
        if found is None:
            known = self._catalogue.model_ids()
            raise RegistryError(
                f"registry {self.address} has no model {model_id!r}, it has {', '.join(known) or 'none'}; "
                f"add one with `rillcast model push {self.address} MODEL.onnx`"
            )
        return found

    def resolve(self, name: str) -> str:
        """Return the model id that an alias names now, or the id itself.

        Raises:
            RegistryError: There is no such alias or model.
        """
        if is_model_id(name):
            return self.manifest(name).model_id
        return self._current(name).model_id

    def promote(
        self, name: str, now: dt.datetime, *, alias: str = LIVE, note: str = "", other_records: bool = False
    ) -> Promotion:
        """Move an alias to a model, given by its id or by another alias.

        Args:
            name: A model id or an alias.
            now: Noted in the history.
            alias: The alias that moves.
            note: Noted in the history.
            other_records: Whether the model may publish records of another kind than the alias's model before. Services
                that follow the alias refuse such a model.

        Raises:
            OtherRecordsError: It publishes such records, and may not. The alias is unchanged.
            RegistryError: There is no such model, the alias already names it, another writer moved the alias at the
                same time, or the storage fails. The alias is unchanged.
        """
        _require_alias(alias)
        model_id = self.resolve(name)
        candidate = self._metadata(model_id)  # every alias names a model that can be served
        before = self._catalogue.current(alias)
        if before is not None and before.model_id == model_id:
            raise RegistryError(f"registry {self.address}: {alias} is already {model_id}; nothing was changed")
        if before is not None and not other_records:
            self._require_same_records(alias, before.model_id, candidate)
        back_to = before.number if before is not None else None
        return self._move(alias, "promote", model_id, back_to, (before.number if before else 0) + 1, now, note)

    def rollback(self, now: dt.datetime, *, alias: str = LIVE, note: str = "") -> Promotion:
        """Move an alias to its model before the last promotion that was not rolled back.

        Each further rollback goes back one more promotion, like undo; it never goes forward.

        Raises:
            RegistryError: There is no earlier promotion, or as in `promote`.
        """
        current = self._current(alias)
        if current.back_to is None:
            raise RegistryError(
                f"registry {self.address}: {alias} is {current.model_id}, and its history has nothing before it; "
                f"name another model with `rillcast model promote {self.address} MODEL_ID`"
            )
        target = self._catalogue.promotion(alias, current.back_to)
        self.pull(target.model_id)
        return self._move(alias, "rollback", target.model_id, target.back_to, current.number + 1, now, note)

    def pull(self, name: str) -> Pulled:
        """Return a model by id or alias, checked again.

        Raises:
            RegistryError: There is no such model, or it differs from what was pushed.
            BundleError: This release does not read the model.
        """
        manifest = self.manifest(self.resolve(name))
        data = self._catalogue.data(manifest)
        check(data, manifest, self.address)
        return Pulled(manifest, data)

    def _require_same_records(self, alias: str, before_id: str, candidate: BundleMetadata) -> None:
        try:
            before = self._metadata(before_id)
        except (RegistryError, BundleError) as error:
            if error.retriable:
                raise
            log.warning("%s; %s moves without a comparison with it", error, alias)
            return  # a model that nobody can serve any more must not keep its alias
        try:
            require_compatible(before, candidate)
        except OtherRecordsError as error:
            raise OtherRecordsError(
                f"registry {self.address}: {alias} stays {before_id}, {candidate.model_id} publishes other records: "
                f"{error}; services that follow {alias} would refuse it; to move it all the same, add --other-records"
            ) from error

    def _metadata(self, model_id: str) -> BundleMetadata:
        return Bundle.from_bytes(self.pull(model_id).data).metadata

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
        if not self._catalogue.add_promotion(alias, made):
            raise RegistryError(
                f"registry {self.address}: another writer moved {alias} at the same time; nothing was changed; "
                f"see its present model with `rillcast model list {self.address}`"
            )
        return made

    def _current(self, alias: str) -> Promotion:
        _require_alias(alias)
        found = self._catalogue.current(alias)
        if found is None:
            known = self._catalogue.aliases()
            raise RegistryError(
                f"registry {self.address} has no alias {alias!r}, it has {', '.join(known) or 'none'}; "
                f"set it with `rillcast model promote {self.address} MODEL_ID --alias {alias}`"
            )
        return found

    def _manifest(self, model_id: str) -> Manifest | None:
        if not is_model_id(model_id):
            raise RegistryError(
                f"{model_id!r} is not a model id; expected 16 hex digits, as `rillcast inspect` shows them"
            )
        return self._catalogue.manifest(model_id)


def check(data: bytes, manifest: Manifest, where: str) -> None:
    """Check a bundle's bytes against its manifest and the contract.

    Raises:
        RegistryError: The bytes are not those that were pushed.
        BundleError: The bytes break the contract of this release.
    """
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.sha256:
        raise RegistryError(
            f"{where}: the file of model {manifest.model_id} was changed or damaged: its SHA-256 is {digest}, expected "
            f"{manifest.sha256}; it was not used; go back to another model with `rillcast model rollback`"
        )
    identity = Bundle.from_bytes(data).metadata.model_id
    if identity != manifest.model_id:
        raise RegistryError(
            f"{where}: the manifest of model {manifest.model_id} names the file of {identity}; it was not used"
        )


def _require_alias(alias: str) -> None:
    if not is_alias(alias):
        raise RegistryError(
            f"{alias!r} cannot be an alias; expected a lower-case letter, then up to 62 of a-z, 0-9, _ and -, and not "
            f"16 hex digits, which is a model id"
        )
