"""The local store: a crash at any step leaves the old snapshot or the new one; one process at a time."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from rillcast.engine.pages import Page
from rillcast.errors import StateError, TransportError
from rillcast.stores import local
from rillcast.stores.base import Mark, Restored
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.local import LocalStore
from tests.support.memory import Crash
from tests.support.stores import SPECS, assert_same_pages, make_page, restore, save, tombstone

MODEL: Final = "0123456789abcdef"
OLD: Final = {p: [make_page(p, number, offset=100) for number in range(3)] for p in range(2)}
NEW: Final = {p: [make_page(p, 1, offset=200), make_page(p, 3, offset=200), tombstone(p, 0, 200)] for p in range(2)}
AFTER: Final = {p: [NEW[p][0], OLD[p][2], NEW[p][1]] for p in range(2)}
STEPS: Final = [(os, "fsync"), (Path, "open"), (Path, "replace"), (Path, "unlink"), (Path, "mkdir")]


def open_store(path: Path) -> LocalStore:
    return LocalStore(path, PageCodec(MODEL, SPECS))


def marks(offset: int) -> list[Mark]:
    return [Mark(partition, offset, offset, 4) for partition in range(2)]


def write_old(path: Path) -> None:
    with closing(open_store(path)) as store:
        save(store, [page for pages in OLD.values() for page in pages], marks(100))


def snapshot(store: LocalStore) -> None:
    for pages in NEW.values():
        store.stage(pages, [])
    store.stage([], marks(200))
    store.commit()


def crash_at(monkeypatch: pytest.MonkeyPatch, step: int, when: str) -> Callable[[], bool]:
    """Let the process die at the `step`th change of the disk; the result says whether there was one."""
    count = itertools.count()
    crashed = False

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            nonlocal crashed
            here = next(count) == step
            if here and when == "before":
                crashed = True
                raise Crash
            result = original(*arguments, **options)
            if here:
                crashed = True
                raise Crash
            return result

        return change

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, wrap(getattr(owner, name)))
    return lambda: crashed


def assert_old_or_new(found: Restored) -> str:
    """Return which of the two snapshots was restored; it has to be a whole one."""
    assert found.mark is not None
    expected = {100: OLD, 200: AFTER}[found.mark.offset]
    assert_same_pages(found.pages, expected[found.partition])
    return "old" if expected is OLD else "new"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_step_leaves_the_old_snapshot_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    outcomes = []
    for step in itertools.count():
        path = tmp_path / str(step)
        write_old(path)
        store = open_store(path)
        with monkeypatch.context() as patched:
            crashed = crash_at(patched, step, when)
            with suppress(Crash):
                snapshot(store)
            store.close()
        with closing(open_store(path)) as survivor:
            found = restore(survivor, 0, 1)
            outcomes.append((assert_old_or_new(found[0]), assert_old_or_new(found[1])))
            save(survivor, [make_page(0, 1, offset=300)], [Mark(0, 300, 0, 4)])
            again = restore(survivor, 0)[0].pages
            assert {page.number: page.offset for page in again}[1] == 300
            stored = {file.name for file in (path / MODEL / "0").iterdir()}
            assert len(stored) == len(again) + 1, f"files of the crash are left: {sorted(stored)}"
        if not crashed():
            break
    assert outcomes[0] == ("old", "old")
    assert ("new", "old") in outcomes
    assert outcomes[-1] == ("new", "new")
    assert outcomes == sorted(outcomes, key=lambda each: each.count("new")), "a later crash undid an earlier step"


def test_a_torn_write_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = local._write_durably
    for name in ("1.2", "manifest.new"):
        path = tmp_path / name
        write_old(path)
        store = open_store(path)

        def torn(file: Path, data: bytes, which: str = name) -> None:
            if file.name == which:
                file.write_bytes(data[: len(data) // 2])
                raise Crash
            write(file, data)

        with monkeypatch.context() as patched:
            patched.setattr(local, "_write_durably", torn)
            with pytest.raises(Crash):
                snapshot(store)
        store.close()
        with closing(open_store(path)) as survivor:
            for found in restore(survivor, 0, 1).values():
                assert assert_old_or_new(found) == "old"


def test_a_full_disk_is_an_error_of_the_transport_and_what_was_committed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_old(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with closing(open_store(tmp_path)) as store:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(TransportError, match="No space left on device"):
                snapshot(store)
        store.discard()
        for found in restore(store, 0, 1).values():
            assert assert_old_or_new(found) == "old"
        snapshot(store)
        for found in restore(store, 0, 1).values():
            assert assert_old_or_new(found) == "new"


def test_pages_that_were_replaced_take_no_room(tmp_path: Path) -> None:
    with closing(open_store(tmp_path)) as store:
        for offset in range(1, 6):
            save(store, [make_page(number=number, offset=offset) for number in range(3)])
    assert len(list((tmp_path / MODEL / "0").iterdir())) == 3 + 1


@pytest.mark.parametrize("damage", ["manifest", "missing page", "page of another number", "manifest of another model"])
def test_what_is_damaged_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    write_old(tmp_path)
    folder = tmp_path / MODEL / "0"
    spoilt = folder / "manifest" if "manifest" in damage else folder / "1.1"
    if damage == "manifest":
        spoilt.write_bytes(spoilt.read_bytes()[:-1])
    elif damage == "missing page":
        spoilt.unlink()
    elif damage == "page of another number":
        spoilt.write_bytes((folder / "2.1").read_bytes())
    else:
        with closing(LocalStore(tmp_path, PageCodec("other", SPECS))) as store:
            save(store, [make_page()])
        spoilt.write_bytes((tmp_path / "other" / "0" / "manifest").read_bytes())
    with closing(open_store(tmp_path)) as store, pytest.raises(StateError, match=str(spoilt)):
        restore(store, 0)
    with closing(open_store(tmp_path)) as store:
        assert assert_old_or_new(restore(store, 1)[1]) == "old"


def test_files_of_a_crash_are_removed_and_the_manifests_stay(tmp_path: Path) -> None:
    write_old(tmp_path)
    folder = tmp_path / MODEL / "0"
    for stray in ("1.2", "9.9", "manifest.new"):
        (folder / stray).write_bytes(b"half of someth")
    with closing(open_store(tmp_path)) as store:
        assert assert_old_or_new(restore(store, 0)[0]) == "old"
    assert sorted(file.name for file in folder.iterdir()) == ["0.1", "1.1", "2.1", "manifest"]


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    with pytest.raises(TransportError, match=rf"in use by process {os.getpid()},.*state\.path"):
        open_store(tmp_path)
    with closing(LocalStore(tmp_path, PageCodec("other", SPECS))):
        pass  # another model has a directory of its own
    first.close()
    open_store(tmp_path).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from rillcast.stores.local import LocalStore;"
        "from rillcast.stores.format.pages import PageCodec;"
        f"store = LocalStore(pathlib.Path({str(tmp_path)!r}), PageCodec({MODEL!r}, ()));"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(TransportError, match=f"process {process.pid}"):
            open_store(tmp_path)
        process.kill()
    open_store(tmp_path).close()


def test_a_closed_store_refuses_everything(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.close()
    pages: list[Page] = []
    for call in (store.commit, lambda: store.stage(pages, []), lambda: store.begin_restore(0)):
        with pytest.raises(TransportError, match="closed"):
            call()
