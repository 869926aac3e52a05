"""Spans go to a collector that speaks OTLP, and forecasts name them as their parents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from rillcast.codecs.forecasts.columns import ForecastColumns
from rillcast.publishing.spans import NAME, Spans
from rillcast.settings import Settings
from rillcast.transports.base import Headers
from tests.support.collector import Collector

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
NOW_NS = 1_714_521_600_000_000_000
SAMPLED: Headers = [("traceparent", f"00-{TRACE}-{PARENT}-01".encode()), ("tracestate", b"vendor=1")]
UNSAMPLED: Headers = [("traceparent", f"00-{TRACE}-{PARENT}-00".encode())]


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.close()


def columns(n: int) -> ForecastColumns:
    return ForecastColumns(
        unique_ids=[f"s{i}" for i in range(n)],
        ds=np.arange(n),
        status=np.zeros(n, np.int8),
        forecast=np.zeros((n, 1, 1), np.float32),
        anomaly=None,
        partitions=np.full(n, 3),
        offsets=40 + np.arange(n),
    )


def test_a_sampled_observation_gets_a_span_that_its_forecast_names(collector: Collector) -> None:
    spans = Spans(collector.url, wall_clock_ns=lambda: NOW_NS)
    (onward,) = spans.of_forecasts("m@1", columns(1), [SAMPLED], 0.25)
    spans.close()
    (span,) = collector.spans
    assert (span.name, span.kind) == (NAME, Span.SPAN_KIND_CONSUMER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (NOW_NS - 250_000_000, NOW_NS)
    attributes = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
    assert attributes["rillcast.stream"] == "s0"
    assert attributes["rillcast.model"] == "m@1"
    assert attributes["messaging.kafka.offset"] == 40
    assert dict(onward) == {
        "traceparent": f"00-{TRACE}-{span.span_id.hex()}-01".encode(),
        "tracestate": b"vendor=1",
    }


def test_what_is_not_sampled_or_not_traced_is_handed_on_as_it_came(collector: Collector) -> None:
    spans = Spans(collector.url)
    given: list[Headers] = [UNSAMPLED, (), SAMPLED]
    onward = spans.of_forecasts("m@1", columns(3), given, 0.0)
    spans.close()
    assert onward[:2] == [UNSAMPLED, ()]
    assert len(collector.spans) == 1


def test_without_a_collector_nothing_waits_and_nothing_breaks() -> None:
    spans = Spans("http://127.0.0.1:9/v1/traces")
    onward = spans.of_forecasts("m@1", columns(1), [SAMPLED], 0.0)
    spans.close()  # a sender left behind would go on, and log, through the tests that follow
    assert (dict(onward[0])["traceparent"] or b"").startswith(f"00-{TRACE}-".encode())


@pytest.mark.parametrize(
    ("publish", "message"),
    [
        ({"otlp_endpoint": "http://localhost:4318/v1/traces"}, "needs publish.trace_context"),
        ({"otlp_endpoint": "localhost:4318", "trace_context": True}, "begin with http"),
    ],
)
def test_settings_that_make_no_sense_are_refused(publish: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.model_validate({"publish": publish})
