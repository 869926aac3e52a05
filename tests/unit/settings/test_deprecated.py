"""A renamed setting works under its old name in every source, with a warning; any other unknown name is an error."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest

from rillcast import cli, settings
from rillcast.cli import flags
from rillcast.errors import SettingsError
from rillcast.settings import Settings, setting_paths
from rillcast.settings.deprecated import RENAMED

OLD_FILE = """\
[input]
rewind_slots = 7
duplicates = "last_wins"
[worker]
step_beside_from = 7
[rollout]
events_per_turn = 7
[http]
latest_streams = 7
"""


def value(loaded: Settings, path: str) -> object:
    section, name = path.split(".")
    return getattr(getattr(loaded, section), name)


def with_flags(*given: str) -> Settings:
    parser = argparse.ArgumentParser()
    flags.add_settings(parser)
    return flags.load_settings(parser.parse_args(given))


def variable(path: str) -> str:
    return "RILLCAST_" + path.replace(".", "__").upper()


def assert_one_warning(caplog: pytest.LogCaptureFixture, old: str) -> None:
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert old in warning.getMessage()
    assert RENAMED[old] in warning.getMessage()


def test_new_names_are_settings_and_old_ones_are_none() -> None:
    assert set(RENAMED.values()) <= set(setting_paths(Settings))
    assert not set(RENAMED) & set(setting_paths(Settings))


def test_a_file_with_old_names_sets_the_new_ones(clean: Path, caplog: pytest.LogCaptureFixture) -> None:
    (clean / "rillcast.toml").write_text(OLD_FILE)
    loaded = settings.load()
    assert [value(loaded, new) for new in RENAMED.values()] == [7] * len(RENAMED)
    assert loaded.input.duplicates == "last_wins"
    assert len(caplog.records) == len(RENAMED)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_in_the_environment_sets_the_new_one(
    old: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(variable(old), "7")
    assert value(settings.load(), RENAMED[old]) == 7
    assert value(Settings(), RENAMED[old]) == 7, "code that makes settings by itself reads the environment too"
    assert_one_warning(caplog, old)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_flag_sets_the_new_setting(old: str, caplog: pytest.LogCaptureFixture) -> None:
    assert value(with_flags(f"--{old.replace('_', '-')}", "7"), RENAMED[old]) == 7
    assert_one_warning(caplog, old)


@pytest.mark.parametrize("separator", [".", "__"])
@pytest.mark.parametrize("old", RENAMED)
def test_a_secret_file_with_an_old_name_sets_the_new_setting(
    clean: Path, old: str, separator: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (clean / "secrets").mkdir()
    (clean / "secrets" / old.replace(".", separator)).write_text("7\n")
    monkeypatch.setenv("RILLCAST_SECRETS_DIR", str(clean / "secrets"))
    assert value(settings.load(), RENAMED[old]) == 7
    assert_one_warning(caplog, old)


@pytest.mark.parametrize("old", RENAMED)
def test_sources_keep_their_order_whichever_name_they_use(
    clean: Path, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, name = RENAMED[old].split(".")
    (clean / "rillcast.toml").write_text(f"[{section}]\n{name} = 1\n")
    monkeypatch.setenv(variable(old), "2")
    assert value(settings.load(), RENAMED[old]) == 2
    assert value(with_flags(f"--{RENAMED[old].replace('_', '-')}", "3"), RENAMED[old]) == 3


@pytest.mark.parametrize("old", RENAMED)
def test_both_names_in_one_source_are_an_error(clean: Path, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    section, name = old.split(".")
    new = RENAMED[old].split(".")[1]
    (clean / "rillcast.toml").write_text(f"[{section}]\n{name} = 1\n{new} = 1\n")
    with pytest.raises(SettingsError, match=rf"rillcast\.toml: {section}\.{new} is given twice.*{name}"):
        settings.load()
    (clean / "rillcast.toml").unlink()
    both = [f"--{path.replace('_', '-')}" for path in (old, RENAMED[old])]
    with pytest.raises(SettingsError, match=r"flags.*twice"):
        with_flags(both[0], "1", both[1], "1")
    monkeypatch.setenv(variable(old), "1")
    monkeypatch.setenv(variable(RENAMED[old]), "1")
    with pytest.raises(SettingsError, match=r"environment.*twice"):
        settings.load()


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_in_another_section_is_an_error(clean: Path, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = old.split(".")[1]
    (clean / "rillcast.toml").write_text(f"[log]\n{name} = 1\n")
    with pytest.raises(SettingsError, match=rf"log\.{name}"):
        settings.load()
    (clean / "rillcast.toml").unlink()
    monkeypatch.setenv(variable(f"log.{name}"), "1")
    with pytest.raises(SettingsError, match=name):
        settings.load()


def test_a_wrong_value_under_an_old_name_is_an_error_of_the_new_one(clean: Path) -> None:
    (clean / "rillcast.toml").write_text("[input]\nrewind_slots = -1\n")
    with pytest.raises(SettingsError, match=r"input\.allowed_lateness_periods"):
        settings.load()


def test_no_help_shows_an_old_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    printed = capsys.readouterr().out
    for old, new in RENAMED.items():
        assert f"--{old.replace('_', '-')} " not in printed
        assert f"--{new.replace('_', '-')} " in printed
