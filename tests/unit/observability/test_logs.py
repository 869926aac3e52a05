"""The log: one line an entry, in text or JSON, and a fatal error in the same form."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from rillcast import cli
from rillcast.observability import logs


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_has_each_fact_as_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logging.getLogger("x").info("%d settings", 2, extra={"fields": {"settings": {"a": 'quo"ted'}}})
    entry = json.loads(capsys.readouterr().err)
    assert entry["message"] == "2 settings"
    assert entry["settings"] == {"a": 'quo"ted'}
    assert entry["level"] == "info"


def test_a_console_line_ends_with_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    logging.getLogger("x").info("settings", extra={"fields": {"a": 1}})
    logging.getLogger("x").info("no more")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith('x: settings {"a": 1}')
    assert second.endswith("x: no more")


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_fatal_error_has_the_form_of_the_log(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["run", "--model", "missing.onnx", "--log.format", form, "--input.path", "x.csv"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert code == 3
    if form == "json":
        entry = json.loads(last)
        assert (entry["level"], entry["error"], entry["exit_code"]) == ("critical", "BundleError", 3)
        assert "missing.onnx" in entry["message"]
    else:
        assert last.startswith("rillcast: error: bundle refused [readable]: missing.onnx")


def test_an_error_before_the_settings_are_known_has_the_form_that_the_environment_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RILLCAST_LOG__FORMAT", "json")
    logging.getLogger().handlers[:] = []
    assert cli.main(["run", "--worker.delivery", "twice"]) == 2
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"] == "SettingsError"
