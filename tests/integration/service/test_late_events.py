"""Late events put into place, through the whole service with the shipped bundle: generated series and real weather.

Shuffled within 6 periods, 2 % of the events twice, 5 % of them never, 1 % garbage: the last revisions are the forecasts
of the streams in order with the same values missing, and all garbage is in the dead letters.

The long form runs over M4's hourly series: the folder `RILLCAST_TEST_DATA` has `m4_hourly_train.csv.gz` (columns
`unique_id, ds, y`), and `RILLCAST_TEST_M4_SERIES` says how many of the 414 series are taken ("all" for all of them),
each whole.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from rillcast.bundle import shipped
from rillcast.bundle.bundle import Bundle, Status
from rillcast.bundle.frequency import Frequency
from rillcast.codecs.forecasts.reader import decode_forecast
from rillcast.codecs.schema_registry import Registry
from rillcast.engine.late import AllowedLateness
from rillcast.settings import RegistrySettings, WorkerSettings
from rillcast.transports.base import Channel
from rillcast_training.data import weather
from rillcast_training.data.synthetic.generator import Recipe, synthesize
from tests.support.disorder import Arrivals, Event, disordered, in_order, last_revisions, worst_error
from tests.support.formats import writer_of
from tests.support.hostile import HOSTILE
from tests.support.memory import Log
from tests.support.schema_registry import running_registry
from tests.support.secure_kafka import PASSWORD, USER, secure_kafka
from tests.support.service_process import service
from tests.support.workers import build, observation

HOUR_MS = 3_600_000
WITHIN = 6
TOLERANCE = 1e-4
DATA = os.environ.get("RILLCAST_TEST_DATA")
SERIES = os.environ.get("RILLCAST_TEST_M4_SERIES", "")
GARBAGE = [value for value, _ in HOSTILE if value is not None and len(value) < 700]

pytestmark = [pytest.mark.timeout(7_200)] if SERIES else []


@cache
def bundle() -> Bundle:
    return Bundle.load(shipped.locate("universal:1h"))


def m4(series: str) -> dict[str, list[Event]]:
    if DATA is None:
        pytest.skip("the long form: RILLCAST_TEST_DATA names no folder with m4_hourly_train.csv.gz")
    path = Path(DATA) / "m4_hourly_train.csv.gz"
    table = pl.read_csv(path, try_parse_dates=True, schema_overrides={"y": pl.Float64})
    table = table.with_columns(pl.col("ds").dt.epoch("ms"))
    names = table["unique_id"].unique(maintain_order=True).to_list()
    count = len(names) if series == "all" else int(series)
    chosen = names[:: max(1, len(names) // count)][:count]
    return {
        str(name): [Event(*row) for row in table.filter(pl.col("unique_id") == name).iter_rows()] for name in chosen
    }


def generated(series: int, length: int) -> dict[str, list[Event]]:
    made = synthesize(Recipe(freq="1h", series=series, length=length, missing=0.0))
    return {
        one.unique_id: [
            Event(one.unique_id, period * HOUR_MS, y)
            for period, y in zip(one.periods.tolist(), one.y.tolist(), strict=True)
        ]
        for one in made
    }


def weather_at_airports(length: int) -> dict[str, list[Event]]:
    """Return the first hours of every measured quantity at New York's airports, in 2013; holes stay holes."""
    streams: dict[str, list[Event]] = {}
    for row in weather.read():
        events = streams.setdefault(row.unique_id, [])
        if row.y and len(events) < length:
            events.append(Event(row.unique_id, round(row.ds.timestamp() * 1000), float(row.y)))
    return streams


@pytest.fixture(params=["generated", "weather", "m4"])
def arrivals(request: pytest.FixtureRequest) -> Arrivals:
    if request.param == "generated":
        streams = generated(8, 250)
    elif request.param == "weather":
        streams = weather_at_airports(150)
    else:
        streams = m4(SERIES or "4")
    return disordered(streams, GARBAGE, step_ms=HOUR_MS, within=WITHIN)


def test_last_revisions_of_disordered_streams_are_the_forecasts_in_order(arrivals: Arrivals) -> None:
    log = Log({0: []})
    for one in arrivals.given:
        log.append(0, one if isinstance(one, bytes) else observation(one.unique_id, one.y, one.ds))
    lateness = AllowedLateness(WITHIN, Frequency(HOUR_MS))
    harness = build(log, bundle=bundle(), lateness=lateness, per_poll=lambda: 700, settings=WorkerSettings())
    harness.worker.run()

    published = [decode_forecast(value, key) for key, value, _ in log.published[Channel.FORECASTS]]
    seen, expected = last_revisions(published), in_order(bundle(), arrivals.kept)
    assert seen.keys() == expected.keys()
    assert all(forecast.status == Status(expected[key][1]).name.lower() for key, forecast in seen.items())
    assert worst_error(seen, expected, arrivals.kept) < TOLERANCE
    dead = Counter(value for _, value, _ in log.published[Channel.DEAD_LETTERS])
    assert dead == Counter(one for one in arrivals.given if isinstance(one, bytes))

    counted = {status.name: harness.metric("rillcast_events_total", status=status.name.lower()) for status in Status}
    assert sum(counted.values()) == arrivals.events, "every event is counted once"
    assert counted["DUPLICATE"] == arrivals.events - len(expected)
    assert counted["LATE"] == 0
    revisions = sum(forecast.revision > 0 for forecast in published)
    assert harness.metric("rillcast_revised_forecasts_total") == revisions > 0
    assert harness.metric("rillcast_put_events_total") > 0.3 * len(expected), "most of the disorder is real"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_registry() as address:
        yield address


@pytest.mark.kafka
def test_the_same_in_avro_over_tls_and_scram(url: str, tmp_path: Path) -> None:
    """With M4's series in the long form."""
    streams = m4(SERIES or "2") if DATA else generated(6, 200)
    garbage = [b"garbage %d" % number for number in range(50)]
    arrivals = disordered(streams, garbage, step_ms=HOUR_MS, within=WITHIN)
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "kafka.sasl_password").write_text(PASSWORD + "\n")
    with secure_kafka() as kafka:
        topics = {name: kafka.cluster.create_topic(name, 2) for name in ("observations", "forecasts", "dead")}
        write = writer_of("avro", Registry(RegistrySettings(url=url)), topic=topics["observations"])
        values = [one if isinstance(one, bytes) else write(one._asdict()) for one in arrivals.given]
        keys = [None if isinstance(one, bytes) else one.unique_id.encode() for one in arrivals.given]
        kafka.cluster.produce(topics["observations"], values, keys)
        settings = {
            "model": "universal:1h",
            "secrets_dir": secrets,
            "input.topic": topics["observations"],
            "input.format": "avro",
            "input.allowed_lateness_periods": WITHIN,
            "registry.url": url,
            "output.topic": topics["forecasts"],
            "output.codec": "float32",  # all of M4 revised is gigabytes in JSON
            "dead_letters.topic": topics["dead"],
            "kafka.bootstrap_servers": kafka.broker.address("SASL"),
            "kafka.group_id": "rewind",
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_mechanism": "SCRAM-SHA-512",
            "kafka.sasl_username": USER,
            "kafka.ssl_ca_file": kafka.folder / "ca.pem",
            "kafka.max_message_bytes": 8_000_000,
            "kafka.transaction_timeout_s": 60,  # the long form on a machine that does other things as well
            "worker.delivery": "exactly_once",
        }
        with service(settings, tmp_path) as running:

            def committed() -> bool:
                return sum(kafka.cluster.committed("rewind", topics["observations"]).values()) == len(values)

            running.wait_until(committed, "every event committed", within_s=120 + len(values) / 100)
            assert running.stop() == 0
        published = [decode_forecast(r.value or b"", r.key) for r in kafka.cluster.read_all(topics["forecasts"])]
        dead = Counter(record.value for record in kafka.cluster.read_all(topics["dead"]))
    seen, expected = last_revisions(published), in_order(bundle(), arrivals.kept)
    assert seen.keys() == expected.keys()
    assert worst_error(seen, expected, arrivals.kept) < TOLERANCE
    assert dead == Counter(one for one in arrivals.given if isinstance(one, bytes))
