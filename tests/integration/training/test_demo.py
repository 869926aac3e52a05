"""The demo, shortened: real data in, trained, exported, served, scored; no page and no waiting."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from rillcast.bundle.bundle import Bundle
from rillcast.cli.commands import demo
from rillcast.errors import SettingsError

pytestmark = pytest.mark.usefixtures("brief_parity")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.configure(parser)
    return parser.parse_args(arguments)


def test_the_headless_demo_serves_every_unseen_event_and_reports_both_forecasts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = demo.run(parse("--headless", "--epochs", "1", "--workdir", str(tmp_path), "--json"))

    figures = json.loads(capsys.readouterr().out)
    assert code == 0
    assert figures["streams"] == 18
    assert figures["model"] == f"weather@{Bundle.load(tmp_path / 'model.onnx').metadata.model_id}"

    replayed = (tmp_path / "replay.csv").read_text().splitlines()[1:]
    with (tmp_path / "forecasts.jsonl").open("rb") as file:
        published = [msgspec.json.decode(line) for line in file]
    assert figures["events"] == len(published) == len(replayed)
    assert Counter(record["unique_id"] for record in published) == Counter(line.split(",")[0] for line in replayed)
    assert (tmp_path / "dead-letters.jsonl").stat().st_size == 0

    assert figures["origins"] > 1_000
    assert figures["accuracy"]["nominal_coverage"] == pytest.approx(0.8)
    assert 0 < figures["accuracy"]["mase"] < 1.2 * figures["seasonal_naive"]["mase"]
    assert figures["accuracy"]["targets"] == figures["seasonal_naive"]["targets"]


@pytest.mark.parametrize("arguments", [("--speed", "-1"), ("--port", "65536")])
def test_flags_that_make_no_sense_are_refused_before_anything_starts(arguments: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match=arguments[0]):
        demo.run(parse(*arguments))


def test_a_workdir_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(SettingsError, match="taken"):
        demo.run(parse("--workdir", str(tmp_path / "taken")))
