"""The whole process group of a service is stopped (SIGSTOP) past every time-out, and woken."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.support.kafka_cluster import KafkaCluster
from tests.support.long_tests import runs_with
from tests.support.one_stream import Stream
from tests.support.service_process import ServiceProcess
from tests.support.transports import CLIENTS

SESSION_S, TRANSACTION_S = 6, 10
STOPPED_S = 14.0  # past the time-outs of a session and of a transaction
LONG_STOPPED_S = 610.0  # past max.poll.interval.ms and the brokers' connections.max.idle.ms too
COMMAND = ("setsid", sys.executable, "-m", "rillcast", "run", "--workers", "2", "--http.enabled", "false")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_group_of_processes_that_stood_still_past_its_time_outs_goes_on(
    client: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    stand_still(STOPPED_S, client, kafka, tmp_path)


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_group_of_processes_that_stood_still_for_ten_minutes_goes_on(
    client: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    runs_with("test-signals")
    stand_still(LONG_STOPPED_S, client, kafka, tmp_path)


def stand_still(seconds: float, client: str, kafka: KafkaCluster, tmp_path: Path) -> None:
    """Stop a service for a while, wake it, and hold what came out against what is right."""
    stream = Stream(kafka, tmp_path)
    stream.settings |= {
        "kafka.client": client,
        "kafka.session_timeout_s": SESSION_S,
        "kafka.transaction_timeout_s": TRANSACTION_S,
    }
    process = ServiceProcess(stream.settings, tmp_path, command=COMMAND)
    try:
        stream.feed()
        stream.wait(process)
        for _ in range(5):
            stream.feed()  # some of it is in flight
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            stream.feed()
            time.sleep(seconds)  # the stop has to outlast the time-outs of session and transaction
        finally:
            os.killpg(process.pid, signal.SIGCONT)
        stream.wait(process)
        stream.feed()
        stream.wait(process)
        assert process.stop() == 0, process.log[-4000:]
    finally:
        process.kill()
    assert "Traceback" not in process.log, process.log[-4000:]
    stream.check()
