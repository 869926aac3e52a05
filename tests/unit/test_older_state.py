"""State of each form since 0.1.0, as the code that introduced it wrote it, is restored with the same forecasts.

tests/fixtures/state/README.md says how the files were made.
"""

from __future__ import annotations

import gzip
import shutil
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.codecs.observations.matching import Matching, Rule
from rillcast.engine.late.retained import AllowedLateness
from rillcast.errors import BundleError
from rillcast.settings import Settings
from rillcast.stores.connect import aggregation_of, open_store
from rillcast.transports.base import Channel
from tests.support import releases, workers
from tests.support.memory import Log
from tests.support.workers import Harness

FORMS: Mapping[str, Mapping[str, object]] = {
    "raw": {"aggregate": "sum"},
    "late-raw": {"aggregate": "sum", "allowed_lateness_periods": 2},
    "tables": {},
    "alarms": {},
    "network": {},
}
REFUSED = "one-alarm-budget"
ROUTES = {"even": "*/[02468]", "odd": "*/[13579]"}


def bundles(form: str) -> dict[str, Bundle]:
    """The bundles of a form by the name of their table; one alone has none."""
    files = sorted((releases.STATE / form).glob("*.onnx.gz"))
    loaded = {path.name.split(".")[0]: Bundle.from_bytes(gzip.decompress(path.read_bytes())) for path in files}
    return {name if len(files) > 1 else "": bundle for name, bundle in loaded.items()}


def log_at_the_stop(form: str) -> Log:
    """All events; those before the stop are committed and unreadable: only stored state can stand for them."""
    log = Log({}, committed=releases.committed(releases.STATE / form))
    for event in releases.lines("events.jsonl.gz", releases.STATE / form):
        log.append(event["partition"], event["value"].encode() if event["after"] else b"", event["key"].encode())
    return log


def restored(form: str, log: Log, state: Path, **given: object) -> Harness:
    """A worker that goes on from a copy of the state of a form, with the settings that it was written with."""
    shutil.copytree(releases.STATE / form / "state", state)
    settings = Settings.model_validate({"state": {"store": "local", "path": state}, "input": {**FORMS[form], **given}})
    tables = {}
    for route, bundle in bundles(form).items():
        metadata, periods = bundle.metadata, settings.input.allowed_lateness_periods
        tables[route] = workers.Table(
            bundle,
            lambda sink, metadata=metadata, route=route: open_store(settings, metadata, sink, route),  # type: ignore[misc,arg-type]  # mypy infers no type of a lambda with defaults; the sink in memory is enough
            lateness=AllowedLateness(periods, metadata.frequency, last_wins=True) if periods else None,
            aggregation=aggregation_of(settings.input, metadata),
        )
    matching = Matching([Rule(pattern) for pattern in ROUTES.values()]) if form == "tables" else None
    return workers.build(log, tables=tables, matching=matching, snapshots=settings.state)


def expected(form: str) -> list[Any]:
    """The forecasts of the code that wrote the state, of the events after the stop."""
    rows = releases.lines("forecasts.jsonl.gz", releases.STATE / form)
    return [decode_forecast(b64decode(row["value"]), b64decode(row["key"])) for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_state_is_restored_and_goes_on_with_the_same_forecasts(form: str, tmp_path: Path) -> None:
    log = log_at_the_stop(form)
    restored(form, log, tmp_path / "state").worker.run()
    seen = [decode_forecast(value, key) for key, value, _ in log.published[Channel.FORECASTS]]
    releases.assert_same_forecasts(seen, expected(form))
    assert any(forecast.revision for forecast in seen) == (form == "late-raw"), "a late event corrects what was told"


@pytest.mark.parametrize("form", FORMS)
def test_the_forecasts_are_those_of_the_state(form: str, tmp_path: Path) -> None:
    """Without it they are others, so the test above shows that it was read."""
    log = log_at_the_stop(form)
    harness = restored(form, log, tmp_path / "state")
    shutil.rmtree(tmp_path / "state")
    log.committed = {}
    harness.worker.run()
    seen = [decode_forecast(value, key) for key, value, _ in log.published[Channel.FORECASTS]]
    with pytest.raises(AssertionError):
        releases.assert_same_forecasts(seen, expected(form))


def test_the_first_bundles_with_alarms_are_refused_with_what_to_do() -> None:
    """They had one budget for all streams; the commit after them gave each stream its own, and refused them."""
    with pytest.raises(BundleError, match=r"one number for all streams.*export it again \(`rillcast universal export`"):
        bundles(REFUSED)


def test_every_folder_is_tested() -> None:
    folders = {path.name for path in releases.STATE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {*FORMS, REFUSED}
    readme = (releases.STATE / "README.md").read_text()
    assert all(f"| `{form}` |" in readme for form in folders)
