"""The service says once that float32 cannot hold the changes of a stream."""

from __future__ import annotations

import pytest

from rillcast.codecs.observations.decoder import ObservationDecoder
from tests.support.hostile import NOON_MS, polled, record
from tests.support.toy import HOUR_MS


def decode(
    levels: dict[str, float], change: float, caplog: pytest.LogCaptureFixture, *, bad: bool = False
) -> list[str]:
    decoder = ObservationDecoder()
    for number in range(40):
        values = [
            record(unique_id=name, ds=NOON_MS + number * HOUR_MS, y=level + number * change)
            for name, level in levels.items()
        ]
        decoder.decode(polled([*values, b"{"] if bad else values))
    return [entry.getMessage() for entry in caplog.records]


@pytest.mark.parametrize("bad", [False, True])
def test_a_counter_near_a_billion_is_warned_about_once(bad: bool, caplog: pytest.LogCaptureFixture) -> None:
    (message,) = decode({"a": 5.0, "b": 1e9, "c": 1e9}, 1, caplog, bad=bad)
    assert message.startswith("stream 'b': its values lie near 1e+09 and change by 1")


def test_a_tiny_unit_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    (message,) = decode({"a": 0.0}, 1e-30, caplog)
    assert "smaller unit" in message


def test_other_streams_are_not(caplog: pytest.LogCaptureFixture) -> None:
    assert decode({f"s{i}": 100.0 * i for i in range(200)}, 0.01, caplog) == []
