"""The kind of network that is trained: on top of a mixture of experts, or alone.

Owns: the rule where neither was asked for, and the reason in words. Does not know: training, how a network is made.

A run that is resumed keeps its kind, and so do weights that are trained further. Else it is a network on top of
experts, unless an option or the data need one alone. docs/experts.md ('On top, or alone') says what is known of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rillcast.bundle.bundle import Bundle
from rillcast.errors import SettingsError
from rillcast_training.data.series import Series
from rillcast_training.data.traces import taken
from rillcast_training.export.restore import is_on_experts
from rillcast_training.fit import parallel
from rillcast_training.fit.checkpoint import read, run_of
from rillcast_training.fit.on_experts import experts_shape
from rillcast_training.fit.options import TrainOptions

_LEAST_SHARE: Final = 0.5  # of the events, that training on top of experts has to see


@dataclass(frozen=True, slots=True)
class Kind:
    """What is trained.

    Attributes:
        options: The options with `experts` and `hidden` decided.
        reason: Why it is a network alone although nobody asked for one; empty = somebody did, or it is on experts.
    """

    options: TrainOptions
    reason: str = ""

    def __str__(self) -> str:
        if self.options.experts:
            return "a network on top of experts"
        return f"a network alone: {self.reason}" if self.reason else "a network alone"


def kind_of(options: TrainOptions, series: Sequence[Series]) -> Kind:
    """Decide between the two kinds.

    Args:
        options: Options of the run.
        series: What it is trained on.

    Raises:
        SettingsError: `init` is of the other kind than the one that is asked for.
    """
    if options.init is not None:
        return _decided(options, _kind_of_bundle(options, options.init))
    if options.experts is not None:
        return _decided(options, options.experts)
    if options.checkpoint is not None and (kept := parallel.from_first(lambda: read(options.checkpoint))) is not None:
        return _decided(
            options, bool(run_of(options.checkpoint, kept).get("experts"))
        )  # those of 0.1.0 have no such entry
    reason = _by_options(options) or _by_data(series)
    return replace(_decided(options, not reason), reason=reason)


def _decided(options: TrainOptions, experts: bool) -> Kind:
    chosen = replace(options, experts=experts)
    return Kind(replace(chosen, hidden=chosen.width))


def _kind_of_bundle(options: TrainOptions, init: Path) -> bool:
    there = is_on_experts(Bundle.load(init))
    if options.experts not in (None, there):
        kinds = {True: "a network on top of experts", False: "a network alone"}
        raise SettingsError(f"{init} is {kinds[there]}, and {kinds[not there]} cannot start from it; leave init out")
    return there


def _by_options(options: TrainOptions) -> str:
    """Return which option needs a network alone, and why; empty = none does."""
    if options.covariates:
        return "experts take no covariates"
    if options.context is not None or options.max_gap is not None:
        return "a context or a longest gap was given, and experts have neither"
    try:
        experts_shape(replace(options, experts=True), options.freq)
    except SettingsError as error:
        return f"no mixture of experts has this shape ({error})"
    return ""


def _by_data(series: Sequence[Series]) -> str:
    """Return why the data need a network alone; empty = they do not."""
    lengths = [len(one.periods) for one in series]
    seen = taken(lengths)
    if seen < _LEAST_SHARE * sum(lengths):
        return f"on top of experts {seen:,} of {sum(lengths):,} events could be trained on"
    return ""
