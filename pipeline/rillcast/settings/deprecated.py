"""Settings that were renamed: the old name still works, and a warning says the new one.

Owns: the table of renamed settings, and their translation in what one source says. Does not know: the settings
themselves, or the spelling of a source (flags, variables).
Invariant: an old name never reaches the settings' own checks, so that every other unknown name stays an error.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Mapping
from typing import Any, Final

from rillcast.errors import SettingsError

# Section, old name, new name.
_RENAMED: Final = (
    ("input", "rewind_slots", "allowed_lateness_periods"),
    ("worker", "step_beside_from", "step_thread_min_events"),
    ("rollout", "events_per_turn", "events_per_iteration"),
    ("http", "latest_streams", "cached_streams"),
)
RENAMED: Final[Mapping[str, str]] = {f"{section}.{old}": f"{section}.{new}" for section, old, new in _RENAMED}
"""Old path of a setting -> its path today."""

log = logging.getLogger(__name__)


def translate(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return what one source says with today's names, and warn of each old one.

    Args:
        values: Settings as nested tables; a section may be absent.
        source: Name of the source for messages, such as `the environment`.

    Raises:
        SettingsError: The source has a setting under both names.
    """
    translated = copy.deepcopy(dict(values))
    for section, old, new in _RENAMED:
        table = translated.get(section)
        if not isinstance(table, dict) or old not in table:
            continue
        if new in table:
            raise SettingsError(
                f"settings in {source}: {section}.{new} is given twice, also by its old name {section}.{old}; "
                f"remove {section}.{old}"
            )
        table[new] = table.pop(old)
        _warn(section, old, new, source)
    return translated


@functools.cache  # once in a process: the sources are read again for every `Settings` that code makes
def _warn(section: str, old: str, new: str, source: str) -> None:
    log.warning("settings in %s: %s.%s is now called %s.%s; rename it", source, section, old, section, new)
