"""Bytewax: a stateful map by key with its Kafka connectors, state in memory, no recovery store."""

from __future__ import annotations

from typing import Any

import bytewax.operators as op  # type: ignore[import-not-found]  # of the script's own environment
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSource, KafkaSourceMessage  # type: ignore[import-not-found]
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.testing import cluster_main  # type: ignore[import-not-found]
from common import Step, Task, reply  # type: ignore[import-not-found]  # in this folder

task = Task()
step = Step(task.model)


def event_of(message: KafkaSourceMessage) -> tuple[str, dict[str, Any]]:
    """Decode one event."""
    task.start()
    event = orjson.loads(message.value)
    return event["unique_id"], event


def forecast(state: bytes | None, event: dict[str, Any]) -> tuple[bytes, bytes]:
    """Step one event."""
    values, after = step(state, event["ds"], event["y"])
    return after, orjson.dumps(reply(event["unique_id"], event["ds"], values))


flow = Dataflow("forecast")
# `tail=False`: the run ends with the backlog.
source = KafkaSource([task.bootstrap], [task.input], tail=False, add_config={"fetch.queue.backoff.ms": "5"})
messages = op.input("in", flow, source)
events = op.map("decode", messages, event_of)
stepped = op.stateful_map("step", events, forecast)
records = op.map("encode", stepped, lambda keyed: KafkaSinkMessage(keyed[0].encode(), keyed[1]))
kop.output("out", records, brokers=[task.bootstrap], topic=task.output)
cluster_main(flow, [], 0)
task.finish()
