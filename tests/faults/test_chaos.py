"""The short form of the chaos suite (`make chaos` is the long one): processes that die on a real Apache Kafka."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.load import tables_load, toy_load
from tests.faults.plan import Fault, Plan
from tests.faults.report import Combination
from tests.faults.run import Run
from tests.support.kafka_cluster import KafkaCluster, replicated_cluster, restartable_cluster

SEED, KILLS, EVENTS = 7, 4, 60_000


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("combination", "plan"),
    [
        (
            Combination("librdkafka", "kafka", "exactly_once"),
            Plan(SEED, KILLS, EVENTS, members=(1,), others={Fault.BROKER_HARD: 1, Fault.STOP_ALL: 1}),
        ),
        (Combination("librdkafka", "local", "at_least_once"), Plan(SEED, KILLS, EVENTS, members=(1, 2))),
        (
            Combination("kafka-python", "kafka", "exactly_once"),
            Plan(SEED, KILLS, EVENTS, members=(1,), others={Fault.CLOCK: 2}),
        ),
    ],
    ids=lambda each: str(each) if isinstance(each, Combination) else "",
)
def test_nothing_is_lost_doubled_or_wrong_through_kills(
    combination: Combination, plan: Plan, kafka: KafkaCluster, tmp_path: Path
) -> None:
    if kafka.broker is None and Fault.BROKER_HARD in plan.others:
        pytest.skip("RILLCAST_TEST_BOOTSTRAP names the broker, which is not ours to kill")
    load, model = toy_load(plan.events, plan.seed, tmp_path)
    with ExitStack() as stack:
        cluster = kafka
        # The one that all tests share is its own controller; see tests.support.kafka_broker.
        if Fault.BROKER_HARD in plan.others:
            cluster = stack.enter_context(restartable_cluster())
        report = Run(cluster, combination, plan, load, model, tmp_path).run()
    assert report.verdict.clean, f"{report}\n{report.details()}"
    assert report.kills >= plan.kills
    assert report.verdict.events == plan.events
    assert {fault: report.faults[fault] for fault in plan.others} == plan.others


@pytest.mark.timeout(240)
def test_two_models_of_which_one_sums_raw_events_survive_kills(kafka: KafkaCluster, tmp_path: Path) -> None:
    plan = Plan(SEED, 2, EVENTS, members=(1,))
    load, model = tables_load(plan.events, plan.seed, tmp_path)
    report = Run(kafka, Combination("librdkafka", "kafka", "exactly_once"), plan, load, model, tmp_path).run()
    assert report.verdict.clean, f"{report}\n{report.details()}"
    assert report.kills >= plan.kills


@pytest.mark.timeout(300)
@pytest.mark.kafka
def test_nothing_is_lost_doubled_or_wrong_when_brokers_of_a_cluster_die_and_leaders_move(tmp_path: Path) -> None:
    kinds = (Fault.TWO_BROKERS, Fault.REASSIGNED, Fault.LEADER_IN_RESTORE)
    # With this seed two brokers are away for the shorter of the two times.
    plan = Plan(SEED + 1, 0, EVENTS // 2, members=(1,), others=dict.fromkeys(kinds, 1))
    load, model = toy_load(plan.events, plan.seed, tmp_path)
    with replicated_cluster() as cluster:
        combination = Combination("librdkafka", "kafka", "exactly_once", "three")
        report = Run(cluster, combination, plan, load, model, tmp_path).run()
    assert report.verdict.clean, f"{report}\n{report.details()}"
    assert report.verdict.events == plan.events
    assert report.longest_stall_s > 2.0, "while two brokers were away nothing may be acknowledged"
    assert report.faults == dict.fromkeys(kinds, 1)
