"""A look at a topic or a file, and the settings that it leads to.

Owns: the order: records, layout, events as the service would read them, their figures, settings. Does not know: how a
proposal is shown or written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from rillcast.bundle.bundle import Bundle
from rillcast.codecs.connect import open_decoder
from rillcast.discovery import cadences, telling
from rillcast.discovery import layout as layouts
from rillcast.discovery import sample as samples
from rillcast.discovery.cadences import Kind
from rillcast.discovery.choice import Choice, choose
from rillcast.discovery.layout import Layout
from rillcast.discovery.profile import Profile, profile, repeated_periods
from rillcast.discovery.sample import Sample
from rillcast.errors import DataError
from rillcast.events import EventBatch
from rillcast.settings import FieldSettings, Settings, setting_paths
from rillcast.settings.section import with_home

_EXAMPLE_CHARS: Final = 200
_MOST_LABELS: Final = 4


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was found, and the settings that fit it.

    Attributes:
        sample: The records.
        layout: How they are written.
        events: The events that the service would read in them.
        profile: Their figures.
        choice: Settings by their path, with reasons.
        settings: All settings, as the service would have them.
        refused: Records that would become dead letters, by reason.
        example: The first of them.
    """

    sample: Sample
    layout: Layout
    events: EventBatch
    profile: Profile
    choice: Choice
    settings: Settings
    refused: Counter[str]
    example: str


def look(settings: Settings, *, seconds: float, records: int) -> Proposal:
    """Look at `input.topic` or `input.path`.

    Args:
        settings: Settings with the input and its connection. What they say of format and fields stays.
        seconds: Longest time to read a topic.
        records: Most records to read.

    Raises:
        TransportError: The topic cannot be read.
        SettingsError: The records need something that the settings do not name.
        DataError: There is no record, or the records are no observations.
    """
    if settings.input.path is None:
        sample = samples.of_topic(settings, seconds=seconds, records=records)
        return propose(settings, layouts.of_topic(settings, sample.polled), lambda _settings: sample)
    return propose(settings, layouts.of_file(settings), lambda proposed: samples.of_file(proposed, records=records))


def propose(settings: Settings, layout: Layout, read: Callable[[Settings], Sample]) -> Proposal:
    """Return the proposal for records of some layout.

    Args:
        settings: Settings with the input and its connection.
        layout: Format and fields of the records.
        read: Returns records, read with the settings of their format and fields.

    Raises:
        DataError: The records are no observations.
    """
    choice = Choice()
    _choose_input(choice, layout)
    counted = {"input.aggregate": "count"} if layout.chosen.y is None else {}
    proposed = settings_with(settings, choice.values | counted)
    sample = read(proposed)
    events, rejections = open_decoder(proposed, None).decode(sample.polled)
    refused = Counter(rejection.reason.value for rejection in rejections)
    example = next((rejection.detail for rejection in rejections), "")[:_EXAMPLE_CHARS]
    if not len(events):
        raise DataError(
            f"{sample.source}: none of {len(sample):,} records is an observation ({example}); say with "
            f"--input.fields.unique-id, --input.fields.ds and --input.fields.y where they have stream, time and value"
        )
    figures = profile(events)
    kinds = [] if settings.models or settings.model != _default("model") else cadences.kinds(layout.chosen, events)
    further = _tables(kinds, proposed, layout, read) if len(kinds) > 1 else None
    if further is None:
        further = choose(layout.chosen, figures, lambda freq: repeated_periods(events, freq))
        if len(kinds) > 1:
            further.notes.append(_untold(kinds))
    ordered = Choice(further.values | choice.values, further.why | choice.why, further.notes)
    _choose_rest(ordered, settings)
    values = {path: ordered.values[path] for path in setting_paths(Settings) if path in ordered.values}
    ordered.values = values
    final = settings_with(settings, values)
    return Proposal(sample, layout, events, figures, ordered, final, refused, example)


def _tables(
    kinds: Sequence[Kind], settings: Settings, layout: Layout, read: Callable[[Settings], Sample]
) -> Choice | None:
    """Return the choice of a model for each kind of streams; None = nothing tells them apart."""
    streams = [kind.streams for kind in kinds]
    found = telling.by_id(streams)
    labels = iter(list(layout.labels.items())[:_MOST_LABELS])
    while found is None and (label := next(labels, None)) is not None:
        found = telling.by_member(label[0], _texts_of(settings, *label, read), streams)
    return None if found is None else cadences.tables(kinds, *found)


def _untold(kinds: Sequence[Kind]) -> str:
    shares = ", ".join(f"{len(kind.streams):,} {'/'.join(kind.cadences[:3])}" for kind in kinds)
    return (
        f"streams of several cadences ({shares}) have one model, because neither a beginning or end of their ids nor a "
        f"member with few texts tells them apart; write tables of [[models]] if something else does"
    )


def _texts_of(
    settings: Settings, source: str, texts: Sequence[str], read: Callable[[Settings], Sample]
) -> dict[str, set[str | None]]:
    """Return the texts that a member has in the records of each stream, as the service's own tables find them."""
    tables = [
        {"name": f"text-{n}", "model": settings.model, "only": f"{source}={text}"} for n, text in enumerate(texts)
    ]
    asking = settings_with(settings, {"models": [*tables, {"name": "others", "model": settings.model}]})
    events, _ = open_decoder(asking, Bundle.load(settings.model).metadata).decode(read(asking).polled)
    assert events.routes is not None
    found: dict[str, set[str | None]] = {}
    for unique_id, route in zip(events.unique_ids, events.routes.tolist(), strict=True):
        found.setdefault(unique_id, set()).add(texts[route] if route < len(texts) else None)
    return found


def settings_with(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Return the settings with some of them changed, by their path."""
    every = settings.model_dump(mode="python")
    for path, value in values.items():
        *sections, name = path.split(".")
        table = every
        for section in sections:
            table = table[section]
        table[name] = value
    return Settings.model_validate(every)


def _choose_input(choice: Choice, layout: Layout) -> None:
    """Choose the input, its format and its fields.

    Raises:
        DataError: No column looks like a stream or a time.
    """
    given, chosen = layout.settings.input, layout.chosen
    where = given.topic if given.path is None else given.path
    if given.path is None:
        choice.set("input.topic", given.topic)
    else:
        choice.set("input.path", given.path)
    for name in ("format", "envelope", "separator", "decimal", "encoding"):
        value = getattr(given, name)
        if value != type(given).model_fields[name].default and not (name == "format" and value == "json"):
            choice.set(f"input.{name}", value)
    if chosen.ds is None:
        raise DataError(f"{where}: no member looks like a time; name it with --input.fields.ds")
    unique_id = chosen.unique_id
    if unique_id is None:
        if given.path is None:
            raise DataError(
                f"{where}: no member, key or header looks like the id of a stream; name it with "
                f"--input.fields.unique-id"
            )
        unique_id = ""
        choice.why["input.fields.unique_id"] = "no column looks like an id: the file is one stream"
    usual = FieldSettings()
    fields = {"unique_id": unique_id, "ds": chosen.ds, "y": chosen.y, "ds_unit": chosen.ds_unit}
    for name, value in fields.items():
        implied = name == "ds_unit" and value in ("auto", given.time_unit)
        if value is not None and value != getattr(usual, name) and not implied:
            choice.set(f"input.fields.{name}", value, _reason(choice, chosen.why, chosen.others, name))


def _reason(choice: Choice, why: Mapping[str, str], others: Mapping[str, list[str]], name: str) -> str:
    if name == "ds_unit":
        return ""
    text = choice.why.get(f"input.fields.{name}") or why.get(name, "")
    return f"{text}; others: {', '.join(others[name])}" if others.get(name) else text


def _choose_rest(choice: Choice, settings: Settings) -> None:
    """Choose where results go, and keep what the caller has set."""
    if settings.input.path is not None and settings.output.path is None:
        choice.set("output.path", "forecasts.jsonl")
    if settings.models:
        del choice.values["model"]
        choice.set("models", [table.model_dump(exclude_defaults=True) for table in settings.models])
    elif settings.model != _default("model") and settings.model != choice.values["model"]:
        choice.notes.append(f"without --model it would be {choice.values['model']}: {choice.why['model']}")
        choice.set("model", settings.model, "as you said")
    for path in setting_paths(Settings):
        value = _value_of(settings, path)
        if path in choice.values or isinstance(value, SecretStr) or value == _default(path):
            continue
        choice.set(path, value if isinstance(value, str | int | float | bool) else str(value))


def _default(path: str) -> Any:
    value = _value_of(Settings.model_construct(), path)
    return with_home(value) if isinstance(value, Path) else value


def _value_of(settings: Settings, path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = getattr(value, name)
    return value
