"""The usual way of tutorials: keep the last events of a stream and step through all of them for each new one."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final

import orjson
from common import Step, Task, reply  # type: ignore[import-not-found]  # in this folder
from confluent_kafka import Consumer, Producer

WINDOW: Final = 96
task = Task()
step = Step(task.model)
connection = {"bootstrap.servers": task.bootstrap}
consumer = Consumer(connection | {"group.id": task.group, "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5})
producer = Producer(connection | {"enable.idempotence": True})
consumer.subscribe([task.input])
windows: defaultdict[str, deque[tuple[int, float]]] = defaultdict(lambda: deque(maxlen=WINDOW))
taken = 0
while taken < task.events:
    for message in consumer.consume(50, 0.1):
        if message.error() is not None:
            continue
        task.start()
        event = orjson.loads(message.value() or b"{}")
        window = windows[event["unique_id"]]
        window.append((event["ds"], event["y"]))
        state = None
        for ds, y in window:
            values, state = step(state, ds, y)
        record = orjson.dumps(reply(event["unique_id"], event["ds"], values))
        producer.produce(task.output, record, message.key())
        taken += 1
    producer.poll(0)
producer.flush()
consumer.close()  # commits what the client has stored
task.finish()
