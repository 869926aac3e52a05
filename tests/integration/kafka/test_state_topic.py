"""The Kafka state store on a real broker: its topic, its transactions, and the end of a restore."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from confluent_kafka import Producer

from rillcast import cli
from rillcast.bundle.bundle import BundleMetadata, StateSpec
from rillcast.errors import SettingsError, StateError, TransportError
from rillcast.settings import Settings
from rillcast.stores.base import Claim, Mark, Restored, StateStore, Superseded
from rillcast.stores.connect import codec_of, open_store, prepare_store, reader_of
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.kafka import KafkaStore
from rillcast.stores.local import LocalStore
from rillcast.stores.state_topic import ensure_topic, grow
from rillcast.transports.base import Channel, Records, TransactionalSink
from rillcast.transports.connect import open_group, open_topic_admin, open_transactional_sink
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import service
from tests.support.stores import (
    SPECS,
    assert_same_pages,
    finish,
    make_page,
    marks_over,
    restore,
    save,
    tombstone,
    topic_reader,
)
from tests.support.toy import toy_bundle, unroll, write_toy
from tests.support.transports import CLIENTS, Listener, kafka_sink, kafka_source, poll_until
from tests.support.workers import observation

Client = Literal["librdkafka", "kafka-python"]
MODEL: Final = "0123456789abcdef"
OTHER_MODEL: Final = "fedcba9876543210"
CODEC: Final = PageCodec(MODEL, SPECS)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    chosen: Client = request.param
    return chosen


@pytest.fixture
def topic(kafka: KafkaCluster) -> str:
    return kafka.create_topic("state", 2, cleanup_policy="compact")


@contextmanager
def reading(kafka: KafkaCluster, client: Client, topic: str) -> Iterator[KafkaStore]:
    """Open a store that is only read."""
    settings = kafka.settings()
    with (
        closing(kafka_sink(client, settings, {Channel.STATE: topic})) as sink,
        closing(KafkaStore(topic, CODEC, sink, lambda: topic_reader(client, settings, topic))) as store,
    ):
        yield store


@contextmanager
def in_transactions(
    kafka: KafkaCluster, client: Client, topic: str, model_id: str = MODEL
) -> Iterator[tuple[StateStore, TransactionalSink]]:
    """Open a store whose pages are part of transactions."""
    settings = kafka.settings(client=client, transactional_id=unique("member"))
    with (
        closing(open_transactional_sink(settings, {Channel.STATE: topic}, topic)) as sink,
        closing(
            KafkaStore(topic, PageCodec(model_id, SPECS), sink, lambda: topic_reader(client, settings, topic))
        ) as store,
    ):
        yield store, sink


@contextmanager
def somebody_elses_transaction(kafka: KafkaCluster, topic: str) -> Iterator[Producer]:
    """Hold a transaction open, with a record in partition 0 that no restore may see or wait for too long."""
    config: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "transactional.id": unique("other"),
        "transaction.timeout.ms": 60_000,
    }
    producer = Producer(config)
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"rubbish", f"{MODEL}/page/0".encode(), partition=0)
    producer.flush(20)
    yield producer


def settings_for(kafka: KafkaCluster, client: Client, input_topic: str, **state: object) -> Settings:
    return Settings.model_validate(
        {
            "input": {"topic": input_topic},
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "client": client, "request_timeout_s": 10.0},
            "state": state,
        }
    )


# The end of a restore


def test_a_restore_waits_for_an_open_transaction_and_does_not_miss_what_was_committed_behind_it(
    kafka: KafkaCluster, client: Client, topic: str
) -> None:
    with somebody_elses_transaction(kafka, topic) as other:
        page = make_page(number=0)
        data = CODEC.encode(page)
        kafka.produce(topic, [data, CODEC.encode_mark(marks_over([page])[0])], keys_of(page), partition=0)
        with reading(kafka, client, topic) as store:
            store.begin_restore(0)
            store.begin_restore(1)
            assert sorted(finish(store, 1)) == [1], "the other partition does not wait"
            deadline = time.monotonic() + 1.0
            while time.monotonic() < deadline:
                assert not store.poll_restore(0.1), "complete below a committed snapshot"
            other.abort_transaction(20)
            found = finish(store, 0)[0]
    assert found.mark == marks_over([page])[0]
    assert_same_pages(found.pages, [page])


def keys_of(page: Any) -> list[bytes | None]:
    return [f"{MODEL}/page/{page.number}".encode(), f"{MODEL}/mark".encode()]


def test_a_restore_ends_although_the_last_offset_is_a_marker(kafka: KafkaCluster, client: Client, topic: str) -> None:
    page = make_page()
    with in_transactions(kafka, client, topic) as (store, sink):
        save(store, [page], commit=lambda: sink.commit({}, None))
        # A commit may return before its markers are written, but the next transaction cannot begin before they are.
        save(store, [make_page(partition=1)], commit=lambda: sink.commit({}, None))
        found = restore(store, 0)[0]
    assert_same_pages(found.pages, [page])


def test_pages_of_an_aborted_transaction_are_never_seen(kafka: KafkaCluster, client: Client, topic: str) -> None:
    page = make_page()
    with in_transactions(kafka, client, topic) as (store, sink):
        save(store, [page], commit=lambda: sink.commit({}, None))
        store.stage([make_page(offset=200), make_page(number=1, offset=200)], [Mark(0, 200, 0, 2)])
        assert_same_pages(restore(store, 1)[1].pages, [])
        sink.abort()
        store.discard()
        found = restore(store, 0)[0]
        assert found.mark == marks_over([page])[0]
        assert_same_pages(found.pages, [page])
        save(store, [tombstone(offset=300)], commit=lambda: sink.commit({}, None))
        assert_same_pages(restore(store, 0)[0].pages, [])


def test_the_end_of_a_models_state_comes_with_its_transaction_and_leaves_tombstones_alone(
    kafka: KafkaCluster, client: Client, topic: str
) -> None:
    own, others = [make_page(number=number) for number in range(2)], f"{OTHER_MODEL}/".encode()
    with in_transactions(kafka, client, topic, OTHER_MODEL) as (other, sink):
        save(other, [make_page(number=number) for number in range(3)], commit=lambda: sink.commit({}, None))
    with in_transactions(kafka, client, topic) as (store, sink):
        save(store, own, commit=lambda: sink.commit({}, None))
        pages = restore(store, 0)[0].others[OTHER_MODEL]
        for commits in (False, True):
            store.retire(0, OTHER_MODEL, Superseded(0, pages))
            store.claim({0: Claim(MODEL)})
            if commits:
                sink.commit({}, None)
                store.commit()
            else:
                sink.abort()
                store.discard()
            with in_transactions(kafka, client, topic, OTHER_MODEL) as (other, _):
                found = restore(other, 0)[0]
                assert (found.mark is None, found.claim) == (commits, Claim(MODEL) if commits else None)
                assert len(found.pages) == (0 if commits else 3)
        assert_same_pages(restore(store, 0)[0].pages, own)
    newest = {record.key: record.value for record in kafka.read_all(topic) if (record.key or b"").startswith(others)}
    assert set(newest) == {others + b"mark", *(others + f"page/{n}".encode() for n in range(3))}
    assert set(newest.values()) == {None}, "nothing that compaction would keep"


def test_a_partition_whose_records_were_all_deleted_restores_to_nothing(kafka: KafkaCluster, client: Client) -> None:
    topic = kafka.create_topic("state", 1, cleanup_policy="compact,delete")
    with reading(kafka, client, topic) as store:
        kafka.produce(topic, [b"x"] * 5, [f"{MODEL}/page/{i}".encode() for i in range(5)], partition=0)
        kafka.delete_records(topic, 0, 5)
        assert restore(store, 0)[0].mark is None


def test_what_is_written_after_a_restore_began_does_not_hold_it_up(
    kafka: KafkaCluster, client: Client, topic: str
) -> None:
    page = make_page()
    with reading(kafka, client, topic) as store:
        kafka.produce(topic, [CODEC.encode(page), CODEC.encode_mark(Mark(0, 1, 1, 1))], keys_of(page), partition=0)
        store.begin_restore(0)
        for offset in range(50):
            kafka.produce(topic, [CODEC.encode_mark(Mark(0, offset, 1, 1))], [f"{MODEL}/mark".encode()], partition=0)
        assert_same_pages(finish(store, 0)[0].pages, [page])


# Whose records count


def test_other_keys_are_skipped_and_an_unknown_one_of_the_model_is_refused(
    kafka: KafkaCluster, client: Client, topic: str
) -> None:
    page = make_page()
    keys: list[bytes | None] = [b"fedcba9876543210/page/0", b"something else", *keys_of(page)]
    kafka.produce(topic, [b"x", b"y", CODEC.encode(page), CODEC.encode_mark(Mark(0, 1, 1, 1))], keys, partition=0)
    with reading(kafka, client, topic) as store:
        assert_same_pages(restore(store, 0)[0].pages, [page])
        kafka.produce(topic, [b"x"], [f"{MODEL}/pages/0".encode()], partition=0)
        with pytest.raises(StateError, match=rf"{topic}\[0\]@4, key {MODEL}/pages/0.*neither a page nor a mark"):
            restore(store, 0)


def test_a_damaged_record_that_was_replaced_later_is_ignored(kafka: KafkaCluster, client: Client, topic: str) -> None:
    page = make_page()
    kafka.produce(topic, [b"rubbish"], keys_of(page)[:1], partition=0)
    kafka.produce(topic, [CODEC.encode(page), CODEC.encode_mark(Mark(0, 1, 1, 1))], keys_of(page), partition=0)
    with reading(kafka, client, topic) as store:
        assert_same_pages(restore(store, 0)[0].pages, [page])


def test_a_page_in_a_partition_that_is_not_its_own_is_refused(kafka: KafkaCluster, client: Client, topic: str) -> None:
    page = make_page(partition=0)
    kafka.produce(topic, [CODEC.encode(page)], keys_of(page)[:1], partition=1)
    with reading(kafka, client, topic) as store, pytest.raises(StateError, match="partition 0, expected 1"):
        restore(store, 1)


# The topic


def test_a_missing_topic_is_created_compacted_and_with_the_partitions_of_the_input(
    kafka: KafkaCluster, client: Client
) -> None:
    settings = settings_for(kafka, client, kafka.create_topic("observations", 3), topic=unique("state"))
    metadata = toy_bundle().metadata
    prepare_store(settings, metadata)
    prepare_store(settings, metadata)  # the second call leaves it unchanged
    with closing(open_topic_admin(settings.kafka)) as admin:
        assert admin.partitions(settings.state_topic) == 3
        config = admin.config(settings.state_topic)
    assert config["cleanup.policy"] == "compact"
    assert int(config["max.message.bytes"]) >= settings.kafka.max_message_bytes
    assert int(config["segment.bytes"]) <= 64 * 2**20
    with closing(kafka_sink(client, settings.kafka, {Channel.STATE: settings.state_topic})) as sink:
        store = open_store(settings, metadata, sink)
        assert isinstance(store, KafkaStore)
        with closing(store):
            assert restore(store, 2)[2].mark is None


def test_two_members_may_create_the_topic_at_once(kafka: KafkaCluster, client: Client) -> None:
    settings = settings_for(kafka, client, "unused", topic=unique("state"))
    with closing(open_topic_admin(settings.kafka)) as first, closing(open_topic_admin(settings.kafka)) as second:
        for admin in (first, second):
            admin.create(settings.state_topic, 2, {"cleanup.policy": "compact"})
        ensure_topic(second, settings.state_topic, 2, 1_000, 1_000)


@pytest.mark.parametrize(
    ("client", "delivery", "start_at"),
    [("librdkafka", "exactly_once", "earliest"), ("kafka-python", "at_least_once", "latest")],
)
def test_partitions_that_are_added_while_the_service_runs_are_read_and_their_state_is_kept(
    client: str, delivery: str, start_at: str, kafka: KafkaCluster, tmp_path: Path
) -> None:
    source, out = kafka.create_topic("observations"), kafka.create_topic("forecasts", 2)
    group = unique("group")
    settings = {
        "model": write_toy(tmp_path / "toy.onnx"),
        "input.topic": source,
        "output.topic": out,
        "dead_letters.topic": kafka.create_topic("dead"),
        "kafka.client": client,
        "kafka.bootstrap_servers": kafka.bootstrap_servers,
        "kafka.group_id": group,
        "kafka.auto_offset_reset": start_at,
        "worker.delivery": delivery,
        "state.snapshot_interval_s": 0.2,
        "state.snapshot_max_interval_s": 0.2,
    }
    streams: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    def send(*partitions: int) -> int:
        for number in partitions:
            values = range(len(streams["abc"[number]]) + 1, len(streams["abc"[number]]) + 11)
            streams["abc"[number]] += values
            kafka.produce(source, [observation("abc"[number], y) for y in values], partition=number)
        return sum(map(len, streams.values()))

    def forecasts() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        for record in kafka.read_all(out):
            members = json.loads(record.value or b"")
            found[members["unique_id"]].append(int(members["quantiles"]["0.5"][0]))
        return found

    def expected() -> dict[str, list[int]]:
        return {name: unroll(values) for name, values in streams.items()}

    with service(settings, tmp_path) as first:
        first.wait_until(lambda: first.get("/readyz")[0] == 200, "a member that is ready")
        count = send(0)
        first.wait_until(lambda: first.metric("rillcast_forecasts_total") == count, "the first partition")
        kafka.add_partitions(source, 3)
        count = send(0, 1, 2)
        first.wait_until(lambda: first.metric("rillcast_forecasts_total") == count, "the new partitions")
        assert first.stop() == 0
        assert f"the input has 3 partitions, and the state topic {group}-state had 1: it was grown" in first.log
        assert f"{source}[2]: the topic has grown." in first.log
    assert forecasts() == expected()
    with service(settings, tmp_path) as second:
        send(0, 1, 2)
        second.wait_until(lambda: forecasts() == expected(), "forecasts that go on from the stored states")
        assert second.stop() == 0
        for number in range(3):
            assert f"{source}[{number}]: state as of offset" in second.log


def test_a_sink_writes_to_a_partition_that_was_added_since_it_was_opened(kafka: KafkaCluster, client: Client) -> None:
    topic = kafka.create_topic("state")
    with closing(kafka_sink(client, kafka.settings(), {Channel.STATE: topic})) as sink:
        sink.publish(Channel.STATE, Records([b"k"], [b"before"]), partition=0)
        sink.flush(10.0)
        kafka.add_partitions(topic, 3)
        sink.publish(Channel.STATE, Records([b"k"], [b"after"]), partition=2)
        sink.flush(10.0)
    assert [(each.partition, each.value) for each in kafka.read_all(topic)] == [(0, b"before"), (2, b"after")]


def test_an_input_that_has_grown_while_the_service_was_away_lets_the_state_topic_grow(
    kafka: KafkaCluster, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    source = kafka.create_topic("observations")
    settings = settings_for(kafka, client, source, topic=unique("state"))
    prepare_store(settings, toy_bundle().metadata)
    kafka.add_partitions(source, 4)
    with closing(open_topic_admin(settings.kafka)) as first, closing(open_topic_admin(settings.kafka)) as second:
        prepare_store(settings, toy_bundle().metadata)
        assert first.partitions(settings.state_topic) == 4
        second.grow(settings.state_topic, 3)  # another member was quicker
        assert first.partitions(settings.state_topic) == 4
        with pytest.raises(SettingsError, match=r"--alter --topic nowhere --partitions 4`"):
            grow(first, "nowhere", 4, 1)
    assert (
        f"the state topic {settings.state_topic} had 1: it was grown to as many, and its state is kept" in caplog.text
    )


@pytest.mark.parametrize(
    ("partitions", "config", "says"),
    [
        (4, {"cleanup_policy": "compact"}, "has 4 partitions, expected 3 like the input"),
        (3, {}, "cleanup.policy=delete, expected compact"),
        (3, {"cleanup_policy": "compact,delete"}, "cleanup.policy=compact,delete, expected compact"),
        (3, {"cleanup_policy": "compact", "max_message_bytes": 5_000}, "max.message.bytes=5000, expected at least"),
    ],
)
def test_a_topic_that_would_lose_state_is_refused_by_name(
    kafka: KafkaCluster, client: Client, partitions: int, config: dict[str, object], says: str
) -> None:
    state = kafka.create_topic("state", partitions, **config)
    settings = settings_for(kafka, client, kafka.create_topic("observations", 3), topic=state)
    with pytest.raises(SettingsError, match=f"state topic {state} has .*") as refused:
        prepare_store(settings, toy_bundle().metadata)
    assert says in str(refused.value)


def test_a_missing_input_topic_is_an_error(kafka: KafkaCluster, client: Client) -> None:
    with pytest.raises(TransportError, match="topic nowhere does not exist"):
        prepare_store(settings_for(kafka, client, "nowhere", topic=unique("state")), toy_bundle().metadata)


def test_a_page_of_the_largest_size_goes_through(kafka: KafkaCluster, client: Client) -> None:
    specs = (StateSpec(name="noise", dtype="int8", row_shape=(3_300,)),)
    page = make_page(unique_ids=[f"{i:0500d}" for i in range(256)], specs=specs)
    metadata = toy_bundle().metadata.model_copy(update={"states": specs})
    settings = settings_for(kafka, client, kafka.create_topic("observations", 1), topic=unique("state"))
    prepare_store(settings, metadata)
    with closing(kafka_sink(client, settings.kafka, {Channel.STATE: settings.state_topic})) as sink:
        store = open_store(settings, metadata, sink)
        assert store is not None
        with closing(store):
            save(store, [page], commit=lambda: sink.flush(20))
            assert store.bytes_staged > 970_000
            assert_same_pages(restore(store, 0)[0].pages, [page])


# The command


def test_state_goes_from_a_topic_to_a_directory_and_into_another_topic(
    kafka: KafkaCluster, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(kafka, client, kafka.create_topic("observations", 2), topic=unique("state"))
    metadata = toy_bundle().metadata
    pages = [make_page(partition, number, specs=metadata.states) for partition in range(2) for number in range(3)]
    prepare_store(settings, metadata)
    with closing(kafka_sink(client, settings.kafka, {Channel.STATE: settings.state_topic})) as sink:
        store = open_store(settings, metadata, sink)
        assert store is not None
        with closing(store):
            save(store, pages, commit=lambda: sink.flush(20))
    flags = [
        *("--model", str(write_toy(tmp_path / "toy.onnx")), "--kafka.client", client, "--json"),
        *("--kafka.bootstrap-servers", kafka.bootstrap_servers, "--input.topic", settings.input.topic),
    ]
    said = {}
    copy, backup = unique("state"), str(tmp_path / "backup")
    for topic, action in [
        (settings.state_topic, ["inspect"]),
        (settings.state_topic, ["export", backup]),
        (copy, ["import", backup]),
        (copy, ["inspect"]),
    ]:
        assert cli.main(["state", *action, *flags, "--state.topic", topic]) == 0
        said[topic, action[0]] = json.loads(capsys.readouterr().out)
    rows = said[settings.state_topic, "inspect"]["partitions"]
    assert [(row["partition"], row["offset"], row["pages"], row["streams"]) for row in rows] == [
        (0, 100, 3, 9),
        (1, 100, 3, 9),
    ]
    assert said[copy, "inspect"]["partitions"] == rows
    with closing(KafkaStore(copy, codec_of(settings, metadata), None, reader_of(into(settings, copy)))) as store:
        for partition, found in restore(store, 0, 1).items():
            assert_same_pages(found.pages, [page for page in pages if page.partition == partition])


def test_an_import_replaces_a_whole_partition_and_only_with_replace(
    kafka: KafkaCluster, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(kafka, client, kafka.create_topic("observations", 1), topic=unique("state"))
    metadata, codec = toy_bundle().metadata, codec_of(settings, toy_bundle().metadata)
    copied = make_page(number=0, offset=50, specs=metadata.states)
    with closing(LocalStore(tmp_path / "backup", codec)) as backup:
        save(backup, [copied])
    prepare_store(settings, metadata)
    newer = [make_page(number=number, offset=200, specs=metadata.states) for number in range(2)]
    with (
        closing(kafka_sink(client, settings.kafka, {Channel.STATE: settings.state_topic})) as sink,
        closing(KafkaStore(settings.state_topic, codec, sink, reader_of(settings))) as store,
    ):
        save(store, newer, commit=lambda: sink.flush(20))
        flags = [
            *("--model", str(write_toy(tmp_path / "toy.onnx")), "--kafka.client", client),
            *("--kafka.bootstrap-servers", kafka.bootstrap_servers, "--input.topic", settings.input.topic),
            *("--state.topic", settings.state_topic),
        ]
        assert cli.main(["state", "import", str(tmp_path / "backup"), *flags]) == 6
        assert "as of offset 200" in capsys.readouterr().err
        assert_same_pages(restore(store, 0)[0].pages, newer)
        assert cli.main(["state", "import", str(tmp_path / "backup"), *flags, "--replace"]) == 0
        found = restore(store, 0)[0]
    assert found.mark is not None
    assert found.mark.offset == 50
    assert_same_pages(found.pages, [copied])


def test_a_rebuild_erases_in_a_stopped_group_what_the_next_start_then_replays(
    kafka: KafkaCluster, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observations = kafka.create_topic("observations", 2)
    settings, group = settings_for(kafka, client, observations, topic=unique("state")), kafka.settings(client=client)
    metadata, codec = toy_bundle().metadata, codec_of(settings, toy_bundle().metadata)
    pages = [make_page(partition, offset=6, specs=metadata.states) for partition in range(2)]
    for partition in range(2):
        kafka.produce(observations, [b"{}"] * 10, partition=partition)
    kafka.delete_records(observations, 1, 3)
    prepare_store(settings, metadata)
    command = [
        *("state", "rebuild", "--yes", "--json", "--model", str(write_toy(tmp_path / "toy.onnx"))),
        *("--kafka.client", client, "--kafka.bootstrap-servers", kafka.bootstrap_servers),
        *("--kafka.group-id", group.group_id, "--input.topic", observations),
        *("--state.topic", settings.state_topic),
    ]
    with (
        closing(kafka_sink(client, settings.kafka, {Channel.STATE: settings.state_topic})) as sink,
        closing(KafkaStore(settings.state_topic, codec, sink, reader_of(settings))) as store,
    ):
        with closing(open_group(settings.model_copy(update={"kafka": group}))) as view:
            assert view.members() == 0, "there is no such group yet"
            assert [each.committed for each in view.assignments([0, 1])] == [None, None]
        save(store, pages, commit=lambda: sink.flush(20))
        with closing(kafka_source(client, group, observations)) as member:
            listener = Listener(start=lambda assignment: assignment.end)
            member.open(listener)
            poll_until(member, lambda: len(listener.assigned) == 2, "both partitions")
            member.commit({0: 8, 1: 9})
            assert cli.main(command) == 5
            assert "has 1 members, expected none" in capsys.readouterr().err
            assert_same_pages(restore(store, 1)[1].pages, pages[1:])
        assert cli.main([*command, "--partition", "1"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["erased"] == [1]
        [loss] = said["partitions"]
        assert (loss["offset"], loss["streams"], loss["committed"], loss["beginning"]) == (6, 3, 9, 3)
        assert restore(store, 1)[1] == Restored(1, None, [])
        assert_same_pages(restore(store, 0)[0].pages, pages[:1])


def test_a_missing_state_topic_ends_with_5(kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--kafka.bootstrap-servers", kafka.bootstrap_servers, "--state.topic", "nowhere"]
    assert cli.main(["state", "inspect", *flags]) == 5
    assert "topic nowhere does not exist" in capsys.readouterr().err


def into(settings: Settings, topic: str) -> Settings:
    """Return the same settings with another state topic."""
    return settings.model_copy(update={"state": settings.state.model_copy(update={"topic": topic})})


# The choice, without a broker


def test_pages_that_no_record_could_hold_are_refused_before_anything_is_connected() -> None:
    metadata: BundleMetadata = toy_bundle().metadata.model_copy(
        update={"states": (StateSpec(name="lags", dtype="float32", row_shape=(300_000,)),)}
    )
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1"}})
    with pytest.raises(SettingsError, match=r"kafka\.max_message_bytes is 1000000; raise it to at least 12\d{5} "):
        prepare_store(settings, metadata)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, KafkaStore),
        ({"input": {"path": "x.csv"}}, None),
        ({"output": {"path": "x.jsonl"}}, None),
        ({"input": {"path": "x.csv"}, "output": {"path": "x.jsonl"}, "state": {"store": "local"}}, LocalStore),
        ({"state": {"store": "none"}}, None),
    ],
)
def test_auto_is_kafka_between_topics_and_nothing_else(
    values: dict[str, Any], kind: type[StateStore] | None, tmp_path: Any
) -> None:
    values["state"] = values.get("state", {}) | {"path": str(tmp_path)}
    settings = Settings.model_validate(values)
    store = open_store(settings, toy_bundle().metadata, sink=None)  # type: ignore[arg-type]  # nothing is written
    if kind is None:
        assert store is None
    else:
        assert store is not None
        assert type(store) is kind
        store.close()
