"""One result of a comparison of settings with what they name.

Owns: its form. Does not know: what is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["error", "warning", "good"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison.

    Attributes:
        level: `error` = the service would not run or forecast as meant, `warning` = look at it, `good` = it fits.
        about: What was compared: a topic, a setting.
        text: What was found, and what to do.
    """

    level: Level
    about: str
    text: str
