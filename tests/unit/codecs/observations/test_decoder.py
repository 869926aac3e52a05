from __future__ import annotations

import numpy as np
import pytest

from rillcast.codecs.observations.decoder import DecodeLimits, ObservationDecoder
from rillcast.codecs.observations.rejections import Reason
from tests.support.hostile import HOSTILE, NOON_MS, polled, record


@pytest.mark.parametrize(
    ("ds", "expected"),
    [
        (NOON_MS, NOON_MS),
        ("2024-05-01T12:00:00Z", NOON_MS),
        ("2024-05-01T12:00:00", NOON_MS),
        ("2024-05-01 12:00:00", NOON_MS),
        ("2024-05-01T14:00:00+02:00", NOON_MS),
        ("2024-05-01T12:00:00.123Z", NOON_MS + 123),
        ("2024-05-01T12:00:00.123999Z", NOON_MS + 123),
        ("1969-12-31T23:59:59.999Z", -1),
        (-1, -1),
    ],
)
def test_event_times_become_milliseconds(ds: object, expected: int) -> None:
    events, rejections = ObservationDecoder().decode(polled([record(ds=ds)]))
    assert rejections == []
    assert events.ds.tolist() == [expected]


@pytest.mark.parametrize("value", [record(y=None), b'{"unique_id": "a", "ds": 0}'])
def test_null_and_absent_y_are_missing(value: bytes) -> None:
    events, _ = ObservationDecoder().decode(polled([value]))
    assert np.isnan(events.y).tolist() == [True]


def test_whole_numbers_and_further_members_are_taken() -> None:
    events, rejections = ObservationDecoder().decode(polled([record(y=3, x={"temp": [1, 2]}, note="hello")]))
    assert events.y.tolist() == [3.0]
    assert rejections == []


@pytest.mark.parametrize(("value", "reason"), HOSTILE)
def test_bad_record_is_rejected_with_its_reason_and_good_neighbours_are_kept(
    value: bytes | None, reason: Reason
) -> None:
    events, rejections = ObservationDecoder().decode(
        polled([record(unique_id="before"), value, record(unique_id="after")])
    )
    assert events.unique_ids == ["before", "after"]
    assert events.rows.tolist() == [0, 2]
    assert [(r.row, r.reason) for r in rejections] == [(1, reason)]
    assert rejections[0].detail


def test_ids_at_the_limit_are_taken() -> None:
    events, rejections = ObservationDecoder(DecodeLimits(max_id_bytes=6)).decode(
        polled([record(unique_id="\u20ac\u20ac"), record(unique_id="abcdef")])
    )
    assert events.unique_ids == ["\u20ac\u20ac", "abcdef"]
    assert rejections == []


def test_an_empty_poll_decodes_to_nothing() -> None:
    events, rejections = ObservationDecoder().decode(polled([]))
    assert len(events) == 0
    assert rejections == []
