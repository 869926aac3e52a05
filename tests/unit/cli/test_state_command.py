"""`rillcast state` on directories; `tests/integration/kafka/test_state_topic.py` has it on a topic."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rillcast import cli
from rillcast.bundle.bundle import Bundle
from rillcast.cli.commands.state_rebuild import Loss
from rillcast.engine.pages import Page
from rillcast.stores.base import Mark
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.local import LocalStore
from tests.support.stores import SPECS, assert_same_pages, make_page, restore, save
from tests.support.toy import toy_bundle, write_toy

TOY: Bundle = toy_bundle()
CODEC = PageCodec(TOY.metadata.model_id, TOY.metadata.states)


def page(partition: int, number: int, offset: int = 100, unique_ids: tuple[str, ...] = ("a", "", "c")) -> Page:
    return make_page(partition, number, offset, unique_ids, specs=TOY.metadata.states)


def fill(path: Path, *pages: Page, codec: PageCodec = CODEC) -> None:
    with closing(LocalStore(path, codec)) as store:
        save(store, pages)


def stored(path: Path, partition: int) -> tuple[Mark | None, list[Page]]:
    with closing(LocalStore(path, CODEC)) as store:
        found = restore(store, partition)[partition]
        return found.mark, list(found.pages)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "toy.onnx")


@pytest.fixture
def command(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(action: str, *arguments: str) -> int:
        flags = ["--model", str(model), "--state.store", "local", "--state.path", str(tmp_path / "state")]
        return cli.main(["state", action, *arguments, *flags])

    return run


def test_inspect_says_what_is_stored_of_every_model(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "state", page(0, 0), page(0, 1, 90), page(2, 0, unique_ids=("x",)))
    fill(tmp_path / "state", make_page(), codec=PageCodec("other", SPECS))
    assert command("inspect", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["store"] == "local"
    assert found["models"] == sorted([TOY.metadata.model_id, "other"])
    rows = {(row["model"], row["partition"]): row for row in found["partitions"]}
    assert sorted(rows) == sorted([(TOY.metadata.model_id, 0), (TOY.metadata.model_id, 2), ("other", 0)])
    first = rows[TOY.metadata.model_id, 0]
    assert (first["offset"], first["watermark_ms"], first["pages"], first["streams"]) == (90, 1_700_000_000_000, 2, 4)
    files = [file for file in (tmp_path / "state" / TOY.metadata.model_id / "0").iterdir() if file.name != "manifest"]
    assert first["bytes"] == sum(file.stat().st_size for file in files)


def test_an_export_needs_no_stop_of_the_service(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it change anything: what the service has staged and not committed yet stays."""
    with closing(LocalStore(tmp_path / "state", CODEC)) as service:
        save(service, [page(0, 0), page(1, 0, unique_ids=("x",))])
        service.stage([page(0, 0, 200)], [Mark(0, 200, 0, 1)])
        assert command("export", str(tmp_path / "backup"), "--json") == 0
        exported = json.loads(capsys.readouterr().out)["partitions"]
        assert [(row["partition"], row["offset"]) for row in exported] == [(0, 100), (1, 100)]
        service.commit()
    assert_same_pages(stored(tmp_path / "backup", 0)[1], [page(0, 0)])
    assert_same_pages(stored(tmp_path / "state", 0)[1], [page(0, 0, 200)])


def test_inspect_prints_a_table(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "state", page(0, 0, offset=12_345))
    assert command("inspect") == 0
    title, header, row = capsys.readouterr().out.splitlines()
    assert title.startswith(f"directory {tmp_path / 'state'}: 2 streams, ")
    assert header.split() == ["partition", "model", "offset", "watermark", "pages", "streams", "bytes"]
    assert row.split()[:6] == ["0", TOY.metadata.model_id, "12,345", "2023-11-14T22:13:20+00:00", "1", "2"]


def test_inspect_works_while_another_process_uses_the_directory(command: Any, tmp_path: Path) -> None:
    fill(tmp_path / "state", page(0, 0))
    with closing(LocalStore(tmp_path / "state", CODEC)):
        assert command("inspect") == 0


def test_inspect_of_damaged_state_names_the_file_and_ends_with_6(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "state", page(0, 0))
    file = tmp_path / "state" / TOY.metadata.model_id / "0" / "0.1"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert command("inspect") == 6
    assert str(file) in capsys.readouterr().err


def test_a_missing_directory_ends_with_5(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("inspect") == 5
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("action", [["inspect"], ["export", "backup"]])
def test_where_no_state_is_kept_every_action_ends_with_2(
    model: Path, action: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", str(model), "--input.path", "x.csv", "--output.path", "y.jsonl"]
    assert cli.main(["state", *action, *flags]) == 2
    assert "state.store" in capsys.readouterr().err


def test_export_and_import_bring_back_the_same_state(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = {0: [page(0, 0), page(0, 1, 90)], 3: [page(3, 2)]}
    fill(tmp_path / "state", *pages[0], *pages[3])
    before = {partition: stored(tmp_path / "state", partition) for partition in pages}
    assert command("export", "backup", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"] == TOY.metadata.model_id
    assert said["partitions"] == [
        {"partition": 0, "offset": 90, "pages": 2, "streams": 4},
        {"partition": 3, "offset": 100, "pages": 1, "streams": 2},
    ]
    fill(tmp_path / "state", page(0, 1, 500), page(0, 7, 500))
    assert command("import", "backup", "--replace") == 0
    assert "imported 6 streams" in capsys.readouterr().out
    for partition, expected in pages.items():
        mark, found = stored(tmp_path / "state", partition)
        assert mark == before[partition][0]
        assert_same_pages(found, expected)


def test_an_import_over_state_asks_for_replace_and_writes_nothing(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "state", page(0, 0))
    assert command("export", "backup") == 0
    fill(tmp_path / "state", page(0, 0, 500))
    assert command("import", "backup") == 6
    said = capsys.readouterr().err
    assert "as of offset 500" in said
    assert "--replace" in said
    assert_same_pages(stored(tmp_path / "state", 0)[1], [page(0, 0, 500)])


def test_a_copy_of_another_model_ends_with_2(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "backup", make_page(), codec=PageCodec("other", SPECS))
    assert command("import", "backup") == 2
    assert f"no state of model {TOY.metadata.model_id}" in capsys.readouterr().err


def test_a_store_cannot_be_copied_onto_itself(command: Any, tmp_path: Path) -> None:
    fill(tmp_path / "state", page(0, 0))
    assert command("export", "state") == 2
    assert command("import", "state") == 2


def test_an_import_while_the_service_runs_is_refused(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "state", page(0, 0))
    assert command("export", "backup") == 0
    with closing(LocalStore(tmp_path / "state", CODEC)):
        assert command("import", "backup", "--replace") == 5
    assert "in use by process" in capsys.readouterr().err


def test_rebuild_erases_the_chosen_partition_and_says_what_that_means(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "state", page(0, 0), page(1, 0))
    flags = ("--input.path", "observations.csv", "--output.path", "forecasts.jsonl")
    assert command("rebuild", "--partition", "1", "--yes", *flags) == 0
    said = capsys.readouterr().out
    assert "partition 1: erases 2 streams as of 100;" in said
    assert "partition 0" not in said
    assert stored(tmp_path / "state", 1) == (None, [])
    assert stored(tmp_path / "state", 0)[0] is not None


def test_rebuild_asks_before_anything_is_lost(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "state", page(0, 0))
    flags = ("--input.path", "observations.csv", "--output.path", "forecasts.jsonl")
    assert command("rebuild", *flags) == 2
    assert "use --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _question: "n")
    assert command("rebuild", *flags) == 2
    assert stored(tmp_path / "state", 0)[0] is not None


def test_rebuild_of_a_partition_that_is_not_there_ends_with_2(command: Any, tmp_path: Path) -> None:
    fill(tmp_path / "state", page(0, 0))
    flags = ("--input.path", "observations.csv", "--output.path", "forecasts.jsonl")
    assert command("rebuild", "--partition", "7", "--yes", *flags) == 2


def test_rebuild_erases_damaged_state(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "state", page(0, 0))
    file = tmp_path / "state" / TOY.metadata.model_id / "0" / "0.1"
    file.write_bytes(b"rubbish")
    flags = ("--input.path", "observations.csv", "--output.path", "forecasts.jsonl")
    assert command("rebuild", "--yes", "--json", *flags) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["erased"] == [0]
    assert str(file) in said["partitions"][0]["damage"]
    assert stored(tmp_path / "state", 0) == (None, [])


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (Loss(0, None, 0, None, 5, 0), "nothing to erase"),
        (Loss(0, 90, 1_234, None, 100, 0), "erases 1,234 streams as of 90; 100 retained events are replayed"),
        (Loss(0, 90, 2, None, 100, 40), "EVENTS BEFORE 40 ARE LOST"),
        (Loss(0, 90, 2, None, None, 0), "forecast and published again"),
        (Loss(0, None, 0, "rubbish", 100, 0), "erases unreadable state (rubbish);"),
    ],
)
def test_rebuild_says_what_the_next_start_does(loss: Loss, words: str) -> None:
    assert words in loss.consequence()
