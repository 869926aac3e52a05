"""The topics, the group and the state that settings name: whether they exist, are large enough and may be used.

Owns: these comparisons and their words. A right is known from what the brokers say of it, or from a question that they
refuse; nothing is written. Does not know: records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Final

import numpy as np

from rillcast.bundle.bundle import BundleMetadata
from rillcast.codecs.connect import open_encoder
from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.discovery.choice import duration
from rillcast.discovery.findings import Finding
from rillcast.discovery.tables import ServedTable
from rillcast.errors import TransportError
from rillcast.settings import Settings
from rillcast.stores.connect import kind_of, page_bytes
from rillcast.transports.base import record_bytes
from rillcast.transports.connect import open_group
from rillcast.transports.kafka.common.record_size import LEAST_BYTES, SETTING
from rillcast.transports.kafka.common.topic_admin import TopicAdmin

_WIDE: Final = -1.2345678e-30  # as long as a number in a record may be


def check_topics(settings: Settings, tables: Sequence[ServedTable], admin: TopicAdmin) -> Iterator[Finding]:
    """Yield what was found of every topic that the settings name; the largest of the models decides.

    Raises:
        TransportError: No broker answers.
    """
    partitions = None
    if settings.input.path is None:
        partitions = admin.partitions(settings.input.topic)
        yield from _input(settings, tables, admin, partitions)
        yield from _group(settings, partitions or 0)
    if settings.output.path is None:
        outputs = {"output.topic": settings.output.topic, "dead_letters.topic": settings.dead_letters.topic}
        if settings.anomalies.topic is not None:
            outputs["anomalies.topic"] = settings.anomalies.topic
        for setting, topic in outputs.items():
            yield from _output(settings, tables, admin, setting, topic)
    if kind_of(settings) == "kafka" and partitions is not None:
        yield from _state(settings, tables, admin, partitions)


def _input(
    settings: Settings, tables: Sequence[ServedTable], admin: TopicAdmin, partitions: int | None
) -> Iterator[Finding]:
    topic = settings.input.topic
    if partitions is None:
        yield Finding("error", topic, "there is no such topic (input.topic), or this user may not describe it")
        return
    yield from _rights(admin, topic, ("READ",))
    config = _config(admin, topic)
    if config is None:
        yield Finding("warning", topic, "its configuration may not be described, so its retention is unknown")
        return
    longest = max(tables, key=lambda each: each.context_ms)
    kept_ms = int(config.get("retention.ms", "-1"))
    if "compact" in config.get("cleanup.policy", ""):
        yield Finding(
            "warning", topic, "it is compacted: only the newest event of a key is sure to be there for a replay"
        )
    if 0 <= kept_ms < longest.context_ms:
        yield Finding(
            "warning",
            topic,
            f"it retains events for {duration(kept_ms)} (retention.ms), and {longest.subject} looks back "
            f"{longest.metadata.context:,} periods of {longest.metadata.freq}, {duration(longest.context_ms)}: a new "
            f"model, and a service without stored state, start with too little. Raise it, or use `rillcast warm`",
        )
    else:
        yield Finding("good", topic, f"{partitions} partitions; it retains what {longest.subject} looks back")


def _group(settings: Settings, partitions: int) -> Iterator[Finding]:
    group = f"group {settings.kafka.group_id}"
    try:
        with closing(open_group(settings)) as view:
            members, positions = view.members(), view.assignments(range(partitions))
    except TransportError as error:
        yield Finding("error", group, f"{error}; grant READ and DESCRIBE on the group")
        return
    committed = sum(each.committed is not None for each in positions)
    text = "it has no position yet" if not committed else f"it has positions in {committed} partitions"
    yield Finding("good", group, f"{text} and {members} members")


def _output(
    settings: Settings, tables: Sequence[ServedTable], admin: TopicAdmin, setting: str, topic: str
) -> Iterator[Finding]:
    if admin.partitions(topic) is None:
        yield Finding(
            "error",
            topic,
            f"there is no such topic ({setting}): kafka-topics.sh --bootstrap-server "
            f"{settings.kafka.bootstrap_servers} --create --topic {topic} --partitions 1",
        )
        return
    yield from _rights(admin, topic, ("WRITE",))
    config = _config(admin, topic)
    if config is None:
        yield Finding(
            "warning",
            topic,
            "its configuration may not be described: a record that is larger than it takes would end the service; "
            "grant DESCRIBE_CONFIGS",
        )
        return
    limit = min(settings.kafka.max_message_bytes, int(config[SETTING]))
    needed, what = LEAST_BYTES, "a dead letter"
    if setting == "output.topic":
        needed, which = max((_forecast_bytes(each.settings, each.metadata), each.table.name) for each in tables)
        what = f"a forecast of models.{which}" if which else "a forecast"
    if limit < needed:
        yield Finding(
            "error",
            topic,
            f"it takes records of {limit:,} bytes ({SETTING}, kafka.max_message_bytes), and {what} may have "
            f"{needed:,}; raise both",
        )
    else:
        yield Finding("good", topic, f"it takes records of {limit:,} bytes, and {what} may have {needed:,}")


def _state(settings: Settings, tables: Sequence[ServedTable], admin: TopicAdmin, partitions: int) -> Iterator[Finding]:
    topic = settings.state_topic
    found = admin.partitions(topic)
    if found is None:
        yield Finding("good", topic, "it is created with the first start, which needs the right CREATE")
        return
    yield from _rights(admin, topic, ("READ", "WRITE"))
    if found > partitions:
        yield Finding(
            "error", topic, f"it has {found} partitions, and the input {partitions}; set state.topic to a new name"
        )
    elif found < partitions:
        yield Finding(
            "warning", topic, f"it has {found} partitions, and the input {partitions}: it is grown (right: ALTER)"
        )
    config = _config(admin, topic)
    if config is None:
        yield Finding("error", topic, "its configuration may not be described; grant DESCRIBE_CONFIGS")
        return
    if (policy := config.get("cleanup.policy")) != "compact":
        yield Finding("error", topic, f"it has cleanup.policy={policy}, expected compact")
    needed, which = max((page_bytes(each.settings, each.metadata), each.subject) for each in tables)
    if (limit := int(config[SETTING])) < needed:
        yield Finding(
            "error", topic, f"it has {SETTING}={limit}, expected at least {needed} for a page of state of {which}"
        )


def _rights(admin: TopicAdmin, topic: str, needed: tuple[str, ...]) -> Iterator[Finding]:
    allowed = admin.operations(topic)
    if allowed is None:
        return
    if missing := [right for right in needed if right not in allowed and "ALL" not in allowed]:
        yield Finding("error", topic, f"this user lacks the right {' and '.join(missing)}")


def _config(admin: TopicAdmin, topic: str) -> dict[str, str] | None:
    try:
        config = dict(admin.config(topic))
    except TransportError:
        return None
    return config if SETTING in config else None  # kafka-python returns nothing where the brokers refuse


def _forecast_bytes(settings: Settings, metadata: BundleMetadata) -> int:
    """Return the most bytes of a forecast's record; of Avro, whose schema is registered first, an estimate."""
    horizon, levels = metadata.horizon, len(metadata.quantiles)
    if settings.output.codec == "avro":
        return 1_000 + settings.input.max_id_bytes + 4 * horizon * levels
    unique_id = "x" * settings.input.max_id_bytes
    one = np.zeros(1, np.int64)
    columns = ForecastColumns(
        [unique_id], one, np.zeros(1, np.int8), np.full((1, horizon, levels), _WIDE, np.float32),
        np.full(1, 0.123456789, np.float32), one, one + 2**60,
    )  # fmt: skip
    keys, values = open_encoder(settings, metadata).encode(columns)
    return max(record_bytes(key, value) for key, value in zip(keys, values, strict=True))
