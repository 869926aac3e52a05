"""Many records in one poll, as the service decodes them: a long run feeds a hundred in the time of three.

These hold for any poll: each record is used or refused, valid neighbours are decoded as they are alone, and the outcome
of a record does not depend on the others. The poll is decoded a second time in reverse order, so that each record has
other neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from rillcast.codecs.observations.decoder import ObservationDecoder
from rillcast.reading.times import MAX_DS, MIN_DS
from rillcast.transports.base import Headers
from tests.support.hostile import polled

MOMENT: Final = (MIN_DS.timestamp() * 1000, MAX_DS.timestamp() * 1000)
_MOST_DETAIL: Final = 300
_MOST: Final = 1.001e15  # of a value, as float32

Outcome = tuple[object, ...]


def check_poll(
    decoder: ObservationDecoder,
    good: bytes,
    values: Sequence[bytes],
    *,
    good_headers: Headers = (),
    headers: Sequence[Headers] | None = None,
    expands: bool = False,
) -> None:
    """Decode records between valid ones, in both orders, and check their outcomes.

    With `expands` a record is any number of events, and may be left out.
    """
    given = [good, *values, good]
    heads = [good_headers, *(headers if headers is not None else [()] * len(values)), good_headers]
    forwards = _outcomes(decoder, given, heads, expands=expands)
    backwards = _outcomes(decoder, given[::-1], heads[::-1], expands=expands)[::-1]
    for value, one, other in zip(given, forwards, backwards, strict=True):
        assert one == other, f"the outcome of {value!r} depends on its neighbours: {one}, {other}"
    honest = _outcomes(decoder, [good], [good_headers], expands=expands)
    assert [forwards[0], forwards[-1]] == [*honest, *honest], "a neighbour was harmed"


def _outcomes(
    decoder: ObservationDecoder, values: Sequence[bytes], heads: Sequence[Headers], *, expands: bool
) -> list[Outcome]:
    """Return the outcome of each record: its reason of refusal and its events."""
    events, rejections = decoder.decode(polled(values, headers=heads))
    rows = events.rows.tolist()
    assert rows == sorted(rows)
    assert len(rows) == len(events.unique_ids) == len(events.ds) == len(events.y)
    assert ((events.ds >= MOMENT[0]) & (events.ds <= MOMENT[1])).all()
    assert not (np.abs(events.y) > _MOST).any()
    found: list[list[object]] = [[] for _ in values]
    for rejection in rejections:
        assert 0 < len(rejection.detail) <= _MOST_DETAIL
        assert not found[rejection.row], "a record is refused twice"
        found[rejection.row].append(rejection.reason)
    more = [column.tolist() for column in (events.x, events.future) if column is not None]
    columns = zip(rows, events.unique_ids, events.ds.tolist(), events.y.tolist(), *more, strict=True)
    for row, unique_id, ds, y, *rest in columns:
        assert unique_id
        assert len(unique_id.encode()) <= 512
        found[row].append((unique_id, ds, *map(repr, (y, *rest))))  # NaN is equal to itself by its name
    if not expands:
        assert all(len(each) == 1 for each in found), "each record is one event, or refused"
    elif not events.left_out:
        assert all(found), "a record is lost without a word"
    return [tuple(each) for each in found]
