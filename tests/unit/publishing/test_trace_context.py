from __future__ import annotations

import numpy as np
import pytest

from rillcast.publishing.trace_context import carried
from rillcast.transports.base import Headers, Polled

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def polled(*headers: Headers) -> Polled:
    count = len(headers)
    numbers = np.arange(count, dtype=np.int64)
    return Polled(numbers, numbers, numbers, [None] * count, [b""] * count, lambda index: headers[index])


def test_parent_and_state_go_along_unchanged_and_other_headers_stay() -> None:
    records = polled([("traceparent", PARENT), ("tracestate", b"a=1"), ("secret", b"x")], [("other", b"y")])
    assert carried(records, [0, 1]) == [[("traceparent", PARENT), ("tracestate", b"a=1")], ()]


def test_headers_follow_the_order_of_the_forecasts() -> None:
    records = polled([], [("traceparent", PARENT)], [])
    assert carried(records, [1, 2]) == [[("traceparent", PARENT)], ()]


def test_nothing_is_carried_where_nothing_came() -> None:
    assert carried(polled([], [("other", b"y")]), [0, 1]) is None


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        PARENT + b"-more",
        b"ff" + PARENT[2:],
        b"\xff\x00",
    ],
)
def test_an_invalid_parent_is_not_handed_on_nor_its_state(parent: bytes) -> None:
    assert carried(polled([("traceparent", parent), ("tracestate", b"a=1")]), [0]) is None


def test_a_later_version_may_say_more() -> None:
    later = b"01" + PARENT[2:] + b"-more"
    assert carried(polled([("traceparent", later)]), [0]) == [[("traceparent", later)]]


def test_two_parents_are_none() -> None:
    assert carried(polled([("traceparent", PARENT), ("traceparent", PARENT)]), [0]) is None
