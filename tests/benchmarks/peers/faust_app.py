"""Faust: an agent per partition, state in a table (in memory, with a changelog topic), its defaults for the rest.

Keys and values travel as bytes and are decoded by orjson, as in the other scripts; Faust's own codecs would cost it
more.
"""

from __future__ import annotations

import signal
import sys
import tempfile

import faust  # type: ignore[import-not-found]  # of the script's own environment
import orjson
from common import Step, Task, reply  # type: ignore[import-not-found]  # in this folder
from mode import CrashingSupervisor  # type: ignore[import-not-found]

task = Task()
step = Step(task.model)
app = faust.App(
    task.group,
    broker=";".join(f"kafka://{address}" for address in task.bootstrap.split(",")),
    consumer_auto_offset_reset="earliest",
    datadir=tempfile.mkdtemp(),
    topic_partitions=task.partitions,  # of the table's changelog, which has to be partitioned as the input is
    web_enabled=False,
)
raw = {"key_serializer": "raw", "value_serializer": "raw"}
observations = app.topic(task.input, key_type=bytes, value_type=bytes, **raw)
forecasts = app.topic(task.output, key_type=bytes, value_type=bytes, **raw)
rows = app.Table("rows", key_type=bytes, value_type=bytes)  # stored raw, by their types


# A failure ends the run; by default Faust would start the agent again, and the run would never end.
@app.agent(observations, supervisor_strategy=CrashingSupervisor)  # type: ignore[untyped-decorator]
async def forecast(stream: faust.StreamT) -> None:
    """Step each event; all partitions pass through here, one event at a time."""
    taken = 0
    async for key, value in stream.items():
        task.start()
        event = orjson.loads(value)
        values, rows[key] = step(rows.get(key), event["ds"], event["y"])
        await forecasts.send(key=key, value=orjson.dumps(reply(event["unique_id"], event["ds"], values)))
        taken += 1
        if taken == task.events:
            await app.producer.flush()
            await app.commit({task.input})  # all but the event in hand, which the stop commits
            task.finish()
            signal.raise_signal(signal.SIGTERM)


# Standard output has the result only.
worker = faust.Worker(app, loglevel="ERROR", quiet=True, stdout=sys.stderr, redirect_stdouts=False)
worker.execute_from_commandline()
