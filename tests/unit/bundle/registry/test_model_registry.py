"""The model registry: what was pushed stays, aliases move one object at a time, nothing unchecked comes out."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from rillcast import cli
from rillcast.bundle.registry import reference
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.bundle.registry.storage import ObjectStore
from rillcast.errors import RegistryError, RegistryUnreachableError, SettingsError
from rillcast.settings import load as load_settings
from tests.support.registries import NOW, command, pushed, toy


def test_a_damaged_model_does_not_keep_its_alias(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    registry = ModelRegistry.at(str(tmp_path))
    before, after = pushed(registry, 31, 37)
    registry.promote(before, NOW)
    blob = tmp_path / "blobs" / f"{registry.manifest(before).sha256}.onnx"
    blob.chmod(0o644)
    blob.write_bytes(b"")
    assert registry.promote(after, NOW).model_id == after
    assert "live moves without a comparison with it" in caplog.text


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


def test_settings_name_a_model_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RILLCAST_MODEL", "s3://bucket/models@live")
    assert load_settings().model == "s3://bucket/models@live"


# The command.


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
