"""What a bundle says of its training.

Owns: the members of the metadata's `training`. Does not know: how a bundle is written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from torch import nn

from rillcast.bundle import trained_aggregate
from rillcast.bundle.frequency import parse
from rillcast_training.data.series import Series
from rillcast_training.fit.checkpoint import Progress
from rillcast_training.fit.compute import Compute
from rillcast_training.fit.kind import Kind


def summary(
    kind: Kind,
    series: Sequence[Series],
    progress: Progress,
    compute: Compute,
    module: nn.Module,
    *,
    refit: bool,
) -> dict[str, Any]:
    """Return the summary of a finished training for the metadata."""
    options = kind.options
    start_of = parse(options.freq).start_of
    return {
        "data": options.source,
        **({} if options.aggregate is None else {trained_aggregate.MEMBER: options.aggregate.as_settings()}),
        **({"init": options.init.name} if options.init is not None else {}),
        "network": str(kind),
        "series": len(series),
        "observations": sum(int((one.y == one.y).sum()) for one in series),
        "first_ds": _iso(start_of(min(int(one.periods[0]) for one in series))),
        "last_ds": _iso(start_of(max(int(one.periods[-1]) for one in series))),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "refit": refit,
        "seconds": round(progress.seconds, 1),
        "validation_loss": progress.best_loss,
        "seed": options.seed,
        "device": compute.device.type,
        "precision": compute.precision,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
    }


def _iso(milliseconds: int) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond."""
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
