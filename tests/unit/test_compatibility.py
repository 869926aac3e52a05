"""What release 0.1.0 wrote works unchanged: bundle, registry, state folders, forecast records, settings.

The state topic is restored on a real broker (tests/integration/kafka/test_compatibility.py), the checkpoint of a
training in tests/integration/training/test_compatibility.py. tests/fixtures/v0.1.0/README.md says how the files were
made.
"""

from __future__ import annotations

import json
import logging
import shutil
import tomllib
from pathlib import Path
from typing import Any

import onnx
import pytest

from rillcast import cli
from rillcast.bundle.bundle import METADATA_KEY, Bundle
from rillcast.bundle.registry.model_registry import ModelRegistry
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.engine.late.retained import AllowedLateness
from rillcast.errors import BundleError, StateError
from rillcast.settings import Settings
from rillcast.settings.deprecated import RENAMED
from rillcast.stores.connect import open_store
from rillcast.transports.base import Channel
from tests.faults.measured import KEPT
from tests.faults.results import ResultsFile
from tests.support import releases, stored_forms
from tests.support.memory import Log
from tests.support.paths import ROOT
from tests.support.releases import V0_1_0
from tests.support.workers import build

OTHER_DEFAULTS = {
    "cuda_graphs": "auto",
    "output.decimals": "full",
}  # other names of what `false` (on the CPU) and none meant


def test_the_bundle_keeps_its_identity() -> None:
    metadata = Bundle.load(releases.model()).metadata
    (listed,) = json.loads((V0_1_0 / "registry.json").read_text())["models"]
    assert metadata.model_id == listed["model_id"]
    assert (metadata.freq, metadata.horizon, metadata.quantiles) == ("1h", 2, (0.1, 0.5, 0.9))


def test_the_registry_lists_what_it_listed_and_its_aliases_resolve(capsys: pytest.CaptureFixture[str]) -> None:
    expected = json.loads((V0_1_0 / "registry.json").read_text())
    assert cli.main(["model", "list", str(V0_1_0 / "registry"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in expected} == expected
    registry = ModelRegistry.at(str(V0_1_0 / "registry"))
    assert registry.target("live") == registry.target("next") == expected["models"][0]["model_id"]


def log_at_the_stop(folder: Path = V0_1_0) -> Log:
    """Return all events; those before the stop are committed, and unreadable: only stored state can stand for them."""
    log = Log({}, committed=releases.committed(folder))
    for event in releases.lines("events.jsonl.gz", folder):
        log.append(event["partition"], event["value"].encode() if event["after"] else b"", event["key"].encode())
    return log


@pytest.mark.parametrize(("name", "periods"), [("exact", 0), ("float16", 2)])
def test_a_state_folder_is_restored_and_goes_on_with_the_same_forecasts(
    name: str, periods: int, tmp_path: Path
) -> None:
    bundle, log = Bundle.load(releases.model()), log_at_the_stop()
    shutil.copytree(V0_1_0 / f"state-{name}", tmp_path / "state")
    settings = Settings.model_validate(
        {
            "state": {"store": "local", "path": tmp_path / "state", "rows": name},
            "input": {"allowed_lateness_periods": periods},
        }
    )
    lateness = AllowedLateness(periods, bundle.metadata.frequency, last_wins=True) if periods else None
    harness = build(
        log,
        bundle=bundle,
        store=lambda sink: open_store(settings, bundle.metadata, sink),  # type: ignore[arg-type,return-value]  # the sink in memory is enough for it
        snapshots=settings.state,
        lateness=lateness,
    )
    harness.worker.run()
    seen = [decode_forecast(value, key) for key, value, _ in log.published[Channel.FORECASTS]]
    releases.assert_same_forecasts(seen, releases.forecasts(name))
    assert any(forecast.revision for forecast in seen) == bool(periods)


def test_settings_and_environment_mean_what_they_meant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for variable, value in json.loads((V0_1_0 / "environment.json").read_text()).items():
        monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.WARNING):
        assert cli.main(["config", "--config", str(V0_1_0 / "rillcast.toml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = flat(json.loads((V0_1_0 / "settings.json").read_text()))
    assert {path: flat(found)[RENAMED.get(path, path)] for path in expected} == expected | OTHER_DEFAULTS


def table_of_compatibility() -> dict[str, dict[str, str]]:
    """The rows of the page on upgrades, by who wrote; their cells by what is written."""
    section = (ROOT / "docs" / "how-to" / "upgrading.md").read_text().split("### What works together")[1]
    head, _, *rows = (line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|"))
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


def test_every_row_of_the_table_of_compatibility_is_held_by_something() -> None:
    release, *older, newer = table_of_compatibility()
    assert release.startswith("0.1.0 (9f9a08c)"), "tests/fixtures/v0.1.0, by the tests of this file"
    assert newer.startswith("a newer release"), "by the tests below"
    commits = [row.split()[0] for row in older]
    assert commits == list(stored_forms.READS)[::-1], "by tests/integration/service/test_older_releases.py"
    measured = {result.task.upgrade_from for result in ResultsFile(KEPT).read() if result.outcome == "clean"}
    for name, cells in list(table_of_compatibility().items())[1:-1]:
        rolled = cells["members in one group"]
        assert rolled.startswith(("yes", "not tried")), rolled
        assert rolled.startswith("yes") == (name.split()[0] in measured), "by a measurement of docs/chaos.md"


def refusal_of_a_newer(what: str) -> str:
    (row,) = (cells for name, cells in table_of_compatibility().items() if name.startswith("a newer release"))
    return row[what]


def test_a_bundle_of_a_newer_release_is_refused_as_the_table_says() -> None:
    model = onnx.load_model_from_string(releases.model().read_bytes())
    (entry,) = (each for each in model.metadata_props if each.key == METADATA_KEY)
    entry.value = json.dumps(json.loads(entry.value) | {"schema_version": 2})
    with pytest.raises(BundleError, match="schema version 2 is unknown") as refused:
        Bundle.from_bytes(model.SerializeToString())
    assert refusal_of_a_newer("bundle, registry") == f"refused (exit code {refused.value.exit_code})"


def test_state_of_a_newer_release_is_refused_as_the_table_says_and_left_alone(tmp_path: Path) -> None:
    bundle, state = Bundle.load(releases.model()), tmp_path / "state"
    shutil.copytree(V0_1_0 / "state-exact", state)
    page = state / bundle.metadata.model_id / "0" / "0.1"
    newer = bytearray(page.read_bytes())
    newer[8] = 2  # the version of its format
    page.write_bytes(newer)
    before = stored(state)
    settings = Settings.model_validate({"state": {"store": "local", "path": state}})
    harness = build(
        log_at_the_stop(),
        bundle=bundle,
        store=lambda sink: open_store(settings, bundle.metadata, sink),  # type: ignore[arg-type,return-value]  # the sink in memory is enough for it
        snapshots=settings.state,
    )
    with pytest.raises(StateError) as refused:
        harness.worker.run()
    assert stored(state) == before
    says = refusal_of_a_newer("stored state")
    assert says == f"refused, and nothing is changed (exit code {refused.value.exit_code})"


def stored(folder: Path) -> dict[Path, bytes]:
    """The files of a store but its lock, which names a process."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_setting_of_a_newer_release_is_refused_as_the_table_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rillcast.toml"
    file.write_text("[state]\nkept_in_the_cloud = true\n")
    code = cli.main(["config", "--config", str(file)])
    assert "state.kept_in_the_cloud" in capsys.readouterr().err
    assert refusal_of_a_newer("settings") == f"refused (exit code {code})"


@pytest.mark.parametrize("commit", sorted(path.stem for path in releases.SETTINGS.glob("*.toml")))
def test_settings_of_older_releases_mean_what_they_meant(commit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--config", str(releases.SETTINGS / f"{commit}.toml"), "--json"]) == 0
    found = flat(json.loads(capsys.readouterr().out))
    expected = flat(json.loads((releases.SETTINGS / f"{commit}.json").read_text()))
    assert {path: found[path] for path in expected} == expected | {"output.decimals": "full"}


def test_settings_of_older_releases_differ_from_the_defaults() -> None:
    """Where all values were defaults, the test above would show little."""
    files = [tomllib.loads(path.read_text()) for path in releases.SETTINGS.glob("*.toml")]
    defaults = flat(Settings().model_dump(mode="json"))
    assert len(files) == 2
    for file in files:
        same = {path for path, value in flat(file).items() if value == defaults[path]}
        assert not same


def flat(table: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested settings by their paths."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {path + name: value}
    return found


def test_the_fixture_names_every_setting_that_was_renamed() -> None:
    settings = flat(json.loads((V0_1_0 / "settings.json").read_text()))
    assert set(RENAMED) <= set(settings)
    written = (V0_1_0 / "rillcast.toml").read_text() + (V0_1_0 / "environment.json").read_text()
    for path in RENAMED:
        assert path.split(".")[1] in written
        assert path.replace(".", "__").upper() in written
