"""Judges roll-outs: every forecast is that of the model it names, and a partition changes its model at one offset.

Toys with different multipliers are different models. Each state is a function of all observations of its stream, so
one that was lost, doubled or stepped by the wrong model changes every forecast after it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import NamedTuple

from tests.support.toy import unroll

Source = tuple[int, int]
"""Partition and offset of an event."""


class Expected(NamedTuple):
    """The forecast that an event may have: its stream, and the state of each model after it."""

    unique_id: str
    states: Mapping[str, int]


def expect(events: Iterable[tuple[Source, bytes]], models: Mapping[str, int]) -> dict[Source, Expected]:
    """Unroll every stream with every model.

    Args:
        events: Source and record, in offset order within each partition.
        models: Multiplier by model id.
    """
    by_stream: dict[str, list[tuple[Source, int]]] = defaultdict(list)
    for source, value in events:
        record = json.loads(value)
        by_stream[record["unique_id"]].append((source, record["y"]))
    expected: dict[Source, Expected] = {}
    for unique_id, observed in by_stream.items():
        unrolled = {model_id: unroll([y for _, y in observed], m) for model_id, m in models.items()}
        for number, (source, _) in enumerate(observed):
            expected[source] = Expected(unique_id, {model_id: states[number] for model_id, states in unrolled.items()})
    return expected


def served_by(
    forecasts: Iterable[tuple[bytes | None, bytes]], expected: Mapping[Source, Expected]
) -> dict[Source, str]:
    """Return the model that forecast each event; each forecast has to be that model's own.

    Args:
        forecasts: Key and record, as published; repeats are allowed, but not by another model.
        expected: See `expect`.
    """
    models: dict[Source, str] = {}
    for key, value in forecasts:
        record = json.loads(value)
        source = record["source"]["partition"], record["source"]["offset"]
        unique_id, states = expected[source]
        model_id = record["model"].rpartition("@")[2]
        assert key == unique_id.encode()
        assert int(record["quantiles"]["0.5"][0]) == states[model_id], f"{source} by {model_id} is wrong"
        assert models.setdefault(source, model_id) == model_id, f"{source} was forecast by two models"
    return models


def changes(models: Mapping[Source, str]) -> dict[int, list[str]]:
    """Return the models of each partition in the order in which they served it."""
    order = sorted(models.items())
    return {
        partition: [model_id for model_id, _ in groupby(model_id for _, model_id in group)]
        for partition, group in groupby(order, key=lambda item: item[0][0])
    }
