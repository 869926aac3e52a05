"""A plain loop: librdkafka, orjson, a dictionary of states; nothing survives a crash."""

from __future__ import annotations

import orjson
from common import Step, Task, reply  # type: ignore[import-not-found]  # in this folder
from confluent_kafka import Consumer, Producer

task = Task()
step = Step(task.model)
connection = {"bootstrap.servers": task.bootstrap}
consumer = Consumer(connection | {"group.id": task.group, "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5})
producer = Producer(connection | {"enable.idempotence": True})
consumer.subscribe([task.input])
states: dict[str, bytes] = {}
taken = 0
while taken < task.events:
    for message in consumer.consume(500, 0.1):
        if message.error() is not None:
            continue
        task.start()
        event = orjson.loads(message.value() or b"{}")
        unique_id = event["unique_id"]
        values, states[unique_id] = step(states.get(unique_id), event["ds"], event["y"])
        while True:
            try:
                producer.produce(task.output, orjson.dumps(reply(unique_id, event["ds"], values)), message.key())
                break
            except BufferError:
                producer.poll(0.05)
        taken += 1
    producer.poll(0)
producer.flush()
consumer.close()  # commits what the client has stored
task.finish()
