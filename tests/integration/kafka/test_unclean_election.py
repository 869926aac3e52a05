"""A leader that was not in step takes over: acknowledged events are gone. A member says so, and goes no further.

Kafka does this where `unclean.leader.election.enable` is on. State and offsets then know of events that the topic has
no longer, and other events will take their offsets.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kafka_cluster import KafkaCluster, replicated_cluster, unique
from tests.support.kafka_leaders import Leaders
from tests.support.service_process import service
from tests.support.toy import write_toy
from tests.support.workers import observation

_KEPT, _ALL = 50, 80


def feed(cluster: KafkaCluster, topic: str, begin: int, end: int) -> None:
    cluster.produce(topic, [observation(f"s{n % 7}", float(n), ds=3_600_000 * n) for n in range(begin, end)])


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_a_member_whose_events_a_broker_has_lost_says_so_and_pairs_its_state_with_no_others(tmp_path: Path) -> None:
    with replicated_cluster() as cluster, Leaders(cluster.bootstrap_servers) as leaders:
        assert cluster.replicas is not None
        topic = cluster.create_topic("observations", unclean_leader_election_enable="true", min_insync_replicas=1)
        leader, behind, _ = cluster.replicas.ids
        leaders.assign({(topic, 0): (leader, behind)})
        leaders.elect([(topic, 0)])
        group = unique("group")
        settings = {
            "model": write_toy(tmp_path / "toy.onnx"),
            "kafka.bootstrap_servers": cluster.bootstrap_servers,
            "kafka.group_id": group,
            "kafka.request_timeout_s": 10,
            "input.topic": topic,
            "output.topic": cluster.create_topic("forecasts"),
            "dead_letters.topic": cluster.create_topic("dead-letters"),
            "state.topic": cluster.create_topic("state", cleanup_policy="compact"),
        }
        with service(settings, tmp_path) as member:
            feed(cluster, topic, 0, _KEPT)
            member.wait_until(lambda: cluster.committed(group, topic) == {0: _KEPT}, "the first events are committed")
            cluster.replicas.kill(behind)
            feed(cluster, topic, _KEPT, _ALL)
            member.wait_until(lambda: cluster.committed(group, topic) == {0: _ALL}, "the others are")
            cluster.replicas.kill(leader)
            cluster.replicas.start(behind)
            code = member.wait()
        assert code == 6, member.log[-4000:]
        said = member.log.splitlines()[-1]
        assert f"the committed offset {_ALL} is outside what the topic retains, [0, {_KEPT}]" in said
        assert "unclean leader election" in said
