from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli, settings
from pipeline.errors import SettingsError
from pipeline.settings import Settings, setting_paths


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment without our variables."""
    import os

    for name in list(os.environ):
        if name.startswith("RILLCAST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def effective(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert cli.main(["config", "--json", *flags]) == 0
    loaded: dict[str, Any] = json.loads(capsys.readouterr().out)
    return loaded


def test_flags_beat_environment_beats_file_beats_defaults(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert effective(capsys)["kafka"]["group_id"] == "rillcast"
    (clean / "rillcast.toml").write_text('[kafka]\ngroup_id = "file"\nbootstrap_servers = "file:1"\nclient = "auto"\n')
    assert effective(capsys)["kafka"]["group_id"] == "file"
    monkeypatch.setenv("RILLCAST_KAFKA__GROUP_ID", "environment")
    assert effective(capsys)["kafka"]["group_id"] == "environment"
    merged = effective(capsys, "--kafka.group-id", "flag")["kafka"]
    assert merged["group_id"] == "flag"
    assert merged["bootstrap_servers"] == "file:1", "a flag must not hide the rest of the section"


def test_a_named_file_replaces_the_default_one(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "rillcast.toml").write_text("threads = 2\n")
    (clean / "other.toml").write_text("threads = 3\n")
    assert effective(capsys, "--config", "other.toml")["threads"] == 3


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("thread = 2", "thread"),
        ('[kafka]\nbootstrap_server = "x"', "kafka.bootstrap_server"),
        ("[kafk]\n", "kafk"),
        ("threads = 0", "threads"),
        ('device = "tpu"', "device"),
        ("[worker]\ncommit_interval_s = -1", "worker.commit_interval_s"),
    ],
)
def test_unknown_key_or_wrong_value_in_the_file_is_an_error(clean: Path, text: str, key: str) -> None:
    (clean / "rillcast.toml").write_text(text)
    with pytest.raises(SettingsError, match=key):
        settings.load()


@pytest.mark.parametrize("name", ["RILLCAST_KAFKA__BOOTSTRAP_SERVER", "RILLCAST_THREAD", "RILLCAST_KAFKA_CLIENT"])
def test_unknown_variable_in_the_environment_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError):
        settings.load()


def test_text_that_is_no_toml_is_an_error(clean: Path) -> None:
    (clean / "rillcast.toml").write_text("this is not toml")
    with pytest.raises(SettingsError, match=r"rillcast\.toml"):
        settings.load()


def test_absent_named_file_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--config", "absent.toml"]) == 2
    assert "absent.toml" in capsys.readouterr().err


def test_unknown_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["config", "--kafka.grup-id", "x"])
    assert ended.value.code == 2


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RILLCAST_KAFKA__SASL_PASSWORD", "hunter2")
    loaded = settings.load()
    assert loaded.kafka.sasl_password is not None
    assert loaded.kafka.sasl_password.get_secret_value() == "hunter2"
    for flags in ([], ["--json"]):
        assert cli.main(["config", *flags]) == 0
    printed = capsys.readouterr().out + repr(loaded) + loaded.model_dump_json()
    assert "hunter2" not in printed
    assert "**********" in printed


def test_equal_topics_are_an_error(clean: Path) -> None:
    (clean / "rillcast.toml").write_text('[output]\ntopic = "observations"\n')
    with pytest.raises(SettingsError, match="must differ"):
        settings.load()


def test_printed_toml_reads_back_to_the_same_settings(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--worker.batch-rows", "64", "--log.format", "json"]) == 0
    (clean / "printed.toml").write_text(capsys.readouterr().out)
    assert settings.load(Path("printed.toml")).worker.batch_rows == 64


def test_every_setting_says_what_it_is() -> None:
    for path in setting_paths(Settings):
        model: type = Settings
        *sections, name = path.split(".")
        for section in sections:
            model = model.model_fields[section].annotation  # type: ignore[attr-defined]
        assert model.model_fields[name].description, path  # type: ignore[attr-defined]
