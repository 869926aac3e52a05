"""Every kind of model registry: what was pushed stays, aliases move alone, nothing unchecked comes out."""

from __future__ import annotations

import datetime as dt
import json
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.registry import reference
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.bundle.registry.records import Promotion
from rillcast.bundle.registry.storage import Folder, open_storage
from rillcast.cli import flags
from rillcast.errors import BundleError, OtherRecordsError, RegistryError
from rillcast.settings import Settings
from tests.support.registries import NOW, command, of_another_kind, pushed, toy

STORAGES = ("folder", "file", "memory")


@pytest.fixture(params=[*STORAGES, "mlflow"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    match request.param:
        case "folder":
            yield str(tmp_path / "models")
        case "file":
            yield f"file://{tmp_path}/models"
        case "mlflow":
            yield f"mlflow://{request.getfixturevalue('mlflow')}/models-{uuid.uuid4().hex[:8]}"
        case _:
            fsspec = pytest.importorskip("fsspec")
            root = f"/{uuid.uuid4().hex}"
            yield f"memory:/{root}/models"
            if (memory := fsspec.filesystem("memory")).exists(root):
                memory.rm(root, recursive=True)


@pytest.fixture
def registry(where: str) -> ModelRegistry:
    return ModelRegistry.at(where)


def test_what_was_pushed_comes_out_by_id_and_by_alias(registry: ModelRegistry) -> None:
    manifest, new = registry.push(toy(), NOW)
    assert new
    assert manifest.model_id == Bundle.from_bytes(toy()).metadata.model_id
    registry.promote(manifest.model_id, NOW)
    for name in (manifest.model_id, "live"):
        assert registry.pull(name).data == toy()
    assert registry.models() == [manifest]


def test_an_alias_keeps_to_models_whose_records_are_of_one_kind(registry: ModelRegistry) -> None:
    [before] = pushed(registry, 31)
    other = registry.push(of_another_kind(), NOW)[0].model_id
    registry.promote(before, NOW)
    with pytest.raises(OtherRecordsError) as caught:
        registry.promote(other, NOW)
    assert f"live stays {before}, {other} publishes other records: its freq is 30min, that of {before} 1h" in str(
        caught.value
    )
    assert registry.target("live") == before
    registry.promote(other, NOW, alias="weekly")  # an alias that nobody follows yet
    registry.promote(other, NOW, other_records=True)
    assert registry.rollback(NOW).model_id == before, "back to what members still serve"


def test_a_model_that_was_pushed_never_changes(registry: ModelRegistry) -> None:
    first, _ = registry.push(toy(name="first"), NOW)
    second, new = registry.push(toy(name="second"), NOW + dt.timedelta(days=1))
    assert not new
    assert second == first
    assert registry.pull(first.model_id).data == toy(name="first")


def test_what_is_no_bundle_is_not_stored(registry: ModelRegistry) -> None:
    with pytest.raises(BundleError):
        registry.push(b"not a model", NOW)
    assert registry.models() == []


def test_rolling_back_undoes_one_promotion_after_the_other_and_never_goes_forward(registry: ModelRegistry) -> None:
    a, b, c, d = pushed(registry, 31, 37, 41, 43)
    for model_id in (a, b, c):
        registry.promote(model_id, NOW)
    assert registry.rollback(NOW).model_id == b
    registry.promote(d, NOW)
    assert [registry.rollback(NOW).model_id for _ in range(2)] == [b, a]
    with pytest.raises(RegistryError, match="nothing before it"):
        registry.rollback(NOW)
    moves = [(move.number, move.action, move.model_id) for move in registry.history("live")]
    p, r = "promote", "rollback"
    assert moves == [(1, p, a), (2, p, b), (3, p, c), (4, r, b), (5, p, d), (6, r, b), (7, r, a)]


def test_aliases_move_apart_from_each_other(registry: ModelRegistry) -> None:
    a, b = pushed(registry, 31, 37)
    registry.promote(a, NOW)
    registry.promote(b, NOW, alias="canary", note="try it")
    assert (registry.resolve("live"), registry.resolve("canary")) == (a, b)
    registry.promote("canary", NOW)
    assert registry.resolve("live") == b
    assert {name: len(moves) for name, moves in registry.aliases().items()} == {"canary": 1, "live": 2}
    assert registry.history("canary")[0].note == "try it"


def test_of_two_who_promote_at_once_one_is_told(registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = pushed(registry, 31, 37, 41)
    registry.promote(a, NOW)
    rival = ModelRegistry.at(registry.address)
    looked = registry._catalogue.current

    def and_then_the_rival(alias: str) -> Promotion | None:
        found = looked(alias)
        if rival.resolve("live") == a:
            rival.promote(b, NOW)
        return found

    monkeypatch.setattr(registry._catalogue, "current", and_then_the_rival)
    with pytest.raises(RegistryError, match="another writer moved live"):
        registry.promote(c, NOW)
    assert [move.model_id for move in rival.history("live")] == [a, b]


@pytest.mark.parametrize("where", STORAGES, indirect=True)
def test_creating_is_exclusive_and_whole(where: str) -> None:
    storage = open_storage(where)
    start, created = threading.Barrier(8), []

    def create(number: int) -> None:
        start.wait()
        if storage.create("aliases/live/1", bytes([number]) * 100_000):
            created.append(number)

    if not isinstance(storage, Folder):  # fsspec's memory store has one thread in mind; a real store has a condition
        assert storage.create("aliases/live/1", b"first")
        assert not storage.create("aliases/live/1", b"second")
        assert storage.read("aliases/live/1", 10) == b"first"
        return
    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = created
    assert storage.read("aliases/live/1", 1_000_000) == bytes([winner]) * 100_000
    assert storage.names("aliases/live") == ["1"], "nothing half-written is left behind"


@pytest.mark.parametrize("alias", ["", "Live", "../x", "a b", "0123456789abcdef", ".hidden"])
def test_an_alias_that_could_be_mistaken_is_refused(registry: ModelRegistry, alias: str) -> None:
    (model_id,) = pushed(registry, 31)
    with pytest.raises(RegistryError, match="cannot be an alias"):
        registry.promote(model_id, NOW, alias=alias)


def test_errors_say_what_is_there_and_what_to_do(registry: ModelRegistry) -> None:
    with pytest.raises(RegistryError, match=r"no alias 'live', it has none; .*rillcast model promote"):
        registry.pull("live")
    with pytest.raises(RegistryError, match=r"no model '0{16}', it has none; .*rillcast model push"):
        registry.promote("0" * 16, NOW)
    (model_id,) = pushed(registry, 31)
    registry.promote(model_id, NOW)
    with pytest.raises(RegistryError, match=f"live is already {model_id}"):
        registry.promote(model_id, NOW)
    with pytest.raises(RegistryError, match="no alias 'canary', it has live"):
        registry.resolve("canary")


def test_a_reference_is_pulled_once_and_checked_each_time(where: str, tmp_path: Path) -> None:
    registry, cache = ModelRegistry.at(where), tmp_path / "cache"
    a, b = pushed(registry, 31, 37)
    registry.promote(a, NOW)
    found = Path(reference.locate(f"{where}@live", cache))
    assert found.read_bytes() == toy(31)
    before = found.stat().st_mtime_ns
    assert reference.locate(f"{where}@{a}", cache) == str(found)
    assert found.stat().st_mtime_ns == before, "what is in the cache is not pulled again"
    registry.promote(b, NOW)
    assert Path(reference.locate(f"{where}@live", cache)).read_bytes() == toy(37)
    found.write_bytes(bytes(found.stat().st_size))
    with pytest.raises(RegistryError, match="changed or damaged"):
        reference.locate(f"{where}@{a}", cache)


def test_a_service_is_given_the_pulled_file(where: str, tmp_path: Path) -> None:
    registry = ModelRegistry.at(where)
    (model_id,) = pushed(registry, 31)
    registry.promote(model_id, NOW)
    given = Settings(model=f"{where}@live", model_cache=tmp_path)
    local = flags.with_local_model(given)
    assert Bundle.load(local.model).metadata.model_id == model_id
    assert local.model_copy(update={"model": given.model}) == given


def test_the_command_pushes_promotes_rolls_back_lists_and_pulls(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = []
    for multiplier in (31, 37):
        (tmp_path / "model.onnx").write_bytes(toy(multiplier))
        found = command(capsys, "push", where, str(tmp_path / "model.onnx"))
        assert found["new"]
        ids.append(found["model_id"])
        assert command(capsys, "promote", where, ids[-1], "--note", "night")["number"] == len(ids)
    assert command(capsys, "rollback", where)["model_id"] == ids[0]
    listed = command(capsys, "list", where)
    assert {one["model_id"] for one in listed["models"]} == set(ids)
    assert listed["aliases"]["live"]["model_id"] == ids[0]
    assert [one["note"] for one in listed["aliases"]["live"]["history"]] == ["night", "night", ""]
    command(capsys, "pull", where, "live", "--out", str(tmp_path / "pulled.onnx"))
    assert (tmp_path / "pulled.onnx").read_bytes() == toy(31)


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """Undo what `rillcast run` does to a process that is its own."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_a_service_serves_what_the_alias_meant_when_it_started(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry.at(where)
    a, b = pushed(registry, 31, 37)
    (tmp_path / "in.jsonl").write_text('{"unique_id": "s", "ds": 1700000000000, "y": 5}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RILLCAST_MODEL", f"{where}@live")
    monkeypatch.setenv("RILLCAST_MODEL_CACHE", str(tmp_path / "cache"))
    for model_id in (a, b):
        registry.promote(model_id, NOW)
        flags = {"input.path": "in.jsonl", "output.path": f"{model_id}.jsonl", "http.enabled": "false"}
        more = {"dead-letters.path": f"{model_id}.dead", "state.store": "none"}
        assert (
            cli.main(["run", *(part for name, value in (flags | more).items() for part in (f"--{name}", value))]) == 0
        )
        (line,) = (tmp_path / f"{model_id}.jsonl").read_text().splitlines()
        assert json.loads(line)["model"] == f"toy@{model_id}"
