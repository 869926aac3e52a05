"""A registry in MLflow's model registry: one registered model, whose versions are the pushed bundles.

A version has the tag `rillcast.manifest` (and `model_id`, `freq`, `horizon` for people), and belongs to a run: the one
that trained it, if this server has it, else one that the push makes. Its bundle is an artefact of that run. MLflow's
aliases are the aliases. Their history, which MLflow lacks, is in tags of the registered model,
`rillcast.<alias>.<number>`.

Owns: this mapping. Does not know: HTTP (`rillcast.bundle.registry.mlflow_client`), which models may be promoted.
Invariants: MLflow's alias decides. One that was moved in MLflow itself is a promotion that follows the recorded ones,
and is recorded with the next. Versions without the tag are other people's, and are left alone.
MLflow has no conditional write. A promotion reads its record back, which shows most concurrent ones; of two that cross
within that time, the last one stands, and the history says so.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from rillcast.bundle.bundle import MAX_BUNDLE_BYTES
from rillcast.bundle.registry.mlflow_client import MlflowClient, Run
from rillcast.bundle.registry.records import Manifest, Promotion, damaged, is_alias, read_record
from rillcast.errors import RegistryError

_TAG: Final = "rillcast.manifest"
_MODEL_TAG: Final = "rillcast.model_id"
_FOLDER: Final = "bundle"
_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class _Registered:
    """The registered model as MLflow has it: the version of each alias, and tags."""

    aliases: dict[str, str]
    tags: dict[str, str]
    changed_ms: int

    def recorded(self, alias: str) -> dict[int, str]:
        """Return the recorded promotions of an alias by number, in order."""
        prefix = f"rillcast.{alias}."
        numbers = {key.removeprefix(prefix): text for key, text in self.tags.items() if key.startswith(prefix)}
        return {int(one): text for one, text in sorted(numbers.items()) if len(one) == _DIGITS and one.isdigit()}


class MlflowCatalogue:
    """See the module's docstring, and `rillcast.bundle.registry.catalogue.Catalogue`."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self.address = client.address

    def manifest(self, model_id: str) -> Manifest | None:
        """See `Catalogue.manifest`."""
        version = self._version(model_id)
        return None if version is None else self._described(version)

    def model_ids(self) -> list[str]:
        """See `Catalogue.model_ids`."""
        tags = (_pairs(each.get("tags", ())) for each in self._versions())
        return sorted({each[_MODEL_TAG] for each in tags if _MODEL_TAG in each})

    def data(self, manifest: Manifest) -> bytes:
        """See `Catalogue.data`."""
        version = self._version(manifest.model_id)
        if version is None:
            raise self._damaged(manifest.model_id, "its version was deleted")
        return self._client.download(f"{version['source']}/{manifest.sha256}.onnx", MAX_BUNDLE_BYTES)

    def add_model(self, manifest: Manifest, data: bytes, run: str | None) -> bool:
        """See `Catalogue.add_model`."""
        self._client.ensure("registered-models/create", {"name": self._client.name})
        trained_by = None if run is None else self._client.run(run)
        belongs = trained_by or self._client.create_run(manifest.name, {})
        source = f"{belongs.artifact_uri}/{_FOLDER}"
        self._client.upload(f"{source}/{manifest.sha256}.onnx", data)
        self._add_version(manifest, belongs, source)
        if trained_by is None:
            self._client.end_run(belongs.run_id, "FINISHED")
        return self.manifest(manifest.model_id) == manifest

    def aliases(self) -> list[str]:
        """See `Catalogue.aliases`."""
        found = self._registered()
        return [] if found is None else sorted(name for name in found.aliases if is_alias(name))

    def history(self, alias: str) -> list[Promotion]:
        """See `Catalogue.history`."""
        return self._moves(self._registered(), alias)

    def current(self, alias: str) -> Promotion | None:
        """See `Catalogue.current`."""
        moves = self.history(alias)
        return moves[-1] if moves else None

    def promotion(self, alias: str, number: int) -> Promotion:
        """See `Catalogue.promotion`."""
        for move in self.history(alias):
            if move.number == number:
                return move
        raise self._damaged(_key(alias, number), "it is missing")

    def add_promotion(self, alias: str, made: Promotion) -> bool:
        """See `Catalogue.add_promotion`."""
        registered = self._registered()
        moves = self._moves(registered, alias)
        if registered is None or (moves[-1].number if moves else 0) != made.number - 1:
            return False
        version = self._version(made.model_id)
        if version is None:
            raise self._damaged(made.model_id, "its version was deleted")
        self._correct(registered, alias, moves)
        name = self._client.name
        self._client.send("registered-models/alias", {"name": name, "alias": alias, "version": version["version"]})
        key, text = _key(alias, made.number), made.model_dump_json()
        self._client.send("registered-models/set-tag", {"name": name, "key": key, "value": text})
        written = self._registered()
        return written is not None and written.tags.get(key) == text

    def _correct(self, registered: _Registered, alias: str, moves: list[Promotion]) -> None:
        """Record a move that was made in MLflow, and remove records of an alias that was deleted there."""
        name, recorded = self._client.name, registered.recorded(alias)
        kept = {move.number: move for move in moves}
        for number in recorded.keys() - kept.keys():
            self._client.send("registered-models/delete-tag", {"name": name, "key": _key(alias, number)}, "DELETE")
        for number in kept.keys() - recorded.keys():
            text = kept[number].model_dump_json()
            self._client.send("registered-models/set-tag", {"name": name, "key": _key(alias, number), "value": text})

    def _moves(self, registered: _Registered | None, alias: str) -> list[Promotion]:
        if registered is None or alias not in registered.aliases:
            return []
        moves = []
        for number, text in registered.recorded(alias).items():
            try:
                move = read_record(Promotion, text)
            except ValueError as error:
                raise self._damaged(_key(alias, number), str(error)) from error
            if move.number != number or (move.back_to or 0) >= number:
                raise self._damaged(_key(alias, number), "its numbers do not fit its name")
            moves.append(move)
        model_id = self._model_of(alias, registered.aliases[alias])
        last = moves[-1] if moves else None
        if last is None or last.model_id != model_id:
            before = 0 if last is None else last.number
            at = dt.datetime.fromtimestamp(registered.changed_ms // 1000, dt.UTC)
            moved = Promotion(
                number=before + 1, action="promote", model_id=model_id, back_to=before or None, at=at, note="in MLflow"
            )
            moves.append(moved)
        return moves

    def _model_of(self, alias: str, version: str) -> str:
        found = self._client.get("model-versions/get", name=self._client.name, version=version)["model_version"]
        model_id = _pairs(found.get("tags", ())).get(_MODEL_TAG)
        if model_id is None:
            raise RegistryError(
                f"registry {self.address}: {alias} names version {version}, which is no bundle of Rillcast; move it to "
                f"a version that `rillcast model push {self.address} MODEL.onnx` makes"
            )
        return model_id

    def _registered(self) -> _Registered | None:
        found = self._client.found("registered-models/get", name=self._client.name)
        if found is None:
            return None
        model = found["registered_model"]
        aliases = {each["alias"]: str(each["version"]) for each in model.get("aliases", ())}
        return _Registered(aliases, _pairs(model.get("tags", ())), int(model["last_updated_timestamp"]))

    def _version(self, model_id: str) -> dict[str, Any] | None:
        """Return the oldest version of a model, which two pushes at once may both have made."""
        found = self._versions(f" and tags.`{_MODEL_TAG}` = '{model_id}'")
        return min(found, key=lambda each: int(each["version"]), default=None)

    def _versions(self, more: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        query = {"filter": f"name = '{self._client.name}'{more}"}
        while True:
            page = self._client.get("model-versions/search", **query)
            found += page.get("model_versions", ())
            if not page.get("next_page_token"):
                return found
            query["page_token"] = page["next_page_token"]

    def _described(self, version: dict[str, Any]) -> Manifest:
        tags = _pairs(version.get("tags", ()))
        key = f"version {version['version']}"
        try:
            manifest = read_record(Manifest, tags.get(_TAG, ""))
        except ValueError as error:
            raise self._damaged(key, f"its tag {_TAG}: {error}") from error
        if manifest.model_id != tags[_MODEL_TAG]:
            raise self._damaged(key, f"it describes {manifest.model_id}")
        return manifest

    def _add_version(self, manifest: Manifest, run: Run, source: str) -> None:
        tags = {
            _TAG: manifest.model_dump_json(),
            _MODEL_TAG: manifest.model_id,
            "freq": manifest.freq,
            "horizon": str(manifest.horizon),
            "cell": manifest.cell,
        }
        wanted = {
            "name": self._client.name,
            "source": source,
            "run_id": run.run_id,
            "description": f"{manifest.name}@{manifest.model_id}",
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        self._client.send("model-versions/create", wanted)

    def _damaged(self, key: str, found: str) -> RegistryError:
        return RegistryError(damaged(self.address, key, found))


def _key(alias: str, number: int) -> str:
    return f"rillcast.{alias}.{number:0{_DIGITS}d}"


def _pairs(tags: Any) -> dict[str, str]:
    return {each["key"]: each.get("value", "") for each in tags}
