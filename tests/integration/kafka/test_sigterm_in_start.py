"""SIGTERM in each phase of a start, from the opening of the port to the end of the first commit.

Each phase is one start of the same group, which has state to restore and events to serve. Afterwards nothing is lost,
doubled or wrong. `test_sigterm_while_loading` has the phases before.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.support import signalled_at
from tests.support.kafka_cluster import KafkaCluster
from tests.support.long_tests import runs_with
from tests.support.one_stream import Stream
from tests.support.service_process import ServiceProcess
from tests.support.transports import CLIENTS

SOURCES: Final = {
    "librdkafka": "rillcast/transports/kafka/librdkafka/source.py:LibrdkafkaSource",
    "kafka-python": "rillcast/transports/kafka/kafka_python/source.py:KafkaPythonSource",
}
TRANSACTIONS: Final = {
    "librdkafka": "rillcast/transports/kafka/librdkafka/transactions.py:LibrdkafkaTransactions",
    "kafka-python": "rillcast/transports/kafka/kafka_python/transactions.py:KafkaPythonTransactions",
}
BRIEF: Final = ("positions", "read of the state")  # the first one leaves state


def phases(client: str, delivery: str) -> dict[str, str]:
    """Return the place of each phase in its order."""
    source, transactions = SOURCES[client], TRANSACTIONS[client]
    in_transactions = {
        "producer": f"{transactions}.initialize",
        "transaction": f"{transactions}.begin",
        "positions": f"{transactions}.send_offsets",
        "end of the transaction": f"{transactions}.commit",
    }
    return {
        "port": "rillcast/observability/server.py:HttpServer.start",
        "worker": "rillcast/service/build.py:_Assembly.worker",
        "connection": f"{source}.open",
        "first poll": f"{source}.poll",
        "assignment": "rillcast/service/worker.py:Worker.on_assigned",
        "request of the state": "rillcast/stores/kafka.py:KafkaStore.begin_restore",
        "read of the state": "rillcast/stores/kafka.py:KafkaStore._read",
        "state in place": "rillcast/durability/restorer.py:put_in_place",
        "first records": "rillcast/service/worker.py:Worker._process",
        "forecasts": "rillcast/service/worker.py:Worker._publish",
        "commit": "rillcast/durability/checkpoint.py:Checkpoint.commit",
        "pages": "rillcast/durability/delivery.py:_stage",
        **(in_transactions if delivery == "exactly_once" else {"positions": f"{source}.commit"}),
        "pages shown": "rillcast/durability/delivery.py:_show",
    }


def interrupted_starts(kafka: KafkaCluster, folder: Path, client: str, delivery: str, names: Iterable[str]) -> None:
    """Start a service and end it in each phase, and hold what came out against what is right."""
    stream = Stream(kafka, folder)
    stream.settings |= {"kafka.client": client, "worker.delivery": delivery}
    for name in names:
        place = phases(client, delivery)[name]
        stream.feed()
        process = ServiceProcess(stream.settings, folder, command=signalled_at.command(place, loaded=True))
        try:
            assert process.wait() == 0, f"{name}: {process.log[-4000:]}"
        finally:
            process.kill()
        assert signalled_at.said(place) in process.log, f"{name}: {process.log[-4000:]}"
        assert "Traceback" not in process.log, f"{name}: {process.log[-4000:]}"
    stream.finish()
    stream.check()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_sigterm_in_a_start_ends_it_and_nothing_is_lost_or_doubled(
    client: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    interrupted_starts(kafka, tmp_path, client, "exactly_once", BRIEF)


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_sigterm_in_every_phase_of_a_start_ends_it_and_nothing_is_lost_or_doubled(
    delivery: str, client: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    runs_with("test-signals")
    # The last one first: all others then have state to restore.
    interrupted_starts(kafka, tmp_path, client, delivery, reversed(phases(client, delivery)))
