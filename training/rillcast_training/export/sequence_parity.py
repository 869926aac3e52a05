"""Is the sequence graph of a bundle file its step, event by event?

Owns: the runs of the check, and the verdict. Does not know: the module; `rillcast_training.export.parity` compares it
with the step.

The check has two parts. A regular run gives the step's outputs for its events, and leaves the same state: to the last
bit on this processor, or at least within the tolerance of the parity check; the result says which. And `regular`
refuses a run with an event that only the step handles (late, repeated, missing, after a gap, the first of a stream).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from rillcast.arrays import AnyArray, FloatArray, IntArray
from rillcast.bundle.bundle import REGULAR, Bundle
from rillcast.errors import ParityError
from rillcast_training.export.parity import TOLERANCE, InPlaceSession, random_covariates
from rillcast_training.export.sequence_export import step_outputs
from rillcast_training.model.forecaster import Forecaster

_STREAMS: Final = 5
_LENGTHS: Final = (1, 2, 7, 33)
_START_MS: Final = 1_702_800_000_000  # 2023-12-17
_COMPARED: Final = ("forecast", "status")  # scores and anomaly derive from these


def check_sequence(forecaster: Forecaster, path: Path, *, seed: int = 0) -> bool:
    """Compare the two graphs of a bundle file; return whether they agree to the last bit.

    Raises:
        ParityError: they differ by more than the tolerance, or an irregular run was taken.
    """
    bundle = Bundle.load(path)
    assert bundle.sequence is not None  # sealed with one
    names = step_outputs(forecaster)
    one = InPlaceSession(bundle.step.served, forecaster, _STREAMS + 1, names)
    many = InPlaceSession(bundle.sequence.served, forecaster, _STREAMS + 1, (*names, REGULAR))
    identical = True
    frequency = forecaster.config.features.frequency
    first = frequency.ahead(_START_MS, 0)
    for ds, y, covariates in _runs(forecaster, np.random.default_rng(seed)):
        events = [
            one.run(
                _slots(),
                ds[:, t].copy(),
                y[:, t].copy(),
                covariates={name: values[:, t].copy() for name, values in covariates.items()},
            )
            for t in range(ds.shape[1])
        ]
        if ds[0, 0] == first:  # only the step takes a stream's first event
            many.copy_states(one)
            continue
        found = many.run(_slots(), ds, y, covariates=covariates)
        expected = {name: np.stack([event[name] for event in events], axis=1) for name in names}
        if not found[REGULAR].all():
            raise ParityError(f"{path.name}: the sequence graph refused a regular run of {ds.shape[1]} events")
        states = {spec.name: (many.state(spec.name)[1:], one.state(spec.name)[1:]) for spec in bundle.metadata.states}
        for name, (a, b) in ({name: (found[name], expected[name]) for name in names} | states).items():
            identical &= _same_bits(a, b)
            if name in _COMPARED and (worst := _worst(a, b, y)) > TOLERANCE:
                raise ParityError(
                    f"{path.name}: sequence graph, output {name!r}, run of {ds.shape[1]} events: |sequence - step| is "
                    f"{worst:.3g} of (|step| + scale), allowed are {TOLERANCE:g}; nothing was written"
                )
    _check_refusals(forecaster, many, path)
    return identical


def _slots() -> IntArray:
    return np.arange(1, _STREAMS + 1, dtype=np.int64)


def _runs(
    forecaster: Forecaster, rng: np.random.Generator
) -> Iterator[tuple[IntArray, FloatArray, dict[str, FloatArray]]]:
    """Yield `(B, T)` times, values and covariates: a first event, then regular runs until every stream is warm."""
    frequency = forecaster.config.features.frequency
    level = 10.0 ** rng.integers(-3, 7, size=(_STREAMS, 1))
    period = frequency.period_of(_START_MS)
    for length in (1, *_LENGTHS, forecaster.config.context, *_LENGTHS):
        periods = period + np.arange(length)
        y = level * (1 + 0.1 * np.sin(periods / 4) + 0.02 * rng.normal(size=(_STREAMS, length)))
        covariates = random_covariates(forecaster, rng, (_STREAMS, length))
        yield np.tile(frequency.start_of(periods), (_STREAMS, 1)), y.astype(np.float32), covariates
        period += length


def _check_refusals(forecaster: Forecaster, many: InPlaceSession, path: Path) -> None:
    """Offer runs of four events, each with one that only the step handles. The state is not needed afterwards."""
    frequency = forecaster.config.features.frequency
    newest = int(many.state("clock")[1, 0])
    regular, ones = newest + 1 + np.arange(4, dtype=np.int64), np.ones(4, np.float32)
    spoilt: dict[str, tuple[IntArray, FloatArray]] = {
        "after a gap": (regular + np.array([0, 0, 1, 1], np.int64), ones),
        "late": (regular - np.array([0, 0, 0, 9], np.int64), ones),
        "repeated": (regular - np.array([0, 1, 1, 1], np.int64), ones),
        "missing": (regular, np.where(np.arange(4) == 2, np.nan, ones).astype(np.float32)),
        "ahead of the stream's newest": (regular + 1, ones),
    }
    for what, (periods, y) in spoilt.items():
        many.clear(2)  # a stream never seen
        covariates = random_covariates(forecaster, np.random.default_rng(0), (2, len(periods)))
        events = frequency.start_of(np.stack([periods, periods])), np.stack([y, y])
        taken = many.run(np.array([1, 2], np.int64), *events, covariates=covariates)[REGULAR]
        if taken.any():
            raise ParityError(f"{path.name}: the sequence graph took a run with an event {what}, or of a new stream")


def _same_bits(a: AnyArray, b: AnyArray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def _worst(a: AnyArray, b: AnyArray, y: FloatArray) -> float:
    """Return the largest |a - b| / (|b| + s), s the size of a stream's values."""
    size = np.abs(y).max(axis=1).reshape(-1, *(1 for _ in a.shape[1:]))
    ratio = np.abs(a.astype(np.float64) - b) / (np.abs(b) + 0.1 * size)
    return float(np.where(np.isfinite(ratio), ratio, np.inf).max())
