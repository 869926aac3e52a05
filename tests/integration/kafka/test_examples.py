"""The example that reads a topic of forecasts, on topics that release 0.1.0 wrote in three codecs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import releases
from tests.support.kafka_cluster import KafkaCluster
from tests.support.paths import ROOT


@pytest.mark.parametrize("name", ["exact", "float16", "topic"])
def test_every_forecast_of_a_topic_is_printed(name: str, kafka: KafkaCluster) -> None:
    topic = kafka.create_topic("forecasts", 2)
    records = releases.records(f"forecasts-{name}.jsonl.gz")
    kafka.produce(topic, [record.value for record in records], [record.key for record in records])
    command = [sys.executable, str(ROOT / "examples" / "read_forecasts.py"), kafka.bootstrap_servers, topic]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = sorted(line.split()[0] for line in done.stdout.splitlines())
    assert seen == sorted(forecast.unique_id for forecast in releases.forecasts(name))
