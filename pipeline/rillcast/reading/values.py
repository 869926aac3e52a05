r"""Ids, numbers, categories and lists: what the value of a cell or a member means.

| form | id | number |
| --- | --- | --- |
| text | itself; not empty | a decimal number, blanks around it allowed |
| whole number, `7.0` too | its digits: `7` | itself |
| other number, decimal | refused | itself |
| null, NaN | refused | missing |
| empty text, and in any case `NA`, `N/A`, `#N/A`, `<NA>`, `null`, `None`, `NaN`, `NaT`, `\N` | text | missing |
| infinity | refused | refused |
| true, false | refused | refused |
| UUID, bytes that are UTF-8 | its text | refused |

Owns: these forms, and how several columns make one id. Does not know: times (`rillcast.reading.times`), limits of a
setting, what a missing value does.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from rillcast.reading.refusals import RefusedValueError, shown

MISSING: Final = frozenset({"", "na", "n/a", "#n/a", "<na>", "null", "none", "nan", "+nan", "-nan", "nat", "\\n"})
"""Texts of a missing number, in lower case and without blanks around them."""
MAX_ABS: Final = 1e15
"""Largest magnitude of an observation; beyond it float32 statistics may overflow."""
NUMBER: Final = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
"""Pattern of a decimal number."""
_NUMBER: Final = re.compile(NUMBER, re.ASCII)
_COMMA_NUMBER: Final = re.compile(NUMBER.replace(r"\.", ","), re.ASCII)
_INFINITE: Final = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE | re.ASCII)
_EXPECTED_ID: Final = "a stream's name: text or a whole number"
_EXPECTED_NUMBER: Final = "a number, or nothing if missing"
_PART: Final = re.compile(r"(?:[^/\\]|\\.)+")
_list = msgspec.json.Decoder(list[Any]).decode


def read_id(value: Any) -> str:
    """Return the id of a stream.

    Raises:
        RefusedValueError: It is missing, empty, or neither text nor a whole number.
    """
    if type(value) is str:
        if not value:
            raise RefusedValueError("bad_id", f"found '', expected {_EXPECTED_ID}")
        return value
    if value is None or value != value:  # NaN
        raise RefusedValueError("wrong_type", f"found nothing, expected {_EXPECTED_ID}")
    if isinstance(value, bytes):
        try:
            return read_id(value.decode())
        except UnicodeDecodeError as error:
            raise RefusedValueError("bad_id", f"found {shown(value)}, expected {_EXPECTED_ID}") from error
    if isinstance(value, uuid.UUID):
        return str(value)
    text = _whole(value)
    if text is None:
        raise RefusedValueError("wrong_type", f"found {_typed(value)}, expected {_EXPECTED_ID}")
    return text


def read_number(value: Any, decimal: str = ".") -> float | None:
    """Return a number, or None for a missing one.

    Args:
        value: Number, text or nothing.
        decimal: Sign between the whole part and the fraction of a text, `.` or `,`.

    Raises:
        RefusedValueError: It is neither a finite number nor missing.
    """
    if type(value) is str:
        return _number_of_text(value, decimal)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise RefusedValueError("wrong_type", f"found {_typed(value)}, expected {_EXPECTED_NUMBER}")
    try:
        number = float(value)
    except (OverflowError, ValueError):  # a whole number beyond float64; a signalling NaN
        number = math.inf
    return _finite(number, value)


def read_category(value: Any) -> str | None:
    """Return a category, or None for a missing one; an empty text is missing, blanks around it do not count.

    Raises:
        RefusedValueError: It is neither text, a whole number nor a truth value.
    """
    if value is None or value != value:
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "true" if value else "false"
    text = _whole(value)
    if text is None:
        raise RefusedValueError("wrong_type", f"found {_typed(value)}, expected a category: text or a whole number")
    return text


def read_numbers(value: Any) -> list[float | None] | None:
    """Return a list of numbers, or None where there is none; text is a JSON list.

    Raises:
        RefusedValueError: It is no list, or an element is no number.
    """
    found = value
    if isinstance(value, str):
        if value.strip().lower() in MISSING:
            return None
        try:
            found = _list(value)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise RefusedValueError("wrong_type", f"found {shown(value)}, expected a list of numbers") from error
    if found is None:
        return None
    if not isinstance(found, Sequence) or isinstance(found, bytes):
        raise RefusedValueError("wrong_type", f"found {_typed(value)}, expected a list of numbers")
    return [read_number(one) for one in found]


def join_ids(parts: Sequence[str]) -> str:
    r"""Return one id for several parts, joined by `/`; different parts give different ids.

    Within a part `/` is written `\/` and `\` is written `\\`. One part alone stays as it is.
    """
    if len(parts) == 1:
        return parts[0]
    return "/".join(part.replace("\\", "\\\\").replace("/", "\\/") for part in parts)


def entity_of(unique_id: str) -> str:
    """Return the id without its last part, where `join_ids` made it of several: the host of `host/cpu`."""
    parts = [part.replace("\\/", "/").replace("\\\\", "\\") for part in _PART.findall(unique_id)]
    return join_ids(parts[:-1]) if len(parts) > 1 else unique_id


def _number_of_text(text: str, decimal: str) -> float | None:
    if decimal == "." and _NUMBER.fullmatch(text) and (number := float(text)) - number == 0.0:
        return number  # the usual form, before all others
    bare = text.strip()
    if bare.lower() in MISSING:
        return None
    if (_NUMBER if decimal == "." else _COMMA_NUMBER).fullmatch(bare):
        return _finite(float(bare if decimal == "." else bare.replace(",", ".")), text)
    if _INFINITE.fullmatch(bare):
        return _finite(math.inf, text)
    found = f"found {shown(text)}, expected {_EXPECTED_NUMBER}"
    if decimal == "." and _COMMA_NUMBER.fullmatch(bare):
        raise RefusedValueError("wrong_type", f"{found} (a decimal comma?)", "decimal")
    raise RefusedValueError("wrong_type", found)


def _finite(number: float, found: Any) -> float | None:
    if math.isinf(number):
        raise RefusedValueError("y_out_of_range", f"found {shown(found)}, expected a finite number")
    return None if math.isnan(number) else number


def _whole(value: Any) -> str | None:
    """Return the digits of a whole number, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        return str(int(value)) if value == int(value) else None
    except (OverflowError, ValueError):
        return None


def _typed(value: Any) -> str:
    return f"{shown(value)} ({type(value).__name__})"
