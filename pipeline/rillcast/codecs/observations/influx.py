"""Metrics in InfluxDB's line protocol, to a list of metrics with the members of Telegraf's JSON.

    cpu,host=web-17 usage_user=3.1,usage_idle=95i 1714564800000000000

A record is one line or several. A metric without a time has none here either; the mapping then takes `$timestamp`.
Text and truth values are fields, too; only numbers can be observations.

Owns: the syntax. Source: InfluxDB documentation, "Line protocol reference" (v2).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from rillcast.codecs.observations.rejections import Reason, RefusedError
from rillcast.reading.refusals import shown

# A name ends at an unescaped comma, blank or (not in a measurement) equals sign.
_MEASUREMENT: Final = re.compile(r"((?:[^\\, ]|\\.)+)")
_TAG: Final = re.compile(r",((?:[^\\,= ]|\\.)+)=((?:[^\\,= ]|\\.)+)")
_FIELD: Final = re.compile(
    r"((?:[^\\,= ]|\\.)+)="
    r"(?:(?P<float>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?P<whole>[iu])?"
    r"|(?P<truth>[tT]|[tT]rue|TRUE|[fF]|[fF]alse|FALSE)"
    r'|"(?P<text>(?:[^"\\]|\\.)*)")(?=[, ]|$)'
)
_END: Final = re.compile(r"(?: +(-?[0-9]+))? *")
_ESCAPED: Final = re.compile(r"\\([, =\\])")


class InfluxFormat:
    """Implements `rillcast.codecs.observations.format.Format`; a document is a list of metrics."""

    def decoder(self, shape: type[Any]) -> Callable[[bytes], Any]:  # noqa: ARG002  metrics have one shape
        """Return a function that returns a list of metrics."""
        return read_lines

    def refusal(self, value: bytes, error: Exception) -> tuple[Reason, str]:  # noqa: ARG002  the error has all facts
        """Return why the value is no observation."""
        if isinstance(error, UnicodeDecodeError):
            return Reason.NOT_UTF8, str(error)
        return Reason.NOT_INFLUX, str(error)


def read_lines(value: bytes) -> list[dict[str, Any]]:
    """Return the metric of each line; blank lines and comments are none.

    Raises:
        RefusedError: A line has another syntax.
        UnicodeDecodeError: The text is not UTF-8.
    """
    metrics = []
    for number, line in enumerate(value.decode().split("\n"), start=1):
        if (text := line.strip()) and not text.startswith("#"):
            try:
                metrics.append(_metric(text))
            except ValueError as error:
                raise RefusedError(Reason.NOT_INFLUX, f"line {number}, {error}") from error
    return metrics


def _metric(line: str) -> dict[str, Any]:
    if (name := _MEASUREMENT.match(line)) is None:
        raise ValueError(f"column 1: found {shown(line)}, expected a measurement")
    at, tags, fields = name.end(), {}, dict[str, Any]()
    while (tag := _TAG.match(line, at)) is not None:
        tags[_plain(tag[1])], at = _plain(tag[2]), tag.end()
    at = _expect(line, at, " ", "a tag NAME=TEXT, or a blank and the fields")
    while True:
        while line[at : at + 1] == " ":
            at += 1
        if (field := _FIELD.match(line, at)) is None:
            raise ValueError(f"column {at + 1}: found {shown(line[at : at + 40])}, expected a field NAME=VALUE")
        fields[_plain(field[1])], at = _value(field), field.end()
        if line[at : at + 1] != ",":
            break
        at += 1
    if (end := _END.fullmatch(line, at)) is None:
        raise ValueError(f"column {at + 1}: found {shown(line[at : at + 40])}, expected a time in whole numbers")
    metric: dict[str, Any] = {"name": _plain(name[1]), "tags": tags, "fields": fields}
    return metric if end[1] is None else metric | {"timestamp": int(end[1])}


def _value(field: re.Match[str]) -> Any:
    if (number := field["float"]) is not None:
        if field["whole"] is None:
            return float(number)
        return int(number)
    if field["truth"] is not None:
        return field["truth"][0] in "tT"
    return re.sub(r'\\(["\\])', r"\1", field["text"])


def _expect(line: str, at: int, sign: str, expected: str) -> int:
    if line[at : at + 1] != sign:
        raise ValueError(f"column {at + 1}: found {shown(line[at : at + 40])}, expected {expected}")
    return at + 1


def _plain(name: str) -> str:
    return _ESCAPED.sub(r"\1", name)
