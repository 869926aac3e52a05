"""Whether a dashboard follows the types that Grafana publishes: its foundation SDK, made from Grafana's own schema.

The SDK reads a document without a word about fields and values that it does not know. Here both are told: a field that
is gone when the document is written again, and a value that is not of its field's type.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

UNITS: Final = frozenset(value for name, value in vars(units).items() if name[0] != "_" and isinstance(value, str))
_SDK: Final = "grafana_foundation_sdk"

register_default_plugins()


def faults(document: dict[str, Any]) -> list[str]:
    """Return what of a dashboard Grafana's schema does not have, with its place in the document."""
    read = Dashboard.from_json(document)
    written = json.loads(json.dumps(read, cls=JSONEncoder))
    return [*_lost(document, written, ""), *_mistyped(read, Dashboard, "")]


def _lost(given: Any, kept: Any, place: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            if name in kept:
                yield from _lost(value, kept[name], f"{place}/{name}")
            else:
                yield f"{place}/{name}: no such field"
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for number, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _lost(one, other, f"{place}/{number}")
    elif given != kept:
        yield f"{place}: {given!r} is read as {kept!r}"


def _mistyped(value: Any, hint: Any, place: str) -> Iterator[str]:
    if type(value).__module__.startswith(_SDK):  # also where the field takes options of any panel
        for name, inner in typing.get_type_hints(type(value)).items():
            yield from _mistyped(getattr(value, name), inner, f"{place}/{name}")
        return
    arguments = typing.get_args(hint)
    match typing.get_origin(hint) or hint:
        case typing.Union | types.UnionType:
            found = [list(_mistyped(value, each, place)) for each in arguments]
            yield from [] if [] in found else found[0]
        case kind if kind is list and isinstance(value, list):
            for number, each in enumerate(value):
                yield from _mistyped(each, arguments[0], f"{place}/{number}")
        case kind if kind is dict and isinstance(value, dict):
            for name, each in value.items():
                yield from _mistyped(each, arguments[1], f"{place}/{name}")
        case kind if not _is_one(value, kind, arguments):
            yield f"{place}: {value!r} is not {getattr(hint, '__name__', hint)}"


def _is_one(value: Any, kind: Any, arguments: tuple[Any, ...]) -> bool:
    if kind in (Any, object):
        return True
    if kind is typing.Literal:
        return value in arguments
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value in [member.value for member in kind]
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind
