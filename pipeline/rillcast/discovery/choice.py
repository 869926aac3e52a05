"""The settings that fit a topic or a file: model, aggregation, lateness, fields.

Owns: the choice, with a reason for each setting. Does not know: how records are read, how settings are written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from rillcast.bundle import shipped
from rillcast.bundle.frequency import Frequency, parse
from rillcast.discovery.fields import Chosen
from rillcast.discovery.profile import Profile
from rillcast.discovery.words import SUMMED_WORDS, words
from rillcast.reading.paths import names

_NEAR: Final = 1.2  # ratio up to which the cadence of streams is that of a model
_FEW_REPEATS: Final = 0.02  # share of events that may repeat a period before aggregation pays
_REGULAR: Final = 0.5
_EVENTS_A_PERIOD: Final = 3  # at least, of a stream whose events come irregularly
_LATE: Final = 0.001
_OF_ONE_KIND: Final = 0.95  # share of streams of one cadence from which on the others need no word
_MOST_LATENESS: Final = 48
_ROUND_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 86_400)
_ASYNCHRONOUS: Final = 10  # periods by which the streams of a partition are apart in time


@dataclass(slots=True)
class Choice:
    """Settings by their path, in the order in which they are written, with what speaks for each.

    Attributes:
        values: Values of the settings.
        why: By path, the reason; no entry = it needs none.
        notes: What the user should know besides.
    """

    values: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set(self, path: str, value: Any, why: str = "") -> None:
        """Choose a value."""
        self.values[path] = value
        if why:
            self.why[path] = why


def duration(ms: int) -> str:
    """Return a duration for a person, in the largest unit of which it has at least one."""
    for unit, length in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if ms >= length:
            return f"{ms / length:.4g} {unit}"
    return f"{ms} ms"


def choose(chosen: Chosen, found: Profile, repeated: Callable[[str], float]) -> Choice:
    """Choose model, aggregation and lateness.

    Args:
        chosen: The fields of a record.
        found: Figures of the events.
        repeated: Returns the share of events that repeat a period of a frequency.
    """
    choice = Choice()
    counted = chosen.y is None
    freq, aggregate = _frequency(found, repeated, choice, counted=counted)
    if found.frequency is not None and found.frequencies.get(found.frequency, 1.0) < _OF_ONE_KIND and not aggregate:
        others = [f"{share:.0%} {each}" for each, share in found.frequencies.items() if each != found.frequency]
        choice.notes.append(
            f"not all streams have the cadence of the model ({', '.join(others)}); of slower ones the periods between "
            f"count as gaps. A table of [[models]] of their own serves them better"
        )
    if aggregate:
        _aggregate(choice, chosen, found, parse(freq))
    elif found.late > _LATE:
        periods = min(_MOST_LATENESS, math.ceil(found.lateness_ms / parse(freq).nominal_ms))
        choice.set(
            "input.allowed_lateness_periods",
            periods,
            f"{found.late:.1%} of the events are older than the newest of their stream, nearly all by at most "
            f"{duration(found.lateness_ms)}; costs two more rows of state per stream",
        )
    return choice


def _frequency(found: Profile, repeated: Callable[[str], float], choice: Choice, *, counted: bool) -> tuple[str, bool]:
    """Choose the model; return its frequency, and whether events have to be aggregated into its periods."""
    models = {name.removeprefix(shipped.PREFIX): name for name in shipped.names()}
    by_length = sorted(models, key=lambda freq: parse(freq).nominal_ms)
    if found.frequency is None:
        freq = "1h" if "1h" in models else by_length[0]
        choice.set("model", models[freq], "no stream has two events in the sample, so this is a guess")
        choice.notes.append("the cadence is unknown; look for longer (--seconds, --records)")
        return freq, counted
    length = parse(found.frequency).nominal_ms
    nearest = min(by_length, key=lambda freq: abs(math.log(parse(freq).nominal_ms / length)))
    if abs(math.log(parse(nearest).nominal_ms / length)) < math.log(_NEAR) and not counted:
        share = repeated(nearest)
        if share <= _FEW_REPEATS:
            choice.set("model", models[nearest], f"most streams have an event every {found.frequency}")
            return nearest, False
        if share <= 1 - _REGULAR:
            choice.set(
                "model",
                models[nearest],
                f"events come about every {found.frequency}; {share:.1%} fall into the period of an earlier one",
            )
            return nearest, True
    regular = found.regular >= _REGULAR
    least = length if regular else _EVENTS_A_PERIOD * max(1, found.step_ms)
    longer = [freq for freq in by_length if parse(freq).nominal_ms >= least]
    freq = longer[0] if longer else by_length[-1]
    what = f"every {found.frequency}" if regular else f"irregularly, {duration(found.step_ms)} apart in the middle"
    why = f"events come {what}; this is the next longer period that a shipped model has"
    if regular and found.frequency not in models:
        why += f". For {found.frequency} itself: rillcast universal export --freq {found.frequency} --out model.onnx"
    choice.set("model", models[freq], why)
    return freq, parse(freq).nominal_ms > length or not regular or counted


def _aggregate(choice: Choice, chosen: Chosen, found: Profile, frequency: Frequency) -> None:
    kind, why = _kind(chosen, found)
    choice.set("input.aggregate", kind, why)
    apart = found.disorder_ms
    if found.streams_per_partition[1] > 1 and apart <= _ASYNCHRONOUS * frequency.nominal_ms:
        choice.set(
            "input.close",
            "partition",
            "the streams of a partition run at the same time. With input.idle_s a partition that falls silent closes "
            "its periods too",
        )
        if apart:
            grace_s = next((s for s in _ROUND_S if s * 1_000 >= apart), math.ceil(apart / 1_000))
            choice.set(
                "input.grace_s",
                float(grace_s),
                f"nearly all events are at most {duration(apart)} older than the newest of their partition",
            )
    else:
        alone = found.streams_per_partition[1] == 1
        why = "a partition has one stream" if alone else "the streams of a partition do not run at the same time"
        choice.set("input.close", "stream", why)


def _kind(chosen: Chosen, found: Profile) -> tuple[str, str]:
    if chosen.y is None:
        return "count", "no member looks like a value, so the events are counted"
    if found.constant == 1:
        return "sum", "every value is 1"
    if all(words(name.rpartition(".")[2]) & SUMMED_WORDS for name in names(chosen.y)) and not found.negative:
        return "sum", f"by its name, {chosen.y} adds up over a period; or: mean, last, max, ..."
    return "mean", "values of a period are averaged; or: sum, last, max, count, ..."
