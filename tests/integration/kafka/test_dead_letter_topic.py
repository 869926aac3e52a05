"""Dead letters of a topic are listed, and sent again to where they came from, through both clients."""

from __future__ import annotations

import json

import pytest

from rillcast import cli
from rillcast.cli.commands.dlq import REPLAYED
from rillcast.codecs.observations.rejections import Reason, Rejection
from rillcast.publishing.dead_letters import DeadLetters
from rillcast.transports.base import Channel
from tests.support.hostile import polled
from tests.support.kafka_cluster import KafkaCluster
from tests.support.transports import CLIENTS, kafka_sink


@pytest.mark.parametrize("client", CLIENTS)
def test_a_dead_letter_goes_back_to_the_partition_that_it_came_from(
    kafka: KafkaCluster, client: str, capsys: pytest.CaptureFixture[str]
) -> None:
    observations, dead = kafka.create_topic("observations", 3), kafka.create_topic("dead", 2)
    sink = kafka_sink(client, kafka.settings(), {Channel.DEAD_LETTERS: dead})
    null = [("note", None), ("empty", b"")]
    poll = polled(
        [b"{", b"\xff", b"[", None, None, b""],
        keys=[b"a", None, b"c", b"tombstone", None, b""],
        headers=[[("h", b"\x00")], [], [], null, null, null],
    )
    poll.partitions[:] = [2, 1, 0, 0, 1, 2]
    rejections = [Rejection(row, Reason.NOT_JSON, "x") for row in (0, 1, 3, 4, 5)] + [Rejection(2, Reason.LATE, "x")]
    DeadLetters(observations, 1000).publish(sink, poll, rejections, "toy@1")
    DeadLetters("raw", 1000).publish(sink, poll, rejections[:1], "none (rekey)")
    sink.flush(20)
    sink.close()
    flags = [
        f"--kafka.client={client}",
        f"--kafka.bootstrap-servers={kafka.bootstrap_servers}",
        f"--dead-letters.topic={dead}",
        f"--input.topic={observations}",
        "--json",
    ]

    assert cli.main(["dlq", "list", "--count", *flags]) == 0
    assert json.loads(capsys.readouterr().out) == {"not_json": 6, "late": 1}
    assert cli.main(["dlq", "replay", "--reason", "not_json", *flags]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["sent"] == 5
    assert done["left_out"] == {"of raw: name it with --input.topic, or another topic with --to": 1}

    back = {(record.partition, record.key, record.value): record.headers for record in kafka.read_all(observations)}
    assert {row: list(headers[:-1]) for row, headers in back.items()} == {
        (2, b"a", b"{"): [("h", b"\x00")],
        (1, None, b"\xff"): [],
        (0, b"tombstone", None): null,
        (1, None, None): null,
        (2, b"", b""): null,
    }
    assert {headers[-1][0] for headers in back.values()} == {REPLAYED}


def test_a_topic_without_dead_letters_lists_none(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    topic = kafka.create_topic("dead")
    flags = [f"--kafka.bootstrap-servers={kafka.bootstrap_servers}", f"--dead-letters.topic={topic}"]
    assert cli.main(["dlq", "list", *flags]) == 0
    assert capsys.readouterr().out == ""
