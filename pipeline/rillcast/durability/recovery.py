"""Where a newly assigned partition starts: pure decisions from what the group committed and what the store has.

Owns: the cases, and the errors for those that only an operator can decide. Does not know: how state is loaded or events
are read. `docs/delivery.md` tells operators the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from rillcast.errors import RecoveryError
from rillcast.stores.base import Mark
from rillcast.transports.base import Assignment

log = logging.getLogger(__name__)

Policy: TypeAlias = Literal["restore", "rebuild", "cold"]
_WAYS_OUT: Final = (
    "run `rillcast state rebuild` to step all retained events again, or set worker.recovery=cold to start every stream "
    "without state"
)


@dataclass(frozen=True, slots=True)
class StartRules:
    """Where partitions start, as the settings say.

    Attributes:
        policy: The setting `worker.recovery`.
        start_at: The setting `kafka.auto_offset_reset`, for a partition that the group has never committed.
    """

    policy: Policy = "restore"
    start_at: Literal["earliest", "latest"] = "earliest"


class Start(NamedTuple):
    """How a partition goes on.

    Attributes:
        position: Offset to read from.
        live_from: Results of events below it are suppressed, because they were published before.
        new_life: Whether the stored state was passed over; if there is any, it no longer counts.
    """

    position: int
    live_from: int
    new_life: bool


def is_ahead(mark: Mark, assignment: Assignment) -> bool:
    """Return whether state holds events that the group has not committed, as far as `assignment` knows."""
    return assignment.committed is None or mark.offset > assignment.committed


def decide(where: str, assignment: Assignment, mark: Mark | None, rules: StartRules) -> Start:
    """Return where to start.

    Args:
        where: `topic[partition]`, for messages.
        assignment: What the group committed and what the source retains.
        mark: The mark of the stored state; None = there is none, or the policy ignores it.
        rules: What the settings say.

    Raises:
        RecoveryError: State and offsets do not belong together, or events that are needed were deleted.
    """
    _, committed, beginning, end, added = assignment
    passed_over = rules.policy != "restore"
    if committed is None:
        if mark is not None:
            raise RecoveryError(
                f"{where}: there is state as of offset {mark.offset}, but the group has no committed offset: its "
                f"offsets expired or were deleted, or the state belongs to another group (state.topic, state.path). "
                f"To go on, {_WAYS_OUT}"
            )
        start_at = "earliest" if added else rules.start_at  # nobody has read what it has already
        position = beginning if start_at == "earliest" else end
        log.info("%s: never committed; starting at offset %d (%s)", where, position, start_at)
        return Start(position, position, new_life=passed_over)
    if not beginning <= committed <= end:
        raise RecoveryError(
            f"{where}: the committed offset {committed} is outside what the topic retains, [{beginning}, {end}]: "
            f"{_what_happened(committed, end)}. Reset the group's offsets and {_WAYS_OUT}, or start under another "
            f"kafka.group_id"
        )
    if rules.policy == "cold":
        log.warning("%s: recovery=cold; every stream starts without state at offset %d", where, committed)
        return Start(committed, committed, new_life=passed_over)
    if mark is None:
        if beginning > 0:
            log.warning(
                "%s: no stored state, and events before offset %d were deleted; state is rebuilt from there, as if the "
                "streams began there",
                where,
                beginning,
            )
        log.info("%s: rebuilding state from offset %d to %d, results suppressed", where, beginning, committed)
        return Start(beginning, committed, new_life=passed_over)
    if mark.offset < beginning:
        raise RecoveryError(
            f"{where}: stored state is as of offset {mark.offset}, but the topic begins at {beginning}: retention "
            f"took events that the state lacks. To go on without them, {_WAYS_OUT}"
        )
    if mark.offset > end:
        raise RecoveryError(
            f"{where}: stored state is as of offset {mark.offset}, but the topic ends at {end}: "
            f"{_what_happened(mark.offset, end)}. To go on, {_WAYS_OUT}"
        )
    if mark.offset > committed:
        raise RecoveryError(
            f"{where}: the group's offsets were reset: state is as of offset {mark.offset}, beyond the committed "
            f"offset {committed}. To step these events again, {_WAYS_OUT}"
        )
    log.info("%s: state as of offset %d loaded; replaying to %d, results suppressed", where, mark.offset, committed)
    return Start(mark.offset, committed, new_life=False)


def _what_happened(position: int, end: int) -> str:
    """Return why a position is not among the events that a topic retains."""
    if position <= end:
        return "events were deleted before they were read, or the topic was recreated"
    return "brokers lost events that they had acknowledged (unclean leader election), or the topic was recreated"
