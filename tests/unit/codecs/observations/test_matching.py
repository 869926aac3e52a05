"""Which table of models takes an event: by stream, member, header and column, the same for every form of record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rillcast.codecs.connect import open_decoder
from rillcast.codecs.observations.matching import Matching, Rule
from rillcast.events import EventBatch
from rillcast.settings import Settings
from rillcast.transports.base import Polled
from rillcast.transports.connect import open_source
from tests.support.toy import toy_bundle

METADATA = toy_bundle().metadata


def polled(*values: object, headers: list[list[tuple[str, bytes | None]]] | None = None) -> Polled:
    n = len(values)
    at = np.arange(n, dtype=np.int64)
    given = headers or [[] for _ in values]
    encoded = [json.dumps(value).encode() for value in values]
    return Polled(np.zeros(n, np.int64), at, np.full(n, -1, np.int64), [None] * n, encoded, given.__getitem__)


def tables(*models: dict[str, str], **given: Any) -> Settings:
    named = [{"name": f"t{number}", "model": "m.onnx", **each} for number, each in enumerate(models)]
    return Settings.model_validate({"models": named, "input": given})


def event(unique_id: str, **members: object) -> dict[str, object]:
    return {"unique_id": unique_id, "ds": 0, "y": 1.0, **members}


def divided(settings: Settings, records: Polled) -> tuple[dict[str, int], EventBatch, list[str]]:
    """Return the table of each stream, the events, and the streams of dead letters."""
    events, rejections = open_decoder(settings, METADATA).decode(records)
    assert events.routes is not None
    assert {rejection.reason.value for rejection in rejections} <= {"unmatched"}
    where = dict(zip(events.unique_ids, events.routes.tolist(), strict=True))
    return where, events, [rejection.detail for rejection in rejections]


def test_the_first_table_whose_pattern_takes_a_stream_has_it() -> None:
    settings = tables({"match": "web/*"}, {"match": "web/[12]"}, {"match": "db-?"})
    records = polled(*(event(name) for name in ("web/1", "web/a/b", "db-1", "db-12", "WEB/1")))
    where, events, dead = divided(settings, records)
    assert where == {"web/1": 0, "web/a/b": 0, "db-1": 2}
    assert (events.unmatched, dead) == (2, [])
    assert events.rows.tolist() == events.offsets.tolist() == [0, 1, 2]


def test_a_record_that_no_table_takes_may_be_a_dead_letter() -> None:
    settings = tables({"match": "a"}, unmatched="dead_letter")
    where, events, dead = divided(settings, polled(event("b"), event("a")))
    assert (where, events.unmatched) == ({"a": 0}, 0)
    assert dead == ["no table of models takes stream 'b'"]


def test_members_and_patterns_have_to_meet() -> None:
    settings = tables({"match": "a*", "only": "tags.kind=x|y"}, {"only": "tags.kind="}, {"match": "b"})
    records = polled(
        event("a1", tags={"kind": "x"}),
        event("a2", tags={"kind": "z"}),
        event("a3"),
        event("b", tags={"kind": "y"}),
        event("a4", tags={"kind": "y"}),
    )
    where, events, _ = divided(settings, records)
    assert where == {"a1": 0, "a3": 1, "b": 2, "a4": 0}
    assert events.unmatched == 1


def test_a_stream_whose_member_changes_goes_on_in_the_table_of_its_record() -> None:
    settings = tables({"only": "kind=x"}, {})
    _, events, _ = divided(settings, polled(event("a", kind="x"), event("a", kind="y"), event("a", kind="x")))
    assert events.routes is not None
    assert events.routes.tolist() == [0, 1, 0]


def test_headers_count_by_the_first_of_their_name() -> None:
    settings = tables({"only": "$header.site=b"}, {"only": "$header.site="})
    headers: list[list[tuple[str, bytes | None]]] = [
        [("site", b"b"), ("site", b"c")],
        [("site", b"c"), ("site", b"b")],
        [],
    ]
    where, events, _ = divided(settings, polled(event("a"), event("b"), event("c"), headers=headers))
    assert where == {"a": 0, "c": 1}
    assert events.unmatched == 1


def test_elements_of_an_array_are_taken_one_by_one() -> None:
    settings = tables({"only": "r[].kind=x"}, {}, fields={"unique_id": "host", "ds": "r[].t", "y": "r[].a,r[].b"})
    record = {"host": "h", "r": [{"t": 0, "a": 1, "b": 2, "kind": "x"}, {"t": 1, "a": 1}]}
    _, events, _ = divided(settings, polled(record))
    assert events.routes is not None
    assert list(zip(events.unique_ids, events.routes.tolist(), strict=True)) == [("h/a", 0), ("h/b", 0), ("h/a", 1)]


def test_metrics_are_taken_by_their_own_members() -> None:
    settings = tables({"only": "name=cpu"}, {"only": "tags.host=h"}, format="telegraf")
    metric = {"tags": {"host": "h"}, "fields": {"v": 1}, "timestamp": 0}
    _, events, _ = divided(settings, polled({"metrics": [metric | {"name": "cpu"}, metric | {"name": "disk"}]}))
    assert events.routes is not None
    assert sorted(events.routes.tolist()) == [0, 1]


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("y", ["y", "y,z"])
def test_a_member_of_a_file_is_its_column(tmp_path: Path, form: str, y: str) -> None:
    ys, ds = [1.0, 2.0, 3.0], [1_714_564_800_000 + 3_600_000 * hour for hour in range(3)]
    frame = pl.DataFrame({"unique_id": ["a", "b", "c"], "ds": ds, "y": ys, "z": ys, "kind": ["x", "y", None]})
    path = tmp_path / f"file.{form}"
    if form == "csv":
        frame.write_csv(path)
    elif form == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_ndjson(path)
    settings = tables({"only": "kind=x"}, {"only": "kind="}, path=str(path), fields={"y": y})
    source = open_source(settings)

    class Listener:
        def on_assigned(self, assignments: Any) -> dict[int, int | None]:
            return {each.partition: 0 for each in assignments}

        def on_revoked(self, partitions: Any) -> None:
            """Nothing is kept."""

        def on_lost(self, partitions: Any) -> None:
            """Nothing is kept."""

    source.open(Listener())
    records = source.poll(100, 1.0)
    source.close()
    where, events, _ = divided(settings, records)
    assert where == ({"a": 0, "c": 1} if y == "y" else {"a/y": 0, "a/z": 0, "c/y": 1, "c/z": 1})
    assert events.unmatched == y.count(",") + 1


def test_a_rule_that_cannot_be_read_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="expected a member of the record, or"):
        Rule.of("*", "$key=a")


def test_a_table_is_found_again_after_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rillcast.codecs.observations.matching._CACHED_STREAMS", 3)
    matching = Matching([Rule("a*"), Rule("*")])
    for _ in range(3):
        names = [f"{letter}{number}" for number in range(4) for letter in "ab"]
        events, _ = matching.divide(polled(*names), EventBatch.of(names, [0] * 8, [1.0] * 8))
        assert events.routes is not None
        assert events.routes.tolist() == [0, 1] * 4
