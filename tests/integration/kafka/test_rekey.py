"""`rillcast rekey` on a real broker: every record once, unchanged but for its key, through kills and a rebalance."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from rillcast.publishing.dead_letters import DeadLetter
from tests.support.kafka_cluster import KafkaCluster, Record, unique
from tests.support.service_process import ServiceProcess
from tests.support.transports import CLIENTS

RAW_PARTITIONS, STREAMS, RECORDS = 3, 20, 3_000
START_MS = 1_714_521_600_000
EVERY_BAD = 100
BAD = RECORDS // EVERY_BAD


def fill(kafka: KafkaCluster, topic: str, first: int, last: int) -> None:
    """Append records without keys, dealt to the partitions in turns; one of a hundred is bad."""
    for partition in range(RAW_PARTITIONS):
        numbers = [n for n in range(first, last) if n % RAW_PARTITIONS == partition]
        values: list[bytes | None] = [
            b"rubbish" if n % EVERY_BAD == 50 else json.dumps(record_of(n)).encode() for n in numbers
        ]
        times = [START_MS + n for n in numbers]
        kafka.produce(topic, values, partition=partition, headers=[("h", b"\xff"), ("null", None)], timestamps_ms=times)


def record_of(number: int) -> dict[str, Any]:
    return {"tags": {"host": f"h{number * 7 % STREAMS}"}, "ds": START_MS + number, "y": 1.5, "number": number}


def content(record: Record) -> tuple[object, ...]:
    return record.value, record.headers, record.timestamp_ms


@pytest.mark.parametrize("client", CLIENTS)
def test_each_record_is_copied_once_with_its_stream_as_key_through_kills(
    kafka: KafkaCluster, client: str, tmp_path: Path
) -> None:
    raw = kafka.create_topic("raw", RAW_PARTITIONS, retention_ms=-1)  # the timestamps are old
    keyed = kafka.create_topic("observations", 4, retention_ms=-1)
    dead = kafka.create_topic("dead-letters")
    group = unique("group")
    settings = {
        "from": raw,
        "to": keyed,
        "input.fields.unique_id": "tags.host",
        "dead_letters.topic": dead,
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": group,
        "kafka.session_timeout_s": 6,
        "kafka.transaction_timeout_s": 5,
        "worker.max_poll_records": 50,
        "worker.commit_interval_s": 0.05,
    }

    def process(*more: str) -> ServiceProcess:
        return ServiceProcess(settings, tmp_path, command=(sys.executable, "-m", "rillcast", "rekey", *more))

    def committed() -> int:
        return sum(kafka.committed(f"{group}-rekey", raw).values())

    fill(kafka, raw, 0, RECORDS // 3)
    alone = process()
    try:
        alone.wait_until(lambda: committed() > 0, "a first commit")
        fill(kafka, raw, RECORDS // 3, RECORDS * 2 // 3)
    finally:
        alone.kill()
    shared = process("--workers", "2")
    try:
        before = committed()
        shared.wait_until(lambda: committed() > before, "a commit of the next run")
        worker = int(re.findall(r"worker 0: process (\d+)", shared.log)[-1])
        os.kill(worker, signal.SIGKILL)
        fill(kafka, raw, RECORDS * 2 // 3, RECORDS)
        shared.wait_until(lambda: committed() == RECORDS, "everything committed")
        # What lies behind a transaction that a kill left open is not seen before that has timed out.
        shared.wait_until(lambda: len(kafka.read_all(keyed)) >= RECORDS - BAD, "the last open transaction")
        assert shared.stop() == 0
    finally:
        shared.kill()

    copies, originals = kafka.read_all(keyed), kafka.read_all(raw)
    bad = [record for record in originals if record.value == b"rubbish"]
    good = [record for record in originals if record.value != b"rubbish"]
    assert len(good) + len(bad) == RECORDS
    assert Counter(map(content, copies)) == Counter(map(content, good))
    partitions, order = defaultdict(set), defaultdict(list)
    for copy in copies:
        members = json.loads(copy.value or b"")
        assert copy.key == members["tags"]["host"].encode()
        partitions[copy.key].add(copy.partition)
        order[copy.key, members["number"] % RAW_PARTITIONS].append(members["number"])
    assert len(partitions) == STREAMS
    assert all(len(found) == 1 for found in partitions.values())
    assert all(numbers == sorted(numbers) for numbers in order.values())
    letters = [DeadLetter.read(record.key, record.value, record.headers) for record in kafka.read_all(dead)]
    assert {letter.reason for letter in letters} == {"not_json"}
    assert sorted((letter.partition, letter.offset) for letter in letters) == [record[:2] for record in bad]


def test_topics_have_to_differ(kafka: KafkaCluster, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "rillcast", "rekey", "--from", "a", "--to", "a")
    process = ServiceProcess({"kafka.bootstrap_servers": kafka.bootstrap_servers}, tmp_path, command=command)
    assert process.wait() == 2
    assert "three different topics" in process.log
