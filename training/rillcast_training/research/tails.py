"""Are anomalies as rare as they say? The shares beyond levels of `anomaly` on public series, of the shipped bundles.

    python -m rillcast_training.research.tails --data FOLDER --out build/tails

Owns: the series, and the bundle of each. Does not know: which events count
(`rillcast_training.evaluate.tail_shares`). It prints the rows of a Markdown table. Each row is what `rillcast backtest
universal:FREQ FILE` prints of the set's file, which stays in the folder of `--out`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import parse
from rillcast.engine.batcher import Batching
from rillcast.engine.device import Device
from rillcast.engine.step_engine import StepEngine
from rillcast_training.data.series import load, table
from rillcast_training.evaluate.backtest import backtest
from rillcast_training.evaluate.tail_shares import LEVELS, TailShares


class _Set(NamedTuple):
    """Files of one frequency; of a file of several, the series of that one."""

    name: str
    freq: str
    files: tuple[str, ...]
    mixed: bool = False


SETS: Final = (
    _Set("NAB, AWS metrics", "5min", ("nab_aws_cloudwatch.csv.gz",)),
    _Set("NAB, known causes", "5min", ("nab_known_cause.csv.gz",), mixed=True),
    _Set("NAB, taxi", "30min", ("nab_known_cause.csv.gz",), mixed=True),
    _Set("NAB, ambient temperature", "1h", ("nab_known_cause.csv.gz",), mixed=True),
    _Set("ETTh1", "1h", ("etth1.csv.gz",)),
    _Set("M4 Hourly", "1h", ("m4_hourly_train.csv.gz", "m4_hourly_test.csv.gz")),
    _Set("M4 Weekly", "1w", ("zero_shot/m4_weekly_train.csv.gz", "zero_shot/m4_weekly_test.csv.gz")),
    _Set("Saugeen by days", "1d", ("zero_shot/saugeen_d_train.csv.gz", "zero_shot/saugeen_d_test.csv.gz")),
    _Set("Saugeen by weeks", "1w", ("zero_shot/saugeen_w_train.csv.gz", "zero_shot/saugeen_w_test.csv.gz")),
    _Set("Saugeen by months", "1mo", ("zero_shot/saugeen_m_train.csv.gz", "zero_shot/saugeen_m_test.csv.gz")),
    _Set("Hospital", "1mo", ("zero_shot/hospital_train.csv.gz", "zero_shot/hospital_test.csv.gz")),
)
_STRIDE: Final = 10_000  # the forecasts are not scored here
_STEP_TOLERANCE: Final = 0.1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the series")
    parser.add_argument("--out", type=Path, required=True, help="folder for a file of each set")
    parser.add_argument("--set", action="append", choices=[one.name for one in SETS], help="only this set; repeatable")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| data | observations |" + "".join(f" beyond {level:g} |" for level in LEVELS))
    print("| --- |" + " --- |" * (1 + len(LEVELS)))
    print("| right | |" + "".join(f" {1 - level:.4g} |" for level in LEVELS))
    for one in (one for one in SETS if not args.set or one.name in args.set):
        tails = _tails(one, args.data, args.out)
        shares = tails.shares().values() if tails.events else ()
        cells = "".join(f" {share:.4f} |" for share in shares) or " - |" * len(LEVELS)
        print(f"| {one.name} ({one.freq}) | {tails.events:,} |{cells}", flush=True)


def _tails(one: _Set, data: Path, out: Path) -> TailShares:
    bundle = Bundle.load(f"universal:{one.freq}")
    engine = StepEngine(bundle, Device("cpu"), batching=Batching(1_024))
    found = backtest(engine, load(_file(one, data, out), one.freq), stride=_STRIDE).tails
    assert found is not None  # a shipped bundle has anomalies
    return found


def _file(one: _Set, data: Path, out: Path) -> Path:
    """Return one file with the series of a set; of a mixed one, those whose usual step is near the frequency's."""
    frame = pl.concat([table(data / file) for file in one.files])
    if one.mixed:
        times = {str(key[0]): np.sort(part["ds"].to_numpy()) for key, part in frame.group_by("unique_id")}
        steps = {name: float(np.median(np.diff(of))) / parse(one.freq).nominal_ms for name, of in times.items()}
        names = [name for name, step in steps.items() if abs(step - 1) < _STEP_TOLERANCE]
        frame = frame.filter(pl.col("unique_id").is_in(names))
    path = out / f"{one.name.lower().replace(', ', '-').replace(' ', '-')}.parquet"
    frame.with_columns(pl.col("ds").cast(pl.Datetime("ms"))).write_parquet(path)
    return path


if __name__ == "__main__":
    main()
