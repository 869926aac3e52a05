"""A board to look at, and events to put on it, for tests of what people see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rillcast.bundle.bundle import BundleMetadata, StateSpec, Status
from rillcast.observability.live_view import LiveView

HOUR_MS = 3_600_000
START_MS = 1_714_521_600_000  # 2024-05-01T00:00:00Z
HORIZON = 3
QUANTILES = (0.1, 0.5, 0.9)


class SettableClock:
    """Monotonic seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def metadata(scores: tuple[str, ...] = ("pinball", "covered"), freq: str = "1h") -> BundleMetadata:
    """A bundle's description with hourly slots or others, three steps and three quantiles."""
    return BundleMetadata(
        name="toy",
        model_id="0123456789abcdef",
        cell="toy",
        freq=freq,
        horizon=HORIZON,
        quantiles=QUANTILES,
        states=(StateSpec(name="h", dtype="float32", row_shape=(1,)),),
        scores=scores,
    )


def put(
    board: LiveView,
    unique_ids: Sequence[str],
    slots: Sequence[int],
    y: Sequence[float],
    status: Sequence[Status] | None = None,
    covered: Sequence[float] | None = None,
    num_streams: int | None = None,
) -> None:
    """Give the board one poll; the forecast for step `h` and level `q` of an event is `y + 10 * h + q`."""
    values = np.asarray(y, dtype=np.float32)
    steps = 10 * np.arange(1, HORIZON + 1, dtype=np.float32)
    levels = np.asarray(QUANTILES, dtype=np.float32)
    forecast = np.nan_to_num(values)[:, None, None] + steps[None, :, None] + levels[None, None, :]
    score = None
    if covered is not None:
        score = np.stack([np.zeros(len(covered)), np.asarray(covered)], axis=1).astype(np.float32)
    board.update(
        unique_ids,
        START_MS + HOUR_MS * np.asarray(slots, dtype=np.int64),
        values,
        np.asarray(status if status is not None else [Status.OK] * len(unique_ids), dtype=np.int8),
        forecast.astype(np.float32),
        score,
        None,
        num_streams,
    )
