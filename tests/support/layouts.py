"""Topics as people write them: records of many layouts, with the streams that are meant.

Owns: how a layout is drawn, and its records. Does not know: what is found in them.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from rillcast.transports.base import Headers, Polled

START_MS: Final = 1_764_547_200_000
IDS: Final = ("host", "deviceId", "sensor_id", "station", "unique_id", "series", "symbol", "meter-id", "storeName")
TIMES: Final = ("ts", "timestamp", "eventTime", "time", "ds", "@timestamp", "observed_at", "date", "datetime")
VALUES: Final = ("value", "y", "temperature", "reading", "cpu_load", "price", "val", "usage", "power.kw")
OUTER: Final = ("payload", "data", "tags", "body.v1", "measurement")
TEXT_TIMES: Final = ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S+00:00", "%Y/%m/%d %H:%M:%S")
PER_S: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@dataclass
class Layout:
    """A layout, as it is drawn, and the records in it.

    Attributes:
        polled: The records.
        ids: The stream that each record is meant for.
        ds: The time that each record is meant for, in milliseconds since the epoch.
        y: The value of each record, NaN = missing.
        described: The layout, for a message.
    """

    polled: Polled
    ids: list[str]
    ds: list[int]
    y: list[float]
    described: dict[str, Any]


@dataclass
class _Drawn:
    rng: random.Random
    described: dict[str, Any] = field(default_factory=dict)

    def one(self, name: str, choices: Any) -> Any:
        self.described[name] = chosen = self.rng.choice(list(choices))
        return chosen

    def path(self, name: str, names: Any) -> list[str]:
        last = self.one(name, names)
        path = [self.rng.choice(OUTER)] * (self.rng.random() < 0.4) + [last]
        self.described[name] = path
        return path


def draw(seed: int, *, streams: int = 6, periods: int = 40, partitions: int = 2) -> Layout:
    """Draw a layout and return its records: the streams in turns, each period by period."""
    drawn = _Drawn(random.Random(seed))  # noqa: S311  reproducible on purpose
    rng = drawn.rng
    form = drawn.one("format", ["json"] * 4 + ["msgpack", "binary CloudEvent", "structured CloudEvent"])
    id_kind = drawn.one("id", ["text"] * 3 + ["number", "key", "text and key", "header", "text and a coarser key"])
    time_kind = drawn.one("time", ["text"] * 3 + [*PER_S, "fraction", "digits", "timestamp", "ms header"])
    value_kind = drawn.one("value", ["float", "float", "int", "text", "with nulls"])
    paths = {"id": drawn.path("id name", IDS), "time": drawn.path("time name", TIMES)}
    paths["value"] = drawn.path("value name", VALUES)
    text_form = drawn.one("text form", TEXT_TIMES)
    step_s = drawn.one("step", [10, 60, 300, 3_600])
    more = [name for name in _MORE if rng.random() < 0.5]
    if time_kind == "timestamp" and "received_at" in more:
        more.remove("received_at")  # it would be as good a time
    drawn.described["more"] = more
    first = drawn.one("order", [True, False])
    names = [f"{rng.choice(['web', 'db', 'eu/a', 'x.y'])}-{number}" for number in range(streams)]
    if id_kind == "number":
        names = [str(17 + number) for number in range(streams)]
    rows: list[tuple[int, bytes | None, bytes, Headers, int]] = []
    ids, ds, ys = list[str](), list[int](), list[float]()
    for period in range(periods):
        for stream, name in enumerate(names):
            at_s = START_MS // 1_000 + period * step_s
            y: Any = round(20 + 5 * rng.random() + stream, 3)
            y = int(y * 10) if value_kind == "int" else None if value_kind == "with nulls" and period % 9 == 3 else y
            record: dict[str, Any] = {}
            extra = {each: _MORE[each](rng, len(rows), at_s) for each in more}
            if not first:
                record |= extra
            if id_kind.startswith("text") or id_kind == "number":
                _put(record, paths["id"], int(name) if id_kind == "number" else name)
            if time_kind not in ("timestamp", "ms header"):
                _put(record, paths["time"], _time(time_kind, at_s, text_form))
            _put(record, paths["value"], str(y) if value_kind == "text" else y)
            if first:
                record |= extra
            key = {"key": name, "text and key": name, "text and a coarser key": f"dc-{stream % 2}"}.get(id_kind)
            headers = [("source-host", name.encode())] if id_kind == "header" else []
            headers += [("event-time", str(at_s * 1_000).encode())] if time_kind == "ms header" else []
            value, wrapping = _written(form, record, len(rows))
            stamp = at_s * 1_000 + (0 if time_kind == "timestamp" else rng.randrange(5_000))
            sent = None if key is None else key.encode()
            rows.append((stream % partitions, sent, value, [*headers, *wrapping], stamp))
            ids.append(name)
            ds.append(at_s * 1_000)
            ys.append(np.nan if y is None else float(y))
    order = sorted(range(len(rows)), key=lambda row: rows[row][0])
    kept = [rows[row] for row in order]
    polled = Polled(
        np.array([row[0] for row in kept], np.int64),
        np.arange(len(kept), dtype=np.int64),
        np.array([row[4] for row in kept], np.int64),
        [row[1] for row in kept],
        [row[2] for row in kept],
        lambda index: kept[index][3],
    )
    meant = [ids[row] for row in order], [ds[row] for row in order], [ys[row] for row in order]
    return Layout(polled, *meant, drawn.described)


_MORE: Final[dict[str, Any]] = {
    "event_id": lambda rng, _row, _at: str(uuid.UUID(int=rng.getrandbits(128))),
    "seq": lambda _rng, row, _at: 1_000 + row,
    "version": lambda _rng, _row, _at: "1.2.0",
    "level": lambda rng, _row, _at: rng.choice(["info", "warn"]),
    "latitude": lambda _rng, row, _at: 48.0 + row % 6 / 10,
    "received_at": lambda _rng, _row, at: dt.datetime.fromtimestamp(at + 3, dt.UTC).isoformat(),
    "ok": lambda rng, _row, _at: rng.random() < 0.9,
    "unit": lambda _rng, _row, _at: "C",
    "flags": lambda _rng, _row, _at: [1, 2],
    "schema_version": lambda _rng, _row, _at: 3,
}


def _time(kind: str, at_s: int, form: str) -> Any:
    if kind == "text":
        return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime(form)
    if kind == "fraction":
        return float(at_s)
    return str(at_s * 1_000) if kind == "digits" else at_s * PER_S[kind]


def _put(record: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        record = record.setdefault(step, {})
    record[path[-1]] = value


def _written(form: str, record: dict[str, Any], number: int) -> tuple[bytes, list[tuple[str, bytes]]]:
    if form == "msgpack":
        return msgspec.msgpack.encode(record), []
    text = json.dumps(record).encode()
    about = {"id": str(number), "source": "/plant", "specversion": "1.0", "type": "reading"}
    if form == "binary CloudEvent":
        return text, [(f"ce_{name}", each.encode()) for name, each in about.items()]
    if form == "structured CloudEvent":
        event = json.dumps(about | {"data": record}).encode()
        return event, [("content-type", b"application/cloudevents+json")]
    return text, []
