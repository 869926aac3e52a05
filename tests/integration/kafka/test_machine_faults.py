"""A machine that runs out of something, under a real process: the state stays whole, and a restart goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ci import cannot_run
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
from tests.support.toy import unroll, write_toy
from tests.support.workers import observation

EVENTS = 200


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


def test_a_full_disk_under_the_local_store_ends_the_service_and_a_restart_goes_on(
    kafka: KafkaCluster, tmp_path: Path
) -> None:
    topic, output = kafka.create_topic("observations"), kafka.create_topic("forecasts")
    group = unique("group")
    with small_disk(tmp_path / "disk", "4m") as disk:
        settings: dict[str, object] = {
            "model": write_toy(tmp_path / "model.onnx"),
            "kafka.bootstrap_servers": kafka.bootstrap_servers,
            "kafka.group_id": group,
            "kafka.group_instance_id": "member",
            "kafka.session_timeout_s": 6,
            "kafka.request_timeout_s": 5,
            "input.topic": topic,
            "output.topic": output,
            "dead_letters.topic": kafka.create_topic("dead-letters"),
            "worker.delivery": "exactly_once",
            "worker.commit_interval_s": 0.1,
            "state.store": "local",
            "state.path": disk / "state",
            "state.snapshot_interval_s": 0.1,
            "state.snapshot_max_interval_s": 0.1,
        }

        def put(first: int) -> None:
            numbers = range(first, first + EVENTS)
            kafka.produce(topic, [observation("s", n + 1, ds=n) for n in numbers], [b"s"] * EVENTS)

        def committed() -> int:
            return sum(kafka.committed(group, topic).values())

        put(0)
        with service(settings, tmp_path) as process:
            process.wait_until(lambda: committed() == EVENTS, "the first events")
            filler = fill(disk)
            put(EVENTS)
            assert process.wait() == 5, process.log[-4000:]
            last = process.log.splitlines()[-1]
            assert last.startswith(f"rillcast: error: state store {disk / 'state'}"), last
            assert "No space left on device" in last
        with service(settings, tmp_path) as process:  # still full
            assert process.wait() == 5, process.log[-4000:]
            assert "Traceback" not in process.log
        filler.unlink()
        with service(settings, tmp_path) as process:
            put(2 * EVENTS)
            process.wait_until(lambda: committed() == 3 * EVENTS, "every event")
            assert process.stop() == 0
    published = [json.loads(record.value or b"") for record in kafka.read_all(output)]
    forecasts = [(each["source"]["offset"], int(each["quantiles"]["0.5"][0])) for each in published]
    assert sorted(forecasts) == list(enumerate(unroll(range(1, 3 * EVENTS + 1)))), "none is lost, doubled or wrong"
