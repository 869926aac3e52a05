"""The folders of tests/fixtures/state: a form of stored state each, as some release wrote it.

Owns: what the folders hold, and how a worker goes on from one. Does not know: which release wrote it.
"""

from __future__ import annotations

import gzip
import json
import shutil
from base64 import b64decode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rillcast.bundle.bundle import Bundle
from rillcast.codecs.forecasts.reader import Forecast, decode_forecast
from rillcast.codecs.observations.matching import Matching, Rule
from rillcast.engine.late.retained import AllowedLateness
from rillcast.settings import Settings
from rillcast.stores.connect import aggregation_of, open_store
from tests.support import releases, workers
from tests.support.memory import Log
from tests.support.workers import Harness

FORMS: Final[Mapping[str, Mapping[str, object]]] = json.loads((releases.STATE / "forms.json").read_text())
"""The settings of the input of each form."""
REFUSED: Final = "one-alarm-budget"
"""The folder of a bundle that is refused."""
# The last commits before a form changed, and the forms that might be others there.
READS: Final[Mapping[str, Sequence[str]]] = {
    "c37e805": ("network", "strides"),  # before a network's figures took their present form
    "6b2da92": ("network", "strides"),  # before networks on experts
    "8e2d9f1": tuple(FORMS),  # before silences of streams
    "33a94aa": ("raw", "late-raw"),  # before several models in one service
    "ea8025b": ("raw",),  # before late events of open periods
}
KNOW_NO_SILENCES: Final = ("8e2d9f1", "33a94aa", "ea8025b")
BEFORE_TABLES: Final = "33a94aa"
BEFORE_LATE_RAW: Final = "ea8025b"
ROUTES: Final = {"even": "*/[02468]", "odd": "*/[13579]"}


def bundles(form: str) -> dict[str, Bundle]:
    """Return the bundles of a form by the name of their table; one alone has none."""
    files = sorted((releases.STATE / form).glob("*.onnx.gz"))
    loaded = {path.name.split(".")[0]: Bundle.from_bytes(gzip.decompress(path.read_bytes())) for path in files}
    return {name if len(files) > 1 else "": bundle for name, bundle in loaded.items()}


def log_at_the_stop(form: str) -> Log:
    """Return all events; those before the stop are committed and unreadable: only stored state can stand for them."""
    log = Log({}, committed=releases.committed(releases.STATE / form))
    for event in releases.lines("events.jsonl.gz", releases.STATE / form):
        log.append(event["partition"], event["value"].encode() if event["after"] else b"", event["key"].encode())
    return log


def restored(form: str, log: Log, state: Path, **given: object) -> Harness:
    """Return a worker that goes on from a copy of the state of a form, with the settings that it was written with."""
    shutil.copytree(releases.STATE / form / "state", state)
    alarms = {"topic": "alarms"} if form == "silent" else {}
    settings = Settings.model_validate(
        {"state": {"store": "local", "path": state}, "input": {**FORMS[form], **given}, "alarms": alarms}
    )
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
    told = 2 if form == "silent" else 0  # periods
    return workers.build(log, tables=tables, matching=matching, snapshots=settings.state, told_overdue=told)


def forecasts_in(folder: Path) -> list[Forecast]:
    """Return the forecasts after the stop, of the code that wrote the folder."""
    rows = releases.lines("forecasts.jsonl.gz", folder)
    return [decode_forecast(b64decode(row["value"]), b64decode(row["key"])) for row in rows]


def alarms_in(folder: Path) -> list[bytes]:
    """Return the records of alarms after the stop, of the code that wrote the folder; none where it has no file."""
    if not (folder / "alarms.jsonl.gz").exists():
        return []
    return [b64decode(row["value"]) for row in releases.lines("alarms.jsonl.gz", folder)]
