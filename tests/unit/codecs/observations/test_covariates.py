"""Covariates become the same columns from every format and under all names of members."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rillcast.codecs.observations.covariates import CovariateColumns
from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.codecs.observations.fields import Fields
from rillcast.codecs.observations.format import Format
from rillcast.events import EventBatch
from tests.support.covariates import EVERY_KIND
from tests.support.formats import FORMATS, format_of, mock_registry, writer_of
from tests.support.hostile import NOON_MS, polled

X = {"temp": 12.5, "promo": 1.0, "shop": "mall", "price": 99.0, "size": 4.0}
FUTURE = {"promo": [0.0, 1.0], "price": [98.0, 97.0]}


def decoder(form: Format | None = None, **fields: Any) -> ObservationDecoder:
    return ObservationDecoder(
        form=form, fields=Fields(**fields, covariates=EVERY_KIND), columns=CovariateColumns(EVERY_KIND, 2)
    )


def assert_seen(events: EventBatch) -> None:
    assert events.x is not None
    assert events.future is not None
    np.testing.assert_array_equal(events.x, [[12.5, 1.0, 2.0, 99.0, 4.0], [np.nan] * 5])
    np.testing.assert_array_equal(events.future[0], [[0, 1], [98, 97]])
    assert np.isnan(events.future[1]).all()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_brings_the_same_columns(name: str) -> None:
    registry = mock_registry()
    write = writer_of(name, registry)
    values = [
        write({"unique_id": "a", "ds": NOON_MS, "y": 1.5, "x": X, "future": FUTURE}),
        write({"unique_id": "a", "ds": NOON_MS, "y": 1.5}),
    ]
    events, rejections = decoder(format_of(name, registry)).decode(polled(values))
    assert rejections == []
    assert_seen(events)


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"unique_id": "id", "x": "", "future": "outlook"}, {"id": "a", "ds": NOON_MS, **X, "outlook": FUTURE}),
        (
            {"y": "v.y", "x": "v.now", "future": "v.next"},
            {"unique_id": "a", "ds": NOON_MS, "v": {"now": X, "next": FUTURE}},
        ),
    ],
)  # fmt: skip
def test_covariates_can_have_other_paths(fields: dict[str, Any], value: dict[str, Any]) -> None:
    bare = {name: part for name, part in value.items() if name in ("id", "unique_id", "ds")}
    events, rejections = decoder(**fields).decode(polled([json.dumps(one).encode() for one in (value, bare)]))
    assert rejections == []
    assert_seen(events)


def test_a_bad_record_in_the_poll_changes_nothing_of_the_others() -> None:
    good = json.dumps({"unique_id": "a", "ds": NOON_MS, "y": 1, "x": X, "future": FUTURE}).encode()
    bare = json.dumps({"unique_id": "a", "ds": NOON_MS}).encode()
    events, rejections = decoder().decode(polled([good, b"{", bare]))
    assert [rejection.row for rejection in rejections] == [1]
    assert_seen(events)


def test_a_number_can_be_a_category() -> None:
    value = json.dumps({"unique_id": "a", "ds": NOON_MS, "x": {"shop": 7}}).encode()
    events, _ = decoder().decode(polled([value]))
    assert events.x is not None
    assert (events.x[0, 2], events.masked.unknown) == (0, 1)
