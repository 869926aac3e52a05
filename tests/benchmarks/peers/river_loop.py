"""river: a seasonal autoregression per stream that learns online, points only, in a plain loop with librdkafka.

Not the same model: river has no recurrent one. It is what its users would write for the same task, with its
`SNARIMAX` over the bundle's horizon and season; nothing survives a crash.
"""

from __future__ import annotations

import orjson
from common import Task, about  # type: ignore[import-not-found]  # in this folder
from confluent_kafka import Consumer, Producer
from river import (  # type: ignore[import-not-found]  # of the script's own environment
    linear_model,
    optim,
    preprocessing,
    time_series,
)

task = Task()
bundle = about(task.model)
horizon, season = bundle["horizon"], bundle["season"]


def new() -> time_series.SNARIMAX:
    """Return the model of a stream that has not been seen."""
    regressor = linear_model.LinearRegression(optim.SGD(0.001), intercept_lr=0.01)
    scaled = preprocessing.StandardScaler() | preprocessing.TargetStandardScaler(regressor)
    # A season of one slot is none.
    seasonal = {"m": season, "sp": 2, "sd": 1} if season > 1 else {}
    return time_series.SNARIMAX(p=3, d=0, q=0, **seasonal, regressor=scaled)


connection = {"bootstrap.servers": task.bootstrap}
consumer = Consumer(connection | {"group.id": task.group, "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 5})
producer = Producer(connection | {"enable.idempotence": True})
consumer.subscribe([task.input])
models: dict[str, time_series.SNARIMAX] = {}
taken = 0
while taken < task.events:
    for message in consumer.consume(50, 0.1):
        if message.error() is not None:
            continue
        task.start()
        event = orjson.loads(message.value() or b"{}")
        unique_id = event["unique_id"]
        model = models.get(unique_id)
        if model is None:
            model = models[unique_id] = new()
        if event["y"] is not None:
            model.learn_one(event["y"])
        points = [round(point, 4) for point in model.forecast(horizon)]
        record = {"unique_id": unique_id, "ds": event["ds"], "points": points}
        producer.produce(task.output, orjson.dumps(record), message.key())
        taken += 1
    producer.poll(0)
producer.flush()
consumer.close()  # commits what the client has stored
task.finish()
