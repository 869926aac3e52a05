"""The model registry: what was pushed stays, aliases move one object at a time, nothing unchecked comes out."""

from __future__ import annotations

import datetime as dt
import errno
import json
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from rillcast import cli
from rillcast.bundle.bundle import Bundle, seal
from rillcast.bundle.registry import reference
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.bundle.registry.storage import Folder, ObjectStore, open_storage
from rillcast.cli import flags
from rillcast.errors import BundleError, OtherRecordsError, RegistryError, RegistryUnreachableError, SettingsError
from rillcast.settings import Settings
from rillcast.settings import load as load_settings
from tests.support.toy import ToyGraph

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def toy(multiplier: int = 31, name: str = "toy") -> bytes:
    """Return a bundle whose graph, and so whose id, depends on `multiplier` and nothing else."""
    graph = ToyGraph()
    graph.initializers[0] = numpy_helper.from_array(np.array(multiplier, np.int64), "multiplier")
    return seal(graph.model(), graph.metadata().model_copy(update={"name": name}))


def of_another_kind() -> bytes:
    graph = ToyGraph(multiplier=37)
    return seal(graph.model(), graph.metadata().model_copy(update={"freq": "30min"}))


def pushed(registry: ModelRegistry, *multipliers: int) -> list[str]:
    """Push some models and return their ids."""
    return [registry.push(toy(multiplier), NOW)[0].model_id for multiplier in multipliers]


@pytest.fixture(params=["folder", "file", "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    match request.param:
        case "folder":
            yield str(tmp_path / "models")
        case "file":
            yield f"file://{tmp_path}/models"
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


def test_a_damaged_model_does_not_keep_its_alias(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = ModelRegistry.at(str(tmp_path))
    before, after = pushed(registry, 31, 37)
    registry.promote(before, NOW)
    blob = tmp_path / "blobs" / f"{registry.manifest(before).sha256}.onnx"
    blob.chmod(0o644)
    blob.write_bytes(b"")
    assert registry.promote(after, NOW).model_id == after
    assert "live moves without a comparison with it" in caplog.text


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
    looked = registry._numbers

    def and_then_the_rival(alias: str) -> list[int]:
        numbers = looked(alias)
        if rival.resolve("live") == a:
            rival.promote(b, NOW)
        return numbers

    monkeypatch.setattr(registry, "_numbers", and_then_the_rival)
    with pytest.raises(RegistryError, match="another writer moved live"):
        registry.promote(c, NOW)
    assert [move.model_id for move in rival.history("live")] == [a, b]


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


# Somebody else may write to the storage.


@pytest.mark.parametrize(
    ("kind", "change", "found"),
    [
        ("blobs", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "SHA-256"),
        ("blobs", lambda _: b"", "SHA-256"),
        ("blobs", lambda _: None, "is missing"),
        ("models", lambda data: data.replace(b'"model_id":"', b'"model_id":"0')[:-1], "damaged"),
        ("models", lambda data: data.replace(b'"sha256":"', b'"sha256":"../../etc/'), "sha256"),
        ("aliases/live", lambda data: data.replace(b'"number":1', b'"number":2'), "do not fit"),
        ("aliases/live", lambda _: b"{}", "damaged"),
    ],
)
def test_what_was_tampered_with_is_refused(tmp_path: Path, kind: str, change: Any, found: str) -> None:
    registry = ModelRegistry.at(str(tmp_path))
    (model_id,) = pushed(registry, 31)
    registry.promote(model_id, NOW)
    (path,) = (tmp_path / kind).iterdir()
    changed = change(path.read_bytes())
    path.unlink() if changed is None else path.write_bytes(changed)
    with pytest.raises(RegistryError, match=found):
        registry.pull("live")


def test_a_manifest_that_names_another_models_file_is_refused(tmp_path: Path) -> None:
    registry = ModelRegistry.at(str(tmp_path))
    a, b = (registry.push(toy(multiplier), NOW)[0] for multiplier in (31, 37))
    path = tmp_path / "models" / f"{a.model_id}.json"
    path.write_text(a.model_copy(update={"sha256": b.sha256}).model_dump_json())
    with pytest.raises(RegistryError, match="names the file of"):
        registry.pull(a.model_id)


def test_a_push_that_was_cut_off_is_not_listed_and_can_be_done_again(tmp_path: Path) -> None:
    registry = ModelRegistry.at(str(tmp_path))
    manifest, _ = registry.push(toy(name="cut off"), NOW)
    (tmp_path / "models" / f"{manifest.model_id}.json").unlink()
    assert registry.models() == []
    assert registry.push(toy(name="again"), NOW)[1]
    assert registry.pull(manifest.model_id).data == toy(name="again")


def test_a_file_system_without_hard_links_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(RegistryError, match="cannot make hard links"):
        ModelRegistry.at(str(tmp_path)).push(toy(), NOW)


def test_a_folder_that_cannot_be_read_is_unreachable_which_a_restart_may_mend(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(RegistryUnreachableError, match="Not a directory") as caught:
        ModelRegistry.at(str(tmp_path / "models")).push(toy(), NOW)
    assert caught.value.retriable
    assert caught.value.exit_code == 5


def test_an_address_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(SettingsError, match="nosuch"):
        ModelRegistry.at("nosuch://bucket/models")


# References.


@pytest.mark.parametrize(
    ("text", "registry", "name"),
    [
        ("s3://bucket/models@live", "s3://bucket/models", "live"),
        ("models@0123456789abcdef", "models", "0123456789abcdef"),
        ("abfs://models@account/x@live", "abfs://models@account/x", "live"),
    ],
)
def test_a_reference_is_an_address_and_a_name(text: str, registry: str, name: str) -> None:
    assert reference.parse(text) == (registry, name)


@pytest.mark.parametrize("text", ["model.onnx", "universal:1h", "folder@home/model.onnx", "me@home.onnx"])
def test_files_and_shipped_bundles_are_no_references(text: str) -> None:
    assert reference.parse(text) is None


def test_a_file_with_an_at_sign_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "models@live").write_bytes(toy())
    assert reference.parse(str(tmp_path / "models@live")) is None


def test_an_address_without_a_name_is_refused() -> None:
    with pytest.raises(SettingsError, match="s3://bucket/models@live"):
        reference.parse("s3://bucket/models")


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


def test_settings_name_a_model_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RILLCAST_MODEL", "s3://bucket/models@live")
    assert load_settings().model == "s3://bucket/models@live"


def test_a_service_is_given_the_pulled_file(where: str, tmp_path: Path) -> None:
    registry = ModelRegistry.at(where)
    (model_id,) = pushed(registry, 31)
    registry.promote(model_id, NOW)
    given = Settings(model=f"{where}@live", model_cache=tmp_path)
    local = flags.with_local_model(given)
    assert Bundle.load(local.model).metadata.model_id == model_id
    assert local.model_copy(update={"model": given.model}) == given


# The command.


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert cli.main(["model", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


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


def test_pushing_can_promote_and_does_nothing_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(toy())
    arguments = ["push", str(tmp_path / "models"), str(tmp_path / "model.onnx"), "--promote"]
    first, second = (command(capsys, *arguments) for _ in range(2))
    assert [(found["new"], found["promoted"]) for found in (first, second)] == [(True, True), (False, False)]
    (move,) = ModelRegistry.at(str(tmp_path / "models")).history("live")
    assert move.model_id == first["model_id"]


def test_a_first_model_does_not_replace_a_live_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry, file = str(tmp_path / "models"), tmp_path / "model.onnx"
    found = []
    for multiplier in (31, 37):
        file.write_bytes(toy(multiplier))
        found.append(command(capsys, "push", registry, str(file), "--promote", "--if-unset"))
    assert [each["promoted"] for each in found] == [True, False]
    assert ModelRegistry.at(registry).target("live") == found[0]["model_id"]
    assert cli.main(["model", "push", registry, str(file), "--promote", "--if-unset"]) == 0
    assert f"live is {found[0]['model_id']} already" in capsys.readouterr().out


def test_the_command_shows_which_model_each_alias_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = ModelRegistry.at(str(tmp_path))
    assert cli.main(["model", "list", str(tmp_path)]) == 0
    assert "rillcast model push" in capsys.readouterr().out
    a, b = pushed(registry, 31, 37)
    registry.promote(a, NOW)
    assert cli.main(["model", "list", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (of_a,), (of_b,) = ([line for line in lines if line.startswith(one)] for one in (a, b))
    assert of_a.endswith("live")
    assert "live" not in of_b


@pytest.mark.parametrize(
    ("arguments", "code", "found"),
    [
        (("promote", "0" * 16), 3, "has no model"),
        (("pull", "live", "--out", "x.onnx"), 3, "has no alias"),
        (("rollback",), 3, "has no alias"),
        (("push", "no-such-file.onnx"), 3, "no-such-file.onnx"),
        (("push", "universal:1h", "--if-unset"), 2, "--promote"),
    ],
)
def test_the_command_ends_with_the_code_of_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, found: str
) -> None:
    action, *rest = arguments
    assert cli.main(["model", action, str(tmp_path), *rest]) == code
    assert found in capsys.readouterr().err


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


def test_a_push_does_not_make_a_misspelt_bucket() -> None:
    memory = pytest.importorskip("fsspec.implementations.memory")
    base: Any = memory.MemoryFileSystem

    class Buckets(base):  # type: ignore[misc]  # fsspec is not typed
        """Makes a bucket for the first part of a path, as s3fs and gcsfs do."""

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: object) -> None:
            raise FileNotFoundError("The specified bucket does not exist")

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            raise AssertionError("a bucket was made")

    store = ObjectStore(Buckets(), "bukcet/models", "s3://bukcet/models")
    with pytest.raises(RegistryError, match="there is no bukcet") as caught:
        store.create("models/a.json", b"{}")
    assert not caught.value.retriable
