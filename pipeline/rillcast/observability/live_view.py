"""The newest forecasts of a few streams, kept in memory for people to look at.

Owns: the recent past and the current forecast of the streams that it follows, and running figures (events,
rate, latency, coverage) over all streams. Does not know: HTTP, Kafka, how forecasts come about. Nothing is
ever read back from here into the pipeline.

Invariants: `max_streams`, `max_asked` and `history` bound the memory, however many streams and events pass. One poll
costs one dictionary look-up per event and a fixed number of numpy calls, whether somebody looks or not. Readers pay for
turning numbers into JSON values, outside the lock.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np

from rillcast.arrays import AnyArray, FloatArray, IntArray, StatusArray
from rillcast.bundle.bundle import BundleMetadata, Status
from rillcast.engine.step_engine import SilentStreams
from rillcast.observability.observer import Observer, Published, chosen, chosen_ids

COVERED: Final = "covered"
RATE_WINDOW_S: Final = 5.0
_RATE_BUCKET_S: Final = 0.25
_LATENCY_SAMPLES: Final = 8_192
_DIGITS: Final = 6
_UNSEEN: Final = -1
REVISIONS: Final = 4  # earlier forecasts that are shown beside the newest


class LiveView(Observer):
    """A bounded, thread-safe view: one thread writes once per poll, any number read."""

    def __init__(
        self,
        metadata: BundleMetadata,
        *,
        max_streams: int = 24,
        max_asked: int = 8,
        history: int = 240,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Allocate the view.

        Args:
            metadata: The description of the bundle that serves.
            max_streams: How many streams are followed because they appeared first.
            max_asked: How many more are followed because somebody asked (`follow`); the one asked for longest ago makes
                room.
            history: Observations kept per stream.
            clock: Monotonic seconds, for rates.
        """
        if max_streams < 0 or max_asked < 0 or history < 1:
            raise ValueError(
                f"max_streams={max_streams} and max_asked={max_asked} must be at least 0, history={history} at least 1"
            )
        self._metadata = metadata
        self._max_streams = max_streams
        self._max_asked = max_asked
        self._clock = clock
        self._lock = threading.Lock()
        self._silent: SilentStreams | None = None  # one thread writes it, others read
        levels = np.asarray(metadata.quantiles)
        # Lower end, middle and upper end of the one-step forecast: enough for the trail behind the actuals.
        self._trail_columns = np.array([0, int(np.abs(levels - 0.5).argmin()), levels.size - 1])

        rows = max_streams + max_asked
        self._row_of: dict[str, int] = {}
        self._asked: OrderedDict[str, None] = OrderedDict()
        self._first_come = 0
        self._free = list(range(rows - 1, -1, -1))
        self._count: IntArray = np.zeros(rows, dtype=np.int64)
        self._ds: IntArray = np.zeros((rows, history), dtype=np.int64)
        self._y: FloatArray = np.zeros((rows, history), dtype=np.float32)
        self._trail: FloatArray = np.zeros((rows, history, 3), dtype=np.float32)
        self._covered: FloatArray = np.full((rows, history), np.nan, dtype=np.float32)
        self._anomaly: FloatArray = np.full((rows, history), np.nan, dtype=np.float32)
        self._status: StatusArray = np.zeros(rows, dtype=np.int8)
        self._forecast: FloatArray = np.zeros((rows, metadata.horizon, levels.size), dtype=np.float32)
        # The middle quantiles of the newest forecast and of some before it: how the forecast of a period has changed.
        self._origins: IntArray = np.zeros((rows, REVISIONS + 1), dtype=np.int64)
        self._middles: FloatArray = np.zeros((rows, REVISIONS + 1, metadata.horizon), dtype=np.float32)

        self._events = 0
        self._num_streams: int | None = None
        self._met = 0
        self._met_covered = 0
        self._newest_ds: int | None = None
        self._rate = _Rate(clock())
        self._latency: FloatArray = np.zeros(_LATENCY_SAMPLES, dtype=np.float32)
        self._latency_count = 0

    def serve(self, metadata: BundleMetadata, route: str = "") -> None:  # noqa: ARG002  `LiveViews` has one a route
        """Show the bundle that serves from now on; it has the horizon and levels of the one before."""
        assert metadata.horizon == self._metadata.horizon
        assert metadata.quantiles == self._metadata.quantiles
        self._metadata = metadata

    def observe(self, published: Published) -> None:
        """Take in a batch; nothing is kept by reference."""
        events, result = published.events, published.result
        shown = published.stepped
        if result.late is not None and result.late.any():
            shown = shown & ~result.late  # the view shows events as they come, the newest last
        rows = chosen(shown)
        unique_ids = chosen_ids(rows, events.unique_ids)
        if not unique_ids:
            return
        ds, scores, now = events.ds[rows], published.metadata.scores, self._clock()
        covered = None
        if result.score is not None and COVERED in scores:
            covered = result.score[rows, scores.index(COVERED)]
        with self._lock:
            self._events += len(unique_ids)
            self._rate.add(now, len(unique_ids))
            self._num_streams = published.engine.residents.num_streams
            newest = int(ds.max())
            self._newest_ds = newest if self._newest_ds is None else max(newest, self._newest_ds)
            if covered is not None:
                known = ~np.isnan(covered)
                self._met += int(np.count_nonzero(known))
                self._met_covered += int(np.count_nonzero(covered[known] > 0))
            self._take_rows(
                self._rows(unique_ids),
                _Shown(
                    ds,
                    events.y[rows],
                    result.status[rows],
                    result.forecast[rows],
                    covered,
                    None if result.anomaly is None else result.anomaly[rows],
                ),
            )

    def record_latency(self, seconds: FloatArray) -> None:
        """Take in the ages of some events in seconds, `(n,)`; the newest few thousand are kept."""
        seconds = seconds[-_LATENCY_SAMPLES:]
        with self._lock:
            places = (self._latency_count + np.arange(seconds.size)) % _LATENCY_SAMPLES
            self._latency[places] = seconds
            self._latency_count += seconds.size

    def follow(self, unique_id: str) -> None:
        """Follow a stream because somebody asked for it, from its next event on."""
        with self._lock:
            if unique_id in self._asked:
                self._asked.move_to_end(unique_id)
            if unique_id in self._row_of or self._max_asked == 0:
                return
            if len(self._asked) == self._max_asked:
                oldest, _ = self._asked.popitem(last=False)
                self._release(self._row_of.pop(oldest))
            self._asked[unique_id] = None
            self._row_of[unique_id] = self._free.pop()

    def stream(self, unique_id: str) -> dict[str, Any]:
        """Return everything that is kept of a stream as plain JSON values.

        Numbers carry six significant digits; unknown ones are None.

        Raises:
            KeyError: The stream is not followed, or has had no event.
        """
        with self._lock:
            row = self._row_of.get(unique_id)
            if row is None or not self._count[row]:
                raise KeyError(unique_id)
            copied = self._copy(unique_id, row, self._y.shape[1])
        return copied.as_json(self._metadata) | {"revisions": copied.revisions_as_json(self._metadata)}

    def charted(self) -> list[str]:
        """Return the streams that are followed."""
        with self._lock:
            return list(self._row_of)

    def heard(self) -> dict[str, tuple[int, int]]:
        """Return the followed streams that have had an event, in no order.

        Returns:
            By stream, how many of its forecasts that are kept were scored, and how many of them were covered.
        """
        with self._lock:
            rows = {name: row for name, row in self._row_of.items() if self._count[row]}
            covered = self._covered.copy()
        scored = np.count_nonzero(~np.isnan(covered), axis=1).tolist()
        held = np.count_nonzero(covered > 0, axis=1).tolist()
        return {name: (scored[row], held[row]) for name, row in rows.items()}

    def streams(self, unique_ids: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Return a short form of followed streams that have had an event, in the form of `stream`.

        Args:
            unique_ids: The streams in their order; None = all.
        """
        # A small chart has room for as much past as future, and should show a daily shape.
        overview = max(48, self._metadata.horizon)
        with self._lock:
            rows, wanted = self._row_of, self._row_of if unique_ids is None else unique_ids
            heard = [name for name in wanted if name in rows and self._count[rows[name]]]
            copies = [self._copy(name, rows[name], overview) for name in heard]
        return [copied.as_json(self._metadata) for copied in copies]

    def silent_streams(self, silent: SilentStreams, route: str = "") -> None:  # noqa: ARG002  `LiveViews` has one a route
        """See `Observer.silent_streams`."""
        self._silent = silent

    @property
    def nominal_coverage(self) -> float:
        """Share of observations that the outer interval is meant to hold."""
        return round(self._metadata.quantiles[-1] - self._metadata.quantiles[0], 9)

    @property
    def silent(self) -> SilentStreams | None:
        """Streams without events, as of the last five seconds; None = not counted yet."""
        return self._silent

    def summary(self) -> dict[str, Any]:
        """Return the figures over all streams as plain JSON values."""
        metadata, silent = self._metadata, self._silent
        with self._lock:
            latency = self._latency[: min(self._latency_count, _LATENCY_SAMPLES)].copy()
            coverage = self._met_covered / self._met if self._met else None
            rate = self._rate.per_second(self._clock())
            events, met, num_streams, newest = self._events, self._met, self._num_streams, self._newest_ds
            followed = int(np.count_nonzero(self._count))
        return {
            "model": {
                "name": metadata.name,
                "model_id": metadata.model_id,
                "cell": metadata.cell,
                "freq": metadata.freq,
                "step_ms": metadata.frequency.nominal_ms,
                "horizon": metadata.horizon,
                "quantiles": list(metadata.quantiles),
            },
            "events": events,
            "events_per_second": rate,
            "streams": num_streams,
            "overdue_streams": None if silent is None else silent.overdue,
            "sleeping_streams": None if silent is None else silent.sleeping,
            "followed": followed,
            "newest_ds": newest,
            "coverage": {
                "nominal": self.nominal_coverage,
                "observed": coverage,
                "forecasts": met,
            },
            "latency_s": {
                "p50": float(np.quantile(latency, 0.5)) if latency.size else None,
                "p99": float(np.quantile(latency, 0.99)) if latency.size else None,
            },
        }

    def _rows(self, unique_ids: Sequence[str]) -> IntArray:
        """Return the row of each event's stream, `_UNSEEN` where it is not followed; follow new streams."""
        row_of = self._row_of
        if self._first_come < self._max_streams:
            for unique_id in unique_ids:
                if unique_id not in row_of:
                    row_of[unique_id] = self._free.pop()
                    self._first_come += 1
                    if self._first_come == self._max_streams:
                        break
        # `map` straight into the array takes half the time of a list in between.
        return np.fromiter(map(row_of.get, unique_ids, repeat(_UNSEEN)), np.int64, len(unique_ids))

    def _take_rows(self, rows: IntArray, shown: _Shown) -> None:
        """Append the events that moved a followed stream, and keep each stream's last forecast."""
        ds, y, status, forecast, covered, anomaly = shown
        events = np.flatnonzero((rows != _UNSEEN) & (status != Status.LATE) & (status != Status.DUPLICATE))
        if not events.size:
            return
        events = events[np.argsort(rows[events], kind="stable")]
        rows = rows[events]
        first = np.flatnonzero(np.diff(rows, prepend=_UNSEEN))
        per_stream = np.diff(first, append=rows.size)
        place = self._count[rows] + np.arange(rows.size) - np.repeat(first, per_stream)
        last = first + per_stream - 1
        recent = np.flatnonzero(np.repeat(last, per_stream) - np.arange(rows.size) <= REVISIONS)  # each stream's newest
        at = rows[recent], place[recent] % (REVISIONS + 1)
        self._origins[at] = ds[events[recent]]
        self._middles[at] = forecast[events[recent], :, self._trail_columns[1]]
        # More events of a stream than `history` in one poll: the ring wraps, and numpy lets the last one win.
        place %= self._y.shape[1]
        self._ds[rows, place] = ds[events]
        self._y[rows, place] = y[events]
        self._trail[rows, place] = forecast[events, 0][:, self._trail_columns]
        self._covered[rows, place] = np.nan if covered is None else covered[events]
        self._anomaly[rows, place] = np.nan if anomaly is None else anomaly[events]
        self._count[rows[last]] += per_stream
        self._status[rows[last]] = status[events[last]]
        self._forecast[rows[last]] = forecast[events[last]]

    def _release(self, row: int) -> None:
        self._count[row] = 0
        self._covered[row] = np.nan
        self._free.append(row)

    def _copy(self, unique_id: str, row: int, newest: int) -> _StreamCopy:
        """Copy the `newest` events of a row, oldest first."""
        count, size = int(self._count[row]), self._y.shape[1]
        place = np.arange(max(0, count - min(newest, size)), count) % size
        earlier = np.arange(max(0, count - 1 - REVISIONS), count - 1) % (REVISIONS + 1)
        return _StreamCopy(
            unique_id=unique_id,
            events=count,
            status=Status(int(self._status[row])),
            ds=self._ds[row, place],
            y=self._y[row, place],
            trail=self._trail[row, place],
            covered=self._covered[row, place],
            anomaly=self._anomaly[row, place],
            forecast=self._forecast[row].copy(),
            origins=self._origins[row, earlier],
            middles=self._middles[row, earlier],
        )


class _Shown(NamedTuple):
    """The columns of a batch that are shown."""

    ds: IntArray
    y: FloatArray
    status: StatusArray
    forecast: FloatArray
    covered: FloatArray | None
    anomaly: FloatArray | None


@dataclass(frozen=True, slots=True)
class _StreamCopy:
    """A copy of one stream's part of the view, for use outside the lock. Axis 0 of `ds` to `anomaly` is time."""

    unique_id: str
    events: int
    status: Status
    ds: IntArray
    y: FloatArray
    trail: FloatArray
    covered: FloatArray
    anomaly: FloatArray
    forecast: FloatArray
    origins: IntArray  # of the forecasts before the newest, oldest first
    middles: FloatArray  # of these, `(n, H)`

    def revisions_as_json(self, metadata: BundleMetadata) -> list[dict[str, Any]]:
        """Return the medians of the forecasts before the newest; `median[i]` is for the period from `ds[i]` on."""
        periods = np.arange(1, metadata.horizon + 1)
        return [
            {"ds": metadata.frequency.ahead(origin, periods).tolist(), "median": _json_numbers(middle)}
            for origin, middle in zip(self.origins.tolist(), self.middles, strict=True)
        ]

    def as_json(self, metadata: BundleMetadata) -> dict[str, Any]:
        """Return plain JSON values; `one_step` at index `i` was forecast at `ds[i]`, for the period after it.

        `one_step.ds` and `forecast.ds` hold the beginnings of the periods that are forecast.
        """
        known = self.covered[~np.isnan(self.covered)]
        begins = metadata.frequency.ahead
        # All quantiles in one call: readers spend most of their time here.
        ahead, horizon = _json_numbers(self.forecast.T.ravel()), metadata.horizon
        return {
            "unique_id": self.unique_id,
            "status": self.status.name.lower(),
            "events": self.events,
            "ds": self.ds.tolist(),
            "y": _json_numbers(self.y),
            "one_step": {
                "ds": begins(self.ds, 1).tolist(),
                "lower": _json_numbers(self.trail[:, 0]),
                "median": _json_numbers(self.trail[:, 1]),
                "upper": _json_numbers(self.trail[:, 2]),
            },
            "covered": _json_numbers(self.covered),
            "anomaly": _json_numbers(self.anomaly),
            "coverage": float(known.mean()) if known.size else None,
            "forecast": {
                "ds": begins(int(self.ds[-1]), np.arange(1, metadata.horizon + 1)).tolist(),
                "quantiles": {
                    str(level): ahead[column * horizon : (column + 1) * horizon]
                    for column, level in enumerate(metadata.quantiles)
                },
            },
        }


class _Rate:
    """Events per second over the last `RATE_WINDOW_S`, in a bounded number of buckets."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._buckets: deque[tuple[float, int]] = deque(maxlen=int(RATE_WINDOW_S / _RATE_BUCKET_S) + 1)

    def add(self, now: float, count: int) -> None:
        if self._buckets and now - self._buckets[-1][0] < _RATE_BUCKET_S:
            start, before = self._buckets.pop()
            self._buckets.append((start, before + count))
        else:
            self._buckets.append((now, count))

    def per_second(self, now: float) -> float:
        recent = sum(count for start, count in self._buckets if now - start <= RATE_WINDOW_S)
        # Just after the start the window is not full yet; at least one bucket keeps the divisor above 0.
        return recent / min(RATE_WINDOW_S, max(_RATE_BUCKET_S, now - self._since))


def _json_numbers(values: AnyArray) -> list[float | None]:
    """Return six significant digits of each value, None for what is not finite."""
    exact = values.astype(np.float64)
    finite = np.isfinite(exact)
    magnitude = np.where(finite & (exact != 0), np.abs(exact), 1.0)
    decimals = _DIGITS - 1 - np.floor(np.log10(magnitude))
    # Whole powers of ten on either side of the point: their reciprocals are not exact.
    up, down = 10.0 ** np.maximum(decimals, 0), 10.0 ** np.maximum(-decimals, 0)
    with np.errstate(invalid="ignore"):  # values that are not finite are dropped below
        rounded = np.round(exact * up / down) / up * down
    return [value if keep else None for value, keep in zip(rounded.tolist(), finite.tolist(), strict=True)]
