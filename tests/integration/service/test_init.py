"""Public data as it comes: what `init` writes is served unedited (NAB's raw metrics)."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from rillcast import cli
from rillcast.settings import load
from tests.support.paths import ROOT

DATA = ROOT.parent / "shared" / "data"
SERIES, ROWS = 3, 2_000


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("nab_aws_cloudwatch.csv.gz", ["universal:5min"]),
        ("nab_known_cause.csv.gz", ["universal:1h", "universal:5min"]),
    ],
)
def test_raw_metrics_are_forecast_from_what_init_writes(
    name: str, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not here")
    monkeypatch.chdir(tmp_path)
    counts = Counter[str]()
    with gzip.open(DATA / name, "rt") as source, Path("raw.csv").open("w") as target:
        target.write("metric,timestamp,reading\n")
        for line in list(source)[1:]:
            series = line.split(",")[0]
            counts[series] += 1
            if counts[series] <= ROWS and len(counts) <= SERIES:
                target.write(line)
    assert cli.main(["init", "--input.path", "raw.csv", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    settings = load()
    assert [table.model for table in settings.served] == models
    assert (settings.input.fields.unique_id, settings.input.fields.y) == ("metric", "reading")
    assert said["refused"] == {}
    assert cli.main(["run", "--http.enabled", "false"]) == 0
    forecasts = Path("forecasts.jsonl").read_text().splitlines()
    assert len(forecasts) > 0.95 * sum(min(count, ROWS) for count in list(counts.values())[:SERIES])
    assert not Path("dead-letters.jsonl").read_text()
