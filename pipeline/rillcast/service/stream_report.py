"""What the observers are told of all streams now and then: which are silent, and what their states hold."""

from __future__ import annotations

from collections.abc import Collection

from rillcast.engine.step_engine import SilentStream, SilentStreams
from rillcast.serving.router import Router


def report_streams(router: Router, live: Collection[int], overdue_periods: int, *, looks: bool = True) -> None:
    """Tell the observers of the streams of a route in the live partitions; no step may be in flight.

    Args:
        router: Knows which model serves a partition.
        live: The live partitions.
        looks: Whether observers may look at the states; of several routes they look at the first.
        overdue_periods: See `StepEngine.silent_streams`; 0 = silent streams are not looked for.
    """
    overdue, sleeping, named = 0, 0, list[SilentStream]()
    for model in router.all:
        own = [number for number in live if router.model_of(number) is model]
        if looks:
            model.publisher.look(own)
        if overdue_periods:
            found = model.engine.silent_streams(own, overdue_periods)
            overdue, sleeping = overdue + found.overdue, sleeping + found.sleeping
            named += found.named
    if overdue_periods:
        router.default.publisher.silent_streams(SilentStreams(overdue, sleeping, named))
