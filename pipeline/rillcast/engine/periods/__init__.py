"""Periods: raw events become one observation for each stream and period of the model's frequency.

Rule: the observations of a stream are what an offline group-by of its events by period gives, in any interleaving,
batching and after any crash. Which events a period has, and when it closes, depends on the partition's events alone.
Does not know: transports, publishing, commits, the wall clock.

Code outside of the engine imports from this package only, not from its modules. It has no `stage`: the stage stands on
the residents, which stand on the partial aggregates.
"""

from rillcast.engine.periods.aggregates import KINDS, Aggregation, Close, Empty, Kind, value_of_empty
from rillcast.engine.periods.offline import Observations, aggregate
from rillcast.engine.periods.partials import Partials, page_columns
from rillcast.engine.periods.taken import RawOutcome, Taken

__all__ = [
    "KINDS",
    "Aggregation",
    "Close",
    "Empty",
    "Kind",
    "Observations",
    "Partials",
    "RawOutcome",
    "Taken",
    "aggregate",
    "page_columns",
    "value_of_empty",
]
