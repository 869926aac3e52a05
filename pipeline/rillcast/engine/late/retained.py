"""The retained steps of each slot, which late events need: two older rows, and the inputs since the first.

To go back by up to K periods, a stream could keep its last K rows. Two are enough. An *anchor* is a copy of a stream's
row that contains every event up to a period. The older anchor is always at least K + 1 periods behind the stream's
newest event, and at most 2 K + 1 steps lead from it to the present. So a stream costs two rows and 2 K + 1 inputs.
While events are in order, that costs one copy of a row every K + 1 periods and no step of the model.

Owns: the anchors, the inputs, the number of revisions of each period's forecast, and their form in a stored page.
Does not know: the model, stream ids, when to go back (`rillcast.engine.late.replay`).

Invariants, for a stream with `newest` the period of its newest event, accepted or not:
- `older <= newest - K - 1` and `older <= younger`; equal periods mean that there is no younger anchor;
- every event that is in the stream's row and not in its older anchor is among the inputs, each at its own index. They
  lie in at most 2 K + 1 consecutive periods, and a period's index is its number modulo that. Inputs from periods up to
  the older anchor's are outdated and have no meaning.
A stream restored from a page without retained steps starts with an anchor at its newest event. Where anchors lie
depends on how events were polled; the result of a replay does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import BundleMetadata
from rillcast.bundle.frequency import Frequency
from rillcast.engine.device import Device
from rillcast.engine.inputs import Inputs
from rillcast.engine.late import stored
from rillcast.engine.late.stored import ANCHORS, INPUT, OLDER, REVISIONS, YOUNGER
from rillcast.engine.slab import Slab
from rillcast.engine.slot_state import NEVER

_BOOKKEEPING_BYTES = 17  # per slot: two int64 periods and one bool


class Steps(NamedTuple):
    """Retained steps of some streams, one each.

    Attributes:
        inputs: `(n,)` events.
        revisions: `(n,)` int32, how often the forecasts of their periods were revised.
    """

    inputs: Inputs
    revisions: npt.NDArray[np.int32]

    def take(self, streams: npt.NDArray[np.bool_]) -> Steps:
        """Return the steps of some of the streams."""
        return Steps(self.inputs.take(streams), self.revisions[streams])


@dataclass(frozen=True, slots=True)
class AllowedLateness:
    """Limit on the lateness of events.

    Attributes:
        periods: K; an event at most K periods older than its stream's newest event is applied.
        frequency: Length of a period.
        last_wins: Whether another value for a period replaces the one before; if not, it is ignored.
    """

    periods: int
    frequency: Frequency
    last_wins: bool = False

    @property
    def inputs(self) -> int:
        """Number of inputs that each stream retains."""
        return stored.inputs_per_stream(self.periods)


class RetainedSteps:
    """The retained steps of all slots of a slab. Used from one thread."""

    def __init__(self, metadata: BundleMetadata, device: Device, live: Slab, lateness: AllowedLateness) -> None:
        """Allocate the anchors and inputs.

        Args:
            metadata: Metadata of the bundle.
            device: Device of the rows.
            live: Rows that the model steps.
            lateness: How far streams go back.
        """
        self._specs = metadata.states
        self._live = live
        self.lateness = lateness
        self._columns = stored.page_columns(metadata, lateness.periods)
        self._host_bytes = self.host_bytes(metadata, lateness)
        size = live.num_slots
        # `_swapped` says for each stream which of the two slabs holds its older anchor.
        self._anchors = Slab(self._specs, device, size), Slab(self._specs, device, size)
        # Zeros take no memory until they are used; `clear` sets a slot's values when it is handed out.
        self._swapped: npt.NDArray[np.bool_] = np.zeros(size, np.bool_)
        self._older: IntArray = np.zeros(size, np.int64)
        self._younger: IntArray = np.zeros(size, np.int64)
        self._ds: IntArray = np.zeros((size, lateness.inputs), np.int64)
        self._inputs: dict[str, AnyArray] = {"ds": self._ds}
        for name, shape in {"y": (), **stored.covariate_shapes(metadata)}.items():
            self._inputs[name] = np.zeros((size, lateness.inputs, *shape), np.float32)
        self._revisions: npt.NDArray[np.int32] = np.zeros((size, lateness.inputs), np.int32)

    @staticmethod
    def host_bytes(metadata: BundleMetadata, lateness: AllowedLateness) -> int:
        """Return the bytes of host memory retained for each slot, without the anchors."""
        covariates = sum(math.prod(shape) for shape in stored.covariate_shapes(metadata).values())
        return _BOOKKEEPING_BYTES + (16 + 4 * covariates) * lateness.inputs

    @property
    def slot_bytes(self) -> int:
        """Bytes retained for each slot, anchors included."""
        return 2 * self._live.row_bytes + self._host_bytes

    def grow(self) -> None:
        """Make room for as many slots as the live slab has now."""
        size, more = self._live.num_slots, self._live.num_slots - self._older.size
        for anchors in self._anchors:
            anchors.ensure(size)

        def longer(array: Any) -> Any:
            return np.concatenate((array, np.zeros((more, *array.shape[1:]), array.dtype)))

        self._swapped, self._older, self._younger = longer(self._swapped), longer(self._older), longer(self._younger)
        self._inputs = {name: longer(column) for name, column in self._inputs.items()}
        self._ds, self._revisions = self._inputs["ds"], longer(self._revisions)

    # Anchors.

    def older(self, slots: IntArray) -> IntArray:
        """Return the period of each older anchor."""
        return self._older[slots]

    def younger(self, slots: IntArray) -> IntArray:
        """Return the period of each younger anchor; the older one's where there is none."""
        return self._younger[slots]

    def clear(self, slots: IntArray) -> None:
        """Forget everything in slots that have no stream yet. A stream's first event sets its first anchor."""
        self._older[slots] = self._younger[slots] = NEVER
        self._ds[slots] = NEVER

    def restart(self, slots: IntArray, at: IntArray) -> None:
        """Make the streams' present rows their only anchors, at periods `at`; nothing up to these can be reached."""
        self._copy_from_live(slots, younger=False)
        self._older[slots] = self._younger[slots] = at

    def advance(self, slots: IntArray, at: IntArray) -> None:
        """Make the younger anchors the older ones, and the present rows the younger ones, at periods `at`."""
        has_younger = slots[self._younger[slots] > self._older[slots]]
        self._swapped[has_younger] = ~self._swapped[has_younger]
        self._older[slots] = self._younger[slots]
        self._copy_from_live(slots, younger=True)
        self._younger[slots] = at

    def renew_younger(self, slots: IntArray) -> None:
        """Make the present rows the younger anchors, at the same periods as before."""
        self._copy_from_live(slots, younger=True)

    def restore(self, slots: IntArray, younger: npt.NDArray[np.bool_]) -> None:
        """Overwrite the streams' rows with their younger anchors where `younger` is true, else with the older ones."""
        second = self._swapped[slots] ^ younger
        for which, anchors in enumerate(self._anchors):
            chosen = slots[second == bool(which)]
            if chosen.size:
                self._live.copy_from(anchors, chosen)

    def _copy_from_live(self, slots: IntArray, *, younger: bool) -> None:
        second = self._swapped[slots] ^ younger
        for which, anchors in enumerate(self._anchors):
            chosen = slots[second == bool(which)]
            if chosen.size:
                anchors.copy_from(self._live, chosen)

    # Inputs.

    def known(self, slots: IntArray, periods: IntArray) -> npt.NDArray[np.bool_]:
        """Return for each stream whether it has an input in a period after its older anchor."""
        found = self.lateness.frequency.period_of(self._ds[slots, self._index_of(periods)])
        known: npt.NDArray[np.bool_] = (found == periods) & (periods > self._older[slots])
        return known

    def same(self, slots: IntArray, periods: IntArray, inputs: Inputs) -> npt.NDArray[np.bool_]:
        """Return for each stream whether its input at the index of a period has the same values as another input."""
        at = slots, self._index_of(periods)
        same: npt.NDArray[np.bool_] = np.ones(slots.size, np.bool_)
        for name, given in inputs.columns().items():
            if name != "ds":
                held = self._inputs[name][at]
                equal = (held == given) | (np.isnan(held) & np.isnan(given))
                same &= equal.reshape(slots.size, -1).all(axis=1)
        return same

    def add(self, slots: IntArray, inputs: Inputs) -> None:
        """Retain events that their streams have accepted, none of them revised."""
        periods = self.lateness.frequency.period_of(inputs.ds)
        self.set(slots, periods, Steps(inputs, np.zeros(slots.size, np.int32)))

    def get(self, slots: IntArray, periods: IntArray) -> Steps:
        """Return the step at the index of one period of each stream."""
        return self.at(slots, self._index_of(periods))

    def set(self, slots: IntArray, periods: IntArray, steps: Steps) -> None:
        """Overwrite the step at the index of one period of each stream."""
        at = slots, self._index_of(periods)
        for name, column in steps.inputs.columns().items():
            self._inputs[name][at] = column
        self._revisions[at] = steps.revisions

    def times(self, slots: IntArray) -> IntArray:
        """Return the times of all inputs by index, `(n, 2 K + 1)`; `NEVER` = none."""
        return self._ds[slots]

    def at(self, slots: IntArray, indices: IntArray) -> Steps:
        """Return the step at one index of each stream."""
        inputs = Inputs(**{name: column[slots, indices] for name, column in self._inputs.items()})
        return Steps(inputs, self._revisions[slots, indices])

    def count_revision(self, slots: IntArray, periods: IntArray) -> npt.NDArray[np.int32]:
        """Count a revision of one period of each stream (pairs are unique) and return its number, from 1."""
        at = slots, self._index_of(periods)
        self._revisions[at] += 1
        return self._revisions[at]

    def _index_of(self, periods: IntArray) -> IntArray:
        """Return the index of periods among a stream's inputs."""
        return periods % self.lateness.inputs

    # Stored pages.

    def export(self, slots: IntArray) -> dict[str, AnyArray]:
        """Return the columns of a stored page; slots without retained steps may hold any value."""
        first, second = (anchors.gather(slots) for anchors in self._anchors)
        swapped = self._swapped[slots]
        columns: dict[str, AnyArray] = {}
        for kind, from_second in ((OLDER, swapped), (YOUNGER, ~swapped)):
            for spec in self._specs:
                mask = from_second.reshape(-1, *(1,) * len(spec.row_shape))
                columns[kind + spec.name] = np.where(mask, second[spec.name], first[spec.name])
        columns[ANCHORS] = np.stack([self._older[slots], self._younger[slots]], axis=1)
        columns |= {INPUT + name: column[slots] for name, column in self._inputs.items()}
        columns[REVISIONS] = self._revisions[slots]
        return columns

    def load(self, slots: IntArray, columns: Mapping[str, AnyArray], newest_ds: IntArray) -> None:
        """Take in what `export` returned; the streams' rows have been loaded already.

        Streams start with an empty past where columns are missing or were written for another allowed lateness.

        Args:
            slots: `(n,)` int64, slots of the streams.
            columns: Columns of their page, `(n, ...)` each; other names are ignored.
            newest_ds: `(n,)` int64, times of each stream's newest event in milliseconds.
        """
        if not slots.size:
            return
        fitting = all(c.name in columns and columns[c.name].shape[1:] == c.row_shape for c in self._columns)
        if not fitting:
            self._ds[slots] = NEVER
            self.restart(slots, self.lateness.frequency.period_of(newest_ds))
            return
        for kind, anchors in zip((OLDER, YOUNGER), self._anchors, strict=True):
            anchors.scatter(slots, {spec.name: columns[kind + spec.name] for spec in self._specs})
        self._swapped[slots] = False
        self._older[slots], self._younger[slots] = columns[ANCHORS][:, 0], columns[ANCHORS][:, 1]
        for name, column in self._inputs.items():
            column[slots] = columns[INPUT + name]
        self._revisions[slots] = columns[REVISIONS]
