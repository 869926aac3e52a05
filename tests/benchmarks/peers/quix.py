"""Quix Streams: a stateful callback per event, state in RocksDB with a changelog, as its documentation has it."""

from __future__ import annotations

import tempfile
from typing import Any

from common import Step, Task, reply  # type: ignore[import-not-found]  # in this folder
from quixstreams import Application, State  # type: ignore[import-not-found]  # of the script's own environment

task = Task()
step = Step(task.model)
app = Application(
    broker_address=task.bootstrap,
    consumer_group=task.group,
    auto_offset_reset="earliest",
    state_dir=tempfile.mkdtemp(),
    consumer_extra_config={"fetch.queue.backoff.ms": 5},
    loglevel="ERROR",
)


def forecast(event: dict[str, Any], state: State) -> Any:
    """Step one event."""
    task.start()
    values, after = step(state.get_bytes("row"), event["ds"], event["y"])
    state.set_bytes("row", after)
    return reply(event["unique_id"], event["ds"], values)


frame = app.dataframe(app.topic(task.input, value_deserializer="json"))
frame.apply(forecast, stateful=True).to_topic(app.topic(task.output, value_serializer="json"))
app.run(count=task.events)
task.finish()
