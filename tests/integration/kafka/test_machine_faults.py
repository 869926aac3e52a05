"""A machine that runs out of something, under a real process: the state stays whole, and a restart goes on."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rillcast.bundle.registry.model_registry import ModelRegistry
from tests.support.ci import cannot_run
from tests.support.kafka_cluster import KafkaCluster
from tests.support.memory_group import memory_group
from tests.support.one_stream import Stream
from tests.support.service_process import ServiceProcess

_SPARE_BYTES = 1 << 20


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of this size, which only root may."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode != 0:
        cannot_run(f"mounting a small disk takes root: {done.stderr if done else 'this is none'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no byte of a disk, and return the file to remove."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    with pytest.raises(OSError, match="No space left") as full:
        (disk / "one-more").write_bytes(b"\0")
    assert full.value.errno == errno.ENOSPC
    (disk / "one-more").unlink()
    return filler


def last_line(process: ServiceProcess) -> str:
    """Return the end of the log of a process that has ended with a code after which a restart may help."""
    assert process.wait() == 5, process.log[-4000:]
    assert "Traceback" not in process.log
    return process.log.splitlines()[-1]


def test_a_full_disk_under_the_local_store_ends_the_service_and_a_restart_goes_on(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    stream = Stream(kafka, tmp_path)
    with small_disk(tmp_path / "disk", "4m") as disk:
        stream.settings |= {"state.store": "local", "state.path": disk / "state"}
        stream.feed()
        with stream.serve() as process:
            stream.wait(process)
            filler = fill(disk)
            stream.feed()
            last = last_line(process)
            assert last.startswith(f"rillcast: error: state store {disk / 'state'}"), last
            assert "No space left on device" in last
        with stream.serve() as process:  # still full
            last_line(process)
        filler.unlink()
        stream.finish()
    stream.check()


def test_a_full_disk_under_the_file_of_forecasts_ends_the_service_and_a_restart_goes_on(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    stream = Stream(kafka, tmp_path)
    with small_disk(tmp_path / "disk", "4m") as disk:
        del stream.settings["output.topic"], stream.settings["worker.delivery"]
        stream.settings |= {"output.path": disk / "forecasts.jsonl", "dead_letters.path": disk / "dead-letters.jsonl"}
        stream.feed()
        with stream.serve() as process:
            stream.wait(process)
            filler = fill(disk)
            for _ in range(10):  # more than the last block of the file takes
                stream.feed()
            last = last_line(process)
            assert last == f"rillcast: error: forecasts file {disk / 'forecasts.jsonl'}: No space left on device", last
        filler.unlink()
        stream.finish()
        lines = (disk / "forecasts.jsonl").read_bytes().splitlines()
    # What was written and not committed is written again: at least once.
    stream.check(dict.fromkeys(lines))


def test_a_full_disk_under_the_cache_of_models_ends_the_start_and_a_restart_goes_on(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    stream = Stream(kafka, tmp_path)
    registry = ModelRegistry.at(str(tmp_path / "registry"))
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    manifest, _ = registry.push(Path(str(stream.settings["model"])).read_bytes(), now)
    registry.promote(manifest.model_id, now)
    with small_disk(tmp_path / "disk", "4m") as disk:
        stream.settings |= {"model": f"{tmp_path / 'registry'}@live", "model_cache": disk / "models"}
        filler = fill(disk)
        stream.feed()
        with stream.serve() as process:
            last = last_line(process)
            assert last.startswith(f"rillcast: error: model_cache {disk / 'models'}"), last
            assert "No space left on device; free some room" in last
        filler.unlink()
        stream.finish()
        fill(disk)
        stream.finish()  # what is in the cache needs no room
    stream.check()


def test_a_service_without_free_descriptors_goes_on_and_answers_when_there_are_some(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """The limit is taken down to what is open, so that no connection can be accepted."""
    stream = Stream(kafka, tmp_path)
    stream.feed()
    with stream.serve() as process:
        stream.wait(process)
        assert process.get("/livez")[0] == 200
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        open_now = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_now, before[1]))
        waiting = [socket.create_connection(("127.0.0.1", process.port)) for _ in range(3)]
        stream.feed()
        stream.wait(process)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
        for each in waiting:
            each.close()
        process.wait_until(lambda: process.get("/livez")[0] == 200, "an answer")
        assert process.stop() == 0, process.log[-4000:]
    assert "Traceback" not in process.log, process.log[-4000:]
    stream.check()


def test_a_service_that_its_container_has_too_little_memory_for_is_killed_and_a_restart_goes_on(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    """The kernel kills it by SIGKILL; what was not committed is read again."""
    stream = Stream(kafka, tmp_path)
    stream.feed()
    with memory_group() as group:
        with stream.serve() as process:
            stream.wait(process)
            group.take(process.pid)
            stream.feed()
            stream.wait(process)
            group.limit(group.used_bytes() + _SPARE_BYTES)
            while process.exit_code is None:  # each request takes memory, and records in flight do
                stream.feed()
                with contextlib.suppress(OSError):  # it died over the answer
                    process.get("/metrics")
            assert process.exit_code == -signal.SIGKILL, process.log[-4000:]
        assert "Traceback" not in process.log
        stream.finish()
    stream.check()
