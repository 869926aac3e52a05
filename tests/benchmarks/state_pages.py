"""Measures the cost of storing state: `python -m tests.benchmarks.state_pages [--json] [--streams N]`.

A page of 256 streams of a GRU of 64 units with a 168-slot lag buffer, whose rows are real: the forecaster (random
weights) has stepped over 400 hours of readings with a daily season, to one decimal. Then a whole store of such
pages, in a directory. Times are the best of several, on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
import torch

from rillcast.arrays import AnyArray
from rillcast.bundle.bundle import StateSpec
from rillcast.engine.pages import Page
from rillcast.engine.slots import PAGE_SLOTS
from rillcast.stores.base import Mark
from rillcast.stores.format.pages import PageCodec
from rillcast.stores.local import LocalStore
from tests.support.forecasters import HOUR_MS, random_forecaster, small_config
from tests.support.stores import restore

HOURS: Final = 400
_REPEATS: Final = 20
_Result = TypeVar("_Result")


def realistic_page() -> tuple[tuple[StateSpec, ...], Page]:
    """Return the states and one full page."""
    forecaster = random_forecaster(
        small_config(
            hidden=64,
            context=168,
            max_gap=24,
            seasons=(24, 168),
            horizon=24,
            quantiles=tuple(i / 10 for i in range(1, 10)),
        )
    )
    rng = np.random.default_rng(1)
    level, swing = rng.uniform(-10, 30, PAGE_SLOTS), rng.uniform(1, 8, PAGE_SLOTS)
    rows, wander, start = forecaster.initial_rows(PAGE_SLOTS), np.zeros(PAGE_SLOTS), 1_714_564_800_000
    with torch.no_grad():
        for hour in range(HOURS):
            wander = 0.9 * wander + rng.normal(0, 0.7, PAGE_SLOTS)
            y = np.round(level + swing * np.sin(2 * np.pi * hour / 24) + wander, 1).astype(np.float32)
            ds = torch.full((PAGE_SLOTS,), start + hour * HOUR_MS)
            _, rows = forecaster.step(ds, torch.from_numpy(y), rows)
    specs = forecaster.state_specs()
    columns: dict[str, AnyArray] = {spec.name: part.numpy() for spec, part in zip(specs, rows.flat(), strict=True)}
    last_ds = np.full(PAGE_SLOTS, start + (HOURS - 1) * HOUR_MS, np.int64)
    unique_ids = tuple(f"building-{i:03d}/meter" for i in range(PAGE_SLOTS))
    return specs, Page(0, 0, HOURS * PAGE_SLOTS, unique_ids, last_ds, columns)


def measure_page(
    specs: tuple[StateSpec, ...], page: Page, form: Literal["exact", "float16"], compression: Literal["none", "zlib"]
) -> dict[str, Any]:
    """Return sizes, times and errors of one way to store a page."""
    codec = PageCodec("benchmark", specs, form, compression)
    encode_s, data = _best(lambda: codec.encode(page))
    assert data is not None
    decode_s, back = _best(lambda: codec.decode(data, 0, 0, "benchmark"))
    raw = sum(values.nbytes for values in page.rows.values())
    return {
        "rows": form,
        "compression": compression,
        "bytes_per_stream": len(data) / PAGE_SLOTS,
        "encode_ms": encode_s * 1e3,
        "decode_ms": decode_s * 1e3,
        "encode_mb_per_s": raw / encode_s / 1e6,
        "decode_mb_per_s": raw / decode_s / 1e6,
        "largest_error": {
            name: float(np.max(np.abs(back.rows[name].astype(np.float64) - values)))
            for name, values in page.rows.items()
            if values.dtype == np.float32
        },
    }


def measure_directory(specs: tuple[StateSpec, ...], page: Page, streams: int) -> dict[str, Any]:
    """Return the cost of writing and restoring `streams` streams in one partition, 64 pages a commit."""
    pages = [dataclasses.replace(page, number=number) for number in range(-(-streams // PAGE_SLOTS))]
    codec = PageCodec("benchmark", specs)
    with tempfile.TemporaryDirectory() as folder:
        with closing(LocalStore(Path(folder), codec)) as store:
            longest_s, started = 0.0, time.perf_counter()
            for first in range(0, len(pages), 64):
                began = time.perf_counter()
                store.stage(pages[first : first + 64], [Mark(0, page.offset, 0, len(pages))])
                store.commit()
                longest_s = max(longest_s, time.perf_counter() - began)
            written_s, stored_bytes = time.perf_counter() - started, store.bytes_staged
        with closing(LocalStore(Path(folder), codec)) as store:
            started = time.perf_counter()
            assert len(restore(store, 0)[0].pages) == len(pages)
            restored_s = time.perf_counter() - started
    return {
        "streams": len(pages) * PAGE_SLOTS,
        "stored_bytes": stored_bytes,
        "write_s": written_s,
        "longest_commit_s": longest_s,
        "restore_s": restored_s,
    }


def _best(work: Callable[[], _Result]) -> tuple[float, _Result]:
    best, result = float("inf"), work()
    for _ in range(_REPEATS):
        started = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - started)
    return best, result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100_000, help="streams of the directory")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    specs, page = realistic_page()
    forms: tuple[Literal["exact", "float16"], ...] = ("exact", "float16")
    compressions: tuple[Literal["none", "zlib"], ...] = ("none", "zlib")
    ways = [measure_page(specs, page, form, compression) for form in forms for compression in compressions]
    directory = measure_directory(specs, page, args.streams)
    row_bytes = sum(spec.row_bytes for spec in specs)
    if args.json:
        print(json.dumps({"row_bytes": row_bytes, "page": ways, "directory": directory}))
        return
    print(f"a page of {PAGE_SLOTS} streams, {row_bytes} bytes of state each")
    for way in ways:
        errors = ", ".join(f"{name} {error:.2g}" for name, error in way["largest_error"].items() if error)
        print(
            f"  {way['rows']:<8} {way['compression']:<5} {way['bytes_per_stream']:7.0f} bytes/stream"
            f"  encode {way['encode_ms']:5.2f} ms ({way['encode_mb_per_s']:5.0f} MB/s)"
            f"  decode {way['decode_ms']:5.2f} ms ({way['decode_mb_per_s']:5.0f} MB/s)  {errors}"
        )
    print(
        f"{directory['streams']:,} streams in a directory: {directory['stored_bytes'] / 1e6:.1f} MB, written in "
        f"{directory['write_s']:.2f} s (longest commit {directory['longest_commit_s'] * 1e3:.0f} ms), restored in "
        f"{directory['restore_s']:.2f} s"
    )


if __name__ == "__main__":
    main()
