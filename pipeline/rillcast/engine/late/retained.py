"""What each stream keeps so that a late event can be put into place: two older rows, and the inputs since the first.

To go back by up to K slots one would keep the last K rows of a stream. Two are enough: an *anchor* is a copy of a
stream's row that holds every event up to a slot, the older anchor is always at least K + 1 slots behind the stream's
newest event, and it takes at most 2 K + 1 steps to come from there to the present again. So a stream costs two rows and
2 K + 1 inputs, and in order it costs one copy of a row every K + 1 slots and no step of the model.

Owns: the anchors, the inputs, how often each slot's forecast was revised, and their form in a stored page. Does not
know: the model, streams' names, when to go back (`rillcast.engine.late.replay`).

Invariants, for a stream whose history is whole, with `newest` the slot of its newest event, accepted or not:
- `older <= newest - K - 1` and `older <= younger`; equal slots mean that there is no younger anchor;
- every event that is in the stream's row and not in its older anchor's is among the inputs, in a place of its own:
  these lie in at most 2 K + 1 slots in a row, and a slot's place is its number modulo that. What stands in the inputs
  from slots up to the older anchor's is old and means nothing.
A stream restored from a page without history begins one at its newest event. Where anchors stand depends on how events
were polled; what comes of going back does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from rillcast.arrays import AnyArray, IntArray
from rillcast.bundle.bundle import BundleMetadata, StateSpec
from rillcast.bundle.frequency import Frequency
from rillcast.engine.device import Device
from rillcast.engine.inputs import Inputs
from rillcast.engine.slab import Slab

NEVER: Final = int(np.iinfo(np.int64).min) // 2
"""Before all time, in milliseconds or in slots: a stream's newest event when it has had none."""
PREFIX: Final = "rewind."
_OLDER: Final = PREFIX + "older."
_YOUNGER: Final = PREFIX + "younger."
_SLOTS: Final = PREFIX + "slots"
_INPUT: Final = PREFIX + "input."
_REVISIONS: Final = PREFIX + "revisions"


class Kept(NamedTuple):
    """Inputs of some streams.

    Attributes:
        inputs: `(n,)` events.
        revisions: `(n,)` int32, how often the forecasts of their slots were revised.
    """

    inputs: Inputs
    revisions: npt.NDArray[np.int32]

    def of(self, streams: npt.NDArray[np.bool_]) -> Kept:
        """Return those of some of the streams."""
        return Kept(self.inputs.take(streams), self.revisions[streams])


@dataclass(frozen=True, slots=True)
class AllowedLateness:
    """How far streams go back.

    Attributes:
        slots: K; an event at most so many slots older than its stream's newest is put into place.
        frequency: of the slots.
        last_wins: whether another value for a slot replaces the one before, or is ignored.
    """

    periods: int
    frequency: Frequency
    last_wins: bool = False

    @property
    def inputs(self) -> int:
        """Inputs kept for each stream."""
        return 2 * self.periods + 1


Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""The shape of each covariate input of one event, by the input's name; all are float32."""
NO_COVARIATES: Final[Shapes] = {}


def shapes_of(metadata: BundleMetadata) -> Shapes:
    """Return the covariate inputs that a bundle takes beside time and observation."""
    shapes: dict[str, tuple[int, ...]] = {}
    if metadata.covariates:
        shapes["x"] = (len(metadata.covariates),)
    if metadata.known_ahead:
        shapes["future"] = (len(metadata.known_ahead), metadata.horizon)
    return shapes


def host_bytes(rewind: AllowedLateness, covariates: Shapes) -> int:
    """Return the bytes kept for each stream beside the anchors."""
    return 17 + (16 + 4 * sum(math.prod(shape) for shape in covariates.values())) * rewind.inputs


def page_columns(specs: Sequence[StateSpec], slots: int, covariates: Shapes) -> tuple[StateSpec, ...]:
    """Return what a stored page holds of each stream beside its state, with histories of `slots` slots; 0 = none."""
    if not slots:
        return ()
    inputs = 2 * slots + 1
    return (
        *(page_column(kind + spec.name, spec.dtype, spec.row_shape) for kind in (_OLDER, _YOUNGER) for spec in specs),
        page_column(_SLOTS, "int64", (2,)),
        page_column(_INPUT + "ds", "int64", (inputs,)),
        page_column(_INPUT + "y", "float32", (inputs,)),
        *(page_column(_INPUT + name, "float32", (inputs, *shape)) for name, shape in covariates.items()),
        page_column(_REVISIONS, "int32", (inputs,)),
    )


def page_column(name: str, dtype: str, row_shape: tuple[int, ...]) -> StateSpec:
    """Return the type of a column beside the state, under a name that no bundle's state can have.

    Raises:
        ValueError: no state could have this type or shape.
    """
    return StateSpec(name="column", dtype=dtype, row_shape=row_shape).model_copy(update={"name": name})


def is_row(name: str) -> bool:
    """Return whether a column of a page is an anchor, which may be stored in the form of the rows."""
    return name.startswith((_OLDER, _YOUNGER))


class RetainedSteps:
    """The histories of all slots of a slab. Used from one thread."""

    def __init__(
        self, specs: Sequence[StateSpec], device: Device, live: Slab, rewind: AllowedLateness, covariates: Shapes
    ) -> None:
        self._specs = tuple(specs)
        self._live = live
        self.rewind = rewind
        self._columns = page_columns(specs, rewind.periods, covariates)
        self._host_bytes = host_bytes(rewind, covariates)
        size = live.num_slots
        # Which of the two holds the older anchor changes from stream to stream: `_turned`.
        self._anchors = Slab(specs, device, size), Slab(specs, device, size)
        # Zeros take no memory until they are used; a slot's values are set by `clear` when it is handed out.
        self._turned: npt.NDArray[np.bool_] = np.zeros(size, np.bool_)
        self._older: IntArray = np.zeros(size, np.int64)
        self._younger: IntArray = np.zeros(size, np.int64)
        self._ds: IntArray = np.zeros((size, rewind.inputs), np.int64)
        self._inputs: dict[str, AnyArray] = {"ds": self._ds}
        for name, shape in {"y": (), **covariates}.items():
            self._inputs[name] = np.zeros((size, rewind.inputs, *shape), np.float32)
        self._revisions: npt.NDArray[np.int32] = np.zeros((size, rewind.inputs), np.int32)

    @property
    def slot_bytes(self) -> int:
        """Bytes kept for each slot."""
        return 2 * self._live.row_bytes + self._host_bytes

    def grow(self) -> None:
        """Follow the slab, which has grown."""
        size, more = self._live.num_slots, self._live.num_slots - self._older.size
        for anchors in self._anchors:
            anchors.ensure(size)

        def longer(array: Any) -> Any:
            return np.concatenate((array, np.zeros((more, *array.shape[1:]), array.dtype)))

        self._turned, self._older, self._younger = longer(self._turned), longer(self._older), longer(self._younger)
        self._inputs = {name: longer(column) for name, column in self._inputs.items()}
        self._ds, self._revisions = self._inputs["ds"], longer(self._revisions)

    # Anchors.

    def older(self, slots: IntArray) -> IntArray:
        """Return the slot of time of each older anchor."""
        return self._older[slots]

    def younger(self, slots: IntArray) -> IntArray:
        """Return the slot of time of each younger anchor; that of the older one where there is none."""
        return self._younger[slots]

    def clear(self, slots: IntArray) -> None:
        """Forget everything: the slots have no stream yet. The first event of one sets its first anchor."""
        self._older[slots] = self._younger[slots] = NEVER
        self._ds[slots] = NEVER

    def begin(self, slots: IntArray, at: IntArray) -> None:
        """Make the streams' rows as they are now their only anchors: nothing up to slot of time `at` can be reached."""
        self._copy_from_live(slots, younger=False)
        self._older[slots] = self._younger[slots] = at

    def turn(self, slots: IntArray, at: IntArray) -> None:
        """Make the younger anchors the older ones, and the rows as they are now, up to `at`, the younger ones."""
        has_younger = slots[self._younger[slots] > self._older[slots]]
        self._turned[has_younger] = ~self._turned[has_younger]
        self._older[slots] = self._younger[slots]
        self._copy_from_live(slots, younger=True)
        self._younger[slots] = at

    def renew(self, slots: IntArray) -> None:
        """Make the rows as they are now the younger anchors, which stay where they stood."""
        self._copy_from_live(slots, younger=True)

    def restore(self, slots: IntArray, younger: npt.NDArray[np.bool_]) -> None:
        """Overwrite the streams' rows with their older anchors, or with the younger ones where that is said."""
        second = self._turned[slots] ^ younger
        for which, anchors in enumerate(self._anchors):
            chosen = slots[second == bool(which)]
            if chosen.size:
                self._live.copy_from(anchors, chosen)

    def _copy_from_live(self, slots: IntArray, *, younger: bool) -> None:
        second = self._turned[slots] ^ younger
        for which, anchors in enumerate(self._anchors):
            chosen = slots[second == bool(which)]
            if chosen.size:
                anchors.copy_from(self._live, chosen)

    # Inputs.

    def place(self, numbers: IntArray) -> IntArray:
        """Return the place of slots of time among a stream's inputs."""
        return numbers % self.rewind.inputs

    def known(self, slots: IntArray, numbers: IntArray) -> npt.NDArray[np.bool_]:
        """Return for each stream whether it has an input in a slot of time, one that lies after its older anchor."""
        found = self.rewind.frequency.period_of(self._ds[slots, self.place(numbers)])
        known: npt.NDArray[np.bool_] = (found == numbers) & (numbers > self._older[slots])
        return known

    def same(self, slots: IntArray, numbers: IntArray, inputs: Inputs) -> npt.NDArray[np.bool_]:
        """Return for each stream whether what stands in the place of a slot of time says the same as another input."""
        at = slots, self.place(numbers)
        same: npt.NDArray[np.bool_] = np.ones(slots.size, np.bool_)
        for name, given in inputs.columns().items():
            if name != "ds":
                held = self._inputs[name][at]
                equal = (held == given) | (np.isnan(held) & np.isnan(given))
                same &= equal.reshape(slots.size, -1).all(axis=1)
        return same

    def note(self, slots: IntArray, inputs: Inputs) -> None:
        """Take in events that their streams have accepted, none of them revised."""
        numbers = self.rewind.frequency.period_of(inputs.ds)
        self.put(slots, numbers, Kept(inputs, np.zeros(slots.size, np.int32)))

    def get(self, slots: IntArray, numbers: IntArray) -> Kept:
        """Return what stands in the places of one slot of time of each stream."""
        return self.kept(slots, self.place(numbers))

    def put(self, slots: IntArray, numbers: IntArray, kept: Kept) -> None:
        """Overwrite what `get` returns."""
        at = slots, self.place(numbers)
        for name, column in kept.inputs.columns().items():
            self._inputs[name][at] = column
        self._revisions[at] = kept.revisions

    def times(self, slots: IntArray) -> IntArray:
        """Return the times of all inputs, `(n, 2 K + 1)`, in no order; `NEVER` = none."""
        return self._ds[slots]

    def kept(self, slots: IntArray, places: IntArray) -> Kept:
        """Return the inputs in some places."""
        inputs = Inputs(**{name: column[slots, places] for name, column in self._inputs.items()})
        return Kept(inputs, self._revisions[slots, places])

    def revise(self, slots: IntArray, numbers: IntArray) -> npt.NDArray[np.int32]:
        """Count a revision of one slot of time of each stream (pairs are unique) and return which it is, from 1."""
        at = slots, self.place(numbers)
        self._revisions[at] += 1
        return self._revisions[at]

    # Stored pages.

    def export(self, slots: IntArray) -> dict[str, AnyArray]:
        """Return the columns of a stored page; slots whose history is empty may hold anything in them."""
        first, second = (anchors.gather(slots) for anchors in self._anchors)
        turned = self._turned[slots]
        columns: dict[str, AnyArray] = {}
        for kind, swapped in ((_OLDER, turned), (_YOUNGER, ~turned)):
            for spec in self._specs:
                mask = swapped.reshape(-1, *(1,) * len(spec.row_shape))
                columns[kind + spec.name] = np.where(mask, second[spec.name], first[spec.name])
        columns[_SLOTS] = np.stack([self._older[slots], self._younger[slots]], axis=1)
        columns |= {_INPUT + name: column[slots] for name, column in self._inputs.items()}
        columns[_REVISIONS] = self._revisions[slots]
        return columns

    def load(self, slots: IntArray, columns: Mapping[str, AnyArray], newest: IntArray) -> None:
        """Take in what `export` returned; the streams' rows have been loaded already.

        Where the columns are missing, or were written for another number of slots, histories begin anew.

        Args:
            slots: of the streams.
            columns: of their page, `(n, ...)` each; other names are passed over.
            newest: `(n,)`, slot of time of each stream's newest event.
        """
        if not slots.size:
            return
        fitting = all(c.name in columns and columns[c.name].shape[1:] == c.row_shape for c in self._columns)
        if not fitting:
            self._ds[slots] = NEVER
            self.begin(slots, newest)
            return
        for kind, anchors in zip((_OLDER, _YOUNGER), self._anchors, strict=True):
            anchors.scatter(slots, {spec.name: columns[kind + spec.name] for spec in self._specs})
        self._turned[slots] = False
        self._older[slots], self._younger[slots] = columns[_SLOTS][:, 0], columns[_SLOTS][:, 1]
        for name, column in self._inputs.items():
            column[slots] = columns[_INPUT + name]
        self._revisions[slots] = columns[_REVISIONS]
