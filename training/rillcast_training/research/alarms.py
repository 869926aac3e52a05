"""Alarms on public series: NAB's labelled ones, and series without labels.

    python -m rillcast_training.research.alarms --data FOLDER --out build/alarms

Owns: the series, their frequencies, and the two halves. Does not know: how
alarms are found or scored. Each series goes through a bundle of experts of its frequency, as `rillcast universal
export` writes it, and the serving engine; there is one setting for all.

It writes `alarms.jsonl`, the records of a service, which `rillcast anomalies --score` takes, and `scores.csv`, a score
of each row, which NAB's own scorers take. It prints the figures of all series, and of every second one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.alarms import CHANGES, ONE_A_WEEK, described, slots_per_alarm, time_text
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.frequency import Frequency
from rillcast.engine.device import Device
from rillcast.engine.step_engine import Outcome, StepEngine
from rillcast.events import EventBatch
from rillcast.figures import to_json
from rillcast_training.data.series import table
from rillcast_training.evaluate.alarm_scores import PROFILES, Labelled, nab_score, score_alarms
from rillcast_training.evaluate.labelled import milliseconds, read_windows
from rillcast_training.export.experts import export_experts
from rillcast_training.model.experts.config import ExpertsConfig
from rillcast_training.model.experts.defaults import default_horizon, default_seasons

NAB: Final = ("nab_aws_cloudwatch.csv.gz", "nab_known_cause.csv.gz")
UNLABELLED: Final = ("etth1.csv.gz", "m4_hourly_train.csv.gz")
_FREQUENCIES: Final = {300_000: "5min", 1_800_000: "30min", 3_600_000: "1h"}
_EVENTS: Final = 4_096
_Record = dict[str, Any]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the series and nab_windows.json")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--per-stream", default=ONE_A_WEEK, help="alarms that are wanted of a stream")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    series = _nab(args.data, args.out, args.per_stream)
    names = sorted(series)
    _, threshold = nab_score({name: series[name] for name in names[::2]}, PROFILES["standard"])
    for what, chosen in {"all": names, "first half, for choice": names[::2], "second half": names[1::2]}.items():
        part = {name: series[name] for name in chosen}
        print(f"{what}, {len(part)} series\n{score_alarms(part).table()}")
        at_first = nab_score(part, PROFILES["standard"], threshold)[0]
        print(f"NAB standard     {at_first:6.1f}  at the first half's threshold\n")
    quiet = {name: one for name, one in series.items() if not one.windows}
    for name, one in quiet.items():
        print(f"{name}, no window: {one.opened.size / _intervals(one.times, args.per_stream):.2f} alarms an interval")
    for file in UNLABELLED:
        found = _alarms(args.data / file, args.out, args.per_stream)
        rates = [_opened(records)[0].size / _intervals(times, args.per_stream) for _, times, records in found]
        spread = ", ".join(f"{rate:.2f}" for rate in np.percentile(rates, [10, 50, 90]))
        print(f"{file}: {len(rates)} streams, {np.mean(rates):.2f} alarms an interval; 10, 50, 90 %: {spread}")


def _nab(data: Path, out: Path, per_stream: str) -> dict[str, Labelled]:
    """Return NAB's series with their alarms, and write both files."""
    windows, series = read_windows(data / "nab_windows.json"), dict[str, Labelled]()
    with (out / "alarms.jsonl").open("w") as all_records, (out / "scores.csv").open("w") as scores:
        print("file,ds,score", file=scores)
        for file in NAB:
            for name, times, records in _alarms(data / file, out, per_stream):
                all_records.writelines(to_json(one) + "\n" for one in records)
                series[name] = Labelled(times, windows[name], *_opened(records))
                by_row = np.zeros(times.size)
                by_row[np.searchsorted(times, series[name].opened, side="right") - 1] = series[name].strengths
                pairs = zip(times.tolist(), by_row.tolist(), strict=True)
                scores.writelines(f"{name},{time_text(ds)},{score}\n" for ds, score in pairs)
    return series


def _opened(records: list[_Record]) -> tuple[IntArray, AnyArray]:
    opened = [one for one in records if one["change"] == "opened"]
    times = [milliseconds(one["ds"]) for one in opened]
    return np.array(times, np.int64), np.array([one["strength"] for one in opened])


def _intervals(times: IntArray, per_stream: str) -> float:
    step = _step(times)
    return float(times[-1] - times[0]) / step / slots_per_alarm(per_stream, Frequency(step))


def _step(times: IntArray) -> int:
    """Return the known step that is nearest to the usual one, in milliseconds."""
    return min(_FREQUENCIES, key=lambda known: abs(known - float(np.median(np.diff(times)))))


def _alarms(path: Path, folder: Path, per_stream: str) -> Iterator[tuple[str, IntArray, list[_Record]]]:
    """Yield of each series its name, the times of its rows, and the records of its alarms."""
    frame = table(path)
    times = {str(key[0]): np.sort(part["ds"].to_numpy()) for key, part in frame.group_by("unique_id")}
    found: dict[str, list[_Record]] = {name: [] for name in times}
    for step, freq in _FREQUENCIES.items():
        names = [name for name, of in times.items() if _step(of) == step]
        own = frame.filter(pl.col("unique_id").is_in(names)).sort("ds", maintain_order=True)
        # In turns, though the series are of different years: a call of the model takes an event of each.
        own = own.with_columns(pl.int_range(pl.len()).over("unique_id").alias("turn")).sort("turn", maintain_order=True)
        if not len(own):
            continue
        engine = StepEngine(Bundle.load(_bundle(freq, folder)), Device("cpu"), alarms=per_stream)
        ids, ds, y = own["unique_id"].to_list(), own["ds"].to_numpy(), own["y"].to_numpy().astype(np.float32)
        for first in range(0, len(ids), _EVENTS):
            part = slice(first, first + _EVENTS)
            _collect(engine, EventBatch.of(ids[part], ds[part], y[part], first_offset=first), found)
    for name in sorted(times):
        yield name, times[name], found[name]


def _collect(engine: StepEngine, events: EventBatch, found: dict[str, list[_Record]]) -> None:
    result, metadata = engine.step(events), engine.bundle.metadata
    assert result.alarm is not None  # a bundle of experts
    changed = np.isin(result.alarm[:, 0], list(CHANGES)) & (result.outcome == Outcome.STEPPED)
    for row in np.flatnonzero(changed).tolist():
        ds, name = int(events.ds[row]), events.unique_ids[row]
        record: _Record = {"unique_id": name, "ds": time_text(ds), "change": CHANGES[int(result.alarm[row, 0])]}
        record |= described(result.alarm[row], ds, metadata.frequency)
        record |= {"freq": metadata.freq, "model": f"{metadata.name}@{metadata.model_id}"}
        found[name].append(record | {"source": {"partition": 0, "offset": int(events.offsets[row])}})


def _bundle(freq: str, folder: Path) -> Path:
    """Return the bundle of experts of a frequency, made if it is not there."""
    path = folder / f"experts-{freq}.onnx"
    if not path.exists():
        config = ExpertsConfig(freq, default_horizon(freq), default_seasons(freq))
        export_experts(config, path, name=f"experts-{freq}")
    return path


if __name__ == "__main__":
    main()
