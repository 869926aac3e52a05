"""What tests fetch is fetched once, whoever asks for it at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.fetched import fetched


def test_of_two_that_ask_at_once_one_fetches_and_the_other_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetches, begun, go_on = list[Path](), threading.Event(), threading.Event()

    def fetch(scratch: Path) -> Path:
        fetches.append(scratch)
        begun.set()
        assert go_on.wait(10)
        (scratch / "tool").mkdir()
        (scratch / "tool/program").write_text("works")
        return scratch / "tool"

    with ThreadPoolExecutor() as pool:
        first = pool.submit(fetched, "tool-1", fetch)
        assert begun.wait(10)
        second = pool.submit(fetched, "tool-1", fetch)
        go_on.set()
        folders = {first.result(10), second.result(10)}
    assert len(fetches) == 1
    assert [(folder / "program").read_text() for folder in folders] == ["works"]
    assert not fetches[0].exists(), "the scratch folder is removed"


def test_nothing_stays_of_what_could_not_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fails(scratch: Path) -> Path:
        (scratch / "half").write_text("of it")
        raise OSError("the line broke")

    with pytest.raises(OSError, match="the line broke"):
        fetched("tool-1", fails)
    assert [path.name for path in (tmp_path / "rillcast-test").iterdir()] == ["fetching.lock"]
