"""Print the forecasts of a topic, in any codec.

    python examples/read_forecasts.py localhost:9092 forecasts

Needs `pip install rillcast[librdkafka]`. Ends when it has read to the end of the topic.
"""

import sys

from confluent_kafka import Consumer, KafkaError

from rillcast import decode_forecast

servers, topic = sys.argv[1:]
consumer = Consumer(
    {
        "bootstrap.servers": servers,
        "group.id": "read-forecasts",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
)
consumer.subscribe([topic])
open_partitions = set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
while open_partitions:
    message = consumer.poll(1.0)
    if message is None:
        continue
    if (error := message.error()) is not None:
        if error.code() != KafkaError._PARTITION_EOF:
            raise SystemExit(str(error))
        open_partitions.discard(message.partition())
        continue
    forecast = decode_forecast(message.value() or b"", message.key())
    median = forecast.values[0, len(forecast.quantiles) // 2]
    print(f"{forecast.unique_id} {forecast.times[0]} {median:g} {forecast.status}")
consumer.close()
